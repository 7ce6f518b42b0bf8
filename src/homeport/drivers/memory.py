"""Giving memory back: what a deploy or a backup needed for a moment does not stay with a process that rests for days.

The C library keeps what is freed, in one arena for each few threads, until somebody asks (malloc_trim(3), mallopt(3)).
"""

from __future__ import annotations

import ctypes
import gc
import logging
import threading
from pathlib import Path

log = logging.getLogger(__name__)

ARENAS = 2
"""Arenas of the C library: the threads here wait for others most of the time, and share them well."""
LOOK_EVERY = 20.0
"""Seconds between looks; a look reads one line."""
GROWN = 3 << 20
"""Bytes more than after the last time that make it worth doing."""
_M_ARENA_MAX = -8
"""malloc.h of the GNU C library."""


class Thrift:
    """Gives memory back when a process has grown. Where the C library is another than GNU's, only Python's own garbage is collected."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._trims = hasattr(self._library, "malloc_trim")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="thrift", daemon=True)
        self._least = 0
        if self._trims:
            self._library.mallopt(_M_ARENA_MAX, ARENAS)

    def start(self) -> None:
        """Begin. Call it once everything is loaded: what is there now is taken for permanent and not looked through again."""
        gc.collect()
        gc.freeze()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_EVERY):
            self.look()

    def look(self) -> int:
        """Give back what can be given when the process has grown since the last time; bytes it takes now."""
        taken = resident()
        if taken > self._least + GROWN:
            gc.collect()
            if self._trims:
                self._library.malloc_trim(0)
            self._least = taken = resident()
        return taken


def resident() -> int:
    """Bytes of this process in memory (proc(5), `VmRSS`)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) << 10
