"""Reads a Compose project into the spec."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import ValidationError

from homeport.blueprints.compose import verdicts
from homeport.blueprints.compose.addons import AddOns, server_command
from homeport.blueprints.compose.dotenv import DotenvInvalid, parse_dotenv
from homeport.blueprints.compose.fields import Fields
from homeport.blueprints.compose.images import TEXT_PORTS, Engine, engine_of
from homeport.blueprints.compose.keys import ROOT
from homeport.blueprints.compose.load import load
from homeport.blueprints.compose.project import Project, Rules
from homeport.blueprints.compose.services import (
    build_of,
    container_of,
    depends_of,
    disks_of,
    env_files_of,
    health_of,
    hooks_of,
    main_port,
    ports_of,
    resources_of,
    restart_of,
    rollout_of,
    scale_of,
)
from homeport.blueprints.compose.shapes import account
from homeport.blueprints.compose.values import Credential, Links, Values, magic
from homeport.blueprints.naming import Names, bare_name
from homeport.blueprints.overrides import merge_patch
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import scalar_text
from homeport.model.addon import External, Temporal
from homeport.model.container import Port
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Path, Reading
from homeport.model.service import CronService, PrivateService, WebService, WorkerService
from homeport.model.spec import NamedResource, Spec

DEFAULT_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDE_NAMES = ("compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml")

_NAME = re.compile(r"(?:docker-?)?compose(?:[._-][\w.-]+)?\.ya?ml\Z", re.IGNORECASE)
_SERVICES = re.compile(r"^services:[ \t]*(?:#.*)?\r?\n(?:[ \t]*(?:#.*)?\r?\n)*[ \t]+[\"']?[\w.-]+[\"']?:", re.MULTILINE)
_RUNS = re.compile(r"^[ \t]+(?:image|build|extends|provider):", re.MULTILINE)
_HINTED_PORT = re.compile(r"^# port: *(\d{2,5})[ \t]*\r?$", re.MULTILINE)
_MENTION = re.compile(
    r"(?<![\w./-])(?:https?://)?([A-Za-z0-9][\w.-]*):(\d{2,5})(?![\d.:])|://(?:[^@/\s]*@)?([A-Za-z0-9][\w.-]*)(?=[/?\"'\s]|$)"
)
"""A host with its port, or the host of a URL."""
NEVER = "0 0 31 2 *"
"""A schedule that never comes: a job that runs only when asked."""


class ComposeReader:
    """`compose.yaml`, `docker-compose.yml`, their overrides, and Coolify's and Dokploy's templates."""

    dialect: ClassVar[str] = "compose"
    precedence: ClassVar[int] = 20

    def recognises(self, file_name: str, text: str) -> bool:
        name = bare_name(file_name)
        if _NAME.match(name):
            return True
        return name.endswith((".yml", ".yaml")) and bool(_SERVICES.search(text)) and bool(_RUNS.search(text))

    def candidates(self, tree: SourceTree) -> list[str]:
        here = set(tree.list())
        named = [file for file in _chosen_files(tree, "") if tree.text(file) is not None]
        return [*named[:1], *(name for name in DEFAULT_NAMES if name in here and name not in named[:1])]

    def read(self, tree: SourceTree, path: str) -> Reading:
        overrides = _overrides(tree, path)
        rules = Rules(complete=not _partial(path), references=not _partial(path))
        project = load(tree, path, overrides=overrides, rules=rules)
        mapping = _Mapping(project)
        try:
            spec = mapping.spec()
        except ValidationError as error:
            for item in error.errors(include_url=False, include_context=False, include_input=False):
                project.problem(mapping.source(item["loc"]), item["msg"].removeprefix("Value error, "))
            raise BlueprintInvalid(file=path, problems=project.problems, text=project.main.text) from error
        if project.problems:
            raise BlueprintInvalid(file=path, problems=project.problems, text=project.main.text)
        warnings = list(project.warnings)
        if project.unset:
            names = ", ".join(sorted(project.unset))
            warnings.append(f"Variables without a value count as empty: {names}. Set them in `.env` before a deploy.")
        if overrides:
            warnings.append(f"Compose lays {', '.join(overrides)} over {path} by itself, and so does Homeport.")
        if mapping.missing_env_files:
            warnings.append(f"Env files that are not in the source: {', '.join(sorted(mapping.missing_env_files))}.")
        keys = account(project.main, ROOT, verdicts.overrides(project.main, mapping.roles))
        return Reading(file=path, dialect=self.dialect, spec=spec, keys=keys, warnings=tuple(dict.fromkeys(warnings)))


def _chosen_files(tree: SourceTree, folder: str) -> list[str]:
    """Files that `COMPOSE_FILE` of the folder's `.env` names."""
    try:
        values = parse_dotenv(tree.text(posixpath.join(folder, ".env")) or "")
    except (DotenvInvalid, ValueError):
        return []
    separator = values.get("COMPOSE_PATH_SEPARATOR") or ":"
    return [posixpath.normpath(posixpath.join(folder, one)) for one in values.get("COMPOSE_FILE", "").split(separator) if one]


