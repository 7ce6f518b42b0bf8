"""The ownership ledger: everything on the machine that Homeport made. Clean-up asks it, never 'what looks unused'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, insert, select, update

from homeport.store.database import Database
from homeport.store.tables import ledger as table


@dataclass(frozen=True)
class LedgerRow:
    kind: str
    """`port`, `address`, `volume`, `addon`, `account`, …"""
    key: str
    owner: str
    """`project/environment[/service]`."""
    value: dict[str, Any]
    created_at: datetime
    tombstoned_at: datetime | None


class Ledger:
    def __init__(self, database: Database) -> None:
        self.database = database

    def claim(self, kind: str, key: str, owner: str, **value: Any) -> bool:
        """Own a thing. False when somebody else does; claiming one's own again is True."""
        with self.database.transaction() as db:
            row = db.execute(select(table.c.owner).where(table.c.kind == kind, table.c.key == key)).scalar()
            if row is None:
                db.execute(insert(table).values(kind=kind, key=key, owner=owner, value=value, created_at=datetime.now(UTC)))
            return row is None or row == owner

    def assign(self, kind: str, owner: str, choose: Callable[[set[str]], str]) -> str:
        """The owner's one key of a kind: the one it has, or `choose(taken)` claimed for it."""
        with self.database.transaction() as db:
            row = db.execute(select(table.c.key).where(table.c.kind == kind, table.c.owner == owner)).scalar()
            if row is not None:
                return str(row)
            taken = set(db.execute(select(table.c.key).where(table.c.kind == kind)).scalars())
            key = choose(taken)
            db.execute(insert(table).values(kind=kind, key=key, owner=owner, value={}, created_at=datetime.now(UTC)))
            return key

    def list(self, kind: str = "", owner: str = "") -> list[LedgerRow]:
        """Rows of a kind and of an owner (or of what lies below it)."""
        query = select(table)
        if kind:
            query = query.where(table.c.kind == kind)
        if owner:
            query = query.where((table.c.owner == owner) | table.c.owner.startswith(owner + "/", autoescape=True))
        with self.database.transaction() as db:
            rows = db.execute(query.order_by(table.c.kind, table.c.key)).mappings().all()
        return [LedgerRow(**row) for row in rows]

    def tombstone(self, kind: str, key: str, **value: Any) -> None:
        """Mark as given up; what it names is removed 7 days later."""
        with self.database.transaction() as db:
            where = (table.c.kind == kind, table.c.key == key)
            db.execute(update(table).where(*where).values(tombstoned_at=datetime.now(UTC), value=value))

    def release(self, kind: str, key: str) -> None:
        with self.database.transaction() as db:
            db.execute(delete(table).where(table.c.kind == kind, table.c.key == key))
