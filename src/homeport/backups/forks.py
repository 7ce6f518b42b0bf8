"""Forks: a new environment with the data, the release, the configuration and the secrets that an environment had at a moment.

Its databases are closed (nobody but Homeport gets in) until they are masked, and what a crash interrupts before that is thrown away: see
`operations`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from homeport.backups import settling
from homeport.backups.errors import BackupMissing, ForkRefused, TimeUnreachable, stamp
from homeport.backups.kinds import COPIERS, copier_of
from homeport.backups.manifest import Manifest, Moment
from homeport.backups.masking import check, mask
from homeport.backups.operations import Progress, discard_addons, operating, undo_fork
from homeport.backups.restoring import choose_among, look, materialise, reach, restore_disks
from homeport.backups.room import Room
from homeport.backups.taking import take_addon
from homeport.backups.timing import phase, phases
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.files import give
from homeport.model.addon import External
from homeport.model.base import Frozen
from homeport.model.env import GeneratedValue
from homeport.model.release import DeployStatus, PinnedSecret, Release
from homeport.model.service import CronService, WorkerService
from homeport.model.spec import Spec

OUTWARD = re.compile(
    r"SMTP|MAIL|SENDGRID|POSTMARK|RESEND|TWILIO|SMS|STRIPE|PAYPAL|PADDLE|WEBHOOK|SLACK|DISCORD|TELEGRAM|PUSHER|SNS|HUBSPOT|SEGMENT"
)
"""Parts of names of variables that lead to people outside: mail, messages, money, hooks."""


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
    off: tuple[str, ...] = ()
    """Workers and scheduled jobs that it has and does not run: `homeport scale NAME=1` starts one."""
    outward: tuple[str, ...] = ()
    """Variables by whose names it may reach people outside with the source's own accounts."""
    seconds: float = 0.0
    """Until the data was there; the deploy follows."""
    phases: dict[str, float] = {}
    """Seconds by what was done."""
    deploy: str = ""
    notes: tuple[str, ...] = ()


class Seeded(Frozen):
    """What a new environment's databases began with."""

    source: str
    addons: dict[str, str] = {}
    masked: dict[str, int] = {}
    off: tuple[str, ...] = ()
    seconds: float = 0.0
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


def fork(
    room: Room, project: str, source: str, name: str, moment: Moment, *, actor: str, masked: bool = True, workers: bool = False,
    crons: bool = False,
) -> Forked:  # fmt: skip
    """Make environment `name` of what `source` was. When anything fails, nothing of it is left and the source was not touched.

    Workers and scheduled jobs are off unless asked for: they would do production's work a second time. Raises ForkRefused,
    EnvironmentBusy, TimeUnreachable, BackupMissing, and what a restore raises.
    """
    began = time.monotonic()
    if room.store.environments.get(project, name) is not None:
        raise ForkRefused(why=f"{project} has an environment {name} already.", fix="Choose another name, or destroy that one first.")
    at = moment.at or datetime.now(UTC)
    if at > datetime.now(UTC):
        raise TimeUnreachable(why=f"{stamp(at)} is in the future.", latest=datetime.now(UTC))
    origin = release_at(room, project, source, at)
    rules = origin.spec.mask if masked else {}
    check(rules)
    room.afford(project, "No fork was begun; what runs was not touched.")
    with (
        operating(room, "fork", project, name, ("forked-from", project, source), actor=actor, source=source) as progress,
        room.busy,
        phases() as took,
    ):
        with phase("reach"):
            chosen = _chosen(room, origin, moment.at)
        try:
            changed = _copies(room, chosen, name, moment, rules, progress)
            notes = [*_as_copied(chosen), *_disks(room, origin, name, at)]
            off = quieted(room, origin.spec, project, name, workers=workers, crons=crons)
            number = _record(room, origin, name, actor)
        except BaseException:
            discard_addons(room, progress.detail.get("addons", []))
            undo_fork(room, project, name)
            raise
        progress.note(number=number, addons=[])
        progress.reach("recorded")
        seconds = round(time.monotonic() - began, 3)
        deploy = room.wiring.go_live(project, name, number, actor)
    settling.begin(room)
    text = f"{project}/{name} was forked from {source} as of {stamp(at)} in {seconds:.1f} s."
    room.wiring.tell("environment.forked", text, project, name, actor=actor, source=source, release=origin.id)
    outward = outward_of(origin)
    return Forked(
        project=project, environment=name, source=source, release=origin.id, at=at, off=off, outward=outward, masked=changed,
        addons={addon: manifest.id for addon, manifest in chosen.items()}, seconds=seconds, phases=took, deploy=deploy,
        notes=(*notes, *_remarks(origin, name, source, chosen, rules, off, outward)),
    )  # fmt: skip


