"""Reads `app.json`."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal, cast

from homeport.blueprints.appjson import providers
from homeport.blueprints.appjson.facts import LANGUAGES, Facts, Process, gather
from homeport.blueprints.document import parse_json
from homeport.blueprints.naming import Names, bare_name
from homeport.blueprints.opening import finish, join, open_file, parent_of
from homeport.blueprints.patch import merge_patch
from homeport.blueprints.procfile import ProcfileReader
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import View
from homeport.model.base import slug
from homeport.model.env import EnvGroup, EnvValue, PlainValue
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Reading
from homeport.model.service import Build, CronService, Hook, PrivateService, Resources, Rollout, Scale, Service, WebService, WorkerService
from homeport.model.spec import Spec

GROUP = "app"
"""The env group that holds the config variables when several processes share them."""
ENVIRONMENTS = {"review": "preview"}
"""Heroku's names of environments that Homeport calls otherwise."""
METADATA = ("repository", "keywords", "website", "logo", "success_url", "service", "deployment")


class AppJsonReader:
    """Processes are services, config variables an env group. Commands come from the Procfile in the same folder."""

    dialect: ClassVar[str] = "appjson"
    precedence: ClassVar[int] = 25
    """Below platform files and Compose, above the Procfile it stands beside."""

    def recognises(self, file_name: str, text: str) -> bool:
        """Expo's `app.json` has the same name; it is told by its `expo` key."""
        return bare_name(file_name) == "app.json" and not re.match(r'\s*\{\s*"expo"\s*:', text)

    def candidates(self, tree: SourceTree) -> list[str]:
        return ["app.json"] if "app.json" in tree.list() and self.recognises("app.json", _head(tree)) else []

    def read(self, tree: SourceTree, path: str) -> Reading:
        view = open_file(tree, path, parse_json)
        file = _File(view, tree, parent_of(path))
        file.gather()
        if view.ledger.problems:
            view.ledger.close()
        return finish(view, self.dialect, file.spec, file.warnings)


def _head(tree: SourceTree) -> str:
    try:
        return (tree.text("app.json") or "")[:2000]
    except ValueError:
        return ""


class _File:
    """One file being read."""

    def __init__(self, view: View, tree: SourceTree, folder: str) -> None:
        self.view, self.tree, self.folder = view, tree, folder
        self.warnings: list[str] = []

    def gather(self) -> None:
        view = self.view
        self.title = view.text("name")
        self.name = slug(self.title or self.tree.name)
        view.honoured("$schema", reason="for editors; Homeport checks the file against its own table of keys")
        self.description = view.text("description")
        self.metadata: dict[str, Any] = {key: view.take(key, reason="kept with the project") for key in METADATA if key in view}
        self.base = gather(view, self.name)
        self.overrides: dict[str, Facts] = {}
        for name, inner in view.view("environments").items():
            self.overrides[ENVIRONMENTS.get(name, slug(name))] = gather(inner, self.name).over(self.base)
        self.procfile = self._procfile()

    def _procfile(self) -> dict[str, Service]:
        """The services of the Procfile beside; a variable PROCFILE_PATH names another one, as on Heroku."""
        named = self.base.env.get("PROCFILE_PATH")
        path = join(self.folder, named.value if isinstance(named, PlainValue) and named.value else "Procfile")
        try:
            if self.tree.text(path) is None:
                return {}
            return dict(ProcfileReader().read(self.tree, path).spec.services)
        except (BlueprintInvalid, ValueError) as error:
            self.warnings.append(f"{path} beside the file cannot be read, so commands are detected: {str(error).splitlines()[0]}")
            return {}

    def spec(self) -> Spec:
        body = self._body(self.base)
        before = _plain(body)
        patches = {name: merge_patch(before, _plain(self._body(facts))) for name, facts in self.overrides.items()}
        return body.model_copy(update={"environments": patches})

    def _body(self, facts: Facts) -> Spec:
        addons = facts.addons or {}
        env: dict[str, EnvValue] = {**facts.env, **{k: v for k, v in providers.variables(addons).items() if _fills(facts.env.get(k))}}
        services = self._services(facts)
        groups: dict[str, EnvGroup] = {}
        if env and len(services) == 1:
            services = {name: service.model_copy(update={"env": env}) for name, service in services.items()}
        elif env:
            groups = {GROUP: EnvGroup(env=env)}
            services = {name: service.model_copy(update={"env_groups": (GROUP,)}) for name, service in services.items()}
        extensions: dict[str, Any] = {}
        if facts.described:
            extensions["described"] = facts.described
        if facts.image:
            extensions["image"] = facts.image
        return Spec(
            name=self.name,
            title=Names.title(self.title, self.name) if self.title else "",
            description=self.description,
            services=services,
            addons=addons,
            env_groups=groups,
            metadata=self.metadata,
            extensions={"heroku": extensions} if extensions else {},
        )

    def _services(self, facts: Facts) -> dict[str, Service]:
        names = Names()
        found: dict[str, Service] = {names.claim(s.title or n): s for n, s in self.procfile.items()}
        for title, process in facts.processes.items():
            name = names.claim(title)
            found[name] = _service(title, name, process, found.get(name), facts)
        if not found:
            found["web"] = WebService()
        for number, cron in enumerate(facts.crons, 1):
            found[names.claim(f"cron-{number}")] = _cron(cron)
        build = self._build(facts)
        found = {name: service.model_copy(update={"build": build, "root": self.folder}) for name, service in found.items()}
        main = "web" if "web" in found else next(iter(found))
        release = next((service.release_command for service in found.values() if service.release_command), None)
        found = {name: service.model_copy(update={"release_command": release if name == main else None}) for name, service in found.items()}
        found[main] = _main(found[main], facts)
        return found

    def _build(self, facts: Facts) -> Build:
        packs = facts.buildpacks or ()
        plain = all(re.search(rf"(?:^heroku/|heroku-buildpack-)(?:{'|'.join(LANGUAGES)})(?:\.git)?(?:#.*)?$", pack) for pack in packs)
        return Build(
            builder="auto" if plain else "buildpacks",
            command=facts.scripts.get("build", ""),
            prebuild=facts.prebuild,
            buildpacks=packs,
            stack=facts.stack,
            runtime=facts.runtime,
        )


