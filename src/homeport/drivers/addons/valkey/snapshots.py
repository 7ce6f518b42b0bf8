"""Snapshots of a Valkey server: how one becomes the beginning of an append-only file."""

from __future__ import annotations

import os
from pathlib import Path

from homeport.drivers.files import copy_file, give, remove_tree, sync_folder

MANIFEST = "appendonly.aof.manifest"
BASE = "appendonly.aof.1.base.rdb"


def seed(data: Path, user: int | None) -> None:
    """Make a snapshot the base of an append-only file, where there is one and no such file yet.

    A server that keeps an append-only file reads nothing else when it starts (valkey.conf, appendonly): without this, a snapshot would be
    left aside, and overwritten later.
    """
    folder = data / "appendonlydir"
    snapshot = data / "dump.rdb"
    if folder.exists() or not snapshot.exists():
        return
    part = data / "appendonlydir.part"
    remove_tree(part)
    part.mkdir(mode=0o700)
    copy_file(snapshot, part / BASE)
    (part / MANIFEST).write_text(f"file {BASE} seq 1 type b\n")
    for name in (BASE, MANIFEST):
        with (part / name).open("rb") as file:
            os.fsync(file.fileno())
    if user is not None:
        give(part, user)
    part.rename(folder)
    sync_folder(data)
