"""The control plane: everything of one home, wired together, started and stopped as one."""

from __future__ import annotations

import logging
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from homeport.blueprints.discover import read_project
from homeport.blueprints.extensions import with_made_extensions
from homeport.blueprints.source import FolderTree
from homeport.deploys import own_ports, tombstones
from homeport.deploys.config import preview
from homeport.deploys.cron import Cron
from homeport.deploys.envfiles import fold_env_files
from homeport.deploys.guard import guarded
from homeport.deploys.plan import instances_of, make_plan
from homeport.deploys.platform import Platform, needs_process
from homeport.deploys.provided import told_names
from homeport.deploys.references import referring, with_references
from homeport.deploys.request import DeployRequest
from homeport.deploys.retention import forget_logs
from homeport.deploys.seeds import notes as seed_notes
from homeport.deploys.seeds import with_seeds
from homeport.deploys.steps import Deploy
from homeport.deploys.supervisor import Supervisor
from homeport.deploys.watch import Watch
from homeport.deploys.workflow import deploy
from homeport.drivers.edge.access_log import AccessLog
from homeport.drivers.files import remove_tree
from homeport.durable import Durable, Faults
from homeport.model.base import slug
from homeport.model.errors import DiskFull, HomeportError, disk_full
from homeport.model.plan import Plan
from homeport.model.release import DeployResult, DeployStatus
from homeport.model.service import CronService
from homeport.store.database import no_room
from homeport.store.deploys import DeployRow
from homeport.store.operations import OF_ADDONS, TITLES

log = logging.getLogger("homeport")

MAX_INSTANCES = 64
ROOM_POLL = 1.0
"""Seconds between looks for room on a full disk; nothing tells when there is some."""


class ProjectNotFound(HomeportError):
    """There is no such project, environment or service."""

    code = "not-found"


class FolderUnusable(HomeportError):
    """The folder to deploy cannot be read."""

    code = "folder-unusable"


class ScaleInvalid(HomeportError):
    """A service cannot run that many times."""

    code = "scale-invalid"


class InternalError(HomeportError):
    """A fault of Homeport itself."""

    code = "internal-error"


