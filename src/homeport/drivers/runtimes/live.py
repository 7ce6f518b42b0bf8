"""An instance as the process runtime holds it in memory while it watches it."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from homeport.drivers.runtimes import processes
from homeport.drivers.runtimes.base import Exit, Handle, Observation
from homeport.drivers.runtimes.logfiles import STREAMS, InstanceLog, Stream
from homeport.drivers.runtimes.records import Folder, Placed, Running


@dataclass
class Live:
    """One instance, running or ended."""

    handle: Handle
    placed: Placed
    running: Running
    log: InstanceLog
    starts: dict[Stream, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))
    """How long its logs were when it was last started; 0 when that is not known."""
    ended: threading.Event = field(default_factory=threading.Event)
    exit: Exit | None = None
    stopping: bool = False
    """Whether a stop gives it, or what it left behind, a grace just now."""
    input: int | None = None
    """Where its standard input is written to."""
    _input_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def runs(self) -> bool:
        return not self.ended.is_set()

    def end(self, exit: Exit | None) -> None:
        self.exit = exit
        self.ended.set()

    def feed(self, data: bytes) -> bool:
        """Write to its standard input, waiting while it does not read; False when it no longer can."""
        while data:
            number = self.input
            if number is None or not self.runs:
                return False
            if not select.select([], [number], [], 0.2)[1]:
                continue
            with self._input_lock:
                if self.input is None:
                    return False
                try:
                    data = data[os.write(self.input, data[: select.PIPE_BUF]) :]
                except BrokenPipeError:
                    return False
        return True

    def close_input(self) -> None:
        with self._input_lock:
            if self.input is not None:
                os.close(self.input)
                self.input = None

    def observe(self, pids: Iterable[int]) -> Observation:
        """Measured by its control group where it has one, else summed over these processes."""
        if not self.runs:
            return Observation(handle=self.handle, state="exited", exit=self.exit)
        seen = [found for pid in pids if (found := processes.process(pid)) is not None and not found.ended]
        group = self.placed.group
        memory = group.memory() if group else None
        cpu = group.cpu_seconds() if group else None
        return Observation(
            handle=self.handle,
            state="running",
            memory=sum(found.memory for found in seen) if memory is None else memory,
            cpu_seconds=sum(found.cpu_seconds for found in seen) if cpu is None else cpu,
            processes=len(seen),
        )


def never_ran(folder: Folder, placed: Placed) -> Live:
    """An instance whose start was interrupted before there was a process."""
    handle = Handle(id=placed.id, pid=0, start_time=0, started_at=placed.started_at, host=placed.host, port=placed.port)
    live = Live(handle=handle, placed=placed, running=Running(pid=0, start_time=0, boot_id=""), log=InstanceLog(placed.id, folder.log))
    live.end(Exit(at=placed.started_at))
    return live


def members(lives: Iterable[Live]) -> dict[str, list[int]]:
    """All processes of these instances: by control group, else by mount namespace, else by session."""
    found: dict[str, list[int]] = {}
    by_namespace: dict[int, Live] = {}
    by_session: dict[int, Live] = {}
    for live in lives:
        if live.placed.group is not None:
            found[live.handle.id] = live.placed.group.pids()
        elif live.placed.isolated and live.running.namespace:
            by_namespace[live.running.namespace] = live
        else:
            by_session[live.running.pid] = live
    if by_namespace:
        for inode, pids in processes.by_namespace(by_namespace).items():
            found[by_namespace[inode].handle.id] = pids
    if by_session:
        for session, pids in processes.by_session(by_session).items():
            found[by_session[session].handle.id] = pids
    return found
