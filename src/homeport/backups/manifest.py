"""What is known of a backup: frozen values, as they lie on a target and in the store."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from homeport.backups.errors import stamp
from homeport.drivers.addons.base import AddOnId, BackupRef
from homeport.drivers.storage.parcels import Packed
from homeport.model.base import Frozen

PLATFORM, DISKS = "platform", "disks"
"""Kinds of backup that are not of an add-on; every other is named as its kind of add-on is."""


class Moment(Frozen):
    """What to go back to: a time, a backup's own point, or the latest there is."""

    at: datetime | None = None
    backup: str = ""
    broken: bool = False
    """Of the latest: what comes before a gap in the log will do, where there is no better."""

    @property
    def text(self) -> str:
        return stamp(self.at) if self.at else self.backup or "the latest"


class Part(Packed):
    """One object of a backup."""

    key: str
    """Where it lies on each target. Below `blobs/` it may belong to several backups."""


class TablePrint(Frozen):
    """What a table held: number of rows, and a sum over a hash of each, in no order."""

    rows: int
    total: str = ""
    """Empty when the engine could not say it for the moment of the copy: then it only has to be there."""


class Fingerprint(Frozen):
    """What the data was at one point, to compare a restore with."""

    exact: bool = True
    """False when writes went on between looking and the point: then only reading all of it is compared, not the numbers."""
    databases: dict[str, dict[str, TablePrint]] = {}
    """By database, by table (`schema.table` in PostgreSQL); in Valkey by type and, for keys with a life, by the hour it ends."""
    keys: tuple[int, int] | None = None
    """Valkey, before contents were compared: fewest and most keys during the copy."""
    files: dict[str, str] = {}
    """Disks: SHA-256 by path; of an SQLite database, over its content."""
    sqlite: dict[str, dict[str, int]] = {}
    """Disks: rows by table of each SQLite database."""

    @property
    def rows(self) -> int:
        """Rows, or keys, of all of it."""
        return sum(table.rows for tables in self.databases.values() for table in tables.values())

    @property
    def tables(self) -> int:
        return sum(len(tables) for tables in self.databases.values())


class Manifest(Frozen):
    """A backup."""

    id: str
    kind: str
    """Kind of add-on, `disks` or `platform`."""
    project: str = ""
    environment: str = ""
    name: str = ""
    """The add-on; `disks` or `platform`."""
    taken_at: datetime
    """From this moment on it can be restored: everything committed before is in it."""
    home: str
    """The home it was made in: artifacts hold paths of it."""
    parts: tuple[Part, ...] = ()
    plain: int = 0
    """Bytes before packing."""
    ref: BackupRef | None = None
    """What the add-on's driver knows of its copy."""
    era: str = ""
    """Which line of WAL carries it forward. A restored cluster begins a new one."""
    point: str = ""
    """Restore point at which `fingerprint` was taken."""
    fingerprint: Fingerprint | None = None
    detail: dict[str, Any] = {}

    @property
    def addon(self) -> AddOnId:
        return AddOnId(project=self.project, environment=self.environment, name=self.name)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


class Proof(Frozen):
    """How a restore of a backup, tried in a scratch instance, went."""

    backup: str
    proven_at: datetime
    seconds: float
    """Time from the first byte fetched to the last comparison."""
    compared: dict[str, int] = {}
    """What was compared: `tables`, `rows`, `keys`, `files`."""
    exact: bool = True
    problem: str = ""
    """Why it did not prove; empty when it did."""