def _fills(value: EnvValue | None) -> bool:
    """Whether an add-on's variable takes the place: nothing is said, or only that somebody has to set it."""
    return value is None or value.kind == "secret"


def _plain(spec: Spec) -> dict[str, Any]:
    return {key: value for key, value in spec.canonical().items() if key not in ("environments", "version")}


def _service(title: str, name: str, process: Process, known: Service | None, facts: Facts) -> Service:
    startup = next((c for role in ("startup", "ready") for c in process.checks if c.role == role), None)
    quantity = process.quantity if process.quantity is not None else known.scale.instances if known else 1
    values: dict[str, Any] = {
        "title": Names.title(title, name),
        "command": process.command or (known.command if known else ""),
        "release_command": known.release_command if known else None,
        "scale": Scale(
            instances=quantity,
            min=process.minimum,
            max=process.maximum,
            cooldown=process.cooldown,
            target_cpu=process.target_cpu,
            target_memory=process.target_memory,
        ),
        "resources": Resources(plan=process.size),
        "rollout": Rollout(parallelism=process.parallel),
        "health": startup,
        "checks": tuple(check for check in process.checks if check is not startup),
    }
    if title == "web":
        return WebService(port=known.port if isinstance(known, WebService) else None, **_button(values, facts.web))
    return PrivateService(**values) if process.exposed else WorkerService(**values)


def _button(values: dict[str, Any], web: dict[str, Any]) -> dict[str, Any]:
    """Options that the Cloud Run button sets on the one service it knows."""
    if not web:
        return values
    resources, scale = values["resources"], values["scale"]
    values["resources"] = resources.model_copy(update={"memory": web.get("memory") or None, "cpu": web.get("cpu") or None})
    values["scale"] = scale.model_copy(update={"max": web.get("max-instances") or scale.max, "hard_concurrency": web.get("concurrency")})
    return values


def _main(service: Service, facts: Facts) -> Service:
    """The moments of a deploy, which belong to the web process."""
    scripts = facts.scripts
    first = " && ".join(scripts[key] for key in ("postdeploy", "precreate", "postbuild", "postcreate") if scripts.get(key))
    release = service.release_command
    predeploy = scripts.get("dokku.predeploy") or scripts.get("predeploy", "")
    if predeploy:
        release = Hook(command=f"{predeploy} && {release.command}" if release and isinstance(release.command, str) else predeploy)
    hooks = {key: Hook(command=scripts[key]) for key in ("pr-predestroy", "pr-predeploy", "test", "test-setup") if scripts.get(key)}
    if scripts.get("dokku.postdeploy"):
        hooks["post_deploy"] = Hook(command=scripts["dokku.postdeploy"])
    changes: dict[str, Any] = {"release_command": release, "hooks": hooks, "first_deploy_command": Hook(command=first) if first else None}
    if scripts.get("start") and not service.command:
        changes["command"] = scripts["start"]
    if isinstance(service, WebService) and facts.web:
        port = facts.web.get("port")
        changes |= {"port": port or service.port, "protocol": "h2c" if facts.web.get("http2") else "http"}
        if "web" not in facts.processes:
            changes |= _button({"resources": service.resources, "scale": service.scale}, facts.web)
    return service.model_copy(update=changes)


def _cron(cron: tuple[str, str, str, bool]) -> CronService:
    command, schedule, policy, off = cron
    concurrency = cast("Literal['forbid', 'allow', 'replace']", policy)
    return CronService(command=command, schedule=schedule, concurrency=concurrency, scale=Scale(instances=0 if off else 1))
