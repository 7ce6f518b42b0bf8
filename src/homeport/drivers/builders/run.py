"""Runs one step of a build: bounded, logged line by line, and gone with all its children when it ends, however it ends.

A step starts behind a gate: a fixed two-word shell script waits for one line on its standard input, so that limits, niceness and
control group are in place before the step's own first instruction.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from homeport.drivers.builders.base import BuildLimits, Log
from homeport.drivers.builders.errors import TAIL, BuildCancelled, BuildFailed, BuildTimedOut
from homeport.drivers.cgroups import Group, Limits, cgroups
from homeport.model.base import format_size

GATE = ("/bin/sh", "-c", 'read -r _ || exit 125; exec "$@" </dev/null', "build")
MAX_LINE = 4096
"""Bytes of one line that are passed on."""
MAX_OUTPUT = 64 << 20
"""Bytes of output that are passed on; a build that prints more goes on in silence."""
MAX_FILE = 8 << 30
"""Bytes of one file that a build may write."""
PIDS = 2048
OPEN_FILES = 65_536
GROUP = "build"
TICK = 0.1
"""Seconds between looks at `cancelled`."""


class StepFailed(Exception):
    """A step ended with an error; `tail` are its last lines."""

    def __init__(self, step: str, why: str, tail: Sequence[str]) -> None:
        super().__init__(why)
        self.step, self.why, self.tail = step, why, tuple(tail)


class Lines:
    """Cuts a stream of bytes into lines: of several rewritten by `\\r` the last counts, long ones are cut."""

    def __init__(self, log: Log) -> None:
        self.log, self.tail = log, deque[str](maxlen=TAIL)
        self.rest, self.total = b"", 0

    def feed(self, data: bytes) -> None:
        self.total += len(data)
        *lines, rest = (self.rest + data).split(b"\n")
        self.rest = rest if len(rest) <= 4 * MAX_LINE else rest[: 2 * MAX_LINE]
        for line in lines:
            self._emit(line)

    def end(self) -> None:
        if self.rest:
            self._emit(self.rest)
            self.rest = b""

    def say(self, text: str) -> None:
        """A line of Homeport's own."""
        self.tail.append(text)
        self.log(text)

    def _emit(self, line: bytes) -> None:
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        text = shown[:MAX_LINE].decode(errors="replace") + (" …" if len(shown) > MAX_LINE else "")
        self.tail.append(text)
        if self.total <= MAX_OUTPUT:
            self.log(text)


