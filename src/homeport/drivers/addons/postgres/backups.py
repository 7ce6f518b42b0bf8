"""Base backups of a cluster, and new clusters from them: to the end of the backup, or to any point the archive reaches."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from homeport.drivers.addons import copies
from homeport.drivers.addons.base import BackupRef
from homeport.drivers.addons.errors import AddOnFailed, BackupDamaged, BackupFailed
from homeport.drivers.addons.postgres.cluster import Cluster
from homeport.drivers.addons.postgres.engines import Engine
from homeport.drivers.addons.postgres.receiving import PARTIAL
from homeport.drivers.addons.servers import run_outside
from homeport.drivers.files import copy_tree, give, remove_tree, sync_folder
from homeport.model.base import Frozen

TIMEOUT = 6 * 3600.0
"""Seconds a base backup may take."""
SEGMENT = re.compile(r"[0-9A-F]{24}")
HISTORY = re.compile(r"[0-9A-F]{8}\.history")


class Target(Frozen):
    """Where recovery stops. With none of them: at the end of the archive."""

    time: datetime | None = None
    """The last transaction at or before it is kept. With a time zone."""
    xid: str = ""
    """This transaction is the last that is kept."""
    name: str = ""
    """A point made by `pg_create_restore_point`."""
    lsn: str = ""
    broken: bool = False
    """Whether the end of the archive may be a gap in it, where there is no better."""

    def settings(self) -> dict[str, str]:
        if self.time is not None:
            return {"recovery_target_time": self.time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")}
        for field in ("xid", "name", "lsn"):
            if value := getattr(self, field):
                return {f"recovery_target_{field}": value}
        return {}


class Recovery(Frozen):
    """How a recovery ended. Only `recovered` leaves a cluster."""

    state: Literal["recovered", "past-archive", "wal-missing", "wal-damaged", "before-base"]
    why: str = ""
    latest: datetime | None = None
    """Time of the last transaction it saw: for `past-archive`, and for a gap behind it, the latest that can be asked for."""
    gap: str = ""
    """The first segment that is missing between others."""


def back_up(cluster: Cluster, target: Path, *, durable: bool = True) -> BackupRef:
    """A checked base backup in a new folder of `target`; not waited for to be on the disk when it is not `durable`. Raises BackupFailed."""
    record = cluster.record
    with copies.copying(record, target) as (id, part):
        data = part / "data"
        _client(
            cluster, "pg_basebackup", "-D", str(data), "--format=plain", "--wal-method=stream", "--checkpoint=fast", "--no-password",
            "--manifest-checksums=SHA256", "--label", id, *(() if durable else ("--no-sync",)),
        )  # fmt: skip
        damage = damaged(cluster.engine, data)
        if damage:
            raise BackupFailed(slug=record.id.slug, why=f"The copy did not pass its check: {damage}.")
        return copies.finish(record, id, part, ["data"], {"source": record.source, **facts(data)})


def _client(cluster: Cluster, program: str, *arguments: str) -> str:
    slug = cluster.record.id.slug
    try:
        done = run_outside([*cluster.client(program), *arguments], cwd=cluster.run, timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise BackupFailed(slug=slug, why=f"{program} took longer than {TIMEOUT / 3600:.0f} hours.") from error
    if done.code != 0:
        tail = done.output.strip().splitlines()[-10:]
        full = next((line for line in tail if "No space left" in line or "quota" in line), "")
        why = "The target has no room left." if full else f"{program} failed: {tail[-1] if tail else done.code}."
        raise BackupFailed(slug=slug, why=why, tail=tail)
    return done.output


def damaged(engine: Engine, data: Path, *, content: bool = True) -> str:
    """What is wrong with a base backup by its own manifest; empty when nothing is. Without `content` files are compared by size alone.

    Every file is read and compared, and the WAL it needs is read record by record. Not by pg_verifybackup: the bundled one of version 18
    does not run. Format: PostgreSQL manual, chapter Backup Manifest Format.
    """
    try:
        text = (data / "backup_manifest").read_bytes()
        manifest = json.loads(text)
        if hashlib.sha256(text[: text.rindex(b'"Manifest-Checksum"')]).hexdigest() != manifest["Manifest-Checksum"]:
            return "its manifest is not the one that was written"
        files = {_path(entry): entry for entry in manifest["Files"]}
        unknown = next((name for name in _files(data) if name not in files), "")
        if unknown:
            return f"{unknown} does not belong to it"
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = next((why for why in pool.map(lambda item: _differs(data, *item, content=content), files.items()) if why), "")
        return found or _unreadable_wal(engine, data, manifest["WAL-Ranges"])
    except (OSError, ValueError, KeyError) as error:
        return f"its manifest cannot be read: {error}"


def _path(entry: dict[str, Any]) -> str:
    return str(entry["Path"]) if "Path" in entry else bytes.fromhex(entry["Encoded-Path"]).decode("utf-8", "surrogateescape")


def _files(data: Path) -> Iterator[str]:
    """Files a manifest has to list: all but WAL, and what is written after the backup."""
    for here, folders, names in os.walk(data):
        below = os.path.relpath(here, data)
        if below == ".":
            folders[:] = [name for name in folders if name != "pg_wal"]
            yield from (name for name in names if name not in ("backup_manifest", "postgresql.auto.conf"))
        else:
            yield from (f"{below}/{name}" for name in names)


def _differs(data: Path, name: str, entry: dict[str, Any], *, content: bool) -> str:
    if name == "postgresql.auto.conf":
        return ""
    try:
        file = data / name
        if file.stat().st_size != entry["Size"]:
            return f"{name} has not the size that was written"
        return "" if not content or copies.sha256(file) == entry["Checksum"] else f"{name} is not what was written"
    except FileNotFoundError:
        return f"{name} is missing"


def _unreadable_wal(engine: Engine, data: Path, ranges: list[dict[str, Any]]) -> str:
    for part in ranges:
        argv = [str(engine.bin / "pg_waldump"), "--quiet", "--path", str(data / "pg_wal"), "--timeline", str(part["Timeline"]),
                "--start", part["Start-LSN"], "--end", part["End-LSN"]]  # fmt: skip
        try:
            done = run_outside(argv, cwd=data, timeout=TIMEOUT)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.code != 0:
            return (done.output.strip().splitlines() or ["its WAL cannot be read"])[0].replace("pg_waldump: error: ", "")
    return ""


def facts(data: Path) -> dict[str, str]:
    """Timeline and range of WAL that a base backup needs, from its manifest (PostgreSQL manual, Backup Manifest Format)."""
    manifest = json.loads((data / "backup_manifest").read_bytes())
    ranges = manifest["WAL-Ranges"]
    found = {"timeline": str(ranges[-1]["Timeline"]), "start_lsn": ranges[0]["Start-LSN"], "end_lsn": ranges[-1]["End-LSN"]}
    label = (data / "backup_label").read_text()
    started = re.search(r"START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)", label)
    return {**found, "start_segment": started[1] if started else "", "system": str(manifest.get("System-Identifier", ""))}


def place_data(cluster: Cluster, source: Path, backup: str, *, consume: bool = False) -> None:
    """Copy a base backup's data into a new add-on, whole or not at all; with `consume` move it, which takes no room and no time.

    What is moved comes out of parcels that were compared with their digests, so it is not read again, and the server that recovers it
    makes it durable before its first record.

    Raises BackupDamaged, AddOnFailed.
    """
    data = source / "data"
    damage = damaged(cluster.engine, data, content=not consume)
    if damage:
        raise BackupDamaged(backup=backup, why=f"{damage[:1].upper()}{damage[1:]}.")
    part = cluster.data.with_name(f"{cluster.data.name}.part")
    remove_tree(part)
    try:
        if consume and data.stat().st_dev == part.parent.stat().st_dev:
            data.rename(part)
        else:
            copy_tree(data, part, link=False)
        part.chmod(0o700)
        if cluster.record.user is not None:
            give(part, cluster.record.user)
        (part / "backup_manifest").unlink(missing_ok=True)
        (part / "postgresql.auto.conf").write_text("")
        if not consume:
            os.sync()
        part.rename(cluster.data)
        sync_folder(cluster.place.folder)
    except OSError as error:
        remove_tree(part)
        why = "The disk has no room left." if error.errno in copies.NO_ROOM else f"{error.filename}: {error.strerror}."
        raise AddOnFailed(name=cluster.id.name, what="Nothing was restored; what runs was not touched.", why=why) from error


# -- point in time -----------------------------------------------------------------------------------------------------


def check_archive(engine: Engine, base: Path, wal: Path) -> Recovery | None:
    """Why the archive cannot carry a base backup forward; None when it can. Looks at every byte of WAL from the backup on.

    An unfinished segment (see `tail`) counts as the last; it ends where it ends, which no error is.
    """
    known = facts(base / "data")
    names = sorted(file.name for file in wal.iterdir() if SEGMENT.fullmatch(file.name))
    last = tail(wal)
    first = known["start_segment"]
    timeline = first[:8]
    mine = [name for name in names if name[8:] >= first[8:] and name[:8] >= timeline]
    unfinished = [last] if last and last[8:] >= first[8:] and last[:8] >= timeline else []
    if not mine and not unfinished:
        return Recovery(state="wal-missing", why=f"The archive has nothing from the backup's first segment {first} on.")
    strange = next((name for name in unfinished if name[:8] != max(mine, default=first)[:8]), "")
    if strange and not (wal / f"{strange[:8]}.history").is_file():
        return Recovery(state="wal-missing", why=f"The history of timeline {strange[:8]}, which {strange} is of, is not in the archive.")
    gap = _gap([*mine, *unfinished], first)
    if gap:
        return Recovery(state="wal-missing", why=f"The segment {gap} is not in the archive.", gap=gap)
    whole = [name for name in mine if name[:8] == timeline]
    return _read_through(engine, wal, whole) if whole else None


def tail(wal: Path) -> str:
    """The segment of which a folder of WAL has only the beginning, when it follows all finished ones; empty when there is none.

    One before a finished segment is left out: recovery would take its end for the end of all.
    """
    names = [file.name for file in wal.iterdir()]
    newest = max((name for name in names if SEGMENT.fullmatch(name)), default="")
    unfinished = max((found[1] for name in names if (found := PARTIAL.fullmatch(name))), default="")
    return unfinished if unfinished > newest else ""


def cut(wal: Path, gap: str) -> None:
    """Leave nothing of what a folder of WAL has from a missing segment on: what comes before it can still be reached."""
    for file in wal.iterdir():
        if not HISTORY.fullmatch(file.name) and file.name[8:24] >= gap[8:]:
            file.unlink()


def _gap(names: list[str], first: str) -> str:
    """The first segment that is missing between others; segments count to 255 in the last part of their name (16 MB each)."""
    positions = {int(name[8:16], 16) << 8 | int(name[16:], 16): name for name in names}
    start = int(first[8:16], 16) << 8 | int(first[16:], 16)
    for position in range(start, max(positions) + 1):
        if position not in positions:
            return f"{first[:8]}{position >> 8:08X}{position & 0xFF:08X}"
    return ""


def _read_through(engine: Engine, wal: Path, names: list[str]) -> Recovery | None:
    """Read every record with its checksum. What is not a whole archive ends in an error of pg_waldump."""
    argv = [str(engine.bin / "pg_waldump"), "--quiet", "--path", str(wal), names[0], names[-1]]
    try:
        done = run_outside(argv, cwd=wal, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Recovery(state="wal-damaged", why=str(error))
    if done.code == 0:
        return None
    lines = done.output.strip().splitlines()
    return Recovery(state="wal-damaged", why=lines[0].replace("pg_waldump: error: ", "") if lines else "The archive cannot be read.")
