"""Reads `railway.json` and `railway.toml`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar

from homeport.blueprints.commands import fixed_port
from homeport.blueprints.document import Document, parse_json, parse_toml
from homeport.blueprints.patch import merge_patch
from homeport.blueprints.railway.references import addon_kind, lift, make_addon, railway_addons, railway_references
from homeport.blueprints.railway.settings import NOT_OFFICIAL, Settings, cron, gather, take_text
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import Ledger, View
from homeport.model.addon import AddOn
from homeport.model.base import slug
from homeport.model.env import Env, EnvGroup, EnvValue, FromAddOn, FromGroup, PlainValue, SecretValue, Template
from homeport.model.errors import BlueprintInvalid, Problem
from homeport.model.reading import Fate, Reading
from homeport.model.service import (
    Build,
    BuildFilter,
    CronService,
    Disk,
    Domain,
    HealthCheck,
    Hook,
    PushTrigger,
    Resources,
    Restart,
    Rollout,
    Scale,
    ScheduleTrigger,
    Service,
    WebService,
)
from homeport.model.spec import Spec

FILE = re.compile(
    r"(?:^|__)railway(?:[._-](?!schema\b)(?P<name>[A-Za-z0-9][A-Za-z0-9_-]*))?(?:@[0-9a-f]+)?\.(?P<format>json|toml)$", re.IGNORECASE
)
ENVIRONMENTS = {"pr": "preview"}
"""Railway's names of environments that Homeport calls otherwise."""


class RailwayReader:
    """One file is one service: web, or cron when it has a schedule.

    The file does not name its service. `railway.worker.json` is `worker`, `apps/api/railway.json` is `api`, one at the root is `web`
    (`cron` with a schedule).
    """

    dialect: ClassVar[str] = "railway"
    precedence: ClassVar[int] = 10

    def recognises(self, file_name: str, text: str) -> bool:  # noqa: ARG002
        return FILE.search(file_name.rsplit("/", 1)[-1]) is not None

    def candidates(self, tree: SourceTree) -> list[str]:
        names = [name for name in tree.list() if self.recognises(name, "")]
        return sorted(names, key=lambda name: (name not in ("railway.json", "railway.toml"), name))

    def read(self, tree: SourceTree, path: str) -> Reading:
        document = load(tree, path)
        ledger = Ledger(document)
        return _File(tree, path, View(ledger, document.data)).reading()


def load(tree: SourceTree, path: str) -> Document:
    """Parse a JSON or TOML file of the tree. Raises BlueprintInvalid, also when there is none."""
    try:
        text = tree.text(path)
    except ValueError as error:
        raise BlueprintInvalid(file=path, problems=[Problem(str(error))]) from error
    if text is None:
        raise BlueprintInvalid(file=path, problems=[Problem("there is no such file", fix="Check the path.")])
    return (parse_toml if path.lower().endswith(".toml") else parse_json)(path, text)


