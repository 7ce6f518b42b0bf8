"""Writes `app.json`, and the `Procfile` that holds its commands."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, ClassVar

from homeport.blueprints.appjson import providers
from homeport.blueprints.appjson.reader import ENVIRONMENTS, METADATA, AppJsonReader
from homeport.blueprints.commands import command_line
from homeport.blueprints.patch import in_environment, losses
from homeport.blueprints.source import MemoryTree
from homeport.model.addon import AddOn
from homeport.model.env import Env, EnvValue, GeneratedValue, PlainValue, SecretValue
from homeport.model.reading import Loss, Written
from homeport.model.service import CronService, HealthCheck, Service, WebService
from homeport.model.spec import Spec

REASONS = (
    ("services.*.env.*", "Heroku's config variables hold plain, generated and asked-for values only, and every process sees them"),
    ("services.*.env", "Heroku's config variables belong to the app: every process sees them"),
    ("services.*.env_groups", "Heroku's config variables belong to the app: every process sees them"),
    ("env_groups*", "Heroku's config variables belong to the app: every process sees them"),
    ("addons*", "Heroku has no such add-on, or no such setting of it"),
    ("*.kind", "Heroku knows one web process, and processes without a port"),
    ("*.schedule", "only Dokku runs crons from app.json"),
    ("*.disks*", "Heroku's dynos have no disks"),
    ("*.domains*", "custom domains are added with `heroku domains:add`"),
    ("*.build*", "Heroku builds with buildpacks; a Dockerfile needs heroku.yml"),
    ("*.health*", "only Dokku reads `healthchecks`, and it has no such setting"),
    ("*.checks*", "only Dokku reads `healthchecks`, and it has no such setting"),
    ("*.port", "Heroku tells the program its port as PORT"),
    ("routes*", "Heroku's router has no rules"),
    ("environments*", "app.json changes variables, add-ons, formation and scripts per environment only"),
)


class AppJsonWriter:
    """Web, worker and private services become the formation, crons Dokku's `cron`; commands go to the Procfile."""

    dialect: ClassVar[str] = "appjson"

    def write(self, spec: Spec) -> Written:
        renamed = _renamed(spec)
        fitting = _rename(spec, renamed)
        files = {"app.json": json.dumps(_App(fitting).document(), indent=2, ensure_ascii=False) + "\n"}
        if procfile := _procfile(fitting):
            files["Procfile"] = procfile
        back = AppJsonReader().read(MemoryTree(files, name=spec.name), "app.json").spec
        found = losses(fitting, back, REASONS, "app.json has no key for this")
        if not any(_runs(service) for service in spec.services.values()):
            found = (*found, Loss(path="services", reason="no service of this project fits a Heroku process"))
        return Written(dialect=self.dialect, files=files, losses=found, renamed=renamed)


def _renamed(spec: Spec) -> dict[str, str]:
    """Heroku routes requests to the process called `web`: the first web service carries that name there."""
    web = next((name for name, service in spec.services.items() if isinstance(service, WebService)), "")
    return {web: "web"} if web and web != "web" and "web" not in spec.services else {}


def _rename(spec: Spec, renamed: dict[str, str]) -> Spec:
    if not renamed:
        return spec
    services = {renamed.get(name, name): service for name, service in spec.services.items()}
    for old in renamed:
        services["web"] = spec.services[old].model_copy(update={"title": ""})
    environments = {
        name: {**patch, "services": {renamed.get(k, k): v for k, v in patch["services"].items()}}
        if isinstance(patch.get("services"), dict)
        else patch
        for name, patch in spec.environments.items()
    }
    return spec.model_copy(update={"services": services, "environments": environments})


def _runs(service: Service) -> bool:
    return service.kind in ("web", "worker", "private")


def _process(name: str, service: Service) -> str:
    return service.title or name


def _procfile(spec: Spec) -> str:
    release = next((s.release_command for s in spec.services.values() if s.release_command), None)
    lines: list[str] = []
    for name, service in spec.services.items():
        command = command_line(service.command)
        if _runs(service) and command and "\n" not in command and "\n" not in _process(name, service):
            lines.append(f"{_process(name, service)}: {command}")
    if release and lines:
        lines.insert(0, f"release: {command_line(release.command)}")
    return "\n".join(lines) + "\n" if lines else ""


