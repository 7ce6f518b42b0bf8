"""Copies of add-ons on disk: complete or not there, each file with its checksum.

A backup is a folder: `addon.json` (what it is a copy of), `manifest.json` (size and SHA-256 of every file that the engine's own manifest
does not cover) and the engine's files. `BackupRef.digest` is the SHA-256 of `manifest.json`, so it covers everything.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from homeport.drivers.addons.base import BackupRef
from homeport.drivers.addons.errors import BackupDamaged, BackupFailed
from homeport.drivers.addons.records import Record
from homeport.drivers.files import remove_tree, sync_folder, write_atomic

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def new_id(now: datetime) -> str:
    """`20261120T140507Z-3f9a1c`: sorts by time, never twice."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


@contextlib.contextmanager
def copying(record: Record, target: Path) -> Iterator[tuple[str, Path]]:
    """A new backup's id and its folder to fill; it appears in `target` when the block ends well, and is gone when not.

    Raises BackupFailed for what the disk refuses.
    """
    id = new_id(datetime.now(UTC))
    part = target / f".{id}.part"
    try:
        target.mkdir(parents=True, exist_ok=True)
        part.mkdir(mode=0o700)
        (part / "addon.json").write_text(record.model_dump_json(indent=1))
        yield id, part
    except OSError as error:
        remove_tree(part)
        full = error.errno in NO_ROOM
        why = f"The target {target} has no room left." if full else f"{error.filename or target}: {error.strerror}."
        raise BackupFailed(slug=record.id.slug, why=why) from error
    except BaseException:
        remove_tree(part)
        raise


def finish(record: Record, id: str, part: Path, covered: Sequence[str], metadata: dict[str, str]) -> BackupRef:
    """Write the manifest, which leaves out folders `covered` by one of the engine's, and move the backup into place."""
    skip = {part / name for name in covered}
    files = {}
    size = 0
    for file in sorted(path for path in part.rglob("*") if path.is_file()):
        size += file.stat().st_size
        if not skip & set(file.parents) or file.name == "backup_manifest":
            files[str(file.relative_to(part))] = [file.stat().st_size, sha256(file)]
    manifest = json.dumps({"id": id, "files": files}, indent=1).encode()
    write_atomic(part / "manifest.json", manifest, 0o600)
    folder = part.with_name(id)
    part.rename(folder)
    sync_folder(folder.parent)
    return BackupRef(
        id=id,
        addon=record.id,
        kind=record.kind,
        taken_at=datetime.now(UTC),
        size=size,
        digest=hashlib.sha256(manifest).hexdigest(),
        folder=str(folder),
        metadata={"version": record.version, **metadata},
    )


def verify(backup: BackupRef, source: Path) -> Record:
    """Compare a backup with its checksums; what it is a copy of. Raises BackupDamaged."""
    try:
        manifest = (source / "manifest.json").read_bytes()
        if hashlib.sha256(manifest).hexdigest() != backup.digest:
            raise BackupDamaged(backup=backup.id, why="Its manifest is not the one that was written.")
        for name, (size, digest) in json.loads(manifest)["files"].items():
            file = source / name
            if file.stat().st_size != size or sha256(file) != digest:
                raise BackupDamaged(backup=backup.id, why=f"{name} is not what was written.")
        return Record.model_validate_json((source / "addon.json").read_bytes())
    except (OSError, ValueError, KeyError) as error:
        raise BackupDamaged(backup=backup.id, why=f"It cannot be read: {error}.") from error


def sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def copy_open(source: BinaryIO, target: Path) -> None:
    """Copy an open file durably: what it is stays the same when its name is given to another meanwhile."""
    with target.open("xb") as file:
        while data := source.read(1 << 20):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