class ControlPlane:
    """One per home. `start` resumes what a crash interrupted; `close` leaves applications and edge running."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        settings = platform.settings
        self.durable = Durable(settings.home, settings.database_url, Faults(settings.fault))
        self.durable.make_room = platform.reserve.spend
        self.durable.workflow("deploy", self._run_deploy)
        self.supervisor = Supervisor(platform)
        self.cron = Cron(platform)
        self.watch = Watch(platform, AccessLog(settings.home).counts, self._roll_back_by_itself)
        self.stopped = False
        """Whether `stop_everything` was asked for: nothing of the home runs any more."""

    def start(self) -> None:
        """Resume interrupted deploys, adopt what runs, start what should run."""
        self.platform.builder.end_strays()
        self.let_go()
        self.supervisor.rouse()
        self.durable.launch()
        for row in self.platform.store.deploys.open():
            if row.status == DeployStatus.RUNNING.value and not self.durable.known(row.id):
                self.durable.start("deploy", row.id, row.request)
        self.supervisor.start()
        self.cron.start()
        self.watch.start()
        for row in self.platform.store.deploys.open():
            self._dispatch(row.project, row.environment)

    def let_go(self) -> None:
        """End the operations that a crash interrupted, but for those that restore and fork, which have an end of their own."""
        for operation in self.platform.store.operations.all():
            if operation.kind == "destroy":  # it is gone through again; what is gone already is success
                self._destroy_environment(operation.project, operation.environment, str(operation.detail.get("actor", "")))
            elif operation.kind == "undo":
                tombstones.finish(self.platform, operation)
            elif operation.kind not in OF_ADDONS:  # those are whole at every step, and what they stopped is started with everything else
                continue
            self.platform.store.operations.end(operation.id)

    def close(self) -> None:
        """Stop the control plane. Interrupted deploys resume at the next start."""
        self.watch.stop()
        self.cron.stop()
        self.supervisor.stop()
        self.platform.store.close()

    # --- deploys ----------------------------------------------------------------------------------------------

    def request_deploy(self, *, actor: str, within: str = "", **wanted: Any) -> DeployRow:
        """Ask for a deploy or rollback; the newest waiting request of an environment wins. `within`: the operation that asks for it."""
        request = DeployRequest(id=_deploy_id(), actor=actor, **wanted)
        kind = "rollback" if request.release else "deploy"
        row, superseded = self.platform.store.deploys.queue(
            id=request.id,
            project=request.project,
            environment=request.environment,
            kind=kind,
            request=request.model_dump(mode="json"),
            actor=actor,
        )
        for id in superseded:
            self.platform.progress.of(id).write("failed", result={"status": "superseded", "deploy": id, "project": request.project})
        self._dispatch(request.project, request.environment)
        held = self.platform.store.operations.of(request.project, request.environment)
        if held is not None and held.id != within and not request.automatic:
            self.platform.progress.of(row.id).step("wait", f"Waiting: {TITLES[held.kind].lower()} of this environment is under way")
        return row

    def released(self, project: str, environment: str) -> None:
        """An operation has let go of an environment: what waited for it begins."""
        self._dispatch(project, environment)

    def _dispatch(self, project: str, environment: str) -> None:
        row = self.platform.store.deploys.begin_next(project, environment)
        if row is not None:
            self.durable.start("deploy", row.id, row.request)

    def _run_deploy(self, argument: dict[str, Any]) -> dict[str, Any]:
        request = DeployRequest.model_validate(argument)
        do = Deploy(self.platform, self.durable, request)
        try:
            result = deploy(do)
        except HomeportError as error:
            result = self._failed(do, error)
        except Exception as error:
            log.exception("deploy %s", request.id)
            result = self._failed(do, disk_full() if no_room(error) else _internal(error))
        if result.status == DeployStatus.LIVE.value:
            self.watch.wake()
        self.supervisor.wake()
        self._dispatch(request.project, request.environment)
        return result.model_dump(mode="json")

    def _failed(self, do: Deploy, error: HomeportError) -> DeployResult:
        """Write the end of a deploy down; on a full disk with the reserve, and without that as soon as there is room."""
        while True:
            try:
                return do.failed(error)
            except DiskFull:
                if not self.platform.reserve.spend():
                    log.warning("the disk is full: the end of deploy %s is written when there is room", do.request.id)
                    self.platform.gate.stand_still()
                    time.sleep(ROOM_POLL)

    def _roll_back_by_itself(self, row: DeployRow, number: int, reason: str) -> None:
        self.request_deploy(
            actor="homeport",
            project=row.project,
            environment=row.environment,
            release=number,
            reason=reason,
            automatic=True,
            confirmed=True,
        )

    def previous_release(self, project: str, environment: str) -> int:
        """The release a plain `rollback` goes to. Raises ProjectNotFound when there is none."""
        row = self.platform.store.environments.get(project, environment)
        if row is None or row.live is None:
            raise _missing(f"{project} has nothing live in {environment}.")
        rows = self.platform.store.releases.list(project, environment)
        good = [r.release.number for r in rows if r.live_at is not None and r.release.number < row.live]
        if not good:
            raise _missing(f"{project} has no release before r{row.live} in {environment}.")
        return row.previous if row.previous in good else good[0]

    def scale(self, project: str, environment: str, services: dict[str, int], *, actor: str) -> None:
        """Set how many instances run. Raises ProjectNotFound, ScaleInvalid."""
        row = self.platform.store.environments.get(project, environment)
        release = self.platform.live_release(project, environment)
        if row is None or release is None:
            raise _missing(f"{project} has nothing live in {environment}.")
        insisting = self.platform.own_ports.of(project, environment)
        for name, count in services.items():
            definition = release.spec.services.get(name)
            if isinstance(definition, CronService):
                if count not in (0, 1):
                    why = f"{name} is a scheduled job: 0 turns its schedule off, 1 on."
                    raise ScaleInvalid(what="Nothing was changed.", why=why, fix="`homeport cron run` runs it once.")
                continue
            if definition is None or not needs_process(definition):
                raise ScaleInvalid(
                    what="Nothing was changed.", why=f"{name!r} has no instances.", fix="See `homeport ps` for those that have."
                )
            if not 0 <= count <= MAX_INSTANCES:
                why = f"{count} is not from 0 to {MAX_INSTANCES}."
                raise ScaleInvalid(what="Nothing was changed.", why=why, fix="Choose another number.")
            if count > 1 and name in insisting:
                why = f"{name} listens on port {insisting[name]} whatever PORT says, so it runs once on this machine."
                raise ScaleInvalid(what="Nothing was changed.", why=why, fix="Let it listen on $PORT, deploy, and scale then.")
            if count > 1 and instances_of(name, definition, {name: count}) != count:
                why = f"{name} owns a disk, so it runs once."
                raise ScaleInvalid(what="Nothing was changed.", why=why, fix="Choose another number, or keep the data in an add-on.")
        self.platform.store.environments.change(project, environment, scale={**row.scale, **services})
        text = ", ".join(f"{name}={count}" for name, count in services.items())
        self.platform.event("scale", f"Scaled {text}.", release, actor=actor)
        changed = self.platform.store.environments.get(project, environment)
        if changed is not None:
            self.supervisor.scale(release, changed)

    # --- projects ---------------------------------------------------------------------------------------------

    def identify(self, folder: str, prefer: str = "") -> str:
        """The project's name as its files say it. Raises FolderUnusable, BlueprintInvalid."""
        path = Path(folder)
        if not path.is_absolute() or not path.is_dir():
            raise FolderUnusable(
                what="Nothing was changed.", why=f"{folder} is not a folder on this machine.", fix="Name the project's folder."
            )
        return read_project(FolderTree(path), prefer=prefer).spec.name or slug(path.name)

    def plan(self, folder: str, environment: str, prefer: str = "", profiles: tuple[str, ...] = ()) -> Plan:
        """What a deploy of a folder would do. Changes nothing. Raises FolderUnusable, BlueprintInvalid."""
        project = self.identify(folder, prefer)
        tree = FolderTree(Path(folder), name=project)
        reading = read_project(tree, environment=environment, prefer=prefer)
        read = reading.spec.model_copy(update={"name": project})
        spec = with_references(fold_env_files(read, tree), referring(self.platform.secrets, project, environment))
        spec = with_seeds(with_made_extensions(spec, tree), Path(folder), None)
        row = self.platform.store.environments.get(project, environment)
        live = self.platform.live_release(project, environment)
        plan = make_plan(
            spec,
            environment,
            live,
            capabilities=self.platform.runtime.capabilities,
            addon_problems=lambda name: self.platform.addons.problems(spec, name),
            addon_notes=lambda name: [*self.platform.addons.notes(spec, name, environment), *seed_notes(spec.addons[name], Path(folder))],
            scale=row.scale if row else {},
            profiles=frozenset(profiles),
        )
        told = told_names(spec, environment, reading.dialects, self.platform.settings.edge_port)
        running = [p.service for p in plan.services if p.action not in ("skip", "stop") and p.kind != "static"]
        insisting = self.platform.own_ports.notes(project, environment, running)
        plan = plan.model_copy(update={"provided": told, "warnings": (*plan.warnings, *insisting)})
        return guarded(plan, live, spec, preview(spec, running, self.platform.secrets, project, environment).by_service)

    def stop_everything(self) -> None:
        """End every instance and the edge; what is live stays recorded and comes back at the next start."""
        self.watch.stop()
        self.cron.stop()
        self.supervisor.stop()
        self.platform.gate.close()
        self.platform.builder.end_strays()
        for run in self.platform.store.crons.list(status="running", limit=1000):
            self.platform.runtime.stop(run.id)
        self.platform.edge.stop()
        observed = {seen.handle.id for seen in self.platform.runtime.observe()}
        rows = [row for row in self.platform.store.instances.list() if row.id in observed]
        threads_done = {row.id for row in rows}
        self._stop_all([row.id for row in rows] + [id for id in observed if id not in threads_done])
        deploying = {(row.project, row.environment) for row in self.platform.store.deploys.open()}
        for row in self.platform.store.instances.list():
            if row.role == "live":
                self.platform.store.instances.change(row.id, state="stopped")
            elif row.role != "candidate" or (row.project, row.environment) not in deploying:
                self.platform.store.instances.remove([row.id])
        self.platform.addons.stop_all()
        self.platform.event("home.down", "Everything this home runs was stopped.")
        self.stopped = True

    def _stop_all(self, ids: list[str]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(max_workers=16) as pool:
            list(pool.map(self.platform.runtime.stop, ids))

    def destroy(self, project: str, environment: str = "", *, actor: str) -> list[str]:
        """Remove a project (or one environment): processes, routes, releases. Data is tombstoned for 7 days. Returns what was.

        Raises ProjectNotFound, EnvironmentBusy.
        """
        rows = [r for r in self.platform.store.environments.all() if r.project == project and environment in ("", r.environment)]
        if not rows:
            raise _missing(f"There is no project {project!r}" + (f" with an environment {environment!r}." if environment else "."))
        claims = [("destroy", row.project, row.environment) for row in rows]
        began = self.platform.store.operations.begin(claims, what="Nothing was removed.", actor=actor)
        try:
            for row in rows:
                self._destroy_environment(row.project, row.environment, actor)
        finally:
            self.platform.store.operations.end(began[0].id)
            for row in rows:
                self.released(row.project, row.environment)
        with self.platform.edge_lock:
            self.platform.refresh_edge()
        return [f"{r.project}/{r.environment}" for r in rows]

    def _destroy_environment(self, project: str, environment: str, actor: str) -> None:
        store = self.platform.store
        for run in store.crons.list(project, environment, status="running"):
            self.platform.runtime.stop(run.id)
        self.platform.stop_instances(store.instances.list(project, environment))
        self.platform.addons.destroy(project, environment)  # also what a first deploy made that then failed
        self.durable.faults.reach("destroy", "half")
        for volume in store.ledger.list("volume", f"{project}/{environment}"):
            self._tombstone(volume.key)
        for kind in ("address", "relay", own_ports.KIND):
            for row in store.ledger.list(kind, f"{project}/{environment}"):
                store.ledger.release(kind, row.key)
        for key in [key for key in self.platform.holders if key.startswith(f"{project}/{environment}/")]:
            self.platform.held.pop(key, None)
            self.platform.holders.pop(key).stop()
        for old in store.releases.list(project, environment, limit=10_000):
            forget_logs(self.platform, old.release)
        for run in store.crons.list(project, environment, limit=10_000):
            remove_tree(self.platform.home / "instances" / run.id)
        store.deploys.remove(project, environment)
        store.releases.remove(project, environment)
        store.environments.remove(project, environment)
        text = f"{project}/{environment} was removed; its data is kept 7 days."
        self.platform.event("project.destroyed", text, (project, environment), actor=actor)

    def _tombstone(self, volume: str) -> None:
        folder = self.platform.home / "volumes" / volume
        if folder.exists():
            grave = self.platform.home / "tombstones" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{volume}"
            grave.parent.mkdir(mode=0o700, exist_ok=True)
            folder.rename(grave)
            self.platform.store.ledger.tombstone("volume", volume, folder=str(grave))
            self.platform.store.ledger.claim("tombstone", grave.name, volume, folder=str(grave))
        self.platform.store.ledger.release("volume", volume)


def _deploy_id() -> str:
    return f"d{datetime.now(UTC):%Y%m%d%H%M%S}{secrets.token_hex(4)}"


def _missing(why: str) -> ProjectNotFound:
    return ProjectNotFound(what="Nothing was changed.", why=why, fix="See what there is with `homeport status --all`.")


def _internal(error: Exception) -> InternalError:
    return InternalError(
        what="Nothing was switched; what served before still serves.",
        why=f"Homeport met a fault of its own: {type(error).__name__}.",
        fix=f"See the control plane's log; please report it with that text (pid {os.getpid()}).",
    )
