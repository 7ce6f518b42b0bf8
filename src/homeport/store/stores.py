"""Outside secret stores that this home knows. Their credentials lie sealed in the vault, not here."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import delete, insert, select

from homeport.store.database import Database
from homeport.store.tables import secret_stores as table


@dataclass(frozen=True)
class StoreRow:
    name: str
    kind: str
    address: str
    options: dict[str, str]
    projects: list[str] = field(default_factory=list)
    """Projects that may refer to it; empty means all."""
    created_at: datetime | None = None
    created_by: str = ""


class SecretStores:
    def __init__(self, database: Database) -> None:
        self.database = database

    def put(self, row: StoreRow) -> None:
        """Add a store, or replace the one of that name."""
        with self.database.transaction() as db:
            db.execute(delete(table).where(table.c.name == row.name))
            db.execute(insert(table).values(**row.__dict__))

    def get(self, name: str) -> StoreRow | None:
        with self.database.transaction() as db:
            row = db.execute(select(table).where(table.c.name == name)).mappings().first()
        return StoreRow(**row) if row else None

    def list(self) -> list[StoreRow]:
        with self.database.transaction() as db:
            return [StoreRow(**row) for row in db.execute(select(table).order_by(table.c.name)).mappings()]

    def remove(self, name: str) -> bool:
        with self.database.transaction() as db:
            return bool(db.execute(delete(table).where(table.c.name == name)).rowcount)
