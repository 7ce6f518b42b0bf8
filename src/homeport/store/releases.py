"""Releases: recorded once, never changed; only their state moves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from homeport.model.release import Release
from homeport.store.database import Database
from homeport.store.tables import environments
from homeport.store.tables import releases as table


@dataclass(frozen=True)
class ReleaseRow:
    """A release with what became of it."""

    release: Release
    state: str
    """`recorded`, `live`, `retired`, `failed` or `rolled-back`."""
    live_at: datetime | None
    reason: str


class Releases:
    def __init__(self, database: Database) -> None:
        self.database = database

    def reserve(self, project: str, environment: str) -> int:
        """The next number of an environment; never given twice."""
        with self.database.transaction() as db:
            where = (environments.c.project == project, environments.c.environment == environment)
            number = db.execute(select(environments.c.next_number).where(*where)).scalar_one()
            db.execute(update(environments).where(*where).values(next_number=number + 1))
        return int(number)

    def record(self, release: Release) -> None:
        """Write a release down. Writing the same number again changes nothing."""
        with self.database.transaction() as db:
            if db.execute(select(table.c.number).where(*_is(release.project, release.environment, release.number))).first() is None:
                db.execute(
                    insert(table).values(
                        project=release.project,
                        environment=release.environment,
                        number=release.number,
                        state="recorded",
                        body=release.model_dump_json(exclude_defaults=True),
                        created_at=release.created_at,
                        created_by=release.created_by,
                    )
                )

    def get(self, project: str, environment: str, number: int) -> ReleaseRow | None:
        with self.database.transaction() as db:
            row = db.execute(select(table).where(*_is(project, environment, number))).mappings().first()
        return _row(row) if row else None

    def list(self, project: str, environment: str, limit: int = 50) -> list[ReleaseRow]:
        """Newest first."""
        with self.database.transaction() as db:
            query = select(table).where(table.c.project == project, table.c.environment == environment)
            rows = db.execute(query.order_by(table.c.number.desc()).limit(limit)).mappings().all()
        return [_row(row) for row in rows]

    def mark(self, project: str, environment: str, number: int, state: str, reason: str = "") -> None:
        values: dict[str, Any] = {"state": state, "reason": reason}
        if state == "live":
            values["live_at"] = datetime.now(UTC)
        with self.database.transaction() as db:
            db.execute(update(table).where(*_is(project, environment, number)).values(**values))

    def go_live(self, project: str, environment: str, number: int) -> None:
        """Make a release the live one and the former one `retired`, in one transaction. Twice is once."""
        with self.database.transaction() as db:
            put_live(db, project, environment, number)

    def remove_one(self, project: str, environment: str, number: int) -> None:
        """Forget one release."""
        with self.database.transaction() as db:
            db.execute(delete(table).where(*_is(project, environment, number)))

    def remove(self, project: str, environment: str) -> None:
        with self.database.transaction() as db:
            db.execute(delete(table).where(table.c.project == project, table.c.environment == environment))


def put_live(db: Connection, project: str, environment: str, number: int) -> None:
    """What `go_live` does, inside a transaction of the caller's."""
    where = (environments.c.project == project, environments.c.environment == environment)
    old = db.execute(select(environments.c.live).where(*where)).scalar()
    if old != number:
        db.execute(update(environments).where(*where).values(live=number, previous=old, stopped=False))
        if old is not None:
            db.execute(update(table).where(*_is(project, environment, old), table.c.state == "live").values(state="retired"))
    db.execute(update(table).where(*_is(project, environment, number)).values(state="live", live_at=datetime.now(UTC)))


def _row(row: Any) -> ReleaseRow:
    return ReleaseRow(Release.model_validate_json(row["body"]), row["state"], row["live_at"], row["reason"])


def _is(project: str, environment: str, number: int) -> tuple[Any, ...]:
    return table.c.project == project, table.c.environment == environment, table.c.number == number
