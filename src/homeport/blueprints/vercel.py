"""Vercel: `vercel.json` (and its forerunner `now.json`), comments allowed.

Files answer first and rewrites after them, as on Vercel: the routes carry a `filesystem` phase between the two. Without
`builds` or `services` the project is one site, found by its framework, with a function for each file under `api/`.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from homeport.blueprints import vercel_routes as routing
from homeport.blueprints.document import parse_json
from homeport.blueprints.frameworks import FRONT_ENDS
from homeport.blueprints.naming import bare_name
from homeport.blueprints.opening import finish, open_file, parent_of
from homeport.blueprints.overrides import merge_diff
from homeport.blueprints.source import SourceTree
from homeport.blueprints.vercel_services import Services, environment, runtime_of
from homeport.blueprints.view import View, scalar_text
from homeport.model.base import slug
from homeport.model.reading import Reading
from homeport.model.route import Filesystem, Match, Route, ToService
from homeport.model.service import (
    Build,
    Domain,
    FunctionService,
    PushTrigger,
    ScheduleTrigger,
    Service,
    StaticService,
    Trigger,
    WebService,
)
from homeport.model.spec import Spec

_KEPT = ("images", "proxy", "wildcard", "scope", "bulkRedirectsPath", "relatedProjects", "microfrontends", "fluid", "public")
_GIT = "kept; a deploy is started for the branch that each environment follows"


class VercelReader:
    """Reads `vercel.json` and `now.json`."""

    dialect: ClassVar[str] = "vercel"
    precedence: ClassVar[int] = 10

    def recognises(self, file_name: str, text: str) -> bool:  # noqa: ARG002 - the name says it all
        return re.fullmatch(r"(vercel|now)(\.[\w-]+)?\.jsonc?", bare_name(file_name)) is not None

    def candidates(self, tree: SourceTree) -> list[str]:
        names = tree.list()
        found: list[str] = [name for name in ("vercel.json", "now.json") if name in names]
        return found[:1]

    def read(self, tree: SourceTree, path: str) -> Reading:
        view = open_file(tree, path, parse_json)
        warnings: list[str] = []
        return finish(view, self.dialect, lambda: _Project(view, tree, parent_of(path), warnings).spec(), warnings)


class _Project:
    """One `vercel.json` on its way to a spec."""

    def __init__(self, view: View, tree: SourceTree, folder: str, warnings: list[str]) -> None:
        self.view, self.tree, self.folder, self.warnings = view, tree, folder, warnings
        env = environment(view, "env")
        self.services = Services(tree, folder, env, environment(view.view("build"), "env"))
        self.development: dict[str, Any] = {}
        self.declared_routes: list[Route] = []
        self.mounts: list[Route] = []
        """Prefixes of declared services; the longest is looked at first. Vercel mounts a back end there, so it does not see the prefix."""

    def spec(self) -> Spec:
        view = self.view
        self._fates()
        title = view.text("name")
        self.services.bun = view.text("bunVersion")
        main = self._services(title)
        self._site_options(main)
        self._regions()
        self._crons(main)
        self._git(main)
        self._domains(main)
        routes = self._routes(main)
        found = self.services.found
        kept = {key: view.data[key] for key in _KEPT if view.data.get(key) not in (None, [], {})}
        name = slug(title or self.tree.name)
        spec = Spec(
            name=name,
            title=title if title != name else "",
            services=found,
            routes=tuple(routes),
            extensions={"vercel": kept} if kept else {},
        )
        return spec.model_copy(update={"environments": self._environments(spec, main)})

    def _fates(self) -> None:
        view = self.view
        version = view.integer("version")
        if version not in (None, 2):
            view.approximated("version", reason="the rules of version 2 are used")
        view.honoured("$schema", reason="read by editors")
        view.ignored("scope", reason="a team at Vercel; none is needed here")
        view.ignored("public", reason="source and logs are seen by the project's members only")
        view.ignored("images", reason="Vercel's image service; the framework's own optimiser still runs in its service")
        view.ignored("proxy", "middleware", reason="middleware runs inside the framework's own server")
        view.ignored("bulkRedirectsPath", reason="the file of redirects is not read; write them in `redirects`")
        view.ignored("wildcard", "relatedProjects", "microfrontends", reason="connects projects of a team at Vercel; kept")
        view.approximated("fluid", reason="an instance always serves several requests at once")
        view.approximated("functionFailoverRegions", "passiveRegions", reason="kept; everything runs on your machines")
        view.ignored("uploadNowJson", "files", "meta", "uploadVercelJson", reason="about the upload to Vercel")
        view.ignored("probes", reason="checks of Vercel's own test suite")
        view.ignored("experimentalServiceGroups", reason="groups of services in Vercel's dashboard")
        view.ignored("customErrorPage", reason="error pages come from the application")

    # -- services

    def _services(self, title: str) -> str:
        view, services = self.view, self.services
        declared = [key for key in ("services", "experimentalServices", "experimentalServicesV2") if isinstance(view.raw(key), dict)]
        main = ""
        if declared:
            main = self._declared(declared)
        elif view.raw("builds"):
            main = services.builds(view)
        elif "builds" in view:
            view.honoured("builds")
        functions = view.raw("functions")
        if not declared:
            services.discover()
        if not main and not declared and not (view.raw("builds") and services.found):
            patterns = [key for key in functions if "*" not in key] if isinstance(functions, dict) else []
            if not self._only_functions(patterns):
                main = services.site(title or self.tree.name, *self._site_settings(), patterns)
        if "functions" in view:
            services.options(view.view("functions"), main)
        self._build_settings(main)
        return main or next(iter(services.found), "")

    def _only_functions(self, patterns: list[str]) -> bool:
        """Whether the project is functions alone: publishing the folder would put its source on the web."""
        view, names = self.view, self.tree.list(self.folder)
        if not self.services.found and not any(key.startswith("api/") for key in patterns):
            return False
        said = any(view.raw(key) for key in ("framework", "outputDirectory")) or any(runtime_of(key) for key in patterns if "/" not in key)
        shown = any(name in names for name in ("index.html", "public/", "package.json"))
        return not said and not shown

    def _site_settings(self) -> tuple[str | None, str, Build]:
        view = self.view
        settings = view.view("projectSettings")
        framework = view.text("framework") if "framework" in view else settings.text("framework") if "framework" in settings else None
        output = view.text("outputDirectory") or settings.text("outputDirectory")
        return framework, output, self._build()

    def _build(self) -> Build:
        view, settings = self.view, self.view.view("projectSettings")
        node = settings.text("nodeVersion")
        settings.ignored("devCommand", "directoryListing", "sourceFilesOutsideRootDirectory", reason="a setting of Vercel's dashboard")
        settings.approximated("rootDirectory", reason="the folder of this file is the root of the service")
        return Build(
            command=view.text("buildCommand") or settings.text("buildCommand"),
            install=view.text("installCommand") or settings.text("installCommand"),
            ignore_command=view.text("ignoreCommand") or settings.text("commandForIgnoringBuildStep"),
            runtime="node" if node else "",
            runtime_version=node,
        )

    def _build_settings(self, main: str) -> None:
        """Commands beside `builds` or `services`, and the command of the environment `development`."""
        view = self.view
        if command := view.text("devCommand"):
            view.approximated("devCommand", reason="start command of the environment `development`")
            self.development = {"command": command}
        keys = ("buildCommand", "installCommand", "ignoreCommand", "outputDirectory", "framework")
        build = self._build()
        changed: dict[str, Any] = {k: getattr(build, k) for k in ("command", "install", "ignore_command") if getattr(build, k)}
        service = self.services.found.get(main)
        if service is None:
            if not self.services.found:
                view.ignored(*keys, reason="the file has nothing to build")
            for name, function in self.services.functions():
                self.services.update(name, build=function.build.model_copy(update=changed))
            view.approximated("framework", "outputDirectory", reason="there are functions only; no site is built")
            return
        if self.services.bun:
            changed |= {"runtime": "bun", "runtime_version": self.services.bun}
        self.services.update(main, build=service.build.model_copy(update=changed))
        view.text("framework")
        if (output := view.text("outputDirectory")) and isinstance(service, StaticService):
            self.services.update(main, publish=output.removeprefix("./").rstrip("/"))

    def _declared(self, keys: list[str]) -> str:
        """Services the file declares; the one that answers the root is the site."""
        services = self.services
        views = [(name, inner) for key in keys for name, inner in self.view.view(key).items()]
        names: dict[str, View] = {}
        for title, inner in views:
            names[services.declare(title, inner)] = inner
        for inner in names.values():
            bindings = inner.data.get("bindings")
            for index, item in enumerate(bindings if isinstance(bindings, list) else []):
                target = item.get("service") if isinstance(item, dict) else None
                if isinstance(target, str) and services.names.find(target) not in services.found:
                    self.view.ledger.problem((*inner.path, "bindings", index, "service"), f"the file has no service {target[:60]!r}")
        main = self._root_service(names)
        for name, inner in names.items():
            self._declared_routing(name, inner, main)
        return main

    def _root_service(self, names: dict[str, View]) -> str:
        """Who answers `/`: the target of a catch-all rewrite, the prefix `/`, a front end, else the first."""
        rewrites = self.view.raw("rewrites")
        for rule in rewrites if isinstance(rewrites, list) else []:
            if isinstance(rule, dict) and rule.get("source") in ("/(.*)", "/:path*") and isinstance(rule.get("destination"), dict):
                found = self.services.names.find(scalar_text(rule["destination"].get("service")))
                if found in names:
                    return str(found)
        public = [name for name in names if isinstance(self.services.found[name], WebService | StaticService)]
        root = [name for name in public if names[name].raw("routePrefix") == "/"]
        named = [name for name in public if name in ("frontend", "web", "site", "app")]
        return next(iter([*root, *named, *public, *names]), "")

    def _declared_routing(self, name: str, view: View, main: str) -> None:
        """Where a declared service is mounted, and its own rules."""
        prefix = view.text("routePrefix")
        mount = view.raw("mount")
        if isinstance(mount, dict):
            table = view.view("mount")
            prefix = table.text("path") or prefix
            table.approximated("subdomain", reason="kept; the service has a host name of its own")
        else:
            prefix = view.text("mount") or prefix
        if prefix.strip("/") and name != main:
            service = self.services.found[name]
            front = isinstance(service, StaticService) or service.build.framework in FRONT_ENDS
            action = ToService(service=name, strip_prefix=not front)
            self.mounts.append(Route(service=main, match=Match(path="/" + prefix.strip("/")), action=action))
        self.declared_routes += routing.redirects(view, name) + routing.headers(view, name)
        self.declared_routes += routing.rewrites(view, name, self.services.resolve) + routing.legacy(view, name, self.services.resolve)

    # -- settings of the whole file

    def _site_options(self, main: str) -> None:
        view = self.view
        clean, slash = view.flag("cleanUrls"), view.flag("trailingSlash")
        service = self.services.found.get(main)
        if isinstance(service, StaticService):
            self.services.update(main, clean_urls=bool(clean), trailing_slash=slash)
        elif service is not None:
            view.approximated("cleanUrls", "trailingSlash", reason="kept; the framework's own server decides on its paths")
            kept = {k: view.data[k] for k in ("cleanUrls", "trailingSlash") if k in view.data}
            if kept:
                self.services.update(main, extensions={**service.extensions, **kept})

    def _regions(self) -> None:
        regions = self.view.texts("regions")
        self.view.approximated("regions", reason="kept; everything runs on your machines")
        for name, service in self.services.found.items():
            if not regions:
                continue
            if isinstance(service, FunctionService):
                self.services.update(name, regions=service.regions or regions)
            else:
                self.services.update(name, region=regions[0])

    def _crons(self, main: str) -> None:
        for cron in self.view.views("crons"):
            path, schedule = cron.text("path"), cron.text("schedule")
            if not path.startswith("/"):
                cron.problem("path" if "path" in cron.data else None, 'a cron needs a "path" that begins with /')
            if len(schedule.split()) != 5:
                cron.problem("schedule" if "schedule" in cron.data else None, "a cron expression of five fields is expected here")
            owner = self.services.resolve(path.partition("?")[0]) or main
            if service := self.services.found.get(owner):
                trigger = ScheduleTrigger(schedule=schedule, path=path)
                self.services.update(owner, triggers=(*service.triggers, trigger))

    def _git(self, main: str) -> None:
        triggers: list[Trigger] = []
        git = self.view.view("git")
        enabled = git.raw("deploymentEnabled")
        if isinstance(enabled, dict):
            table = git.view("deploymentEnabled")
            for branch in table.keys():  # noqa: SIM118 - a View is no mapping
                if table.flag(branch):
                    triggers.append(PushTrigger(branch=branch))
                else:
                    table.approximated(branch, reason=_GIT)
        elif git.flag("deploymentEnabled") is False:
            triggers.append(PushTrigger(when="off"))
        git.approximated("exclude", "include", reason=_GIT)
        for host in ("github", "gitlab", "bitbucket"):
            table = self.view.view(host)
            if table.flag("enabled") is False:
                triggers.append(PushTrigger(when="off"))
            table.approximated(
                "silent", "autoAlias", "aliases", reason="kept; comments and aliases are set where the Git host is connected"
            )
            table.approximated("autoJobCancelation", reason="a newer push always takes the place of a waiting one")
        service = self.services.found.get(main)
        if triggers and service is not None:
            self.services.update(main, triggers=(*service.triggers, *triggers))

    def _domains(self, main: str) -> None:
        hosts = self.view.texts("alias")
        service = self.services.found.get(main)
        if hosts and isinstance(service, WebService | StaticService | FunctionService):
            self.services.update(main, domains=tuple(Domain(host=host) for host in hosts if host))

    # -- routes

    def _routes(self, main: str) -> list[Route]:
        view, resolve = self.view, self.services.resolve
        first = routing.headers(view, main) + routing.redirects(view, main)
        rewrites = routing.rewrites(view, main, resolve)
        service = self.services.found.get(main)
        legacy = [routing.unmounted(route, self.services.mounts) for route in routing.legacy(view, main, resolve)]
        for rules in (rewrites, legacy):
            if rules and not rules[-1].force and routing.covers_everything(rules[-1]) and isinstance(service, StaticService):
                self.services.update(main, single_page=True)
                rules.pop()
        mounts = sorted(self.mounts, key=lambda route: len(route.match.path), reverse=True)
        after = [*mounts, *self.declared_routes, *rewrites]
        phase = [Route(service=main, action=Filesystem(phase="filesystem"))] if after and main else []
        return [*legacy, *first, *phase, *after]

    def _environments(self, spec: Spec, main: str) -> dict[str, dict[str, Any]]:
        """`devCommand` starts the site of the environment `development`; a static site is served by it there."""
        service: Service | None = self.services.found.get(main)
        if not self.development or service is None:
            return {}
        before = spec.canonical()
        site = {**before["services"].get(main, {}), **self.development, "kind": "web"}
        site = {key: value for key, value in site.items() if key in WebService.model_fields}
        return {"development": merge_diff(before, {**before, "services": {**before["services"], main: site}})}
