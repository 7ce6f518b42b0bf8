"""A Compose project in memory: what its files say together, and how much of what Compose refuses is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from homeport.blueprints.compose.tree import ComposeFile
from homeport.blueprints.source import SourceTree
from homeport.model.errors import Problem
from homeport.model.reading import Path


@dataclass(frozen=True)
class Rules:
    """How much of what Compose refuses is refused. The defaults are those of a file that may be read without its surroundings."""

    strict: bool = False
    """Unknown keys, missing env files and required variables are errors."""
    references: bool = True
    """Services that are named must exist."""
    complete: bool = True
    """Every service needs an image or a build, and volumes, networks, secrets and configs that are named must exist."""


@dataclass
class Project:
    """What the files say together."""

    name: str
    folder: str
    data: dict[str, Any]
    """Canonical and merged; variables are put in except below `KEPT`."""
    values: dict[str, str]
    """Variables known at reading time: `.env` files of the tree."""
    main: ComposeFile
    tree: SourceTree
    files: list[ComposeFile] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unset: set[str] = field(default_factory=set)
    """Variables that were put in as empty because nobody gave them a value."""
    problems: list[Problem] = field(default_factory=list)

    @staticmethod
    def elsewhere(file: ComposeFile, path: Path, message: str, fix: str = "") -> Problem:
        """A fault in another file than the one that is read: its place stands in the message."""
        line, column = file.place(path)
        return Problem(f"{file.file}:{line}:{column}: {message}", fix=fix)

    def problem(self, path: Path, message: str, fix: str = "") -> None:
        """A fault at a path of the model, located in the file that says it."""
        best, depth = self.main, -1
        for file in self.files:
            reached = next((end for end in range(len(path), -1, -1) if path[:end] in file.places), -1)
            if reached > depth:
                best, depth = file, reached
        self.problems.append(best.problem(path, message, fix) if best.file == self.main.file else self.elsewhere(best, path, message, fix))
