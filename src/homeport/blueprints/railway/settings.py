"""The settings of one service, gathered from a mapping in whichever of the places people write them.

Gathering and building are two steps so that an environment's settings can be laid over the base ones, as Railway does it.
"""

from __future__ import annotations

import re
from typing import Any

from homeport.blueprints.view import View, scalar_text
from homeport.model.base import parse_size
from homeport.model.env import Env, EnvValue, GeneratedValue, PlainValue, SecretValue

Settings = dict[str, Any]
"""Setting name to value; None resets one to Railway's default."""

NOT_OFFICIAL = "Railway itself does not read this key; Homeport takes it at its word"
DETECTED = "Homeport detects the language and builds with its own builder in the place of Railway's"
CONTAINER = "acted upon by the container builder; the plan says so when there is none"
OWN_MACHINERY = "about Railway's own build machinery; kept for writing it back"
PACKAGES = "kept for the container builder; without one these packages must be on the machine"
REGION = "instances run on the machines there are; the region is kept as their label"


def take_text(view: View, key: str, into: Settings, name: str, reason: str = "") -> None:
    """Gather a text setting; null resets it."""
    if key in view:
        into[name] = view.text(key, reason=reason) or None


def take_seconds(view: View, key: str, into: Settings, name: str, reason: str = "") -> None:
    """Gather a number of seconds, given as a number or as text."""
    if key in view:
        seconds = view.number(key, reason=reason)
        if seconds is not None and not 0 <= seconds <= 86_400 * 30:
            view.problem(key, "a number of seconds from 0 to 2592000 is expected here")
            seconds = None
        into[name] = seconds


def gather(view: View) -> Settings:
    """Everything a mapping says about one service, be it the file's top, an environment's or an entry of `services`."""
    found: Settings = {}
    if isinstance(view.raw("build"), str):
        take_text(view, "build", found, "build_command", NOT_OFFICIAL)
    else:
        _build(view.view("build"), found)
    _deploy(view.view("deploy"), found)
    _flat(view, found)
    return found


def _build(view: View, found: Settings) -> None:
    builder(view, found)
    take_text(view, "buildCommand", found, "build_command")
    take_text(view, "installCommand", found, "install", NOT_OFFICIAL)
    take_text(view, "dockerfilePath", found, "dockerfile", CONTAINER)
    take_text(view, "dockerfile", found, "dockerfile", f"{NOT_OFFICIAL}; {CONTAINER}")
    for key in ("dockerContext", "context"):
        take_text(view, key, found, "context", f"{NOT_OFFICIAL}; {CONTAINER}")
    take_text(view, "rootDirectory", found, "root", NOT_OFFICIAL)
    take_text(view, "publishDirectory", found, "publish", NOT_OFFICIAL)
    if "watchPatterns" in view:
        found["watch"] = list(view.texts("watchPatterns"))
    for key in ("env", "variables", "args", "buildArgs"):
        if key in view:
            found["build_env"] = {**found.get("build_env", {}), **variables(view, key)}
    plan(view.view("nixpacksPlan"), found)
    plan(view.view("nixpacks"), found)
    for key in ("railpackVersion", "nixpacksVersion", "nixpacksConfigPath", "railpackConfigPath", "buildEnvironment", "cache"):
        if key in view:
            found.setdefault("railway", {})[key] = view.raw(key)
    view.approximated("nixpacksConfigPath", "railpackConfigPath", reason=f"{DETECTED}; the file named here is for Railway's")
    view.ignored("railpackVersion", "nixpacksVersion", "buildEnvironment", "cache", reason=OWN_MACHINERY)


def builder(view: View, found: Settings) -> None:
    """`builder`, in any case: NIXPACKS, RAILPACK, DOCKERFILE, HEROKU, PAKETO."""
    if "builder" not in view:
        return
    name = view.text("builder").strip().upper().replace("-", "_")
    if name in ("NIXPACKS", "RAILPACK"):
        view.approximated("builder", reason=DETECTED)
    elif name in ("HEROKU", "PAKETO", "BUILDPACKS"):
        view.approximated("builder", reason="Homeport's own builder is used; buildpacks run when the container builder has them")
    elif name in ("DOCKERFILE", "DOCKER"):
        view.honoured("builder", reason=CONTAINER)
    elif name:
        found["builder_text"] = view.text("builder")
        view.ignored("builder", reason="Railway knows RAILPACK, NIXPACKS, DOCKERFILE, HEROKU and PAKETO; the language is detected instead")
    found["builder"] = name or None


