"""How an instance is asked to end, and how everything it started is ended for certain.

Its processes are found by control group; without one by mount namespace, which follows them into daemons; without that by session.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from homeport.drivers.runtimes import processes
from homeport.drivers.runtimes.base import InstanceRunning
from homeport.drivers.runtimes.live import Live
from homeport.drivers.runtimes.records import Folder, Placed, Running
from homeport.drivers.runtimes.watcher import send, wait_for_any

KILL_PATIENCE = 10.0
"""Seconds in which the kernel must have ended a process after SIGKILL."""
_WRAPPERS = frozenset({"sh", "dash", "bash", "npm", "npx", "yarn", "pnpm", "make", "uv", "poetry", "pipenv", "foreman", "honcho"})
"""Programs that start the real one and may keep a stop signal to themselves: for these the whole group is signalled."""


def left(folder: Folder, placed: Placed, running: Running | None) -> list[int]:
    """Processes of an instance that are still there, strangers with a recycled number excluded."""
    if placed.group is not None:
        return placed.group.pids()
    if running is None or running.boot_id != processes.boot_id():
        return []
    if placed.isolated and running.namespace:
        pids = processes.by_namespace([running.namespace])[running.namespace]
        work = str(folder.work)
        return [pid for pid in pids if processes.has_mount(pid, work)]
    leader = processes.process(running.pid)
    if leader is not None and leader.start_time != running.start_time:
        return []
    return [pid for pid in processes.by_session([running.pid])[running.pid] if (seen := processes.process(pid)) and not seen.ended]


def sweep(folder: Folder, placed: Placed, running: Running | None) -> None:
    """End whatever an instance left behind, and remove its group. Raises InstanceRunning."""
    deadline = time.monotonic() + KILL_PATIENCE
    while remaining := left(folder, placed, running):
        kill(placed, remaining)
        if time.monotonic() > deadline:
            raise InstanceRunning(
                what=f"{placed.id} could not be ended.",
                why=f"The kernel does not let go of process {remaining[0]}: it waits for a device or a network file system.",
                fix="Find out with `ps` what it waits for; a restart of the machine always ends it.",
            )
        wait_for_any(remaining, 0.05)
    if placed.group is not None:
        placed.group.remove()


def kill(placed: Placed, pids: Sequence[int]) -> None:
    if placed.group is not None:
        placed.group.kill()
        return
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def ask(folder: Folder, live: Live, deadline: float) -> None:
    """Send the stop signal and wait: first to the main process, to the others when it has gone (see docs/adr on stopping)."""
    number = _signal(live.placed.stop_signal)
    running = live.running
    if _is_wrapper(running.pid):
        for pid in left(folder, live.placed, running):
            _send_quietly(pid, number)
    else:
        send(running.pid, running.start_time, running.boot_id, number)
    live.ended.wait(max(0.0, deadline - time.monotonic()))
    asked: set[int] = set()
    while time.monotonic() < deadline and (remaining := left(folder, live.placed, running)):
        for pid in set(remaining) - asked:
            _send_quietly(pid, number)
        asked.update(remaining)
        wait_for_any(remaining, deadline - time.monotonic())


def _signal(name: str) -> int:
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        return signal.SIGTERM


def _send_quietly(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _is_wrapper(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:2]
    except OSError:
        return False
    return any(Path(os.fsdecode(word).split(" ")[0]).stem in _WRAPPERS for word in words if word)
