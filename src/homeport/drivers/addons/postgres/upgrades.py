"""Moving a cluster to another engine beside the old one, which stays until the new one has answered.

pg_upgrade copies the files; what it refuses is dumped and restored by the programs of the new version. The old data folder is only read by
both, and every process of a move holds the fence, so whatever a crash leaves is ended before the old server starts again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import make_conninfo

from homeport.drivers.addons.errors import AddOnFailed, UpgradeFailed
from homeport.drivers.addons.postgres.cluster import Cluster, data_name
from homeport.drivers.addons.postgres.engines import Engine, Engines, needed
from homeport.drivers.addons.postgres.settings import ADMIN
from homeport.drivers.addons.servers import Command, keeping_fence
from homeport.drivers.files import remove_tree
from homeport.drivers.runtimes.base import Executed
from homeport.model.addon import Postgres
from homeport.model.errors import HomeportError

if TYPE_CHECKING:
    from homeport.drivers.addons.postgres.driver import PostgresDriver

TIMEOUT = 6 * 3600.0
"""Seconds a move may take: it copies everything."""
Tables = dict[str, dict[str, int]]
"""By database, the tables with their bytes."""


def target(engines: Engines, cluster: Cluster, version: str) -> Engine:
    """The engine that a cluster's data moves to; its own when no other is better. Raises AddOnFailed when this machine has none.

    It has what the data needs and, where some engine has that as well, what the project's migrations make.
    """
    need = needed(cluster.definition) | extensions(cluster)
    made = {name for name in cluster.definition.extensions_made if any(name in engine.extensions for engine in engines.all)}
    found = engines.successor(cluster.engine, need | made, version) or engines.successor(cluster.engine, need, version)
    if found is None:
        name = cluster.id.name
        raise AddOnFailed(
            name=name, what=f"{name} was not upgraded; it runs on as {cluster.engine.label}.",
            why=f"PostgreSQL {version or cluster.engine.major} with all it needs ({', '.join(sorted(need)) or 'nothing'}) is "
                f"not here: this machine has {', '.join(engine.label for engine in engines.all)}.",
            fix="Choose a version that this machine has, or install it with its extensions.",
        )  # fmt: skip
    return found


def upgrade(driver: PostgresDriver, old: Cluster, engine: Engine, definition: Postgres) -> Cluster:
    """Stop, move into a new data folder, start, and compare what it holds. Any failure ends with the old engine running.

    Raises UpgradeFailed.
    """
    place, before = old.place, old.record
    new = Cluster(place, before.model_copy(update={"data": _folder_for(old, engine), "version": str(engine.major), "source": engine.source,
                                                   "definition": definition}), engine, old.server, old.group)  # fmt: skip
    wanted = _contents(old)
    try:
        driver.step("stop")
        driver.halt(old)
        same_size = _move(driver, old, new, list(wanted))
        driver.step("record")
        for number in range(len(before.replica_ports)):
            remove_tree(old.replica(number) / "data")  # a copy of another history
        new.make_folders()
        place.write(new.record)
        driver.step("start")
        driver.run(new)
        _check(new, wanted, same_size=same_size)
    except (HomeportError, OSError, psycopg.Error) as error:
        driver.halt(new)
        place.write(before)
        for folder in (new.data, new.archive, new.stream, place.folder / "upgrade"):
            remove_tree(folder)
        driver.run(old)
        why = error.why if isinstance(error, HomeportError) else str(error)
        raise UpgradeFailed(slug=place.id.slug, why=why, tail=getattr(error, "tail", ())) from error
    driver.step("done")
    _forget_older(old, new)
    return new


def _folder_for(old: Cluster, engine: Engine) -> str:
    """`data-18`, or another name where the old data of the same version has that one."""
    name = data_name(engine.major)
    return name if name != old.data.name else f"{name}-{engine.source}"


def _move(driver: PostgresDriver, old: Cluster, new: Cluster, names: Sequence[str]) -> bool:
    """Fill the new data folder; whether the tables lie in it as large as they were."""
    driver.step("initialise")
    _fresh(new)
    driver.step("upgrade")
    try:
        _pg_upgrade(old, new)
    except AddOnFailed as refused:
        driver.step("dump")
        _fresh(new)
        _restore(old, new, names, refused)
        return False
    return True


def _fresh(new: Cluster) -> None:
    """An empty cluster in the new data folder, whatever was in it before."""
    new.server.sweep()
    remove_tree(new.data)
    new.initialise()
    new.configure()


@contextmanager
def _workshop(old: Cluster) -> Iterator[tuple[Path, str]]:
    """A folder of the account's own to work in, and one for sockets, short enough for their addresses; both are gone afterwards."""
    user = old.record.user
    remove_tree(old.place.folder / "upgrade")
    work = old.place.make("upgrade", user)
    with tempfile.TemporaryDirectory(prefix="homeport-upgrade-") as sockets:
        if user is not None:
            os.chown(sockets, user, user)
        yield work, sockets
    remove_tree(work)


