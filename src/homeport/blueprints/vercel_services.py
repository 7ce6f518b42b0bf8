"""What of a Vercel project becomes a service: functions, legacy builds, declared services, the site itself."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any, Literal

from homeport.blueprints.frameworks import STATIC, Kind, detect, kind_of, start_command
from homeport.blueprints.naming import Names
from homeport.blueprints.opening import files_below, glob_matches, join
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import View, scalar_text
from homeport.model.base import parse_size
from homeport.model.env import Env, EnvValue, FromService, PlainValue, SecretValue
from homeport.model.service import (
    Build,
    CronService,
    FunctionService,
    Hook,
    QueueTrigger,
    Resources,
    Service,
    StaticService,
    Trigger,
    WebService,
    WorkerService,
)

Runtime = Literal["workerd", "node", "python", "edge", "go", "ruby", "other"]
MAX_FUNCTIONS = 500
WHOLE = "nothing is bundled: all files of the source are there"
_SUFFIXES: dict[str, Runtime] = {
    ".js": "node", ".mjs": "node", ".cjs": "node", ".ts": "node", ".mts": "node", ".cts": "node", ".jsx": "node", ".tsx": "node",
    ".py": "python", ".go": "go", ".rb": "ruby", ".rs": "other", ".php": "other",
}  # fmt: skip
_EDGE = re.compile(r"""runtime['"]?\s*[:=]\s*['"](?:experimental-)?edge['"]""")
_BUILDERS: dict[str, Runtime] = {
    "node": "node",
    "python": "python",
    "go": "go",
    "ruby": "ruby",
    "rust": "other",
    "php": "other",
    "edge": "edge",
}
_SITES = {"next": "nextjs", "nuxt": "nuxtjs", "vercel-builder": "nuxtjs", "remix": "remix", "redwood": "redwoodjs", "hydrogen": "hydrogen",
          "gatsby-plugin-vercel-builder": "gatsby", "remix-builder": "remix", "express": "express", "hono": "hono", "fastify": "fastify",
          "h3": "h3", "nestjs": "nestjs", "elysia": "elysia", "koa": "koa", "backends": "node"}  # fmt: skip
_SERVER_FILES = frozenset({"server", "index", "main", "app", "wsgi", "asgi", "src/server", "src/index", "src/main", "src/app"})


def runtime_of(path: str) -> Runtime | None:
    return _SUFFIXES.get(PurePosixPath(path).suffix)


def function_path(file: str) -> str:
    """The path a file under `api/` answers: `api/users/[id].ts` is `/api/users/:id`, `api/index.py` is `/api`."""
    stem = re.sub(r"\.\w+$", "", file)
    stem = re.sub(r"(^|/)index$", "", stem)
    stem = re.sub(r"\[\[?\.\.\.([\w-]+)\]?\]", r":\1*", stem)
    return "/" + re.sub(r"\[([\w-]+)\]", r":\1", stem).strip("/")


class Services:
    """Collects the services of one file, and who answers which path."""

    def __init__(self, tree: SourceTree, folder: str, env: Env, build_env: Env) -> None:
        self.tree, self.folder, self.env, self.build_env = tree, folder, env, build_env
        self.names = Names()
        self.found: dict[str, Service] = {}
        self.by_path: dict[str, str] = {}
        """Path of a request or of a source file, with a leading slash, to the service that answers it."""
        self.mounts: list[str] = []
        """Folders of legacy sites, with a leading slash."""
        self.bun = ""

    def add(self, title: str, service: Service, *paths: str) -> str:
        """Keep a service under a name made from its title."""
        name = self.names.claim(title)
        self.found[name] = service
        for path in paths:
            self.by_path.setdefault(path, name)
        return name

    def update(self, name: str, **changes: Any) -> None:
        self.found[name] = self.found[name].model_copy(update=changes)

    def resolve(self, target: str) -> str | None:
        """The service that answers a path; `service:NAME` is a declared service."""
        if target.startswith("service:"):
            return self.names.find(target.removeprefix("service:"))
        return self.by_path.get(target) or self.by_path.get(target.rstrip("/"))

    # -- functions

    def discover(self) -> None:
        """Functions under `api/`, as Vercel finds them: files that begin with `_` or `.` are not."""
        for path in files_below(self.tree, join(self.folder, "api"))[:MAX_FUNCTIONS]:
            inside = path[len(self.folder) :].lstrip("/")
            hidden = any(part.startswith(("_", ".")) for part in inside.split("/"))
            if not hidden and not inside.endswith(".d.ts") and runtime_of(inside):
                self.function(inside)

    def function(self, file: str, path: str = "") -> str:
        """One function from a file of the project."""
        path = path or function_path(file)
        if (known := self.by_path.get(f"/{file}")) is not None:
            return known
        runtime = runtime_of(file) or "other"
        if runtime == "node" and self._is_edge(file):
            runtime = "edge"
        service = FunctionService(
            title=file, root=self.folder, runtime=runtime, entrypoint=file, path=path, env=self.env, build=Build(env=self.build_env)
        )
        return self.add(re.sub(r"\.\w+$", "", file), service, path, f"/{file}")

    def _is_edge(self, file: str) -> bool:
        try:
            text = self.tree.text(join(self.folder, file))
        except ValueError:
            return False
        return text is not None and _EDGE.search(text) is not None

    def functions(self) -> list[tuple[str, FunctionService]]:
        return [(name, service) for name, service in self.found.items() if isinstance(service, FunctionService)]

    def options(self, view: View, main: str) -> None:
        """`functions`: a glob of source files to limits."""
        for pattern, options in view.items():
            matching = [name for name, service in self.functions() if glob_matches(pattern, service.entrypoint)]
            if not matching and runtime_of(pattern) and "*" not in pattern and pattern.startswith("api/"):
                matching = [self.function(pattern)]
            if matching:
                self._function_options(options, matching)
            else:
                _framework_options(options)
                if isinstance(self.found.get(main), WebService):
                    kept = {
                        **self.found[main].extensions,
                        "functions": {**self.found[main].extensions.get("functions", {}), pattern: options.data},
                    }
                    self.update(main, extensions=kept)

    def _function_options(self, options: View, names: list[str]) -> None:
        changes: dict[str, Any] = {}
        if options.raw("maxDuration") == "max":
            options.honoured("maxDuration", reason="no limit is set")
        elif (seconds := options.integer("maxDuration", low=1)) is not None:
            changes["max_duration"] = seconds
        if (memory := options.integer("memory", low=1, high=1 << 20)) is not None:
            changes["memory"] = parse_size(f"{memory}MB")
        if regions := options.texts("regions"):
            changes["regions"] = regions
        options.approximated("regions", "functionFailoverRegions", reason="kept; all functions run on your machines")
        options.approximated("runtime", reason="the runtime is chosen by the file's ending; the named package is kept")
        options.approximated("includeFiles", "excludeFiles", reason=WHOLE)
        options.approximated("maxConcurrency", "supportsCancellation", "affinity", "architecture", reason="kept with the function")
        triggers = [_queue_trigger(item) for item in options.views("experimentalTriggers")]
        kept = {k: options.data[k] for k in ("runtime", "maxConcurrency", "includeFiles", "excludeFiles") if k in options.data}
        for name in names:
            service = self.found[name]
            self.found[name] = type(service).model_validate(
                {**dict(service), **changes, "triggers": (*service.triggers, *triggers), "extensions": {**service.extensions, **kept}}
            )

    # -- legacy builds

    def builds(self, view: View) -> str:
        """`builds` of the older configuration; returns the service that owns the site, empty when there is none."""
        main, static_folders = "", []
        for build in view.views("builds"):
            source, use = build.text("src") or "package.json", build.text("use")
            if not use:
                build.problem(None, 'a build needs "use"')
                continue
            builder = re.sub(r"@[^@/]*$", "", use) if "@" in use[1:] else use
            owner, kind = builder.startswith(("@vercel/", "@now/")), builder.rsplit("/", 1)[-1].removeprefix("vercel-")
            config = build.view("config")
            build.approximated("config", reason="kept with the build; options of Vercel's builder that change nothing here")
            if kind == "static" and owner:
                static_folders.append(source)
            elif kind in _BUILDERS and (owner or kind == "php"):
                self._build_functions(build, source)
            else:
                main = self._build_site(build, config, source, kind, owner) or main
        if static_folders:
            service = StaticService(root=self.folder, build=Build(builder="none", options={"src": static_folders}))
            name = self.add("site" if main else "static", service)
            main = main or name
        return main

    def _build_functions(self, build: View, source: str) -> None:
        source = source.removeprefix("./").lstrip("/")
        if "*" not in source:
            self.function(source, f"/{source}" if not source.startswith("api/") else "")
            return
        matching = [path for path in files_below(self.tree, self.folder) if glob_matches(source, path[len(self.folder) :].lstrip("/"))]
        for path in matching[:MAX_FUNCTIONS]:
            inside = path[len(self.folder) :].lstrip("/")
            self.function(inside, "" if inside.startswith("api/") else f"/{inside}")
        if not matching:
            build.honoured("src", reason="no file of the source matches it, so there is no function to make")

    def _build_site(self, build: View, config: View, source: str, kind: str, owner: bool) -> str:
        """A build that makes a whole site, such as `@vercel/next` or `@vercel/static-build`."""
        root = str(PurePosixPath(source).parent) if not source.endswith("/") else source
        root = join(self.folder, "" if "*" in root else root)
        framework = _SITES.get(kind, "") or config.text("framework")
        if not framework and kind != "static-build":
            framework, _ = detect(self.tree, root)
            build.approximated("use", reason=f"{'this' if owner else 'a community'} builder is not run; the source is built as detected")
        output = config.text("outputDirectory") or config.text("distDir")
        made = Build(
            command=config.text("buildCommand"), install=config.text("installCommand"), framework=framework, env=self.build_env,
            options={"config": config.data} if config.data else {},
        )  # fmt: skip
        if kind_of(framework) in ("node", "python", "other"):
            return self.add(PurePosixPath(root).name or "web", WebService(root=root, build=made, env=self.env))
        service = StaticService(root=root, publish=output or STATIC.get(framework, "dist"), build=made, env=self.env)
        if inside := root[len(self.folder) :].strip("/"):
            self.mounts.append(f"/{inside}")
        return self.add(PurePosixPath(root).name or "site", service)

    # -- the site

    def site(self, title: str, framework: str | None, output: str, build: Build, function_files: list[str]) -> str:
        """The project's own service when neither builds nor services are declared. `framework` None means: not said."""
        kind: Kind | None
        if framework:
            kind = kind_of(framework) or "static"
        else:
            framework, kind = detect(self.tree, self.folder) if framework is None else ("", None)
        if PurePosixPath(output).name == ".next":
            framework, kind = "nextjs", "node"
        server = next((file for file in function_files if re.sub(r"\.\w+$", "", file) in _SERVER_FILES and runtime_of(file)), "")
        if server and kind not in ("node", "python"):
            kind = "python" if runtime_of(server) == "python" else "node"
            framework = framework or kind
        if kind == "python" and not server and self.functions():
            framework, kind = "", None  # the requirements are those of the functions
        build = build.model_copy(update={"framework": framework or "", "env": self.build_env})
        if self.bun:
            build = build.model_copy(update={"runtime": "bun", "runtime_version": self.bun})
        if kind in ("node", "python", "other"):
            command = start_command(server, framework or "", self.tree, self.folder, bun=bool(self.bun)) if server else ""
            return self.add(title, WebService(root=self.folder, build=build, env=self.env, command=command))
        folders = set(self.tree.list(self.folder))
        publish = output or STATIC.get(framework or "", "") or ("public" if "public/" in folders and not framework else "")
        service = StaticService(root=self.folder, publish=publish.removeprefix("./").rstrip("/"), build=build, env=self.env)
        return self.add(title, service)

    # -- declared services

    def declare(self, title: str, view: View) -> str:
        """One entry of `services`, `experimentalServices` or `experimentalServicesV2`."""
        entrypoint, framework = view.text("entrypoint"), view.text("framework")
        runtime = view.text("runtime")
        root = join(self.folder, view.text("root") or view.text("workspace"))
        if not view.raw("root") and not view.raw("workspace") and entrypoint and runtime_of(entrypoint) is None and ":" not in entrypoint:
            is_docker = PurePosixPath(entrypoint).name.startswith(("Dockerfile", "Containerfile"))
            root, entrypoint = (root, entrypoint) if is_docker else (join(root, entrypoint), "")
        kind = kind_of(framework) or kind_of(runtime)
        if kind is None and not entrypoint:
            framework, kind = detect(self.tree, root)
        command = self._command(view, entrypoint, framework, root)
        common: dict[str, Any] = {
            "root": root, "build": self._declared_build(view, entrypoint, framework, runtime, root),
            "env": {**self.env, **self._bindings(view)},
            "command": command, "resources": _resources(view), "extensions": self._declared_rest(view),
        }  # fmt: skip
        if hook := view.text("preDeployCommand"):
            common["release_command"] = Hook(command=hook)
        service = self._declared(view, kind if kind or not entrypoint else "node", common)
        return self.add(title, service)

    def _command(self, view: View, entrypoint: str, framework: str, root: str) -> str | tuple[str, ...]:
        if view.raw("command") is not None:
            return view.texts("command") if isinstance(view.raw("command"), list) else view.text("command")
        return start_command(entrypoint, framework, self.tree, root, bun=bool(self.bun))

    def _declared_build(self, view: View, entrypoint: str, framework: str, runtime: str, root: str) -> Build:
        docker = PurePosixPath(entrypoint).name.startswith(("Dockerfile", "Containerfile"))
        view.approximated("builder", reason="the source is built as detected; the named builder is kept")
        options = {key: view.data[key] for key in ("builder", "entrypoint") if key in view.data and not docker}
        return Build(
            builder="dockerfile" if docker else "auto", dockerfile=join(root, entrypoint) if docker else "", context=root if docker else "",
            command=view.text("buildCommand"), install=view.text("installCommand"), ignore_command=view.text("ignoreCommand"),
            framework=framework, runtime=runtime, env=self.build_env, options=options,
        )  # fmt: skip

    def _declared(self, view: View, kind: str | None, common: dict[str, Any]) -> Service:
        role, schedule = view.text("type"), view.raw("schedule")
        queues = self._topics(view)
        if schedule is not None:
            times = view.texts("schedule")
            if any(len(time.split()) != 5 for time in times):
                view.problem("schedule", f"a cron expression of five fields is expected here, not {str(schedule)[:40]!r}")
            if len(times) > 1:
                view.approximated("schedule", reason="the first schedule is used; declare a service for each")
            return CronService(schedule=times[0] if times else "", **common)
        if queues or role in ("worker", "queue", "job"):
            return WorkerService(triggers=queues, **common)
        output = view.text("outputDirectory")
        if kind == "static" or (kind is None and output):
            common["resources"] = Resources()
            publish = output or STATIC.get(common["build"].framework, "")
            view.honoured("outputDirectory", "cleanUrls", "trailingSlash")
            slash = view.flag("trailingSlash")
            return StaticService(publish=publish, clean_urls=bool(view.flag("cleanUrls", False)), trailing_slash=slash, **common)
        return WebService(**common)

    @staticmethod
    def _topics(view: View) -> tuple[Trigger, ...]:
        topics = view.raw("topics")
        view.honoured("topics")
        view.approximated("consumer", reason="kept; each worker is its own group of consumers")
        found: list[Trigger] = []
        for item in topics if isinstance(topics, list) else []:
            name = item.get("topic") if isinstance(item, dict) else item
            if isinstance(name, str) and name:
                found.append(QueueTrigger(queue=name, options=item if isinstance(item, dict) else {}))
        return tuple(found)

    def _bindings(self, view: View) -> Env:
        env: dict[str, EnvValue] = {}
        for item in view.views("bindings"):
            name, target = item.text("env"), item.text("service")
            form = item.text("format", "url")
            item.honoured("type")
            if name and target:
                known = self.names.find(target) or self.names.claim(target)
                env[name] = FromService(service=known, property="url" if form == "url" else "hostport" if form == "hostport" else "host")
            else:
                item.problem(None, 'a binding needs "service" and "env"')
        return env

    @staticmethod
    def _declared_rest(view: View) -> dict[str, Any]:
        view.approximated("includeFiles", "excludeFiles", reason=WHOLE)
        view.approximated("maxDuration", reason="kept; the service has no limit per request")
        view.approximated("subdomain", reason="kept; the service has a host name of its own")
        view.ignored("devCommand", reason="used by `vercel dev` only")
        view.approximated("functions", reason="kept; the service's functions share one process and its limits")
        keys = ("maxDuration", "subdomain", "functions", "mount", "consumer", "routePrefix")
        return {key: view.data[key] for key in keys if view.data.get(key)}


