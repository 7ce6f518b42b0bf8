"""Generations of the edge's configuration on disk: written whole and synced, pointed to by links that change by rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from homeport.drivers.edge.base import RouteTable

KEEP = 10
"""Generations kept on disk."""


class Generations:
    """`generations/N/{nginx.conf,table.json}` and the links `current` (what nginx reads) and `confirmed` (the last good one)."""

    def __init__(self, edge: Path) -> None:
        self._edge = edge

    def numbers(self) -> list[int]:
        """All there are."""
        return [int(path.name) for path in (self._edge / "generations").iterdir() if path.name.isdigit()]

    def number(self, name: str) -> int:
        """Where a link points; 0 when it is not there."""
        try:
            return int(Path(os.readlink(self._edge / name)).name)  # noqa: PTH115
        except (FileNotFoundError, ValueError):
            return 0

    def point(self, name: str, number: int) -> None:
        """Change a link, atomically and durably."""
        if self.number(name) == number:
            return
        link = self._edge / name
        temporary = self._edge / f".{name}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(f"generations/{number}")
        temporary.replace(link)
        _sync(self._edge)

    def _folder(self, number: int) -> Path:
        return self._edge / "generations" / str(number)

    def text(self, number: int) -> str:
        """The configuration of a generation; empty when it is not there."""
        try:
            return (self._folder(number) / "nginx.conf").read_text(encoding="utf-8")
        except OSError:
            return ""

    def table(self, number: int) -> RouteTable | None:
        """The table of a generation; None when it is not there."""
        try:
            return RouteTable.model_validate_json((self._folder(number) / "table.json").read_bytes())
        except OSError:
            return None

    def write(self, number: int, text: str, table: RouteTable) -> None:
        """Write a generation that nothing points to yet."""
        temporary = self._edge / "generations" / f".{number}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700)
        for name, content in (("nginx.conf", text), ("table.json", table.model_dump_json(exclude_defaults=True))):
            with (temporary / name).open("w", encoding="utf-8") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync(temporary)
        temporary.replace(self._folder(number))
        _sync(self._edge / "generations")

    def remove(self, number: int) -> None:
        """Forget a generation that was never served."""
        shutil.rmtree(self._folder(number), ignore_errors=True)

    def collect(self, newest: int, used: Collection[int]) -> None:
        """Remove old generations but the last good one and those in use."""
        for number in self.numbers():
            if number <= newest - KEEP and number not in (*used, self.number("confirmed")):
                self.remove(number)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
