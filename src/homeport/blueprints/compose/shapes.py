"""What a Compose value may look like, and what becomes of it: the small language in which `keys.py` is written.

One table serves three ends: types are checked against it, each leaf is accounted for by it, and the reference page prints it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from homeport.blueprints.compose.tree import ComposeFile
from homeport.model.errors import Problem
from homeport.model.reading import Fate, KeyNote, Path, show_path

TEXT, INTEGER, NUMBER, FLAG, SCALAR, ANY = "text", "integer", "number", "flag", "scalar", "any"

_EXPECTED = {
    TEXT: "a string",
    INTEGER: "a integer",
    NUMBER: "a number",
    FLAG: "a boolean",
    SCALAR: "a boolean, null, number or string",
}


@dataclass(frozen=True)
class Shape:
    """One place of the file: any of the forms given is right."""

    scalar: str = ""
    """`text`, `integer`, `number`, `flag`, `scalar` or `any`; empty when no scalar may stand here."""
    items: Shape | None = None
    """What a list may hold."""
    keys: dict[str, Shape] | None = None
    """A mapping with these keys (and `x-*`)."""
    values: Shape | None = None
    """A mapping with any key."""
    required: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    null: bool = True
    """Whether nothing may stand here."""
    fate: Fate | None = None
    """None: as the parent's."""
    reason: str = ""
    known: bool = field(default=True)

    def so(self, fate: Fate, reason: str = "") -> Shape:
        """This shape with a fate."""
        return replace(self, fate=fate, reason=reason)

    def but(self, **changes: Any) -> Shape:
        """This shape with something changed."""
        return replace(self, **changes)


text = Shape(TEXT)
integer = Shape(INTEGER)
number = Shape(NUMBER)
flag = Shape(FLAG)
scalar = Shape(SCALAR)
anything = Shape(ANY)


def listing(items: Shape = text) -> Shape:
    """A list."""
    return Shape(items=items)


def either(items: Shape = text) -> Shape:
    """One text or a list."""
    return Shape(TEXT, items=items)


def pairs(values: Shape = scalar) -> Shape:
    """`KEY: value` or a list of `KEY=value`."""
    return Shape(items=text, values=values)


def mapping(keys: dict[str, Shape], *required: str) -> Shape:
    """A mapping with these keys."""
    return Shape(keys=keys, required=required)


def named(values: Shape) -> Shape:
    """A mapping from names to values."""
    return Shape(values=values)


def check(file: ComposeFile, shape: Shape, *, strict: bool) -> list[Problem]:
    """Every value that has the wrong form; with `strict`, every unknown key too."""
    problems: list[Problem] = []
    _check(file, file.data, shape, (), strict, problems)
    return problems


def _check(file: ComposeFile, value: Any, shape: Shape, path: Path, strict: bool, problems: list[Problem]) -> None:
    if isinstance(value, dict):
        if shape.keys is None and shape.values is None:
            if shape.scalar != ANY:
                problems.append(file.problem(path, f"{show_path(path)} must be {_expected(shape)}"))
            return
        _check_mapping(file, value, shape, path, strict, problems)
    elif isinstance(value, list):
        if shape.items is None:
            if shape.scalar != ANY:
                problems.append(file.problem(path, f"{show_path(path) or 'the file'} must be {_expected(shape)}"))
            return
        for index, item in enumerate(value):
            _check(file, item, shape.items, (*path, index), strict, problems)
    elif value is None:
        if not shape.null and path not in file.tags:
            problems.append(file.problem(path, f"{show_path(path)} must be {_expected(shape)}"))
    else:
        _check_scalar(file, value, shape, path, problems)


def _check_mapping(file: ComposeFile, value: dict[str, Any], shape: Shape, path: Path, strict: bool, problems: list[Problem]) -> None:
    keys, values = shape.keys or {}, shape.values
    for key, item in value.items():
        inner = keys.get(key)
        if inner is not None:
            _check(file, item, inner, (*path, key), strict, problems)
        elif shape.keys is not None and values is None and key.startswith("x-"):
            continue
        elif values is not None:
            _check(file, item, values, (*path, key), strict, problems)
        elif strict:
            near = difflib.get_close_matches(key, keys, 1, 0.7)
            hint = f"Did you mean `{near[0]}`?" if near else "Remove it, or prefix it with `x-`."
            problems.append(file.problem((*path, key), f"{show_path(path) or 'the file'} additional properties {key!r} not allowed", hint))
    if path not in file.tags:
        problems.extend(file.problem(path, f"missing property {key!r}") for key in shape.required if key not in value)


