"""One thread that sleeps until a process ends: epoll over pidfds (pidfd_open(2))."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from homeport.drivers.runtimes.base import Exit
from homeport.drivers.runtimes.processes import boot_id, is_running

log = logging.getLogger(__name__)


@dataclass
class _Watched:
    name: str
    pid: int


class Watcher:
    """Calls `ended(name, exit)` on its own thread once for each process added, soon after it has ended.

    Children are reaped, which tells how they ended; of adopted processes only the end itself is known. It costs no processor time
    while nothing ends.
    """

    def __init__(self, ended: Callable[[str, Exit], None]) -> None:
        self._ended = ended
        self._epoll = select.epoll()
        self._watched: dict[int, _Watched] = {}
        self._lock = threading.Lock()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="homeport-watcher", daemon=True)
        self._thread.start()

    def add(self, name: str, pid: int, start_time: int, boot: str) -> bool:
        """Watch a process; False when it is already gone and is not our child."""
        if boot != boot_id():
            return False
        try:
            number = os.pidfd_open(pid)
        except OSError:
            return False
        if not (is_running(pid, start_time, boot) or _is_child(number)):
            os.close(number)
            return False
        with self._lock:
            self._watched[number] = _Watched(name, pid)
            self._epoll.register(number, select.EPOLLIN)
        return True

    def close(self) -> None:
        """Stop watching; the processes live on."""
        self._closing = True
        os.eventfd_write(self._bell, 1)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._closing:
            for number, _ in self._epoll.poll():
                if number != self._bell:
                    self._see_end(number)
        with self._lock:
            for number in (*self._watched, self._bell):
                os.close(number)
            self._watched.clear()
            self._epoll.close()

    def _see_end(self, number: int) -> None:
        with self._lock:
            watched = self._watched.pop(number)
            self._epoll.unregister(number)
        exit = _reap(number)
        os.close(number)
        try:
            self._ended(watched.name, exit)
        except Exception:  # the thread must outlive a listener's mistake
            log.exception("what follows the end of %s failed", watched.name)


def send(pid: int, start_time: int, boot: str, number: int) -> bool:
    """Signal exactly this process; False when it is gone."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_running(pid, start_time, boot):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def wait_for_any(pids: list[int], timeout: float) -> None:
    """Return when one of these processes ends, or after `timeout` seconds."""
    with contextlib.ExitStack() as handles:
        poller = select.poll()
        watching = False
        for pid in pids:
            try:
                number = os.pidfd_open(pid)
            except OSError:
                return
            handles.callback(os.close, number)
            poller.register(number, select.POLLIN)
            watching = True
        if watching:
            poller.poll(max(0.0, timeout) * 1000)


def _is_child(number: int) -> bool:
    try:
        os.waitid(os.P_PIDFD, number, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        return False
    return True


def _reap(number: int) -> Exit:
    now = datetime.now(UTC)
    try:
        result = os.waitid(os.P_PIDFD, number, os.WEXITED)
    except ChildProcessError:
        return Exit(at=now)
    if result is None:
        return Exit(at=now)
    if result.si_code == os.CLD_EXITED:
        return Exit(code=result.si_status, at=now)
    return Exit(signal=result.si_status, at=now)
