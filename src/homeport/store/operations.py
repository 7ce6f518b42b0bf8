"""Operations: what changes a whole environment and is no deploy, one at a time with each other and with deploys.

An operation is a row of the ledger, so it outlives the process that began it: whoever finds one at the start of a control plane finishes
it or takes it back, and only then lets go. Beginning one and beginning a deploy are each one transaction that looks at both.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from homeport.model.errors import HomeportError
from homeport.model.release import DeployStatus
from homeport.store.database import Database
from homeport.store.tables import deploys, ledger

KIND = "operation"
"""Ledger kind."""
TITLES = {
    "restore": "A restore", "fork": "A fork", "forked-from": "A fork", "destroy": "A removal",
    "deploy": "A deploy", "rollback": "A rollback", "rotation": "A rotation", "restart": "A restart", "upgrade": "An upgrade",
    "undo": "An undo",
}  # fmt: skip

OF_ADDONS = frozenset({"rotation", "restart", "upgrade"})
"""Kinds that work on one add-on. A crash leaves nothing of them to finish or to take back."""


class EnvironmentBusy(HomeportError):
    """Something else changes the environment right now."""

    code = "environment-busy"

    def __init__(self, *, project: str, environment: str, kind: str, id: str, since: datetime, what: str = "") -> None:
        self.kind, self.id = kind, id
        super().__init__(
            what=what or "Nothing was begun; what runs was not touched.",
            why=f"{TITLES.get(kind, kind)} of {project}/{environment} ({id}) has been running since {since:%Y-%m-%d %H:%M:%S} UTC.",
            fix="Wait until it has ended: `homeport events` tells. Then ask again.",
        )


@dataclass(frozen=True)
class Operation:
    """One operation on its way."""

    id: str
    kind: str
    project: str
    environment: str
    since: datetime
    detail: dict[str, Any]


class Operations:
    def __init__(self, database: Database) -> None:
        self.database = database

    def begin(self, kinds: Sequence[tuple[str, str, str]], *, what: str = "", **detail: Any) -> list[Operation]:
        """Take environments, all or none: each (kind, project, environment). Raises EnvironmentBusy when something changes one of them."""
        id, now = f"{kinds[0][0]}-{secrets.token_hex(4)}", datetime.now(UTC)
        with self.database.transaction() as db:
            found = []
            for kind, project, environment in kinds:
                alone(self.database, db, project, environment)
                if (other := _running(db, project, environment)) is not None:
                    raise EnvironmentBusy(project=project, environment=environment, what=what, **other)
                value = {"kind": kind, **detail}
                db.execute(insert(ledger).values(kind=KIND, key=_key(project, environment), owner=id, value=value, created_at=now))
                found.append(Operation(id, kind, project, environment, now, value))
            return found

    def note(self, operation: Operation, **detail: Any) -> Operation:
        """Write down how far it is."""
        value = {**operation.detail, **detail}
        where = (ledger.c.kind == KIND, ledger.c.key == _key(operation.project, operation.environment), ledger.c.owner == operation.id)
        with self.database.transaction() as db:
            db.execute(update(ledger).where(*where).values(value=value))
        return Operation(operation.id, operation.kind, operation.project, operation.environment, operation.since, value)

    def end(self, id: str) -> None:
        """Let go of everything that an operation took. Twice is once."""
        with self.database.transaction() as db:
            db.execute(delete(ledger).where(ledger.c.kind == KIND, ledger.c.owner == id))

    def of(self, project: str, environment: str) -> Operation | None:
        """What changes an environment now; deploys are not told."""
        with self.database.transaction() as db:
            query = select(ledger).where(ledger.c.kind == KIND, ledger.c.key == _key(project, environment))
            row = db.execute(query).mappings().first()
        return _read(row) if row is not None else None

    def all(self) -> list[Operation]:
        """Everything under way; at the start of a control plane: what was interrupted."""
        with self.database.transaction() as db:
            rows = db.execute(select(ledger).where(ledger.c.kind == KIND).order_by(ledger.c.created_at, ledger.c.key)).mappings().all()
        return [_read(row) for row in rows]


def taken(db: Connection, project: str, environment: str) -> bool:
    """Whether an operation has an environment, within a transaction that holds `alone`."""
    query = select(ledger.c.owner).where(ledger.c.kind == KIND, ledger.c.key == _key(project, environment))
    return db.execute(query).first() is not None


def alone(database: Database, db: Connection, project: str, environment: str) -> None:
    """Let no other transaction decide about the environment until this one ends. SQLite's transactions are alone by themselves."""
    if not database.sqlite:
        db.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 7701))", (_key(project, environment),))


def _running(db: Connection, project: str, environment: str) -> dict[str, Any] | None:
    """Kind, id and beginning of what changes an environment."""
    query = select(ledger).where(ledger.c.kind == KIND, ledger.c.key == _key(project, environment))
    row = db.execute(query).mappings().first()
    if row is not None:
        return {"kind": row["value"]["kind"], "id": row["owner"], "since": row["created_at"]}
    where = (deploys.c.project == project, deploys.c.environment == environment, deploys.c.status == DeployStatus.RUNNING.value)
    deploy = db.execute(select(deploys).where(*where)).mappings().first()
    return {"kind": deploy["kind"], "id": deploy["id"], "since": deploy["requested_at"]} if deploy is not None else None


def _read(row: Any) -> Operation:
    project, _, environment = str(row["key"]).partition("/")
    return Operation(row["owner"], row["value"]["kind"], project, environment, row["created_at"], dict(row["value"]))


def _key(project: str, environment: str) -> str:
    return f"{project}/{environment}"
