"""Looking at a folder of source: bounded, and each file read once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from homeport.blueprints.document import parse_json, parse_toml
from homeport.blueprints.source import SourceTree
from homeport.model.errors import BlueprintInvalid

_SKIPPED = (
    "node_modules venv env __pycache__ dist build target vendor tests test testing docs doc examples example scripts migrations locale "
    "coverage fixtures site-packages bower_components e2e cypress storybook"
)
SKIPPED = frozenset(_SKIPPED.split())
"""Folders that hold no application of their own."""
MAX_FILES = 200
"""Source files looked at per folder: an application's entry lies near the top."""


class Folder:
    """One folder that may be an application."""

    def __init__(self, tree: SourceTree, path: str = "") -> None:
        self.tree, self.path = tree, path
        self._texts: dict[str, str] = {}

    def at(self, name: str) -> str:
        """A path of the source tree."""
        return f"{self.path}/{name}" if self.path else name

    def text(self, name: str) -> str:
        """A file of the folder; empty when it is missing, or too large to be what we look for."""
        if name not in self._texts:
            try:
                self._texts[name] = self.tree.text(self.at(name)) or ""
            except (ValueError, OSError):
                self._texts[name] = ""
        return self._texts[name]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names in the folder; folders end with `/`."""
        return tuple(self.tree.list(self.path))

    def has(self, *names: str) -> bool:
        """Whether any of these files or folders (`static/`) is here."""
        return any(name in self.names for name in names)

    def first(self, *names: str) -> str:
        """The first of these files that exists; they may lie in subfolders. Empty when none does."""
        for name in names:
            folder, _, base = name.rpartition("/")
            if base in (self.names if not folder else self.tree.list(self.at(folder))):
                return name
        return ""

    def folders(self) -> list[str]:
        """Subfolders worth looking into, without the `/`."""
        return [name[:-1] for name in self.names if name.endswith("/") and not name.startswith((".", "_")) and name[:-1] not in SKIPPED]

    def sources(self, suffixes: tuple[str, ...], depth: int = 2) -> list[str]:
        """Source files near the top, shallow ones first."""
        found: list[str] = []
        level = [""]
        for _ in range(depth + 1):
            below: list[str] = []
            for prefix in level:
                for name in self.tree.list(self.at(prefix.rstrip("/")) if prefix else self.path):
                    if name.endswith(suffixes):
                        found.append(prefix + name)
                    elif name.endswith("/") and not name.startswith(".") and name[:-1] not in SKIPPED:
                        below.append(prefix + name)
                    if len(found) >= MAX_FILES:
                        return found
            level = below
        return found

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file as a mapping; empty when it is missing or broken."""
        return self._parsed(name, toml=False)

    def toml(self, name: str) -> dict[str, Any]:
        """A TOML file as a mapping; empty when it is missing or broken."""
        return self._parsed(name, toml=True)

    def _parsed(self, name: str, *, toml: bool) -> dict[str, Any]:
        if not self.text(name).strip():
            return {}
        try:
            data = (parse_toml if toml else parse_json)(name, self.text(name)).data
        except BlueprintInvalid:
            return {}
        return data if isinstance(data, dict) else {}


def mapping(data: Any, *keys: str) -> dict[str, Any]:
    """The mapping below keys; empty when something else is there."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def text_of(value: Any) -> str:
    """A value as text when it is text."""
    return value.strip() if isinstance(value, str) else ""
