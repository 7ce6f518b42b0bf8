"""Going back: a new add-on from a backup, to a moment or to a backup's own point, proven before anything that runs is touched."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from homeport.backups import disks
from homeport.backups.errors import BackupMissing, NotProven, TimeUnreachable, WalBroken, stamp
from homeport.backups.kinds import copier_of
from homeport.backups.kinds.base import unpacked
from homeport.backups.manifest import Fingerprint, Manifest, Moment
from homeport.backups.operations import Progress, operating
from homeport.backups.repository import Repository
from homeport.backups.room import Room
from homeport.backups.volumes import exchange, incoming
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import AddOnDriver, AddOnId, AddOnRequest
from homeport.drivers.addons.errors import BackupDamaged
from homeport.drivers.addons.postgres.backups import Recovery
from homeport.drivers.addons.records import Place
from homeport.drivers.files import remove_tree
from homeport.drivers.storage.base import StorageFailed
from homeport.drivers.storage.parcels import ParcelDamaged
from homeport.model.base import Frozen
from homeport.model.errors import HomeportError

log = logging.getLogger("homeport.backups")

OTHERS_MAY = (StorageFailed, ParcelDamaged, BackupDamaged, NotProven, WalBroken, TimeUnreachable)
"""What may be wrong with one target alone, and not with the backup as such."""
T = TypeVar("T")


class Restored(Frozen):
    """What came of a restore."""

    project: str
    environment: str
    name: str
    kind: str
    """Kind of add-on, or `disks`."""
    backup: str
    """The base it began from."""
    at: datetime | None = None
    """Time of its last transaction, or of the copy."""
    seconds: float = 0.0
    rows: int = 0
    """Rows, keys or files that were read in the copy."""
    tombstone: str = ""
    """Where the former data lies for 7 days."""
    notes: tuple[str, ...] = ()


def choose(room: Room, id: AddOnId, moment: Moment) -> Manifest:
    """The backup to begin from. Raises BackupMissing, TimeUnreachable."""
    if moment.backup:
        found = room.find(moment.backup)
        if found.addon != id:
            raise BackupMissing(f"The backup {found.id} is of {found.addon.slug}, not of {id.slug}.")
        return found
    manifests = room.manifests(id.project, id.environment, id.name)
    _only_of_this_history(room, id, manifests, moment)
    return choose_among(manifests, moment.at, f"The add-on {id.name} of {id.environment}")


def _only_of_this_history(room: Room, id: AddOnId, manifests: list[Manifest], moment: Moment) -> None:
    """What was brought back has another history since, whose first copy follows in a moment: until then no copy leads there.

    Raises TimeUnreachable.
    """
    if not manifests or not copier_of(manifests[0].kind).any_moment or copier_of(manifests[0].kind).continues(room, manifests[0]):
        return
    began = max((row.created_at for row in room.store.ledger.list("tombstone", id.slug)), default=None)
    if began is None or (moment.at is not None and not began < moment.at <= datetime.now(UTC)):
        return
    raise TimeUnreachable(
        why=f"{id.name} has another history since it was exchanged at {stamp(began)}, and no copy of that has been taken yet.",
        fix=f"Ask again in a minute: that copy is taken by itself (`homeport backup now {id.name}` waits for it). Any time up to "
        f"{stamp(began)} is of the history before.",
    )


def choose_among(manifests: list[Manifest], at: datetime | None, subject: str) -> Manifest:
    """The newest that was complete at a time. Raises BackupMissing, TimeUnreachable."""
    if not manifests:
        raise BackupMissing(f"{subject} has no backup yet.", "Take one with `homeport backup now`.")
    if at is None:
        return manifests[0]
    if at > datetime.now(UTC):
        raise TimeUnreachable(why=f"{stamp(at)} is in the future.", latest=datetime.now(UTC))
    for manifest in manifests:
        if manifest.taken_at <= at:
            return manifest
    raise TimeUnreachable(
        why=f"The first backup of {subject[:1].lower()}{subject[1:]} is later than {stamp(at)}.", earliest=manifests[-1].taken_at
    )


def materialise(
    room: Room, manifest: Manifest, moment: Moment, into: AddOnId, *, quick: bool = False, only_first: bool = False
) -> Recovery:  # fmt: skip
    """A new, running add-on `into` with the data of the moment. Whatever fails leaves nothing behind and touches nothing that runs.

    When what lies on one target does not do, the next that holds the backup is tried: not with `only_first`, since a drill has to tell.
    Raises TimeUnreachable, WalBroken, BackupDamaged, ParcelDamaged, NoRoom, StorageFailed, AddOnFailed.
    """
    if manifest.ref is None:
        raise BackupMissing(f"The backup {manifest.id} is not one of an add-on.")
    room.require(2 * manifest.plain, "Nothing was restored; what runs was not touched.")
    copier = copier_of(manifest.kind)

    def one(repository: Repository) -> Recovery:
        with room.workspace() as folder:
            return copier.restore(room, manifest, repository, folder, moment, into, quick=quick)

    return one(room.holder(manifest)) if only_first else from_any(room, manifest, one)


def from_any(room: Room, manifest: Manifest, restore: Callable[[Repository], T]) -> T:
    """What `restore` gives for the first target whose bytes do. Raises what the first one raised when none does."""
    problem: HomeportError | None = None
    for repository in room.holders(manifest):
        try:
            return restore(repository)
        except OTHERS_MAY as error:
            if isinstance(error, TimeUnreachable) and (error.latest is None or problem is not None):
                raise problem or error from None  # no other copy of the same log reaches further twice
            problem = problem or error
            log.warning("%s cannot be restored from %s: %s", manifest.id, repository.name, error.why)
    raise problem or BackupMissing(f"No target that is known now holds the backup {manifest.id}.")


def look(room: Room, manifest: Manifest, id: AddOnId, *, compare: bool) -> Fingerprint:
    """Read everything in a restored add-on, and with `compare` compare it with what was backed up; what there was.

    Raises NotProven.
    """
    copier, wanted = copier_of(manifest.kind), manifest.fingerprint
    try:
        found = copier.read(room, id)
    except copier.errors as error:
        raise NotProven(backup=manifest.id, why=f"It could not be read to the end: {error}.") from error
    problem = copier.difference(wanted, found) if compare and wanted else ""
    if problem:
        raise NotProven(backup=manifest.id, why=problem)
    return found


def restore_in_place(room: Room, id: AddOnId, moment: Moment, progress: Progress | None = None) -> Restored:
    """Bring an add-on back to a moment: beside the running one, proven, then in its place; the old one is kept 7 days.

    Without `progress` it is an operation of its own. Raises EnvironmentBusy, and what `materialise` and `look` raise; then nothing was
    touched. AddOnFailed after the switch: the old one runs again.
    """
    if progress is None:
        with operating(room, "restore", id.project, id.environment) as alone:
            return restore_in_place(room, id, moment, alone)
    began = time.monotonic()
    driver = room.server(room.driver_of(id).kind)
    with room.busy:
        reach(room, id)
        manifest = choose(room, id, moment)
        fresh = AddOnId(project=id.project, environment=id.environment, name=f"{id.name}.{manifest.id[-6:]}")
        switching.discard(driver, fresh)
        progress.makes(fresh, manifest.kind)
        try:
            progress.reach("begun")
            recovery = materialise(room, manifest, moment, fresh)
            rows = look(room, manifest, fresh, compare=bool(moment.backup)).rows
            progress.reach("proven")
            grave = switching.switch(driver, fresh, id)
            progress.reach("switched")
        except BaseException:
            switching.discard(driver, fresh)
            with contextlib.suppress(Exception):
                driver.start(id)
            raise
        progress.keeps(fresh)
        if grave is not None:
            room.store.ledger.claim("tombstone", grave.name, id.slug, folder=str(grave))
        _bring_up(room, room.driver_of(id), id, grave)
    notes: tuple[str, ...] = ()
    if not copier_of(manifest.kind).any_moment and not moment.backup:
        notes = (f"It is the copy of {stamp(manifest.taken_at)}: its engine keeps no log of changes.",)
    return Restored(
        project=id.project, environment=id.environment, name=id.name, kind=manifest.kind, backup=manifest.id,
        at=recovery.latest or manifest.taken_at, seconds=round(time.monotonic() - began, 3), rows=rows,
        tombstone=grave.name if grave else "", notes=notes,
    )  # fmt: skip


def _bring_up(room: Room, driver: AddOnDriver, id: AddOnId, grave: Path | None) -> None:
    """Start the restored add-on with the environment's passwords; when that fails, the former one again."""
    try:
        release = room.wiring.live_release(id.project, id.environment)
        if release is not None and id.name in release.spec.addons:
            room.wiring.provision(release)
        else:
            record = Place(room.home, id).get()
            driver.provision(AddOnRequest(id=id, definition=record.definition, consumers=record.consumers))
        driver.start(id)
    except BaseException:
        if grave is not None:
            switching.switch_back(room.server(driver.kind), id, grave)
        raise


