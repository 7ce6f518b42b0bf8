"""Moving a cluster to another major version beside the old one, which stays until the new one has answered."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import psycopg

from homeport.drivers.addons.errors import AddOnFailed, UpgradeFailed
from homeport.drivers.addons.postgres.cluster import Cluster, data_name
from homeport.drivers.addons.postgres.engines import Engine
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
        driver.step("upgrade")
        _pg_upgrade(old, new)
        new.configure()
        driver.step("record")
        place.write(new.record)
        driver.step("start")
        driver.run(new)
        _check(new, wanted)
    except (HomeportError, OSError, psycopg.Error) as error:
        driver.halt(new)
        place.write(before)
        remove_tree(new.data)
        driver.run(old)
        why = error.why if isinstance(error, HomeportError) else str(error)
        raise UpgradeFailed(slug=place.id.slug, why=why, tail=getattr(error, "tail", ())) from error
    driver.step("done")
    _keep_aside(old, engine.major)
    return new


def _pg_upgrade(old: Cluster, new: Cluster) -> None:
    """The new cluster listens to nobody but pg_upgrade: its socket is in a folder of the account's own."""
    work = old.place.make("upgrade", old.record.user)
    options = "-c listen_addresses='' -c archive_mode=off -c shared_preload_libraries=''"
    done = new.tool(
        ["pg_upgrade", "--old-bindir", str(old.engine.bin), "--new-bindir", str(new.engine.bin), "--old-datadir", str(old.data),
         "--new-datadir", str(new.data), "--username", "homeport_admin", "--socketdir", "/proc/self/cwd", "--old-options", options,
         "--new-options", options, "--jobs", str(os.cpu_count() or 1), "--copy"],
        cwd=work,
        timeout=TIMEOUT,
    )  # fmt: skip
    if done.code != 0:
        raise AddOnFailed(
            name=old.id.name, why=f"pg_upgrade did not accept the cluster: {_last(done.output)}.", tail=done.output.splitlines()[-20:]
        )
    remove_tree(work)


def _last(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
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


def _keep_aside(old: Cluster, major: int) -> None:
    """The old data, and the archive that belongs to it, stay beside the new ones until the next upgrade."""
    archive = old.archive
    aside = archive.with_name(f"archive-{old.engine.major}")
    remove_tree(aside)
    archive.rename(aside)
    old.make_folders()
    for other in old.place.folder.glob("data-*"):
        if other.name not in (old.data.name, data_name(major)):
            remove_tree(other)
