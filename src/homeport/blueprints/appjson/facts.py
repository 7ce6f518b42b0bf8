"""What an app.json, or one of its `environments`, says: gathered first, so that an environment can be laid over the app.

Meanings are those of Heroku's app.json schema (devcenter.heroku.com/articles/app-json-schema) and Dokku's app.json reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from homeport.blueprints.appjson import providers
from homeport.blueprints.view import View, scalar_text
from homeport.model.addon import AddOn
from homeport.model.base import parse_size
from homeport.model.env import EnvValue, GeneratedValue, PlainValue, SecretValue
from homeport.model.reading import Fate
from homeport.model.service import HealthCheck

LANGUAGES = ("python", "nodejs", "node", "ruby", "java", "jvm", "go", "php", "scala", "clojure", "gradle", "static")
BUTTON = "written for Google's Cloud Run button; Homeport takes it at its word"


@dataclass
class Process:
    """One process type of the formation."""

    quantity: int | None = None
    size: str = ""
    command: str = ""
    minimum: int | None = None
    maximum: int | None = None
    cooldown: timedelta | None = None
    target_cpu: float | None = None
    target_memory: float | None = None
    parallel: int | None = None
    exposed: bool = False
    checks: tuple[HealthCheck, ...] = ()


@dataclass
class Facts:
    """Everything said; None where nothing is said."""

    env: dict[str, EnvValue] = field(default_factory=dict)
    described: dict[str, str] = field(default_factory=dict)
    """Descriptions of variables that have a plain value."""
    processes: dict[str, Process] = field(default_factory=dict)
    addons: dict[str, AddOn] | None = None
    scripts: dict[str, str] = field(default_factory=dict)
    prebuild: tuple[str, ...] = ()
    buildpacks: tuple[str, ...] | None = None
    stack: str = ""
    runtime: str = ""
    image: str = ""
    crons: list[tuple[str, str, str, bool]] = field(default_factory=list)
    """Command, schedule, concurrency, whether switched off."""
    web: dict[str, Any] = field(default_factory=dict)
    """Options of the web process (Cloud Run button)."""

    def over(self, base: Facts) -> Facts:
        """These facts laid over others: variables, processes and scripts by name, lists as a whole."""
        return replace(
            base,
            env={**base.env, **self.env},
            described={**base.described, **self.described},
            processes={**base.processes, **{name: _process_over(p, base.processes.get(name)) for name, p in self.processes.items()}},
            addons=base.addons if self.addons is None else self.addons,
            scripts={**base.scripts, **self.scripts},
            prebuild=self.prebuild or base.prebuild,
            buildpacks=base.buildpacks if self.buildpacks is None else self.buildpacks,
            stack=self.stack or base.stack,
            crons=self.crons or base.crons,
        )


def _process_over(over: Process, base: Process | None) -> Process:
    if base is None:
        return over
    said = {key: value for key, value in vars(over).items() if value not in (None, "", (), False)}
    return replace(base, **said)


def gather(view: View, project: str) -> Facts:
    """Read every section of an app.json, or of an environment in it."""
    found = Facts()
    env(view, found, project)
    formation(view, found)
    healthchecks(view.view("healthchecks"), found)
    addons(view, found)
    scripts(view.view("scripts"), found)
    _buildpacks(view, found)
    crons(view, found)
    _button(view, found)
    if "stack" in view:
        found.stack = view.text("stack")
        view.approximated("stack", reason="the machine's own system stands in for Heroku's stack")
    if "image" in view:
        _image(view, found)
    return found


def env(view: View, found: Facts, project: str) -> None:
    """`env`: text, or `{description, value, required, generator}`. A variable without a value is asked for; required unless it says not."""
    raw = view.raw("env")
    if isinstance(raw, list):
        for entry in view.views("env"):
            name = entry.text("name") or entry.text("key")
            if name:
                found.env[name] = _described(entry, name, found, project)
        return
    inner = view.view("env")
    for name, value in inner.data.items():
        if isinstance(value, dict):
            found.env[name] = _described(View(inner.ledger, value, inner.at(name)), name, found, project)
            if not value:
                inner.honoured(name)
        elif isinstance(value, list):
            inner.problem(name, "text or a mapping is expected here, not a list")
        else:
            found.env[name] = PlainValue(value=inner.text(name))


def _described(view: View, name: str, found: Facts, project: str) -> EnvValue:
    description = view.text("description")
    required = view.flag("required", True)
    view.ignored("order", reason="the order in which the button asks; `homeport up` asks by name")
    generator = view.text("generator")
    if generator:
        if generator != "secret":
            view.approximated("generator", reason="Heroku knows the generator `secret` only; a random value is made all the same")
        view.honoured("required", reason="a generated value is never missing")
        return GeneratedValue(format="hex", bytes=32, description=description)
    value = scalar_text(view.raw("value")) if not isinstance(view.raw("value"), dict | list) else view.text("value")
    view.honoured("value", "default")
    value = value or scalar_text(view.raw("default"))
    if value or ("value" in view and not required):
        view.honoured("required", reason="a value is given, so it is never missing")
        if description:
            found.described[name] = description
        return PlainValue(value=value)
    if name in ("HEROKU_APP_NAME", "HEROKU_PARENT_APP_NAME"):
        view.approximated("required", "description", reason="Heroku sets it for review apps; Homeport sets the project's name")
        view.ledger.note(view.path, Fate.APPROXIMATED, "Heroku sets it for review apps; Homeport sets the project's name")
        return PlainValue(value=project)
    return SecretValue(required=bool(required), description=description)


def formation(view: View, found: Facts) -> None:
    """`formation`: a mapping by process type, or the older list."""
    raw = view.raw("formation")
    if isinstance(raw, list):
        for entry in view.views("formation"):
            name = entry.text("process") or entry.text("type") or entry.text("name")
            if not name:
                entry.problem(None, "a process of the formation needs a `process` name")
            else:
                found.processes[name] = _process(entry)
        return
    inner = view.view("formation")
    for name, value in inner.data.items():
        if isinstance(value, int) and not isinstance(value, bool):
            found.processes[name] = Process(quantity=inner.integer(name, low=0, high=1000))
            continue
        if not value:
            inner.honoured(name)
        found.processes[name] = _process(View(inner.ledger, value, inner.at(name)))


def _process(view: View) -> Process:
    found = Process(quantity=view.integer("quantity", low=0, high=1000), size=view.text("size"), command=view.text("command"))
    view.honoured("size", reason="as the operator's table of plans says")
    found.parallel = view.integer("max_parallel", low=1, high=1000)
    scaling = view.view("autoscaling")
    found.minimum = scaling.integer("min_quantity", low=0, high=1000)
    found.maximum = scaling.integer("max_quantity", low=0, high=1000)
    found.cooldown = _seconds(scaling, "cooldown_period_seconds")
    scaling.approximated("polling_interval_seconds", reason="the autoscaler looks on its own schedule")
    for name, trigger in scaling.view("triggers").items():
        kind = trigger.text("type", name).lower() or name
        target = trigger.view("metadata").number("value") if kind in ("cpu", "memory") else None
        if kind == "cpu":
            found.target_cpu = target
        elif kind == "memory":
            found.target_memory = target
        trigger.approximated("metadata", "name", "type", reason="the autoscaler goes by cpu, memory and requests in flight")
    found.exposed = bool(view.view("service").flag("exposed"))
    return found


def _seconds(view: View, key: str) -> timedelta | None:
    value = view.number(key)
    if value is None:
        return None
    if not 0 <= value <= 86_400 * 30:
        view.problem(key, "a number of seconds from 0 to 2592000 is expected here")
        return None
    return timedelta(seconds=value)


def healthchecks(view: View, found: Facts) -> None:
    """Dokku's `healthchecks`, by process type."""
    for name in view.keys():  # noqa: SIM118
        checks = [check for entry in view.views(name) if (check := _check(entry)) is not None]
        process = found.processes.setdefault(name, Process())
        process.checks = tuple(checks)


