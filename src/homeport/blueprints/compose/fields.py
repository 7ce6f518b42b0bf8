"""Typed access to one mapping of the merged model: text after interpolation as numbers, flags, durations and sizes."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from homeport.blueprints.compose.interpolation import InvalidTemplate, interpolate
from homeport.blueprints.compose.project import Project
from homeport.blueprints.view import scalar_text
from homeport.model.base import parse_duration, parse_size
from homeport.model.reading import Path


class Fields:
    """One mapping; an empty text (a variable nobody set) counts as absent."""

    def __init__(self, project: Project, data: Any, path: Path) -> None:
        self.project, self.path = project, path
        self.data: dict[str, Any] = data if isinstance(data, dict) else {}

    def __contains__(self, key: str) -> bool:
        return self.data.get(key) not in (None, "")

    def inner(self, key: str) -> Fields:
        return Fields(self.project, self.data.get(key), (*self.path, key))

    def problem(self, key: str | int, message: str) -> None:
        self.project.problem((*self.path, key), message)

    def resolved(self, value: Any) -> str:
        """A value whose variables stayed written, with what is known at reading time."""
        text = scalar_text(value)
        try:
            return interpolate(text, self.project.values, lenient=True) if "$" in text else text
        except InvalidTemplate:
            return text

    def text(self, key: str) -> str:
        value = self.data.get(key)
        return "" if value is None or isinstance(value, dict | list) else scalar_text(value)

    def flag(self, key: str) -> bool | None:
        value = self.data.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, bool):
            return value
        lowered = str(value).strip().lower()
        if lowered in ("true", "yes", "on", "1", "y"):
            return True
        if lowered not in ("false", "no", "off", "0", "n"):
            self.problem(key, f"a boolean is expected here, not {str(value)[:40]!r}")
        return False

    def number(self, key: str) -> float | None:
        value = self.data.get(key)
        if value is None or value == "":
            return None
        try:
            result = float(value)
            if not math.isfinite(result):
                raise ValueError
        except (TypeError, ValueError):
            self.problem(key, f"a number is expected here, not {str(value)[:40]!r}")
            return None
        return result

    def integer(self, key: str) -> int | None:
        result = self.number(key)
        if result is None:
            return None
        if result != int(result):
            self.problem(key, f"a whole number is expected here, not {result:g}")
        return int(result)

    def duration(self, key: str) -> timedelta | None:
        value = self.data.get(key)
        if value is None or value == "":
            return None
        try:
            result = parse_duration(value)
        except (ValueError, OverflowError) as error:
            self.problem(key, str(error))
            return None
        return result if isinstance(result, timedelta) else None

    def size(self, key: str) -> int | None:
        value = self.data.get(key)
        if value is None or value == "":
            return None
        if str(value).strip() == "-1":
            return -1
        try:
            result = parse_size(int(value) if isinstance(value, float) else value)
        except (ValueError, OverflowError) as error:
            self.problem(key, str(error))
            return None
        return int(result)

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.data.get(key)
        if value is None:
            return ()
        if isinstance(value, list):
            return tuple(scalar_text(item) for item in value if not isinstance(item, dict | list))
        return (scalar_text(value),) if not isinstance(value, dict) else ()

    def pairs(self, key: str) -> dict[str, str]:
        value = self.data.get(key)
        return {name: scalar_text(item) for name, item in value.items()} if isinstance(value, dict) else {}

    def command(self, key: str) -> tuple[str, ...] | str | None:
        """An argv list or a line, variables put in; None when absent."""
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, list):
            return tuple(self._put_in(item) for item in value)
        return self._put_in(value)

    def _put_in(self, value: Any) -> str:
        text = scalar_text(value)
        return interpolate(text, self.project.values, self.project.unset.add, lenient=True) if "$" in text else text
