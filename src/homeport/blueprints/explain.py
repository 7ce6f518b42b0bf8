"""What Homeport does with each key of a file: the report behind `homeport blueprint check` and `homeport plan`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from homeport.blueprints.discover import dialect_of
from homeport.blueprints.document import invalid
from homeport.blueprints.registry import DIALECTS, reader
from homeport.blueprints.source import MAX_FILE, FolderTree, MemoryTree, SourceTree, decode
from homeport.model.base import Frozen
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading

SKIPPED_FOLDERS = frozenset({"node_modules", ".git", ".venv", "venv", "__pycache__", "dist", "target", ".tox", ".mypy_cache"})
MAX_FILES = 20_000


class ApproximatedKey(Frozen):
    """A key with an effect close to what it says, or none: `reason` tells the difference."""

    path: str
    reason: str


class UnknownKey(Frozen):
    """A key nobody knows."""

    path: str
    did_you_mean: str = ""


class Keys(Frozen):
    """Every leaf of a file, each in exactly one class."""

    honoured: tuple[str, ...] = ()
    approximated: tuple[ApproximatedKey, ...] = ()
    ignored: tuple[ApproximatedKey, ...] = ()
    unknown: tuple[UnknownKey, ...] = ()

    @property
    def total(self) -> int:
        """How many leaves the file has."""
        return len(self.honoured) + len(self.approximated) + len(self.ignored) + len(self.unknown)


class FileReport(Frozen):
    """One file explained."""

    file: str
    dialect: str = ""
    """Empty when nobody recognises the file."""
    ok: bool = False
    error: str = ""
    """Every problem as `file:line:column: message`, with the source line and a caret; empty when the file is read."""
    services: tuple[str, ...] = ()
    addons: tuple[str, ...] = ()
    keys: Keys = Keys()
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The report as `homeport blueprint check --json` prints it: `error` is null for a file that is read."""
        return {
            "file": self.file,
            "dialect": self.dialect or None,
            "ok": self.ok,
            "error": self.error or None,
            "services": list(self.services),
            "addons": list(self.addons),
            "keys": {
                "honoured": list(self.keys.honoured),
                "approximated": [{"path": key.path, "reason": key.reason} for key in self.keys.approximated],
                "ignored": [{"path": key.path, "reason": key.reason} for key in self.keys.ignored],
                "unknown": [{"path": key.path, "did_you_mean": key.did_you_mean or None} for key in self.keys.unknown],
            },
            "warnings": list(self.warnings),
        }


def keys_of(reading: Reading) -> Keys:
    """The account of one reading by class."""
    honoured: list[str] = []
    approximated: list[ApproximatedKey] = []
    ignored: list[ApproximatedKey] = []
    unknown: list[UnknownKey] = []
    for note in reading.keys:
        if note.fate is Fate.HONOURED:
            honoured.append(note.path)
        elif note.fate is Fate.APPROXIMATED:
            approximated.append(ApproximatedKey.model_construct(path=note.path, reason=note.reason))
        elif note.fate is Fate.IGNORED:
            ignored.append(ApproximatedKey.model_construct(path=note.path, reason=note.reason))
        else:
            unknown.append(UnknownKey.model_construct(path=note.path, did_you_mean=note.did_you_mean))
    return Keys.model_construct(honoured=tuple(honoured), approximated=tuple(approximated), ignored=tuple(ignored), unknown=tuple(unknown))


def report_of(reading: Reading) -> FileReport:
    """A reading as a report."""
    return FileReport.model_construct(
        file=reading.file,
        dialect=reading.dialect,
        ok=True,
        error="",
        services=tuple(reading.spec.services),
        addons=tuple(reading.spec.addons),
        keys=keys_of(reading),
        warnings=reading.warnings,
    )


def check_file(path: str, text: str, *, dialect: str = "", tree: SourceTree | None = None) -> FileReport:
    """Explain one file. Never raises for anything the file may hold.

    `dialect` is taken from the name, the text, or a folder of the path that is called like a dialect. `tree` gives
    the files beside it, which some dialects include.
    """
    chosen = dialect or recognise(path, text)
    if not chosen:
        fault = invalid(path, "", "no dialect recognises this file")
        return FileReport(file=path, error=fault.render())
    one = reader(chosen)
    if one is None:
        return FileReport(file=path, dialect=chosen, error=f"{path}: {DIALECTS[chosen].title} is written, not read")
    try:
        reading = one.read(tree if tree is not None else MemoryTree({path: text}, name=_project_name(path)), path)
    except BlueprintInvalid as error:
        return FileReport(file=path, dialect=chosen, error=error.render())
    return report_of(reading)


def recognise(path: str, text: str) -> str:
    """The dialect of a file. Its own name and text decide; a collected file, whose name carries its origin
    (`owner__repo__ci.yml`) or says nothing, is taken for what the folder it lies in is called."""
    *folders, name = path.replace("\\", "/").split("/")
    hint = next((part for part in reversed(folders) if part in DIALECTS and DIALECTS[part].reader and part != "homeport"), "")
    return hint if hint and "__" in name else dialect_of(name, text) or hint


def _project_name(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").rpartition("/")[0].rpartition("/")[2] or "app"


def check_paths(paths: Iterable[Path]) -> Iterator[FileReport]:
    """Explain files, and all files of folders that any dialect recognises. Files named one by one are always reported."""
    for path in paths:
        if path.is_dir():
            for file in _walk(path):
                report = _check_on_disk(file, named=False)
                if report is not None:
                    yield report
        else:
            report = _check_on_disk(path, named=True)
            if report is not None:
                yield report


def read_alone(path: Path) -> Reading:
    """One file on disk, read by itself: what lies beside it only counts where the file names it.

    Raises BlueprintInvalid; OSError when the file cannot be opened.
    """
    with path.open("rb") as stream:
        text = decode(stream.read(MAX_FILE + 4))
    dialect = recognise(str(path), text)
    one = reader(dialect) if dialect else None
    if one is None:
        raise invalid(
            str(path), "", "no dialect recognises this file" if not dialect else f"{DIALECTS[dialect].title} is written, not read"
        )
    return one.read(_Beside(path, text), path.name)


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, sorted, without folders of dependencies; links are not followed."""
    count = 0
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
        for name in sorted(files):
            count += 1
            if count > MAX_FILES:
                return
            yield Path(here) / name


def _check_on_disk(path: Path, *, named: bool) -> FileReport | None:
    shown = str(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE and not named:
            return None
        with path.open("rb") as stream:
            text = decode(stream.read(MAX_FILE + 4))
    except OSError as error:
        return FileReport(file=shown, error=f"{shown}: {error.strerror or error}") if named else None
    dialect = recognise(shown, text if size <= MAX_FILE else "")
    if not dialect and not named:
        return None
    report = check_file(path.name, text, dialect=dialect, tree=_Beside(path, text)) if dialect else check_file(shown, text)
    return report.model_copy(
        update={"file": shown, "error": report.error.replace(f"{path.name}:", f"{shown}:") if dialect else report.error}
    )


class _Beside(FolderTree):
    """The folder of a file; the file itself is not read twice, and is limited as it was read."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(path.parent)
        self._name, self._text = path.name, text

    def text(self, path: str) -> str | None:
        if path == self._name:
            if len(self._text) > MAX_FILE:
                raise ValueError(f"larger than {MAX_FILE >> 20} MiB")
            return self._text
        return super().text(path)
