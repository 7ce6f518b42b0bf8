"""Reading: what runs, what ran, and why, as the doors show it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from homeport.deploys.audit import Caller
from homeport.deploys.config import declared, preview
from homeport.deploys.control import ProjectNotFound
from homeport.deploys.cron import next_slot
from homeport.deploys.guard import layers
from homeport.deploys.history import Comparison, Side, restore_moment, restore_version
from homeport.deploys.plan import ConfirmationNeeded
from homeport.deploys.platform import Platform, active_services, needs_process
from homeport.deploys.rotation import rotate_value
from homeport.deploys.secrets import EnvInvalid, is_internal
from homeport.model.env import FromAddOn, FromGroup, FromService, GeneratedValue, PlainValue, Template
from homeport.model.release import DeployStatus, Release
from homeport.model.service import CronService, StaticService
from homeport.model.views import (
    CronRunView,
    CronView,
    DeployView,
    EnvChange,
    EnvDifference,
    EnvironmentView,
    EventView,
    InstanceView,
    ReleaseView,
    SecretVersion,
    ServiceStatus,
    ValueRotation,
    VariableView,
)
from homeport.store.deploys import DeployRow
from homeport.store.environments import EnvironmentRow


class Views:
    """Answers for the doors."""

    def __init__(self, platform: Platform) -> None:
        self.platform, self.store = platform, platform.store

    def row(self, project: str, environment: str) -> EnvironmentRow:
        """The environment. Raises ProjectNotFound."""
        found = self.store.environments.get(project, environment)
        if found is None:
            known = ", ".join(f"{r.project}/{r.environment}" for r in self.store.environments.all()) or "none yet"
            raise ProjectNotFound(
                what="Nothing was changed.",
                why=f"There is no project {project!r} with an environment {environment!r} (known: {known}).",
                fix="Name one with `--project` and `--env`, or deploy it with `homeport up`.",
            )
        return found

    def live(self, project: str, environment: str) -> Release:
        """The live release. Raises ProjectNotFound."""
        self.row(project, environment)
        release = self.platform.live_release(project, environment)
        if release is None:
            raise ProjectNotFound(
                what="Nothing was changed.", why=f"{project} has nothing live in {environment}.", fix="Deploy it with `homeport up`."
            )
        return release

    def environments(self) -> list[EnvironmentView]:
        return [self.environment(row) for row in self.store.environments.all()]

    def environment(self, row: EnvironmentRow) -> EnvironmentView:
        release = self.platform.live_release(row.project, row.environment)
        deploys = self.store.deploys.recent(row.project, row.environment, 5)
        running = next((d.id for d in deploys if d.status in (DeployStatus.RUNNING.value, DeployStatus.QUEUED.value)), "")
        watched = next((d.watch_until for d in deploys if d.watch_until is not None), None)
        found = self.store.releases.get(row.project, row.environment, row.live) if row.live is not None else None
        return EnvironmentView(
            project=row.project,
            environment=row.environment,
            origin=row.origin,
            release=release.id if release else "",
            live_since=found.live_at if found else None,
            commit=release.revision.commit if release else "",
            deploying=running,
            watched_until=watched,
            services=tuple(self._services(release, row)) if release else (),
            addons=tuple(release.spec.addons) if release else (),
            unwell_addons=self.platform.addons.unwell(release) if release else {},
        )

    def _services(self, release: Release, row: EnvironmentRow) -> list[ServiceStatus]:
        wanted = self.platform.wanted(release, row)
        rows = [r for r in self.store.instances.list(row.project, row.environment, number=release.number) if r.role == "live"]
        active = set(active_services(release))
        found = []
        for name, service in release.spec.services.items():
            well = sum(1 for r in rows if r.service == name and r.state == "healthy")
            state, detail = "live", next((r.detail for r in rows if r.service == name and r.detail), "")
            if name not in active:
                state, detail = "skipped", f"profile {service.profiles[0]} is not active"
            elif isinstance(service, CronService):
                upcoming = next_slot(service, datetime.now(UTC))
                state, detail = "scheduled", f"next {upcoming:%Y-%m-%d %H:%M} UTC" if upcoming else service.schedule
                if row.scale.get(name) == 0:
                    state, detail = "off", f"`homeport scale {name}=1` turns its schedule on"
            elif isinstance(service, StaticService):
                state = "served"
            elif needs_process(service) and well < wanted.get(name, 0):
                state = "degraded" if well else "down"
            elif wanted.get(name, 0) == 0:
                state = "stopped"
            url = self.platform.url_of(release, name) if name in active else None
            found.append(
                ServiceStatus(name=name, kind=service.kind, url=url, wanted=wanted.get(name, 0), healthy=well, state=state, detail=detail)
            )
        return found

    def instances(self, project: str, environment: str) -> list[InstanceView]:
        self.row(project, environment)
        seen = {o.handle.id: o for o in self.platform.runtime.observe()}
        found = []
        for row in self.store.instances.list(project, environment):
            observed = seen.get(row.id)
            running = observed is not None and observed.state == "running"
            found.append(
                InstanceView(
                    id=row.id,
                    service=row.service,
                    release=f"r{row.number}",
                    role=row.role,
                    state=row.state,
                    address=f"{row.host}:{row.port}" if row.port else "",
                    pid=observed.handle.pid if observed is not None and running else 0,
                    memory=observed.memory if observed else 0,
                    cpu_seconds=round(observed.cpu_seconds, 2) if observed else 0,
                    restarts=row.restarts,
                    crashes=row.crashes,
                    started_at=row.started_at,
                    detail=row.detail,
                )
            )
        return found

    def releases(self, project: str, environment: str, limit: int = 50) -> list[ReleaseView]:
        self.row(project, environment)
        return [
            ReleaseView(
                id=r.release.id,
                state=r.state,
                created_at=r.release.created_at,
                created_by=r.release.created_by,
                live_at=r.live_at,
                commit=r.release.revision.commit,
                dirty=r.release.revision.dirty,
                message=r.release.revision.message,
                blueprint=r.release.blueprint,
                services=tuple(r.release.spec.services),
                reason=r.reason,
            )
            for r in self.store.releases.list(project, environment, limit)
        ]

    def events(self, project: str = "", environment: str = "", after: int = 0, limit: int = 100) -> list[EventView]:
        return [EventView(**row.__dict__) for row in self.store.events.list(project, environment, after=after, limit=limit)]

    def deploy(self, id: str) -> DeployView:
        row = self.store.deploys.get(id)
        if row is None:
            raise ProjectNotFound(what="Nothing was changed.", why=f"There is no deploy {id[:60]!r}.", fix="See `homeport events`.")
        return deploy_view(row)

    def crons(self, project: str, environment: str) -> list[CronView]:
        release, row = self.live(project, environment), self.row(project, environment)
        found = []
        for name, service in release.spec.services.items():
            if isinstance(service, CronService):
                last = next(iter(self.store.crons.list(project, environment, name, limit=1)), None)
                found.append(
                    CronView(
                        service=name,
                        schedule=service.schedule,
                        timezone=service.timezone,
                        next=next_slot(service, datetime.now(UTC)) if row.scale.get(name) != 0 else None,
                        last=last.started_at if last else None,
                        status=last.status if last else "",
                        code=last.code if last else None,
                        detail=last.detail if last else "",
                    )
                )
        return found

    def cron_runs(self, project: str, environment: str, service: str = "", limit: int = 50) -> list[CronRunView]:
        self.row(project, environment)
        rows = self.store.crons.list(project, environment, service, limit=limit)
        return [CronRunView(**_without(row.__dict__, "project", "environment", "number"), release=f"r{row.number}") for row in rows]

    def _with_values(self, project: str, environment: str) -> None:
        """Raises ProjectNotFound unless the environment is there, or values wait for its first deploy."""
        if self.store.environments.get(project, environment) is None and not self.store.secrets.numbers(project, environment):
            self.row(project, environment)

    def variables(self, project: str, environment: str) -> list[VariableView]:
        """Every variable of every service with where it comes from. Values of the vault are not shown."""
        self._with_values(project, environment)
        release = self.platform.live_release(project, environment)
        known = self.platform.secrets.names(project, environment)
        found: list[VariableView] = []
        shown: set[str] = set()
        for name in active_services(release) if release else []:
            assert release is not None  # noqa: S101
            service = release.spec.services[name]
            mine = layers(release.spec, service, release.secrets.get(name, {}))
            for key, value in declared(release.spec, service).items():
                row = known.get(f"{name}/{key}") or known.get(key)
                shown |= {f"{name}/{key}", key}
                layer = mine.get(key)
                origin = layer.origin if layer is not None and layer.origin.startswith("group ") else "file"
                if row is not None:
                    origin = _origin(row)
                elif isinstance(value, FromService | FromAddOn | FromGroup | Template):
                    origin = "reference"
                elif isinstance(value, GeneratedValue):
                    origin = "generated"
                elif not isinstance(value, PlainValue):
                    origin = "missing"
                plain = value.value if isinstance(value, PlainValue) and row is None else None
                found.append(_variable(name, key, origin, row, plain, layer.hides if layer is not None else ()))
        for entry, row in known.items():
            scope, _, key = entry.rpartition("/")
            if entry not in shown and not is_internal(entry):
                found.append(_variable(scope or "*", key, _origin(row), row, None))
        return found

    def told(self, project: str, environment: str) -> list[VariableView]:
        """Variables that services get without anybody's naming them: from add-ons, of each other, and as their platform gives them."""
        self.row(project, environment)
        release = self.platform.live_release(project, environment)
        found: list[VariableView] = []
        for name in active_services(release) if release else []:
            assert release is not None  # noqa: S101
            named = {*layers(release.spec, release.spec.services[name], release.secrets.get(name, {}))}
            for origin, note, values in self.platform.told(release, name):
                shown = {key: None if origin.startswith("add-on") else value for key, value in values.items() if key not in named}
                named |= {*values}
                found += [_variable(name, key, origin, None, value).model_copy(update={"note": note}) for key, value in shown.items()]
        return found

    def reveal(self, project: str, environment: str, key: str, service: str, *, by: Caller) -> VariableView:
        """One value in the clear; who looked is written down first. Raises ProjectNotFound, AuditUnavailable."""
        self._with_values(project, environment)
        entry = self._entry(project, environment, key, service)
        value = self.platform.secrets.disclose(project, environment, entry, by=by)
        if value is None:
            return self._plain(project, environment, key, service)
        self.platform.event("env.revealed", f"{by.name} looked at {entry}.", (project, environment), actor=by.name, subject=entry)
        row = self.platform.secrets.names(project, environment)[entry]
        return _variable(entry.rpartition("/")[0] or "*", key, _origin(row), row, value)

    def _plain(self, project: str, environment: str, key: str, service: str) -> VariableView:
        """A variable whose value the files give. Raises ProjectNotFound."""
        found = [v for v in self.variables(project, environment) if v.key == key and service in ("", v.service)]
        if plain := [v for v in found if v.value is not None]:
            return plain[0]
        if any(v.origin == "reference" for v in found):
            why = f"{key} refers to another part of {project}: an instance gets its value when it starts."
            fix = "`homeport port-forward ADDON --show-password` shows how to connect to an add-on; the file says what it refers to."
            raise ProjectNotFound(what="Nothing is shown.", why=why, fix=fix)
        name = f"{service}/{key}" if service else key
        raise ProjectNotFound(what="Nothing is shown.", why=f"{name} has no value in {environment}.", fix="See `homeport env`.")

    def _meant(self, project: str, environment: str, name: str) -> str:
        """The entry behind a name that a person gives, of which there is any version."""
        if self.store.secrets.history(project, environment, name):
            return name
        service, _, key = name.rpartition("/")
        return self._entry(project, environment, key, service)

    def _entry(self, project: str, environment: str, key: str, service: str) -> str:
        """The entry of the vault a person means: the service's own, the one of all, or the only one of any service."""
        known = self.platform.secrets.names(project, environment)
        if service:
            return f"{service}/{key}"
        own = [name for name in known if name.endswith(f"/{key}") and not is_internal(name)]
        if key in known or not own:
            return key
        if len(own) > 1:
            services = ", ".join(name.rpartition("/")[0] for name in own)
            raise ProjectNotFound(
                what="Nothing is shown.", why=f"Each of these services has a {key} of its own: {services}.", fix="Name one: `--service`."
            )
        return own[0]

    def env_diff(self, project: str, environment: str, other: str, release: int, with_release: int, *, by: Caller) -> list[EnvDifference]:
        """Two environments or releases side by side, without values. Raises ProjectNotFound, AuditUnavailable."""
        self.row(project, environment)
        if other:
            self.row(project, other)
        right = other or environment
        where = f"{project}/{environment} {f'r{release}' if release else ''} with {right} {f'r{with_release}' if with_release else ''}"
        self.platform.secrets.audit.write(by, "compare", where)
        comparison = Comparison(self.platform.secrets)

        def side(where: str, number: int, *, live: bool) -> Side:
            if number:
                return comparison.of_release(self._release(project, where, number))
            found = self.platform.live_release(project, where) if live else None
            return comparison.of_release(found) if found is not None else comparison.of_vault(project, where)

        apart = bool(other or release or with_release)
        if apart:
            return comparison.compare(side(environment, release, live=True), side(right, with_release, live=True))
        return comparison.compare(side(environment, 0, live=True), self._planned(comparison, project, environment))

    def _planned(self, comparison: Comparison, project: str, environment: str) -> Side:
        """What the live release would get if it were deployed again now."""
        live = self.platform.live_release(project, environment)
        if live is None:
            return comparison.of_vault(project, environment)
        pins = preview(live.spec, active_services(live), self.platform.secrets, project, environment)
        return comparison.of_release(live.model_copy(update={"secrets": pins.by_service}))

    def _release(self, project: str, environment: str, number: int) -> Release:
        found = self.store.releases.get(project, environment, number)
        if found is None:
            raise ProjectNotFound(
                what="Nothing is shown.",
                why=f"There is no release r{number} of {project} in {environment}.",
                fix="See `homeport releases`.",
            )
        return found.release

    def change_version(
        self,
        project: str,
        environment: str,
        name: str,
        version: int,
        state: Literal["enabled", "disabled", "destroyed"],
        *,
        confirmed: bool,
        by: Caller,
    ) -> SecretVersion:
        """Enable, disable or destroy a version. Raises ProjectNotFound, VersionUnavailable, ConfirmationNeeded, AuditUnavailable."""
        self.row(project, environment)
        name = self._meant(project, environment, name)
        users = [
            row.release.id
            for row in self.store.releases.list(project, environment, limit=1000)
            if any(p.name == name and p.version == version for mine in row.release.secrets.values() for p in mine.values())
        ]
        if users and state != "enabled" and not confirmed:
            raise ConfirmationNeeded(
                what="Nothing was changed.",
                why=f"These releases need version {version} of {name} and could not start without it: {', '.join(users[:8])}.",
                fix="Deploy with another value first, or confirm with `--yes`.",
            )
        row = self.platform.secrets.change_state(project, environment, name, version, state, by=by)
        return SecretVersion(**_without(row.__dict__, "project", "environment", "sealed"))

    def env_restore(
        self, project: str, environment: str, name: str, version: int, at: datetime | None, *, dry: bool, by: Caller
    ) -> list[EnvChange]:
        """Bring one variable back to a version, or all to a moment. Raises ProjectNotFound, VersionUnavailable, EnvInvalid."""
        self.row(project, environment)
        if (at is None) == (not (name and version)):
            raise EnvInvalid(
                what="Nothing was changed.", why="Either a variable with its version, or a moment must be named.", fix="See --help."
            )
        book = self.platform.secrets
        if at is None:
            name = self._meant(project, environment, name)
            return [restore_version(book, project, environment, name, version, by=by, dry=dry)]
        moment = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        return restore_moment(book, project, environment, moment, by=by, dry=dry)

    def rotate_value(self, project: str, environment: str, name: str, *, value: str, overlap: timedelta, by: Caller) -> ValueRotation:
        """A new value with the former one beside it for a while. Raises ProjectNotFound, EnvInvalid, AuditUnavailable."""
        self._with_values(project, environment)
        service, _, key = name.rpartition("/")
        entry, live = self._entry(project, environment, key, service), self.platform.live_release(project, environment)
        spec, mine = (live.spec, live.secrets.values()) if live is not None else (None, ())
        used = max((pinned.version for pins in mine for pinned in pins.values() if pinned.name == entry), default=0)
        return rotate_value(self.platform.secrets, spec, (project, environment), entry, value=value, overlap=overlap, live=used, by=by)

    def env_history(self, project: str, environment: str, key: str = "") -> list[SecretVersion]:
        self._with_values(project, environment)
        rows = self.store.secrets.history(project, environment, key)
        if key and not rows:
            found = self._entry(project, environment, key, "")
            rows = self.store.secrets.history(project, environment, found)
        if key and not rows:
            raise ProjectNotFound(what="Nothing is shown.", why=f"{key} was never set in {environment}.", fix="See `homeport env`.")
        return [SecretVersion(**_without(row.__dict__, "project", "environment", "sealed")) for row in rows]


def _variable(service: str, key: str, origin: str, row: Any, value: str | None, hides: tuple[str, ...] = ()) -> VariableView:
    return VariableView(
        service=service,
        key=key,
        origin=origin,
        version=row.version if row else 0,
        set_by=row.created_by if row else "",
        set_at=row.created_at if row else None,
        value=value,
        source=row.source if row else "",
        note=row.note if row else "",
        hides=hides,
    )


def _origin(row: Any) -> str:
    return str(row.source) if row.source in ("generated", "external", "rotated", "previous") else "set"


def deploy_view(row: DeployRow) -> DeployView:
    return DeployView(**_without(row.__dict__, "request", "number", "watch_until"))


def _without(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in keys}
