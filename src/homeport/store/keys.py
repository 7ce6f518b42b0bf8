"""API keys: only their digests are kept."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select, update

from homeport.store.database import Database
from homeport.store.tables import api_keys as table
from homeport.store.tables import settings

SCOPES = ("read", "deploy", "secrets", "admin")
"""What a key may do; each includes nothing of the others, `admin` includes all."""


@dataclass(frozen=True)
class KeyRow:
    id: str
    name: str
    digest: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None

    def allows(self, scope: str) -> bool:
        return "admin" in self.scopes or scope in self.scopes


class ApiKeys:
    def __init__(self, database: Database) -> None:
        self.database = database

    def create(self, name: str, scopes: list[str], *, expires_at: datetime | None = None) -> tuple[KeyRow, str]:
        """A new key of 256 random bits; the text is returned once and never stored."""
        text = "hp_" + secrets.token_urlsafe(32)
        row = KeyRow(secrets.token_hex(8), name, _digest(text), scopes, datetime.now(UTC), None, expires_at, None)
        with self.database.transaction() as db:
            db.execute(insert(table).values(**row.__dict__))
        return row, text

    def rotate(self, id: str, until: datetime) -> tuple[KeyRow, str] | None:
        """A new key with the name and scopes of another, which ends at `until` (or when it would have, if that is sooner).

        None when there is no such key that still works.
        """
        text, moment = "hp_" + secrets.token_urlsafe(32), datetime.now(UTC)
        with self.database.transaction() as db:
            old = db.execute(select(table).where(table.c.id == id, table.c.revoked_at.is_(None))).mappings().first()
            if old is None or (old["expires_at"] is not None and old["expires_at"] <= moment):
                return None
            ends = until if old["expires_at"] is None else min(until, old["expires_at"])
            row = KeyRow(secrets.token_hex(8), old["name"], _digest(text), old["scopes"], moment, None, old["expires_at"], None)
            db.execute(update(table).where(table.c.id == id).values(expires_at=ends))
            db.execute(insert(table).values(**row.__dict__))
        return row, text

    def find(self, text: str) -> KeyRow | None:
        """The key a caller presents, unless revoked or expired. Looked up by digest, so timing tells nothing."""
        with self.database.transaction() as db:
            row = db.execute(select(table).where(table.c.digest == _digest(text))).mappings().first()
            if row is None or row["revoked_at"] is not None or (row["expires_at"] is not None and row["expires_at"] <= datetime.now(UTC)):
                return None
            used = row["last_used_at"]
            if used is None or (datetime.now(UTC) - used).total_seconds() > 60:
                db.execute(update(table).where(table.c.id == row["id"]).values(last_used_at=datetime.now(UTC)))
        return KeyRow(**row)

    def list(self) -> list[KeyRow]:
        with self.database.transaction() as db:
            return [KeyRow(**row) for row in db.execute(select(table).order_by(table.c.created_at)).mappings()]

    def revoke(self, id: str) -> bool:
        with self.database.transaction() as db:
            done = db.execute(update(table).where(table.c.id == id, table.c.revoked_at.is_(None)).values(revoked_at=datetime.now(UTC)))
            return bool(done.rowcount)

    def first_run_token(self) -> str | None:
        """A token to print once: whoever presents it first gets an admin key. None when one was made before."""
        with self.database.transaction() as db:
            if db.execute(select(settings.c.value).where(settings.c.key == "first-run")).first() is not None:
                return None
            token = secrets.token_urlsafe(24)
            db.execute(insert(settings).values(key="first-run", value={"digest": _digest(token), "used": False}))
        return token

    def redeem(self, token: str) -> bool:
        """Use the first-run token up; True for the one caller who did."""
        with self.database.transaction() as db:
            value: dict[str, Any] | None = db.execute(select(settings.c.value).where(settings.c.key == "first-run")).scalar()
            if not value or value["used"] or not secrets.compare_digest(value["digest"], _digest(token)):
                return False
            db.execute(update(settings).where(settings.c.key == "first-run").values(value={**value, "used": True}))
        return True


def _digest(text: str) -> str:
    # Keys carry 256 random bits, so a plain SHA-256 cannot be searched; a slow hash would only slow callers down.
    return hashlib.sha256(text.encode()).hexdigest()
