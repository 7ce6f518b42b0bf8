"""Projects and their environments: what is live where."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, insert, select, update

from homeport.store.database import Database
from homeport.store.tables import environments as table


@dataclass(frozen=True)
class EnvironmentRow:
    """One environment of one project."""

    project: str
    environment: str
    origin: str
    live: int | None
    """Number of the release that serves."""
    previous: int | None
    """Number of the release that served before."""
    next_number: int
    account: int | None
    """uid its processes run as, when Homeport is root."""
    stopped: bool
    """Whether `down` stopped it: nothing is started until the next `up` or `serve`."""
    scale: dict[str, int]
    """Instances per service set by `scale`, above what the file says."""
    created_at: datetime


class Environments:
    def __init__(self, database: Database) -> None:
        self.database = database

    def ensure(self, project: str, environment: str, *, origin: str = "", account: int | None = None) -> EnvironmentRow:
        """The row, made when it is missing; a new origin replaces the old one."""
        with self.database.transaction() as db:
            row = db.execute(select(table).where(*_is(project, environment))).mappings().first()
            if row is None:
                values = {
                    "project": project,
                    "environment": environment,
                    "origin": origin,
                    "account": account,
                    "created_at": datetime.now(UTC),
                }
                db.execute(insert(table).values(next_number=1, stopped=False, scale={}, **values))
            elif origin and row["origin"] != origin:
                db.execute(update(table).where(*_is(project, environment)).values(origin=origin))
            return EnvironmentRow(**db.execute(select(table).where(*_is(project, environment))).mappings().one())

    def get(self, project: str, environment: str) -> EnvironmentRow | None:
        with self.database.transaction() as db:
            row = db.execute(select(table).where(*_is(project, environment))).mappings().first()
        return EnvironmentRow(**row) if row else None

    def all(self) -> list[EnvironmentRow]:
        with self.database.transaction() as db:
            rows = db.execute(select(table).order_by(table.c.project, table.c.environment)).mappings().all()
        return [EnvironmentRow(**row) for row in rows]

    def change(self, project: str, environment: str, **values: Any) -> None:
        with self.database.transaction() as db:
            db.execute(update(table).where(*_is(project, environment)).values(**values))

    def accounts(self) -> dict[str, int]:
        """`project/environment` to uid, for all that have one."""
        return {f"{row.project}/{row.environment}": row.account for row in self.all() if row.account is not None}

    def remove(self, project: str, environment: str) -> None:
        with self.database.transaction() as db:
            db.execute(delete(table).where(*_is(project, environment)))


def _is(project: str, environment: str) -> tuple[Any, ...]:
    return table.c.project == project, table.c.environment == environment
