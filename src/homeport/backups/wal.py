"""Shipping of WAL: what a cluster has finished goes to every target, and then off the disk."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg

from homeport.backups.repository import Repository
from homeport.backups.room import Room
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.postgres.backups import HISTORY, SEGMENT
from homeport.drivers.addons.postgres.cluster import Cluster
from homeport.drivers.files import locked, write_atomic
from homeport.drivers.storage.base import StorageFailed

log = logging.getLogger("homeport.backups")

ARCHIVED_WITHIN = 60.0
"""Seconds a finished segment may take to be archived."""
_POLL = 0.05


def system_of(segment: Path) -> str:
    """System identifier of the cluster that wrote a WAL segment: 8 bytes at 24 of its first page (xlog_internal.h, long header)."""
    with segment.open("rb") as file:
        head = file.read(32)
    return str(int.from_bytes(head[24:32], "little"))


def era_of(cluster: Cluster) -> str:
    """The name of a cluster's line of WAL, made when it has none. A restored or upgraded cluster gets a new one.

    Raises psycopg.Error when the cluster does not answer.
    """
    file = cluster.place.folder / "era.json"
    with cluster.admin() as admin:
        row = admin.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
    system = str(row[0]) if row else ""
    known = _known(file)
    if known.get("system") == system and known.get("folder") == cluster.archive.name:
        return known["era"]
    era = f"{cluster.place.id.slug[:60]}-{secrets.token_hex(4)}"
    write_atomic(file, json.dumps({"system": system, "era": era, "folder": cluster.archive.name}).encode())
    return era


def known_era(folder: Path) -> str:
    """The era of the add-on in a folder; empty when it has none yet."""
    return _known(folder / "era.json").get("era", "")


def _known(file: Path) -> dict[str, str]:
    try:
        return dict(json.loads(file.read_bytes()))
    except (FileNotFoundError, ValueError):
        return {}


def ship(room: Room, id: AddOnId) -> int:
    """Bring every finished segment of an add-on to every target; how many. One that a target refuses stays and is tried again.

    Raises StorageFailed after all targets were tried.
    """
    cluster = room.postgres.cluster(id)
    known = _known(cluster.place.folder / "era.json")
    if not known or known.get("folder") != cluster.archive.name or not cluster.archive.is_dir():
        return 0  # without a base backup there is nothing that WAL could carry forward
    if all(file.name.startswith(".") for file in cluster.archive.iterdir()):
        return 0
    with locked(cluster.place.folder / ".shipping.lock"):
        return _ship(cluster, known, room.repositories())


def _ship(cluster: Cluster, known: dict[str, str], repositories: Sequence[Repository]) -> int:
    """A target that is away holds up neither the others nor what comes later; a segment goes when every target has it."""
    file_of_done = cluster.place.folder / "shipped.json"
    done = _shipped(file_of_done)
    away: dict[str, StorageFailed] = {}
    shipped = 0
    for file in sorted(cluster.archive.iterdir()):
        if file.name.startswith("."):
            continue
        if not _is_of(file, known):
            file.unlink()
            continue
        has = done.setdefault(file.name, [])
        for repository in repositories:
            if repository.name in away or repository.name in has:
                continue
            try:
                repository.put_wal(known["era"], file)
                has.append(repository.name)
            except StorageFailed as error:
                away[repository.name] = error
        if all(repository.name in has for repository in repositories):
            file.unlink()
            del done[file.name]
            shipped += 1
    if done or file_of_done.exists():
        write_atomic(file_of_done, json.dumps(done).encode())
    if away:
        raise next(iter(away.values()))
    return shipped


def _is_of(file: Path, known: dict[str, str]) -> bool:
    """Whether an archived file is of this line of WAL: not of the cluster before an upgrade, nor a label the base backup holds itself."""
    return bool(HISTORY.fullmatch(file.name) or (SEGMENT.fullmatch(file.name) and system_of(file) == known["system"]))


def _shipped(file: Path) -> dict[str, list[str]]:
    """Segments that some targets have and others do not, with those that have them."""
    try:
        return dict(json.loads(file.read_bytes()))
    except (FileNotFoundError, ValueError):
        return {}


def advance(room: Room, id: AddOnId) -> None:
    """Make this moment reachable: end a transaction now, finish the segment, and ship it.

    Recovery to a time ends at the first transaction after it, so there has to be one. Raises psycopg.Error, StorageFailed.
    """
    cluster = room.postgres.cluster(id)
    with cluster.admin() as admin:
        admin.execute("SELECT pg_current_xact_id()")
    flush(room, id)


def flush(room: Room, id: AddOnId) -> None:
    """Finish the current segment, wait until it is archived, and ship it. Raises psycopg.Error, StorageFailed."""
    cluster = room.postgres.cluster(id)
    with cluster.admin() as admin:
        row = admin.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
        wanted = str(row[0]) if row else ""
        deadline = time.monotonic() + ARCHIVED_WITHIN
        while time.monotonic() < deadline:
            row = admin.execute("SELECT last_archived_wal FROM pg_stat_archiver").fetchone()
            if row and row[0] and str(row[0])[:24] >= wanted:
                break
            time.sleep(_POLL)  # the archiver tells nobody when it is done
    ship(room, id)


def ship_all(room: Room) -> dict[str, str]:
    """Ship for every PostgreSQL add-on; by add-on what did not work."""
    problems = {}
    for row in room.store.ledger.list("addon"):
        if row.value.get("engine") == "postgres":
            project, environment = row.owner.split("/")
            id = AddOnId(project=project, environment=environment, name=str(row.value["addon"]))
            try:
                ship(room, id)
            except (StorageFailed, OSError, psycopg.Error) as error:
                problems[id.slug] = getattr(error, "why", str(error))
    return problems


def prune(repositories: Sequence[Repository], needed: dict[str, str]) -> int:
    """Forget segments that no base backup needs any more. `needed`: by era the first segment of its oldest base backup."""
    removed = 0
    for repository in repositories:
        eras = {key.split("/")[1] for key in repository.storage.list("wal")}
        for era in eras & set(needed):
            for name, key in repository.wal(era).items():
                if not name.endswith(".history") and name[8:] < needed[era][8:]:
                    with contextlib.suppress(StorageFailed):
                        repository.storage.remove(key)
                        removed += 1
    return removed
