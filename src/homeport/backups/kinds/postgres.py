"""PostgreSQL: base backups carried forward by the WAL, compared at a named point of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psycopg

from homeport.backups import fingerprints, standing, wal
from homeport.backups.errors import BackupMissing, TimeUnreachable, WalBroken, stamp
from homeport.backups.kinds.base import Copier, Taken, compare, fetch, unpacked
from homeport.backups.manifest import Fingerprint, Manifest, Moment
from homeport.backups.timing import phase
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.postgres.backups import Recovery, Target
from homeport.drivers.storage.base import StorageFailed
from homeport.drivers.storage.parcels import ParcelDamaged

if TYPE_CHECKING:
    from homeport.backups.repository import Repository
    from homeport.backups.room import Room

log = logging.getLogger("homeport.backups")


class PostgresCopier:
    """Copies of PostgreSQL add-ons."""

    kind: ClassVar[str] = "postgres"
    any_moment: ClassVar[bool] = True
    errors: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error, OSError)

    def here(self, room: Room, id: AddOnId) -> bool:
        del room, id
        return True

    def take(self, room: Room, id: AddOnId, folder: Path) -> Taken:
        cluster = room.postgres.cluster(id)
        era = wal.era_of(cluster)
        ref = room.postgres.back_up(id, folder, durable=False)
        print_, point = fingerprints.at_point(cluster, ref.id)
        try:
            wal.flush(room, id)
        except StorageFailed as error:  # the same target will refuse the copy, which then waits with the WAL
            log.warning("%s: %s", id.slug, error.why)
        return Taken(ref=ref, fingerprint=print_, era=era, point=point)

    def continues(self, room: Room, manifest: Manifest) -> bool:
        return wal.known_era(room.home / "addons" / manifest.addon.slug) == manifest.era

    def reach(self, room: Room, id: AddOnId) -> None:
        wal.advance(room, id)

    def restore(
        self, room: Room, manifest: Manifest, repository: Repository, folder: Path, moment: Moment, into: AddOnId, *, quick: bool = False
    ) -> Recovery:
        ref = manifest.ref
        if ref is None:
            raise BackupMissing(f"The backup {manifest.id} is not one of an add-on.")
        base, segments = folder / "base", folder / "wal"
        with phase("base"):
            if not (quick and standing.take(room, manifest, base)):
                fetch(manifest, repository, base)
                standing.keep(room, manifest, base)
        try:
            with phase("wal"):
                damaged = repository.fetch_wal(manifest.era, ref.metadata.get("start_segment", "0" * 24), segments)
        except OSError as error:
            raise unpacked(manifest, error) from error
        if moment.at is not None:
            target = Target(time=moment.at)
        else:
            target = Target(name=manifest.point) if moment.backup else Target(broken=moment.broken)
        if damaged and target == Target():
            raise next(iter(damaged.values()))
        with phase("recover"):
            recovery = room.postgres.recover(ref, base, segments, target, into, consume=True, durable=not quick)
        if damaged and recovery.state != "recovered":  # a moment before the damage needs nothing of it; this one did
            raise next(iter(damaged.values()))
        return _checked(room, manifest, moment, recovery)

    def read(self, room: Room, id: AddOnId) -> Fingerprint:
        return fingerprints.of(room.postgres.cluster(id))

    def difference(self, wanted: Fingerprint, found: Fingerprint) -> str:
        return compare(wanted, found)

    def counted(self, found: Fingerprint) -> dict[str, int]:
        return {"tables": found.tables, "rows": found.rows}


def _checked(room: Room, manifest: Manifest, moment: Moment, recovery: Recovery) -> Recovery:
    """A recovery that came to its end; what every other end means is raised."""
    if recovery.state == "recovered":
        return recovery
    if recovery.state == "past-archive":
        why = f"{stamp(moment.at) if moment.at else 'The point of the backup'} is past the last archived WAL."
        latest = recovery.latest or manifest.taken_at
        later = [one.taken_at for one in room.manifests(manifest.project, manifest.environment, manifest.name) if one.era != manifest.era]
        if moment.at is not None and (after := min((at for at in later if at > moment.at), default=None)):
            why = f"{stamp(moment.at)} lies between two histories: {manifest.name} had been exchanged, and was not copied since."
            fix = f"Possible is any time up to {stamp(latest)}, and any from {stamp(after)} on."
            raise TimeUnreachable(why=why, latest=latest, fix=fix)
        raise TimeUnreachable(why=why, latest=latest)
    if recovery.state == "before-base":
        raise TimeUnreachable(why=recovery.why, earliest=manifest.taken_at)
    if recovery.state == "wal-damaged":
        raise ParcelDamaged(backup=manifest.id, why=f"The WAL is damaged: {recovery.why}")
    raise WalBroken(recovery.why, latest=recovery.latest)


if TYPE_CHECKING:
    _: type[Copier] = PostgresCopier
