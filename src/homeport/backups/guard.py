"""The disk guard: what takes how much, how fast it grows, and when to stop adding to it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

from homeport.backups.room import Room
from homeport.drivers.addons.servers import folder_size
from homeport.model.base import Frozen

SAMPLES = 400
"""Looks that are remembered."""


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

    @property
    def low(self) -> bool:
        """Whether builds and backups are refused."""
        return self.free < self.reserve


def report(room: Room, history: list[tuple[datetime, int]] | None = None, *, counting: bool = True) -> DiskReport:
    """Look at the disk. `history` are earlier looks at the free bytes, oldest first; without `counting` no project's files are counted."""
    disk = shutil.disk_usage(room.home)
    policy = room.policy
    used: dict[str, int] = {}
    for row in room.store.ledger.list() if counting else ():
        folder = {"addon": room.home / "addons", "volume": room.home / "volumes"}.get(row.kind)
        if folder is not None:
            project = row.owner.split("/")[0]
            used[project] = used.get(project, 0) + (folder_size(folder / row.key) if (folder / row.key).is_dir() else 0)
    projects = tuple(Usage(project=project, bytes=size, budget=policy.budget) for project, size in sorted(used.items()))
    return DiskReport(total=disk.total, free=disk.free, reserve=policy.reserve, projects=projects, full_at=forecast(history or []))


def forecast(history: list[tuple[datetime, int]]) -> datetime | None:
    """When the free bytes reach 0, by the least-squares line through earlier looks; None when they do not fall, or with too few looks."""
    if len(history) < 3 or history[-1][0] - history[0][0] < timedelta(minutes=10):
        return None
    start = history[0][0]
    xs = [(at - start).total_seconds() for at, _ in history]
    ys = [float(free) for _, free in history]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    if slope >= 0:
        return None
    seconds = (0 - mean_y) / slope + mean_x
    if seconds > 10 * 365 * 86_400:
        return None
    return start + timedelta(seconds=seconds)


class Watch:
    """Remembers looks at the free bytes, and says once when something changed."""

    def __init__(self) -> None:
        self.history: list[tuple[datetime, int]] = []
        self._looks = 0
        self._said: set[str] = set()

    def look(self, room: Room) -> DiskReport:
        """Take a look and tell what is new."""
        self.history = [*self.history, (datetime.now(UTC), shutil.disk_usage(room.home).free)][-SAMPLES:]
        self._looks += 1
        count = room.policy.budget > 0 and self._looks % COUNT_EVERY == 1
        found = report(room, self.history, counting=count)
        now: dict[str, tuple[str, str]] = {}
        if found.low:
            text = f"The disk has {found.free / 2**30:.1f} GiB free; builds and backups are refused below {found.reserve / 2**30:.1f} GiB."
            now["disk.low"] = ("disk.low", text)
        elif found.full_at is not None and found.full_at - datetime.now(UTC) < timedelta(days=3):
            now["disk.forecast"] = (
                "disk.forecast",
                f"The disk will be full on {found.full_at:%Y-%m-%d %H:%M} UTC if it fills as it does now.",
            )
        for usage in found.projects:
            if usage.over:
                text = f"The data of {usage.project} takes {usage.bytes / 2**30:.1f} GiB, more than its budget."
                now[f"disk.budget {usage.project}"] = ("disk.budget", text)
        for key, (kind, text) in now.items():
            if key not in self._said:
                room.wiring.tell(kind, text)
        self._said = set(now) | ({key for key in self._said if key.startswith("disk.budget")} if not count else set())
        return found