class _File:
    """One file being read."""

    def __init__(self, tree: SourceTree, path: str, view: View) -> None:
        self.tree, self.path, self.view = tree, path, view
        self.addons: dict[str, AddOn] = {}
        self.warnings: list[str] = []

    def reading(self) -> Reading:
        view = self.view
        view.honoured("$schema", "schema", reason="for editors; Homeport checks the file against its own table of keys")
        base = gather(view)
        entry = view.view("service")
        title = entry.text("name", reason=NOT_OFFICIAL)
        if title and not view.data.get("services"):
            base["title"] = title
        if entry.flag("autoDeploy", reason=NOT_OFFICIAL) is False:
            base["auto_deploy"] = False
        entry.ignored("autoStart", reason="a deployed service always starts")
        project = view.text("name", reason=NOT_OFFICIAL)
        self._plugins()
        services = self._services(base)
        services = self._crons(services)
        ledger = view.ledger
        self._environments(services)
        if ledger.problems:
            ledger.close()
        built = {name: self._service(settings, name) for name, settings in services.items()}
        name = slug(project or self.tree.name)
        groups = self._groups(built)
        spec = Spec(
            name=name,
            title=project if project and project != name else "",
            services=built,
            addons=self.addons,
            env_groups=groups,
            environments=self._patches(built),
        )
        return Reading(file=self.path, dialect="railway", spec=spec, keys=ledger.close(), warnings=tuple(self.warnings))

    def _name(self, base: Settings) -> str:
        if title := base.get("title"):
            return slug(title)
        stem, _, file = self.path.rpartition("/")
        match = FILE.search(file)
        if match and match["name"]:
            return slug(match["name"])
        folder = stem.rpartition("/")[2]
        if folder and folder not in (".", ".railway"):
            return slug(folder)
        return "cron" if base.get("cron") else "web"

    def _plugins(self) -> None:
        """The `plugins` of Railway's early years: databases of the project."""
        if "plugins" not in self.view:
            return
        names = self.view.texts("plugins")
        self.view.honoured("plugins", reason=NOT_OFFICIAL)
        for index, name in enumerate(names):
            if kind := addon_kind(name):
                self.addons[slug(name)] = make_addon(kind, name)
            else:
                self.view.ledger.note((*self.view.at("plugins"), index), Fate.IGNORED, "Railway's plugins were databases; this names none")

    def _services(self, base: Settings) -> dict[str, Settings]:
        entries = list(self._entries())
        if not entries:
            return {self._name(base): base}
        found: dict[str, Settings] = {}
        for name, view in entries:
            settings = gather(view)
            view.honoured("name", "type", reason=NOT_OFFICIAL)
            view.ignored("autoDeploy", "autoStart", reason="deploys follow the project's triggers")
            if self._is_addon(slug(name), settings):
                continue
            if slug(name) != name:
                settings["title"] = name
            found[slug(name)] = {**base, **settings}
        return found or {self._name(base): base}

    def _entries(self) -> Iterator[tuple[str, View]]:
        raw = self.view.raw("services")
        if isinstance(raw, dict):
            yield from self.view.view("services").items()
        elif raw is not None:
            for index, entry in enumerate(self.view.views("services")):
                yield str(entry.raw("name") or f"service-{index + 1}"), entry

    def _is_addon(self, name: str, settings: Settings) -> bool:
        """Whether an entry is a database by its image."""
        image = str(settings.get("image") or "").rsplit("/", 1)[-1]
        kind = addon_kind(image.partition(":")[0])
        if not kind:
            return False
        version = re.sub(r"[^0-9.].*", "", image.partition(":")[2])
        facts = {"image": settings["image"], "env": resolved(settings.get("env", {}), name), "version": version}
        self.addons[name] = make_addon(kind, name).model_copy(update=facts)
        return True

    def _crons(self, services: dict[str, Settings]) -> dict[str, Settings]:
        """`crons`, a list or a mapping: a path of the service called, or a command run, on a schedule. Not Railway's, yet written."""
        raw = self.view.raw("crons")
        if raw is None:
            return services
        entries = list(self.view.view("crons").items()) if isinstance(raw, dict) else [("", e) for e in self.view.views("crons")]
        first = next(iter(services))
        triggers: list[ScheduleTrigger] = []
        for index, (key, entry) in enumerate(entries):
            name = key or entry.text("name", reason=NOT_OFFICIAL) or f"cron-{index + 1}"
            schedule = cron(entry, "schedule")
            path = next((entry.text(k, reason=NOT_OFFICIAL) for k in ("endpoint", "path", "url") if k in entry), "")
            settings: Settings = {}
            for command in ("command", "startCommand"):
                take_text(entry, command, settings, "start", NOT_OFFICIAL)
            entry.honoured("schedule", reason=NOT_OFFICIAL)
            if schedule and settings.get("start"):
                services[slug(name)] = {**services[first], **settings, "cron": schedule, "health_path": None, "health_timeout": None}
            elif schedule:
                triggers.append(ScheduleTrigger(schedule=schedule, path=path or "/", name=name))
        services[first] = {**services[first], "triggers": triggers}
        return services

    def _environments(self, services: dict[str, Settings]) -> None:
        """Gather `environments.<name>`; laid over the base settings of each service."""
        self.overrides: dict[str, dict[str, Settings]] = {}
        raw = self.view.raw("environments")
        if raw is None:
            return
        for name, view in self.view.view("environments").items():
            override = gather(view)
            override.pop("title", None)
            target = ENVIRONMENTS.get(name, slug(name))
            self.overrides[target] = {service: {**settings, **override} for service, settings in services.items()}

    def _patches(self, built: dict[str, Service]) -> dict[str, dict[str, Any]]:
        patches: dict[str, dict[str, Any]] = {}
        for environment, services in self.overrides.items():
            before = {name: _plain(service) for name, service in built.items()}
            after = {name: _plain(self._service(settings, name)) for name, settings in services.items()}
            patches[environment] = {"services": merge_patch(before, after)} if before != after else {}
        return patches

    def _groups(self, services: dict[str, Service]) -> dict[str, EnvGroup]:
        """`${{shared.KEY}}` names a group; its values are in the dashboard, so they are asked for."""
        keys = {value.key for service in services.values() for value in _flat_values(service.env) if isinstance(value, FromGroup)}
        return {"shared": EnvGroup(env={key: SecretValue() for key in sorted(keys)})} if keys else {}

    def _service(self, settings: Settings, name: str) -> Service:
        env = resolved(settings.get("env", {}), name)
        commands: dict[str, str] = {}
        for key in ("start", "build_command", "install", "release", "post_deploy"):
            commands[key], lifted = lift(settings.get(key) or "", name)
            env.update(lifted)
            self.addons.update({k: v for k, v in railway_addons(settings.get(key) or "").items() if k not in self.addons})
        self._addons_of(env)
        values: dict[str, Any] = {
            "title": settings.get("title", "") if slug(settings.get("title") or name) == name else "",
            "root": _relative(settings.get("root") or ""),
            "repository": settings.get("repo") or "",
            "build": _build(settings, commands),
            "build_filter": _filter(settings.get("watch") or []),
            "command": commands["start"],
            "env": env,
            "resources": Resources(cpu=settings.get("cpu"), memory=settings.get("memory")),
            "scale": _scale(settings),
            "disks": _disks(settings),
            "restart": _restart(settings),
            "rollout": Rollout(overlap=_seconds(settings.get("overlap"))),
            "release_command": Hook(command=commands["release"]) if commands["release"] else None,
            "hooks": {"post_deploy": Hook(command=commands["post_deploy"])} if commands["post_deploy"] else {},
            "shutdown_grace": _seconds(settings.get("draining")),
            "region": settings.get("region") or "",
            "health": _health(settings),
            "triggers": tuple(settings.get("triggers", ())) + _pushes(settings),
            "extensions": {"railway": settings["railway"]} if settings.get("railway") else {},
        }
        if settings.get("cron"):
            return CronService(schedule=settings["cron"], **values)
        domains = tuple(Domain(host=host) for host in settings.get("domains", ()))
        return WebService(
            port=_port(settings, env, commands["start"]), force_https=bool(settings.get("force_https")), domains=domains, **values
        )

    def _addons_of(self, env: Env) -> None:
        for value in _flat_values(env):
            if isinstance(value, FromAddOn) and value.addon not in self.addons and (kind := addon_kind(value.addon)):
                self.addons[value.addon] = make_addon(kind, value.addon)


