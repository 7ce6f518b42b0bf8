"""A reader's eye on a document: typed access that records the fate of each key as it is read.

A leaf that no reader noted is *unknown* in the end, so nothing can be dropped in silence.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from homeport.blueprints.document import Document
from homeport.blueprints.naming import clean_path
from homeport.model.errors import BlueprintInvalid, Problem
from homeport.model.reading import Fate, KeyNote, Path, show_key, show_path


class Ledger:
    """The fates of one document's keys, and the problems found in it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._notes: dict[Path, tuple[Fate, str]] = {}
        self._known: dict[Path, set[str]] = {}
        self._hints: dict[Path, str] = {}
        self.problems: list[Problem] = []

    def suggest(self, path: Path, hint: str) -> None:
        """What an unknown key was probably meant to be."""
        self._hints[path] = hint

    def note(self, path: Path, fate: Fate, reason: str = "") -> None:
        """State the fate of a path and of all below it; the longest noted path decides for a leaf. A later note replaces an earlier one."""
        self._notes[path] = (fate, reason)

    def knows(self, parent: Path, key: str) -> None:
        """Remember a key a reader asked for: what `did you mean` draws upon."""
        self._known.setdefault(parent, set()).add(key)

    def problem(self, path: Path, message: str, fix: str = "") -> None:
        """A fault that makes the file unreadable; reading goes on so that all are found in one go."""
        line, column = self.document.place(path)
        self.problems.append(Problem(message, show_path(path), line, column, fix))

    def close(self) -> tuple[KeyNote, ...]:
        """The account of every leaf. Raises BlueprintInvalid when problems were found."""
        if self.problems:
            raise BlueprintInvalid(file=self.document.file, problems=self.problems, text=self.document.text)
        if self.document.data is None:
            return ()
        return tuple(self._accounts())

    def _accounts(self) -> Iterator[KeyNote]:
        """Walks down once: a child inherits the note and the place of its parent where it has none of its own.
        The stack is a list, so depth is no danger."""
        notes, places = self._notes, self.document.places
        stack: list[tuple[Path, Any, str, tuple[Fate, str] | None, tuple[int, int]]] = [
            ((), self.document.data, "", notes.get(()), places.get((), (0, 0)))
        ]
        while stack:
            path, value, shown, note, place = stack.pop()
            if value and isinstance(value, dict):
                for key in reversed(value):
                    below = (*path, key)
                    stack.append((below, value[key], show_key(shown, key), notes.get(below, note), places.get(below, place)))
            elif value and isinstance(value, list):
                for index in range(len(value) - 1, -1, -1):
                    below = (*path, index)
                    stack.append((below, value[index], f"{shown}[{index}]", notes.get(below, note), places.get(below, place)))
            else:
                yield self._account(path, shown, note, place)

    def _account(self, leaf: Path, shown: str, note: tuple[Fate, str] | None, place: tuple[int, int]) -> KeyNote:
        fate, reason = note or (Fate.UNKNOWN, "no such key is known in this place")
        hint = self._suggestion(leaf) if fate is Fate.UNKNOWN else ""
        return KeyNote.model_construct(path=shown, fate=fate, reason=reason, did_you_mean=hint, line=place[0], column=place[1])

    def _suggestion(self, leaf: Path) -> str:
        for end in range(len(leaf), 0, -1):
            if (hint := self._hints.get(leaf[:end])) is not None:
                return hint
            key = leaf[end - 1]
            known = self._known.get(leaf[: end - 1])
            if known and isinstance(key, str) and key not in known:
                return (difflib.get_close_matches(key, known, 1, 0.7) or [""])[0]
        return ""