def sweep(folders: Sequence[Path], temporary: Path) -> None:
    """End every process that works below one of the folders, or whose TMPDIR lies below `temporary`."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            here, places = Path(process.cwd()), Path(process.environ().get("TMPDIR", "/"))
            if places.is_relative_to(temporary) or any(here.is_relative_to(folder) for folder in folders):
                process.kill()


def remove_dead_groups() -> None:
    """End and remove the control groups of builds whose control plane is gone."""
    for folder in {Path(base) for base in cgroups().bases.values()}:
        for found in folder.glob(f"{GROUP}-*"):
            owner = found.name.rpartition("-")[2]
            group = cgroups().group(found.name)
            if group is not None and owner.isdigit() and not Path("/proc", owner).exists():
                group.kill()
                group.remove()


class Runner:
    """Runs the steps of one build under one deadline. Steps run in order; each is over, with its children, when `run` returns."""

    def __init__(
        self,
        *,
        id: str,
        service: str,
        limits: BuildLimits,
        user: int | None,
        log: Log,
        cancelled: Callable[[], bool],
        places: tuple[Path, Path],
    ) -> None:
        """`places` are the folder that is worked in and the build's TMPDIR: both tell which processes belong to it."""
        self.service, self.limits, self.user, self.places = service, limits, user, places
        self.cancelled, self.lines = cancelled, Lines(log)
        self.ends_at = time.monotonic() + limits.time.total_seconds()
        self.group: Group | None = None
        self.name = f"{GROUP}-{id[:24]}-{os.getpid()}"

    def __enter__(self) -> Runner:
        group = cgroups().group(self.name)
        if group is not None:
            try:
                group.create(Limits(memory=self.limits.memory, cpu=self.limits.cpu, pids=PIDS))
                self.group = group
            except OSError as error:
                self.lines.say(f"limits by control group are not in force: {error.strerror}")
                group.remove()
        return self

    def __exit__(self, *_: object) -> None:
        self._sweep()
        if self.group is not None:
            self.group.remove()

    @contextlib.contextmanager
    def heard(self, listener: Log) -> Iterator[None]:
        """Inside, every line goes to the listener as well."""
        log = self.lines.log

        def both(line: str) -> None:
            listener(line)
            log(line)

        self.lines.log = both
        try:
            yield
        finally:
            self.lines.log = log

    def run(self, argv: Sequence[str], folder: Path, env: Mapping[str, str], shown: str) -> None:
        """Run a program to its end. Raises StepFailed, BuildTimedOut, BuildCancelled."""
        account = {} if self.user is None else {"user": self.user, "group": self.user, "extra_groups": []}
        process = subprocess.Popen(
            [*GATE, *argv],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o022,
            **account,  # type: ignore[call-overload]
        )
        with process:
            try:
                self._tame(process.pid)
                assert process.stdin is not None  # noqa: S101 - asked for above
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(b"\n")
                    process.stdin.close()
                self._pump(process, shown)
            finally:
                self._kill(process.pid)
        self._judge(process.returncode, shown)

    def _tame(self, pid: int) -> None:
        """Limits and niceness of a step that waits behind the gate. None of them is worth failing a build for."""
        if self.group is not None:
            for file in self.group.joins:
                with contextlib.suppress(OSError):
                    Path(file).write_text(str(pid))
        with contextlib.suppress(OSError, psutil.Error):
            os.setpriority(os.PRIO_PROCESS, pid, 10)
            psutil.Process(pid).ionice(psutil.IOPRIO_CLASS_IDLE)
        wanted = [(resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, MAX_FILE), (resource.RLIMIT_NOFILE, OPEN_FILES)]
        for kind, value in wanted:
            with contextlib.suppress(OSError, ValueError):
                hard = resource.prlimit(pid, kind)[1]
                limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
                resource.prlimit(pid, kind, (limit, limit))

    def _pump(self, process: subprocess.Popen[bytes], shown: str) -> None:
        """Pass output on until the program has ended; what its children still hold open is not waited for."""
        assert process.stdout is not None  # noqa: S101 - asked for above
        os.set_blocking(process.stdout.fileno(), False)
        watched = os.pidfd_open(process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ, "output")
                selector.register(watched, selectors.EVENT_READ, "end")
                ended = False
                while not ended:
                    ready = {key.data for key, _ in selector.select(TICK)}
                    if "output" in ready and not self._read(process):
                        selector.unregister(process.stdout)
                    ended = "end" in ready
                    self._check(shown)
                while self._read(process):
                    pass
        finally:
            os.close(watched)
            self.lines.end()

    def _read(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.stdout is not None  # noqa: S101 - asked for above
        try:
            data = os.read(process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return False
        self.lines.feed(data)
        return bool(data)

    def _check(self, shown: str) -> None:
        if self.cancelled():
            raise BuildCancelled(service=self.service)
        if time.monotonic() > self.ends_at:
            raise BuildTimedOut(service=self.service, step=shown, limit=self.limits.time, tail=self.lines.tail)

    def _kill(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        self._sweep()

    def _sweep(self) -> None:
        """End what a step left behind: by control group, else whatever works in the build's folder or has its TMPDIR."""
        if self.group is not None:
            self.group.kill()
            return
        folder, temporary = self.places
        sweep((folder,), temporary)

    def _judge(self, code: int, shown: str) -> None:
        if self.group is not None and self.group.out_of_memory():
            limit = f" ({format_size(self.limits.memory)})" if self.limits.memory else ""
            raise BuildFailed(
                service=self.service,
                why=f"`{shown[:120]}` used more memory than the build may{limit} and was ended",
                fix="Raise the build's memory limit, or make the build need less (for Node: NODE_OPTIONS=--max-old-space-size).",
                tail=self.lines.tail,
            )
        if code:
            reason = f"ended with exit code {code}"
            if code < 0 or code > 128:
                number = -code if code < 0 else code - 128
                killed = " (often: the machine ran out of memory)" if number == signal.SIGKILL else ""
                reason = f"was ended by signal {number}{killed}"
            elif code == 127:
                reason = "was not found"
            raise StepFailed(shown, f"`{shown[:120]}` {reason}", self.lines.tail)
