"""Forks: a new environment with the data, the release, the configuration and the secrets that an environment had at a moment."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from homeport.backups.errors import BackupMissing, ForkRefused, stamp
from homeport.backups.kinds import COPIERS, copier_of
from homeport.backups.manifest import Manifest, Moment
from homeport.backups.masking import mask, problems
from homeport.backups.restoring import choose_among, look, materialise, reach, restore_disks
from homeport.backups.room import Room
from homeport.backups.taking import take_addon
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.keeping import ServerDriver
from homeport.drivers.addons.records import records
from homeport.drivers.files import give, remove_tree
from homeport.model.addon import External
from homeport.model.base import Frozen
from homeport.model.release import DeployStatus, PinnedSecret, Release

log = logging.getLogger("homeport.backups")


class Forked(Frozen):
    """What a fork is made of."""

    project: str
    environment: str
    source: str
    release: str
    """Release of the source that it repeats."""
    at: datetime
    addons: dict[str, str] = {}
    """By add-on the backup it began from."""
    masked: dict[str, int] = {}
    """Rows changed by rule."""
    seconds: float = 0.0
    """Until the data was there; the deploy follows."""
    deploy: str = ""
    notes: tuple[str, ...] = ()


def release_at(room: Room, project: str, environment: str, at: datetime) -> Release:
    """The release that served at a moment. Raises ForkRefused."""
    lived = [
        row
        for row in room.store.deploys.recent(project, environment, limit=10_000)
        if row.status == DeployStatus.LIVE.value and row.number is not None and row.finished_at is not None and row.finished_at <= at
    ]
    for row in sorted(lived, key=lambda row: row.finished_at or at, reverse=True):
        known = room.store.releases.get(project, environment, row.number or 0)
        if known is not None:
            return known.release
    why = f"No release of {project} was live in {environment} at {stamp(at)}, or it is kept no longer."
    raise ForkRefused(why=why, fix="Choose a later time: `homeport releases`.")


def fork(room: Room, project: str, source: str, name: str, moment: Moment, *, actor: str, masked: bool = True) -> Forked:
    """Make environment `name` of what `source` was. When anything fails, nothing of it is left and the source was not touched.

    Raises ForkRefused, TimeUnreachable, BackupMissing, and what a restore raises.
    """
    began = time.monotonic()
    if room.store.environments.get(project, name) is not None:
        raise ForkRefused(why=f"{project} has an environment {name} already.", fix="Choose another name, or destroy that one first.")
    at = moment.at or datetime.now(UTC)
    origin = release_at(room, project, source, at)
    rules = origin.spec.mask if masked else {}
    if wrong := problems(rules):
        raise ForkRefused(why=f"A masking rule cannot be read: {wrong[0]}.", fix="Correct `mask:` in homeport.yaml and deploy it.")
    with room.busy:
        chosen = _chosen(room, origin, moment.at)
        made: list[AddOnId] = []
        try:
            for addon, manifest in chosen.items():
                into = AddOnId(project=project, environment=name, name=addon)
                made.append(into)
                materialise(room, manifest, Moment(at=moment.at), into)
                look(room, manifest, into, compare=False)
                room.store.ledger.claim("addon", into.slug, f"{project}/{name}", addon=addon, engine=manifest.kind)
            changed = mask([room.postgres.cluster(into) for into in made if chosen[into.name].kind == "postgres"], rules)
            notes = [*_copies(chosen), *_disks(room, origin, name, at)]
            number = _record(room, origin, name, actor)
        except BaseException:
            _undo(room, project, name, made)
            raise
    seconds = round(time.monotonic() - began, 3)
    deploy = room.wiring.go_live(project, name, number, actor)
    text = f"{project}/{name} was forked from {source} as of {stamp(at)} in {seconds:.1f} s."
    room.wiring.tell("environment.forked", text, project, name, actor=actor, source=source, release=origin.id)
    return Forked(
        project=project,
        environment=name,
        source=source,
        release=origin.id,
        at=at,
        addons={addon: manifest.id for addon, manifest in chosen.items()},
        masked=changed,
        seconds=seconds,
        deploy=deploy,
        notes=tuple(notes),
    )


def _chosen(room: Room, origin: Release, at: datetime | None) -> dict[str, Manifest]:
    """The backup each add-on begins from; without a time one that can carry it to this moment."""
    found = {}
    for addon, definition in origin.spec.addons.items():
        if isinstance(definition, External) or definition.kind not in COPIERS or definition.kind not in room.drivers:
            continue
        id = AddOnId(project=origin.project, environment=origin.environment, name=addon)
        if not copier_of(definition.kind).here(room, id):
            continue
        manifests = room.manifests(id.project, id.environment, id.name)
        if at is None and not (manifests and copier_of(definition.kind).any_moment):
            found[addon] = take_addon(room, id)
            continue
        reach(room, id)
        found[addon] = choose_among(manifests, at, f"The add-on {addon} of {id.environment}")
    return found


def _copies(chosen: dict[str, Manifest]) -> list[str]:
    """What does not hold exactly the moment that was asked for."""
    found = []
    for addon, manifest in chosen.items():
        if not copier_of(manifest.kind).any_moment:
            found.append(f"{addon} holds its copy of {stamp(manifest.taken_at)}: its engine keeps no log of changes")
    return found


def _disks(room: Room, origin: Release, name: str, at: datetime) -> list[str]:
    """Disks of the newest copy that was complete at the moment."""
    volumes = [row.key for row in room.store.ledger.list("volume", f"{origin.project}/{origin.environment}")]
    if not volumes:
        return []
    try:
        manifest = choose_among(room.manifests(origin.project, origin.environment, "disks"), at, "The disks")
    except BackupMissing:
        return ["its disks are empty: there is no copy of them yet"]
    start = f"{origin.project}-{origin.environment}-"
    names = {volume: f"{origin.project}-{name}-{volume.removeprefix(start)}" for volume in volumes}
    restore_disks(room, manifest, names)
    account = room.wiring.account(origin.project, name)
    for target in names.values():
        folder = room.home / "volumes" / target
        if folder.is_dir():
            if account is not None:
                give(folder, account)
            room.store.ledger.claim("volume", target, f"{origin.project}/{name}")
    return [f"its disks are those of {stamp(manifest.taken_at)}"]


def _record(room: Room, origin: Release, name: str, actor: str) -> int:
    """Copy configuration and secrets, and record the release for the new environment; its number."""
    room.store.environments.ensure(origin.project, name)
    pins: dict[tuple[str, int], PinnedSecret] = {}
    for pinned in origin.secrets.values():
        for pin in pinned.values():
            if (pin.name, pin.version) not in pins:
                value = room.wiring.reveal(origin.project, origin.environment, pin.name, pin.version)
                version = room.wiring.keep(origin.project, name, pin.name, value, actor)
                pins[pin.name, pin.version] = PinnedSecret(name=pin.name, version=version)
    secrets = {s: {variable: pins[pin.name, pin.version] for variable, pin in pinned.items()} for s, pinned in origin.secrets.items()}
    number = room.store.releases.reserve(origin.project, name)
    changed = {"id": f"r{number}", "environment": name, "number": number, "secrets": secrets, "created_by": actor}
    room.store.releases.record(origin.model_copy(update={**changed, "created_at": datetime.now(UTC)}))
    return number


def _undo(room: Room, project: str, name: str, made: list[AddOnId]) -> None:
    there = {record.id: record.kind for record in records(room.home)}
    for id in made:
        driver: object = room.drivers.get(there.get(id, ""))
        if isinstance(driver, ServerDriver):
            switching.discard(driver, id)
        room.store.ledger.release("addon", id.slug)
    for volume in room.store.ledger.list("volume", f"{project}/{name}"):
        remove_tree(room.home / "volumes" / volume.key)
        room.store.ledger.release("volume", volume.key)
    room.store.releases.remove(project, name)
    room.store.environments.remove(project, name)
