"""Events: everything that happened, by whom."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select

from homeport.store.database import Database
from homeport.store.tables import events as table


@dataclass(frozen=True)
class EventRow:
    seq: int
    at: datetime
    project: str
    environment: str
    kind: str
    """`deploy.live`, `instance.crashed`, `env.set`, …"""
    actor: str
    subject: str
    text: str
    """One sentence for a person."""
    data: dict[str, Any]


class Events:
    def __init__(self, database: Database) -> None:
        self.database = database

    def add(
        self, kind: str, text: str, *, project: str = "", environment: str = "", actor: str = "homeport", subject: str = "", **data: Any
    ) -> None:
        with self.database.transaction() as db:
            values = {"project": project, "environment": environment, "actor": actor, "subject": subject}
            db.execute(insert(table).values(at=datetime.now(UTC), kind=kind, text=text, data=data, **values))

    def list(self, project: str = "", environment: str = "", *, after: int = 0, limit: int = 100) -> list[EventRow]:
        """The newest `limit` after a sequence number, oldest first."""
        query = select(table).where(table.c.seq > after)
        if project:
            query = query.where(table.c.project == project)
        if environment:
            query = query.where(table.c.environment == environment)
        with self.database.transaction() as db:
            rows = db.execute(query.order_by(table.c.seq.desc()).limit(limit)).mappings().all()
        return [EventRow(**row) for row in reversed(rows)]
