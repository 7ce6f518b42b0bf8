"""The disk guard: what takes how much, how fast it grows, and when to stop adding to it."""

from __future__ import annotations

import contextlib
import json
import shutil
from datetime import UTC, datetime, timedelta

from homeport.backups.room import Room
from homeport.drivers.builders.errors import DiskLow
from homeport.drivers.files import write_atomic
from homeport.model.base import Frozen

SAMPLES = 400
"""Looks that are remembered."""


KEEP_EVERY = 10
"""Looks between those that are written down for the next start."""
COUNT_EVERY = 30
"""Looks between those that count files, which takes time on large disks."""


class Usage(Frozen):
    """What one project's data takes."""

    project: str
    bytes: int
    budget: int = 0
    """0: none."""

    @property
    def over(self) -> bool:
        return 0 < self.budget < self.bytes


class DiskReport(Frozen):
    """The disk the home lies on."""

    total: int
    free: int
    reserve: int
    projects: tuple[Usage, ...] = ()
    full_at: datetime | None = None
    """When it is full if it fills as it did in the time it was watched; None when it does not."""

    rate: float | None = None
    """Bytes a day by which the free room shrinks at present; negative when it grows, None while it was not watched long enough."""

    @property
    def low(self) -> bool:
        """Whether builds and backups are refused."""
        return self.free < self.reserve


def report(room: Room, history: list[tuple[datetime, int]] | None = None, *, counting: bool = True) -> DiskReport:
    """Look at the disk. `history` are earlier looks at the free bytes, oldest first; without `counting` no project's files are counted."""
    disk, policy = shutil.disk_usage(room.home), room.policy
    used = room.sizes() if counting else {}
    return DiskReport(
        total=disk.total, free=disk.free, reserve=policy.reserve, full_at=forecast(history or []), rate=rate(history or []),
        projects=tuple(Usage(project=project, bytes=size, budget=policy.budget) for project, size in sorted(used.items())),
    )  # fmt: skip


def refuse(room: Room, project: str, what: str) -> None:
    """Raises DiskLow when the disk has less than the reserve, BudgetSpent when the project's data takes all that it may."""
    free, reserve = shutil.disk_usage(room.home).free, room.policy.reserve
    if free < reserve:
        raise DiskLow(folder=room.home, free=free, reserve=reserve)
    room.afford(project, what)


def rate(history: list[tuple[datetime, int]]) -> float | None:
    """Bytes a day by which the free room shrinks (positive) or grows, by the least-squares line; None with too few looks."""
    line = _line(history)
    return None if line is None else -line[0] * 86_400


def forecast(history: list[tuple[datetime, int]]) -> datetime | None:
    """When the free bytes reach 0, by the least-squares line through earlier looks; None when they do not fall, or with too few looks."""
    line = _line(history)
    if line is None or line[0] >= 0:
        return None
    seconds = -line[1] / line[0]
    if seconds > 10 * 365 * 86_400:
        return None
    return history[0][0] + timedelta(seconds=seconds)


def _line(history: list[tuple[datetime, int]]) -> tuple[float, float] | None:
    """Slope in bytes a second, and the free bytes at the first look, of the least-squares line; None with too few looks."""
    if len(history) < 3 or history[-1][0] - history[0][0] < timedelta(minutes=10):
        return None
    start = history[0][0]
    xs = [(at - start).total_seconds() for at, _ in history]
    ys = [float(free) for _, free in history]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    return slope, mean_y - slope * mean_x


class Watch:
    """Remembers looks at the free bytes, and says once when something changed: also across a restart of the control plane."""

    def __init__(self) -> None:
        self.history: list[tuple[datetime, int]] = []
        self._looks = 0
        self._said: set[str] = set()
        self._kept: bytes | None = None

    def look(self, room: Room) -> DiskReport:
        """Take a look and tell what is new."""
        if self._kept is None:
            self._recall(room)
        self.history = [*self.history, (datetime.now(UTC), shutil.disk_usage(room.home).free)][-SAMPLES:]
        self._looks += 1
        count = room.policy.budget > 0 and self._looks % COUNT_EVERY == 1
        found = report(room, self.history, counting=count)
        now = _alerts(found)
        for key, (kind, text) in now.items():
            if key not in self._said:
                room.wiring.tell(kind, text)
        self._said = set(now) | ({key for key in self._said if key.startswith("disk.budget")} if not count else set())
        self._keep(room)
        return found

    def _keep(self, room: Room) -> None:
        """Write down what was said at once, and the looks with it now and then: a full disk must not stop the watch."""
        said = json.dumps(sorted(self._said)).encode()
        if said == self._kept and self._looks % KEEP_EVERY:
            return
        looks = [[at.isoformat(), free] for at, free in self.history]
        with contextlib.suppress(OSError):
            write_atomic(room.folder / "disk.json", json.dumps({"said": sorted(self._said), "looks": looks}).encode(), 0o600)
            self._kept = said

    def _recall(self, room: Room) -> None:
        self._kept = b""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads((room.folder / "disk.json").read_bytes())
            self._said = {str(key) for key in known["said"]}
            self.history = [(datetime.fromisoformat(at), int(free)) for at, free in known["looks"]][-SAMPLES:]


def _alerts(found: DiskReport) -> dict[str, tuple[str, str]]:
    """What has to be told, by a key of its own: kind of event and text."""
    now: dict[str, tuple[str, str]] = {}
    if found.low:
        text = f"The disk has {found.free / 2**30:.1f} GiB free; builds and backups are refused below {found.reserve / 2**30:.1f} GiB."
        now["disk.low"] = ("disk.low", text)
    elif found.full_at is not None and found.full_at - datetime.now(UTC) < timedelta(days=3):
        text = f"The disk will be full on {found.full_at:%Y-%m-%d %H:%M} UTC if it fills as it does now."
        now["disk.forecast"] = ("disk.forecast", text)
    for usage in found.projects:
        if usage.over:
            text = (
                f"The data of {usage.project} takes {usage.bytes / 2**30:.1f} GiB of a budget of {usage.budget / 2**30:.1f} GiB; "
                "it runs on, and builds, forks and local backups of it are refused."
            )
            now[f"disk.budget {usage.project}"] = ("disk.budget", text)
    return now
