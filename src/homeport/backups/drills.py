"""Drills: a backup is restored into a scratch instance and compared with what was backed up. It is called good only then."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from homeport.backups import disks
from homeport.backups.errors import NotProven
from homeport.backups.kinds import copier_of
from homeport.backups.manifest import DISKS, PLATFORM, Manifest, Moment, Proof
from homeport.backups.restoring import look, materialise
from homeport.backups.room import SCRATCH_PROJECT, Room
from homeport.drivers.addons import switching
from homeport.drivers.addons.keeping import ServerDriver
from homeport.drivers.addons.records import records
from homeport.drivers.storage.base import StorageFailed
from homeport.model.errors import HomeportError

log = logging.getLogger("homeport.backups")


def drill(room: Room, manifest: Manifest) -> Proof:
    """Restore a backup where nobody sees it, compare, throw it away, and write down what came of it."""
    began = time.monotonic()
    compared: dict[str, int] = {}
    problem = ""
    try:
        compared = _try(room, manifest)
    except HomeportError as error:
        problem = error.why
    proof = Proof(
        backup=manifest.id, proven_at=datetime.now(UTC), seconds=round(time.monotonic() - began, 3), compared=compared,
        exact=manifest.fingerprint.exact if manifest.fingerprint else True, problem=problem,
    )  # fmt: skip
    room.store.backups.change(manifest.id, proven_at=None if problem else proof.proven_at, proof=proof.model_dump(mode="json"))
    row = room.store.backups.get(manifest.id)
    for repository in room.shelves():
        try:
            if row is None or repository.name in row.targets:
                repository.prove(proof)
        except StorageFailed as error:
            log.warning("the proof of %s was not kept on %s: %s", manifest.id, repository.name, error.why)
    subject = manifest.name if not manifest.project else f"{manifest.name} of {manifest.project}/{manifest.environment}"
    text = f"The backup {manifest.id} of {subject} " + (f"did not prove: {problem}" if problem else f"was proven in {proof.seconds:.1f} s.")
    kind = "backup.not-proven" if problem else "backup.proven"
    room.wiring.tell(kind, text, manifest.project, manifest.environment, backup=manifest.id, seconds=proof.seconds, compared=compared)
    return proof


def _try(room: Room, manifest: Manifest) -> dict[str, int]:
    if manifest.kind == PLATFORM:
        return _platform(room, manifest)
    if manifest.kind == DISKS:
        return _disks(room, manifest)
    driver, scratch = room.server(manifest.kind), room.scratch_id(manifest.addon)
    try:
        materialise(room, manifest, Moment(backup=manifest.id), scratch, only_first=True)
        return copier_of(manifest.kind).counted(look(room, manifest, scratch, compare=True))
    finally:
        switching.discard(driver, scratch)


def _disks(room: Room, manifest: Manifest) -> dict[str, int]:
    room.require(manifest.plain)
    with room.workspace() as folder:
        room.holder(manifest).fetch(manifest, folder / "copy")
        problem = disks.problems_of(folder / "copy", manifest.fingerprint) if manifest.fingerprint else ""
        if problem:
            raise NotProven(backup=manifest.id, why=problem)
    return {"files": len(manifest.fingerprint.files) if manifest.fingerprint else 0}


def _platform(room: Room, manifest: Manifest) -> dict[str, int]:
    """Every object as it was written, the store whole, and the vault's data keys there."""
    import contextlib
    import sqlite3

    repository = room.holder(manifest)
    repository.check(manifest)
    own = [part for part in manifest.parts if not part.key.startswith("blobs/")]
    with room.workspace() as folder:
        copy = folder / "copy"
        repository.fetch(manifest, copy, own)
        count = 0
        if (copy / "homeport.db").is_file():
            with contextlib.closing(sqlite3.connect(copy / "homeport.db")) as database:
                if database.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                    raise NotProven(backup=manifest.id, why="The copy of the store is damaged.")
                count = sum(disks.tables(database).values())
        if not (copy / "vault.json").is_file():
            raise NotProven(backup=manifest.id, why="The vault's data keys are not in it.")
    return {"objects": len(manifest.parts), "rows": count}


def sweep(room: Room) -> None:
    """Remove scratch instances that a crash left behind."""
    for record in list(records(room.home)):
        driver: object = room.drivers.get(record.kind)
        if record.id.project == SCRATCH_PROJECT and isinstance(driver, ServerDriver):
            switching.discard(driver, record.id)
