"""How each verb of a deploy is done. Every verb may run twice: after a crash, it will."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from homeport.deploys import plan as planning
from homeport.deploys.audit import ITSELF, Caller
from homeport.deploys.candidates import masker_for, start_candidates, wait_until_well
from homeport.deploys.commands import forget_command, run_once
from homeport.deploys.config import declared
from homeport.deploys.draft import Draft, build_secrets, draft_release, fitted, keep_warm
from homeport.deploys.holding import Holding
from homeport.deploys.masking import masked
from homeport.deploys.platform import Platform, active_services
from homeport.deploys.proof import Proof
from homeport.deploys.provided import build_variables
from homeport.deploys.request import DeployRequest
from homeport.deploys.routes import DRAIN
from homeport.deploys.sources import source_for
from homeport.drivers.builders.base import BuildLimits, BuildRequest
from homeport.drivers.edge.base import Target
from homeport.durable import Durable
from homeport.model.env import PlainValue
from homeport.model.errors import BlueprintInvalid, HomeportError
from homeport.model.release import Artifact, DeployResult, DeployStatus, ProbeResult, Release, Revision
from homeport.model.service import Hook

log = logging.getLogger("homeport.deploys")

WATCH = timedelta(seconds=60)
PREVIEW = re.compile(r"(pr|mr|preview)-.")
"""Names of environments that belong to a request to merge."""
UNDO_DRAIN = timedelta(seconds=10)
"""How long requests to a release that is taken back may still take."""


class NothingToRollBackTo(HomeportError):
    """The release a rollback names is not there."""

    code = "release-not-found"


class Deploy:
    """One deploy on its way. Made anew when the control plane restarts; the journal carries what was done."""

    def __init__(self, platform: Platform, durable: Durable, request: DeployRequest) -> None:
        self.platform, self.durable, self.request = platform, durable, request
        self.store = platform.store
        self.progress = platform.progress.of(request.id)
        self.started = time.monotonic()
        self.proof = Proof(platform, self.started)
        self.holding = Holding(platform)
        self.switched = self.started_here = False
        self.live_at = datetime.now(UTC)
        self.release: Release | None = None
        self.warnings: list[str] = []

    @property
    def is_rollback(self) -> bool:
        return bool(self.request.release)

    def _step(self, name: str, text: str, effect: Callable[[], Any]) -> Any:
        def attempt() -> Any:
            try:
                return effect()
            finally:
                self.platform.gate.stand_still()  # what `down` cut short is neither done nor failed

        if text:
            self.progress.step(name, text)
        return self.durable.step(name, attempt)

    # --- making a release -------------------------------------------------------------------------------------

    def fetch(self) -> tuple[Revision, Path]:
        """Take the source."""

        def effect() -> dict[str, Any]:
            revision, folder = source_for(self.request, self.platform.home).fetch(self.request.reference)
            return {"revision": revision.model_dump(mode="json"), "folder": str(folder)}

        done = self._step("fetch", "Taking the source", effect)
        return Revision.model_validate(done["revision"]), Path(done["folder"])

    def plan(self, source: tuple[Revision, Path]) -> Draft:
        """Read the blueprint and decide everything. Stops here when the machine or the user does not agree."""
        revision, folder = source

        def effect() -> dict[str, Any]:
            draft = draft_release(self.platform, self.request, revision, folder)
            planning.check(draft.plan, confirmed=self.request.confirmed)
            return draft.model_dump(mode="json", exclude_defaults=True)

        draft = Draft.model_validate(self._step("plan", "Reading the blueprint", effect))
        for warning in (*draft.warnings, *draft.plan.warnings):
            self._warn(warning)
        return draft

    def build(self, draft: Draft) -> dict[str, Artifact]:
        """Build every service that runs; equal inputs are not built twice."""

        def effect() -> dict[str, Any]:
            self.platform.afford(self.request.project)
            wanted = [p.service for p in draft.plan.services if p.action not in ("skip", "stop")]
            with ThreadPoolExecutor(max_workers=2, thread_name_prefix="build") as pool:
                built = list(pool.map(lambda name: self._build(draft, name), wanted))
            return {name: artifact.model_dump(mode="json") for name, artifact in zip(wanted, built, strict=True)}

        artifacts = {n: Artifact.model_validate(a) for n, a in self._step("build", "Building", effect).items()}
        for name, artifact in artifacts.items():
            for note in artifact.notes:
                self._warn(f"{name}: {note}")
        return artifacts

    def _build(self, draft: Draft, name: str) -> Artifact:
        service = draft.spec.services[name]
        env = {k: v.value for k, v in declared(draft.spec, service).items() if isinstance(v, PlainValue)}
        env |= {k: v.value for k, v in service.build.env.items() if isinstance(v, PlainValue)}
        secrets = build_secrets(self.platform.secrets, service, name, self.request.project, self.request.environment)
        env |= secrets
        told, about = build_variables(
            draft.spec, self.request.environment, name, draft.revision, draft.dialects.get(name, ""), self.platform.settings.edge_port
        )
        request = BuildRequest(
            project=self.request.project,
            environment=self.request.environment,
            service=name,
            definition=service,
            source=Path(draft.folder),
            source_digest=draft.revision.digest,
            env=env,
            provided=told,
            revision=about,
            user=self.platform.account(self.request.project, self.request.environment),
            limits=BuildLimits(time=self.platform.settings.build_time),
        )
        mask = masker_for(
            self.platform, self.request.project, self.request.environment, draft.secrets.get(name, {}).values(), *secrets.values()
        )
        try:
            artifact = self.platform.builder.build(request, lambda line: self.progress.output(name, mask(line)), lambda: False)
        except HomeportError as error:
            masked(error, mask)
            raise
        self.progress.write("built", service=name, cached=artifact.cached, seconds=artifact.seconds, runtime=artifact.runtime)
        return artifact

    def record(self, draft: Draft, artifacts: dict[str, Artifact]) -> Release:
        """Write the release down. Nothing in it changes from here on."""

        def effect() -> int:
            spec = fitted(draft.spec, artifacts)
            origin = self.request.folder or draft.revision.origin  # a work tree's folder, whatever remote it was cloned from
            self.store.environments.ensure(self.request.project, self.request.environment, origin=origin)
            number = self._number()
            self._audit_use(number, draft)
            self.store.releases.record(
                Release(
                    id=f"r{number}",
                    project=self.request.project,
                    environment=self.request.environment,
                    number=number,
                    revision=draft.revision,
                    spec=spec,
                    artifacts=artifacts,
                    secrets=draft.secrets,
                    profile=self.request.profiles,
                    created_at=datetime.now(UTC),
                    created_by=self.request.actor,
                    blueprint=draft.blueprint,
                    dialects=draft.dialects,
                )
            )
            return number

        return self._take(self._step("record", "Recording the release", effect))

    def _number(self) -> int:
        """The release's number: the one this deploy took before a crash, else the next."""
        row = self.store.deploys.get(self.request.id)
        number = row.number if row is not None else None
        if number is None:
            number = self.store.releases.reserve(self.request.project, self.request.environment)
            self.store.deploys.change(self.request.id, number=number)
        return number

    def _audit_use(self, number: int, draft: Draft) -> None:
        """Which values the release gets, written down before anything is started with them. Raises AuditUnavailable."""
        used = sorted({f"{pinned.name}@{pinned.version}" for mine in draft.secrets.values() for pinned in mine.values()})
        if used:
            by = Caller(self.request.actor or ITSELF.name, f"deploy {self.request.id}")
            self.platform.secrets.audit.write_names(by, "use", f"{self.request.project}/{self.request.environment} r{number}", used)

    def recall(self) -> Release:
        """Take a recorded release instead of making one."""

        def effect() -> int:
            row = self.store.releases.get(self.request.project, self.request.environment, self.request.release)
            if row is None:
                raise NothingToRollBackTo(
                    what="Nothing was changed; what runs keeps running.",
                    why=f"There is no release r{self.request.release} of {self.request.project} in {self.request.environment}.",
                    fix="Choose one from `homeport releases`.",
                )
            return self.request.release

        row = self.store.environments.get(self.request.project, self.request.environment)
        back = row is None or row.live is None or self.request.release <= row.live
        return self._take(self._step("recall", f"{'Going back to' if back else 'Taking'} r{self.request.release}", effect))

    def _take(self, number: int) -> Release:
        row = self.store.releases.get(self.request.project, self.request.environment, number)
        if row is None:
            raise NothingToRollBackTo(
                what="Nothing was changed.",
                why=f"Release r{number} is gone: {self.request.project} was removed from {self.request.environment} meanwhile.",
                fix="Deploy again if that was not meant.",
            )
        self.release = row.release
        self.store.deploys.change(self.request.id, number=number)
        return row.release

    # --- making it run ----------------------------------------------------------------------------------------

    def begin_with_data(self, release: Release) -> None:
        """Databases of a new environment begin with another one's data, masked, when the caller or that one's own file says so."""
        asked, given = self.request.data_from, PREVIEW.match(release.environment) is not None
        source = asked or (release.spec.previews.data if given else "")
        if not source or source == release.environment:
            return

        def effect() -> list[str]:
            origin = self.platform.live_release(release.project, source)
            if not asked and (origin is None or origin.spec.previews.data != source):
                return [f"its databases begin empty: no release that is live in {source} has `previews.data: {source}`"]
            previews = origin.spec.previews if origin is not None and not asked else None
            workers = self.request.workers or (previews is not None and previews.workers)
            crons = self.request.crons or (previews is not None and previews.crons)
            said = self.platform.seed(release, source, workers, crons)
            if said is None:
                return [f"{release.environment} has data already, so none of {source} was taken"] if asked else []
            return list(said)

        for text in self._step("data", f"Beginning with the data of {source}", effect):
            self._warn(text)

    def provision(self, release: Release) -> None:
        """Bring up the add-ons; data that is there is never touched."""

        def effect() -> list[str]:
            made = [p.engine for p in self.platform.addons.provision(release)]
            if not self.is_rollback:  # what goes back must not wait for somebody else's service
                self.platform.addons.demand(release)
            return made

        if release.spec.addons:
            self._step("provision", "Preparing add-ons", effect)

    def run_release_command(self, release: Release) -> None:
        """Run migrations and the like, once, before anything of the release starts."""
        if self.is_rollback:
            return
        for name in active_services(release):
            hook = release.spec.services[name].release_command
            if hook is not None:
                self._run_hook("release-command", "release command", release, name, hook, self.request.id)

    def _run_hook(self, step: str, title: str, release: Release, service: str, hook: Hook, key: str) -> None:
        try:
            effect: Callable[[], None] = lambda: run_once(self.platform, release, service, hook, key, self.progress)  # noqa: E731
            self._step(step, f"Running the {title} of {service}", effect)
        finally:
            forget_command(self.platform, release, service, key)

    def run_commands_after(self, release: Release) -> None:
        """Run what an environment does once in its life, and after each deploy. The release is live by now, so a failure is only told."""
        if self.is_rollback:
            return
        for name in active_services(release):
            service = release.spec.services[name]
            first = service.first_deploy_command if release.number == 1 else None
            for step, title, hook in (
                ("first-deploy", "first-deploy command", first),
                ("post-deploy", "post-deploy command", service.hooks.get("post_deploy")),
            ):
                if hook is not None:
                    with self._told(f"The {title} of {name} failed"):
                        self._run_hook(step, title, release, name, hook, f"{self.request.id}-{step[:5]}")

    def hold_traffic(self, release: Release) -> None:
        """Services that may not overlap: requests wait at the edge while the old instance stops.

        Always a step, also where nothing is held: what is live decides, and after the switch that is another when the journal is replayed.
        """

        def effect() -> list[str]:
            services = self.holding.services(release)
            if services:
                self.progress.step("hold", f"Holding requests for {', '.join(services)}")
                self.holding.begin(release, services)
            return services

        self._step("hold", "", effect)

    def start(self, release: Release) -> None:
        """Start the new instances beside the old ones."""
        self.holding.again(release)
        self.proof.begin(release, had_live=self.platform.live_release(release.project, release.environment) is not None)
        self._step("start", "Starting instances", lambda: self._start(release))

    def _start(self, release: Release) -> list[str]:
        self.started_here = True
        return start_candidates(self.platform, release)

    def _started(self, release: Release) -> None:
        """After a restart of the control plane the machine may have restarted too: what does not run any more is started again."""
        if not self.started_here:
            self._start(release)
            wait_until_well(self.platform, release, self.progress)

    def wait_until_healthy(self, release: Release) -> None:
        """Every new instance answers its health check, or the deploy ends here with the reason."""

        def effect() -> None:
            self._started(release)
            wait_until_well(self.platform, release, self.progress)

        self._step("healthy", "Waiting until healthy", effect)

    def smoke(self, release: Release) -> None:
        """The new instances answer through the edge, on a host nobody else can reach."""

        def effect() -> None:
            self._started(release)
            self.proof.smoke(release)

        self._step("smoke", "Checking through the edge", effect)

    def switch(self, release: Release) -> None:
        """From here on the public gets the new release."""

        def effect() -> str:
            self._started(release)
            with self.platform.edge_lock:
                with self.holding.bypassed(release):
                    self.platform.refresh_edge(switching=release)
                until, warm = datetime.now(UTC) + DRAIN, keep_warm(release)
                self.store.switch(release.project, release.environment, release.number, retire_at=until, keep_warm=warm)
            self.holding.release(release)
            self._own_ports_of(release)
            return datetime.now(UTC).isoformat()

        self.live_at = datetime.fromisoformat(self._step("switch", "Switching traffic", effect))
        self.switched = True
        for note in self.platform.own_ports.notes(release.project, release.environment, active_services(release)):
            self._warn(note)

    # --- afterwards -------------------------------------------------------------------------------------------

    def retire(self, release: Release) -> None:
        """Let the former release finish. The reconciler does it, again and again until it is done."""

        def effect() -> dict[str, Any]:
            self.store.deploys.unwatch(release.project, release.environment)
            self.platform.wake()
            return self.proof.end(release).model_dump(mode="json")

        with self._told("Clean-up will be repeated"):
            self.proof.result = ProbeResult.model_validate(self._step("retire", "Draining the former release", effect))

    def summary(self, release: Release) -> DeployResult:
        """Say what happened, once."""

        def effect() -> dict[str, Any]:
            row = self.store.deploys.get(self.request.id)
            seconds = (self.live_at - row.requested_at).total_seconds() if row else time.monotonic() - self.started
            result = self._result(release.id, DeployStatus.LIVE, seconds, release=release)
            window = release.spec.watch.window if release.spec.watch.window is not None else WATCH
            watched = not self.request.automatic and window > timedelta(0)
            until = datetime.now(UTC) + window if watched else None
            known = self.store.environments.get(release.project, release.environment)
            back = self.is_rollback and (known is None or known.previous is None or release.number < known.previous)
            verb = "rolled back to" if back else "deployed"
            proved = f"{result.probe.failed} of {result.probe.requests} requests failed"
            text = f"{release.project} {verb} {release.id} in {seconds:.1f} s; {proved}."
            self._tell_once("deploy.live", text, subject=release.id, reason=self.request.reason)
            self.store.deploys.finish(self.request.id, DeployStatus.LIVE, result.model_dump(mode="json"), watch_until=until)
            return result.model_dump(mode="json")

        result = DeployResult.model_validate(self._step("summary", "Writing down what was proven", effect))
        self.progress.write("done", result=result.model_dump(mode="json"))
        return result

    def failed(self, error: HomeportError) -> DeployResult:
        """Write down why nothing was changed."""
        row = self.store.deploys.get(self.request.id)
        seconds = (datetime.now(UTC) - row.requested_at).total_seconds() if row else 0.0
        release = self.release.id if self.release else ""
        result = self._result(release, DeployStatus.FAILED, seconds, error=error)
        if row is not None:  # else its environment was removed meanwhile, and nobody asks for it any more
            self._tell_once("deploy.failed", f"{error.what} {error.why}", subject=release, code=error.code)
        self.store.deploys.finish(self.request.id, DeployStatus.FAILED, result.model_dump(mode="json"))
        self.progress.write("failed", result=result.model_dump(mode="json"), tail=list(error.tail))
        return result

    def _tell_once(self, kind: str, text: str, **data: Any) -> None:
        """Write the event of this deploy down, unless it was before a crash."""
        where = (self.request.project, self.request.environment)
        if not any(e.kind == kind and e.data.get("deploy") == self.request.id for e in self.store.events.list(*where, limit=200)):
            self.platform.event(kind, text, where, actor=self.request.actor, deploy=self.request.id, **data)

    def _result(
        self, id: str, status: DeployStatus, seconds: float, *, release: Release | None = None, error: HomeportError | None = None
    ) -> DeployResult:
        told: dict[str, Any] | None = {"code": error.code, "what": error.what, "why": error.why, "fix": error.fix} if error else None
        if told is not None and (missing := getattr(error, "missing", None)):
            told["missing"] = missing
        if told is not None and isinstance(error, BlueprintInvalid):
            told["report"] = error.render()
        return DeployResult(
            project=self.request.project,
            environment=self.request.environment,
            release=id,
            status=status.value,
            seconds=round(seconds, 3),
            services=self.platform.service_views(release) if release else (),
            probe=self.proof.result,
            deploy=self.request.id,
            error=told,
            warnings=tuple(self.warnings),
        )

    # --- undoing ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """Whatever fails inside leaves the former release serving, and nothing of the new one behind."""
        try:
            yield
        except Exception:
            try:
                if self.release is not None and not self.switched:
                    self.progress.step("undo", "Undoing")
                    release = self.release
                    self.durable.step("undo", lambda: self._undo(release))
            finally:
                self.proof.abandon()  # last: its requests may be among those that wait for the undoing
            raise

    def _undo(self, release: Release) -> None:
        rows = self.store.instances.list(release.project, release.environment, number=release.number)
        candidates = [row for row in rows if row.role == "candidate"]
        before = self.platform.edge.table()
        if candidates and before is not None:
            self.platform.refresh_edge()
            if self.platform.edge.table() != before:  # a switch that came half way had sent the public to them
                for one in candidates:
                    if one.port:
                        self.platform.edge.drain(Target(host=one.host, port=one.port), UNDO_DRAIN)
        self.platform.stop_instances(candidates, grace=timedelta(seconds=5))
        self.holding.undo(release)
        live = self.platform.live_release(release.project, release.environment)
        if live is not None:
            self._own_ports_of(live)
        row = self.store.releases.get(release.project, release.environment, release.number)
        if row is not None and row.state == "recorded":
            self.store.releases.mark(release.project, release.environment, release.number, "failed")

    def _own_ports_of(self, live: Release) -> None:
        rows = self.store.instances.list(live.project, live.environment, number=live.number)
        self.platform.own_ports.keep_to(live, rows)

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            self.progress.write("warning", text=text)

    @contextlib.contextmanager
    def _told(self, text: str) -> Iterator[None]:
        """What fails inside is told as a warning: the release is live and stays so."""
        try:
            yield
        except Exception as error:
            log.exception("after the switch of %s", self.request.id)
            self._warn(f"{text}: {getattr(error, 'why', type(error).__name__)}")
