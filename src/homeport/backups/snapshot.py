"""The platform itself: what has to be copied so that an empty machine can become this home, and how it is put back.

The store goes through SQLite's online backup; what changes between copies is sent by `mirror`. The vault's data keys (`vault.json`) are
wrapped by the vault key, which is never copied. Artifacts and toolchains are immutable and shared between backups; the edge is generated
from the store, so it needs no copy.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

from homeport.model.release import Release
from homeport.store import Store
from homeport.store.database import Database
from homeport.store.portable import bring

FILES = ("vault.json", "cli.key")
"""Small files, with their place in the home."""

HEAD = "audit.head"
"""The newest row of the audit log. It is copied before the database, which then holds this row, and proves it where nobody of this
machine can change it."""


def take(home: Path, store: Store, target: Path) -> list[tuple[str, str]]:
    """Copy store and small files into `target`; returns the shared things that are needed as well, as `(folder, name)`.

    A store in PostgreSQL is written into an SQLite file of the same tables, from which a store of either kind can begin. Raises OSError,
    sqlite3.Error, SQLAlchemyError.
    """
    target.mkdir(mode=0o700)
    _copy_file(home, target, HEAD)
    if store.database.sqlite:
        _copy_database(home / "homeport.db", target / "homeport.db")
    else:
        _write_database(store.database, target / "homeport.db")
    for name in FILES:
        _copy_file(home, target, name)
    return needed(home, store)


def anchor(copy: Path) -> str:
    """`NUMBER:DIGEST` of the audit log in a copy, for `homeport audit verify --anchor`; empty when it has none."""
    try:
        head = json.loads((copy / HEAD).read_bytes())
        return f"{int(head['seq'])}:{head['digest']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _copy_file(home: Path, target: Path, name: str) -> None:
    if (home / name).is_file():
        (target / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copyfile(home / name, target / name)
        (target / name).chmod(0o600)


def _copy_database(source: Path, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(source, timeout=30)) as live, contextlib.closing(sqlite3.connect(target)) as copied:
        live.backup(copied, pages=4096, sleep=0.01)
    target.chmod(0o600)


def _write_database(source: Database, target: Path) -> None:
    copied = Database(f"sqlite:///{target}")
    try:
        copied.migrate()
        bring(source, copied)
    finally:
        copied.close()
    with contextlib.closing(sqlite3.connect(target)) as database:
        database.execute("PRAGMA journal_mode=DELETE")
    target.chmod(0o600)


def needed(home: Path, store: Store) -> list[tuple[str, str]]:
    """Artifacts of live and former releases, the sources they came from, and the toolchains they name."""
    found: dict[tuple[str, str], None] = {}
    for row in store.environments.all():
        for number in (row.live, row.previous):
            known = store.releases.get(row.project, row.environment, number) if number is not None else None
            if known is not None:
                for item in _of_release(home, known.release):
                    found[item] = None
    return [(kind, name) for kind, name in found if (home / kind / name).exists()]


def _of_release(home: Path, release: Release) -> list[tuple[str, str]]:
    found = [("sources", release.revision.digest)]
    for artifact in release.artifacts.values():
        for kind, place in (("artifacts", artifact.folder), *(("toolchains", place) for place in artifact.path)):
            with contextlib.suppress(ValueError):
                found.append((kind, Path(place).relative_to(home / kind).parts[0]))
        found += [("layers", str(key)) for key in _layers(home / "artifacts" / artifact.id)]
    return [item for item in found if item[1]]


def _layers(artifact: Path) -> list[str]:
    """Dependency folders that an artifact links instead of holding them."""
    try:
        return list(json.loads((artifact / "artifact.json").read_bytes())["layers"])
    except (OSError, ValueError, KeyError):
        return []
