"""Services, key-value stores and databases of a render.yaml."""

from __future__ import annotations

import re
from typing import Any, Literal, cast

from homeport.blueprints.commands import fixed_port
from homeport.blueprints.naming import Names
from homeport.blueprints.render.addons import PLAN, REGION, read_ip_rules, read_key_value
from homeport.blueprints.render.env import Context, Resources, Variables, read_variables
from homeport.blueprints.view import View
from homeport.model.base import parse_size
from homeport.model.env import PlainValue
from homeport.model.route import Match, Redirect, Rewrite, Route, SetHeaders, ToUrl
from homeport.model.service import (
    Build,
    BuildFilter,
    CronService,
    Disk,
    Domain,
    HealthCheck,
    Hook,
    Maintenance,
    PreviewOptions,
    PrivateService,
    PushTrigger,
    Scale,
    Service,
    StaticService,
    WebService,
    WorkerService,
)
from homeport.model.service import Resources as Limits

GIB = 1 << 30
LANGUAGES = ("node", "python", "python3", "ruby", "go", "rust", "elixir", "java", "php", "bun", "deno", "docker", "image", "static")
PROGRAM_ONLY = (
    "startCommand",
    "dockerCommand",
    "dockerfilePath",
    "dockerContext",
    "preDeployCommand",
    "numInstances",
    "scaling",
    "disk",
    "healthCheckPath",
    "maxShutdownDelaySeconds",
    "initialDeployHook",
)
_CRON = re.compile(r"^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|\S+(\s+\S+){4})$")


def read_service(view: View, context: Context, into: Resources) -> None:
    """One entry of `services`: a service, or an add-on when its type is `redis` or `keyvalue`."""
    title = view.text("name")
    kind = view.text("type").lower()
    if not title:
        view.problem(None, "a service needs a `name`")
    if not kind:
        view.problem(None, "a service needs a `type` (web, pserv, worker, cron, keyvalue)", fix="Add `type: web`.")
    if not title or not kind:
        return
    if kind in ("redis", "keyvalue"):
        name = context.addons.claim(title)
        into.addons[name] = read_key_value(view, title, name)
        return
    name = context.services.claim(title)
    service = _service(view, kind, title, name, context, into)
    if service is not None:
        into.services[name] = service


def _service(view: View, kind: str, title: str, name: str, context: Context, into: Resources) -> Service | None:
    runtime = _runtime(view)
    static = runtime == "static" or kind == "static"
    variables = read_variables(view, context)
    if isinstance(view.raw("env"), dict):
        view.approximated("env", reason="`env` names the runtime; the mapping is read as variables")
        variables.env |= {str(k): PlainValue(value=str(v)) for k, v in view.raw("env").items()}
    common: dict[str, Any] = {
        "title": Names.title(title, name),
        "root": view.folder("rootDir"),
        "region": view.text("region"),
        "build_filter": _build_filter(view),
        "env_groups": variables.groups,
        "previews": _previews(view),
        "triggers": _triggers(view),
        "repository": view.text("repo"),
    }
    view.ignored("region", reason=REGION)
    view.approximated("repo", reason="the source at hand is deployed; the address is kept")
    for key, value in variables.previews.items():
        into.in_preview("services", name, "env", key, value=value)
    if static:
        return _static(view, common, name, variables, into)
    common["build"], common["command"] = _build(view, runtime)
    port = _take_port(kind, variables, common["build"], common["command"])
    common["env"] = variables.env
    common["resources"] = Limits(plan=view.text("plan", reason=PLAN).lower())
    if kind == "cron":
        return _cron(view, common)
    common |= _running(view)
    if kind == "web":
        return _web(view, common, port)
    if kind in ("pserv", "private"):
        health = _health(view)
        return PrivateService(**common, health=health, port=port)
    if kind == "worker":
        view.ignored("healthCheckPath", reason="a worker answers no requests")
        view.ignored("domain", "domains", "renderSubdomainPolicy", "ipAllowList", reason="a worker has no address")
        return WorkerService(**common)
    if kind == "workflow":
        view.approximated("type", reason="runs as a worker; tasks are not started by Render's API here")
        return WorkerService(**common)
    if kind == "job":
        view.approximated("type", reason="runs once per deploy")
        return CronService(**{k: v for k, v in common.items() if k not in ("scale", "disks")}, schedule="", job=True)
    view.problem("type", f"{kind[:40]!r} is no service type", fix="Use web, pserv, worker, cron or keyvalue.")
    return None