class _App:
    """The document being written."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        own = spec.extensions.get("heroku")
        self.own: dict[str, Any] = own if isinstance(own, dict) else {}

    def document(self) -> dict[str, Any]:
        spec = self.spec
        found: dict[str, Any] = {"name": spec.title or spec.name, "description": spec.description}
        found |= {key: spec.metadata[key] for key in METADATA if key in spec.metadata}
        sections = self.sections(spec)
        found |= sections
        found["image"] = self.own.get("image")
        found["healthchecks"] = self._healthchecks()
        found["cron"] = [_cron(s) for s in spec.services.values() if isinstance(s, CronService) and s.schedule and s.command]
        environments: dict[str, Any] = {}
        back = {ours: theirs for theirs, ours in ENVIRONMENTS.items()}
        for name in spec.environments:
            try:
                there = self.sections(in_environment(spec, name))
            except ValueError:
                continue
            environments[back.get(name, name)] = _changed(sections, there)
        kept = {key: value for key, value in found.items() if value not in (None, "", [], {})}
        return {**kept, "environments": environments} if environments else kept

    def sections(self, spec: Spec) -> dict[str, Any]:
        """The sections that an environment may change too."""
        main = spec.services.get("web") or next(iter(spec.services.values()), None)
        found = {
            "env": self._env(spec),
            "formation": {_process(n, s): _formation(s) for n, s in spec.services.items() if _runs(s)},
            "addons": [entry for addon in spec.addons.values() if (entry := _addon(addon))],
            "scripts": _scripts(main, spec) if main else {},
            "buildpacks": [{"url": pack} for pack in main.build.buildpacks] if main else [],
            "stack": main.build.stack if main else "",
        }
        return {key: value for key, value in found.items() if value not in ("", [], {})}

    def _env(self, spec: Spec) -> dict[str, Any]:
        env: Env = {}
        for service in spec.services.values():
            for group in service.env_groups:
                env = {**(spec.env_groups[group].env if group in spec.env_groups else {}), **env}
            env = {**service.env, **env}
        by_addons = providers.variables(spec.addons)
        described = self.own.get("described")
        texts: dict[str, Any] = described if isinstance(described, dict) else {}
        found = {name: _value(value, texts.get(name)) for name, value in env.items() if by_addons.get(name) != value}
        return {name: value for name, value in found.items() if value is not None}

    def _healthchecks(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, service in self.spec.services.items():
            checks = [*([service.health] if service.health else []), *service.checks]
            entries = [_check(check) for check in checks if check.role != "monitor"]
            if entries and _runs(service):
                found[_process(name, service)] = entries
        return found


def _changed(base: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
    """The sections of an environment that differ; `env`, `formation` and `scripts` by their entries."""
    found: dict[str, Any] = {}
    for key, value in there.items():
        if base.get(key) == value:
            continue
        if isinstance(value, dict):
            known = base.get(key, {})
            found[key] = {name: item for name, item in value.items() if known.get(name) != item}
        else:
            found[key] = value
    if "addons" in base and "addons" not in there:
        found["addons"] = []
    return found


def _value(value: EnvValue, description: Any) -> Any:
    match value:
        case PlainValue():
            if not isinstance(description, str):
                return value.value
            return {"description": description, "value": value.value, **({} if value.value else {"required": False})}
        case GeneratedValue():
            return {**({"description": value.description} if value.description else {}), "generator": "secret"}
        case SecretValue():
            found: dict[str, Any] = {"description": value.description} if value.description else {}
            if value.default is not None:
                found["value"] = value.default
            return found | {"required": value.required}
    return None


def _formation(service: Service) -> dict[str, Any]:
    scale = service.scale
    found: dict[str, Any] = {"quantity": scale.instances}
    if service.resources.plan:
        found["size"] = service.resources.plan
    if service.rollout.parallelism:
        found["max_parallel"] = service.rollout.parallelism
    autoscaling: dict[str, Any] = {
        "min_quantity": scale.min,
        "max_quantity": scale.max,
        "cooldown_period_seconds": _seconds(scale.cooldown),
    }
    targets = {"cpu": scale.target_cpu, "memory": scale.target_memory}
    autoscaling["triggers"] = {k: {"metadata": {"value": _number(v)}} for k, v in targets.items() if v is not None} or None
    autoscaling = {key: value for key, value in autoscaling.items() if value is not None}
    if autoscaling:
        found["autoscaling"] = autoscaling
    if service.kind == "private":
        found["service"] = {"exposed": True}
    return found


def _addon(addon: AddOn) -> Any:
    provider = providers.provider_of(addon)
    if not provider:
        return None
    text = f"{provider}:{addon.plan}" if addon.plan else provider
    own = addon.extensions.get("heroku")
    kept = own.get("options") if isinstance(own, dict) else None
    options: dict[str, Any] = {**({"version": addon.version} if addon.version else {}), **(kept if isinstance(kept, dict) else {})}
    found: dict[str, Any] = {"plan": text}
    if addon.bind:
        found["as"] = addon.bind[0]
    if options:
        found["options"] = options
    return found if len(found) > 1 else text


def _scripts(service: Service, spec: Spec) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if service.first_deploy_command:
        found["postdeploy"] = command_line(service.first_deploy_command.command)
    for key in ("pr-predestroy", "pr-predeploy", "test", "test-setup"):
        if key in service.hooks:
            found[key] = command_line(service.hooks[key].command)
    if service.build.command:
        found["build"] = service.build.command
    dokku: dict[str, str] = {}
    if service.release_command and not _procfile(spec):
        dokku["predeploy"] = command_line(service.release_command.command)
    if "post_deploy" in service.hooks:
        dokku["postdeploy"] = command_line(service.hooks["post_deploy"].command)
    return {**found, "dokku": dokku} if dokku else found


def _check(check: HealthCheck) -> dict[str, Any]:
    kind = {"startup": "startup", "ready": "readiness", "live": "liveness"}.get(check.role, "startup")
    found: dict[str, Any] = {"type": kind, "name": check.name, "attempts": check.retries, "wait": _seconds(check.interval)}
    found |= {"timeout": _seconds(check.timeout), "initialDelay": _seconds(check.start_period)}
    found["port"] = int(check.port) if check.port.isdecimal() else None
    if check.kind == "http":
        found |= {"path": check.path, "content": check.expect_body, "scheme": "https" if check.tls else None}
        found["httpHeaders"] = [{"name": name, "value": value} for name, value in check.headers.items()]
    elif check.kind == "command":
        found["command"] = [check.command] if isinstance(check.command, str) else list(check.command)
    elif check.kind == "none":
        found["uptime"] = _seconds(check.deadline) or 0
    else:
        found["listening"] = True
    return {key: value for key, value in found.items() if value not in (None, "", [])}


def _cron(service: CronService) -> dict[str, Any]:
    found: dict[str, Any] = {"command": command_line(service.command), "schedule": service.schedule}
    if service.concurrency != "allow":
        found["concurrency_policy"] = service.concurrency
    if service.scale.instances == 0:
        found["maintenance"] = True
    return found


def _seconds(value: timedelta | None) -> float | int | None:
    return None if value is None else _number(value.total_seconds())


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value
