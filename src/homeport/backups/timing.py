"""Where the time of a restore goes: seconds by phase, for whoever asked in this thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

_phases: ContextVar[dict[str, float] | None] = ContextVar("phases", default=None)


@contextlib.contextmanager
def phases() -> Iterator[dict[str, float]]:
    """Collect the phases of the block."""
    found: dict[str, float] = {}
    token = _phases.set(found)
    try:
        yield found
    finally:
        _phases.reset(token)


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """One phase; the same name again adds to it."""
    began = time.monotonic()
    try:
        yield
    finally:
        found = _phases.get()
        if found is not None:
            found[name] = round(found.get(name, 0.0) + time.monotonic() - began, 3)