def _overrides(tree: SourceTree, path: str) -> tuple[str, ...]:
    folder, name = posixpath.split(path)
    chosen = _chosen_files(tree, folder)
    if chosen:
        return tuple(file for file in chosen[1:] if tree.text(file) is not None) if chosen[0] == path else ()
    if name not in DEFAULT_NAMES:
        return ()
    here = set(tree.list(folder))
    return tuple(posixpath.join(folder, one) for one in OVERRIDE_NAMES if one in here)[:1]


def _partial(path: str) -> bool:
    """Whether a file's name says that it may be laid over another one (`docker-compose.override.yml`, `compose.prod.yaml`)."""
    name = bare_name(path)
    return name not in DEFAULT_NAMES and bool(_NAME.match(name))


@dataclass
class Role:
    """What a Compose service becomes."""

    kind: str
    """`addon`, `ui`, `provider`, `job`, `web`, `private`, `worker`."""
    name: str
    engine: Engine | None = None


@dataclass
class _Mapping:
    project: Project
    names: Names = field(default_factory=Names)
    roles: dict[str, Role] = field(default_factory=dict)
    missing_env_files: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        data = self.project.data
        self.services = {name: service or {} for name, service in (data.get("services") or {}).items()}
        self.jobs = {name: job or {} for name, job in (data.get("jobs") or {}).items()}
        self.by_title: dict[str, str] = {}
        self.linked: dict[str, list[str]] = {}
        for service in self.services.values():
            for link in service.get("links") or ():
                target, mark, alias = str(link).partition(":")
                if mark:
                    self.linked.setdefault(target, []).append(alias)
        self.at: Path = ()

    def source(self, where: tuple[int | str, ...]) -> Path:
        """The path of the file behind a path of the spec, or of the service that was being read."""
        if self.at:
            return self.at
        title = next((title for title, role in self.roles.items() if len(where) > 1 and role.name == where[1]), None)
        return ("services", title) if title else ()

    def spec(self) -> Spec:
        """The whole project."""
        data = self.project.data
        self._roles()
        links = self._links()
        values = Values(self.project.values, links)
        title = self.project.name
        name = Names().claim(title)
        services: dict[str, Any] = {}
        addons: dict[str, Any] = {}
        maker = AddOns(Values(self.project.values, Links(links.services, links.addons, links.ports)))
        for service_title, raw in self.services.items():
            self.at = ("services", service_title)
            role, fields = self.roles[service_title], self._fields("services", service_title, raw)
            if role.kind == "addon" and role.engine is not None:
                addons[role.name] = maker.make(
                    fields, role.engine, self._aliases(service_title, raw), Names.title(service_title, role.name)
                )
            elif role.kind == "provider":
                addons[role.name] = self._provider(fields, service_title, role)
            elif role.kind != "ui":
                services[role.name] = self._service(fields, service_title, role, values)
        self._user_interfaces(addons)
        for job_title, raw in self.jobs.items():
            self.at = ("jobs", job_title)
            services[self.by_title[job_title]] = self._scheduled(self._fields("jobs", job_title, raw), job_title, values)
        self.at = ()
        extensions = {key: value for key, value in data.items() if key.startswith("x-") and key != "x-homeport"}
        if data.get("models"):
            extensions["models"] = data["models"]
        spec = Spec(
            name=name,
            title=Names.title(title, name),
            services=services,
            addons=addons,
            extensions=extensions,
            **{group: self._resources(group) for group in ("volumes", "networks", "configs", "secrets")},
        )
        patch = data.get("x-homeport")
        self.at = ("x-homeport",)
        return Spec.model_validate(merge_patch(spec.canonical(), patch)) if isinstance(patch, dict) and patch else spec

    def _fields(self, group: str, title: str, raw: Any) -> Fields:
        return Fields(self.project, raw, (group, title))

    # Roles

    def _roles(self) -> None:
        completed = {
            other
            for service in self.services.values()
            for other, options in (service["depends_on"].items() if isinstance(service.get("depends_on"), dict) else ())
            if isinstance(options, dict) and options.get("condition") == "service_completed_successfully"
        }
        mentioned = self._mentioned()
        temporal = False
        for title, raw in self.services.items():
            role = self._role(title, raw, completed, mentioned)
            temporal = temporal or (role.engine is not None and role.engine.kind == "temporal")
            self.roles[title] = role
            self.by_title[title] = role.name
        for role in self.roles.values():
            if role.kind == "ui" and not temporal:
                role.kind = "web"
        for title in self.jobs:
            self.by_title[title] = self.names.claim(title)

    def _role(self, title: str, raw: dict[str, Any], completed: set[str], mentioned: dict[str, int | None]) -> Role:
        name = self.names.claim(title)
        fields = self._fields("services", title, raw)
        if raw.get("provider"):
            return Role("provider", name)
        engine = engine_of(fields.resolved(raw.get("image"))) if raw.get("build") is None and raw.get("image") else None
        if engine is not None and self._is_server(raw, title in completed):
            return Role("ui" if engine.kind == "temporal-ui" else "addon", name, engine)
        restart = fields.text("restart").partition(":")[0]
        mode = fields.inner("deploy").text("mode")
        if mode.endswith("-job") or (title in completed and restart not in ("always", "unless-stopped")):
            return Role("job", name)
        ports = ports_of(fields)
        if main_port(ports) is not None or self._public_by_magic(raw) is not None:
            return Role("web", name)
        return Role("private" if ports or title in mentioned else "worker", name)

    @staticmethod
    def _is_server(raw: dict[str, Any], completes: bool) -> bool:
        if completes or (str(raw.get("restart")) in ("no", "False") and raw.get("command")):
            return False
        entrypoint = raw.get("entrypoint")
        if entrypoint and server_command(entrypoint) is None:
            return False
        return server_command(raw.get("command")) is not None

    def _public_by_magic(self, raw: dict[str, Any]) -> int | None:
        """The port of Coolify's `SERVICE_URL_<NAME>_<PORT>`: 0 when it names none; None when there is no such variable."""
        env = raw.get("environment")
        found: int | None = None
        for key, value in env.items() if isinstance(env, dict) else ():
            if not key.startswith(("SERVICE_URL_", "SERVICE_FQDN_")):
                continue
            if (what := magic(key)) and (value is None or str(value).startswith("/")):
                if what.port:
                    return what.port
                found = 0 if found is None else found
        return found

    def _mentioned(self) -> dict[str, int | None]:
        """Services that others reach by name in their variables or commands, with the port where it is said."""
        hidden = {title for title, raw in self.services.items() if not raw.get("ports") and not raw.get("expose")}
        found: dict[str, int | None] = {}
        for raw in self.services.values():
            env = raw.get("environment")
            texts = [scalar_text(v) for v in env.values() if isinstance(v, str)] if isinstance(env, dict) else []
            command = raw.get("command")
            texts += [scalar_text(c) for c in command] if isinstance(command, list) else [scalar_text(command)] if command else []
            for text in texts:
                for match in _MENTION.finditer(text):
                    title = match[1] or match[3]
                    if title in hidden:
                        found[title] = found.get(title) or (int(match[2]) if match[2] else None)
        self.mentioned = found
        return found

    # References

    def _links(self) -> Links:
        links = Links()
        for title, role in self.roles.items():
            target = links.addons if role.kind == "addon" else links.services
            for alias in (title, *self._aliases(title, self.services[title])):
                target.setdefault(alias, role.name)
            if role.engine is not None and role.kind == "addon":
                links.ports[role.name] = role.engine.port
        for title in self.jobs:
            links.services.setdefault(title, self.by_title[title])
        self._credentials(links)
        return links

    def _credentials(self, links: Links) -> None:
        """A variable that is an add-on's user, database or (while nobody gave it a value) password is that wherever it is used."""
        plain = AddOns(Values(self.project.values, Links()))
        owners: dict[str, list[Credential]] = {}
        for title, role in self.roles.items():
            if role.kind != "addon" or role.engine is None:
                continue
            fields = self._fields("services", title, self.services[title])
            for variable, credential in plain.credentials(fields, role.engine, role.name):
                owners.setdefault(variable, []).append(credential)
        for variable, found in owners.items():
            if len({one.reference.addon for one in found}) == 1:
                links.credentials[variable] = found[0]

    def _aliases(self, title: str, raw: dict[str, Any]) -> tuple[str, ...]:
        """Other host names of a service: its title when that is no valid name, container name, host name, network aliases."""
        name = self.by_title.get(title, title)
        found = [title, scalar_text(raw.get("container_name")), scalar_text(raw.get("hostname"))]
        networks = raw.get("networks")
        for options in networks.values() if isinstance(networks, dict) else ():
            if isinstance(options, dict):
                found += [scalar_text(alias) for alias in options.get("aliases") or ()]
        found += self.linked.get(title, ())
        return tuple(dict.fromkeys(alias for alias in found if alias and alias != name and "$" not in alias))

    # Services

    def _service(self, fields: Fields, title: str, role: Role, values: Values) -> Any:
        ports = ports_of(fields)
        common = self._common(fields, title, role.name, values)
        if role.kind == "job":
            return CronService(schedule="", job=True, ports=ports, **common)
        common["restart"] = restart_of(fields)
        if role.kind == "worker":
            return WorkerService(health=health_of(fields, None), ports=ports, **common)
        main = self._main(title, fields, ports, role.kind)
        common["health"] = health_of(fields, main)
        beside = tuple(port for port in ports if port != Port(target=main or 1)) if main else ports
        if role.kind == "web":
            return WebService(port=main, ports=beside, **common)
        protocol: Any = "tcp" if any(p.published for p in ports) or main in TEXT_PORTS else "http"
        return PrivateService(port=main, ports=beside, protocol=protocol, **common)

    def _main(self, title: str, fields: Fields, ports: tuple[Port, ...], kind: str) -> int | None:
        if kind == "web":
            published = main_port(ports)
            if by_magic := self._public_by_magic(fields.data):
                return by_magic
            if published is not None:
                return int(published.target)
            hinted = _HINTED_PORT.search(self.project.main.text)
            exposed = next((p.target for p in ports if p.protocol == "tcp"), None)
            return exposed or (int(hinted[1]) if hinted and len(self.services) - len(self.roles) == 0 else None)
        if ports:
            return next((int(p.target) for p in ports if p.protocol == "tcp"), int(ports[0].target))
        port = self.mentioned.get(title)
        return port if port and 0 < port < 65536 else None

    def _common(self, fields: Fields, title: str, name: str, values: Values) -> dict[str, Any]:
        build, root, repository = build_of(fields, values, self.project.folder)
        command = fields.command("command")
        files = env_files_of(fields, self.project.folder)
        self.missing_env_files.update(file.path for file in files if file.required and self._absent(file.path))
        extensions = {key: value for key, value in fields.data.items() if key.startswith("x-")}
        if fields.data.get("models"):
            extensions["models"] = fields.data["models"]
        result: dict[str, Any] = {
            "title": Names.title(title, name),
            "aliases": self._aliases(title, fields.data),
            "root": root,
            "repository": repository,
            "build": build,
            "command": "" if command is None else command,
            "env": values.env(fields.data.get("environment")),
            "env_files": files,
            "resources": resources_of(fields),
            "scale": scale_of(fields),
            "disks": disks_of(fields),
            "rollout": rollout_of(fields),
            "hooks": hooks_of(fields),
            "shutdown_grace": fields.duration("stop_grace_period"),
            "stop_signal": fields.text("stop_signal"),
            "depends_on": depends_of(fields, self.by_title),
            "profiles": fields.texts("profiles"),
            "container": container_of(fields),
            "extensions": extensions,
        }
        return {key: value for key, value in result.items() if value not in ("", (), {}, None)}

    def _absent(self, path: str) -> bool:
        try:
            return self.project.tree.text(path) is None
        except ValueError:
            return False

    def _scheduled(self, fields: Fields, title: str, values: Values) -> CronService:
        triggers = fields.inner("triggers")
        schedules = [
            Fields(self.project, {"cron": s} if isinstance(s, str) else s, fields.path) for s in triggers.data.get("schedule") or ()
        ]
        common = self._common(fields, title, self.by_title[title], values)
        common["health"] = health_of(fields, None)
        common["ports"] = ports_of(fields)
        first = schedules[0] if schedules else Fields(self.project, {}, fields.path)
        kept = {key: value for key, value in triggers.data.items() if key != "schedule"}
        if len(schedules) > 1 or first.text("missed_fires") or first.text("concurrency") == "queue":
            kept["schedule"] = triggers.data["schedule"]
        if kept:
            common["extensions"] = {**common.get("extensions", {}), "triggers": kept}
        return CronService(schedule=first.text("cron") or NEVER, timezone=first.text("timezone") or "UTC", **common)

    def _provider(self, fields: Fields, title: str, role: Role) -> External:
        provider = fields.inner("provider")
        rest = {key: value for key, value in fields.data.items() if key not in ("provider", "environment") and value is not None}
        extensions = {"options": provider.data["options"]} if provider.data.get("options") else {}
        return External(
            type=provider.text("type"),
            title=Names.title(title, role.name),
            env=Values(self.project.values, Links()).env(fields.data.get("environment")),
            extensions={**extensions, **({"compose": rest} if rest else {})},
        )

    def _user_interfaces(self, addons: dict[str, Any]) -> None:
        """Temporal's web interface is a part of the add-on."""
        interfaces = {title: self.services[title] for title, role in self.roles.items() if role.kind == "ui"}
        if not interfaces:
            return
        for name, addon in addons.items():
            if isinstance(addon, Temporal):
                kept = {**addon.extensions, "ui": interfaces}
                addons[name] = addon.model_copy(update={"ui": True, "extensions": kept})
                return

    def _resources(self, group: str) -> dict[str, NamedResource]:
        result = {}
        for name, entry in (self.project.data.get(group) or {}).items():
            fields = Fields(self.project, entry, (group, name))
            external = fields.data.get("external")
            options = {
                key: value
                for key, value in fields.data.items()
                if key not in ("name", "driver", "external", "file", "environment", "content", "labels") and value is not None
            }
            result[str(name)] = NamedResource(
                name=fields.text("name") or (scalar_text(external.get("name")) if isinstance(external, dict) else ""),
                driver=fields.text("driver"),
                external=True if isinstance(external, dict) else bool(fields.flag("external")),
                file=fields.text("file"),
                environment=fields.text("environment"),
                content=fields.text("content"),
                labels=fields.pairs("labels"),
                options=options,
            )
        return result
