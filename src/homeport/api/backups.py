"""Routes about backups: taking, proving, restoring, forking, and where it all lies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import FastAPI, Query
from pydantic import AwareDatetime, Field, model_validator

from homeport.api.auth import Admin, Deployer, Reader
from homeport.api.backing import Targets, quiet
from homeport.backups.errors import BackupMissing
from homeport.backups.forgetting import Subject, gone
from homeport.backups.forks import Forked, fork
from homeport.backups.guard import DiskReport
from homeport.backups.keeper import Due, Keeper
from homeport.backups.kinds import COPIERS, copier_of
from homeport.backups.manifest import PLATFORM, Moment, Proof
from homeport.backups.restoring import Restored, choose_among
from homeport.backups.room import LOCAL, Policy
from homeport.deploys.control import ControlPlane
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.storage.base import Target
from homeport.model.base import Frozen, Name
from homeport.store.backups import BackupRow

PREFIX = "/api/v1/projects/{project}/environments/{environment}"


class BackupView(Frozen):
    """A backup as people and programs see it."""

    id: str
    kind: str
    project: str = ""
    environment: str = ""
    name: str
    taken_at: datetime
    size: int
    """Bytes on each target."""
    targets: tuple[str, ...]
    good: bool
    """Whether a restore of it was tried and compared well. It is not called good before."""
    proven_at: datetime | None = None
    proof: Proof | None = None
    ends: datetime | None = None
    """Of what is there no more: when it is removed."""


class TargetBody(Target):
    """Where backups go from now on."""

    @model_validator(mode="after")
    def _is_somewhere(self) -> TargetBody:
        """A relative folder would lie wherever the control plane was started."""
        if self.kind == "folder" and not PurePath(self.address).is_absolute():
            raise ValueError("the address of a folder is an absolute path")
        return self


class BackupBody(Frozen):
    """What to back up; empty fields mean all."""

    project: Name | None = None
    environment: Name | None = None
    name: str = Field(default="", max_length=63)
    """An add-on, `disks` or `platform`."""


class DataRestoreBody(Frozen):
    """What to go back to: a time, a backup, or (neither) the latest there is."""

    addon: str = Field(default="", max_length=63)
    """An add-on or `disks`; empty: every add-on that can go back to any moment (PostgreSQL)."""
    to: AwareDatetime | None = None
    backup: str = Field(default="", max_length=64)


class ForkBody(Frozen):
    name: Name
    """The new environment."""
    at: AwareDatetime | None = None
    """Moment to fork; empty: now."""
    masked: bool = True
    """Apply the rules of `mask:`."""
    workers: bool = False
    """Run its workers as well."""
    crons: bool = False
    """Run its scheduled jobs as well."""


class PolicyBody(Frozen):
    """What to change of the policy; what is left out stays."""

    every_seconds: int | None = Field(default=None, ge=60, le=366 * 86_400)
    prove_every_seconds: int | None = Field(default=None, ge=60, le=366 * 86_400)
    keep_last: int | None = Field(default=None, ge=1, le=1000)
    keep_daily: int | None = Field(default=None, ge=0, le=3650)
    keep_weekly: int | None = Field(default=None, ge=0, le=520)
    keep_gone_seconds: int | None = Field(default=None, ge=0, le=10 * 366 * 86_400)
    budget: int | None = Field(default=None, ge=0)
    reserve: int | None = Field(default=None, ge=0)
    recipients: tuple[Annotated[str, Field(max_length=200)], ...] | None = Field(default=None, max_length=16)
    rpo_seconds: float | None = Field(default=None, ge=1, le=60)
    """Most that a PostgreSQL add-on may lose with the machine. Below a minute its log is streamed."""
    rpo_for: str = Field(default="", max_length=200, pattern=r"^([^/]+(/[^/]+){0,2})?$")
    """What `rpo_seconds` is of: `project`, `project/environment` or `project/environment/add-on`; empty: all without one of their own."""


class TargetView(Frozen):
    """A target without its credentials."""

    name: str
    kind: str
    address: str
    added: bool
    """False for the folder of the home that is used until a target is added."""


def add_routes(app: FastAPI, control: ControlPlane, keeper: Keeper) -> None:
    """Everything about backups."""
    _backups(app, keeper)
    _settings(app, control, keeper)
    _restores(app, control, keeper)


def _backups(app: FastAPI, keeper: Keeper) -> None:
    @app.get("/api/v1/backups", tags=["backups"])
    def backups(
        _key: Reader, project: str = "", environment: str = "", name: str = "", limit: Annotated[int, Query(ge=1, le=10_000)] = 200
    ) -> list[BackupView]:
        """Backups, newest first."""
        ends = gone(keeper.room)
        return [view(row, ends) for row in keeper.room.store.backups.list(project, environment, name, limit=limit)]

    @app.post("/api/v1/backups", tags=["backups"], status_code=201)
    def back_up(body: BackupBody, _key: Deployer) -> list[BackupView]:
        """Back up now. It answers when every target has everything; what runs is not disturbed."""
        made = keeper.now(body.project or "", body.environment or "", body.name)
        rows = [keeper.room.store.backups.get(manifest.id) for manifest in made]
        return [view(row) for row in rows if row is not None]

    @app.post("/api/v1/backups/{id}/verify", tags=["backups"])
    def verify(id: str, _key: Deployer) -> Proof:
        """Restore a backup into a scratch instance, compare, and throw it away."""
        return keeper.verify(id)

    @app.get("/api/v1/backup-schedule", tags=["backups"])
    def schedule(_key: Reader) -> list[Due]:
        """What is backed up, when it was last and when it is next; then what is gone, and when its backups end."""
        return [*keeper.schedule(), *keeper.gone()]

    @app.get("/api/v1/disk", tags=["backups"])
    def disk(_key: Reader) -> DiskReport:
        """The disk: free bytes, each project's share, and when it will be full."""
        return keeper.disk()