def plan(view: View, found: Settings) -> None:
    """A Nixpacks plan: `providers`, `phases`, `start`, `variables`; also the short forms people write."""
    providers = [p for p in view.texts("providers", reason=DETECTED) if p != "..."]
    if providers:
        found["providers"] = providers
        view.approximated("providers", reason=DETECTED)
    phases(view.view("phases"), found)
    _packages(view, found)
    start = view.view("start")
    take_text(start, "cmd", found, "start")
    if "variables" in view:
        found["env"] = {**found.get("env", {}), **variables(view, "variables")}


_LAYERS = ("cacheDirectories", "paths", "includedFiles", "onlyIncludeFiles", "nixOverlays", "nixpkgsArchive", "nixPkgsArchive", "name")


def phases(view: View, found: Settings) -> None:
    """Nixpacks phases: `setup`, `install`, `build`, and others of the user's own making."""
    for name, phase in view.items():
        commands = " && ".join(c for c in phase.texts("cmds") if c != "...")
        if commands and name == "install":
            found["install"] = commands
        elif commands and name == "build":
            found.setdefault("build_command", commands)
        elif commands:
            found["prebuild"] = [*found.get("prebuild", []), commands]
            phase.approximated("cmds", reason="runs before the build command")
        phase.approximated("dependsOn", reason="Homeport's order is fixed: setup, install, build")
        _packages(phase, found)
        phase.ignored(*_LAYERS, reason="about the layers of a Nixpacks image; Homeport's build cache is content-addressed")


def _packages(view: View, found: Settings) -> None:
    for key in ("nixPkgs", "aptPkgs", "nixLibs", "aptPackages", "packages"):
        names = [n for n in view.texts(key) if n != "..."]
        if names:
            found["packages"] = [*found.get("packages", []), *names]
        view.approximated(key, reason=PACKAGES)


def _deploy(view: View, found: Settings) -> None:
    take_text(view, "startCommand", found, "start")
    if "preDeployCommand" in view:
        found["release"] = " && ".join(view.texts("preDeployCommand")) or None
    _health(view, found)
    _restart(view, found)
    _scale(view, found)
    if "cronSchedule" in view:
        found["cron"] = cron(view, "cronSchedule")
    for key in ("overlapSeconds", "deploymentOverlapSeconds"):
        take_seconds(view, key, found, "overlap")
    take_seconds(view, "drainingSeconds", found, "draining")
    for key in ("runtime", "useLegacyStacker", "ipv6EgressEnabled"):
        if key in view:
            found.setdefault("railway", {})[key] = view.raw(key)
    view.ignored("runtime", "useLegacyStacker", "ipv6EgressEnabled", reason="about Railway's own runtime; kept for writing it back")
    take_text(view, "requiredMountPath", found, "mount")
    _deploy_unofficial(view, found)


def _deploy_unofficial(view: View, found: Settings) -> None:
    """What people write under `deploy` though Railway knows it elsewhere, or not at all."""
    take_text(view, "buildCommand", found, "build_command", NOT_OFFICIAL)
    take_text(view, "installCommand", found, "install", NOT_OFFICIAL)
    take_text(view, "rootDirectory", found, "root", NOT_OFFICIAL)
    take_text(view, "postDeployCommand", found, "post_deploy", NOT_OFFICIAL)
    for key in ("port", "internalPort"):
        if key in view:
            found["port"] = view.integer(key, low=1, high=65535, reason=NOT_OFFICIAL)
    for key in ("env", "envVars", "variables", "environment"):
        if isinstance(view.raw(key), dict):
            found["env"] = {**found.get("env", {}), **variables(view, key)}
    scripts = view.view("scripts")
    take_text(scripts, "preDeploy", found, "release", NOT_OFFICIAL)
    take_text(scripts, "postDeploy", found, "post_deploy", NOT_OFFICIAL)
    for entry in view.views("ingress") if isinstance(view.raw("ingress"), list) else ():
        for key in ("internal_port", "internalPort", "port"):
            if (port := entry.integer(key, low=1, high=65535, reason=NOT_OFFICIAL)) is not None and key != "port":
                found["port"] = port
        if entry.flag("force_https", reason=NOT_OFFICIAL):
            found["force_https"] = True
        entry.approximated("path", "type", "protocol", "port", "domain", reason="the service answers on its host with all paths")
    limits(view.view("limits"), found)
    override = view.view("limitOverride")
    limits(override.view("containers"), found)
    resources = view.view("resources")
    limits(resources, found)


