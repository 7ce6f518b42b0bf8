"""Watching what is there for a moment only: argument lists of processes, and files that come and go."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

CLOSED_AFTER_WRITING, MOVED_TO, CREATED = 0x008, 0x080, 0x100
"""<sys/inotify.h>"""
_EVENT = struct.Struct("iIII")


class Watcher:
    """Calls `look(place, data)` for each argument list and each file in these folders while it is open."""

    def __init__(self, folders: list[Path], look: Callable[[str, bytes], None]) -> None:
        self.look, self.processes, self.files = look, 0, 0
        self._ended = threading.Event()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self._folders = {self._watch(folder): folder for folder in folders if folder.is_dir()}
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._arguments, self._written)]

    def _watch(self, folder: Path) -> int:
        return int(self._libc.inotify_add_watch(self._inotify, os.fsencode(folder), CLOSED_AFTER_WRITING | MOVED_TO | CREATED))

    def __enter__(self) -> Watcher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        os.close(self._inotify)

    def _arguments(self) -> None:
        seen: dict[str, bytes] = {}
        while not self._ended.wait(0.005):
            now: dict[str, bytes] = {}
            for name in (folder.name for folder in Path("/proc").iterdir()):
                if name.isdigit():
                    with contextlib.suppress(OSError):
                        now[name] = Path(f"/proc/{name}/cmdline").read_bytes()
            for name, line in now.items():
                if seen.get(name) != line:
                    self.processes += 1
                    self.look(f"arguments {line[:60]!r}", line)
            seen = now

    def _written(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._inotify], [], [], 0.1)[0]:
                continue
            for folder, name in self._events():
                with contextlib.suppress(OSError):
                    path = folder / name
                    if path.is_file() and not path.is_symlink():
                        self.files += 1
                        self.look(f"{path} for a moment", path.read_bytes())

    def _events(self) -> Iterator[tuple[Path, str]]:
        data, at = os.read(self._inotify, 64 << 10), 0
        while at < len(data):
            watch, _, _, length = _EVENT.unpack_from(data, at)
            name = data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0")
            at += _EVENT.size + length
            if name and watch in self._folders:
                yield self._folders[watch], os.fsdecode(name)