def _runtime(view: View) -> str:
    named = view.raw("runtime")
    old = view.raw("env")
    view.honoured("runtime")
    if isinstance(old, str):
        view.honoured("env")
        if named is not None and str(named) != old:
            view.ignored("env", reason="`runtime` says it as well, and is the newer name")
    runtime = str(named if named is not None else old if isinstance(old, str) else "").strip().lower()
    if runtime and runtime not in LANGUAGES:
        view.approximated("runtime" if named is not None else "env", reason="no runtime of this name is known: the language is detected")
    return "python" if runtime == "python3" else runtime


def _build(view: View, runtime: str) -> tuple[Build, str]:
    command, start, docker_command = view.text("buildCommand"), view.text("startCommand"), view.text("dockerCommand")
    dockerfile, context = view.folder("dockerfilePath"), view.folder("dockerContext")
    credentials = _credential(view)
    image = ""
    raw_image = view.raw("image")
    if isinstance(raw_image, dict):
        inner = view.view("image")
        image = inner.text("url")
        credentials = _credential(inner, "creds") or credentials
        if not image:
            inner.problem(None, "an image needs its `url`")
    elif raw_image is not None:
        image = view.text("image")
        view.approximated("image", reason="Render wants `image: {url: …}`; the text is read as the address")
    if runtime == "image" or (image and runtime not in LANGUAGES):
        view.ignored("buildCommand", "dockerfilePath", "dockerContext", reason="an image that exists is not built")
        if not image:
            view.problem("runtime" if "runtime" in view else "env", "runtime image needs `image: {url: …}`")
        return Build(builder="image", image=image, registry_credentials=credentials), docker_command or start
    if runtime == "docker" or (not runtime and (dockerfile or docker_command)):
        if command:
            view.ignored("buildCommand", reason="the Dockerfile says how it is built")
        if start and docker_command:
            view.ignored("startCommand", reason="dockerCommand says how a Docker service starts")
        elif start:
            view.approximated("startCommand", reason="read as dockerCommand, which is Render's name for a Docker service")
        build = Build(builder="dockerfile", dockerfile=dockerfile, context=context, registry_credentials=credentials)
        return build, docker_command or start
    unused = "only a Docker service has this; the runtime is " + (runtime or "detected")
    view.ignored("dockerfilePath", "dockerContext", reason=unused)
    if docker_command and start:
        view.ignored("dockerCommand", reason=unused)
    known = runtime if runtime in LANGUAGES else ""
    return Build(builder="command" if command else "auto", command=command, runtime=known or runtime), start or docker_command


def _credential(view: View, key: str = "registryCredential") -> str:
    if isinstance(view.raw(key), dict):
        inner = view.view(key)
        if isinstance(inner.raw("fromRegistryCreds"), dict):
            return inner.view("fromRegistryCreds").text("name")
        return inner.text("name")
    return view.text(key)


def _build_filter(view: View) -> BuildFilter:
    inner = view.view("buildFilter")
    return BuildFilter(paths=inner.texts("paths"), ignored_paths=inner.texts("ignoredPaths"))


def _previews(view: View) -> PreviewOptions:
    inner = view.view("previews")
    generation = inner.word("generation")
    if generation not in ("", "off", "manual", "automatic"):
        inner.problem("generation", f"{generation[:40]!r} is no way of making previews", fix="Use automatic, manual or off.")
        generation = ""
    for old in ("pullRequestPreviewsEnabled", "previewsEnabled"):
        enabled = view.flag(old, reason="the older name of previews.generation")
        if enabled is not None and not generation:
            generation = "automatic" if enabled else "off"
    older = view.text("previewPlan", reason="the older name of previews.plan")
    plan = (inner.text("plan") or older).lower()
    expire = inner.integer("expireAfterDays", low=1)
    return PreviewOptions(
        generation=cast("Literal['', 'off', 'manual', 'automatic']", generation),
        plan=plan,
        instances=inner.integer("numInstances", low=0),
        expire_after_days=expire,
    )


