"""Reads a render.yaml: the resources of the root, of `ungrouped`, and of each environment of each project."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, cast

from pydantic import ValidationError

from homeport.blueprints.dialect import open_blueprint, validation_problems
from homeport.blueprints.document import invalid, parse_yaml
from homeport.blueprints.naming import Names, bare_name
from homeport.blueprints.overrides import merge_diff
from homeport.blueprints.render.addons import read_database
from homeport.blueprints.render.env import Context, Resources, read_variables
from homeport.blueprints.render.services import read_service
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import Ledger, View
from homeport.model.base import slug
from homeport.model.env import EnvGroup
from homeport.model.reading import Reading
from homeport.model.spec import Previews, Spec

FILES = ("render.yaml", "render.yml")
ROOT = ("services", "databases", "envVarGroups", "projects", "ungrouped")


class RenderReader:
    """Render blueprints."""

    dialect: ClassVar[str] = "render"
    precedence: ClassVar[int] = 10

    def recognises(self, file_name: str, text: str) -> bool:
        name = bare_name(file_name)
        return name in FILES or (name.endswith((".render.yaml", "-render.yaml")) and "services:" in text)

    def candidates(self, tree: SourceTree) -> list[str]:
        names = tree.list()
        return [name for name in FILES if name in names]

    def read(self, tree: SourceTree, path: str) -> Reading:
        text = open_blueprint(tree, path)
        document = parse_yaml(path, text)
        if document.data is None:
            raise invalid(path, text, "the file is empty", 1, 1, "Describe at least one service under `services:`.")
        ledger = Ledger(document)
        root = View(ledger, document.data)
        context = Context()
        try:
            spec = _Blueprint(root, context, tree.name).spec()
        except ValidationError as error:
            raise validation_problems(error, ledger) from error
        if not ledger.problems and not spec.services and not spec.addons and not spec.env_groups:
            line, column = next(iter(document.places.values()), (1, 1))
            raise invalid(
                path, text, "nothing that runs is described here", line, column, "Describe at least one service under `services:`."
            )
        return Reading(file=path, dialect=self.dialect, spec=spec, keys=ledger.close(), warnings=tuple(context.warnings))


class _Blueprint:
    """One file on its way to a spec."""

    def __init__(self, root: View, context: Context, name: str) -> None:
        self.root, self.context, self.name = root, context, name
        self.environments: dict[str, Resources] = {}
        self.settings: dict[str, Any] = {}

    def spec(self) -> Spec:
        root, context = self.root, self.context
        self._claim_names(root.data)
        title = ""
        shared = Resources()
        if not any(key in root.data for key in ROOT) and "type" in root.data:
            context.warnings.append("The file is one service without `services:`; Render wants it in that list.")
            read_service(root, context, shared)
        else:
            self._resources(root, shared)
        if "ungrouped" in root:
            self._resources(root.view("ungrouped"), shared)
        titles = [self._project(project) for project in root.views("projects")]
        if len(titles) == 1:
            title = titles[0]
        elif titles:
            context.warnings.append(f"The projects {', '.join(titles)} of this file are read as one, since they lie in one repository.")
        root.honoured("version")
        return self._merge(shared, title)

    def _claim_names(self, data: Any) -> None:
        """Names first, so that a reference may stand above what it refers to."""
        for part in _parts(data):
            for item in _mappings(part.get("services")):
                kind, title = str(item.get("type", "")).lower(), item.get("name")
                if title is not None:
                    (self.context.addons if kind in ("redis", "keyvalue") else self.context.services).claim(str(title))
            for item in _mappings(part.get("databases")):
                if item.get("name") is not None:
                    self.context.addons.claim(str(item["name"]))
            self.context.groups |= {str(item["name"]) for item in _mappings(part.get("envVarGroups")) if item.get("name") is not None}

    def _resources(self, view: View, into: Resources) -> None:
        for item in view.views("envVarGroups"):
            name = item.text("name")
            if not name:
                item.problem(None, "a group needs a `name`")
                continue
            variables = read_variables(item, self.context)
            for group in variables.groups:
                item.problem("envVars", f"a group cannot hold another group ({group})")
            into.groups[name] = EnvGroup(env=variables.env)
            for key, value in variables.previews.items():
                into.in_preview("env_groups", name, "env", key, value=value)
        for item in view.views("databases"):
            read_database(item, self.context, into)
        for item in view.views("services"):
            read_service(item, self.context, into)

    def _project(self, view: View) -> str:
        title = view.text("name")
        if not title:
            view.problem(None, "a project needs a `name`")
        for item in view.views("environments"):
            named = item.text("name")
            if not named:
                item.problem(None, "an environment needs a `name`")
            name = slug(named or "production")
            self._resources(item, self.environments.setdefault(name, Resources()))
            settings: dict[str, Any] = {}
            isolation = item.view("networking").text("isolation", reason="environments never reach each other's private services")
            protection = item.view("permissions").text("protection")
            if isolation == "disabled":
                item.view("networking").approximated("isolation", reason="environments are always kept apart here")
            item.view("permissions").ignored("protection", reason="who may change an environment is set by Homeport's own roles")
            settings |= {"isolation": isolation} if isolation else {}
            settings |= {"protection": protection} if protection else {}
            settings |= {"title": named} if named and named != name else {}
            if settings:
                self.settings[name] = settings
        return title

    def _previews(self) -> Previews:
        root = self.root
        inner = root.view("previews")
        generation = inner.word("generation")
        if generation not in ("", "off", "manual", "automatic"):
            inner.problem("generation", f"{generation[:40]!r} is no way of making previews", "Use automatic, manual or off.")
            generation = ""
        for old in ("previewsEnabled", "pullRequestPreviewsEnabled"):
            enabled = root.flag(old, reason="the older name of previews.generation")
            if enabled and not generation:
                generation = "automatic"
        days = inner.integer("expireAfterDays", low=1)
        for old in ("previewsExpireAfterDays", "pullRequestPreviewsExpireAfterDays"):
            older = root.integer(old, low=1, reason="the older name of previews.expireAfterDays")
            days = days if days is not None else older
        return Previews(generation=cast("Literal['off', 'manual', 'automatic']", generation or "off"), expire_after_days=days)

    def _merge(self, shared: Resources, title: str) -> Spec:
        name = slug(title or self.name)
        previews = self._previews()
        names = list(self.environments)
        base = next((n for n in ("production", "prod", "main", "live") if n in names), names[0] if names else "")
        extensions = {"render": {"environments": self.settings}} if self.settings else {}

        def whole(environment: str) -> Spec:
            own = self.environments.get(environment, Resources())
            return Spec(
                name=name,
                title=Names.title(title, name),
                services=shared.services | own.services,
                addons=shared.addons | own.addons,
                env_groups=shared.groups | own.groups,
                routes=(*shared.routes, *own.routes),
                previews=previews,
                extensions=extensions,
            )

        first = whole(base)
        before = first.canonical()
        patches = {n: merge_diff(before, whole(n).canonical()) if n != base else {} for n in names}
        own = self.environments.get(base, Resources())
        preview: dict[str, Any] = {}
        for patch in (shared.preview, own.preview):
            preview = _join(preview, patch)
        if preview:
            patches["preview"] = preview
        if len(names) > 1:
            others = ", ".join(n for n in names if n != base)
            self.context.warnings.append(f"The environment {base} is the base; {others} are kept as what differs from it.")
        return first.model_copy(update={"environments": patches}) if patches else first


def _join(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    joined = dict(first)
    for key, value in second.items():
        old = joined.get(key)
        joined[key] = _join(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return joined


def _parts(data: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of the file that may hold resources."""
    if not isinstance(data, dict):
        return
    yield data
    if isinstance(data.get("ungrouped"), dict):
        yield data["ungrouped"]
    for project in _mappings(data.get("projects")):
        yield from _mappings(project.get("environments"))


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                yield item
