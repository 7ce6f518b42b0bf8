"""A runtime without processes, for tests and dry runs. It keeps every promise of the Protocol."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from homeport.drivers.runtimes.base import (
    Capabilities,
    Exit,
    Handle,
    InstanceRunning,
    LogLine,
    Observation,
    Placement,
    Runtime,
    StalePlacement,
    StartRefused,
)


@dataclass
class _Instance:
    placement: Placement
    handle: Handle
    lines: list[str] = field(default_factory=list)
    exit: Exit | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)
    starts: int = 1


class FakeMachine:
    """What outlives a control plane: several `FakeRuntime`s over one machine find the same instances."""

    def __init__(self) -> None:
        self.instances: dict[str, _Instance] = {}
        self.kept_logs: dict[str, list[str]] = {}
        self.lock = threading.RLock()
        self.next_pid = 1000
        self.runtimes: list[FakeRuntime] = []


class FakeRuntime:
    """Runs nothing. Commands say what the instance does:

    `("missing",)` cannot be started; `("print", "a", "b")` writes lines and ends with 0; `("exit", "3")` ends with that code;
    `("oom",)` is ended for want of memory; `("stubborn",)` needs SIGKILL; anything else runs until it is stopped or `finish` is called.
    """

    def __init__(self, machine: FakeMachine | None = None, *, capabilities: Capabilities | None = None) -> None:
        self.machine = machine or FakeMachine()
        self._capabilities = capabilities or Capabilities(isolates_users=True, limits_memory=True, mounts=True, names=True)
        self._listeners: list[Callable[[str, Exit], None]] = []
        self.calls: list[tuple[str, str]] = []
        """Every start, stop and forget, in order."""
        with self.machine.lock:
            self.machine.runtimes.append(self)

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def start(self, placement: Placement) -> Handle:
        self.calls.append(("start", placement.id))
        with self.machine.lock:
            known = self.machine.instances.get(placement.id)
            if known is not None:
                if placement.generation < known.placement.generation:
                    raise StalePlacement(
                        what=f"{placement.id} was not started.", why="A newer plan has placed it.", fix="Nothing needs to be done."
                    )
                if known.exit is None or placement.once:
                    known.placement = placement
                    return known.handle
            words = [placement.command] if isinstance(placement.command, str) else list(placement.command)
            if not words or words[0] in {"", "missing"}:
                raise StartRefused(
                    what=f"{placement.service} was not started.",
                    why="The program 'missing' is not there.",
                    fix="Correct the start command.",
                )
            instance = self._place(placement, known)
        self._act(instance, words)
        return instance.handle

    def _place(self, placement: Placement, known: _Instance | None) -> _Instance:
        self.machine.next_pid += 1
        handle = Handle(
            id=placement.id,
            pid=self.machine.next_pid,
            start_time=self.machine.next_pid,
            boot_id="fake",
            started_at=datetime.now(UTC),
            host=placement.host,
            port=placement.port,
        )
        instance = _Instance(placement, handle)
        if known is not None:
            instance.lines, instance.starts = known.lines, known.starts + 1
        self.machine.instances[placement.id] = instance
        return instance

    def _act(self, instance: _Instance, words: Sequence[str]) -> None:
        outcomes: dict[str, Callable[[], Exit]] = {
            "print": lambda: Exit(code=0, at=datetime.now(UTC)),
            "exit": lambda: Exit(code=int(words[1]), at=datetime.now(UTC)),
            "oom": lambda: Exit(signal=9, out_of_memory=True, at=datetime.now(UTC)),
        }
        if words[0] == "print":
            instance.lines += words[1:]
        if words[0] in outcomes:
            self._end(instance, outcomes[words[0]]())

    def write(self, id: str, *lines: str) -> None:
        """Make an instance write lines."""
        instance = self.machine.instances[id]
        with instance.changed:
            instance.lines += lines
            instance.changed.notify_all()

    def finish(self, id: str, *, code: int | None = 0, signal: int | None = None, out_of_memory: bool = False) -> None:
        """Make an instance end by itself."""
        self._end(self.machine.instances[id], Exit(code=code, signal=signal, out_of_memory=out_of_memory, at=datetime.now(UTC)))

    def _end(self, instance: _Instance, exit: Exit) -> None:
        with instance.changed:
            if instance.exit is not None:
                return
            instance.exit = exit
            instance.changed.notify_all()
        listeners = [listener for runtime in self.machine.runtimes for listener in runtime._listeners]
        threading.Thread(target=lambda: [listener(instance.handle.id, exit) for listener in listeners], daemon=True).start()

    def observe(self) -> Sequence[Observation]:
        with self.machine.lock:
            return [
                Observation(handle=found.handle, state="running", memory=10 << 20, cpu_seconds=0.1, processes=1)
                if found.exit is None
                else Observation(handle=found.handle, state="exited", exit=found.exit)
                for _, found in sorted(self.machine.instances.items())
            ]

    def stop(self, id: str, *, grace: timedelta | None = None) -> Exit | None:
        self.calls.append(("stop", id))
        instance = self.machine.instances.get(id)
        if instance is None:
            return None
        stubborn = instance.placement.command[:1] == ("stubborn",)
        if stubborn and instance.exit is None:
            with instance.changed:
                instance.changed.wait((instance.placement.grace if grace is None else grace).total_seconds())
        self._end(instance, Exit(signal=9 if stubborn else 15, at=datetime.now(UTC)))
        return instance.exit

    def forget(self, id: str) -> None:
        self.calls.append(("forget", id))
        with self.machine.lock:
            instance = self.machine.instances.get(id)
            if instance is not None and instance.exit is None:
                raise InstanceRunning(what=f"The files of {id} were kept.", why="The instance still runs.", fix="Stop it first.")
            if instance is not None:
                self.machine.kept_logs[id] = instance.lines
                del self.machine.instances[id]

    def wait(self, id: str, timeout: timedelta) -> Exit | None:
        instance = self.machine.instances.get(id)
        if instance is None:
            return None
        with instance.changed:
            instance.changed.wait_for(lambda: instance.exit is not None, timeout.total_seconds())
        return instance.exit

    def on_exit(self, listener: Callable[[str, Exit], None]) -> None:
        self._listeners.append(listener)

    def logs(self, id: str, *, tail: int = 100, follow: bool = False, stopped: Callable[[], bool] = lambda: False) -> Iterator[LogLine]:
        instance = self.machine.instances.get(id)
        lines = instance.lines if instance is not None else self.machine.kept_logs.get(id, [])
        place = max(0, len(lines) - tail)
        while True:
            for text in lines[place:]:
                place += 1
                yield LogLine(instance=id, stream="stdout", at=datetime.now(UTC), text=text)
            if not follow or instance is None or instance.exit is not None or stopped():
                return
            with instance.changed:
                if len(lines) == place and instance.exit is None:
                    instance.changed.wait(0.05)

    def rotate(self) -> None:
        return None


_: type[Runtime] = FakeRuntime
