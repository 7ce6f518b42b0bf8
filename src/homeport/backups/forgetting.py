"""Forgetting: what the policy does not keep goes, with the log only it needed; backups of what is gone have an end.

When something that was backed up is there no more (its add-on, its environment or its project was destroyed), the ledger gets a row with
that moment. Until the policy's time has passed its backups are kept as all are; then the row is what lets them be removed. When the same
thing comes back before, the row is taken away.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from homeport.backups import wal
from homeport.backups.kinds import COPIERS, copier_of
from homeport.backups.manifest import DISKS, PLATFORM, Manifest
from homeport.backups.repository import Repository
from homeport.backups.room import Policy, Room
from homeport.drivers.files import remove_tree
from homeport.drivers.storage.base import StorageFailed
from homeport.model.base import Frozen
from homeport.store.backups import BackupRow

log = logging.getLogger("homeport.backups")

GONE = "backups-of-gone"
"""Kind of the ledger's rows."""


class Subject(Frozen):
    """Something that is backed up."""

    kind: str
    project: str = ""
    environment: str = ""
    name: str

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.project}/{self.environment}/{self.name}"


def subjects(room: Room) -> list[Subject]:
    """Everything that is to be backed up now."""
    kinds = {row.key: str(row.value.get("engine")) for row in room.store.ledger.list("addon")}
    found = [
        Subject(kind=kinds[id.slug], project=id.project, environment=id.environment, name=id.name)
        for id in room.addons()
        if kinds[id.slug] in COPIERS and copier_of(kinds[id.slug]).here(room, id)
    ]
    for owner in sorted({row.owner for row in room.store.ledger.list("volume")}):
        project, environment = owner.split("/")[:2]
        found.append(Subject(kind=DISKS, project=project, environment=environment, name="disks"))
    if room.store.environments.all():
        found.append(Subject(kind=PLATFORM, name="platform"))
    return found


def groups(room: Room) -> dict[Subject, list[BackupRow]]:
    """Every backup there is, newest first, by what it is of."""
    found: dict[Subject, list[BackupRow]] = {}
    for row in room.store.backups.list(limit=100_000):
        found.setdefault(Subject(kind=row.kind, project=row.project, environment=row.environment, name=row.name), []).append(row)
    return found


def gone(room: Room) -> dict[str, datetime]:
    """By key of what is there no more, when its backups end."""
    return {row.key: row.created_at + room.policy.keep_gone for row in room.store.ledger.list(GONE)}


def notice(room: Room) -> None:
    """Write down what went since the last look, and what came back. The platform itself never goes."""
    living = {subject.key for subject in subjects(room)}
    known = {row.key for row in room.store.ledger.list(GONE)}
    backed = {subject.key: subject for subject in groups(room) if subject.kind != PLATFORM}
    for key in backed.keys() - living - known:
        room.store.ledger.claim(GONE, key, f"{backed[key].project}/{backed[key].environment}")
    for key in known & living:
        room.store.ledger.release(GONE, key)


def forget(room: Room) -> list[str]:
    """Remove backups that the policy does not keep, then what no kept one needs; ids of those removed."""
    removed: list[str] = []
    repositories = room.shelves()
    with room.busy:
        notice(room)
        ends, now = gone(room), datetime.now(UTC)
        eras = {manifest.era for manifest in room.manifests() if manifest.era}
        for subject, rows in groups(room).items():
            over = subject.key in ends and ends[subject.key] <= now
            kept = set() if over else keep(rows, room.policy)
            done = [row.id for row in rows if row.id not in kept and _forget_one(room, row, repositories)]
            removed += done
            if over and len(done) == len(rows):
                _ended(room, subject, len(rows))
        _prune(room, repositories, eras)
    return removed


def _ended(room: Room, subject: Subject, count: int) -> None:
    room.store.ledger.release(GONE, subject.key)
    days = room.policy.keep_gone.days
    text = f"{count} backups of {subject.project}/{subject.environment}/{subject.name} were removed: it is gone for {days} days."
    room.wiring.tell("backup.ended", text, subject.project, subject.environment, subject=subject.name)


def _forget_one(room: Room, row: BackupRow, repositories: Sequence[Repository]) -> bool:
    manifest = Manifest.model_validate_json(row.body)
    for repository in repositories:
        try:
            repository.remove(manifest)
        except StorageFailed as error:
            log.warning("backup %s stays on %s: %s", row.id, repository.name, error.why)
            return False
    remove_tree(room.made("staging") / row.id)
    room.store.backups.remove(row.id)
    return True


def _prune(room: Room, repositories: Sequence[Repository], before: set[str]) -> None:
    """Logs and shared objects that no backup needs any more. `before`: eras that backups were of until now."""
    needed: dict[str, str] = {}
    left: set[str] = set()
    for manifest in room.manifests():
        first = manifest.ref.metadata.get("start_segment", "") if manifest.ref else ""
        if manifest.era:
            left.add(manifest.era)
        if manifest.era and first:
            needed[manifest.era] = min(needed.get(manifest.era, first), first)
    wal.prune(repositories, needed)
    blobs = {part.key for manifest in room.manifests(kind=PLATFORM) for part in manifest.parts if part.key.startswith("blobs/")}
    for repository in repositories:
        idle = [key for era in before - left for key in repository.storage.list(f"wal/{era}")]
        idle += [key for key in repository.storage.list("blobs") if blobs and key not in blobs]
        for key in idle:
            with contextlib.suppress(StorageFailed):
                repository.storage.remove(key)


def keep(rows: Sequence[BackupRow], policy: Policy) -> set[str]:
    """Ids of the backups of one thing (newest first) that a policy keeps. The newest proven one is always kept."""
    kept = {row.id for row in rows[: policy.keep_last]}
    kept |= {row.id for row in rows if row.proven_at is not None and row is next(r for r in rows if r.proven_at is not None)}
    for count, period in ((policy.keep_daily, "%Y-%j"), (policy.keep_weekly, "%G-%V")):
        seen: set[str] = set()
        for row in rows:
            name = row.taken_at.strftime(period)
            if name not in seen and len(seen) < count:
                seen.add(name)
                kept.add(row.id)
    return kept