def resolved(env: Env, service: str) -> dict[str, EnvValue]:
    """Variables with their references understood. One that is a reference to itself (`PORT = "${{PORT}}"`) is what Homeport sets anyway."""
    found: dict[str, EnvValue] = {}
    for name, value in env.items():
        if not isinstance(value, PlainValue):
            found[name] = value
        elif not re.fullmatch(rf"\$\{{\{{\s*{re.escape(name)}\s*\}}\}}", value.value):
            found[name] = railway_references(value.value, service)
    return found


def _flat_values(env: Env) -> Iterator[EnvValue]:
    for value in env.values():
        yield from value.parts if isinstance(value, Template) else (value,)


def _plain(service: Service) -> dict[str, Any]:
    return service.model_dump(mode="json", exclude_defaults=True)


def _port(settings: Settings, env: Env, command: str) -> int | None:
    """The port the program insists on: said outright, as the variable PORT, or in its command line."""
    value = env.get("PORT")
    if isinstance(value, PlainValue) and value.value.isdecimal() and 1 <= int(value.value[:6]) <= 65535:
        return settings.get("port") or int(value.value)
    return settings.get("port") or fixed_port(command)


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


def _relative(path: str) -> str:
    cleaned = re.sub(r"^(?:\./|/)+", "", path.strip()).rstrip("/")
    return "" if cleaned == "." else cleaned


