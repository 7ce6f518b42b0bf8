"""Starts the launcher with an order, and turns what it reports into an outcome."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import marshal
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from homeport.drivers.runtimes import launcher
from homeport.drivers.runtimes.base import Executed
from homeport.model.base import Frozen

OUTPUT = 64 << 10
"""Bytes of output that are kept of a command inside an instance."""
PATIENCE = 30.0
"""Seconds the launcher may take; it needs about 0.015."""


class Failure(Frozen):
    """What the launcher could not do."""

    stage: str
    number: int
    subject: str

    def __str__(self) -> str:
        cause = os.strerror(self.number) if self.number else self.subject
        return f"{self.stage} {self.subject}: {cause}" if self.number and self.subject else f"{self.stage}: {cause}"


def launcher_file() -> str:
    """The launcher, compiled when the cache of the package holds it: that saves about 3 ms a start."""
    compiled = getattr(launcher, "__cached__", "")
    return compiled if compiled and Path(compiled).is_file() else str(launcher.__file__)


def launch(
    order: dict[str, Any], *, python: str = sys.executable, lock: int | None = None, stdin: int | None = None, output: int | None = None
) -> tuple[int, Failure | None]:
    """Run the launcher with `order`; returns its pid, and why it failed (it is then already gone and reaped).

    `lock` is a locked descriptor which the launcher holds until it has become the application. Raises OSError when not even
    the launcher can be started. `output` takes what is written, where the order names no log folder.
    """
    read_end, write_end = os.pipe()
    try:
        with (
            _high(write_end) as status,
            _order(order) as payload,
            _high(_copy(lock)) as holder,
            _high(_copy(stdin)) as source,
            _high(_copy(output)) as target,
        ):
            pid = os.posix_spawn(
                python,
                [python, "-I", "-S", "-E", launcher_file()],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, source, 0),
                    *([] if output is None else [(os.POSIX_SPAWN_DUP2, target, number) for number in (1, 2)]),
                    (os.POSIX_SPAWN_DUP2, payload, launcher.ORDER),
                    (os.POSIX_SPAWN_DUP2, status, launcher.STATUS),
                    (os.POSIX_SPAWN_DUP2, holder, launcher.LOCK),
                ],
            )
        return pid, _outcome(pid, read_end)
    finally:
        os.close(read_end)


def collect(pid: int, reader: int, seconds: float) -> Executed:
    """Read what a child writes until it ends; after `seconds` it is ended with its whole session."""
    deadline = time.monotonic() + seconds
    data = bytearray()
    process = os.pidfd_open(pid)
    poller = select.poll()
    poller.register(process, select.POLLIN)
    poller.register(reader, select.POLLIN | select.POLLHUP)
    ended = late = False
    try:
        while not (ended or late):
            ready = dict(poller.poll(max(0.0, deadline - time.monotonic()) * 1000))
            late = not ready
            ended = process in ready
            _drain(reader, data, poller, wanted=reader in ready)
        if late:
            os.killpg(pid, signal.SIGKILL)
        result = os.waitid(os.P_PIDFD, process, os.WEXITED)
    finally:
        os.close(process)
    code = None if late or result is None else result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status
    return Executed(code=code, output=data.decode("utf-8", "replace"))


def _drain(reader: int, data: bytearray, poller: select.poll, *, wanted: bool) -> None:
    while wanted and select.select([reader], [], [], 0)[0]:
        piece = os.read(reader, 65_536)
        data += piece[: OUTPUT - len(data)]
        if not piece:
            poller.unregister(reader)
            return


def try_view(python: str, operations: tuple[tuple[str, str, str, str], ...]) -> str:
    """Let the launcher compose a file system and do nothing in it; returns why it cannot, or nothing."""
    with tempfile.TemporaryDirectory(prefix="homeport-probe-") as folder:
        try:
            pid, failure = launch(order(root=folder, view=operations), python=python)
        except OSError as error:
            return f"{error.strerror}"
        if failure is None:
            os.waitpid(pid, 0)
    return "" if failure is None else str(failure)


def order(**given: Any) -> dict[str, Any]:
    """A complete order for the launcher; without `argv` it sets up everything and ends."""
    empty: dict[str, Any] = {
        "argv": [],
        "env": {},
        "search": [],
        "cwd": "/",
        "user": None,
        "log": "",
        "cgroups": (),
        "view": (),
        "root": "",
        "join": 0,
        "limits": {},
        "oom_score": 0,
        "record": "",
        "boot_id": "",
    }
    unknown = set(given) - set(empty)
    if unknown:
        raise TypeError(f"the launcher knows no {sorted(unknown)}")
    return {**empty, **given}


@contextlib.contextmanager
def _high(number: int) -> Iterator[int]:
    """The descriptor moved out of the way of those the launcher expects, closed afterwards."""
    try:
        moved = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, launcher.LOCK + 5)
    finally:
        os.close(number)
    try:
        yield moved
    finally:
        os.close(moved)


@contextlib.contextmanager
def _order(content: dict[str, Any]) -> Iterator[int]:
    """A memory file that holds the order: complete before the launcher starts, on no disk, in no argument list."""
    number = os.memfd_create("homeport-order", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(number), "wb") as file:
        marshal.dump(content, file)
    os.lseek(number, 0, os.SEEK_SET)
    with _high(number) as moved:
        yield moved


def _copy(number: int | None) -> int:
    return os.open(os.devnull, os.O_RDONLY) if number is None else os.dup(number)


def _outcome(pid: int, status: int) -> Failure | None:
    """Wait for the end of the status pipe: the launcher has become the application, or has said why not."""
    poller = select.poll()
    poller.register(status, select.POLLIN | select.POLLHUP)
    if not poller.poll(PATIENCE * 1000):
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        return Failure(stage="launcher", number=errno.ETIMEDOUT, subject="")
    report = os.read(status, 4096).decode("utf-8", "replace")
    if not report:
        return None
    os.waitpid(pid, 0)
    stage, number, subject = report.split("\t", 2)
    return Failure(stage=stage, number=int(number), subject=subject)
