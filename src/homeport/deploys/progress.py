"""Progress of a deploy: one JSON line per thing that happened, in a file that outlives the control plane.

Whoever follows reads the file from where it stopped, so a restart in the middle loses no line.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MAX_LINE = 4000
_LAST = ('{"kind": "done"', '{"kind": "failed"')


class ProgressLog:
    """The lines of one deploy."""

    def __init__(self, path: Path, changed: threading.Condition) -> None:
        self.path, self._changed = path, changed

    def write(self, kind: str, **fields: Any) -> None:
        """Append a line: `kind` is `step`, `build`, `note`, `warning`, `done` or `failed`."""
        line = json.dumps({"kind": kind, "at": datetime.now(UTC).isoformat(), **fields}, ensure_ascii=False, default=str)
        with self._changed:
            # A full disk must not stop what is reported: the line is left out, whole.
            with suppress(OSError), self.path.open("ab", buffering=0) as file:
                before = file.seek(0, os.SEEK_END)
                try:
                    if file.write((line + "\n").encode()) <= len(line):
                        file.truncate(before)
                except OSError:
                    file.truncate(before)
            self._changed.notify_all()

    def step(self, name: str, text: str) -> None:
        self.write("step", step=name, text=text)

    def output(self, service: str, text: str) -> None:
        """One line of a build or release command."""
        self.write("build", service=service, text=text[:MAX_LINE])


class ProgressLogs:
    """The logs of every deploy of a home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._changed = threading.Condition()

    def of(self, deploy: str) -> ProgressLog:
        return ProgressLog(self.folder / f"{deploy}.jsonl", self._changed)

    def follow(self, deploy: str, *, offset: int = 0, finished: Callable[[], bool], timeout: float = 15) -> Iterator[tuple[int, str]]:
        """Lines with the offset behind each, until a `done` or `failed` line, or `finished()` with nothing left.

        Yields `(offset, "")` after `timeout` seconds of silence, so that a caller can tell that it is alive.
        """
        path = self.folder / f"{deploy}.jsonl"
        while True:
            read = self._read(path, offset)
            for end, line in read:
                yield end, line
                if line.startswith(_LAST):
                    return
            if read:
                offset = read[-1][0]
                continue
            if finished():
                if not self._read(path, offset):
                    return
                continue
            with self._changed:
                woken = self._changed.wait(timeout)
            if not woken:
                yield offset, ""

    @staticmethod
    def _read(path: Path, offset: int) -> list[tuple[int, str]]:
        if not path.is_file():
            return []
        lines: list[tuple[int, str]] = []
        with path.open("rb") as file:
            file.seek(offset)
            for raw in file:
                if not raw.endswith(b"\n"):
                    break
                offset += len(raw)
                lines.append((offset, raw.decode(errors="replace").rstrip("\n")))
        return lines
