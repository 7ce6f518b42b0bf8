"""Bringing append-only files to the disk every second, from outside the server.

Valkey's own `everysec` delays writing to the file for up to two seconds while its last sync is still under way (valkey.conf, `appendfsync`;
aof.c, `flushAppendOnlyFile`), and answers clients meanwhile: a server that is killed then has lost what it acknowledged. With
`appendfsync no` it writes before it answers, always, and the sync that guards against a loss of power is made here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path

log = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between syncs: what a loss of power may take."""
FILES = "addons/*/data/appendonlydir/*.aof"


class Syncing:
    """Syncs what grew in the append-only files of a home. It begins with the first `wake` and costs a look at each file a second."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._sizes: dict[Path, int] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Be at work. Twice is once."""
        if self._thread is None and not self._stopping.is_set():
            self._thread = threading.Thread(target=self._run, name="append-only-sync", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Sync once more and stop."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.wait(EVERY):
            self.look()
        self.look()

    def look(self) -> list[Path]:
        """Sync every file whose size is another than at the last look; those."""
        synced = []
        sizes = {}
        for file in self.home.glob(FILES):
            with contextlib.suppress(FileNotFoundError):
                sizes[file] = file.lstat().st_size
                if sizes[file] != self._sizes.get(file) and self._sync(file):
                    synced.append(file)
        self._sizes = sizes
        return synced

    @staticmethod
    def _sync(file: Path) -> bool:
        try:
            # The folder is the engine's own: what lies there under this name may be anything.
            number = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.fdatasync(number)
            finally:
                os.close(number)
        except FileNotFoundError:
            return False
        except OSError as error:
            log.warning("%s is not on the disk: %s", file, error.strerror)
            return False
        return True
