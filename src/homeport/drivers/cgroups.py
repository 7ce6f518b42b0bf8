"""Control groups, version 1 and 2: limits on memory, processor and process count, and the sure way to find and end every
process of an instance or a build.

Only for root: a control group that outlives the control plane must lie outside the group that systemd ends with it.
Files and their meaning: Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of the Linux kernel.
"""

from __future__ import annotations

import os
import signal
import time
from functools import cache
from pathlib import Path

from homeport.model.base import Frozen

ROOT = Path("/sys/fs/cgroup")
PERIOD = 100_000
"""Microseconds over which processor time is shared out (the kernel's own default)."""
_CONTROLLERS = ("memory", "cpu", "pids")


class Limits(Frozen):
    """What all processes of a group may use together; None leaves it open."""

    memory: int | None = None
    """Bytes, page cache included; swap is not given on top."""
    cpu: float | None = None
    """Cores."""
    pids: int | None = None
    """Processes and threads."""


class Group(Frozen):
    """One control group: its folder per controller. On version 2 they are all the same folder."""

    version: int
    folders: dict[str, str]
    """By controller; `kill` is a folder that has `cgroup.kill`."""

    @property
    def joins(self) -> tuple[str, ...]:
        """Files into which a process writes `0` to join, each once."""
        return tuple(dict.fromkeys(f"{folder}/cgroup.procs" for folder in self.folders.values()))

    def _file(self, controller: str, name: str) -> Path:
        return Path(self.folders[controller]) / name

    def create(self, limits: Limits) -> None:
        """Make the group, or change its limits. Raises OSError."""
        for folder in dict.fromkeys(self.folders.values()):
            Path(folder).mkdir(parents=True, exist_ok=True)
        for file, value in self._settings(limits):
            if file.exists():
                file.write_text(value)

    def _settings(self, limits: Limits) -> list[tuple[Path, str]]:
        settings: list[tuple[Path, str]] = []
        if limits.memory is not None and "memory" in self.folders:
            if self.version == 2:
                settings += [(self._file("memory", "memory.max"), str(limits.memory))]
                settings += [(self._file("memory", "memory.swap.max"), "0"), (self._file("memory", "memory.oom.group"), "1")]
            else:
                settings += [(self._file("memory", "memory.limit_in_bytes"), str(limits.memory))]
                settings += [(self._file("memory", "memory.memsw.limit_in_bytes"), str(limits.memory))]
        if limits.cpu is not None and "cpu" in self.folders:
            quota = max(1000, round(limits.cpu * PERIOD))
            if self.version == 2:
                settings += [(self._file("cpu", "cpu.max"), f"{quota} {PERIOD}")]
            else:
                settings += [(self._file("cpu", "cpu.cfs_period_us"), str(PERIOD)), (self._file("cpu", "cpu.cfs_quota_us"), str(quota))]
        if limits.pids is not None and "pids" in self.folders:
            settings += [(self._file("pids", "pids.max"), str(limits.pids))]
        return settings

    def pids(self) -> list[int]:
        """Every process in it now; [] when the group is gone."""
        found: set[int] = set()
        for file in self.joins:
            try:
                found.update(int(pid) for pid in Path(file).read_text().split())
            except OSError:
                continue
        return sorted(found)

    def kill(self) -> None:
        """SIGKILL to every process in it, also to those that fork meanwhile."""
        killer = Path(self.folders["kill"]) / "cgroup.kill" if "kill" in self.folders else None
        if killer is not None and killer.exists():
            try:
                killer.write_text("1")
            except OSError:
                pass
        for _ in range(64):
            pids = self.pids()
            if not pids:
                return
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if killer is not None:
                return

    def memory(self) -> int | None:
        """Bytes in use without page cache that can be dropped at once; None when not counted."""
        if "memory" not in self.folders:
            return None
        used, stat, inactive = (
            ("memory.current", "memory.stat", "inactive_file")
            if self.version == 2
            else ("memory.usage_in_bytes", "memory.stat", "total_inactive_file")
        )
        try:
            total = int(self._file("memory", used).read_text())
            return max(0, total - _field(self._file("memory", stat).read_text(), inactive))
        except (OSError, ValueError):
            return None

    def cpu_seconds(self) -> float | None:
        """Processor time used so far, by ended processes too; None when not counted."""
        try:
            if self.version == 2:
                return _field(self._file("cpu", "cpu.stat").read_text(), "usage_usec") / 1e6
            return int(self._file("cpuacct", "cpuacct.usage").read_text()) / 1e9
        except (OSError, KeyError, ValueError):
            return None

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed a process of it for want of memory since it was created."""
        if "memory" not in self.folders:
            return False
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        try:
            return _field(self._file("memory", name).read_text(), "oom_kill") > 0
        except OSError:
            return False

    def remove(self, timeout: float = 2.0) -> bool:
        """Remove the group; False when processes are still in it after `timeout` seconds. Already gone is success.

        The kernel lets go of a group a moment after its last process has ended and says so by no event on version 1,
        hence the short waits.
        """
        deadline = time.monotonic() + timeout
        folders = list(dict.fromkeys(self.folders.values()))
        while True:
            folders = [folder for folder in folders if not _removed(folder)]
            if not folders:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.002)


def _removed(folder: str) -> bool:
    try:
        Path(folder).rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _field(text: str, name: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name + " ")), 0)


class Cgroups(Frozen):
    """What this machine offers, and the folders under which groups are made."""

    version: int = 0
    """0 when there are none that can be used."""
    bases: dict[str, str] = {}
    """By controller."""
    reasons: dict[str, str] = {}
    """Per controller that is missing, one sentence why."""

    def group(self, *names: str) -> Group | None:
        """The group of these nested names (not yet created); None without control groups."""
        if not self.version:
            return None
        return Group(version=self.version, folders={name: str(Path(base, *names)) for name, base in self.bases.items()})


@cache
def cgroups() -> Cgroups:
    """Probe this machine once."""
    return probe(ROOT, Path("/proc/self/cgroup"), root=os.geteuid() == 0)


def probe(tree: Path, own: Path, *, root: bool) -> Cgroups:
    """What the control group file system at `tree` offers to a process (of `root` or not) whose groups `own` lists."""
    if not root:
        return Cgroups(reasons=dict.fromkeys(_CONTROLLERS, "control groups need Homeport to run as root"))
    try:
        if (tree / "cgroup.controllers").exists():
            return _probe_unified(tree)
        return _probe_legacy(tree, own.read_text())
    except OSError as error:
        return Cgroups(reasons=dict.fromkeys(_CONTROLLERS, f"control groups cannot be used here: {error.strerror}"))


def _probe_unified(root: Path) -> Cgroups:
    base = root / "homeport"
    base.mkdir(exist_ok=True)
    bases, reasons = {"kill": str(base)}, {}
    for controller in _CONTROLLERS:
        try:
            for folder in (root, base):
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as error:
            reasons[controller] = f"the kernel does not hand the {controller} controller to Homeport: {error.strerror}"
        else:
            bases[controller] = str(base)
    return Cgroups(version=2, bases=bases, reasons=reasons)


def _probe_legacy(root: Path, own: str) -> Cgroups:
    places: dict[str, str] = {}
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        places.update(dict.fromkeys(names.split(","), path))
    bases: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for controller in (*_CONTROLLERS, "cpuacct"):
        base = _base(root / controller, places.get(controller, "/"))
        if base is not None:
            bases[controller] = base
        elif controller in _CONTROLLERS:
            reasons[controller] = f"the {controller} controller is not mounted here"
    killer = _base(root / "unified", places.get("", "/"))
    if killer is not None:
        bases["kill"] = killer
    return Cgroups(version=1 if bases else 0, bases=bases, reasons=reasons)


def _base(hierarchy: Path, own: str) -> str | None:
    """Where groups go in one hierarchy: below our own group where that is visible, so that limits on it still hold."""
    if not (hierarchy / "cgroup.procs").exists():
        return None
    inside = hierarchy / own.strip("/")
    base = (inside if inside.is_dir() else hierarchy) / "homeport"
    try:
        base.mkdir(exist_ok=True)
    except OSError:
        return None
    return str(base)