def limits(view: View, found: Settings) -> None:
    """CPU and memory of one instance, in the units people write: cores, `500m`, millicores; bytes, `512Mi`, MB."""
    limits_inside = view.view("limits") if isinstance(view.raw("limits"), dict) else None
    if limits_inside:
        limits(limits_inside, found)
    for key in ("cpu", "cpus", "vCPUs"):
        if key in view and (cores := _cores(view, key)):
            found["cpu"] = cores
    for key in ("memory", "memoryBytes", "memoryGB", "memoryMB"):
        if key not in view:
            continue
        text = view.text(key) + {"memoryGB": "GB", "memoryMB": "MB"}.get(key, "")
        try:
            found["memory"] = parse_size(int(text) if re.fullmatch(r"\d+", text) else text) or None
        except ValueError as error:
            view.problem(key, str(error))


def _cores(view: View, key: str) -> float | None:
    text = view.text(key).strip()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", text)
    if not match:
        view.problem(key, f"{text[:40]!r} is not an amount of cpu", "Write cores (`0.5`) or millicores (`500m`).")
        return None
    cores = float(match[1])
    return cores / 1000 if match[2] or cores >= 100 else cores


def _health(view: View, found: Settings) -> None:
    take_text(view, "healthcheckPath", found, "health_path")
    take_seconds(view, "healthcheckTimeout", found, "health_timeout")
    nested = view.raw("healthcheck")
    if isinstance(nested, dict):
        inner = view.view("healthcheck")
        take_text(inner, "path", found, "health_path", NOT_OFFICIAL)
        for key, name in (("timeout", "health_timeout"), ("interval", "health_interval")):
            take_seconds(inner, key, found, name, NOT_OFFICIAL)
    else:
        take_text(view, "healthcheck", found, "health_path", NOT_OFFICIAL)
    take_seconds(view, "healthcheckInterval", found, "health_interval", NOT_OFFICIAL)


_POLICIES = {"ON_FAILURE": "on-failure", "ALWAYS": "always", "NEVER": "never", "UNLESS_STOPPED": "unless-stopped", "NO": "never"}


def _policy(view: View, key: str, found: Settings, reason: str) -> None:
    text = view.text(key, reason=reason)
    policy = _POLICIES.get(text.strip().upper().replace("-", "_"))
    if policy is None and text:
        view.problem(key, f"{text[:40]!r} is not a restart policy", "Use ON_FAILURE, ALWAYS or NEVER.")
    found["restart"] = policy


def _restart(view: View, found: Settings) -> None:
    for key, reason in (("restartPolicyType", ""), ("restartPolicy", NOT_OFFICIAL)):
        if key not in view:
            continue
        if isinstance(view.raw(key), dict):
            inner = view.view(key)
            _policy(inner, "type", found, NOT_OFFICIAL)
            if "maxRetries" in inner:
                found["retries"] = inner.integer("maxRetries", low=0, high=1_000_000, reason=NOT_OFFICIAL)
            continue
        _policy(view, key, found, reason)
    if "restartPolicyMaxRetries" in view:
        found["retries"] = view.integer("restartPolicyMaxRetries", low=0, high=1_000_000)


def _scale(view: View, found: Settings) -> None:
    for key in ("numReplicas", "replicas"):
        if key in view:
            found["replicas"] = view.integer(key, low=0, high=1000, reason="" if key == "numReplicas" else NOT_OFFICIAL)
    if "multiRegionConfig" in view:
        regions: dict[str, int] = {}
        for region, entry in view.view("multiRegionConfig").items():
            regions[region] = entry.integer("numReplicas", 1, low=0, high=1000) or 0
            entry.approximated("numReplicas", reason=REGION)
        if view.data["multiRegionConfig"]:
            view.approximated("multiRegionConfig", reason=REGION)
        if sum(regions.values()) > 1000:
            view.problem("multiRegionConfig", "more than 1000 instances in all")
        found["regions"] = regions or None
    if "region" in view:
        take_text(view, "region", found, "region")
        view.approximated("region", reason=REGION)
    if "sleepApplication" in view:
        found["sleep"] = view.flag("sleepApplication")