def reach(room: Room, id: AddOnId) -> None:
    """Make this moment reachable when the add-on still answers; when not, what was shipped is what there is."""
    record = Place(room.home, id).read()
    if record is None:
        return
    copier = copier_of(record.kind)
    failures: tuple[type[Exception], ...] = (*copier.errors, StorageFailed)
    try:
        copier.reach(room, id)
    except failures as error:
        log.warning("%s: its latest changes were not archived: %s", id.slug, error)


def _fetch_disks(manifest: Manifest, repository: Repository, copy: Path) -> None:
    remove_tree(copy)
    try:
        repository.fetch(manifest, copy)
    except OSError as error:
        raise unpacked(manifest, error) from error
    problem = disks.problems_of(copy, manifest.fingerprint) if manifest.fingerprint else ""
    if problem:
        raise NotProven(backup=manifest.id, why=problem)


def restore_disks(room: Room, manifest: Manifest, names: dict[str, str], progress: Progress | None = None) -> Restored:
    """Put copies of disks under `volumes/`: `names` says for each copied folder which it becomes. A folder that is there is buried.

    Stop what writes to them first. Raises ParcelDamaged, NotProven, StorageFailed, NoRoom.
    """
    began = time.monotonic()
    room.require(manifest.plain, "Nothing was restored; what runs was not touched.")
    volumes = room.home / "volumes"
    volumes.mkdir(mode=0o755, exist_ok=True)
    if progress is not None:
        progress.note(disks=sorted(names.values()), exchanging=False)
    with room.busy, room.workspace() as folder:
        copy = folder / "copy"
        from_any(room, manifest, lambda repository: _fetch_disks(manifest, repository, copy))
        for source, target in names.items():
            remove_tree(incoming(room.home, target))
            if (copy / source).is_dir():
                (copy / source).rename(incoming(room.home, target))
        if progress is not None:
            progress.reach("proven")
            progress.note(exchanging=True)
        graves = [exchange(room, target) for target in names.values()]
        if progress is not None:
            progress.reach("switched")
        remove_tree(copy)
    return Restored(
        project=manifest.project, environment=manifest.environment, name="disks", kind="disks", backup=manifest.id, at=manifest.taken_at,
        seconds=round(time.monotonic() - began, 3), rows=len(manifest.fingerprint.files) if manifest.fingerprint else 0,
        tombstone=", ".join(grave for grave in graves if grave),
    )  # fmt: skip
