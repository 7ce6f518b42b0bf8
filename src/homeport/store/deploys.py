"""Deploys: requests to change what is live, and how each ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, insert, select, update

from homeport.model.release import DeployStatus
from homeport.store.database import Database
from homeport.store.operations import alone, taken
from homeport.store.tables import deploys as table

OPEN = (DeployStatus.QUEUED.value, DeployStatus.RUNNING.value)


@dataclass(frozen=True)
class DeployRow:
    """One deploy or rollback."""

    id: str
    project: str
    environment: str
    kind: str
    status: str
    request: dict[str, Any]
    result: dict[str, Any] | None
    number: int | None
    """Release it made or put live."""
    actor: str
    requested_at: datetime
    finished_at: datetime | None
    watch_until: datetime | None
    """While set and not past, the release is watched and may be rolled back."""


class Deploys:
    def __init__(self, database: Database) -> None:
        self.database = database

    def queue(
        self, *, id: str, project: str, environment: str, kind: str, request: dict[str, Any], actor: str
    ) -> tuple[DeployRow, list[str]]:
        """Add a request; older ones of the environment that still wait are superseded and their ids returned. Twice is once."""
        with self.database.transaction() as db:
            if (row := db.execute(select(table).where(table.c.id == id)).mappings().first()) is not None:
                return DeployRow(**row), []
            waiting = (table.c.project == project, table.c.environment == environment, table.c.status == DeployStatus.QUEUED.value)
            older = list(db.execute(select(table.c.id).where(*waiting)).scalars())
            now = datetime.now(UTC)
            db.execute(update(table).where(*waiting).values(status=DeployStatus.SUPERSEDED.value, finished_at=now))
            values = {"project": project, "environment": environment, "kind": kind, "request": request, "actor": actor}
            db.execute(insert(table).values(id=id, status=DeployStatus.QUEUED.value, requested_at=now, **values))
            return DeployRow(**db.execute(select(table).where(table.c.id == id)).mappings().one()), older

    def begin_next(self, project: str, environment: str) -> DeployRow | None:
        """Mark the newest waiting deploy as running and return it, unless one runs already or an operation has the environment."""
        with self.database.transaction() as db:
            alone(self.database, db, project, environment)
            if taken(db, project, environment):
                return None
            where = (table.c.project == project, table.c.environment == environment)
            if db.execute(select(table.c.id).where(*where, table.c.status == DeployStatus.RUNNING.value)).first() is not None:
                return None
            query = select(table).where(*where, table.c.status == DeployStatus.QUEUED.value).order_by(table.c.requested_at.desc())
            row = db.execute(query.limit(1)).mappings().first()
            if row is None:
                return None
            db.execute(update(table).where(table.c.id == row["id"]).values(status=DeployStatus.RUNNING.value))
            return DeployRow(**{**row, "status": DeployStatus.RUNNING.value})

    def get(self, id: str) -> DeployRow | None:
        with self.database.transaction() as db:
            row = db.execute(select(table).where(table.c.id == id)).mappings().first()
        return DeployRow(**row) if row else None

    def recent(self, project: str, environment: str, limit: int = 20) -> list[DeployRow]:
        """Newest first."""
        with self.database.transaction() as db:
            query = select(table).where(table.c.project == project, table.c.environment == environment)
            rows = db.execute(query.order_by(table.c.requested_at.desc()).limit(limit)).mappings().all()
        return [DeployRow(**row) for row in rows]

    def open(self) -> list[DeployRow]:
        """All that wait or run, oldest first."""
        with self.database.transaction() as db:
            rows = db.execute(select(table).where(table.c.status.in_(OPEN)).order_by(table.c.requested_at)).mappings().all()
        return [DeployRow(**row) for row in rows]

    def watched(self) -> list[DeployRow]:
        """Those whose release is still being watched."""
        with self.database.transaction() as db:
            rows = db.execute(select(table).where(table.c.watch_until.is_not(None))).mappings().all()
        return [DeployRow(**row) for row in rows]

    def change(self, id: str, **values: Any) -> None:
        with self.database.transaction() as db:
            db.execute(update(table).where(table.c.id == id).values(**values))

    def finish(self, id: str, status: DeployStatus, result: dict[str, Any], *, watch_until: datetime | None = None) -> None:
        self.change(id, status=status.value, result=result, finished_at=datetime.now(UTC), watch_until=watch_until)

    def unwatch(self, project: str, environment: str) -> None:
        """Nothing of the environment is watched any more."""
        with self.database.transaction() as db:
            db.execute(update(table).where(table.c.project == project, table.c.environment == environment).values(watch_until=None))

    def remove(self, project: str, environment: str) -> None:
        with self.database.transaction() as db:
            db.execute(delete(table).where(table.c.project == project, table.c.environment == environment))
