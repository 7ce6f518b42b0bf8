"""The one error shape: what happened to the user's app, why, how to fix it, and a stable code with a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class HomeportError(Exception):
    """An outcome a person can act on.

    `code` is kebab-case, never reused, and names the page `docs/reference/errors/<code>.md`.
    A subclass exists only where a program must tell it apart.
    """

    code: ClassVar[str] = "internal-error"

    def __init__(self, *, what: str, why: str, fix: str, tail: Sequence[str] = ()) -> None:
        """`tail` is the application's own last log lines, already masked."""
        super().__init__(what)
        self.what, self.why, self.fix, self.tail = what, why, fix, tuple(tail)

    def __str__(self) -> str:
        last = "".join(f"\n    {line}" for line in self.tail[-8:])
        return f"error[{self.code}]: {self.what}\n  why: {self.why}\n  fix: {self.fix}" + (f"\n  last lines:{last}" if last else "")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.why, self.fix, self.tail)


def _rebuild(kind: type[HomeportError], what: str, why: str, fix: str, tail: tuple[str, ...]) -> HomeportError:
    error = kind.__new__(kind)
    HomeportError.__init__(error, what=what, why=why, fix=fix, tail=tail)
    return error


class DiskFull(HomeportError):
    """The disk of the home took a write no more."""

    code = "disk-full"


def disk_full() -> DiskFull:
    """The error for a write that found no room, wherever it was."""
    return DiskFull(
        what="Nothing was switched; what served before still serves.",
        why="The disk of Homeport's home is full.",
        fix="Make room on it (`df -h` shows it), then do it again.",
    )


@dataclass(frozen=True)
class Problem:
    """One located fault in a file: `line` and `column` count from 1; 0 means unknown."""

    message: str
    path: str = ""
    line: int = 0
    column: int = 0
    fix: str = ""


class BlueprintInvalid(HomeportError):
    """A deployment file cannot be read; carries every problem found, each with its place."""

    code = "blueprint-invalid"

    def __init__(self, *, file: str, problems: Sequence[Problem], text: str = "") -> None:
        self.file, self.problems, self.text = file, tuple(problems), text
        first = self.problems[0]
        super().__init__(
            what=f"{file} cannot be read; nothing was changed.",
            why=self._where(first) + first.message + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""),
            fix=first.fix or "Correct the file and run `homeport plan` again.",
        )

    def _where(self, problem: Problem) -> str:
        place = f"{self.file}:{problem.line}:{problem.column}: " if problem.line else f"{self.file}: "
        return place + (f"{problem.path}: " if problem.path else "")

    def render(self) -> str:
        """Every problem as `file:line:column`, with the source line and a caret under the column."""
        lines = self.text.split("\n")
        shown: list[str] = []
        for problem in self.problems:
            shown.append(self._where(problem) + problem.message)
            if 0 < problem.line <= len(lines):
                start = max(0, problem.column - 100)
                source = lines[problem.line - 1].rstrip("\r")[start : start + 160].replace("\t", " ")
                shown.append(f"  {problem.line:>4} | {source}")
                shown.append("       | " + " " * max(0, problem.column - start - 1) + "^")
        return "\n".join(shown)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_blueprint, (self.file, self.problems, self.text)


def _rebuild_blueprint(file: str, problems: tuple[Problem, ...], text: str) -> BlueprintInvalid:
    return BlueprintInvalid(file=file, problems=problems, text=text)