def _settings(app: FastAPI, control: ControlPlane, keeper: Keeper) -> None:
    known = Targets(control)

    @app.get("/api/v1/backup-policy", tags=["backups"])
    def policy(_key: Reader) -> Policy:
        """What is backed up when, and kept how long."""
        return keeper.room.policy

    @app.post("/api/v1/backup-policy", tags=["backups"])
    def set_policy(body: PolicyBody, _key: Admin) -> Policy:
        """Change the policy."""
        given: dict[str, Any] = body.model_dump(exclude_none=True)
        for name in ("every", "prove_every", "keep_gone"):
            if (seconds := given.pop(f"{name}_seconds", None)) is not None:
                given[name] = timedelta(seconds=seconds)
        where, seconds = given.pop("rpo_for", ""), given.pop("rpo_seconds", None)
        if seconds is not None:
            given |= {"rpo_for": {**keeper.room.policy.rpo_for, where: seconds}} if where else {"rpo": seconds}
        return keeper.set_policy(Policy.model_validate({**keeper.room.policy.model_dump(), **given}))

    @app.get("/api/v1/backup-targets", tags=["backups"])
    def targets(_key: Reader) -> list[TargetView]:
        """Where backups go."""
        added = {target.name for target in known.list()}
        return [TargetView(name=t.name, kind=t.kind, address=t.address, added=t.name in added) for t in keeper.room.targets()]

    @app.post("/api/v1/backup-targets", tags=["backups"], status_code=201)
    def put_target(body: TargetBody, key: Admin) -> TargetView:
        """Add a target, or replace the one of that name. It is asked first whether it answers."""
        target = Target.model_validate(body.model_dump())
        keeper.try_target(target)
        known.put(target)
        keeper.added(target)
        keeper.room.wiring.tell("backup.target", f"Backups go to {body.name} from now on.", actor=key.name)
        return TargetView(name=body.name, kind=body.kind, address=body.address, added=True)

    @app.delete("/api/v1/backup-targets/{name}", tags=["backups"])
    def remove_target(name: str, key: Admin) -> list[TargetView]:
        """Stop using a target; what lies on it stays."""
        if not known.remove(name):
            own = ", or it is the folder of the home that is used until one is added" if name == LOCAL else ""
            why = f"There is no target {name!r}{own}."
            raise BackupMissing(why, "`homeport backup targets` lists them.", what="No target was removed.")
        keeper.room.wiring.tell("backup.target", f"Backups go to {name} no longer.", actor=key.name)
        return targets(key)


