"""Services, add-ons and groups of a spec as entries of a render.yaml."""

from __future__ import annotations

import math
import re
from typing import Any

from homeport.blueprints.commands import command_line
from homeport.model.addon import AddOn, IpRule, Postgres
from homeport.model.env import Env, EnvGroup, EnvValue, PlainValue
from homeport.model.reading import Loss
from homeport.model.service import PushTrigger, Service, StaticService
from homeport.model.spec import Spec

RUNTIMES = ("docker", "elixir", "go", "image", "node", "python", "ruby", "rust")
REGIONS = ("oregon", "ohio", "frankfurt", "singapore", "virginia")
PLANS = frozenset(
    ["free", "starter", "standard", "pro", "pro plus", "pro max", "pro ultra", "basic-256mb", "basic-1gb", "basic-4gb"]
    + [f"pro-{size}gb" for size in (4, 8, 16, 32, 64, 128, 192, 256, 384, 512)]
    + [f"accelerated-{size}gb" for size in (16, 32, 64, 128, 256, 384, 512, 768, 1024)]
)
TYPES = {"web": "web", "private": "pserv", "worker": "worker", "cron": "cron", "static": "web"}
PROPERTIES = {"url": "connectionString", "host": "host", "port": "port", "hostport": "hostport", "user": "user", "password": "password"}
PUBLIC = {"public-url": "RENDER_EXTERNAL_URL", "public-host": "RENDER_EXTERNAL_HOSTNAME"}
GIB = 1 << 30


