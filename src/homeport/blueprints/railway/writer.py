"""Writes `railway.json`: one file per service, and what Railway keeps in its dashboard as losses."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from homeport.blueprints.patch import in_environment, losses, merge_patch
from homeport.blueprints.railway.reader import ENVIRONMENTS, RailwayReader
from homeport.blueprints.railway.references import railway_text
from homeport.blueprints.source import MemoryTree
from homeport.model.reading import Loss, Written
from homeport.model.service import CronService, Service
from homeport.model.spec import Spec

SCHEMA = "https://railway.com/railway.schema.json"
_POLICIES = {"always": "ALWAYS", "unless-stopped": "ALWAYS", "on-failure": "ON_FAILURE", "never": "NEVER"}

REASONS = (
    ("*.env.*", "Railway keeps variables in its dashboard: paste the `.env` file written beside into the service's raw editor"),
    ("*.env", "Railway keeps variables in its dashboard: paste the `.env` file written beside into the service's raw editor"),
    ("*.env_groups", "Railway's shared variables live in its dashboard"),
    ("env_groups*", "Railway's shared variables live in its dashboard"),
    ("addons*", "databases are services made in Railway's dashboard (New, Database)"),
    ("*.disks*", "volumes are attached in Railway's dashboard; the file can only demand a mount path"),
    ("*.domains*", "custom domains are set in Railway's dashboard"),
    ("*.root", "the root directory is a setting in Railway's dashboard"),
    ("*.resources*", "Railway sizes services by use; the file can limit cpu and memory only"),
    ("*.build.image", "an image to run is chosen in Railway's dashboard"),
    ("*.build*", "Railway's builders have no such setting in this file"),
    ("*.kind", "Railway's file knows web and cron services only"),
    ("routes*", "Railway has no edge rules"),
    ("environments*", "Railway's environments change `build` and `deploy` of a service only"),
    ("name", "Railway names the project in its dashboard"),
    ("title", "Railway names the project in its dashboard"),
    ("services.*.health*", "Railway's health check is a path and a deadline"),
    ("services.*.checks*", "Railway's health check is a path and a deadline"),
)


class RailwayWriter:
    """One service becomes `railway.json`, several become `railway.<service>.json` each (the path is set per service in Railway)."""

    dialect: ClassVar[str] = "railway"

    def write(self, spec: Spec) -> Written:
        documents = {_file(spec, name): _document(spec, name) for name in spec.services}
        files = {name: json.dumps(document, indent=2, ensure_ascii=False) + "\n" for name, document in documents.items()}
        found = losses(spec, self._read_back(spec, files), REASONS, "Railway's file has no key for this")
        if not spec.services:
            found = (*found, Loss(path="services", reason="there is no service to write a file for"))
        for name, service in spec.services.items():
            if text := _variables(spec, service):
                files[_file(spec, name).removesuffix(".json") + ".env"] = text
        return Written(dialect=self.dialect, files=files, losses=found)

    def _read_back(self, spec: Spec, files: dict[str, str]) -> Spec:
        tree, reader = MemoryTree(files, name=spec.name), RailwayReader()
        read = [reader.read(tree, name).spec for name in files]
        environments: dict[str, Any] = {}
        for one in read:
            for name, patch in one.environments.items():
                services = environments.setdefault(name, {"services": {}}).get("services", {})
                services.update(patch.get("services", {}))
        return Spec(
            name=spec.name,
            services={name: service for one in read for name, service in one.services.items()},
            environments={name: patch if patch["services"] else {} for name, patch in environments.items()},
        )


def _file(spec: Spec, name: str) -> str:
    only = len(spec.services) == 1
    usual = "cron" if isinstance(spec.services[name], CronService) else "web"
    return "railway.json" if only and name == usual else f"railway.{name}.json"


def _document(spec: Spec, name: str) -> dict[str, Any]:
    base = _settings(spec.services[name])
    document: dict[str, Any] = {"$schema": SCHEMA, **base}
    back = {ours: theirs for theirs, ours in ENVIRONMENTS.items()}
    environments: dict[str, Any] = {}
    for environment in spec.environments:
        try:
            there = in_environment(spec, environment).services.get(name)
        except ValueError:
            continue
        if there is not None:
            environments[back.get(environment, environment)] = merge_patch(base, _settings(there))
    if environments:
        document["environments"] = environments
    return document


def _settings(service: Service) -> dict[str, Any]:
    own = dict(service.extensions.get("railway", {})) if isinstance(service.extensions.get("railway"), dict) else {}
    build = _build(service, own)
    deploy = {**_deploy(service), **{k: v for k, v in own.items() if k in ("runtime", "useLegacyStacker")}}
    return {key: value for key, value in (("build", build), ("deploy", deploy)) if value}


def _build(service: Service, own: dict[str, Any]) -> dict[str, Any]:
    build = service.build
    builder = build.options.get("railway_builder") or ("DOCKERFILE" if build.builder == "dockerfile" else "")
    if build.builder == "buildpacks" and not builder:
        builder = "PAKETO"
    found: dict[str, Any] = {"builder": builder, "buildCommand": build.command, "dockerfilePath": build.dockerfile}
    patterns = [*service.build_filter.paths, *(f"!{p}" for p in service.build_filter.ignored_paths)]
    found["watchPatterns"] = patterns
    found["nixpacksPlan"] = _plan(service)
    versions = ("railpackVersion", "nixpacksVersion", "nixpacksConfigPath", "railpackConfigPath", "buildEnvironment")
    found |= {key: own[key] for key in versions if key in own}
    return {key: value for key, value in found.items() if value not in ("", [], {}, None)}


def _plan(service: Service) -> dict[str, Any]:
    """A Nixpacks plan, when there is something that only it can say."""
    build = service.build
    phases: dict[str, Any] = {}
    if packages := build.options.get("packages"):
        phases["setup"] = {"nixPkgs": ["...", *packages]}
    for index, command in enumerate(build.prebuild):
        phases[f"prebuild{index + 1}"] = {"cmds": [command]}
    if build.install:
        phases["install"] = {"cmds": [build.install]}
    plan: dict[str, Any] = {"phases": phases} if phases else {}
    if providers := build.options.get("providers"):
        plan["providers"] = providers
    return plan


def _deploy(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = {"startCommand": _line(service.command)}
    if service.release_command:
        found["preDeployCommand"] = [_line(service.release_command.command)]
    health = service.health
    if health and health.kind == "http" and health.role == "ready":
        found["healthcheckPath"] = health.path
    if health and health.deadline is not None and health.kind in ("http", "tcp"):
        found["healthcheckTimeout"] = _number(health.deadline.total_seconds())
    if service.restart.policy != "always" or service.restart.max_retries is not None:
        found["restartPolicyType"] = _POLICIES[service.restart.policy]
        found["restartPolicyMaxRetries"] = service.restart.max_retries
    scale = service.scale
    if scale.regions:
        found["multiRegionConfig"] = {region: {"numReplicas": count} for region, count in scale.regions.items()}
    elif scale.instances != 1:
        found["numReplicas"] = scale.instances
    found["region"] = service.region
    found["sleepApplication"] = scale.scale_to_zero or None
    if isinstance(service, CronService):
        found["cronSchedule"] = service.schedule
    if service.rollout.overlap is not None:
        found["overlapSeconds"] = _number(service.rollout.overlap.total_seconds())
    if service.shutdown_grace is not None:
        found["drainingSeconds"] = _number(service.shutdown_grace.total_seconds())
    limits = {"cpu": service.resources.cpu, "memoryBytes": service.resources.memory}
    if any(limits.values()):
        found["limitOverride"] = {"containers": {key: value for key, value in limits.items() if value}}
    if service.disks:
        found["requiredMountPath"] = service.disks[0].mount_path
    return {key: value for key, value in found.items() if value not in ("", None)}


def _line(command: tuple[str, ...] | str) -> str:
    import shlex

    return command if isinstance(command, str) else shlex.join(command)


def _number(value: float) -> int | float:
    return int(value) if value == int(value) else value


def _variables(spec: Spec, service: Service) -> str:
    """The service's variables for Railway's raw editor; secrets are left empty, to be filled in there."""
    env = {**{k: v for g in service.env_groups if g in spec.env_groups for k, v in spec.env_groups[g].env.items()}, **service.env}
    lines = []
    for name, value in env.items():
        text = railway_text(value, spec.addons)
        quoted = json.dumps(text, ensure_ascii=False) if text and any(c in text for c in " \n\"'#") else text or ""
        lines.append(f"{name}={quoted}")
    return "\n".join(lines) + "\n" if lines else ""