def seed(room: Room, release: Release, source: str, *, masked: bool = True, workers: bool = False, crons: bool = False) -> Seeded | None:
    """Give a new environment's databases the data another environment has now, masked by that one's rules; None when it has data.

    Twice is once: what an interrupted first time left is thrown away. Caches and disks begin empty, since no rule can mask them.

    Raises ForkRefused, BackupMissing, and what a restore raises.
    """
    began = time.monotonic()
    project, name = release.project, release.environment
    if room.store.ledger.list("addon", f"{project}/{name}"):
        return None
    origin = room.wiring.live_release(project, source)
    if origin is None:
        raise ForkRefused(why=f"Nothing of {project} is live in {source}.", fix="Name an environment that has data.")
    rules = origin.spec.mask if masked else {}
    check(rules)
    room.afford(project, "The environment was not made; what runs was not touched.")
    wanted = {n: a for n, a in origin.spec.addons.items() if a.kind == "postgres" and n in release.spec.addons}
    origin = origin.model_copy(update={"spec": origin.spec.model_copy(update={"addons": wanted})})
    with room.busy:
        for addon in wanted:
            discard_addons(room, [{"kind": "postgres", "project": project, "environment": name, "name": addon}])
        chosen = _chosen(room, origin, None)
        made: list[dict[str, str]] = []
        try:
            changed = _copies(room, chosen, name, Moment(), rules, None, made)
        except BaseException:
            discard_addons(room, made)
            settling.forget(room, project, name)
            for row in room.store.ledger.list("addon", f"{project}/{name}"):
                room.store.ledger.release("addon", row.key)
            raise
        off = quieted(room, release.spec, project, name, workers=workers, crons=crons)
    settling.begin(room)
    seconds = round(time.monotonic() - began, 3)
    text = f"The databases of {project}/{name} began with the data of {source} ({seconds:.1f} s)."
    room.wiring.tell("environment.seeded", text, project, name, source=source, masked=sum(changed.values()))
    return Seeded(
        source=source, addons={addon: manifest.id for addon, manifest in chosen.items()}, masked=changed, off=off, seconds=seconds,
        notes=tuple(_remarks(release, name, source, chosen, rules, off, ())),
    )  # fmt: skip


def quieted(room: Room, spec: Spec, project: str, name: str, *, workers: bool, crons: bool) -> tuple[str, ...]:
    """Have workers and scheduled jobs of an environment off until somebody starts them; which."""
    off = tuple(
        n for n, s in spec.services.items() if (isinstance(s, WorkerService) and not workers) or (isinstance(s, CronService) and not crons)
    )
    room.store.environments.ensure(project, name)
    room.store.environments.change(project, name, scale=dict.fromkeys(off, 0))
    return off


def outward_of(release: Release) -> tuple[str, ...]:
    """Variables of a release by whose names it may reach people outside, and its outside add-ons."""
    names = {key for service in release.spec.services.values() for key in service.env}
    names |= {key for group in release.spec.env_groups.values() for key in group.env}
    names |= {pin.name.rpartition("/")[2] for pinned in release.secrets.values() for pin in pinned.values()}
    outside = {name for name, addon in release.spec.addons.items() if isinstance(addon, External)}
    return tuple(sorted(name for name in names if OUTWARD.search(name.upper()))) + tuple(sorted(outside))


