"""Instances as they should be: one row each, from before it starts until after it is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from homeport.store.database import Database
from homeport.store.tables import instances as table


@dataclass(frozen=True)
class InstanceRow:
    """One instance."""

    id: str
    project: str
    environment: str
    service: str
    number: int
    """Release."""
    ordinal: int
    role: str
    """`candidate` (not yet live), `live`, `warm` (former release, may come back at once), `retiring` (to be stopped)."""
    host: str
    port: int
    state: str
    """`new`, `starting`, `healthy`, `unwell`, `backoff`, `failed` or `stopped`."""
    restarts: int
    crashes: int
    """Ends by itself since it was started by its release."""
    detail: str
    started_at: datetime | None
    retire_at: datetime | None
    """When a warm or retiring one is stopped at the latest."""


class Instances:
    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, rows: Sequence[InstanceRow]) -> None:
        """Write rows down; those that are there already stay as they are."""
        with self.database.transaction() as db:
            known = set(db.execute(select(table.c.id).where(table.c.id.in_([row.id for row in rows]))).scalars())
            for row in rows:
                if row.id not in known:
                    db.execute(insert(table).values(**row.__dict__))

    def revive(self, ids: Sequence[str]) -> None:
        """Warm rows become candidates again: their release is about to go live once more."""
        with self.database.transaction() as db:
            db.execute(update(table).where(table.c.id.in_(list(ids)), table.c.role == "warm").values(role="candidate", retire_at=None))

    def get(self, id: str) -> InstanceRow | None:
        with self.database.transaction() as db:
            row = db.execute(select(table).where(table.c.id == id)).mappings().first()
        return InstanceRow(**row) if row else None

    def list(
        self, project: str = "", environment: str = "", *, number: int | None = None, role: str = "", service: str = ""
    ) -> list[InstanceRow]:
        query = select(table)
        for column, value in (("project", project), ("environment", environment), ("role", role), ("service", service)):
            if value:
                query = query.where(table.c[column] == value)
        if number is not None:
            query = query.where(table.c.number == number)
        with self.database.transaction() as db:
            rows = db.execute(query.order_by(table.c.service, table.c.number, table.c.ordinal)).mappings().all()
        return [InstanceRow(**row) for row in rows]

    def change(self, id: str, **values: Any) -> None:
        with self.database.transaction() as db:
            db.execute(update(table).where(table.c.id == id).values(**values))

    def remove(self, ids: Sequence[str]) -> None:
        with self.database.transaction() as db:
            db.execute(delete(table).where(table.c.id.in_(list(ids))))


def put_roles(db: Connection, project: str, environment: str, number: int, *, retire_at: datetime, keep_warm: Sequence[str]) -> None:
    """The release's rows become `live`; live rows of others become `warm` (services in `keep_warm`) or `retiring`.

    Older warm ones retire.
    """
    mine = (table.c.project == project, table.c.environment == environment)
    db.execute(update(table).where(*mine, table.c.number != number, table.c.role == "warm").values(role="retiring"))
    former = (*mine, table.c.number != number, table.c.role == "live")
    db.execute(update(table).where(*former, table.c.service.in_(list(keep_warm))).values(role="warm", retire_at=retire_at))
    db.execute(update(table).where(*former, table.c.service.not_in(list(keep_warm))).values(role="retiring", retire_at=None))
    db.execute(update(table).where(*mine, table.c.number == number).values(role="live", retire_at=None))