def _run(old: Cluster, argv: Sequence[str], work: Path) -> Executed:
    """Servers that a program starts close their standard input, so the fence is kept open for them as well."""
    stale = (old.data / "postmaster.pid",)
    return old.server.run(Command(argv=keeping_fence(*argv), cwd=work, user=old.record.user, group=old.group, stale=stale), TIMEOUT)


def _pg_upgrade(old: Cluster, new: Cluster) -> None:
    """The two clusters listen to nobody but pg_upgrade. Raises AddOnFailed when it refuses."""
    options = "-c listen_addresses='' -c archive_mode=off -c shared_preload_libraries=''"
    with _workshop(old) as (work, sockets):
        done = _run(
            old,
            [str(new.engine.bin / "pg_upgrade"), "--old-bindir", str(old.engine.bin), "--new-bindir", str(new.engine.bin),
             "--old-datadir", str(old.data), "--new-datadir", str(new.data), "--username", ADMIN, "--socketdir", sockets,
             "--old-options", options, "--new-options", options, "--jobs", str(os.cpu_count() or 1), "--copy"],
            work,
        )  # fmt: skip
    if done.code != 0:
        tail = done.output.splitlines()[-20:]
        raise AddOnFailed(name=old.id.name, why=f"pg_upgrade did not accept the cluster: {_reason(done.output)}.", tail=tail)


def _restore(old: Cluster, new: Cluster, names: Sequence[str], refused: AddOnFailed) -> None:
    """Dump the old cluster and restore it into the new one. Raises AddOnFailed with both reasons."""
    script = (resources.files("homeport.drivers.addons.postgres") / "move.sh").read_text()
    with _workshop(old) as (work, sockets):
        old.write(work / "move.sh", script)
        done = _run(
            old,
            ["/bin/sh", "move.sh", str(old.engine.bin), str(old.data), str(new.engine.bin), str(new.data), sockets, ADMIN, str(work),
             *(make_conninfo(dbname=name) for name in names)],
            work,
        )  # fmt: skip
    if done.code != 0:
        tail = done.output.splitlines()[-20:]
        why = f"{refused.why} Nor could it be dumped and restored: {_reason(done.output)}."
        raise AddOnFailed(name=old.id.name, why=why, tail=tail)


def _reason(output: str) -> str:
    """The line that says most: what follows the failed check, else the last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("Failure, exiting")]
    failed = [number + 1 for number, line in enumerate(lines[:-1]) if line.endswith("fatal")]
    told = lines[failed[-1]] if failed else lines[-1] if lines else "it said nothing"
    return told.rstrip(".")


def extensions(cluster: Cluster) -> set[str]:
    """Every extension that some database of a cluster has."""
    found: set[str] = set()
    for name in databases(cluster):
        with cluster.admin(name) as admin:
            found |= {str(row[0]) for row in admin.execute("SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'")}
    return found


def databases(cluster: Cluster) -> list[str]:
    with cluster.admin() as admin:
        return [str(row[0]) for row in admin.execute("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1")]


def _contents(cluster: Cluster) -> Tables:
    """What a cluster holds."""
    found: Tables = {}
    for name in databases(cluster):
        with cluster.admin(name) as admin:
            rows = admin.execute(
                "SELECT c.oid::regclass::text, pg_relation_size(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
            )
            found[name] = {str(table): int(size) for table, size in rows}
    return found


def _check(new: Cluster, wanted: Tables, *, same_size: bool) -> None:
    """The same databases and tables, as large as before where files were copied; then fresh statistics, which a move leaves out."""
    have = _contents(new)
    alike = have == wanted if same_size else {name: set(tables) for name, tables in have.items()} == {n: set(t) for n, t in wanted.items()}
    if not alike:
        raise AddOnFailed(name=new.id.name, why="The new cluster does not hold the same tables: " + json.dumps(sorted(wanted))[:200])
    for name in wanted:
        with new.admin(name) as admin:
            admin.execute("ANALYZE")


def _forget_older(old: Cluster, new: Cluster) -> None:
    """The data before the upgrade, and its archive, stay beside the new ones until the next upgrade."""
    kept = {old.data.name, old.archive.name, new.data.name, new.archive.name, new.stream.name}
    for folder in [file for name in ("data", "archive", "stream") for file in old.place.folder.glob(f"{name}-*")]:
        if folder.name not in kept:
            remove_tree(folder)
