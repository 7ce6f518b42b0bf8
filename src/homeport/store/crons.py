"""Runs of scheduled jobs. The id names the slot, so that a slot never runs twice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update

from homeport.store.database import Database
from homeport.store.tables import cron_runs as table


@dataclass(frozen=True)
class CronRun:
    id: str
    """`<project>-<environment>-<service>-<slot>`; also the instance's id."""
    project: str
    environment: str
    service: str
    number: int
    scheduled_for: datetime | None
    trigger: str
    """`schedule` or `manual`."""
    status: str
    """`running`, `succeeded`, `failed`, `skipped` or `lost`."""
    code: int | None
    detail: str
    started_at: datetime | None
    finished_at: datetime | None


class CronRuns:
    def __init__(self, database: Database) -> None:
        self.database = database

    def begin(self, run: CronRun) -> bool:
        """Write a run down; False when its slot was taken before."""
        with self.database.transaction() as db:
            if db.execute(select(table.c.id).where(table.c.id == run.id)).first() is not None:
                return False
            db.execute(insert(table).values(**run.__dict__))
        return True

    def change(self, id: str, **values: Any) -> None:
        with self.database.transaction() as db:
            db.execute(update(table).where(table.c.id == id).values(**values))

    def get(self, id: str) -> CronRun | None:
        with self.database.transaction() as db:
            row = db.execute(select(table).where(table.c.id == id)).mappings().first()
        return CronRun(**row) if row else None

    def list(self, project: str = "", environment: str = "", service: str = "", *, status: str = "", limit: int = 50) -> list[CronRun]:
        """Newest first."""
        query = select(table)
        for column, value in (("project", project), ("environment", environment), ("service", service), ("status", status)):
            if value:
                query = query.where(table.c[column] == value)
        with self.database.transaction() as db:
            rows = db.execute(query.order_by(table.c.started_at.desc()).limit(limit)).mappings().all()
        return [CronRun(**row) for row in rows]
