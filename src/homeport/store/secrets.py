"""Sealed secrets in numbered versions. This module never sees a plain value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, insert, or_, select, update

from homeport.store.database import Database
from homeport.store.tables import secrets as table

_NAMES = 1000
"""Names of one query."""


@dataclass(frozen=True)
class SecretRow:
    project: str
    environment: str
    name: str
    version: int
    sealed: bytes | None
    state: str
    """`enabled`, `disabled`, `destroyed` (sealed is None), or `unset` (the name has no value from this version on)."""
    source: str
    """`cli`, `api`, `file`, `generated`, `rotated`."""
    created_at: datetime
    created_by: str
    note: str


class SecretRows:
    def __init__(self, database: Database) -> None:
        self.database = database

    def numbers(self, project: str, environment: str) -> dict[str, int]:
        """The newest version's number of every name, whatever its state."""
        query = select(table.c.name, func.max(table.c.version)).where(table.c.project == project, table.c.environment == environment)
        with self.database.transaction() as db:
            return {str(name): int(number) for name, number in db.execute(query.group_by(table.c.name))}

    def add(self, *rows: SecretRow) -> None:
        """Write versions, all or none. Raises sqlalchemy.exc.IntegrityError when a number is taken."""
        with self.database.transaction() as db:
            db.execute(insert(table), [row.__dict__ for row in rows])

    def version(self, project: str, environment: str, name: str, version: int) -> SecretRow | None:
        with self.database.transaction() as db:
            row = db.execute(select(table).where(*_is(project, environment, name), table.c.version == version)).mappings().first()
        return SecretRow(**row) if row else None

    def versions(self, project: str, environment: str, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], SecretRow]:
        """Those of the wanted `(name, version)` that are there, read at once."""
        exact = set(wanted)
        names = sorted({name for name, _ in exact})
        found: dict[tuple[str, int], SecretRow] = {}
        with self.database.transaction() as db:
            for start in range(0, len(names), _NAMES):
                here = table.c.project == project, table.c.environment == environment, table.c.name.in_(names[start : start + _NAMES])
                for row in db.execute(select(table).where(*here)).mappings():
                    if (row["name"], row["version"]) in exact:
                        found[row["name"], row["version"]] = SecretRow(**row)
        return found

    def current(self, project: str, environment: str) -> dict[str, SecretRow]:
        """The newest enabled version of every name; names whose newest version is `unset` are left out."""
        with self.database.transaction() as db:
            query = (
                select(table).where(table.c.project == project, table.c.environment == environment).order_by(table.c.name, table.c.version)
            )
            rows = [SecretRow(**row) for row in db.execute(query).mappings()]
        newest = {row.name: row for row in rows if row.state in ("enabled", "unset")}
        return {name: row for name, row in newest.items() if row.state == "enabled"}

    def beginning(self, project: str, environment: str, starts: Iterable[str]) -> list[SecretRow]:
        """Every sealed version of the names that begin so."""
        names = or_(*(table.c.name.startswith(start, autoescape=True) for start in starts))
        here = table.c.project == project, table.c.environment == environment, table.c.sealed.is_not(None), names
        with self.database.transaction() as db:
            return [SecretRow(**row) for row in db.execute(select(table).where(*here)).mappings()]

    def history(self, project: str, environment: str, name: str = "") -> list[SecretRow]:
        """Every version, oldest first."""
        query = select(table).where(table.c.project == project, table.c.environment == environment)
        if name:
            query = query.where(table.c.name == name)
        with self.database.transaction() as db:
            return [SecretRow(**row) for row in db.execute(query.order_by(table.c.name, table.c.version)).mappings()]

    def change(self, project: str, environment: str, name: str, version: int, **values: Any) -> None:
        with self.database.transaction() as db:
            db.execute(update(table).where(*_is(project, environment, name), table.c.version == version).values(**values))

    def reseal(self, sealed: Sequence[tuple[SecretRow, bytes]]) -> int:
        """Put other sealings of the same values in their versions' places, all at once; returns how many rows were still as read."""
        done = 0
        with self.database.transaction() as db:
            for row, other in sealed:
                where = (*_is(row.project, row.environment, row.name), table.c.version == row.version, table.c.sealed == row.sealed)
                done += db.execute(update(table).where(*where).values(sealed=other)).rowcount
        return done

    def any_sealed(self) -> bool:
        """Whether there is a value at all."""
        with self.database.transaction() as db:
            return db.execute(select(table.c.name).where(table.c.sealed.is_not(None)).limit(1)).first() is not None

    def all(self) -> list[SecretRow]:
        """Every sealed version of every project: for rotating the key."""
        with self.database.transaction() as db:
            return [SecretRow(**row) for row in db.execute(select(table).where(table.c.sealed.is_not(None))).mappings()]


def unset_row(project: str, environment: str, name: str, version: int, by: str) -> SecretRow:
    """The version that says: no value from here on."""
    return SecretRow(project, environment, name, version, None, "unset", "cli", datetime.now(UTC), by, "")


def _is(project: str, environment: str, name: str) -> tuple[Any, ...]:
    return table.c.project == project, table.c.environment == environment, table.c.name == name
