"""Copies of disks: each file whole, SQLite databases through SQLite itself, and what was copied written down."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
from collections.abc import Sequence
from pathlib import Path

from homeport.backups.manifest import Fingerprint
from homeport.drivers.addons.copies import sha256
from homeport.drivers.files import copy_file

MAX_FILES = 1_000_000
"""Files one environment's disks may have to be copied."""
TRIES = 5
"""Looks at a file that changes while it is copied."""
_MAGIC = b"SQLite format 3\0"
"""First bytes of a database (sqlite.org/fileformat2.html, 1.3)."""
_BESIDE = ("-wal", "-shm", "-journal")


class TooManyFiles(OSError):
    """A disk has more files than a copy may hold."""


def copy(volumes: Sequence[Path], target: Path) -> Fingerprint:
    """Copy folders into `target`, each under its own name. Raises OSError.

    A file that changes meanwhile is copied again; after some tries its last copy is taken as it is.
    """
    target.mkdir(mode=0o700)
    files: dict[str, str] = {}
    rows: dict[str, dict[str, int]] = {}
    for volume in volumes:
        _copy_tree(volume, target / volume.name, volume.name, files, rows)
    return Fingerprint(files=files, sqlite=rows)


def _copy_tree(source: Path, target: Path, name: str, files: dict[str, str], rows: dict[str, dict[str, int]]) -> None:
    for here, folders, names in os.walk(source):
        inner = os.path.relpath(here, source)
        there = target if inner == "." else target / inner
        there.mkdir(exist_ok=True)
        _like(Path(here), there)
        databases = {entry for entry in names if is_sqlite(Path(here) / entry)}
        beside = {entry + end for entry in databases for end in _BESIDE}
        for entry in sorted(names):
            if len(files) >= MAX_FILES:
                raise TooManyFiles(27, f"more than {MAX_FILES} files", str(source))
            path, label = Path(here) / entry, str(Path(name) / inner / entry)
            if entry in beside:
                continue  # the copy of its database holds what is in it
            if entry in databases:
                rows[label] = _copy_sqlite(path, there / entry)
                files[label] = content_of(there / entry)
            elif not _copy_one(path, there / entry):
                continue
            elif not (there / entry).is_symlink():
                files[label] = sha256(there / entry)
        for folder in [folder for folder in folders if (Path(here) / folder).is_symlink()]:
            _copy_one(Path(here) / folder, there / folder)


def _copy_one(source: Path, target: Path) -> bool:
    """Copy a file or link; False for what is neither, or has gone."""
    with contextlib.suppress(FileNotFoundError):
        found = source.lstat()
        if stat.S_ISLNK(found.st_mode):
            target.symlink_to(source.readlink())
            os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
            return True
        if stat.S_ISREG(found.st_mode):
            for _ in range(TRIES):
                before = source.stat()
                target.unlink(missing_ok=True)
                copy_file(source, target)
                after = source.stat()
                if (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size):
                    break
            _like(source, target)
            return True
    target.unlink(missing_ok=True)
    return False


def _like(source: Path, target: Path) -> None:
    """Owner, mode and times of another file."""
    found = source.stat()
    if os.geteuid() == 0:
        os.chown(target, found.st_uid, found.st_gid)
    target.chmod(stat.S_IMODE(found.st_mode))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


# --- SQLite -----------------------------------------------------------------------------------------------------------


def is_sqlite(file: Path) -> bool:
    """Whether a file is an SQLite database."""
    try:
        if not stat.S_ISREG(file.lstat().st_mode):
            return False
        with file.open("rb") as head:
            return head.read(16) == _MAGIC
    except OSError:
        return False


def _copy_sqlite(source: Path, target: Path) -> dict[str, int]:
    """A consistent copy by SQLite's online backup, while others write; rows by table. What SQLite refuses is copied as a file."""
    try:
        with (
            contextlib.closing(sqlite3.connect(f"file:{_quoted(source)}?mode=ro", uri=True, timeout=30)) as live,
            contextlib.closing(sqlite3.connect(target)) as copied,
        ):
            live.backup(copied, pages=4096, sleep=0.01)
            copied.execute("PRAGMA journal_mode=DELETE")
            found = tables(copied)
    except sqlite3.Error:
        target.unlink(missing_ok=True)
        _copy_one(source, target)
        return {}
    _like(source, target)
    return found


def tables(database: sqlite3.Connection) -> dict[str, int]:
    """Rows by table."""
    names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")]
    found = {}
    for name in names:
        with contextlib.suppress(sqlite3.Error):  # virtual tables of extensions that are not here
            quoted = name.replace('"', '""')
            found[name] = int(database.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608 (quoted)
    return found


def content_of(file: Path) -> str:
    """SHA-256 of a file; of an SQLite database over its content, since equal ones may differ in their bytes."""
    if not is_sqlite(file):
        return sha256(file)
    try:
        with contextlib.closing(sqlite3.connect(f"file:{_quoted(file)}?mode=ro", uri=True)) as database:
            digest = hashlib.sha256()
            for line in database.iterdump():
                digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
            return digest.hexdigest()
    except sqlite3.Error:
        return sha256(file)


def problems_of(root: Path, wanted: Fingerprint) -> str:
    """The first difference between an unpacked copy and what was copied; empty when there is none."""
    for name, digest in wanted.files.items():
        file = root / name
        if not file.is_file():
            return f"{name} is missing."
        if content_of(file) != digest:
            return f"{name} has other content."
    for name, rows in wanted.sqlite.items():
        with contextlib.closing(sqlite3.connect(f"file:{_quoted(root / name)}?mode=ro", uri=True)) as database:
            if rows and database.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                return f"The database {name} is damaged."
            if rows and tables(database) != rows:
                return f"The database {name} has other numbers of rows."
    return ""


def _quoted(file: Path) -> str:
    from urllib.parse import quote

    return quote(str(file))