def _check_scalar(file: ComposeFile, value: Any, shape: Shape, path: Path, problems: list[Problem]) -> None:
    kind = shape.scalar
    if not kind:
        problems.append(file.problem(path, f"{show_path(path) or 'the file'} must be {_expected(shape)}"))
        return
    if kind in (ANY, SCALAR) or (isinstance(value, str) and "$" in value):
        return
    wrong = (
        (kind == TEXT and not isinstance(value, str))
        or (kind == INTEGER and not _is_integer(value))
        or (kind == NUMBER and not _is_number(value))
        or (kind == FLAG and not _is_flag(value))
    )
    if wrong:
        problems.append(file.problem(path, f"{show_path(path)} must be {_expected(shape)}"))
    elif shape.choices and str(value) not in shape.choices:
        problems.append(file.problem(path, f"{show_path(path)} must be one of {', '.join(shape.choices)}"))
    elif shape.low is not None and _is_number(value) and float(value) < shape.low:
        problems.append(file.problem(path, f"{show_path(path)} must be greater than or equal to {shape.low:g}"))
    elif shape.high is not None and _is_number(value) and float(value) > shape.high:
        problems.append(file.problem(path, f"{show_path(path)} must be less than or equal to {shape.high:g}"))


def _expected(shape: Shape) -> str:
    if shape.keys is not None or shape.values is not None:
        return "a mapping"
    return _EXPECTED.get(shape.scalar, "") if shape.scalar else "a list"


def _is_integer(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lstrip("+-").isdigit()
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and float(value) == float(value)
    except (TypeError, ValueError):
        return False


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or str(value).lower() in ("true", "false", "yes", "no", "on", "off", "y", "n", "1", "0")


@dataclass(frozen=True)
class Verdict:
    """What a key's account says."""

    fate: Fate
    reason: str = ""


Overrides = dict[Path, dict[str | int, Verdict]]
"""Verdicts that the content decides: by mapping path, then by key (`*` for the rest)."""

_EXTENSION = Verdict(Fate.HONOURED, "kept as an extension and written back")
_UNKNOWN = Verdict(Fate.UNKNOWN, "no such key is known in this place")
_HONOURED = Verdict(Fate.HONOURED)


def account(file: ComposeFile, shape: Shape, overrides: Overrides) -> tuple[KeyNote, ...]:
    """The fate of every leaf, in document order."""
    return tuple(_account(file, file.data, shape, (), "", _HONOURED, overrides))


def _account(
    file: ComposeFile, value: Any, shape: Shape | None, path: Path, shown: str, verdict: Verdict, overrides: Overrides
) -> Iterator[KeyNote]:
    if shape is not None and shape.fate is not None:
        verdict = Verdict(shape.fate, shape.reason)
    if isinstance(value, dict) and value:
        decided = overrides.get(path)
        keys = shape.keys if shape is not None else None
        values = shape.values if shape is not None else None
        for key, item in value.items():
            where = (*path, key)
            inner, found, hint = values, verdict, ""
            if keys is not None:
                inner = keys.get(key, values)
                if inner is None:
                    if key.startswith("x-"):
                        found = _EXTENSION
                    else:
                        found, hint = _UNKNOWN, (difflib.get_close_matches(key, keys, 1, 0.7) or [""])[0]
            name = f"{shown}.{key}" if shown and not _SPECIAL.intersection(key) and key else show_path(where)
            if decided is not None and (own := decided.get(key) or decided.get("*")) is not None:
                yield from _account(file, item, None, where, name, own, overrides)
            elif hint:
                yield from _hinted(_account(file, item, None, where, name, found, overrides), hint)
            else:
                yield from _account(file, item, inner, where, name, found, overrides)
    elif isinstance(value, list) and value:
        inner = shape.items if shape is not None else None
        decided = overrides.get(path)
        for index, item in enumerate(value):
            where, name = (*path, index), f"{shown}[{index}]"
            if decided is not None and (own := decided.get(index)) is not None:
                yield from _account(file, item, None, where, name, own, overrides)
            else:
                yield from _account(file, item, inner, where, name, verdict, overrides)
    else:
        line, column = file.place(path)
        yield KeyNote.model_construct(path=shown, fate=verdict.fate, reason=verdict.reason, did_you_mean="", line=line, column=column)


_SPECIAL = frozenset('.[]"')


def _hinted(notes: Iterator[KeyNote], hint: str) -> Iterator[KeyNote]:
    for note in notes:
        yield note.model_copy(update={"did_you_mean": hint})
