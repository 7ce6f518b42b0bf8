"""What the kernel tells about processes: read from /proc (proc(5)), all of it in one pass when many are asked for."""

from __future__ import annotations

import ipaddress
import os
import sys
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


def environment(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty when it may not be read."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    return dict(os.fsdecode(entry).split("=", 1) for entry in data.split(b"\0") if b"=" in entry)


def folder(pid: int) -> str:
    """Its current folder, as it sees it; empty when it may not be read."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115
    except OSError:
        return ""


def listening(pids: Iterable[int]) -> list[tuple[str, int]]:
    """Addresses and TCP ports on which any of these processes accepts connections."""
    pids = list(pids)
    sockets = {inode for pid in pids for inode in _sockets(pid)}
    found: set[tuple[str, int]] = set()
    for pid in pids[:1]:
        for name in ("tcp", "tcp6"):
            try:
                lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
            except OSError:
                continue
            for fields in (line.split() for line in lines):
                if fields[3] == "0A" and int(fields[9]) in sockets:
                    address, _, port = fields[1].partition(":")
                    found.add((_address(address), int(port, 16)))
    return sorted(found)


def listeners(host: str, port: int) -> list[int]:
    """The processes that accept connections on a port of this machine's address, or of all; those that this account may look into."""
    wanted: set[int] = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in (line.split() for line in lines):
            address, _, number = fields[1].partition(":")
            if fields[3] == "0A" and int(number, 16) == port and _address(address) in (host, "0.0.0.0", "::"):  # noqa: S104
                wanted.add(int(fields[9]))
    return [pid for pid in pids() if wanted.intersection(_sockets(pid))] if wanted else []


def _sockets(pid: int) -> Iterable[int]:
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                try:
                    link = os.readlink(entry.path)  # noqa: PTH115
                except OSError:
                    continue
                if link.startswith("socket:["):
                    yield int(link[8:-1])
    except OSError:
        return


def _address(text: str) -> str:
    """The kernel writes each 32-bit word in the machine's byte order."""
    data = bytes.fromhex(text)
    words = b"".join(data[place : place + 4][:: -1 if sys.byteorder == "little" else 1] for place in range(0, len(data), 4))
    return str(ipaddress.ip_address(words))
