"""What the kernel tells about processes: read from /proc (proc(5)), all of it in one pass when many are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/<pid>/stat."""

    pid: int
    name: str
    state: str
    group: int
    session: int
    cpu_seconds: float
    start_time: int
    memory: int
    """Resident bytes; pages shared with other processes count in each."""

    @property
    def ended(self) -> bool:
        return self.state in "ZXx"


@cache
def boot_id() -> str:
    """Tells one boot of the machine from the next, so that recorded pids of an earlier one are not trusted."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def process(pid: int) -> Process | None:
    """The process with this pid; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    if len(fields) < 22:
        return None
    return Process(
        pid=pid,
        name=name,
        state=fields[0],
        group=int(fields[2]),
        session=int(fields[3]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / TICKS,
        start_time=int(fields[19]),
        memory=int(fields[21]) * PAGE,
    )


def is_running(pid: int, start_time: int, boot: str) -> bool:
    """Whether exactly this process, and not a later one with its number, still runs. A zombie does not."""
    if boot != boot_id():
        return False
    found = process(pid)
    return found is not None and found.start_time == start_time and not found.ended


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def namespace(pid: int) -> int:
    """Inode of the process's mount namespace; 0 when it may not be asked."""
    try:
        return Path(f"/proc/{pid}/ns/mnt").stat().st_ino
    except OSError:
        return 0


def by_namespace(wanted: Iterable[int]) -> dict[int, list[int]]:
    """The pids in each of these mount namespaces."""
    found: dict[int, list[int]] = {inode: [] for inode in wanted}
    for pid in pids():
        inode = namespace(pid)
        if inode in found:
            found[inode].append(pid)
    return found


def by_session(wanted: Iterable[int]) -> dict[int, list[int]]:
    """The pids in each of these sessions."""
    found: dict[int, list[int]] = {session: [] for session in wanted}
    for pid in pids():
        seen = process(pid)
        if seen is not None and seen.session in found:
            found[seen.session].append(pid)
    return found


def has_mount(pid: int, path: str) -> bool:
    """Whether something is mounted there for this process: proves that a namespace's number was not recycled."""
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(fields[4] == path for line in lines if len(fields := line.split(" ")) > 4)
