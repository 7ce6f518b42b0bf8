"""What reading a blueprint yields: the spec, and the fate of every key of the file."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from homeport.model.base import Frozen
from homeport.model.spec import Spec

Path = tuple[str | int, ...]
"""Where a value stands in a parsed file: mapping keys and list positions."""


class Fate(StrEnum):
    """What Homeport does with a key."""

    HONOURED = "honoured"
    APPROXIMATED = "approximated"
    IGNORED = "ignored"
    UNKNOWN = "unknown"


class KeyNote(Frozen):
    """The fate of one leaf key, with the reason (empty only when honoured without condition)."""

    path: str
    fate: Fate
    reason: str = ""
    did_you_mean: str = ""
    line: int = 0
    column: int = 0


class Loss(Frozen):
    """Something the spec says that a written dialect cannot."""

    path: str
    reason: str


class Reading(Frozen):
    """One file read: `spec` is what it says, `keys` accounts for each of its leaves."""

    file: str
    dialect: str
    spec: Spec
    keys: tuple[KeyNote, ...] = ()
    warnings: tuple[str, ...] = ()
    """Sentences for the user that belong to no single key."""

    def by_fate(self, fate: Fate) -> tuple[KeyNote, ...]:
        """The notes of one class."""
        return tuple(note for note in self.keys if note.fate is fate)


class Written(Frozen):
    """A dialect written from a spec: file name to text, and what it could not say."""

    dialect: str
    files: dict[str, str]
    losses: tuple[Loss, ...] = ()
    renamed: dict[str, str] = {}
    """Services and add-ons that carry another name there, because the dialect fixes it: name here to name there."""


def show_path(path: Path) -> str:
    """Write a path as text: `services[0].envVars[2].key`; keys with dots or brackets are quoted."""
    text = ""
    for part in path:
        text = f"{text}[{part}]" if isinstance(part, int) else show_key(text, part)
    return text


def show_key(parent: str, key: str) -> str:
    """A mapping key written behind the text of its parent."""
    if key and all(c not in key for c in '.[]"'):
        return f"{parent}.{key}" if parent else key
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'{parent}["{escaped}"]'


def leaves(data: Any, path: Path = ()) -> list[Path]:
    """Every leaf of parsed data: scalars, and empty mappings and lists. Iterative, so depth is no danger."""
    found: list[Path] = []
    stack: list[tuple[Path, Any]] = [(path, data)]
    while stack:
        where, value = stack.pop()
        if isinstance(value, dict) and value:
            stack.extend(((*where, str(k)), v) for k, v in reversed(value.items()))
        elif isinstance(value, list) and value:
            stack.extend(((*where, i), v) for i, v in reversed(list(enumerate(value))))
        else:
            found.append(where)
    return found