def _check(view: View) -> HealthCheck | None:
    kind = view.text("type").lower() or "startup"
    role = {"startup": "startup", "readiness": "ready", "liveness": "live"}.get(kind)
    if role is None:
        view.problem("type", f"{kind[:40]!r} is not a type of check", "Use `startup`, `readiness` or `liveness`.")
        return None
    values: dict[str, Any] = {"role": role, "name": view.text("name"), "retries": view.integer("attempts", low=1, high=10_000)}
    values |= {"interval": _seconds(view, "wait"), "timeout": _seconds(view, "timeout"), "start_period": _seconds(view, "initialDelay")}
    port = view.integer("port", low=1, high=65535)
    values["port"] = str(port or "")
    command, path, body = view.texts("command"), view.text("path"), view.text("content")
    tls = view.text("scheme").lower() == "https"
    view.ignored("description", reason="a note for people")
    view.ignored("warn", "onFailure", reason="about Dokku's own reporting; Homeport's notifications tell of a failed check")
    headers = {entry.text("name"): entry.text("value") for entry in view.views("httpHeaders")}
    uptime = _seconds(view, "uptime")
    listening = view.flag("listening")
    if command:
        return HealthCheck(kind="command", command=command[0] if len(command) == 1 else command, **values)
    if path or body:
        path = path or "/"
        path = path if path.startswith("/") else f"/{path}"
        return HealthCheck(path=path, expect_body=body, headers=headers, tls=tls, **values)
    if uptime is not None and not listening:
        view.approximated("uptime", reason="the instance counts as well once it has run for this long")
        return HealthCheck(kind="none", deadline=uptime, **values)
    return HealthCheck(kind="tcp", **values)


