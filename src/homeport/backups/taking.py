"""Taking backups: copy, look at what was copied, pack, upload everywhere, and only then write it down as there."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from homeport.backups import disks, snapshot
from homeport.backups.kinds import copier_of
from homeport.backups.manifest import Manifest, Part
from homeport.backups.room import Room, new_id
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.errors import BackupFailed
from homeport.drivers.addons.servers import folder_size
from homeport.drivers.files import remove_tree, write_atomic
from homeport.drivers.storage.base import StorageFailed
from homeport.drivers.storage.parcels import pack_tree
from homeport.drivers.vault.keys import fingerprint

log = logging.getLogger("homeport.backups")

TRIED = "tried"
STAGED_FOR = timedelta(days=7)
"""How long a copy waits on the machine for a target to come back, when no target has it."""
PACKERS = 2
"""Portions packed side by side: one computes while another waits for the disk."""
PART = 128 << 20
"""Bytes of files that go into one object: what is sent again when a transfer breaks off."""


def take_addon(room: Room, id: AddOnId) -> Manifest:
    """Copy one add-on to every target. It serves on. Raises BackupFailed, BackupMissing, NoRoom, StorageFailed."""
    driver = room.driver_of(id)
    copier = copier_of(driver.kind)
    with room.busy, room.workspace() as folder:
        size, what = driver.inspect(id).size, f"No backup of {id.name} was begun; it runs on unchanged."
        room.require(2 * size, what)
        _afford(room, id.project, what)
        try:
            taken = copier.take(room, id, folder)
        except copier.errors as error:
            raise BackupFailed(slug=id.slug, why=f"It could not be read to the end: {error}.") from error
        manifest = Manifest(
            id=taken.ref.id, kind=driver.kind, project=id.project, environment=id.environment, name=id.name, taken_at=taken.ref.taken_at,
            home=str(room.home), ref=taken.ref, fingerprint=taken.fingerprint, era=taken.era, point=taken.point,
        )  # fmt: skip
        return _send(room, manifest, folder / manifest.id)


def take_disks(room: Room, project: str, environment: str) -> Manifest | None:
    """Copy the disks of an environment; None when it has none. Raises NoRoom, StorageFailed, BackupFailed."""
    volumes = [room.home / "volumes" / row.key for row in room.store.ledger.list("volume", f"{project}/{environment}")]
    volumes = [folder for folder in volumes if folder.is_dir()]
    if not volumes:
        return None
    with room.busy, room.workspace() as folder:
        what = f"No backup of the disks of {environment} was begun."
        room.require(2 * sum(folder_size(volume) for volume in volumes), what)
        _afford(room, project, what)
        began = datetime.now(UTC)
        try:
            print_ = disks.copy(volumes, folder / "copy")
        except OSError as error:
            raise BackupFailed(slug=f"{project}/{environment}", why=f"{error.filename}: {error.strerror}.") from error
        manifest = Manifest(
            id=new_id(), kind="disks", project=project, environment=environment, name="disks", taken_at=began, home=str(room.home),
            fingerprint=print_,
        )  # fmt: skip
        return _send(room, manifest, folder / "copy")


def _afford(room: Room, project: str, what: str) -> None:
    """A copy that stays on this machine is data of its project; one that goes elsewhere is not. Raises BudgetSpent."""
    if any(target.kind == "folder" and Path(target.address).is_relative_to(room.home) for target in room.targets()):
        room.afford(project, what)


def take_platform(room: Room) -> Manifest:
    """Copy the platform itself: store, vault, and what the live releases run from. Raises NoRoom, StorageFailed, BackupFailed."""
    with room.busy, room.workspace() as folder:
        room.require(64 << 20, "No backup of the platform was begun.")
        began = datetime.now(UTC)
        copy = folder / "copy"
        shared = snapshot.take(room.home, room.store, copy)
        detail = {"audit": snapshot.anchor(copy)}
        manifest = Manifest(id=new_id(), kind="platform", name="platform", taken_at=began, home=str(room.home), detail=detail)
        blobs = [_blob(room, kind, name, folder) for kind, name in shared]
        _publish(room)
        return _send(room, manifest.model_copy(update={"parts": tuple(blobs)}), copy, folder)


def published(room: Room) -> bool:
    """Whether the targets were given the backup key under the vault key in use; one that was away gets it with the next copy."""
    keys = room.wiring.vault_keys()
    return not keys or _known_keys(room).get(TRIED) == f"{fingerprint(keys[0])} {room.key.public}"


def _known_keys(room: Room) -> dict[str, str]:
    try:
        return dict(json.loads((room.folder / "published.json").read_bytes()))
    except (FileNotFoundError, ValueError):
        return {}


def _publish(room: Room) -> None:
    """Have every target hold the backup key, wrapped by the vault key in use. Wrapping takes a second, so it is done on change only."""
    keys = room.wiring.vault_keys()
    if not keys:
        return
    known, now = _known_keys(room), f"{fingerprint(keys[0])} {room.key.public}"
    for target, repository in zip(room.targets(), room.repositories(), strict=True):
        place = f"{target.name} {target.address}"
        try:
            if known.get(place) != now or not repository.holds_key():
                repository.publish_key(keys[0])
                known[place] = now
        except StorageFailed as error:  # it will refuse the copy as well, which then waits
            log.warning("%s", error.why)
    known[TRIED] = now
    write_atomic(room.folder / "published.json", json.dumps(known).encode(), 0o600)


def _blob(room: Room, kind: str, name: str, folder: Path) -> Part:
    """A shared object: the one every target has already, or a new one in `folder`."""
    key = f"blobs/{kind}/{name}.parcel"
    for old in room.manifests(kind="platform")[:3]:
        known = next((part for part in old.parts if part.key == key), None)
        if known is not None and all(repository.has(known) for repository in room.repositories()):
            return known
    source = room.home / kind / name
    names = [name, *(f"{name}/{inner}" for inner in tree(source))] if source.is_dir() else [name]
    packed = pack_tree(source.parent, names, folder / f"{name}.parcel", room.key)
    return Part(key=key, size=packed.size, sha256=packed.sha256)


def _send(room: Room, manifest: Manifest, copy: Path, blobs: Path | None = None) -> Manifest:
    """Pack a folder, put it where an interrupted upload can go on, upload it everywhere, and index it."""
    staging = room.made("staging") / manifest.id
    staging.mkdir(mode=0o700, exist_ok=True)
    parts = list(manifest.parts)
    for part in parts:
        name = part.key.rsplit("/", 1)[1]
        if blobs is not None and (blobs / name).exists():
            (blobs / name).rename(staging / name)
    cut, key = portions(copy), room.key
    plain = sum(os.lstat(copy / name).st_size for names in cut for name in names)

    def pack(portion: tuple[int, list[str]]) -> Part:
        number, names = portion
        packed = pack_tree(copy, names, staging / f"{number:04}.parcel", key)
        return Part(key=f"backups/{manifest.id}/{number:04}.parcel", size=packed.size, sha256=packed.sha256)

    with ThreadPoolExecutor(PACKERS, thread_name_prefix="pack") as pool:
        parts += pool.map(pack, enumerate(cut))
    manifest = manifest.model_copy(update={"parts": tuple(parts), "plain": plain})
    write_atomic(staging / "manifest.json", manifest.model_dump_json(exclude_defaults=True).encode(), 0o600)
    remove_tree(copy)
    upload(room, staging)
    return manifest


def upload(room: Room, staging: Path) -> Manifest:
    """Bring a packed backup to every target. What is there already is not sent again. Raises StorageFailed when one refuses it."""
    manifest = Manifest.model_validate_json((staging / "manifest.json").read_bytes())
    row = room.store.backups.get(manifest.id)
    done = list(row.targets) if row else []
    failure: StorageFailed | None = None
    for repository in room.repositories():
        if repository.name in done:
            continue
        try:
            repository.store(manifest, staging)
            done.append(repository.name)
        except StorageFailed as error:
            failure = error
    if done:
        room.index(manifest, done)
    if failure is not None:
        raise failure
    remove_tree(staging)
    return manifest


def resume(room: Room) -> list[str]:
    """Go on with uploads that were interrupted; ids of those that are complete now. What was not packed to its end is thrown away."""
    finished = []
    for staging in sorted(room.made("staging").iterdir()):
        with room.busy:
            if not (staging / "manifest.json").is_file():
                remove_tree(staging)
                continue
            manifest = Manifest.model_validate_json((staging / "manifest.json").read_bytes())
            if room.store.backups.get(manifest.id) is None and datetime.now(UTC) - manifest.taken_at > STAGED_FOR:
                remove_tree(staging)
                continue
            try:
                finished.append(upload(room, staging).id)
            except StorageFailed as error:
                log.warning("backup %s: %s", staging.name, error.why)
    return finished


def tree(root: Path) -> list[str]:
    """Every file, folder and link below a folder, folders before what they hold; sockets and pipes left out."""
    found = []
    for here, folders, names in os.walk(root):
        base = os.path.relpath(here, root)
        prefix = "" if base == "." else f"{base}/"
        folders.sort()
        found += [prefix + name for name in folders]
        found += [prefix + name for name in sorted(names) if os.path.islink(f"{here}/{name}") or os.path.isfile(f"{here}/{name}")]  # noqa: PTH113, PTH114
    return found


def portions(root: Path) -> Sequence[list[str]]:
    """The tree cut into portions of about `PART` bytes, each unpacked on its own. Folders come in the first."""
    names = tree(root)
    folders = [name for name in names if (root / name).is_dir() and not (root / name).is_symlink()]
    known = set(folders)
    found, size = [folders], 0
    for name in names:
        if name in known:
            continue
        length = os.lstat(root / name).st_size
        if size and size + length > PART:
            found.append([])
            size = 0
        found[-1].append(name)
        size += length
    return found
