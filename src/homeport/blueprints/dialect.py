"""What a dialect is: a reader, and perhaps a writer. The table of all of them is `registry.py`."""

from __future__ import annotations

from typing import ClassVar, Protocol

from homeport.blueprints.source import SourceTree
from homeport.model.reading import Reading, Written
from homeport.model.spec import Spec


class Reader(Protocol):
    """Reads one dialect. Stateless; the module's one instance is in the registry."""

    dialect: ClassVar[str]
    """Stable name: `render`, `compose`, `procfile`, …"""
    precedence: ClassVar[int]
    """Lower wins when several files of one folder say different things:
    homeport 0, platform files 10, compose 20, Procfile 30, detection 90."""

    def recognises(self, file_name: str, text: str) -> bool:
        """Whether this is a file of the dialect, by its name (no folders; may carry a prefix such as `owner__repo__`)
        and, if need be, its text."""

    def candidates(self, tree: SourceTree) -> list[str]:
        """Paths in a source tree that the platform itself would read, first choice first."""

    def read(self, tree: SourceTree, path: str) -> Reading:
        """Read one file (and files it names). Raises BlueprintInvalid with every problem found."""


class Writer(Protocol):
    """Writes a spec in one dialect."""

    dialect: ClassVar[str]

    def write(self, spec: Spec) -> Written:
        """The files, and a loss for each thing the dialect cannot say. Never raises for a valid spec."""