def _build(settings: Settings, commands: dict[str, str]) -> Build:
    name = settings.get("builder")
    dockerfile = _relative(settings.get("dockerfile") or "")
    kind = {
        "DOCKERFILE": "dockerfile",
        "DOCKER": "dockerfile",
        "HEROKU": "buildpacks",
        "PAKETO": "buildpacks",
        "BUILDPACKS": "buildpacks",
    }.get(name or "")
    if settings.get("image"):
        kind = "image"
    elif kind is None and dockerfile and not name:
        kind = "dockerfile"
    options: dict[str, Any] = {}
    if name and name not in ("DOCKERFILE", "DOCKER"):
        options["railway_builder"] = settings.get("builder_text") or name
    if settings.get("packages"):
        options["packages"] = settings["packages"]
    if settings.get("providers"):
        options["providers"] = settings["providers"]
    providers = settings.get("providers") or []
    return Build.model_validate({
        "builder": kind or "auto",
        "command": commands["build_command"],
        "install": commands["install"],
        "prebuild": settings.get("prebuild", ()),
        "image": settings.get("image") or "",
        "dockerfile": dockerfile,
        "context": _relative(settings.get("context") or ""),
        "env": resolved(settings.get("build_env", {}), ""),
        "runtime": providers[0] if len(providers) == 1 else "",
        "options": options,
    })  # fmt: skip


def _filter(patterns: list[str]) -> BuildFilter:
    """Watch patterns are those of .gitignore: a leading `/` is the root, `!` takes back."""
    return BuildFilter(
        paths=tuple(p.lstrip("/") for p in patterns if not p.startswith("!")),
        ignored_paths=tuple(p[1:].lstrip("/") for p in patterns if p.startswith("!")),
    )


def _scale(settings: Settings) -> Scale:
    regions: dict[str, int] = settings.get("regions") or {}
    replicas = settings.get("replicas")
    instances = sum(regions.values()) if regions else 1 if replicas is None else replicas
    return Scale(instances=instances, regions=regions, scale_to_zero=bool(settings.get("sleep")))


def _restart(settings: Settings) -> Restart:
    return Restart(policy=settings.get("restart") or "always", max_retries=settings.get("retries"))


def _health(settings: Settings) -> HealthCheck | None:
    path, timeout = settings.get("health_path"), settings.get("health_timeout")
    interval = _seconds(settings.get("health_interval"))
    if path:
        return HealthCheck(path=path if path.startswith("/") else f"/{path}", deadline=_seconds(timeout), interval=interval)
    return None if timeout is None else HealthCheck(kind="tcp", deadline=_seconds(timeout), interval=interval)


def _disks(settings: Settings) -> tuple[Disk, ...]:
    disks = [Disk(name="data", mount_path=settings["mount"])] if settings.get("mount") else []
    for index, text in enumerate(settings.get("volumes", ())):
        source, _, target = text.rpartition(":")
        disks.append(Disk(name=source or f"data-{index + 1}", mount_path=target))
    return tuple(disks)


def _pushes(settings: Settings) -> tuple[PushTrigger, ...]:
    if settings.get("auto_deploy") is False:
        return (PushTrigger(when="off"),)
    return (PushTrigger(branch=settings["branch"]),) if settings.get("branch") else ()