def _restores(app: FastAPI, control: ControlPlane, keeper: Keeper) -> None:
    @app.post(PREFIX + "/restore", tags=["backups"])
    def restore(project: str, environment: str, body: DataRestoreBody, key: Admin) -> list[Restored]:
        """Bring data back: beside what runs, proven, then in its place. The former data is kept 7 days."""
        app.state.views.row(project, environment)
        moment = Moment(at=body.to.astimezone(UTC) if body.to else None, backup=body.backup)
        if body.backup:
            manifest = keeper.room.find(body.backup)
            if manifest.kind == PLATFORM:
                why = f"{manifest.id} is a copy of the platform itself."
                raise BackupMissing(why, "It comes back with everything else, on an empty machine: `homeport recover`.")
            name = manifest.name
        else:
            name = body.addon
        if name == "disks":
            return [_restore_disks(project, environment, moment, key.name)]
        names = [name] if name else databases(keeper, project, environment)
        ids = [AddOnId(project=project, environment=environment, name=addon) for addon in names]
        with keeper.restoring(project, environment) as progress:
            return [keeper.restore(id, moment, progress, actor=key.name) for id in ids]

    def _restore_disks(project: str, environment: str, moment: Moment, actor: str) -> Restored:
        if moment.backup:
            manifest = keeper.room.find(moment.backup)
            if (manifest.project, manifest.environment) != (project, environment):
                raise BackupMissing(f"The backup {manifest.id} is of {manifest.project}/{manifest.environment}.")
        else:
            manifest = choose_among(keeper.room.manifests(project, environment, "disks"), moment.at, "The disks")
        with keeper.restoring(project, environment) as progress, quiet(control, progress):
            return keeper.restore_disks(manifest, progress, actor=actor)

    @app.post(PREFIX + "/fork", tags=["backups"], status_code=202)
    def fork_environment(project: str, environment: str, body: ForkBody, key: Admin) -> Forked:
        """A new environment with the data, release, configuration and secrets of a moment. Follow its deploy with its events."""
        app.state.views.row(project, environment)
        moment = Moment(at=body.at.astimezone(UTC) if body.at else None)
        control.platform.secrets.audit.write(key.caller, "fork", f"{project}/{environment} as {body.name}")
        return fork(
            keeper.room, project, environment, body.name, moment, actor=key.name, masked=body.masked, workers=body.workers, crons=body.crons
        )  # fmt: skip


def databases(keeper: Keeper, project: str, environment: str) -> list[str]:
    """Add-ons of an environment that can go back to any moment. Raises BackupMissing when there is none."""
    rows = keeper.room.store.ledger.list("addon", f"{project}/{environment}")
    found = [str(row.value["addon"]) for row in rows if (kind := str(row.value.get("engine"))) in COPIERS and copier_of(kind).any_moment]
    if not found:
        why = f"{environment} of {project} has no add-on that can go back to any moment (PostgreSQL)."
        raise BackupMissing(why, "Name what to bring back with `--addon`, or a backup.")
    return found


def view(row: BackupRow, ends: Mapping[str, datetime] | None = None) -> BackupView:
    return BackupView(
        id=row.id,
        kind=row.kind,
        project=row.project,
        environment=row.environment,
        name=row.name,
        taken_at=row.taken_at,
        size=row.size,
        targets=tuple(row.targets),
        good=row.proven_at is not None,
        proven_at=row.proven_at,
        proof=Proof.model_validate(row.proof) if row.proof else None,
        ends=(ends or {}).get(Subject(kind=row.kind, project=row.project, environment=row.environment, name=row.name).key),
    )
