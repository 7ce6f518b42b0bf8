"""Snapshots of a Valkey server: how one becomes the beginning of an append-only file."""

from __future__ import annotations

import os
import time
from pathlib import Path

import redis
from redis.exceptions import RedisError

from homeport.drivers.addons.errors import BackupFailed
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


TIMEOUT = 3600.0
"""Seconds a snapshot may take."""


def take(client: redis.Redis, slug: str) -> None:
    """Have `dump.rdb` written anew, as of now or later. Raises BackupFailed.

    The server tells of its end by no event, hence the looks, ever more seldom.
    """
    try:
        before = client.info("persistence")
        _begin(client)
        pause, deadline = 0.005, time.monotonic() + TIMEOUT
        while True:
            now = client.info("persistence")
            if not now["rdb_bgsave_in_progress"] and now["rdb_saves"] > before["rdb_saves"]:
                break
            if not now["rdb_bgsave_in_progress"] and now["rdb_last_bgsave_status"] != "ok":
                raise BackupFailed(slug=slug, why="The server could not write its snapshot; its log says why.")
            if time.monotonic() > deadline:
                raise BackupFailed(slug=slug, why=f"The snapshot took longer than {TIMEOUT / 60:.0f} minutes.")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)
    except RedisError as error:
        raise BackupFailed(slug=slug, why=f"The server refused a snapshot: {error}.") from error


def _begin(client: redis.Redis) -> None:
    """Begin after the one that may be on its way: that one may be older than what was written just before."""
    while client.info("persistence")["rdb_bgsave_in_progress"]:
        time.sleep(0.02)
    client.bgsave(schedule=True)


def put(snapshot: Path, target: Path, user: int | None) -> None:
    """Copy a snapshot into a data folder, durably."""
    target.unlink(missing_ok=True)
    copy_file(snapshot, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    target.chmod(0o600)
    if user is not None:
        os.chown(target, user, user)
    sync_folder(target.parent)
