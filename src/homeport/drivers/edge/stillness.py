"""Keeping processes still for a moment, so that they do nothing while something else changes. They go on whatever happens to this process.

The signal to stop would outlive a control plane that is killed in between. So a process of its own waits beside it: it lets them
go on when the control plane ends or is done, and after a few seconds at the latest.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from homeport.drivers.edge.program import send

GUARD = """
import os, select, signal, sys
for seconds in (float(sys.argv[1]), None):
    select.select([0], [], [], seconds)
    for pid in sys.argv[2:]:
        try:
            os.kill(int(pid), signal.SIGCONT)
        except OSError:
            pass
"""
LONGEST = 10.0
"""Seconds after which they go on in any case."""
STOPPED_WITHIN = 0.5
READY_WITHIN = 2.0
AGAIN = 0.005


@contextlib.contextmanager
def still(pids: Sequence[int], ready: Callable[[], bool], longest: float = LONGEST) -> Iterator[None]:
    """Inside, these processes do nothing. Before, they are let go on and stopped again until `ready()` holds while they are still.

    When it does not within two seconds they are kept still all the same.
    """
    if not pids:
        yield
        return
    argv = [sys.executable, "-I", "-S", "-c", GUARD, str(longest), *map(str, pids)]
    guard = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", env={}, start_new_session=True
    )
    try:
        end = time.monotonic() + READY_WITHIN
        _stop(pids)
        while not ready() and time.monotonic() < end:
            send(pids, signal.SIGCONT)
            time.sleep(AGAIN)
            _stop(pids)
        yield
    finally:
        send(pids, signal.SIGCONT)
        assert guard.stdin is not None  # noqa: S101
        guard.stdin.close()
        threading.Thread(target=guard.wait, name="edge-guard", daemon=True).start()


def _stop(pids: Sequence[int]) -> None:
    """Stop them, and wait until none of them is at work any more."""
    send(pids, signal.SIGSTOP)
    end = time.monotonic() + STOPPED_WITHIN
    while any(_works(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.001)


def _works(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "TtZX"