def cron(view: View, key: str) -> str | None:
    """A five-field cron expression; reports anything else."""
    text = view.text(key).strip()
    if text and not (len(text.split()) == 5 or re.fullmatch(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly)", text)):
        view.problem(
            key, f"{text[:60]!r} is not a cron expression of five fields", "Write minute, hour, day, month, weekday: `*/15 * * * *`."
        )
        return None
    return text or None


def _flat(view: View, found: Settings) -> None:
    """Settings that people write at the top, or in an entry of `services`, without `build` and `deploy` around them."""
    for key, name in (("start", "start"), ("startCommand", "start"), ("command", "start"), ("buildCommand", "build_command"),
                      ("installCommand", "install"), ("root", "root"), ("rootDirectory", "root"), ("image", "image"),
                      ("preDeployCommand", "release"), ("healthcheckPath", "health_path"), ("dockerfilePath", "dockerfile"),
                      ("region", "region"), ("protocol", "protocol")):  # fmt: skip
        if isinstance(view.raw(key), str):
            take_text(view, key, found, name, NOT_OFFICIAL)
    for key in ("port", "internalPort"):
        if key in view:
            found["port"] = view.integer(key, low=1, high=65535, reason=NOT_OFFICIAL)
    for key in ("env", "envVars", "variables", "environmentVariables"):
        if isinstance(view.raw(key), dict):
            found["env"] = {**found.get("env", {}), **variables(view, key)}
    if isinstance(view.raw("resources"), dict):
        limits(view.view("resources"), found)
    if isinstance(view.raw("phases"), dict):
        phases(view.view("phases"), found)
    if isinstance(view.raw("source"), dict):
        _source(view.view("source"), found)
    elif isinstance(view.raw("source"), str):
        take_text(view, "source", found, "root", NOT_OFFICIAL)
    networking = view.view("networking")
    for key in ("customDomains", "domains"):
        if key in networking:
            found["domains"] = list(networking.texts(key, reason=NOT_OFFICIAL))
    if isinstance(view.raw("volumes"), list):
        found["volumes"] = list(view.texts("volumes", reason=NOT_OFFICIAL))
    if isinstance(view.raw("domains"), list):
        found["domains"] = list(view.texts("domains", reason=NOT_OFFICIAL))


def _source(view: View, found: Settings) -> None:
    take_text(view, "rootDirectory", found, "root", NOT_OFFICIAL)
    take_text(view, "image", found, "image", NOT_OFFICIAL)
    take_text(view, "branch", found, "branch", NOT_OFFICIAL)
    take_text(view, "repo", found, "repo", NOT_OFFICIAL)


def variables(view: View, key: str) -> Env:
    """A mapping of variables: text (references not yet resolved), or `{required, default, generate, description}`."""
    result: dict[str, EnvValue] = {}
    inner = view.view(key)
    for name, value in inner.data.items():
        if isinstance(value, dict) and value:
            result[name] = _described(View(inner.ledger, value, inner.at(name)))
        elif isinstance(value, list):
            inner.problem(name, "text is expected here, not a list")
        else:
            inner.take(name, reason=NOT_OFFICIAL)
            result[name] = PlainValue(value=scalar_text("" if isinstance(value, dict) else value))
    return result


def _described(view: View) -> EnvValue:
    description = view.text("description", reason=NOT_OFFICIAL)
    generated = view.raw("generate") or view.raw("generator") or view.raw("generateValue")
    view.honoured("generate", "generator", "generateValue", reason=NOT_OFFICIAL)
    required = view.flag("required", True, reason=NOT_OFFICIAL)
    for key in ("value", "default"):
        if key in view and view.raw(key) is not None:
            text = view.text(key, reason=NOT_OFFICIAL)
            if key == "value" and text:
                return PlainValue(value=text)
            return SecretValue(required=bool(required), description=description, default=text or None)
    if generated:
        return GeneratedValue(description=description)
    return SecretValue(required=bool(required), description=description)
