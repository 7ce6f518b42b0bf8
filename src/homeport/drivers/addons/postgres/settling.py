"""Durability afterwards: a copy that anybody can make again need not be on the platter before it serves.

Its server recovers with `fsync = off`, so the second it takes to make 1 GB durable is not waited for. `settle` turns it on again, and then
has the file system write down everything from before: in this order, so that no later commit is missed (PostgreSQL manual, `fsync`).
"""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

from homeport.drivers.addons.postgres.cluster import Cluster

OFF = {"fsync": "off"}
"""Settings of a cluster that is not durable yet."""
RELOADED_WITHIN = 10.0
_POLL = 0.02


def settle(cluster: Cluster) -> None:
    """Have all of a running cluster on the disk, from here on and from before. Raises psycopg.Error, OSError."""
    with cluster.admin() as admin:
        admin.execute("ALTER SYSTEM RESET fsync")
        admin.execute("SELECT pg_reload_conf()")
    deadline = time.monotonic() + RELOADED_WITHIN
    while not _syncs(cluster) and time.monotonic() < deadline:
        time.sleep(_POLL)  # a reload tells nobody when it is through
    sync_file_system(cluster.data)


def _syncs(cluster: Cluster) -> bool:
    with cluster.admin() as admin:
        row = admin.execute("SELECT current_setting('fsync')").fetchone()
    return bool(row and row[0] == "on")


def sync_file_system(folder: Path) -> None:
    """Write down everything of the file system a folder lies on (syncfs(2)). Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(handle) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(handle)
