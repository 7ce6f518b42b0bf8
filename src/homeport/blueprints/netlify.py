"""Netlify: `netlify.toml`, and the `_redirects` and `_headers` files that Cloudflare Pages reads too.

There is no schema; the keys are those of Netlify's file-based configuration and of @netlify/config's validations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, ClassVar

from homeport.blueprints import netlify_rules as rules
from homeport.blueprints.document import parse_toml
from homeport.blueprints.frameworks import STATIC, detect
from homeport.blueprints.naming import bare_name
from homeport.blueprints.opening import finish, join, open_file, parent_of, unique
from homeport.blueprints.overrides import merge_diff
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import View, scalar_text
from homeport.model.base import slug
from homeport.model.env import Env, PlainValue
from homeport.model.reading import Reading
from homeport.model.route import Route, SetHeaders
from homeport.model.service import Build, FunctionService, ScheduleTrigger, Service, StaticService, WebService
from homeport.model.spec import Spec

PLUGIN = "build plugins run in Netlify's build system only; run the same step in the build command. Kept so that it can be written back"
DEV_ONLY = "used by `netlify dev` only; a deploy does not read it"
PROCESSING = "Netlify's post-processing of files; let the build command do it"
EDGE = "runs on workerd, not on Deno; what it imports from Netlify's edge packages must be replaced"
_ENVIRONMENTS = {"deploy-preview": "preview", "branch-deploy": "branch", "dev": "development"}
_SCRIPTS = (".js", ".ts", ".mjs", ".mts", ".cjs", ".cts", ".go", ".py")
_SCHEDULES = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_FUNCTION_KEYS = (
    "directory", "node_bundler", "external_node_modules", "ignored_node_modules", "included_files", "included_files_base_path", "schedule",
    "deno_import_map", "node_version", "rust_target_directory", "memory", "region", "timeout", "name", "generator", "path", "method",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What one deploy context says."""

    base: str = ""
    command: str = ""
    publish: str = ""
    functions: str = ""
    edge_functions: str = ""
    ignore: str = ""
    environment: Env = field(default_factory=dict)
    plugins: tuple[str, ...] = ()


class NetlifyReader:
    """Reads `netlify.toml`, `_redirects` and `_headers`."""

    dialect: ClassVar[str] = "netlify"
    precedence: ClassVar[int] = 10

    def recognises(self, file_name: str, text: str) -> bool:  # noqa: ARG002 - the name says it all
        return bare_name(file_name) == "netlify.toml" or rules.side_file(file_name) is not None

    def candidates(self, tree: SourceTree) -> list[str]:
        names = tree.list()
        if "netlify.toml" in names:
            return ["netlify.toml"]
        return [
            join(folder, name) for folder in ("", "public", "static") for name in ("_redirects", "_headers") if name in tree.list(folder)
        ]

    def read(self, tree: SourceTree, path: str) -> Reading:
        warnings: list[str] = []
        if (kind := rules.side_file(path)) is not None:
            view = rules.side_view(tree, path, kind)
            return finish(view, self.dialect, lambda: _side_spec(view, tree, path, warnings), warnings)
        view = open_file(tree, path, parse_toml)
        return finish(view, self.dialect, lambda: _Site(view, tree, parent_of(path), warnings).spec(), warnings)


def _side_spec(view: View, tree: SourceTree, path: str, warnings: list[str]) -> Spec:
    """A side file by itself: a static site of its folder with these rules."""
    name = slug(tree.name)
    routes = rules.file_routes(view, name, {}, warnings)
    return Spec(name=name, services={name: StaticService(publish=parent_of(path))}, routes=tuple(routes))