def addons(view: View, found: Facts) -> None:
    """`addons`: `provider:plan`, or `{plan, as, options}`."""
    raw = view.raw("addons")
    if raw is None:
        return
    taken: dict[str, AddOn] = {}
    if not isinstance(raw, list):
        view.problem("addons", "a list of add-ons is expected here", 'Write `"addons": ["heroku-postgresql"]`.')
        return
    if not raw:
        view.honoured("addons")
    for index, entry in enumerate(raw):
        path = (*view.at("addons"), index)
        if isinstance(entry, str):
            text, options, attach = entry, {}, ""
        elif isinstance(entry, dict):
            inner = View(view.ledger, entry, path)
            text, attach = inner.text("plan") or inner.text("addon") or inner.text("name"), inner.text("as")
            options = dict(inner.view("options").data)
            inner.honoured("options")
        else:
            view.ledger.problem(path, "an add-on is text such as `heroku-postgresql:mini`, or a mapping with `plan`")
            continue
        provider, _, plan = text.partition(":")
        if not provider.strip():
            view.ledger.problem(path, "an add-on needs the name of its provider")
            continue
        made = providers.make(provider.strip(), plan.strip(), options, attach)
        taken[providers.name_for(made, provider, attach, taken)] = made
        _note_addon(view, path, provider.strip())
    found.addons = taken


def _note_addon(view: View, path: tuple[str | int, ...], provider: str) -> None:
    if provider in providers.NATIVE:
        view.ledger.note(path, Fate.HONOURED, "Homeport runs it; the plan's size is as the operator's table says")
    elif provider in providers.BUILT_IN:
        view.ledger.note(path, Fate.APPROXIMATED, providers.BUILT_IN[provider])
    else:
        reason = "Homeport does not run it: keep using the provider, and give its variables once with `homeport env`"
        view.ledger.note(path, Fate.APPROXIMATED, reason)


def scripts(view: View, found: Facts) -> None:
    """`scripts`, Heroku's and Dokku's."""
    for key, name in (("postdeploy", "postdeploy"), ("start", "start"), ("build", "build")):
        if key in view:
            found.scripts[name] = view.text(key)
    view.honoured("postdeploy", reason="runs once, after the first deploy of an environment")
    for key in ("pr-predestroy", "pr-predeploy", "predeploy"):
        if key in view:
            found.scripts[key] = view.text(key)
    view.approximated("pr-predestroy", reason="kept as a hook, run before a preview is removed")
    view.approximated("pr-predeploy", reason="kept as a hook of previews; the first deploy of a preview runs `postdeploy`")
    for key in ("test", "test-setup"):
        if key in view:
            found.scripts[key] = view.text(key)
    view.ignored("test", "test-setup", reason="a CI workflow runs the tests that gate a deploy; kept as a hook for writing it back")
    dokku = view.view("dokku")
    for key in ("predeploy", "postdeploy"):
        if key in dokku:
            found.scripts[f"dokku.{key}"] = dokku.text(key)
    dokku.approximated("predeploy", reason="runs before the new release starts; files it changes do not stay in the artifact")
    dokku.approximated("postdeploy", reason="kept as the hook `post_deploy`, run after the switch")


