"""How a build can end without an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from homeport.model.base import format_duration, format_size
from homeport.model.errors import HomeportError

TAIL = 40
"""Last lines of a build that an error shows."""


class BuildFailed(HomeportError):
    """A step of the build ended with an error."""

    code = "build-failed"

    def __init__(self, *, service: str, why: str, fix: str = "", tail: Sequence[str] = ()) -> None:
        super().__init__(
            what=f"{service} was not built; the running release still serves.",
            why=why,
            fix=fix or "Read the lines above this message, correct the source and deploy again.",
            tail=tail,
        )


class BuildTimedOut(HomeportError):
    """The build did not end in the time it may take."""

    code = "build-timed-out"

    def __init__(self, *, service: str, step: str, limit: timedelta, tail: Sequence[str] = ()) -> None:
        super().__init__(
            what=f"{service} was not built; the running release still serves.",
            why=f"`{step[:120]}` was still running after {format_duration(limit)} and was ended.",
            fix="A build command has to end by itself (it must not start a server); raise the build's time limit if it is only slow.",
            tail=tail,
        )


class BuildCancelled(HomeportError):
    """Somebody, or a newer deploy, stopped the build."""

    code = "build-cancelled"

    def __init__(self, *, service: str) -> None:
        super().__init__(
            what=f"The build of {service} was stopped; the running release still serves.",
            why="it was cancelled, or a newer deploy took its place",
            fix="Nothing has to be done; deploy again to build it.",
        )


class DiskLow(HomeportError):
    """There is too little space on the disk to begin."""

    code = "disk-low"

    def __init__(self, *, folder: Path, free: int, reserve: int) -> None:
        super().__init__(
            what="Nothing was built; the running release still serves.",
            why=f"{folder} has {free / 2**30:.1f} GiB free; builds keep {format_size(reserve)} in reserve so that databases can write.",
            fix="Make room on the disk, or remove old releases.",
        )


class UnknownLanguage(HomeportError):
    """Nothing says how the service is built, or Homeport cannot build it without a container engine."""

    code = "unknown-language"

    def __init__(self, *, service: str, why: str, fix: str) -> None:
        super().__init__(what=f"{service} cannot be built; nothing was changed.", why=why, fix=fix)
