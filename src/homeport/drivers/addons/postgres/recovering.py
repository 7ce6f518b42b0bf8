"""Recovery to a point in time: a new cluster reads the archive up to its target, and becomes one that serves.

What ends otherwise is read from the server's own log (`outcome_of`), since it says no more than that it has ended.
"""

from __future__ import annotations

import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import sql

from homeport.drivers.addons.base import AddOnId, BackupRef
from homeport.drivers.addons.errors import AddOnFailed
from homeport.drivers.addons.postgres import settling
from homeport.drivers.addons.postgres.backups import HISTORY, SEGMENT, Recovery, Target, tail
from homeport.drivers.addons.postgres.cluster import Cluster
from homeport.drivers.addons.postgres.receiving import SEGMENT_SIZE
from homeport.drivers.addons.postgres.settings import closed_hba, quoted
from homeport.drivers.files import give, remove_tree

if TYPE_CHECKING:
    from homeport.drivers.addons.postgres.driver import PostgresDriver

TIMEOUT = 6 * 3600.0
"""Seconds a recovery may take: it replays everything since its base backup."""
_ENDED_EARLY = "recovery ended before configured recovery target was reached"
_LAST = re.compile(r"last completed transaction was at log time (\S+ \S+)")


class _Unrecovered(Exception):
    """Carries a recovery's answer out of the block that undoes its traces."""

    def __init__(self, recovery: Recovery) -> None:
        super().__init__(recovery.why)
        self.recovery = recovery


def recover(
    driver: PostgresDriver, backup: BackupRef, base: Path, wal: Path, target: Target, into: AddOnId, *, consume: bool, durable: bool
) -> Recovery:
    """Fill, replay, finish; what it did is undone unless it recovered. See `PostgresDriver.recover`."""
    try:
        with driver.filled(backup, base, into, consume=consume) as cluster:
            return _replay(driver, cluster, wal, target, durable=durable)
    except _Unrecovered as ended:
        return ended.recovery


def _replay(driver: PostgresDriver, cluster: Cluster, wal: Path, target: Target, *, durable: bool) -> Recovery:
    driver.step("prepare")
    _prepare(cluster, wal, target, durable=durable)
    driver.step("recover")
    try:
        cluster.server.start(cluster.command())
        cluster.server.wait_ready(cluster.is_primary, TIMEOUT)
    except AddOnFailed as error:
        cluster.server.stop(driver.stop_signal, driver.stop_grace)
        raise _Unrecovered(outcome_of(cluster.server.tail(200), error)) from error
    driver.step("finish")
    return Recovery(state="recovered", latest=_finish(cluster))


def _prepare(cluster: Cluster, wal: Path, target: Target, *, durable: bool = True) -> None:
    """Tell a placed, configured, stopped cluster to read the archive up to the target and then become writable.

    Only Homeport gets in, with whatever password the backup knew, until the add-on is provisioned.
    """
    incoming = cluster.place.folder / "incoming"
    remove_tree(incoming)
    incoming.mkdir(mode=0o700)
    for file in wal.iterdir():
        if SEGMENT.fullmatch(file.name) or HISTORY.fullmatch(file.name):
            shutil.copy2(file, incoming / file.name)
    if last := tail(wal):
        shutil.copy2(wal / f"{last}.partial", incoming / last)
        os.truncate(incoming / last, SEGMENT_SIZE)  # zeros after the last record are what the server itself ends at
    if cluster.record.user is not None:
        give(incoming, cluster.record.user)
    values = {
        "restore_command": 'cp -- ../incoming/"%f" "%p"',
        "recovery_target_action": "promote",
        "recovery_target_timeline": "latest",
        **target.settings(),
        **({} if durable else settling.OFF),
    }
    cluster.write(cluster.data / "postgresql.auto.conf", "".join(f"{name} = {quoted(value)}\n" for name, value in values.items()))
    cluster.write(cluster.data / "pg_hba.conf", closed_hba())
    cluster.write(cluster.data / "recovery.signal", "")


def outcome_of(lines: list[str], error: AddOnFailed) -> Recovery:
    """What a recovery's log says about its end. Raises the error when it is none of the known ends."""
    text = "\n".join(lines)
    found = _LAST.findall(text)
    latest = datetime.fromisoformat(found[-1].replace(" UTC", "+00:00")) if found else None
    if latest is not None and latest.tzinfo is None:
        latest = latest.replace(tzinfo=UTC)
    if _ENDED_EARLY in text:
        seen = f" its last transaction is of {latest:%Y-%m-%d %H:%M:%S.%f} UTC" if latest else ""
        return Recovery(state="past-archive", why=f"The archive ends before the target;{seen or ' it holds no later one'}.", latest=latest)
    if "requested recovery stop point is before consistent recovery point" in text:
        return Recovery(state="before-base", why="The target is before the end of the base backup; an older one is needed.", latest=latest)
    raise error


def _finish(cluster: Cluster) -> datetime | None:
    """After the cluster has become writable: forget how it got there; time of its last replayed transaction."""
    with cluster.admin() as admin:
        row = admin.execute("SELECT pg_last_xact_replay_timestamp()").fetchone()
        for name in ("restore_command", "recovery_target_action", "recovery_target_timeline", "recovery_target_time", "recovery_target_xid",
                     "recovery_target_name", "recovery_target_lsn"):  # fmt: skip
            admin.execute(sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(name)))
        admin.execute("SELECT pg_reload_conf()")
    remove_tree(cluster.place.folder / "incoming")
    return row[0] if row else None
