"""What an instance leaves on disk so that it can be found again.

`instances/<id>/run/` holds three files, each with one writer: `placement.json` (the runtime, before the start),
`process.json` (the launcher, before it becomes the application) and `exit.json` (whoever sees the end). They are renamed into place
but not synced: after a power cut the processes are gone as well, and a file that is empty or torn reads as "never started".
No value of the environment is in them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from homeport.drivers.cgroups import Group
from homeport.drivers.runtimes.base import Exit, Handle, Placement
from homeport.model.base import Duration, Frozen

_Value = TypeVar("_Value", bound=Frozen)


class Placed(Frozen):
    """What was asked for."""

    id: str
    project: str
    environment: str
    service: str
    release: str
    generation: int
    once: bool
    host: str
    port: int
    grace: Duration
    stop_signal: str
    started_at: datetime
    isolated: bool
    """Whether it has a mount namespace of its own, by which its processes are recognised."""
    group: Group | None = None
    user: int | None = None

    @classmethod
    def of(cls, placement: Placement, *, isolated: bool, group: Group | None) -> Placed:
        same = {
            name: getattr(placement, name)
            for name in ("id", "project", "environment", "service", "release", "generation", "once", "host", "port", "grace", "stop_signal")
        }
        return cls(**same, started_at=datetime.now(UTC), isolated=isolated, group=group, user=placement.user)


class Running(Frozen):
    """The process that was started; written by the launcher."""

    pid: int
    start_time: int
    boot_id: str
    namespace: int = 0


class Folder:
    """`instances/<id>`, with its records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run, self.log, self.work, self.tmp = path / "run", path / "log", path / "work", path / "tmp"

    def prepare(self) -> None:
        """Make the folders. Others may pass through the outer one but list nothing."""
        for folder, mode in ((self.path.parent, 0o711), (self.path, 0o711), (self.run, 0o700), (self.log, 0o700)):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)

    @property
    def process_file(self) -> Path:
        return self.run / "process.json"

    def placed(self) -> Placed | None:
        return _read(self.run / "placement.json", Placed)

    def running(self) -> Running | None:
        return _read(self.process_file, Running)

    def exit(self) -> Exit | None:
        return _read(self.run / "exit.json", Exit)

    def handle(self) -> Handle | None:
        placed, running = self.placed(), self.running()
        if placed is None or running is None:
            return None
        return Handle(
            id=placed.id,
            pid=running.pid,
            start_time=running.start_time,
            boot_id=running.boot_id,
            started_at=placed.started_at,
            host=placed.host,
            port=placed.port,
        )

    def write_placed(self, placed: Placed) -> None:
        """Begin a new life: traces of the process before it go first."""
        self.clear_process()
        _write(self.run / "placement.json", placed)

    def note_generation(self, placed: Placed, generation: int) -> None:
        """A newer plan wants the same instance: it stays, and older plans are refused from now on."""
        _write(self.run / "placement.json", placed.model_copy(update={"generation": generation}))

    def write_exit(self, exit: Exit) -> Exit:
        """Record the end and return it; how it ended, once seen by another watcher, is not overwritten by less."""
        known = self.exit()
        if known is not None and (exit.code, exit.signal) == (None, None):
            return known
        try:
            _write(self.run / "exit.json", exit)
        except FileNotFoundError:
            pass  # its files are being removed
        return exit

    def clear_process(self) -> None:
        for name in ("process.json", "exit.json"):
            (self.run / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self, patience: float = 60.0) -> Iterator[int]:
        """Hold the instance's lock; yields its descriptor, which a launcher may inherit. Raises TimeoutError.

        While a launcher holds it the instance is between two states, also when whoever started the launcher is dead.
        flock cannot wait with a timeout, hence the short waits; they happen only then.
        """
        deadline = time.monotonic() + patience
        while (number := self._try_lock()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.path.name} is being started or stopped by another program")
            select.select([], [], [], 0.005)
        try:
            yield number
        finally:
            os.close(number)

    def _try_lock(self) -> int | None:
        """The lock's descriptor, or None while somebody has it, or has just removed it with the whole folder."""
        path = self.run / "lock"
        try:
            self.run.mkdir(parents=True, exist_ok=True)
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileNotFoundError, FileExistsError):  # removed between these calls
            return None
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(number).st_ino:
                return number
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(number)
        return None

    def is_locked(self) -> bool:
        """Whether it is being started or stopped just now."""
        try:
            number = os.open(self.run / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(number)
        return False


def _read(path: Path, kind: type[_Value]) -> _Value | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def _write(path: Path, value: Frozen) -> None:
    part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.new")
    part.write_text(json.dumps(value.model_dump(mode="json"), separators=(",", ":")) + "\n")
    part.replace(path)
