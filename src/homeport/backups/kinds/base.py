"""What a kind of add-on has to know so that the room can copy it, prove the copy, and go back to it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from homeport.backups.errors import BackupMissing, NoRoom
from homeport.backups.manifest import Fingerprint, Manifest, Moment
from homeport.drivers.addons import copies
from homeport.drivers.addons.base import AddOnId, BackupRef
from homeport.drivers.addons.postgres.backups import Recovery
from homeport.drivers.storage.parcels import ParcelDamaged
from homeport.model.base import Frozen

if TYPE_CHECKING:
    from homeport.backups.repository import Repository
    from homeport.backups.room import Room


class Taken(Frozen):
    """A copy in a folder, and what the data was there."""

    ref: BackupRef
    fingerprint: Fingerprint
    era: str = ""
    point: str = ""


class Copier(Protocol):
    """How one kind of add-on is copied, brought back and compared. Drivers move the bytes; a copier knows what they have to say."""

    kind: ClassVar[str]
    any_moment: ClassVar[bool]
    """Whether a log of changes carries its copies forward. Without one, only the moments of the copies can be had."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What its engine's client raises."""

    def here(self, room: Room, id: AddOnId) -> bool:
        """Whether its data is on this machine, and not at somebody else's."""

    def take(self, room: Room, id: AddOnId, folder: Path) -> Taken:
        """Copy it into a new folder of `folder` while it serves. Raises BackupFailed, and `errors`."""

    def continues(self, room: Room, manifest: Manifest) -> bool:
        """Whether what is written now can carry this copy forward: not after a restore, which begins another history."""

    def reach(self, room: Room, id: AddOnId) -> None:
        """Make this moment one that can be restored. Raises `errors`, StorageFailed."""

    def restore(
        self, room: Room, manifest: Manifest, repository: Repository, folder: Path, moment: Moment, into: AddOnId, *, quick: bool = False
    ) -> Recovery:
        """A new, running add-on with the data of the moment; `folder` is empty, for what is fetched. It says `recovered`, or raises.

        With `quick` it may begin from a copy that was checked earlier, and is made durable by the caller: `settling`.

        Raises TimeUnreachable, WalBroken, NotProven, BackupDamaged, ParcelDamaged, NoRoom, StorageFailed, AddOnFailed.
        """

    def read(self, room: Room, id: AddOnId) -> Fingerprint:
        """Read everything a running add-on holds. Raises `errors`."""

    def difference(self, wanted: Fingerprint, found: Fingerprint) -> str:
        """The first difference, as a sentence; empty when there is none that counts."""

    def counted(self, found: Fingerprint) -> dict[str, int]:
        """How much was compared, in the engine's own words."""


class CopyByCopy:
    """The common half of a copier whose engine keeps no log of changes: it goes back to its copies, and to nothing between them."""

    kind: ClassVar[str]
    any_moment: ClassVar[bool] = False

    def here(self, room: Room, id: AddOnId) -> bool:
        del room, id
        return True

    def continues(self, room: Room, manifest: Manifest) -> bool:
        del room, manifest
        return True

    def reach(self, room: Room, id: AddOnId) -> None:
        del room, id

    def restore(
        self, room: Room, manifest: Manifest, repository: Repository, folder: Path, moment: Moment, into: AddOnId, *, quick: bool = False
    ) -> Recovery:
        del moment, quick
        if manifest.ref is None:
            raise BackupMissing(f"The backup {manifest.id} is not one of an add-on.")
        base = fetch(manifest, repository, folder / "base")
        self.look_at(manifest, base)
        room.drivers[self.kind].restore(manifest.ref, base, into)
        return Recovery(state="recovered", latest=manifest.taken_at)

    def look_at(self, manifest: Manifest, base: Path) -> None:
        """Compare a copy before a server gets it, where that is possible. Raises ParcelDamaged, NotProven."""


def fetch(manifest: Manifest, repository: Repository, into: Path) -> Path:
    """The unpacked copy. Raises ParcelDamaged, NoRoom, StorageFailed."""
    try:
        repository.fetch(manifest, into)
    except OSError as error:
        raise unpacked(manifest, error) from error
    return into


def unpacked(manifest: Manifest, error: OSError) -> Exception:
    """What an error while unpacking means."""
    if error.errno in copies.NO_ROOM:
        return NoRoom(needed=2 * manifest.plain, free=0, what="Nothing was restored; what runs was not touched.")
    reason = error.strerror or (errno.errorcode.get(error.errno) if error.errno else None) or error
    return ParcelDamaged(backup=manifest.id, why=f"It cannot be unpacked: {reason}.")


def compare(wanted: Fingerprint, found: Fingerprint, table: str = "table") -> str:
    """The first table that is not what it was, as a sentence; empty when all are. Tables are named as their engine says."""
    for database, tables in wanted.databases.items():
        there = found.databases.get(database)
        if there is None:
            return f"The database {database} is not there."
        for name in sorted({*tables, *there}):
            want, have = tables.get(name), there.get(name)
            if not wanted.exact or want == have:
                continue
            if want is None or have is None:
                return f"The {table} {name} of {database} is {'missing' if have is None else 'one too many'}."
            if want.total:
                rows = f"{have.rows} rows instead of {want.rows}" if have.rows != want.rows else "other content"
                return f"The {table} {name} of {database} has {rows}."
    return ""