def _buildpacks(view: View, found: Facts) -> None:
    if "buildpacks" not in view:
        return
    packs: list[str] = []
    raw = view.raw("buildpacks")
    if isinstance(raw, list) and all(isinstance(item, dict) for item in raw):
        packs = [text for entry in view.views("buildpacks") if (text := entry.text("url") or entry.text("name"))]
    else:
        packs = list(view.texts("buildpacks"))
    reason = "Homeport's own builder for the language is used; other buildpacks run with the container builder"
    view.approximated("buildpacks", reason=reason)
    for index, item in enumerate(raw if isinstance(raw, list) else ()):
        for key in ("url", "name"):
            if isinstance(item, dict) and key in item:
                view.ledger.note((*view.at("buildpacks"), index, key), Fate.APPROXIMATED, reason)
    found.buildpacks = tuple(packs)


def _image(view: View, found: Facts) -> None:
    found.image = view.text("image")
    language = found.image.rpartition("/")[2].partition(":")[0]
    if found.image.startswith("heroku/") and language in LANGUAGES:
        found.runtime = "node" if language == "nodejs" else language
        view.approximated("image", reason="the builder for this language stands in for Heroku's image")
    elif "://" in found.image:
        view.ignored("image", reason="an image to build in is a name such as `heroku/ruby`, not an address; kept for writing it back")
    else:
        view.approximated("image", reason="Homeport's own builder stands in for the image to build in")


def crons(view: View, found: Facts) -> None:
    """Dokku's `cron`."""
    for entry in view.views("cron"):
        command, schedule = entry.text("command"), entry.text("schedule").strip()
        policy = entry.text("concurrency_policy", "allow").lower()
        if policy not in ("allow", "forbid", "replace"):
            entry.problem("concurrency_policy", f"{policy[:40]!r} is not a policy", "Use `allow`, `forbid` or `replace`.")
        if not command or not schedule:
            entry.problem(None, "a cron task needs a `command` and a `schedule`")
        elif len(schedule.split()) != 5 and not schedule.startswith("@"):
            entry.problem("schedule", f"{schedule[:60]!r} is not a cron expression of five fields")
        found.crons.append((command, schedule, policy, bool(entry.flag("maintenance"))))


def _button(view: View, found: Facts) -> None:
    """Keys of Google's Cloud Run button, which shares the file name."""
    hooks = view.view("hooks")
    for key in ("prebuild", "postbuild", "precreate", "postcreate"):
        commands = " && ".join(hooks.view(key).texts("commands", reason=BUTTON))
        if commands and key == "prebuild":
            found.prebuild = (commands,)
        elif commands:
            found.scripts[key] = commands
            hooks.view(key).approximated("commands", reason="runs once, after the first deploy of an environment")
    options = view.view("options")
    for key in ("memory", "cpu", "port", "concurrency", "max-instances", "http2", "allow-unauthenticated"):
        if key in options:
            found.web[key] = options.take(key, reason=BUTTON)
    if "memory" in found.web:
        try:
            found.web["memory"] = parse_size(str(found.web["memory"]))
        except ValueError as error:
            options.problem("memory", str(error))
    for key, low, high in (("port", 1, 65535), ("concurrency", 1, 1_000_000), ("max-instances", 1, 1000)):
        if key in options:
            found.web[key] = options.integer(key, low=low, high=high, reason=BUTTON)
    if "cpu" in options:
        found.web["cpu"] = options.number("cpu", reason=BUTTON)
    if options.flag("allow-unauthenticated", True) is False:
        options.ignored("allow-unauthenticated", reason="the edge has no Google identities; restrict the service with an address list")
    build = view.view("build")
    build.approximated("skip", reason="the source is built unless a Dockerfile or an image says otherwise")
    build.view("buildpacks").approximated("builder", reason="Homeport's own builder for the language is used")
