"""Base model and scalar types: names, durations, byte sizes."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
)

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""RFC 1123 label: what a name may look like in a host name, a path and a unix account."""

_NAME = re.compile(NAME_PATTERN)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|s|m|h|d)")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kmgtp]?i?b?)\s*$", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


class Frozen(BaseModel):
    """Base of every value: immutable, no unknown keys, field docstrings become the reference (`describe_models`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_serializer(mode="wrap")
    def _keep_kind(self, handler: SerializerFunctionWrapHandler) -> Any:
        """A union's `kind` is written even where defaults are left out, so that what was dumped can be read back."""
        data = handler(self)
        kind = getattr(self, "kind", None)
        return data if kind is None or not isinstance(data, dict) or "kind" in data else {"kind": kind, **data}


def describe_models() -> None:
    """Give every field of every model defined so far its docstring as description, for JSON Schema, OpenAPI and the reference.

    Done on demand and not while classes are built (`use_attribute_docstrings`): reading the sources costs a third of
    the start-up time of a command, and only schemas need it. Calling it again describes the models added since.
    """
    waiting, models = [Frozen], list[type[Frozen]]()
    while waiting:
        model = waiting.pop(0)
        models.append(model)
        waiting += [child for child in model.__subclasses__() if child not in waiting]
    sources: dict[str, dict[str, dict[str, str]]] = {}
    changed = False
    for model in models:
        module = sys.modules.get(model.__module__)
        if module is not None and model.__module__ not in sources:
            sources[model.__module__] = _docstrings(inspect.getsource(module))
        for name, field in model.model_fields.items():
            owner = next((base for base in model.__mro__ if name in inspect.get_annotations(base)), model)
            found = sources.get(owner.__module__, {}).get(owner.__name__, {}).get(name)
            if found and field.description is None:
                field.description = found
                changed = True
    if changed:
        for model in (*models[1:], *models[1:]):  # twice: a schema holds copies of those it is made of
            model.model_rebuild(force=True)


def _docstrings(source: str) -> dict[str, dict[str, str]]:
    """The text below each annotated name, by class."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            for here, after in pairwise(node.body):
                if isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name) and isinstance(after, ast.Expr):
                    value = after.value
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        found.setdefault(node.name, {})[here.target.id] = inspect.cleandoc(value.value)
    return found


def slug(text: str) -> str:
    """Turn any text into a `Name`: lower case, runs of other characters become one dash, at most 63 long.

    Returns `"app"` when nothing usable is left.
    """
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")
    return cleaned or "app"


def _check_name(value: str) -> str:
    if not _NAME.match(value):
        raise ValueError(f"{value[:80]!r} is not a name: use lower-case letters, digits and dashes, at most 63, no dash at the ends")
    return value


def parse_duration(value: Any) -> Any:
    """Read `30`, `30.5`, `"30s"`, `"1m30s"`, `"500ms"`, `"7d"` as a timedelta; bare numbers are seconds.

    The unit grammar is Go's `time.ParseDuration`, which Compose and Fly use, plus `d`. Raises ValueError.
    """
    if isinstance(value, timedelta) or value is None:
        return value
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds or text like '1m30s'")
    if isinstance(value, int | float):
        try:
            found = timedelta(seconds=value)
        except OverflowError as error:
            raise ValueError("this is too long a duration") from error
        if found < timedelta(0):
            raise ValueError(f"{value} is not a duration: it is negative")
        return found
    text = str(value).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        text += "s"
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ValueError(f"{text[:40]!r} is not a duration: write it like '30s', '1m30s' or '500ms'")
    try:
        return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    except OverflowError as error:
        raise ValueError(f"{text[:40]!r} is too long a duration") from error


def format_duration(value: timedelta) -> str:
    """Write a timedelta the shortest exact way: `1h30m`, `45s`, `1500ms`. Sub-millisecond parts become `us`."""
    micros = round(value / timedelta(microseconds=1))
    if micros == 0:
        return "0s"
    if micros % 1000:
        return f"{micros}us"
    if micros % 1_000_000:
        return f"{micros // 1000}ms"
    seconds = micros // 1_000_000
    parts = [(seconds // 3600, "h"), (seconds % 3600 // 60, "m"), (seconds % 60, "s")]
    return "".join(f"{count}{unit}" for count, unit in parts if count)


def parse_size(value: Any) -> Any:
    """Read `512`, `"512MB"`, `"1Gi"`, `"256k"` as bytes. Units are binary, as Docker and Compose read them. Raises ValueError."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    match = _SIZE.match(str(value))
    if not match:
        raise ValueError(f"{str(value)[:40]!r} is not a size: write it like '512MB' or '1GiB'")
    unit = match[2].lower().rstrip("b").rstrip("i")
    try:
        return int(float(match[1]) * 1024 ** _POWER[unit])
    except OverflowError as error:
        raise ValueError(f"{str(value)[:40]!r} is too large a size") from error


def format_size(value: int) -> str:
    """Write bytes the shortest exact way: `1GiB`, `512MiB`, `1000`."""
    for unit, power in (("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if value and value % 1024**power == 0:
            return f"{value // 1024**power}{unit}"
    return str(value)


Name = Annotated[str, AfterValidator(_check_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
"""A project, environment, service or add-on name."""

Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": ["string", "number"], "examples": ["30s", "1m30s", 5]}),
]
"""A length of time; text like `1m30s` or a number of seconds."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str, when_used="json"),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["512MiB", "1GiB"]}),
]
"""A number of bytes; text like `512MiB` or an integer."""

Json = Any
"""Any JSON value: kept verbatim, never acted upon."""
