"""Strict reading: a key nobody knows is a fault and not a warning."""

from __future__ import annotations

from collections.abc import Iterable

from homeport.model.errors import HomeportError
from homeport.model.reading import Fate, Reading

SHOWN = 10
"""How many keys the error names."""


class UnknownKeys(HomeportError):
    """A file has keys that nobody knows, and strict reading was asked for."""

    code = "unknown-keys"


def require_known(readings: Iterable[Reading]) -> None:
    """Raises UnknownKeys when any file has a key that its dialect does not know."""
    found = [(reading.file, note) for reading in readings for note in reading.by_fate(Fate.UNKNOWN)]
    if not found:
        return
    names = [f"{file}:{note.line}: {note.path}" if note.line else f"{file}: {note.path}" for file, note in found[:SHOWN]]
    rest = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    hints = [f"{note.path} may mean {note.did_you_mean}" for _, note in found[:SHOWN] if note.did_you_mean]
    raise UnknownKeys(
        what="Nothing was changed.",
        why=f"Strict reading was asked for, and nobody knows {', '.join(names)}{rest}.",
        fix=("; ".join(hints) + ". " if hints else "") + "Correct the keys, or leave `--strict` out.",
    )
