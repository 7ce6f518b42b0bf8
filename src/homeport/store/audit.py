"""The audit log: rows that are only ever added, each with a digest over its predecessor's and its own content.

The digest is SHA-256 over the previous digest and the row as canonical JSON (sorted keys, no spaces), so a row that is changed, taken
out or put in breaks the chain at its place. Database triggers refuse changes as well (migration 0002).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select, text

from homeport.store.database import Database
from homeport.store.tables import audit as table

START = "0" * 64
"""What the first row's digest is computed over."""

PAGE = 1000


@dataclass(frozen=True)
class AuditRow:
    seq: int
    at: datetime
    actor: str
    """Name of the API key, or `homeport`."""
    origin: str
    """Key id and peer address: `key 1f2e from 127.0.0.1`."""
    action: str
    """`set`, `unset`, `reveal`, `export`, `use`, `rekey`, …"""
    subject: str
    """`project/environment/name@version`."""
    previous: str
    digest: str

    def computed(self) -> str:
        """The digest this row must have."""
        body = {
            "seq": self.seq,
            "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "actor": self.actor,
            "origin": self.origin,
            "action": self.action,
            "subject": self.subject,
        }
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(f"{self.previous}\n{text}".encode()).hexdigest()


class AuditRows:
    def __init__(self, database: Database) -> None:
        self.database = database

    def append(self, *, actor: str, origin: str, action: str, subject: str) -> AuditRow:
        """Add one row behind the newest, durably. Two writers wait for each other."""
        return self.append_all(actor, origin, [(action, subject)])

    def append_all(self, actor: str, origin: str, done: Sequence[tuple[str, str]]) -> AuditRow:
        """Add a row for each `(action, subject)`, all or none, durably; returns the last."""
        with self.database.transaction() as db:
            if not self.database.sqlite:
                db.execute(text("LOCK TABLE audit IN EXCLUSIVE MODE"))
            last = db.execute(select(table.c.seq, table.c.digest).order_by(table.c.seq.desc()).limit(1)).first()
            seq, previous = (int(last.seq), str(last.digest)) if last else (0, START)
            rows = []
            for action, subject in done:
                row = AuditRow(seq + 1, datetime.now(UTC), actor, origin, action, subject, previous, "")
                rows.append(AuditRow(**{**row.__dict__, "digest": row.computed()}))
                seq, previous = rows[-1].seq, rows[-1].digest
            db.execute(insert(table), [row.__dict__ for row in rows])
        return rows[-1]

    def list(self, *, subject: str = "", action: str = "", actor: str = "", after: int = 0, limit: int = 100) -> list[AuditRow]:
        """The newest `limit` rows that fit, oldest first. `subject` is a beginning: `shop/production/`."""
        query = select(table).where(table.c.seq > after)
        if subject:
            query = query.where(table.c.subject.startswith(subject, autoescape=True))
        if action:
            query = query.where(table.c.action == action)
        if actor:
            query = query.where(table.c.actor == actor)
        with self.database.transaction() as db:
            rows = db.execute(query.order_by(table.c.seq.desc()).limit(limit)).mappings().all()
        return [_row(row) for row in reversed(rows)]

    def get(self, seq: int) -> AuditRow | None:
        """The row of a number."""
        with self.database.transaction() as db:
            row = db.execute(select(table).where(table.c.seq == seq)).mappings().first()
        return _row(row) if row is not None else None

    def all(self) -> Iterator[AuditRow]:
        """Every row, oldest first, a page at a time."""
        after = -1
        while True:
            with self.database.transaction() as db:
                rows = db.execute(select(table).where(table.c.seq > after).order_by(table.c.seq).limit(PAGE)).mappings().all()
            if not rows:
                return
            for row in rows:
                yield _row(row)
            after = int(rows[-1]["seq"])


def _row(row: Any) -> AuditRow:
    return AuditRow(**row)
