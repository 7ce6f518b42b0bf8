"""What a dialect is: a reader, and perhaps a writer. The table of all of them is `registry.py`."""

from __future__ import annotations

from typing import ClassVar, Protocol

from pydantic import ValidationError

from homeport.blueprints.document import invalid
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import Ledger
from homeport.model.errors import BlueprintInvalid, Problem
from homeport.model.reading import Path, Reading, Written, show_path
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


def open_blueprint(tree: SourceTree, path: str) -> str:
    """The text of a blueprint. Raises BlueprintInvalid when there is none or it is too large."""
    try:
        text = tree.text(path)
    except ValueError as error:
        raise invalid(path, "", str(error), fix="A deployment file is rarely past 100 kB; is this the right file?") from error
    if text is None:
        raise invalid(path, "", "there is no such file")
    return text


def validation_problems(error: ValidationError, ledger: Ledger, places: dict[Path, Path] | None = None) -> BlueprintInvalid:
    """A spec that does not validate, as located problems. `places` maps paths of the spec to paths of the file;
    the nearest parent that is known decides the line."""
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        where: Path = tuple(part for part in item["loc"] if part not in KINDS)
        source: Path = where
        for end in range(len(where), -1, -1):
            if places and where[:end] in places:
                source = (*places[where[:end]], *where[end:])
                break
        line, column = ledger.document.place(source)
        ledger.problems.append(Problem(item["msg"].removeprefix("Value error, "), show_path(where), line, column))
    return BlueprintInvalid(file=ledger.document.file, problems=ledger.problems, text=ledger.document.text)


KINDS = frozenset({"web", "private", "worker", "cron", "static", "function", "postgres", "redis", "temporal", "mariadb", "external"})
"""Discriminator values, which pydantic puts into the place of an error."""