def _triggers(view: View) -> tuple[PushTrigger, ...]:
    branch, when = view.text("branch"), view.word("autoDeployTrigger")
    auto = view.flag("autoDeploy")
    chosen: Literal["commit", "checks-pass", "off"] = "off" if auto is False else "commit"
    if when:
        if when not in ("off", "commit", "checkspass"):
            view.problem("autoDeployTrigger", f"{when[:40]!r} starts no deploy", fix="Use commit, checksPass or off.")
        chosen = "off" if when == "off" else "checks-pass" if when == "checkspass" else "commit"
        if auto is not None:
            view.ignored("autoDeploy", reason="autoDeployTrigger says it more exactly")
    return (PushTrigger(when=chosen, branch=branch),) if branch or when or auto is not None else ()


def _running(view: View) -> dict[str, Any]:
    """What web, private and worker services have in common beyond the build."""
    found: dict[str, Any] = {"scale": _scale(view), "disks": _disks(view)}
    if (command := view.text("preDeployCommand")) != "":
        found["release_command"] = Hook(command=command)
    if (command := view.text("initialDeployHook")) != "":
        found["first_deploy_command"] = Hook(command=command)
    grace = view.integer("maxShutdownDelaySeconds", low=0, high=86400)
    if grace is not None:
        found["shutdown_grace"] = grace
    return found


def _scale(view: View) -> Scale:
    instances = view.integer("numInstances", low=0, high=1000)
    inner = view.view("scaling")
    low, high = inner.integer("minInstances", low=0, high=1000), inner.integer("maxInstances", low=0, high=1000)
    if low is not None and high is not None and low > high:
        inner.problem("minInstances", f"minInstances ({low}) is above maxInstances ({high})")
        high = None
    return Scale(
        instances=instances if instances is not None else low or 1,
        min=low,
        max=high,
        target_cpu=inner.number("targetCPUPercent"),
        target_memory=inner.number("targetMemoryPercent"),
    )


def _disks(view: View) -> tuple[Disk, ...]:
    if "disk" not in view or view.raw("disk") is None:
        view.honoured("disk")
        return ()
    inner = view.view("disk")
    if not isinstance(view.raw("disk"), dict):
        return ()
    path = inner.text("mountPath")
    if not path.startswith("/"):
        inner.problem("mountPath" if path else None, "a disk needs a `mountPath` that starts with `/`")
        return ()
    size = inner.integer("sizeGB", low=1, high=1 << 20)
    in_bytes = None if size is None else size * GIB
    if in_bytes is None and "size" in inner:
        try:
            in_bytes = parse_size(inner.text("size"))
            inner.approximated("size", reason="Render's name is `sizeGB`; read as the size")
        except ValueError as error:
            inner.problem("size", str(error), fix="Write `sizeGB: 1`.")
    name = inner.text("name")
    return (Disk(name=name, source=name, mount_path=path, size=in_bytes),)


def _health(view: View) -> HealthCheck | None:
    path = view.text("healthCheckPath")
    return HealthCheck(path=path if path.startswith("/") else f"/{path}") if path else None


def _take_port(kind: str, variables: Variables, build: Build, command: str) -> int | None:
    """The port a program insists on: written in its start command, or given to a container as `PORT`. A native program reads
    `PORT` from its environment, and there Homeport's own choice stands. Takes `PORT` out of the variables."""
    given = variables.env.get("PORT")
    number = int(given.value) if isinstance(given, PlainValue) and re.fullmatch(r"\d{1,5}", given.value) else 0
    listens = kind in ("web", "pserv", "private") and 1 <= number <= 65535
    contained = build.builder in ("image", "dockerfile")
    if listens:
        variables.env = {key: value for key, value in variables.env.items() if key != "PORT"}
        item = variables.places.get("PORT")
        if item is not None and not contained:
            item.approximated("key", "value", reason="Homeport chooses the port of each instance and tells it as PORT")
    fixed = fixed_port(command)
    return fixed if fixed is not None else number if listens and contained else None