class View:
    """One mapping of a document."""

    def __init__(self, ledger: Ledger, data: Any, path: Path = ()) -> None:
        self.ledger, self.path = ledger, path
        if data is None:
            data = {}
        if not isinstance(data, dict):
            ledger.problem(path, f"a mapping is expected here, not {_kind(data)}")
            data = {}
        self.data: dict[str, Any] = data

    def __contains__(self, key: str) -> bool:
        self.ledger.knows(self.path, key)
        return key in self.data

    def keys(self) -> list[str]:
        return list(self.data)

    def at(self, key: str | int) -> Path:
        return (*self.path, key)

    def raw(self, key: str) -> Any:
        """The value as parsed, no fate recorded."""
        self.ledger.knows(self.path, key)
        return self.data.get(key)

    def take(self, key: str, *, reason: str = "") -> Any:
        """The value as parsed, honoured with all below it; None when absent."""
        self.ledger.knows(self.path, key)
        if key in self.data:
            self.ledger.note(self.at(key), Fate.HONOURED, reason)
        return self.data.get(key)

    def honoured(self, *keys: str, reason: str = "") -> None:
        self._note_all(keys, Fate.HONOURED, reason)

    def approximated(self, *keys: str, reason: str) -> None:
        """These keys, where present, have an effect close to what they say; the reason names the difference."""
        self._note_all(keys, Fate.APPROXIMATED, reason)

    def ignored(self, *keys: str, reason: str) -> None:
        """These keys, where present, have no effect; the reason says why."""
        self._note_all(keys, Fate.IGNORED, reason)

    def _note_all(self, keys: Sequence[str], fate: Fate, reason: str) -> None:
        for key in keys:
            self.ledger.knows(self.path, key)
            if key in self.data:
                self.ledger.note(self.at(key), fate, reason)

    def problem(self, key: str | int | None, message: str, fix: str = "") -> None:
        self.ledger.problem(self.path if key is None else self.at(key), message, fix)

    def text(self, key: str, default: str = "", *, reason: str = "") -> str:
        """Text; numbers and booleans are taken as they are written in YAML (`true`, `8000`)."""
        value = self.take(key, reason=reason)
        if value is None:
            return default
        if isinstance(value, dict | list):
            self.problem(key, f"text is expected here, not {_kind(value)}")
            return default
        return scalar_text(value)

    def word(self, key: str, *, reason: str = "") -> str:
        """A lower-case word of a fixed choice; YAML's bare `off` and `on`, which parse as booleans, stay words."""
        value = self.take(key, reason=reason)
        if isinstance(value, bool):
            return "on" if value else "off"
        return self.text(key, reason=reason).strip().lower()

    def folder(self, key: str, default: str = "", *, reason: str = "") -> str:
        """A path inside the repository, cleaned; the root is empty. One that leaves it is a problem."""
        try:
            return clean_path(self.text(key, default, reason=reason))
        except ValueError as error:
            self.problem(key, str(error))
            return ""

    def flag(self, key: str, default: bool | None = None, *, reason: str = "") -> bool | None:
        value = self.take(key, reason=reason)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        if str(value).strip().lower() in ("true", "yes", "on", "1", "false", "no", "off", "0"):
            return str(value).strip().lower() in ("true", "yes", "on", "1")
        self.problem(key, f"true or false is expected here, not {str(value)[:40]!r}")
        return default

    def integer(
        self, key: str, default: int | None = None, *, low: int | None = None, high: int | None = None, reason: str = ""
    ) -> int | None:
        number = self.number(key, None, reason=reason)
        if number is None:
            return default
        if number != int(number) or (low is not None and number < low) or (high is not None and number > high):
            bounds = "" if low is None else f" of at least {low}" if high is None else f" from {low} to {high}"
            self.problem(key, f"a whole number{bounds} is expected here, not {str(self.data[key])[:40]}")
            return default
        return int(number)

    def number(self, key: str, default: float | None = None, *, reason: str = "") -> float | None:
        value = self.take(key, reason=reason)
        if value is None:
            return default
        try:
            if isinstance(value, bool | dict | list):
                raise ValueError
            number = float(value)
            if not math.isfinite(number):
                raise ValueError
            return number
        except (ValueError, OverflowError):
            self.problem(key, f"a number is expected here, not {str(value)[:40]!r}")
            return default

    def texts(self, key: str, *, split: bool = False, reason: str = "") -> tuple[str, ...]:
        """A list of text; one scalar is a list of one (split at white space when `split`)."""
        value = self.take(key, reason=reason)
        if value is None:
            return ()
        if isinstance(value, dict):
            self.problem(key, "a list is expected here, not a mapping")
            return ()
        if not isinstance(value, list):
            return tuple(scalar_text(value).split()) if split else (scalar_text(value),)
        return tuple(scalar_text(v) for v in value if not isinstance(v, dict | list) and v is not None)

    def view(self, key: str) -> View:
        """The mapping under a key; an absent one is empty. An empty mapping in the file counts as honoured."""
        self.ledger.knows(self.path, key)
        data = self.data.get(key)
        if key in self.data and not data:
            self.ledger.note(self.at(key), Fate.HONOURED)
        return View(self.ledger, data, self.at(key))

    def views(self, key: str) -> Iterator[View]:
        """Each mapping of the list under a key."""
        self.ledger.knows(self.path, key)
        data = self.data.get(key)
        if data is None or data == []:
            self.honoured(key)
            return
        if not isinstance(data, list):
            self.problem(key, f"a list is expected here, not {_kind(data)}")
            return
        for index, item in enumerate(data):
            yield View(self.ledger, item, (*self.path, key, index))

    def items(self) -> Iterator[tuple[str, View]]:
        """Each entry of this mapping as a name and a mapping; an empty entry is an empty mapping, honoured."""
        for key, value in self.data.items():
            if not value:
                self.ledger.note(self.at(key), Fate.HONOURED)
            yield key, View(self.ledger, value, self.at(key))


def scalar_text(value: Any) -> str:
    """A parsed scalar as the text a shell would see: `true`, `8000`, `1.5`, empty for null."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        return str(int(value)) if "e" not in repr(value) else repr(value)
    return str(value)


def _kind(value: Any) -> str:
    return {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}.get(type(value), "a number")
