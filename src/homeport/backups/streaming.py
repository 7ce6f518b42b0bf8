"""Streaming: of an add-on that may lose less than a minute, the unfinished segment is shipped as well, whenever it changed.

Its log is received as it is written (`drivers.addons.postgres.receiving`). A look every second or two brings to each target what is new:
segments that were finished meanwhile, then the beginning of the one that is written to, under a name that says how long it is. Each takes
the place of the one before. See docs/adr/0022-streaming.md.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import psycopg

from homeport.backups.repository import Repository, tail_key
from homeport.backups.room import UNSTREAMED, Room
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.postgres.cluster import Cluster
from homeport.drivers.addons.postgres.receiving import PARTIAL, Seen, content
from homeport.drivers.addons.records import Place
from homeport.drivers.storage.base import StorageFailed
from homeport.model.base import Frozen
from homeport.model.errors import HomeportError

log = logging.getLogger("homeport.backups")

SHARE = 0.3
"""Of the loss that is allowed, the time between two looks: what is written just after one waits for the next, and that has to arrive."""
QUICKEST, SLOWEST = 0.3, 3.0
"""Seconds between two looks, at least and at most."""
SETTLED = 100_000_000
"""Nanoseconds after which a file's time of change surely differs from that of a later write: the kernel's clock ticks every few ms."""
SIDE_BY_SIDE = 4
"""Add-ons that are shipped at the same time."""


class Kept(Frozen):
    """The beginning of a segment that lies on a target."""

    segment: str
    key: str
    changed: int = 0
    """When the file it is of was written to last, in ns; 0 when it may have been since."""


def unfinished(folder: Path) -> Path | None:
    """The segment that is written to, as far as it was received."""
    try:
        return max((file for file in folder.iterdir() if PARTIAL.fullmatch(file.name)), default=None, key=lambda file: file.name)
    except FileNotFoundError:
        return None


class Tails:
    """The beginnings of unfinished segments that lie on the targets, one on each."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.file = cluster.place.folder / "tails.json"
        self.kept = self._read()

    def _read(self) -> dict[str, Kept]:
        try:
            return {target: Kept.model_validate(kept) for target, kept in json.loads(self.file.read_bytes()).items()}
        except (FileNotFoundError, ValueError):
            return {}

    def _write(self) -> None:
        """Not synced: what a power cut takes from it is written again, and what it no longer knows is pruned."""
        part = self.file.with_name(".tails.json.part")
        part.write_text(json.dumps({target: kept.model_dump() for target, kept in self.kept.items()}))
        part.replace(self.file)

    def due(self) -> bool:
        """Whether there may be something to do."""
        file = unfinished(self.cluster.stream)
        return bool(self.kept) or file is not None

    def ship(self, era: str, system: str, repositories: Sequence[Repository], finished: str, away: dict[str, StorageFailed]) -> None:
        """Bring the unfinished segment to every target that is not away, and forget those that `finished` ones took the place of.

        A target that refuses is added to `away`.
        """
        before = dict(self.kept)
        file = unfinished(self.cluster.stream)
        for repository in repositories:
            if repository.name not in away:
                try:
                    self._forget(repository, finished)
                    if file is not None:
                        self._ship(era, system, repository, file)
                except StorageFailed as error:
                    away[repository.name] = error
        if self.kept != before:
            self._write()

    def _forget(self, repository: Repository, finished: str) -> None:
        kept = self.kept.get(repository.name)
        if kept is not None and kept.segment <= finished:
            repository.storage.remove(kept.key)
            del self.kept[repository.name]

    def _ship(self, era: str, system: str, repository: Repository, file: Path) -> None:
        kept = self.kept.get(repository.name)
        segment = file.name[:24]
        try:
            changed = file.stat().st_mtime_ns
            if kept is not None and (kept.segment, kept.changed) == (segment, changed):
                return
            if time.time_ns() - changed < SETTLED:
                changed = 0
            data = content(file)
        except FileNotFoundError:
            return  # finished meanwhile: the next look ships it whole
        if str(int.from_bytes(data[24:32], "little")) != system:
            return  # nothing in it yet, or of a cluster that was replaced
        key = tail_key(era, segment, data)
        if kept is None or kept.key != key:
            repository.put_tail(era, segment, data)
            if kept is not None:
                with contextlib.suppress(StorageFailed):
                    repository.storage.remove(kept.key)
        self.kept[repository.name] = Kept(segment=segment, key=key, changed=changed)


class Behind:
    """How far the targets are behind a log: from what the receiver said it has and when so much had been written."""

    def __init__(self) -> None:
        self.since = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque(maxlen=1000)

    def shipped(self, at: float, seen: Seen) -> float | None:
        """Everything that was received at a moment is on every target: the moment up to which nothing is missing.

        It is one of the moments that were looked at, so it is never later than the truth.
        """
        self._marks.append((at, seen.written))
        covered = [moment for moment, written in self._marks if seen.received is not None and written <= seen.received]
        if covered:
            self.since = covered[-1]
            while self._marks[0][0] < self.since:
                self._marks.popleft()
        return self.since if covered else None