class Entries:
    """Writes entries and keeps account of what they cannot say."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.losses: list[Loss] = []
        self.preview: dict[str, Any] = spec.environments.get("preview") or {}

    def lose(self, path: str, reason: str) -> None:
        self.losses.append(Loss(path=path, reason=reason))

    def folder(self, at: str, path: str) -> str:
        """A path of the repository; one outside of it cannot be said."""
        if path.startswith(("..", "/")) or "://" in path:
            self.lose(at, f"{path[:60]} lies outside of the repository")
            return ""
        return path

    def resources(self, pieces: tuple[dict[str, Service], dict[str, AddOn], dict[str, EnvGroup]]) -> dict[str, Any]:
        """The lists of one environment, empty ones left out."""
        services, addons, groups = pieces
        written = [entry for name, service in services.items() if (entry := self._service(name, service))]
        databases = [self._database(name, addon) for name, addon in addons.items() if addon.kind == "postgres"]
        stores = [entry for name, addon in addons.items() if addon.kind != "postgres" and (entry := self._store(name, addon))]
        lists = {
            "services": written + stores,
            "databases": databases,
            "envVarGroups": [{"name": name, "envVars": self._group(name, group)} for name, group in groups.items()],
        }
        return {key: value for key, value in lists.items() if value}

    def _service(self, name: str, service: Service) -> dict[str, Any] | None:
        at = f"services.{name}"
        if service.kind not in TYPES or (service.kind == "cron" and service.job):
            what = "a job that runs once per deploy" if service.kind == "cron" else f"a {service.kind} service"
            self.lose(at, f"Render has no {what.removeprefix('a ')}")
            return None
        entry: dict[str, Any] = {"type": TYPES[service.kind], "name": service.title or name}
        if isinstance(service, StaticService):
            entry |= self._static(at, name, service)
        else:
            entry |= self._build(at, service)
            if service.kind == "cron":
                entry["schedule"] = service.schedule
            else:
                entry |= self._running(at, service)
            self._put(entry, "plan", self._plan(f"{at}.resources.plan", service.resources.plan))
            self._put(entry, "region", self._region(at, service.region))
        entry |= self._common(at, name, service)
        return entry

    @staticmethod
    def _put(entry: dict[str, Any], key: str, value: Any) -> None:
        if value not in (None, "", (), [], {}):
            entry[key] = value

    def _plan(self, at: str, plan: str) -> str:
        if plan and plan.lower() not in PLANS:
            self.lose(at, "Render has no size of this name")
            return ""
        return plan.lower()

    def _region(self, at: str, region: str) -> str:
        if region and region not in REGIONS:
            self.lose(f"{at}.region", "Render has no region of this name")
            return ""
        return region

    def _common(self, at: str, name: str, service: Service) -> dict[str, Any]:
        entry: dict[str, Any] = {}
        self._put(entry, "rootDir", self.folder(f"{at}.root", service.root))
        self._put(entry, "repo", service.repository)
        for trigger in service.triggers:
            if isinstance(trigger, PushTrigger):
                self._put(entry, "branch", trigger.branch)
                entry["autoDeployTrigger"] = {"commit": "commit", "checks-pass": "checksPass", "off": "off"}[trigger.when]
            else:
                self.lose(f"{at}.triggers", f"Render has no {trigger.kind} trigger on a service")
        filtered = {"paths": list(service.build_filter.paths), "ignoredPaths": list(service.build_filter.ignored_paths)}
        self._put(entry, "buildFilter", {key: value for key, value in filtered.items() if value})
        variables: list[dict[str, Any]] = [{"fromGroup": group} for group in service.env_groups]
        preview = _below(self.preview, "services", name, "env")
        variables += self._variables(f"{at}.env", service.env, preview)
        port = service.port if service.kind in ("web", "private") else None
        if port is not None and service.build.builder in ("image", "dockerfile") and "PORT" not in service.env:
            variables.append({"key": "PORT", "value": str(port)})
        self._put(entry, "envVars", variables)
        return entry

    def _build(self, at: str, service: Service) -> dict[str, Any]:
        build, command = service.build, command_line(service.command)
        entry: dict[str, Any] = {"runtime": self._runtime(at, service)}
        credential = {"fromRegistryCreds": {"name": build.registry_credentials}} if build.registry_credentials else None
        if entry["runtime"] == "image":
            entry["image"] = {"url": build.image} | ({"creds": credential} if credential else {})
            self._put(entry, "dockerCommand", command)
        elif entry["runtime"] == "docker":
            self._put(entry, "registryCredential", credential)
            self._put(entry, "dockerfilePath", self.folder(f"{at}.build.dockerfile", build.dockerfile))
            self._put(entry, "dockerContext", self.folder(f"{at}.build.context", build.context))
            self._put(entry, "dockerCommand", command)
        else:
            steps = build.command if build.builder == "command" else " && ".join(part for part in (build.install, build.command) if part)
            self._put(entry, "buildCommand", steps)
            self._put(entry, "startCommand", command)
        return entry

    def _runtime(self, at: str, service: Service) -> str:
        build = service.build
        if build.builder in ("image", "dockerfile"):
            return "image" if build.builder == "image" else "docker"
        if build.runtime in RUNTIMES and build.runtime not in ("docker", "image"):
            return build.runtime
        line = command_line(service.command) + " " + build.command
        for language, words in (
            ("python", r"\b(python|gunicorn|uvicorn|celery|flask|pip|uv)\b"),
            ("node", r"\b(node|npm|yarn|pnpm|npx|next)\b"),
        ):
            if re.search(words, line):
                self.lose(f"{at}.build.runtime", f"Render wants the language named; {language} was taken from the command")
                return language
        self.lose(f"{at}.build.runtime", "Render wants the language named; docker is written")
        return "docker"

    def _running(self, at: str, service: Service) -> dict[str, Any]:
        entry: dict[str, Any] = {}
        scale = service.scale
        if scale.min is not None or scale.max is not None:
            bounds = {"minInstances": scale.min, "maxInstances": scale.max}
            targets = {"targetCPUPercent": scale.target_cpu, "targetMemoryPercent": scale.target_memory}
            entry["scaling"] = {key: max(1, value) for key, value in bounds.items() if value is not None}
            entry["scaling"] |= {key: int(value) for key, value in targets.items() if value is not None and 1 <= value <= 90}
            if scale.instances != (scale.min or 1):
                entry["numInstances"] = max(1, scale.instances)
        elif scale.instances > 1:
            entry["numInstances"] = scale.instances
        if service.release_command is not None:
            entry["preDeployCommand"] = command_line(service.release_command.command)
        if service.first_deploy_command is not None:
            entry["initialDeployHook"] = command_line(service.first_deploy_command.command)
        if service.shutdown_grace is not None:
            entry["maxShutdownDelaySeconds"] = min(300, max(1, math.ceil(service.shutdown_grace.total_seconds())))
        if service.health is not None and service.health.kind == "http" and service.kind in ("web", "private"):
            entry["healthCheckPath"] = service.health.path
        self._disk(at, service, entry)
        previews = {"generation": service.previews.generation, "plan": self._plan(f"{at}.previews.plan", service.previews.plan)}
        self._put(entry, "previews", {k: v for k, v in {**previews, "numInstances": service.previews.instances or None}.items() if v})
        if service.kind == "web":
            self._put(entry, "domains", [domain.host for domain in service.domains])
            if not service.default_domain:
                entry["renderSubdomainPolicy"] = "disabled"
            if service.ip_allow_list is not None:
                notes = (service.extensions.get("render") or {}).get("ipAllowList") or {}
                entry["ipAllowList"] = self._rules([IpRule(source=s, description=str(notes.get(s, ""))) for s in service.ip_allow_list])
        return entry

    def _disk(self, at: str, service: Service, entry: dict[str, Any]) -> None:
        usable = [disk for disk in service.disks if disk.kind == "volume" and disk.mount_path.startswith("/")]
        for disk in service.disks:
            if disk not in usable[:1]:
                why = "a service of Render has one disk" if disk in usable else f"Render has no {disk.kind} mount at {disk.mount_path}"
                self.lose(f"{at}.disks", why)
        if usable:
            disk = usable[0]
            entry["disk"] = {"name": disk.name or disk.source or "data", "mountPath": disk.mount_path}
            if disk.size is not None:
                entry["disk"]["sizeGB"] = max(1, math.ceil(disk.size / GIB))

    def _static(self, at: str, name: str, service: StaticService) -> dict[str, Any]:
        entry: dict[str, Any] = {"runtime": "static"}
        build = service.build
        self._put(entry, "buildCommand", " && ".join(part for part in (build.install, build.command) if part))
        self._put(entry, "staticPublishPath", self.folder(f"{at}.publish", service.publish))
        self._put(entry, "domains", [domain.host for domain in service.domains])
        if service.previews.generation:
            entry["previews"] = {"generation": service.previews.generation}
        if service.ip_allow_list is not None:
            entry["ipAllowList"] = self._rules([IpRule(source=source) for source in service.ip_allow_list])
        headers, routes = self._routes(name)
        if service.single_page:
            self.lose(f"{at}.single_page", "written as a rewrite of /* to /index.html")
            routes.append({"type": "rewrite", "source": "/*", "destination": "/index.html"})
        self._put(entry, "headers", headers)
        self._put(entry, "routes", routes)
        return entry

    def _routes(self, name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        headers: list[dict[str, Any]] = []
        routes: list[dict[str, Any]] = []
        for route in self.spec.routes:
            action, path = route.action, route.match.path
            if route.service != name or route.match.syntax not in ("glob", "exact", "prefix"):
                continue
            if action.kind == "headers":
                headers += [{"path": path, "name": key, "value": value} for key, value in action.response.items()]
            elif action.kind == "redirect":
                routes.append({"type": "redirect", "source": path, "destination": action.to})
            elif action.kind in ("rewrite", "url"):
                routes.append({"type": "rewrite", "source": path, "destination": action.to if action.kind == "rewrite" else action.url})
        return headers, routes

    def _variables(self, at: str, env: Env, preview: dict[str, Any]) -> list[dict[str, Any]]:
        found = []
        for key, value in env.items():
            entry = {"key": key} | self._variable(f"{at}.{key}", value)
            given = preview.get(key)
            if isinstance(given, str) and not {"fromDatabase", "fromService"} & set(entry):
                entry["previewValue"] = given
            found.append(entry)
        return found

    def _variable(self, at: str, value: EnvValue) -> dict[str, Any]:
        asked: dict[str, Any] = {"sync": False}
        if value.kind == "value":
            return {"value": value.value}
        if value.kind == "generated":
            return {"generateValue": True}
        if value.kind == "secret":
            if value.default:
                return {"sync": False, "value": value.default}
            return asked if value.required else {}
        if value.kind == "addon":
            return self._from_addon(at, value.addon, value.property) or asked
        if value.kind == "service":
            return self._from_service(at, value.service, value.property, value.variable) or asked
        if value.kind == "template" and all(isinstance(part, PlainValue) for part in value.parts):
            return {"value": "".join(part.value for part in value.parts if isinstance(part, PlainValue))}
        said = {"template": "text with references in it", "group": "one key of a group", "host": "a variable of whoever deploys"}
        self.lose(at, f"Render cannot say {said.get(value.kind, value.kind)}; its value is asked for")
        return asked

    def _from_addon(self, at: str, addon: str, wanted: str) -> dict[str, Any] | None:
        known = self.spec.addons.get(addon)
        if known is None or known.kind not in ("postgres", "redis"):
            self.lose(at, f"the add-on {addon} is not on Render; the value is asked for")
            return None
        title = known.title or addon
        if known.kind == "postgres":
            return {"fromDatabase": {"name": title, "property": {**PROPERTIES, "database": "database"}.get(wanted, "connectionString")}}
        return {"fromService": {"type": "keyvalue", "name": title, "property": PROPERTIES.get(wanted, "connectionString")}}

    def _from_service(self, at: str, service: str, wanted: str | None, variable: str | None) -> dict[str, Any] | None:
        known = self.spec.services.get(service)
        if known is None or known.kind not in TYPES:
            self.lose(at, f"the service {service} is not on Render; the value is asked for")
            return None
        reference = {"type": TYPES[known.kind], "name": known.title or service}
        if variable or wanted in PUBLIC:
            return {"fromService": reference | {"envVarKey": variable or PUBLIC[wanted or "public-url"]}}
        return {"fromService": reference | {"property": PROPERTIES.get(wanted or "hostport", "hostport")}}

    def _group(self, name: str, group: EnvGroup) -> list[dict[str, Any]]:
        found = self._variables(f"env_groups.{name}.env", group.env, _below(self.preview, "env_groups", name, "env"))
        for entry in found:
            if entry.keys() & {"fromDatabase", "fromService"}:
                self.lose(f"env_groups.{name}.env.{entry['key']}", "a group of Render holds no references; the value is asked for")
                entry.pop("fromDatabase", None)
                entry.pop("fromService", None)
                entry["sync"] = False
        return found

    @staticmethod
    def _rules(rules: list[IpRule]) -> list[dict[str, str]]:
        return [{"source": rule.source} | ({"description": rule.description} if rule.description else {}) for rule in rules]

    def _store(self, name: str, addon: AddOn) -> dict[str, Any] | None:
        at = f"addons.{name}"
        if addon.kind != "redis":
            self.lose(at, f"Render has no {addon.kind} add-on")
            return None
        entry: dict[str, Any] = {
            "type": "keyvalue",
            "name": addon.title or name,
            "ipAllowList": self._rules(list(addon.ip_allow_list or ())),
        }
        self._put(entry, "plan", self._plan(f"{at}.plan", addon.plan))
        self._put(entry, "previewPlan", self._plan(f"{at}.preview_plan", addon.preview_plan))
        self._put(entry, "region", self._region(at, addon.region))
        self._put(entry, "maxmemoryPolicy", addon.eviction)
        return entry

    def _database(self, name: str, addon: Postgres) -> dict[str, Any]:
        at = f"addons.{name}"
        entry: dict[str, Any] = {"name": addon.title or name}
        self._put(entry, "databaseName", addon.database)
        self._put(entry, "user", addon.user)
        self._put(entry, "plan", self._plan(f"{at}.plan", addon.plan))
        self._put(entry, "previewPlan", self._plan(f"{at}.preview_plan", addon.preview_plan))
        self._put(entry, "region", self._region(at, addon.region))
        major = addon.version.partition(".")[0]
        if addon.version and major in {str(number) for number in range(10, 19)}:
            entry["postgresMajorVersion"] = major
        elif addon.version:
            self.lose(f"{at}.version", "Render has no such version of PostgreSQL")
        if addon.disk is not None:
            entry["diskSizeGB"] = max(1, math.ceil(addon.disk / GIB))
        given = _below(self.preview, "addons", name).get("disk")
        if isinstance(given, str) and (size := re.fullmatch(r"(\d+)GiB", given)):
            entry["previewDiskSizeGB"] = int(size[1])
        if addon.disk_autoscaling is not None:
            entry["storageAutoscalingEnabled"] = addon.disk_autoscaling
        if addon.high_availability:
            entry["highAvailability"] = {"enabled": True}
        if addon.ip_allow_list is not None:
            entry["ipAllowList"] = self._rules(list(addon.ip_allow_list))
        named = [{"name": replica} for replica in addon.replica_names]
        self._put(entry, "readReplicas", named + [{}] * (addon.replicas - len(named)))
        return entry


def _below(data: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}