def _web(view: View, common: dict[str, Any], port: int | None) -> WebService:
    allowed, notes = read_ip_rules(view)
    if any(rule.description for rule in notes):
        common["extensions"] = {"render": {"ipAllowList": {rule.source: rule.description for rule in notes if rule.description}}}
    view.ignored("staticPublishPath", "headers", "routes", reason="only a static site has this; the runtime is not static")
    return WebService(
        **common,
        health=_health(view),
        port=port,
        domains=_domains(view),
        default_domain=_default_domain(view),
        maintenance=_maintenance(view),
        ip_allow_list=allowed,
    )


def _domains(view: View) -> tuple[Domain, ...]:
    hosts = [*view.texts("domain"), *view.texts("domains")]
    return tuple(Domain(host=host.lower()) for host in dict.fromkeys(hosts) if host)


def _default_domain(view: View) -> bool:
    return view.word("renderSubdomainPolicy") != "disabled"


def _maintenance(view: View) -> Maintenance:
    inner = view.view("maintenanceMode")
    return Maintenance(enabled=bool(inner.flag("enabled", False)), page=inner.text("uri"))


def _cron(view: View, common: dict[str, Any]) -> CronService:
    schedule = view.text("schedule").strip()
    if not _CRON.match(schedule):
        view.problem(
            "schedule" if schedule else None,
            f"a cron needs a `schedule` of five fields, not {schedule[:40]!r}",
            fix='Write `schedule: "0 3 * * *"`.',
        )
    view.ignored("healthCheckPath", "domain", "domains", "ipAllowList", reason="a cron job answers no requests")
    view.ignored("numInstances", "scaling", reason="one run of a cron job is one instance")
    disks = _disks(view)
    return CronService(**common, schedule=schedule, disks=disks)


def _static(view: View, common: dict[str, Any], name: str, variables: Variables, into: Resources) -> StaticService:
    command = view.text("buildCommand")
    publish = view.folder("staticPublishPath")
    root = common["root"]
    if root and (publish == root or publish.startswith(root + "/")):
        publish = publish[len(root) + 1 :]
    view.ignored("plan", reason="files are served by the edge, which has no size")
    view.ignored(*PROGRAM_ONLY, reason="a static site runs no program")
    allowed, _ = read_ip_rules(view)
    into.routes += _headers(view, name) + _routes(view, name)
    return StaticService(
        **common,
        env=variables.env,
        build=Build(builder="command" if command else "none" if publish else "auto", command=command, runtime="static"),
        publish=publish,
        domains=_domains(view),
        default_domain=_default_domain(view),
        ip_allow_list=allowed,
        maintenance=_maintenance(view),
    )


def _headers(view: View, service: str) -> list[Route]:
    found = []
    for item in view.views("headers"):
        path, name, value = item.text("path", "/*"), item.text("name"), item.text("value")
        if not name:
            item.problem(None, "a header needs its `name`")
            continue
        found.append(Route(service=service, match=Match(path=path, syntax="glob"), action=SetHeaders(response={name: value})))
    return found


def _routes(view: View, service: str) -> list[Route]:
    found = []
    for item in view.views("routes"):
        kind, source, target = item.text("type").lower(), item.text("source"), item.text("destination")
        if kind not in ("redirect", "rewrite") or not source or not target:
            item.problem(
                "type" if kind not in ("redirect", "rewrite") else None, "a route needs type (redirect or rewrite), source and destination"
            )
            continue
        action: Redirect | Rewrite | ToUrl
        if kind == "redirect":
            action = Redirect(to=target, status=301)
        else:
            action = ToUrl(url=target) if target.startswith(("http://", "https://")) else Rewrite(to=target)
        found.append(Route(service=service, match=Match(path=source, syntax="glob"), action=action))
    return found
