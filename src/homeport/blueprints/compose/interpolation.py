"""Variables in Compose values: `$VAR`, `${VAR}` and its operators, parsed once and resolved against any mapping.

Grammar: compose-spec `12-interpolation.md`; where the text is silent, the behaviour of compose-go `template` (a lone `$`
stays, braces inside a default nest, an invalid `${…}` is an error).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

MAX_NESTING = 20

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")


class InvalidTemplate(ValueError):
    """A `${…}` that is no variable."""


class MissingVariable(ValueError):
    """A `${VAR:?message}` whose variable has no value."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"required variable {name} is missing a value" + (f": {message}" if message else ""))
        self.name, self.message = name, message


@dataclass(frozen=True)
class Variable:
    """One reference; `rest` is the default, the error text or the alternative, by `operator`."""

    name: str
    operator: str = ""
    rest: tuple[Part, ...] = ()


Part = str | Variable
Unset = Callable[[str], None]


@lru_cache(maxsize=20_000)
def parse_template(text: str) -> tuple[Part, ...]:
    """Split text into literals and references; `$$` is a literal `$`. Raises InvalidTemplate."""
    return _parse(text, 0)


def _parse(text: str, depth: int) -> tuple[Part, ...]:
    if "$" not in text:
        return (text,) if text else ()
    if depth > MAX_NESTING:
        raise InvalidTemplate(f"variables nested deeper than {MAX_NESTING} levels")
    parts: list[Part] = []
    literal: list[str] = []
    at = 0
    while at < len(text):
        dollar = text.find("$", at)
        if dollar < 0:
            literal.append(text[at:])
            break
        literal.append(text[at:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "$":
            literal.append("$")
            at = dollar + 2
        elif following == "{":
            variable, at = _braced(text, dollar, depth)
            _flush(parts, literal)
            parts.append(variable)
        elif name := _NAME.match(text, dollar + 1):
            _flush(parts, literal)
            parts.append(Variable(name[0]))
            at = name.end()
        else:
            literal.append("$")
            at = dollar + 1
    _flush(parts, literal)
    return tuple(parts)


def _flush(parts: list[Part], literal: list[str]) -> None:
    if text := "".join(literal):
        parts.append(text)
    literal.clear()


def _braced(text: str, dollar: int, depth: int) -> tuple[Variable, int]:
    name = _NAME.match(text, dollar + 2)
    end = _closing(text, dollar + 2)
    if name is None or end < 0:
        raise InvalidTemplate(f"Invalid template: {text[dollar : dollar + 60]!r} is no variable; write `$$` for a plain `$`")
    body = text[name.end() : end]
    if not body:
        return Variable(name[0]), end + 1
    for operator in _OPERATORS:
        if body.startswith(operator):
            return Variable(name[0], operator, _parse(body[len(operator) :], depth + 1)), end + 1
    raise InvalidTemplate(f"Invalid template: {text[dollar : end + 1][:60]!r} is no variable; write `$$` for a plain `$`")


def _closing(text: str, at: int) -> int:
    """Where the brace opened before `at` closes; -1 when it does not."""
    level = 1
    for index in range(at, len(text)):
        if text[index] == "{":
            level += 1
        elif text[index] == "}":
            level -= 1
            if level == 0:
                return index
    return -1


def resolve(parts: tuple[Part, ...], values: Mapping[str, str], unset: Unset | None = None, *, lenient: bool = False) -> str:
    """Join parts with variables put in. `unset` hears of each variable that is used without value and default.

    Raises MissingVariable for `:?` and `?`, unless `lenient`, which reports them as unset too.
    """
    return "".join(part if isinstance(part, str) else _value(part, values, unset, lenient) for part in parts)


def _value(variable: Variable, values: Mapping[str, str], unset: Unset | None, lenient: bool) -> str:
    value = values.get(variable.name)
    operator = variable.operator
    present = value is not None and (bool(value) or not operator.startswith(":"))
    if operator.endswith("+"):
        return resolve(variable.rest, values, unset, lenient=lenient) if present else ""
    if present:
        return value or ""
    if operator.endswith("-"):
        return resolve(variable.rest, values, unset, lenient=lenient)
    if operator.endswith("?") and not lenient:
        raise MissingVariable(variable.name, resolve(variable.rest, values, unset))
    if unset is not None:
        unset(variable.name)
    return ""


def interpolate(text: str, values: Mapping[str, str], unset: Unset | None = None, *, lenient: bool = False) -> str:
    """Text with its variables put in. Raises InvalidTemplate, MissingVariable."""
    return text if "$" not in text else resolve(parse_template(text), values, unset, lenient=lenient)
