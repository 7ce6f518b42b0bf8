"""Snapshots of a Valkey server: how one becomes the beginning of an append-only file."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from homeport.drivers.addons.errors import BackupFailed
from homeport.drivers.files import copy_file, give, remove_tree, sync_folder

if TYPE_CHECKING:
    import redis

MANIFEST = "appendonly.aof.manifest"
BASE = "appendonly.aof.1.base.rdb"
TIMEOUT = 3600.0
"""Seconds a snapshot may take."""


def settle(data: Path, user: int | None, *, on: bool) -> None:
    """Bring the files of a stopped server to what it will read: with an append-only file it reads nothing else, without it that is stale.

    A snapshot that is there becomes the base of a new append-only file (valkey.conf, appendonly): it would be left aside otherwise, and
    overwritten later. A file that is no longer kept is moved aside, not removed.
    """
    folder = data / "appendonlydir"
    if on:
        _seed(data, folder, user)
    elif folder.exists():
        aside = data / "appendonlydir.before"
        remove_tree(aside)
        folder.rename(aside)
        sync_folder(data)


def set_aside(data: Path) -> None:
    """Keep a server without persistence from reading an old snapshot when it comes back: for a cache, stale is worse than empty."""
    snapshot = data / "dump.rdb"
    if snapshot.exists():
        snapshot.replace(data / "dump.before.rdb")


def switch(client: redis.Redis, slug: str, *, on: bool) -> None:
    """Begin or end the append-only file of a running server; when it returns, everything is in it. Raises BackupFailed."""
    if (client.config_get("appendonly")["appendonly"] == "yes") == on:
        return
    client.config_set("appendonly", "yes" if on else "no")
    deadline = time.monotonic() + TIMEOUT
    while on:
        now = client.info("persistence")
        if not now["aof_rewrite_in_progress"] and not now["aof_rewrite_scheduled"]:
            return
        if time.monotonic() > deadline:
            raise BackupFailed(slug=slug, why=f"Writing the append-only file took longer than {TIMEOUT / 60:.0f} minutes.")
        time.sleep(0.02)


def _seed(data: Path, folder: Path, user: int | None) -> None:
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


def take(client: redis.Redis, slug: str) -> None:
    """Have `dump.rdb` written anew, as of now or later. Raises BackupFailed.

    The server tells of its end by no event, hence the looks, ever more seldom.
    """
    import redis

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
    except redis.RedisError as error:
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
