"""The file that a Temporal server keeps everything in: an SQLite database, copied while the server writes it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from homeport.drivers.files import copy_file, sync_folder

DATABASE = "temporal.db"


def copy(source: Path, target: Path) -> None:
    """SQLite's online backup, checked. Raises sqlite3.Error."""
    with (
        contextlib.closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True, timeout=60)) as here,
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as there,
    ):
        here.backup(there)
        verdict = there.execute("PRAGMA integrity_check").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(str(verdict))


def put(source: Path, target: Path, owner: int | None) -> None:
    """Give a server that does not run a copy to work on, durably."""
    target.unlink(missing_ok=True)
    copy_file(source, target)
    target.chmod(0o600)
    if owner is not None:
        os.chown(target, owner, owner)
    with target.open("rb") as opened:
        os.fsync(opened.fileno())
    sync_folder(target.parent)