class Streams:
    """The add-ons of a room that are streamed. One thread looks; several add-ons are shipped side by side."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self._behind: dict[str, Behind] = {}
        self._late: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wal-streamer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.wait(self.pace()):
            try:
                self.look()
            except Exception:
                log.exception("streaming goes on after this")

    def pace(self) -> float:
        """Seconds until the next look: by the smallest loss that is allowed."""
        losses = [loss.total_seconds() for loss in self.wanted().values()]
        return max(QUICKEST, min(SLOWEST, SHARE * min(losses, default=60.0)))

    def wanted(self) -> Mapping[AddOnId, timedelta]:
        """The add-ons that are to be streamed, with the loss that is allowed to each."""
        return {id: loss for id, loss in self._losses().items() if loss < UNSTREAMED}

    def _losses(self) -> dict[AddOnId, timedelta]:
        """The loss that is allowed to each database. Asked every few seconds: where there is none the policy is not read."""
        databases = self.room.databases()
        if not databases:
            return {}
        policy = self.room.policy
        return {id: policy.loss(id.project, id.environment, id.name) for id in databases}

    def behind(self, id: AddOnId) -> float | None:
        """Seconds of an add-on's changes that are not on every target; None while that is not known, or it is not streamed."""
        covered = self.room.postgres.covered.get(id.slug)
        return None if covered is None else round(time.monotonic() - covered, 1)

    def look(self) -> dict[str, str]:
        """Have what is wanted streamed, and nothing else, and ship what is new; problems by add-on."""
        losses = self._losses()
        wanted = {id: loss for id, loss in losses.items() if loss < UNSTREAMED}
        for id in losses:
            if id not in wanted:
                self._end(id)
        if len(wanted) <= 1:
            found = [self._one(id, loss) for id, loss in wanted.items()]
        else:
            with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="stream") as pool:
                found = list(pool.map(self._one, wanted, wanted.values()))
        return {id.slug: why for id, why in zip(wanted, found, strict=True) if why}

    def _end(self, id: AddOnId) -> None:
        self._behind.pop(id.slug, None)
        self._late.discard(id.slug)
        self.room.postgres.covered.pop(id.slug, None)
        with contextlib.suppress(InterruptedError, HomeportError, psycopg.Error, OSError):
            self.room.postgres.stream(id, wanted=False)

    def _one(self, id: AddOnId, loss: timedelta) -> str:
        """Ship one; why it did not work."""
        behind = self._behind.setdefault(id.slug, Behind())
        why = ""
        try:
            self._ship(id, behind)
        except (HomeportError, psycopg.Error, OSError) as error:  # a server that is down says no more, and what it said is shipped below
            why = getattr(error, "why", str(error))
        self._tell(id, loss, time.monotonic() - behind.since, why)
        return why

    def _ship(self, id: AddOnId, behind: Behind) -> None:
        from homeport.backups import wal

        driver, seen = self.room.postgres, None
        record = Place(self.room.home, id).read()
        if record is None or record.wanted != "running" or not wal.carried(driver.cluster(id)):
            behind.since = time.monotonic()  # nothing is written, or no base backup begins the log yet
        try:
            with contextlib.suppress(InterruptedError):  # it is being changed
                if driver.stream(id, wanted=True):
                    text = f"The log of {id.slug} is received anew: its receiver was away for longer than the log is kept for it. "
                    text += "The archive has all of it."
                    self.room.wiring.tell("backup.stream-cut", text, id.project, id.environment, subject=id.name)
            receiver = driver.receiver(id)
            at = time.monotonic()
            seen = receiver.look() if receiver is not None else None
        finally:
            wal.ship(self.room, id)
        if seen is not None and wal.carried(driver.cluster(id)) and (covered := behind.shipped(at, seen)) is not None:
            driver.covered[id.slug] = covered

    def _tell(self, id: AddOnId, loss: timedelta, seconds: float, why: str) -> None:
        """Say once that the targets are further behind than is allowed, and once that they are no more."""
        late = seconds > loss.total_seconds()
        if late and id.slug not in self._late:
            text = f"The targets are {seconds:.0f} s behind {id.slug}, of which {loss.total_seconds():g} s may be lost"
            self.room.wiring.tell("backup.wal-late", f"{text}{f': {why}' if why else '.'}", id.project, id.environment, subject=id.name)
        if not late and id.slug in self._late:
            text = f"The targets have the log of {id.slug} again but for {seconds:.1f} s."
            self.room.wiring.tell("backup.wal-on-time", text, id.project, id.environment, subject=id.name)
        (self._late.add if late else self._late.discard)(id.slug)
