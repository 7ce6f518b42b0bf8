"""Moving a cluster to another major version beside the old one, which stays until the new one has answered."""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING

import psycopg

from homeport.drivers.addons.errors import AddOnFailed, UpgradeFailed
from homeport.drivers.addons.postgres.cluster import Cluster, data_name
from homeport.drivers.addons.postgres.engines import Engine
from homeport.drivers.addons.postgres.settings import ADMIN
from homeport.drivers.files import remove_tree
from homeport.model.addon import Postgres
from homeport.model.errors import HomeportError

if TYPE_CHECKING:
    from homeport.drivers.addons.postgres.driver import PostgresDriver

TIMEOUT = 6 * 3600.0
"""Seconds pg_upgrade may take: it copies every file."""


def upgrade(driver: PostgresDriver, old: Cluster, engine: Engine, definition: Postgres) -> Cluster:
    """Stop, run pg_upgrade into a new data folder, start, and compare what it holds. Any failure ends with the old version running.

    pg_upgrade copies (not links) the files, so the old data folder is as it was. Raises UpgradeFailed.
    """
    place, before = old.place, old.record
    new = Cluster(place, before.model_copy(update={"data": data_name(engine.major), "version": str(engine.major), "source": engine.source,
                                                   "definition": definition}), engine, old.server, old.group)  # fmt: skip
    wanted = _contents(old)
    remove_tree(new.data)
    try:
        driver.step("stop")
        driver.halt(old)
        driver.step("initialise")
        new.initialise()
        new.configure()
        driver.step("upgrade")
        _pg_upgrade(old, new)
        driver.step("record")
        new.make_folders()
        place.write(new.record)
        driver.step("start")
        driver.run(new)
        _check(new, wanted)
    except (HomeportError, OSError, psycopg.Error) as error:
        driver.halt(new)
        place.write(before)
        remove_tree(new.data)
        remove_tree(new.archive)
        driver.run(old)
        why = error.why if isinstance(error, HomeportError) else str(error)
        raise UpgradeFailed(slug=place.id.slug, why=why, tail=getattr(error, "tail", ())) from error
    driver.step("done")
    _forget_older(old, new)
    return new


def _pg_upgrade(old: Cluster, new: Cluster) -> None:
    """The two clusters listen to nobody but pg_upgrade: their socket is in a folder of the account's own, short enough for its address."""
    work = old.place.make("upgrade", old.record.user)
    options = "-c listen_addresses='' -c archive_mode=off -c shared_preload_libraries=''"
    with tempfile.TemporaryDirectory(prefix="homeport-upgrade-") as sockets:
        if old.record.user is not None:
            os.chown(sockets, old.record.user, old.record.user)
        done = new.tool(
            ["pg_upgrade", "--old-bindir", str(old.engine.bin), "--new-bindir", str(new.engine.bin), "--old-datadir", str(old.data),
             "--new-datadir", str(new.data), "--username", ADMIN, "--socketdir", sockets, "--old-options", options,
             "--new-options", options, "--jobs", str(os.cpu_count() or 1), "--copy"],
            cwd=work,
            timeout=TIMEOUT,
        )  # fmt: skip
    remove_tree(work)
    if done.code != 0:
        tail = done.output.splitlines()[-20:]
        raise AddOnFailed(name=old.id.name, why=f"pg_upgrade did not accept the cluster: {_reason(done.output)}.", tail=tail)


def _reason(output: str) -> str:
    """The line that says most: the last before the closing remark."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("Failure, exiting")]
    return lines[-1].rstrip(".") if lines else "it said nothing"


def _contents(cluster: Cluster) -> dict[str, dict[str, int]]:
    """By database, the tables with about how many rows each holds."""
    found: dict[str, dict[str, int]] = {}
    with cluster.admin() as admin:
        names = [str(row[0]) for row in admin.execute("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate")]
    for name in names:
        with cluster.admin(name) as admin:
            rows = admin.execute(
                "SELECT c.oid::regclass::text, pg_relation_size(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
            )
            found[name] = {str(table): int(size) for table, size in rows}
    return found


def _check(new: Cluster, wanted: dict[str, dict[str, int]]) -> None:
    """The same databases and tables, as large as before; then fresh statistics, which an upgrade leaves out before version 18."""
    have = _contents(new)
    if have != wanted:
        raise AddOnFailed(name=new.id.name, why="The upgraded cluster does not hold the same tables: " + json.dumps(sorted(wanted))[:200])
    for name in wanted:
        with new.admin(name) as admin:
            admin.execute("ANALYZE")


def _forget_older(old: Cluster, new: Cluster) -> None:
    """The data before the upgrade, and its archive, stay beside the new ones until the next upgrade."""
    kept = {old.data.name, old.archive.name, new.data.name, new.archive.name}
    for folder in [*old.place.folder.glob("data-*"), *old.place.folder.glob("archive-*")]:
        if folder.name not in kept:
            remove_tree(folder)