def _framework_options(options: View) -> None:
    """Limits of a framework's routes: one process serves them all."""
    shared = "kept; a framework's routes share one process, so the limit is not kept for each path"
    for key in ("maxDuration", "memory", "maxConcurrency", "supportsCancellation", "affinity", "architecture", "experimentalTriggers"):
        options.approximated(key, reason=shared)
    options.approximated("regions", "functionFailoverRegions", reason="kept; everything runs on your machines")
    options.approximated("includeFiles", "excludeFiles", reason=WHOLE)
    options.approximated("runtime", reason="the runtime is that of the service; the named package is kept")


def _queue_trigger(item: View) -> QueueTrigger:
    topic = item.text("topic") or item.text("type")
    item.approximated("consumer", "initialDelaySeconds", "maxConcurrency", "type", reason="kept with the trigger")
    return QueueTrigger(
        queue=topic or "queue",
        max_retries=item.integer("maxDeliveries", low=0),
        retry_delay=item.number("retryAfterSeconds"),
        options=dict(item.data),
    )


def _resources(view: View) -> Resources:
    memory = view.integer("memory", low=1, high=1 << 20)
    return Resources(memory=parse_size(f"{memory}MB")) if memory else Resources()


def environment(view: View, key: str) -> Env:
    """`env` in its older forms: a mapping, or a list of names; `@name` is a secret of the account."""
    value = view.raw(key)
    if isinstance(value, list):
        names = view.texts(key)
        return {name: SecretValue() for name in names if name}
    table = view.view(key)
    env: dict[str, EnvValue] = {}
    for name in table.keys():  # noqa: SIM118 - a View is no mapping
        text = scalar_text(table.take(name)) if not isinstance(table.data[name], dict | list) else ""
        if isinstance(table.data[name], dict | list):
            table.problem(name, "text is expected here")
        env[name] = SecretValue(name=text[1:]) if re.fullmatch(r"@[\w-]+", text) else PlainValue(value=text)
    return env
