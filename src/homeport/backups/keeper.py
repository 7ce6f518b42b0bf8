"""The keeper: ships WAL, takes backups when they are due, proves them, and forgets what the policy does not keep.

One thread for shipping, since that must never wait for a long copy, and one for the rest.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from homeport.backups import drills, forgetting, mirror, settling, standing, taking, wal
from homeport.backups.errors import BackupMissing
from homeport.backups.forgetting import Subject
from homeport.backups.guard import DiskReport, Watch, report
from homeport.backups.kinds import COPIERS, copier_of
from homeport.backups.manifest import DISKS, PLATFORM, Manifest, Moment, Proof
from homeport.backups.mirror import Mirror
from homeport.backups.operations import Progress, go_on, operating, take_back
from homeport.backups.restoring import Restored, restore_disks, restore_in_place
from homeport.backups.room import LOCAL, Policy, Room
from homeport.backups.streaming import Streams
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.files import remove_tree
from homeport.drivers.storage.base import StorageFailed, Target
from homeport.drivers.storage.keys import BackupKeyWrong
from homeport.model.base import Frozen
from homeport.model.errors import HomeportError
from homeport.store.backups import BackupRow

log = logging.getLogger("homeport.backups")

SHIP_EVERY = 3.0
"""Seconds between looks for finished WAL segments. With `archive_timeout` it bounds what can be lost."""
LOOK_EVERY = 60.0
"""Seconds between looks for backups that are due."""
HURRY_AFTER = 5.0
"""Seconds between looks at least, when a release went live whose builds no copy has yet."""
CHANGES = frozenset({"deploy.live", "env.changed", "environment.forked", "project.destroyed", "backup.target", "addon.rotated"})
"""Events after which the platform is copied at the next look: what an empty machine would have to know."""
RETRY_AFTER = timedelta(minutes=15)
"""Time after a failure before the same thing is tried again."""


class Due(Frozen):
    """What is backed up, and when next."""

    kind: str
    """Kind of add-on, `disks` or `platform`."""
    project: str = ""
    environment: str = ""
    name: str
    last: datetime | None = None
    proven: datetime | None = None
    next: datetime | None = None
    problem: str = ""
    ends: datetime | None = None
    """Of what is there no more: when its last backups are removed."""
    rpo: float | None = None
    """Seconds of changes that may be lost with the machine; None where only whole copies come back."""
    behind: float | None = None
    """Of a streamed log, seconds of changes that are not on every target now; None while it is not known."""
    unproven: float | None = None
    """Seconds since a backup of it was last proven, or since there is something to prove: what `backup.stale` watches."""
    stale: bool = False
    """Whether that is longer than twice the time between drills."""

    @property
    def key(self) -> str:
        return f"{self.project}/{self.environment}/{self.name}"


class Keeper:
    """Everything that can be asked of the room, and its background work."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.watch = Watch()
        self.mirror = Mirror(room)
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        self._failed: dict[str, tuple[datetime, str]] = {}
        self._said: set[str] = set()
        self._stale: set[str] = set()
        self.streams = Streams(room)
        self._threads = [
            threading.Thread(target=self._every, args=(SHIP_EVERY, self.ship), name="wal-shipper", daemon=True),
            threading.Thread(target=self._looking, name="backups", daemon=True),
            threading.Thread(target=self.mirror.run, args=(self._stopping, self._moved), name="store-mirror", daemon=True),
        ]

    def start(self) -> None:
        """Clean up after a crash and begin."""
        for left in self.room.made("scratch").iterdir():
            remove_tree(left)
        drills.sweep(self.room)
        go_on(self.room)
        settling.begin(self.room)
        for thread in self._threads:
            thread.start()
        self.streams.start()

    @staticmethod
    def before_start(room: Room) -> list[AddOnId]:
        """Finish restores that a crash interrupted between their two renames, and undo what it interrupted earlier.

        Call it before add-ons are started.
        """
        found = switching.finish(room.home)
        take_back(room)
        return found

    def stop(self) -> None:
        """Stop the background work; an upload goes on at the next start."""
        self._stopping.set()
        self.streams.stop()
        self._hurry.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=10)
        drills.sweep(self.room)

    def _every(self, seconds: float, work: Callable[[], object]) -> None:
        while not self._stopping.wait(seconds):
            try:
                work()
            except Exception:
                log.exception("the keeper goes on after this")

    def _looking(self) -> None:
        """Look now and then, and soon after a release went live."""
        while not self._stopping.wait(HURRY_AFTER):
            self._hurry.wait(LOOK_EVERY - HURRY_AFTER)
            self._hurry.clear()
            if self._stopping.is_set():
                return
            try:
                self.look()
            except Exception:
                log.exception("the keeper goes on after this")

    def _moved(self) -> None:
        """The store was written to: a release that went live needs its builds copied, since the store names it from now on."""
        rows = self.room.store.backups.list(kind=PLATFORM, limit=1)
        recent = self.room.store.events.list(limit=20)
        if any(event.kind == "deploy.live" and (not rows or event.at > rows[0].taken_at) for event in recent):
            self._hurry.set()

    # --- what goes on -----------------------------------------------------------------------------------------

    def ship(self) -> dict[str, str]:
        """Ship WAL of what is not streamed, which has a thread of its own; problems by add-on, each told once."""
        problems = wal.ship_all(self.room, self.streams.wanted())
        for slug, why in problems.items():
            if slug not in self._said:
                self.room.wiring.tell("backup.wal-waits", f"WAL of {slug} waits on this machine: {why}", subject=slug)
        self._said = set(problems)
        return problems

    def look(self) -> None:
        """Take what is due, prove what is not proven, forget what is not kept."""
        found = self.watch.look(self.room)
        if found.low:
            self.forget()  # makes room, and is what the policy says anyway
            return
        taking.resume(self.room)
        settling.settle(self.room)
        for due in self.schedule():
            if self._stopping.is_set():
                return
            if due.next is not None and due.next <= datetime.now(UTC):
                self._guarded(due, lambda due=due: self._take(due))  # type: ignore[misc]
        for row in self.unproven():
            if self._stopping.is_set():
                return
            drills.drill(self.room, Manifest.model_validate_json(row.body))
        self.forget()
        self._tell_stale()

    def _tell_stale(self) -> None:
        """Say once of each thing that its last proof is too old, or that there is none."""
        for due in self.schedule():
            if due.stale and due.key not in self._stale:
                since = f"since {due.proven:%Y-%m-%d %H:%M} UTC" if due.proven else "ever"
                text = f"No backup of {due.key.strip('/')} was proven {since}."
                self.room.wiring.tell("backup.stale", text, due.project, due.environment)
            (self._stale.add if due.stale else self._stale.discard)(due.key)

    def _guarded(self, due: Due, work: Callable[[], object]) -> None:
        try:
            work()
            self._failed.pop(due.key, None)
        except (HomeportError, psycopg.Error, OSError) as error:
            why = getattr(error, "why", str(error))
            self._failed[due.key] = (datetime.now(UTC), why)
            self.room.wiring.tell("backup.failed", f"No backup of {due.key.strip('/')}: {why}", due.project, due.environment)

    def _take(self, due: Due) -> Manifest | None:
        if due.kind == PLATFORM:
            return taking.take_platform(self.room)
        if due.kind == DISKS:
            return taking.take_disks(self.room, due.project, due.environment)
        return taking.take_addon(self.room, AddOnId(project=due.project, environment=due.environment, name=due.name))

    # --- what is asked ----------------------------------------------------------------------------------------

    def schedule(self) -> list[Due]:
        """Everything that is backed up, with its last and next time."""
        every, now = self.room.policy.every, datetime.now(UTC)
        found = []
        for subject in forgetting.subjects(self.room):
            kind, project, environment, name = subject.kind, subject.project, subject.environment, subject.name
            rows = self.room.store.backups.list(project, environment, name, kind=kind, limit=100)
            rows = [row for row in rows if row.project == project]
            last = rows[0].taken_at if rows else None
            proven = next((row.proven_at for row in rows if row.proven_at is not None), None)
            after = last + every if last is not None else now
            if kind in COPIERS and rows and not copier_of(kind).continues(self.room, Manifest.model_validate_json(rows[0].body)):
                after = now
            if kind == PLATFORM and last is not None and self._changed_since(last):
                after = now
            if rows and self._not_everywhere(rows[0]):
                after = now
            failed, why = self._failed.get(f"{project}/{environment}/{name}", (None, ""))
            if failed is not None:
                after = max(after, failed + RETRY_AFTER)
            found.append(
                Due(
                    kind=kind, project=project, environment=environment, name=name, last=last, proven=proven, next=after, problem=why,
                    **self._age(subject, rows, proven, now),
                    **self._loss(kind, AddOnId(project=project, environment=environment, name=name)),
                )
            )  # fmt: skip
        return found

    def _age(self, subject: Subject, rows: list[BackupRow], proven: datetime | None, now: datetime) -> dict[str, Any]:
        """How long nothing of it was proven; of what never was, since it came: its copies are taken anew and forgotten meanwhile."""
        since = proven
        if since is None:
            where, kind = f"{subject.project}/{subject.environment}", "volume" if subject.kind == DISKS else "addon"
            ledger = self.room.store.ledger.list(kind, where) if subject.kind != PLATFORM else []
            came = [row.created_at for row in ledger if kind == "volume" or row.value.get("addon") == subject.name]
            since = min([*came, *(row.taken_at for row in rows[-1:])], default=now)
        age = (now - since).total_seconds()
        return {"unproven": round(age, 1), "stale": age > 2 * self.room.policy.prove_every.total_seconds()}

    def _loss(self, kind: str, id: AddOnId) -> dict[str, float | None]:
        if kind == PLATFORM:
            return {"rpo": mirror.LOST_AT_MOST}
        if kind != "postgres":
            return {}
        rpo = self.room.policy.loss(id.project, id.environment, id.name).total_seconds()
        return {"rpo": rpo, "behind": self.streams.behind(id)}

    def _changed_since(self, last: datetime) -> bool:
        """Whether something happened that an older copy of the platform does not know, its vault key included."""
        recent = self.room.store.events.list(limit=200)
        return any(event.kind in CHANGES and event.at > last for event in recent) or not taking.published(self.room)

    def _not_everywhere(self, row: BackupRow) -> bool:
        """Whether a target that is used now lacks the newest backup, and none is on its way to it: a target that was just added."""
        lacks = {target.name for target in self.room.targets()} - set(row.targets)
        return bool(lacks) and not (self.room.made("staging") / row.id).is_dir()

    def now(self, project: str = "", environment: str = "", name: str = "") -> list[Manifest]:
        """Back up now: everything, one environment, or one of its add-ons, `disks` or `platform`.

        Raises BackupMissing when that names nothing, and what a backup raises.
        """
        wanted = [due for due in self.schedule() if _means(due, project, environment, name)]
        if not wanted:
            named, where = f" called {name!r}" if name else "", f" in {environment or 'any environment'} of {project}" if project else ""
            there = ", ".join(sorted({f"{due.project}/{due.environment}" for due in self.schedule() if due.project}))
            why = f"There is nothing{named} to back up{where} (there is: {there or 'nothing yet'})."
            raise BackupMissing(why, "See what is backed up with `homeport backup schedule`.", what="No backup was taken.")
        found = []
        for due in wanted:
            manifest = self._take(due)
            self._failed.pop(due.key, None)
            if manifest is not None:
                found.append(manifest)
                text = f"{due.key.strip('/')} was backed up: {manifest.size / 2**20:.1f} MiB."
                self.room.wiring.tell("backup.taken", text, due.project, due.environment, backup=manifest.id)
        return found

    def verify(self, id: str) -> Proof:
        """Restore a backup in a scratch instance and compare. Raises BackupMissing."""
        return drills.drill(self.room, self.room.find(id))

    def unproven(self) -> list[BackupRow]:
        """The newest backup of each thing, when none of that thing was proven for the policy's time."""
        found = []
        limit = datetime.now(UTC) - self.room.policy.prove_every
        for subject in forgetting.subjects(self.room):
            kind, project, environment, name = subject.kind, subject.project, subject.environment, subject.name
            rows = self.room.store.backups.list(project, environment, name, kind=kind, limit=20)
            if rows and rows[0].proof is None and all(row.proven_at is None or row.proven_at < limit for row in rows):
                found.append(rows[0])
        return found

    def restoring(self, project: str, environment: str) -> AbstractContextManager[Progress]:
        """Have an environment for a restore: deploys wait meanwhile. Raises EnvironmentBusy."""
        return operating(self.room, "restore", project, environment)

    def restore(self, id: AddOnId, moment: Moment, progress: Progress, *, actor: str) -> Restored:
        """Bring an add-on back in place. Raises what `restore_in_place` raises."""
        done = restore_in_place(self.room, id, moment, progress)
        self._hurry.set()  # its new history begins with a copy of its own
        text = f"{id.name} was brought back to {moment.text} in {done.seconds:.1f} s; the former data is kept 7 days."
        self.room.wiring.tell("backup.restored", text, id.project, id.environment, actor=actor, subject=id.name, backup=done.backup)
        return done

    def restore_disks(self, manifest: Manifest, progress: Progress, *, actor: str) -> Restored:
        """Bring the disks of an environment back in place; what writes to them is stopped by the caller."""
        names = {folder: folder for folder in {path.split("/")[0] for path in (manifest.fingerprint.files if manifest.fingerprint else {})}}
        done = restore_disks(self.room, manifest, names, progress)
        text = f"The disks were brought back to {manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC; the former ones are kept 7 days."
        self.room.wiring.tell("backup.restored", text, manifest.project, manifest.environment, actor=actor, backup=manifest.id)
        return done

    def disk(self) -> DiskReport:
        return report(self.room, self.watch.history)

    def try_target(self, target: Target) -> None:
        """See that a target takes, gives and forgets an object. Raises StorageFailed."""
        what = f"The target {target.name} was not added; backups go where they went."
        fix = "See that it is there, has room and lets Homeport in, and add it again."
        if target.name == LOCAL and target.address != str(self.room.folder / LOCAL):
            raise StorageFailed(
                target=target.name,
                why="the folder of the home has that name already, and may hold backups.",
                what=what,
                fix="Choose another name.",
            )
        try:
            storage = self.room.open_storage(target)
            with self.room.workspace() as folder:
                (folder / "out").write_bytes(b"homeport was here\n")
                storage.put("probe", folder / "out")
                storage.fetch("probe", folder / "in")
                storage.remove("probe")
                same = (folder / "in").read_bytes() == b"homeport was here\n"
        except StorageFailed as error:
            why = error.why.removeprefix(f"The target {target.name}: ")
            raise StorageFailed(target=target.name, why=why, what=what, fix=fix) from error
        if not same:
            raise StorageFailed(target=target.name, why="it did not give back what it was given.", what=what, fix=fix)

    def added(self, target: Target) -> None:
        """A target is used from now on: what lies on it is known, and everything is copied there at the next look, which is now.

        Raises StorageFailed.
        """
        there = {key.split("/")[1] for key in self.room.open_storage(target).list("backups") if key.endswith("/manifest.age")}
        for row in self.room.store.backups.list(limit=100_000):
            if (row.id in there) != (target.name in row.targets):
                names = [name for name in row.targets if name != target.name]
                self.room.store.backups.change(row.id, targets=[*names, target.name] if row.id in there else names)
        self._hurry.set()

    def set_policy(self, policy: Policy) -> Policy:
        """Change what is backed up when and kept how long."""
        try:
            _ = self.room.key.of(str(self.room.key.identity), policy.recipients)  # refuses what is no recipient
        except BackupKeyWrong as error:
            why = f"One of {', '.join(policy.recipients)[:200]} is no age recipient."
            fix = "A recipient begins with `age1`; `age-keygen` makes one and its key, which you keep."
            raise BackupKeyWrong(why, what="Nothing of the schedule was changed.", fix=fix) from error
        before, known = self.room.policy.rpo_for, {f"{due.project}/{due.environment}" for due in self.schedule() if due.project}
        for place in policy.rpo_for.keys() - before.keys():  # an add-on may come with the next deploy
            if not any(f"{key}/".startswith(f"{'/'.join(place.split('/')[:2])}/") for key in known):
                there = ", ".join(sorted(known))
                why = f"There is nothing called {place} (there is: {there or 'nothing yet'})."
                raise BackupMissing(why, "Write PROJECT, PROJECT/ENV or PROJECT/ENV/ADDON.", what="Nothing of the schedule was changed.")
        self.room.store.backups.set_policy(policy.model_dump(mode="json", exclude_defaults=True))
        return self.room.policy

    # --- forgetting -------------------------------------------------------------------------------------------

    def forget(self) -> list[str]:
        """Remove backups that the policy does not keep, then what no kept one needs; ids of those removed."""
        removed = forgetting.forget(self.room)
        standing.prune(self.room)
        return removed

    def gone(self) -> list[Due]:
        """What is there no more and has backups still, with the moment at which they end."""
        ends = forgetting.gone(self.room)
        return [
            Due(kind=s.kind, project=s.project, environment=s.environment, name=s.name, last=rows[0].taken_at, ends=ends[s.key])
            for s, rows in forgetting.groups(self.room).items()
            if s.key in ends
        ]


def _means(due: Due, project: str, environment: str, name: str) -> bool:
    """Whether somebody who names these means this."""
    if due.kind == PLATFORM:
        return name == "platform" or not (project or name)
    return project in ("", due.project) and environment in ("", due.environment) and name in ("", due.name)
