"""A little room kept on the disk of the home, so that the control plane can still write down that there is none."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

SIZE = 16 << 20
"""Bytes: journal, store and logs of a deploy that fails need about one megabyte."""

PLENTY = 4 * SIZE
"""Bytes that must be free before it is made."""


class Reserve:
    """A file of zeros that is given up when the disk is full, and made again when there is room."""

    def __init__(self, home: Path) -> None:
        self.file = home / "reserve"

    def keep(self) -> None:
        """Have the room set aside, where there is plenty: what was just given up must not be taken back at once."""
        if self.file.exists():
            return
        part = self.file.with_suffix(".part")
        try:
            room = os.statvfs(self.file.parent)
            if room.f_bavail * room.f_frsize < PLENTY:
                return
            with part.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, SIZE)
            part.rename(self.file)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def spend(self) -> bool:
        """Give the room up; False when it was spent already."""
        try:
            self.file.unlink()
        except OSError:
            return False
        return True
