"""Bare metal: an empty machine becomes the home that a target holds backups of."""

from __future__ import annotations

import base64
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from homeport.backups import mirror
from homeport.backups.attempt import Attempt
from homeport.backups.errors import BackupMissing, MachineLost, RecoveryRefused, WalBroken, stamp
from homeport.backups.kinds import copier_of
from homeport.backups.manifest import Manifest, Moment
from homeport.backups.repository import Repository, found_key
from homeport.backups.restoring import look, materialise, restore_disks
from homeport.backups.room import Room
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import AddOnDriver, AddOnId
from homeport.drivers.files import remove_tree, write_atomic
from homeport.drivers.storage.base import ObjectMissing, Storage, StorageFailed, Target
from homeport.drivers.storage.parcels import ParcelDamaged, unpack_tree
from homeport.model.base import Frozen
from homeport.model.errors import HomeportError
from homeport.model.release import DeployResult, DeployStatus, Release
from homeport.store import Store, portable
from homeport.store.database import Database

log = logging.getLogger("homeport.backups")


class Recovered(Frozen):
    """What came back."""

    backup: str
    """The copy of the platform it began from."""
    taken_at: datetime
    """How far the store goes: what was set, released and written down before is there."""
    environments: tuple[str, ...] = ()
    addons: dict[str, str] = {}
    """By add-on, how far it goes: the time of its last transaction or copy."""
    disks: tuple[str, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


class Alone:
    """Wiring of a room without a control plane: add-ons get their passwords when one starts."""

    def __init__(self, vault_keys: Sequence[bytes]) -> None:
        self._keys = vault_keys

    def live_release(self, project: str, environment: str) -> Release | None:
        del project, environment
        return None

    def provision(self, release: Release) -> None:
        del release

    def account(self, project: str, environment: str) -> int | None:
        del project, environment
        return None

    def tell(self, kind: str, text: str, project: str = "", environment: str = "", **data: object) -> None:
        del project, environment, data
        log.info("%s: %s", kind, text)

    def reveal(self, project: str, environment: str, name: str, version: int) -> str:
        raise BackupMissing(f"{name}@{version} of {project}/{environment} is not read here.")

    def keep(self, project: str, environment: str, name: str, value: str, actor: str) -> int:
        del project, environment, name, value, actor
        return 0

    def go_live(self, project: str, environment: str, number: int, actor: str) -> str:
        del project, environment, number, actor
        return ""

    def released(self, project: str, environment: str) -> None:
        del project, environment

    def abandon(self, project: str, environment: str, why: str) -> None:
        log.warning("%s/%s: %s", project, environment, why)

    def forget(self, project: str, environment: str) -> None:
        del project, environment

    def vault_keys(self) -> Sequence[bytes]:
        return self._keys


def recover(
    home: Path,
    target: Target,
    open_storage: Callable[[Target], Storage],
    vault_keys: Sequence[bytes],
    drivers: Callable[[], Mapping[str, AddOnDriver]],
    open_store: Callable[[], Store],
    *,
    keep_key: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Recovered:
    """Bring everything back into an empty home; start its control plane afterwards. `keep_key`: the vault key goes into `vault.key`.

    A failure leaves the home empty again. Raises RecoveryRefused, BackupKeyWrong, BackupMissing, ParcelDamaged, StorageFailed.
    """
    began = time.monotonic()
    home.mkdir(parents=True, exist_ok=True, mode=0o755)
    attempt, scratch, notes = Attempt(home, drivers), home / "backups" / "scratch", list[str]()
    attempt.begin()
    try:
        storage = open_storage(target)
        repository = Repository(storage, found_key(storage, vault_keys, scratch), scratch)
        manifests = list(repository.manifests())
        platform = _platform(home, repository, manifests, notes, say)
        platform = _caught_up(home, repository, platform, say)
        write_atomic(home / "backups" / "key", f"{repository.key.identity}\n".encode(), 0o600)
        if keep_key:
            write_atomic(home / "vault.key", base64.b64encode(vault_keys[0]) + b"\n", 0o600)
        store = _opened(home, open_store, attempt)
        found = _data(home, target, open_storage, platform, manifests, repository, drivers(), store, vault_keys, say, notes)
    except BaseException as error:
        attempt.undo()
        if isinstance(error, StorageFailed):
            why = error.why.removeprefix(f"The target {error.target}: ")
            fix = "See that the target answers (a remote of rclone needs `--rclone-config`), and ask again."
            raise StorageFailed(target=error.target, why=why, what="Nothing was changed on this machine.", fix=fix) from error
        raise
    attempt.done()
    return found.model_copy(update={"seconds": round(time.monotonic() - began, 3)})


def _platform(home: Path, repository: Repository, manifests: Sequence[Manifest], notes: list[str], say: Callable[[str], None]) -> Manifest:
    """Put the newest copy of the platform back; an older one when that is damaged. The copy that is there now."""
    found = sorted((manifest for manifest in manifests if manifest.kind == "platform"), key=lambda one: one.taken_at, reverse=True)
    if not found:
        raise BackupMissing(
            "The target holds no backup of a platform.", "Name the target that `homeport backup now platform` went to.",
            what="Nothing was changed on this machine.",
        )  # fmt: skip
    if Path(found[0].home) != home:
        raise RecoveryRefused(
            why=f"Its releases were built in {found[0].home}, and hold paths of it; this home would be {home}.",
            fix=f"Set HOMEPORT_HOME so that the home lies where it was ({found[0].home}), as the same account.",
        )
    problem: HomeportError | None = None
    for platform in found:
        say(f"Bringing back the platform as of {stamp(platform.taken_at)}.")
        try:
            _put_back(home, repository, platform, notes)
        except (ParcelDamaged, ObjectMissing) as error:
            problem = problem or error
            notes.append(f"the copy {platform.id} of the platform was passed over: {error.why}")
            continue
        return platform
    raise problem or BackupMissing("The target holds no backup of a platform.")


def _put_back(home: Path, repository: Repository, platform: Manifest, notes: list[str]) -> None:
    """Store, vault and shared things, each where it was. A build that is damaged is noted: data does not wait for it."""
    own = [part for part in platform.parts if not part.key.startswith("blobs/")]
    copy = repository.scratch / "platform"
    remove_tree(copy)
    repository.fetch(platform, copy, own)
    for part in platform.parts:
        if part.key.startswith("blobs/"):
            folder = home / part.key.split("/")[1]
            folder.mkdir(exist_ok=True, mode=0o755)
            try:
                with repository.fetched(part, platform.id) as parcel:
                    unpack_tree(parcel.path, folder, repository.key, backup=platform.id)
            except ParcelDamaged as error:
                notes.append(f"{part.key.removeprefix('blobs/').removesuffix('.parcel')} of a build did not come back: {error.why}")
    for file in sorted(copy.rglob("*")):
        if file.is_file():
            place = home / file.relative_to(copy)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, place)
    remove_tree(copy)


def _caught_up(home: Path, repository: Repository, platform: Manifest, say: Callable[[str], None]) -> Manifest:
    """Replace the copy's store by the mirrored one when that is newer; the copy, with the store's time."""
    found = mirror.newest(repository)
    if found is None or found.at <= platform.taken_at or Path(found.home) != home:
        return platform
    say(f"Bringing the store up to {stamp(found.at)}.")
    mirror.put_back(found, home)
    return platform.model_copy(update={"taken_at": found.at})


def _data(
    home: Path, target: Target, open_storage: Callable[[Target], Storage], platform: Manifest, manifests: Sequence[Manifest],
    repository: Repository, drivers: Mapping[str, AddOnDriver], store: Store, vault_keys: Sequence[bytes], say: Callable[[str], None],
    notes: list[str],
) -> Recovered:  # fmt: skip
    """Add-ons to the end of their WAL, disks as of their newest copy. The store is closed afterwards."""
    addons: dict[str, str] = {}
    try:
        target = _known_as(store, target, notes)
        room = Room(home, store, drivers, Alone(vault_keys), open_storage, lambda: [target])
        for manifest in manifests:
            room.index(manifest, [target.name], repository.proof(manifest.id))
        for id in room.addons():
            say(f"Bringing back {id.name} of {id.project}/{id.environment}.")
            addons[id.slug] = _addon(room, id, notes)
        disks = _disks(room, notes, say)
        _settle(store, notes)
        rows = [f"{row.project}/{row.environment}" for row in store.environments.all()]
        store.events.add("home.recovered", f"The home was recovered from {target.name}, as of {stamp(platform.taken_at)}.")
    finally:
        store.close()
    return Recovered(
        backup=platform.id, taken_at=platform.taken_at, environments=tuple(rows), addons=addons, disks=tuple(disks), notes=tuple(notes),
    )  # fmt: skip


def _opened(home: Path, open_store: Callable[[], Store], attempt: Attempt) -> Store:
    """The store, filled from the copy when it is kept elsewhere than in the home's file. Raises RecoveryRefused, StoreUnavailable."""
    store = open_store()
    if store.database.sqlite:
        return store
    copy = Database(f"sqlite:///{home / 'homeport.db'}")
    try:
        if not attempt.filled and not portable.empty(store.database):
            why = "The database named by HOMEPORT_DATABASE_URL holds a store already."
            raise RecoveryRefused(why=why, fix="Name an empty database, or leave the variable out to keep the store in the home.")
        copy.migrate()
        attempt.fills()
        portable.bring(copy, store.database)
    except BaseException:
        store.close()
        raise
    finally:
        copy.close()
    for name in ("homeport.db", "homeport.db-wal", "homeport.db-shm"):
        (home / name).unlink(missing_ok=True)
    return store


def _settle(store: Store, notes: list[str]) -> None:
    """What the store knows and the machine does not have: deploys that were under way, and releases whose builds were not copied yet."""
    for row in store.deploys.open():
        lost = MachineLost()
        error = {"code": lost.code, "what": lost.what, "why": lost.why, "fix": lost.fix}
        result = DeployResult(
            project=row.project, environment=row.environment, release="", status="failed", seconds=0.0, deploy=row.id, error=error
        )
        store.deploys.finish(row.id, DeployStatus.FAILED, result.model_dump(mode="json"))
        notes.append(f"a deploy of {row.project}/{row.environment} was under way and is given up: deploy again")
    for env in store.environments.all():
        if env.live is None or _whole(store, env.project, env.environment, env.live):
            continue
        where = f"{env.project}/{env.environment}"
        if env.previous is not None and _whole(store, env.project, env.environment, env.previous):
            store.switch(env.project, env.environment, env.previous, retire_at=datetime.now(UTC), keep_warm=())
            notes.append(f"{where}: the build of r{env.live} had not been copied yet; r{env.previous} serves instead: deploy again")
        else:
            notes.append(f"{where}: the build of r{env.live} had not been copied yet: deploy again")


def _whole(store: Store, project: str, environment: str, number: int) -> bool:
    """Whether every build of a release is on this machine."""
    known = store.releases.get(project, environment, number)
    return known is not None and all(Path(artifact.folder).is_dir() for artifact in known.release.artifacts.values())


def _known_as(store: Store, target: Target, notes: list[str]) -> Target:
    """The target under the name that the recovered home has for it; a folder it did not know is added."""
    known = next((row for row in store.backups.targets() if (row.kind, row.address) == (target.kind, target.address)), None)
    if known is not None:
        return target.model_copy(update={"name": known.name})
    if target.kind == "folder":
        store.backups.put_target(target.name, target.kind, target.address, None)
    else:
        notes.append(f"new backups do not go to {target.address} yet: `homeport backup add-target {target.name} {target.address}`")
    return target


def _addon(room: Room, id: AddOnId, notes: list[str]) -> str:
    """Bring one back to the end of what there is; an older backup when the newest does not do."""
    found = room.manifests(id.project, id.environment, id.name)
    for manifest in found:
        broken = ""
        for moment in (Moment(), Moment(broken=True)):
            try:
                recovery = materialise(room, manifest, moment, id)
                look(room, manifest, id, compare=False)
            except HomeportError as error:
                switching.discard(room.server(manifest.kind), id)
                if isinstance(error, WalBroken | ParcelDamaged) and not broken and copier_of(manifest.kind).any_moment:
                    broken = error.why
                    continue
                notes.append(f"{id.slug}: the backup {manifest.id} was passed over: {error.why}")
                break
            if broken:
                notes.append(f"{id.slug}: its log is broken, and what was written after that is lost: {broken}")
            return stamp((recovery.latest or manifest.taken_at).astimezone(UTC))
    notes.append(f"{id.slug}: there is no backup that can be restored; it begins empty")
    return "empty"


def _disks(room: Room, notes: list[str], say: Callable[[str], None]) -> list[str]:
    done = []
    for owner in sorted({row.owner for row in room.store.ledger.list("volume")}):
        project, environment = owner.split("/")[:2]
        found = room.manifests(project, environment, "disks")
        if not found:
            notes.append(f"{owner}: its disks have no backup and begin empty")
            continue
        say(f"Bringing back the disks of {owner}.")
        names = {row.key: row.key for row in room.store.ledger.list("volume", owner)}
        for manifest in found:
            try:
                restore_disks(room, manifest, names)
            except HomeportError as error:
                notes.append(f"{owner}: the copy {manifest.id} of its disks was passed over: {error.why}")
                continue
            done.append(f"{owner} as of {stamp(manifest.taken_at)}")
            break
        else:
            notes.append(f"{owner}: no copy of its disks can be restored; they begin empty")
    return done
