"""Shipping of WAL: what a cluster has finished goes to every target, and then off the disk."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import time
from collections.abc import Container, Sequence
from pathlib import Path

import psycopg

from homeport.backups.repository import Repository
from homeport.backups.room import Room
from homeport.backups.streaming import Tails
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
    for name in ("shipped.json", "tails.json"):  # they are of the line before
        (cluster.place.folder / name).unlink(missing_ok=True)
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


def carried(cluster: Cluster) -> dict[str, str]:
    """What is known of the line of WAL that a cluster writes; empty when no base backup begins it: there is nothing to carry forward."""
    known = _known(cluster.place.folder / "era.json")
    return known if known.get("folder") == cluster.archive.name and cluster.archive.is_dir() else {}


def ship(room: Room, id: AddOnId) -> int:
    """Bring every finished segment of an add-on to every target; how many. One that a target refuses stays and is tried again.

    Of a streamed one the unfinished segment goes after them. Raises StorageFailed after all targets were tried.
    """
    cluster = room.postgres.cluster(id)
    known = carried(cluster)
    if not known or not (_finished(cluster) or Tails(cluster).due()):
        return 0
    with locked(cluster.place.folder / ".shipping.lock"):
        repositories, away = room.repositories(), dict[str, StorageFailed]()
        count, newest = _ship(cluster, known, repositories, away)
        Tails(cluster).ship(known["era"], known["system"], repositories, newest, away)
    if away:
        raise next(iter(away.values()))
    return count


def _finished(cluster: Cluster) -> dict[str, list[Path]]:
    """Finished segments by name, as the server archived them and as a receiver finished them: byte for byte the same."""
    found: dict[str, list[Path]] = {}
    for folder in (cluster.archive, cluster.stream):
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not file.name.startswith(".") and (folder == cluster.archive or SEGMENT.fullmatch(file.name)):
                found.setdefault(file.name, []).append(file)
    return dict(sorted(found.items()))


def _ship(cluster: Cluster, known: dict[str, str], repositories: Sequence[Repository], away: dict[str, StorageFailed]) -> tuple[int, str]:
    """A target that is away holds up neither the others nor what comes later; a segment goes when every target has it.

    Returns how many went, and the last of them. A received one can go before the server archives its own: that one is known then.
    """
    file_of_done = cluster.place.folder / "shipped.json"
    done = _shipped(file_of_done)
    before = {name: list(has) for name, has in done.items()}
    count, newest = 0, ""
    for name, files in _finished(cluster).items():
        if not _is_of(files[0], known):
            for file in files:
                file.unlink(missing_ok=True)
            continue
        has = done.setdefault(name, [])
        lack = [repository for repository in repositories if repository.name not in has]
        for repository in lack:
            if repository.name not in away:
                try:
                    repository.put_wal(known["era"], files[0])
                    has.append(repository.name)
                except StorageFailed as error:
                    away[repository.name] = error
        if all(repository.name in has for repository in repositories):
            for file in files:
                file.unlink(missing_ok=True)
            if files[0].parent == cluster.archive:
                del done[name]
            count, newest = count + bool(lack), name
    if done != before:
        write_atomic(file_of_done, json.dumps(done).encode())
    return count, newest


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


def ship_all(room: Room, but: Container[AddOnId] = ()) -> dict[str, str]:
    """Ship for every PostgreSQL add-on, `but` some; by add-on what did not work."""
    problems = {}
    for id in room.databases():
        if id not in but:
            try:
                ship(room, id)
            except (StorageFailed, OSError, psycopg.Error) as error:
                problems[id.slug] = getattr(error, "why", str(error))
    return problems


def prune(repositories: Sequence[Repository], needed: dict[str, str]) -> int:
    """Forget segments that no base backup needs any more, and beginnings of segments that are there whole or further.

    `needed`: by era the first segment of its oldest base backup.
    """
    removed = 0
    for repository in repositories:
        eras = {key.split("/")[1] for key in repository.storage.list("wal")}
        for era in eras & set(needed):
            whole, tails = repository.wal(era), repository.tails(era)
            idle = [key for name, key in whole.items() if not name.endswith(".history") and name[8:] < needed[era][8:]]
            last = max(tails, default="")
            idle += [key for name, keys in tails.items() for key in (keys if name != last or name in whole else keys[:-1])]
            for key in idle:
                with contextlib.suppress(StorageFailed):
                    repository.storage.remove(key)
                    removed += 1
    return removed