class _Site:
    """One `netlify.toml` on its way to a spec."""

    def __init__(self, view: View, tree: SourceTree, folder: str, warnings: list[str]) -> None:
        self.view, self.tree, self.folder, self.warnings = view, tree, folder, warnings
        self.name = slug(tree.name)
        self.options: dict[str, View] = {}
        self.edge: list[View] = []
        self.development: dict[str, Any] = {}

    def spec(self) -> Spec:
        view = self.view
        plugins = tuple(self._plugins(view))
        base = self._build(view, replace(Settings(), plugins=plugins))
        base = self._functions(view, base)
        self.edge = list(view.views("edge_functions"))
        self._development(view)
        contexts = self._contexts(base)
        self._rest(view)
        services = self._services(base, True)
        routes = self._routes(base, services)
        spec = Spec(name=self.name, services=services, routes=tuple(routes), metadata=self._metadata(), extensions=self._kept())
        return spec.model_copy(update={"environments": self._environments(spec, contexts)})

    # -- what the file says

    def _build(self, view: View, inherited: Settings) -> Settings:
        """`[build]`, whose keys a context repeats without the header."""
        build = view.view("build" if "build" in view else "Build")
        return self._keys(build, inherited)

    def _keys(self, build: View, inherited: Settings) -> Settings:
        if "processing" in build:
            self._processing(build.view("processing"))
        build.ignored("cmd", "lifecycle", reason="an old key that Netlify no longer reads; use `command`")
        build.ignored("services", "command_origin", "publish_origin", "base_rel_dir", reason="written by Netlify's own tools")
        return Settings(
            base=build.text("base", inherited.base),
            command=build.text("command", inherited.command),
            publish=build.text("publish", inherited.publish),
            functions=build.text("functions", inherited.functions) if not isinstance(build.raw("functions"), dict) else inherited.functions,
            edge_functions=self._edge_folder(build, inherited),
            ignore=build.text("ignore", inherited.ignore),
            environment={**inherited.environment, **_environment(build)},
            plugins=inherited.plugins,
        )

    def _edge_folder(self, build: View, inherited: Settings) -> str:
        if isinstance(build.raw("edge_functions"), list):
            return inherited.edge_functions
        return build.text("edge_functions", inherited.edge_functions)

    def _processing(self, view: View) -> None:
        html = view.view("html")
        html.approximated("pretty_urls", reason="the edge answers `/about` from `about.html` either way")
        off = view.raw("skip_processing") is True
        view.ignored("skip_processing", reason=PROCESSING) if not off else view.honoured("skip_processing", reason="nothing is processed")
        for name, keys in (("css", ("bundle", "minify")), ("js", ("bundle", "minify")), ("images", ("compress",))):
            table = view.view(name)
            for key in keys:
                if table.raw(key) is False:
                    table.honoured(key, reason="nothing is processed")
                else:
                    table.ignored(key, reason=PROCESSING)

    def _plugins(self, view: View) -> list[str]:
        found = []
        for plugin in view.views("plugins"):
            name = plugin.text("package") or plugin.text("id")
            found.append(name)
            runtime = re.fullmatch(r"@netlify/plugin-(nextjs|gatsby)|@netlify/(nuxt|angular-runtime|plugin-sveltekit)", name)
            if runtime:
                plugin.approximated("package", "id", reason="the framework's own server or build is used; the plugin is not needed")
                plugin.ignored("inputs", "pinned_version", reason="the plugin is not needed")
            else:
                plugin.ignored("package", "id", "inputs", "pinned_version", "enabled", "type", reason=PLUGIN)
                self.warnings.append(f"The build plugin {name[:80]!r} does not run: {PLUGIN.partition(';')[0]}.")
        return found

    def _functions(self, view: View, settings: Settings) -> Settings:
        """`[functions]`: settings of all, and tables per name or glob."""
        if not isinstance(view.raw("functions"), dict):
            if "functions" in view.data and isinstance(view.data["functions"], str):
                return replace(settings, functions=view.text("functions"))
            view.view("functions")
            return settings
        table = view.view("functions")
        self._function_options(table)
        for key in table.keys():  # noqa: SIM118
            if key not in _FUNCTION_KEYS and isinstance(table.data[key], dict):
                options = table.view(key)
                self._function_options(options)
                self.options[key] = options
        return replace(settings, functions=table.text("directory", settings.functions))

    def _function_options(self, table: View) -> None:
        table.approximated("node_bundler", reason="functions run from the source with its installed packages; nothing is bundled")
        table.approximated("external_node_modules", "ignored_node_modules", reason="nothing is bundled: all installed packages are there")
        table.approximated("included_files", "included_files_base_path", reason="nothing is bundled: all files of the source are there")
        table.honoured("schedule", "memory", "timeout")
        table.approximated("node_version", reason="all functions share the Node version of the build")
        table.ignored("region", reason="a place in Netlify's network")
        table.ignored("deno_import_map", "rust_target_directory", reason=EDGE)
        table.approximated("name", "generator", "path", "method", reason="kept with the function")

    def _development(self, view: View) -> None:
        dev = view.view("dev")
        command, port = dev.text("command"), dev.integer("targetPort", low=1, high=65535)
        dev.approximated("command", "targetPort", reason="start command and port of the environment `development`")
        dev.ignored(
            "port", "publish", "autoLaunch", "framework", "functions", "functionsPort", "jwtSecret", "jwtRolePath", "staticServerPort",
            "envFiles", "https", "pollingStrategies", "live", "processing", "base", "edge_functions", "edgeFunctions", "skipWaitPort",
            "portFromArgs", "watch", "staticServer", "dir", "exec", "images", "host", "db", "rules", "secretsCommand",
            reason=DEV_ONLY,
        )  # fmt: skip
        if command:
            self.development = {"kind": "web", "command": command, **({"port": port} if port else {})}

    def _contexts(self, base: Settings) -> dict[str, Settings]:
        found: dict[str, Settings] = {}
        for name, view in self.view.view("context").items():
            settings = self._keys(view, base)
            if isinstance(view.raw("build"), dict):
                settings = self._keys(view.view("build"), settings)
            if isinstance(view.raw("functions"), dict):
                inner = view.view("functions")
                self._function_options(inner)
                settings = replace(settings, functions=inner.text("directory", settings.functions))
                for key in inner.keys():  # noqa: SIM118
                    if isinstance(inner.data[key], dict) and key not in _FUNCTION_KEYS:
                        self._function_options(inner.view(key))
            if isinstance(view.raw("dev"), dict):
                view.ignored("dev", reason=DEV_ONLY)
            settings = replace(settings, plugins=settings.plugins + tuple(self._plugins(view)))
            view.ignored("redirects", "headers", reason="Netlify reads redirects and headers of the whole site only")
            if not isinstance(view.raw("edge_functions"), str):
                view.approximated("edge_functions", reason="edge functions run in every environment")
            found[_ENVIRONMENTS.get(name, name)] = settings
        return found

    def _rest(self, view: View) -> None:
        view.ignored("images", reason="Netlify's image service; pictures are served as they are")
        view.ignored("integrations", reason="Netlify's own extensions")
        view.approximated("template", reason="texts and variables asked for when the repository is copied; kept as metadata")
        view.ignored(
            "Settings", "settings", "spellcheck", "graph", "large_media", "forms", reason="belongs to Netlify's account or its add-ons"
        )
        view.ignored("database", "db", reason="Netlify's database; add a PostgreSQL add-on in homeport.yaml")
        view.ignored("edge_handlers", reason="an old name; Netlify reads `edge_functions`")

    def _metadata(self) -> dict[str, Any]:
        template = self.view.raw("template")
        return {"template": template} if isinstance(template, dict) and template else {}

    def _kept(self) -> dict[str, Any]:
        keys = ("plugins", "images", "integrations", "database")
        kept = {key: self.view.data[key] for key in keys if self.view.data.get(key)}
        return {"netlify": kept} if kept else {}

    # -- what becomes of it

    def _services(self, settings: Settings, notes: bool) -> dict[str, Service]:
        services: dict[str, Service] = {self.name: self._site(settings)}
        root = join(self.folder, settings.base)
        for name, path in self._function_files(settings).items():
            services[unique(name, services)] = self._function(name, path, root, settings, notes)
        for view in self.edge:
            if service := self._edge_function(view, root, settings, notes):
                services[unique(service.title or "edge", services)] = service
        return services

    def _site(self, settings: Settings) -> Service:
        root = join(self.folder, settings.base)
        framework, kind = detect(self.tree, root)
        is_next = "@netlify/plugin-nextjs" in settings.plugins or PurePosixPath(settings.publish).name == ".next"
        if is_next and framework not in STATIC:
            framework, kind = "nextjs", "node"
        publish = settings.publish.strip("/") if settings.publish not in ("", ".", "./") else ""
        if settings.base.strip("/") and publish.startswith(settings.base.strip("/") + "/"):
            publish = publish[len(settings.base.strip("/")) + 1 :]
        node = settings.environment.get("NODE_VERSION")
        build = Build(
            command=settings.command,
            env=settings.environment,
            framework=framework,
            ignore_command=settings.ignore.strip(),
            runtime="node" if node or kind == "node" else "",
            runtime_version=node.value if isinstance(node, PlainValue) else "",
        )
        if kind == "node" and (is_next or not publish or publish in (".next", ".output", "build")):
            return WebService(root=root, build=build)
        return StaticService(
            root=root, publish=publish or STATIC.get(framework, ""), build=build, clean_urls=True, not_found_page="404.html"
        )

    def _function_files(self, settings: Settings) -> dict[str, str]:
        """Functions of the source: name to file. `name.js`, `name/index.js`, `name/name.js`, `name/main.go`."""
        folder = join(self.folder, settings.base, settings.functions or "netlify/functions")
        found: dict[str, str] = {}
        for entry in self.tree.list(folder):
            stem = entry.rstrip("/").rsplit(".", 1)[0]
            if not entry.endswith("/"):
                if entry.endswith(_SCRIPTS) and not entry.endswith(".d.ts") and not stem.endswith(".test"):
                    found.setdefault(stem, join(folder, entry))
                continue
            inner = self.tree.list(join(folder, entry))
            main = next(
                (n for base in (stem, "index", "main") for n in inner if n.rsplit(".", 1)[0] == base and n.endswith(_SCRIPTS)), None
            )
            if main:
                found.setdefault(stem, join(folder, entry, main))
        return found

    def _function(self, name: str, path: str, root: str, settings: Settings, notes: bool) -> FunctionService:
        suffix = PurePosixPath(path).suffix
        options = [view for key, view in self.options.items() if key in (name, "*") or PurePosixPath(name).match(key)]
        general = self.view.data.get("functions")
        schedule = next((scalar_text(v.data["schedule"]) for v in options if not isinstance(v.data.get("schedule", {}), dict | list)), "")
        if not schedule and isinstance(general, dict) and isinstance(general.get("schedule"), str):
            schedule = general["schedule"]
        triggers: tuple[ScheduleTrigger, ...] = ()
        if schedule and notes and not _is_cron(_SCHEDULES.get(schedule, schedule)):
            for view in options:
                view.problem("schedule", f"{schedule[:40]!r} is not a cron expression") if "schedule" in view.data else None
        elif schedule:
            triggers = (ScheduleTrigger(schedule=_SCHEDULES.get(schedule, schedule), path=f"{rules.FUNCTIONS}{name}", name=name),)
        return FunctionService(
            title=name,
            root=root,
            runtime="go" if suffix == ".go" else "python" if suffix == ".py" else "node",
            entrypoint=path[len(root) + 1 :] if root else path,
            path=f"{rules.FUNCTIONS}{name}",
            triggers=triggers,
            build=Build(env=settings.environment),
        )

    def _edge_function(self, view: View, root: str, settings: Settings, notes: bool) -> FunctionService | None:
        name, path = scalar_text(view.raw("function")), scalar_text(view.raw("path") or view.raw("pattern"))
        if notes:
            view.approximated("function", "path", reason=EDGE)
            view.approximated("excludedPath", "pattern", "excludedPattern", "method", "header", reason="kept with the function; " + EDGE)
            view.ignored("cache", "name", "generator", "mode", reason="the edge does not cache what functions answer")
            for key, value in (("function", name), ("path", path)):
                if not value:
                    view.problem(None, f'an edge function needs "{key}"')
        if not name or not path:
            return None
        folder = join(root, settings.edge_functions or "netlify/edge-functions")
        entry = next((n for n in self.tree.list(folder) if n.rsplit(".", 1)[0] == name), f"{name}.ts")
        kept = {key: view.data[key] for key in ("excludedPath", "pattern", "excludedPattern", "method", "header") if key in view.data}
        entrypoint = join(folder, entry)
        entrypoint = entrypoint[len(root) + 1 :] if root else entrypoint
        return FunctionService(title=name, root=root, runtime="edge", entrypoint=entrypoint, path=path, extensions=kept)

    def _routes(self, settings: Settings, services: dict[str, Service]) -> list[Route]:
        functions = {s.title: n for n, s in services.items() if isinstance(s, FunctionService) and s.runtime != "edge"}
        root = join(self.folder, settings.base)
        folders = [join(root, settings.publish), join(root, "public"), join(root, "static")]
        routes = rules.side_routes(
            self.tree, folders if settings.publish.strip("/.") else [root, *folders[1:]], self.name, functions, self.warnings
        )
        for rule in self.view.views("redirects" if "redirects" in self.view else "Redirects"):
            routes += rules.redirect_routes(rule, self.name, functions)
        site = services[self.name]
        redirects = [route for route in routes if not isinstance(route.action, SetHeaders)]
        if redirects and rules.is_fallback(redirects[-1]) and isinstance(site, StaticService):
            services[self.name] = site.model_copy(update={"single_page": True})
            routes.remove(redirects[-1])
        for rule in self.view.views("headers" if "headers" in self.view else "Headers"):
            routes += rules.header_routes(rule, self.name, self.warnings)
        return routes

    def _environments(self, spec: Spec, contexts: dict[str, Settings]) -> dict[str, dict[str, Any]]:
        before = spec.canonical()
        found: dict[str, dict[str, Any]] = {}
        for name, settings in contexts.items():
            services = self._services(settings, False)
            site, changed = spec.services[self.name], services[self.name]
            if isinstance(site, StaticService) and isinstance(changed, StaticService):
                services[self.name] = changed.model_copy(update={"single_page": site.single_page})
            patch = merge_diff(before, spec.model_copy(update={"services": services}).canonical())
            if patch:
                found[name] = patch
        if self.development:
            merged = {**before["services"][self.name], **self.development}
            served = {key: value for key, value in merged.items() if key in WebService.model_fields}
            found["development"] = merge_diff(before, {**before, "services": {**before["services"], self.name: served}})
        return found


def _environment(build: View) -> Env:
    if "environment" not in build:
        return {}
    table = build.view("environment")
    for key in table.keys():  # noqa: SIM118
        table.take(key, reason="seen by the build, as on Netlify")
    return {key: PlainValue(value=_env_text(value)) for key, value in table.data.items()}


def _env_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(scalar_text(v) for v in value)
    return scalar_text(value)


def _is_cron(text: str) -> bool:
    return len(text.split()) == 5 and re.fullmatch(r"[\d\w*/,\-?#L \t]+", text) is not None