def _copies(
    room: Room, chosen: Mapping[str, Manifest], name: str, moment: Moment, rules: Mapping[str, str], progress: Progress | None,
    made: list[dict[str, str]] | None = None,
) -> dict[str, int]:  # fmt: skip
    """The add-ons of the new environment, closed until all of them are masked; rows changed by rule."""
    ids = []
    for addon, manifest in chosen.items():
        into = AddOnId(project=manifest.project, environment=name, name=addon)
        if progress is not None:
            progress.makes(into, manifest.kind)
        if made is not None:
            made.append({"kind": manifest.kind, **into.model_dump()})
        if manifest.kind == "postgres":
            settling.unsettled(room, into)
        materialise(room, manifest, Moment(at=moment.at), into, quick=True)
        ids.append(into)
        if progress is not None:
            progress.reach("copied")
        known = room.store.backups.get(manifest.id)
        if known is None or known.proven_at is None:
            with phase("look"):
                look(room, manifest, into, compare=False)
    with phase("mask"):
        changed = mask([room.postgres.cluster(into) for into in ids if chosen[into.name].kind == "postgres"], rules)
    if progress is not None:
        progress.reach("masked")
    for into in ids:
        room.store.ledger.claim("addon", into.slug, f"{into.project}/{name}", addon=into.name, engine=chosen[into.name].kind)
    return changed


def _chosen(room: Room, origin: Release, at: datetime | None) -> dict[str, Manifest]:
    """The backup each add-on begins from; without a time one that can carry it to this moment."""
    found = {}
    for addon, definition in origin.spec.addons.items():
        if isinstance(definition, External) or definition.kind not in COPIERS or definition.kind not in room.drivers:
            continue
        id = AddOnId(project=origin.project, environment=origin.environment, name=addon)
        copier = copier_of(definition.kind)
        if not copier.here(room, id):
            continue
        manifests = room.manifests(id.project, id.environment, id.name)
        # The newest backup of data that was brought back since leads to what it was before that.
        if at is None and not (manifests and copier.any_moment and copier.continues(room, manifests[0])):
            found[addon] = take_addon(room, id)
            continue
        reach(room, id)
        found[addon] = choose_among(manifests, at, f"The add-on {addon} of {id.environment}")
    return found


def _as_copied(chosen: Mapping[str, Manifest]) -> list[str]:
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
    account = room.wiring.account(origin.project, name)
    for target in names.values():
        room.store.ledger.claim("volume", target, f"{origin.project}/{name}")
    with phase("disks"):
        restore_disks(room, manifest, names)
    for target in names.values():
        folder = room.home / "volumes" / target
        if not folder.is_dir():
            room.store.ledger.release("volume", target)
        elif account is not None:
            give(folder, account)
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


def _remarks(
    release: Release, name: str, source: str, chosen: Mapping[str, Manifest], rules: Mapping[str, str], off: tuple[str, ...],
    outward: tuple[str, ...],
) -> list[str]:  # fmt: skip
    """What somebody has to know of the new environment, one sentence each."""
    found = []
    if off:
        start = " ".join(f"{one}=1" for one in off)
        found.append(f"off, so that {source}'s work is not done twice: {', '.join(off)}; `homeport scale {start} --env {name}` starts them")
    if chosen and not rules:
        found.append("nothing was masked: `mask:` in homeport.yaml has no rules, or they were left out")
    elif plain := [addon for addon, manifest in chosen.items() if manifest.kind != "postgres"]:
        found.append(f"copied as they are, since rules mask PostgreSQL only: {', '.join(plain)}")
    if outward:
        found.append(
            f"the same as {source}'s, and what is sent with them is real: {', '.join(outward)}; "
            f"`homeport env set KEY=... --env {name}` gives it others"
        )
    generated = sorted({key for s in release.spec.services.values() for key, value in s.env.items() if isinstance(value, GeneratedValue)})
    if generated and release.environment != name:
        found.append(f"generated values are {source}'s, so that what they signed or sealed can be read: {', '.join(generated)}")
    return found
