"""Backups and their targets: what there is, where it lies, and whether it was proven. The targets hold the truth; this is its index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, insert, select, update

from homeport.store.database import Database
from homeport.store.tables import backup_targets, settings
from homeport.store.tables import backups as table

POLICY = "backup-policy"


@dataclass(frozen=True)
class BackupRow:
    id: str
    kind: str
    """`postgres`, `redis`, `disks` or `platform`."""
    project: str
    environment: str
    name: str
    taken_at: datetime
    size: int
    """Bytes on each target."""
    targets: list[str]
    """Targets that hold all of it."""
    body: str
    """Its manifest as JSON."""
    proven_at: datetime | None = None
    """When a restore of it was tried and compared well. It is not called good before."""
    proof: dict[str, Any] | None = None


@dataclass(frozen=True)
class TargetRow:
    name: str
    kind: str
    address: str
    sealed: bytes | None
    """Its configuration, sealed by the vault."""
    created_at: datetime


class Backups:
    def __init__(self, database: Database) -> None:
        self.database = database

    def put(self, row: BackupRow) -> None:
        """Write a backup down, or replace what was known of it."""
        with self.database.transaction() as db:
            db.execute(delete(table).where(table.c.id == row.id))
            db.execute(insert(table).values(**row.__dict__))

    def get(self, id: str) -> BackupRow | None:
        with self.database.transaction() as db:
            row = db.execute(select(table).where(table.c.id == id)).mappings().first()
        return BackupRow(**row) if row else None

    def list(self, project: str = "", environment: str = "", name: str = "", *, kind: str = "", limit: int = 1000) -> list[BackupRow]:
        """Newest first."""
        query = select(table)
        for column, value in (("project", project), ("environment", environment), ("name", name), ("kind", kind)):
            if value:
                query = query.where(table.c[column] == value)
        with self.database.transaction() as db:
            rows = db.execute(query.order_by(table.c.taken_at.desc(), table.c.id.desc()).limit(limit)).mappings().all()
        return [BackupRow(**row) for row in rows]

    def change(self, id: str, **values: Any) -> None:
        with self.database.transaction() as db:
            db.execute(update(table).where(table.c.id == id).values(**values))

    def remove(self, id: str) -> None:
        with self.database.transaction() as db:
            db.execute(delete(table).where(table.c.id == id))

    # --- targets ----------------------------------------------------------------------------------------------

    def put_target(self, name: str, kind: str, address: str, sealed: bytes | None) -> None:
        """Add a target, or replace the one of that name."""
        with self.database.transaction() as db:
            db.execute(delete(backup_targets).where(backup_targets.c.name == name))
            db.execute(insert(backup_targets).values(name=name, kind=kind, address=address, sealed=sealed, created_at=datetime.now(UTC)))

    def targets(self) -> Sequence[TargetRow]:
        with self.database.transaction() as db:
            return [TargetRow(**row) for row in db.execute(select(backup_targets).order_by(backup_targets.c.name)).mappings()]

    def remove_target(self, name: str) -> bool:
        with self.database.transaction() as db:
            return bool(db.execute(delete(backup_targets).where(backup_targets.c.name == name)).rowcount)

    # --- policy -----------------------------------------------------------------------------------------------

    def policy(self) -> dict[str, Any]:
        """What was set; {} when nothing was."""
        with self.database.transaction() as db:
            return dict(db.execute(select(settings.c.value).where(settings.c.key == POLICY)).scalar() or {})

    def set_policy(self, value: dict[str, Any]) -> None:
        with self.database.transaction() as db:
            db.execute(delete(settings).where(settings.c.key == POLICY))
            db.execute(insert(settings).values(key=POLICY, value=value))
