"""A Compose project as one model: override files, `include` and `extends` followed, variables put in, references checked."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import Any

from homeport.blueprints.compose.checks import check_project
from homeport.blueprints.compose.dotenv import DotenvInvalid, parse_dotenv
from homeport.blueprints.compose.interpolation import InvalidTemplate, MissingVariable, interpolate, parse_template
from homeport.blueprints.compose.keys import ROOT
from homeport.blueprints.compose.merge import CannotMerge, canonical, merge, merge_service, without_reset
from homeport.blueprints.compose.project import Project, Rules
from homeport.blueprints.compose.rebase import combined, rebased, rebased_service
from homeport.blueprints.compose.shapes import check
from homeport.blueprints.compose.tree import ComposeFile, parse_compose
from homeport.blueprints.source import SourceTree
from homeport.model.errors import BlueprintInvalid, Problem
from homeport.model.reading import Path

MAX_FILES = 60
"""Files one project may be spread over."""

KEPT = frozenset({"environment", "args", "command", "entrypoint", "image"})
"""Keys below a service whose variables stay written: who maps them decides what a variable becomes."""


_READING = Rules()


def load(
    tree: SourceTree,
    path: str,
    *,
    overrides: tuple[str, ...] = (),
    name: str | None = None,
    values: Mapping[str, str] | None = None,
    rules: Rules = _READING,
) -> Project:
    """Load a Compose file with its overrides. `values` win over the tree's `.env`; `name` stands in for the folder's.

    Raises BlueprintInvalid with every problem found.
    """
    loader = _Loader(tree, path, name, dict(values or {}), rules)
    return loader.project(path, overrides)


class _Loader:
    def __init__(self, tree: SourceTree, path: str, name: str | None, values: dict[str, str], rules: Rules) -> None:
        self.tree, self.rules, self.fallback_name = tree, rules, name
        self.folder = posixpath.dirname(path)
        self.given = values
        self.values = {**self._dotenv(posixpath.join(self.folder, ".env")), **values}
        self.files: list[ComposeFile] = []
        self.warnings: list[str] = []
        self.problems: list[Problem] = []
        self.unset: dict[str, Path] = {}
        self.parsed: dict[str, list[ComposeFile]] = {}
        self.checked: set[int] = set()
        self.main: ComposeFile | None = None

    def project(self, path: str, overrides: tuple[str, ...]) -> Project:
        documents = [document for one in (path, *overrides) for document in self._parse(one, self.main)]
        self.main = documents[0] if documents else ComposeFile(path, "", None)
        self._name(documents)
        for document in documents:
            self._check(document)
        self._stop()
        if not any(document.data for document in documents):
            self.problems.append(self.main.problem((), "empty compose file"))
        data: dict[str, Any] = {}
        try:
            for document in documents:
                data = self._layer(data, document, self.folder)
        except CannotMerge as error:
            self.problems.append(self.main.problem(error.path, str(error)))
        self._stop()
        project = Project(
            self.values["COMPOSE_PROJECT_NAME"], self.folder, data, self.values, self.main, self.tree, self.files or documents
        )
        project.problems, project.warnings = self.problems, self.warnings
        check_project(project, self.rules)
        self._stop()
        project.unset = set(self.unset)
        return project

    def _stop(self) -> None:
        if self.problems:
            main = self.main or ComposeFile("", "", None)
            raise BlueprintInvalid(file=main.file, problems=self.problems, text=main.text)

    def _dotenv(self, path: str) -> dict[str, str]:
        try:
            text = self.tree.text(posixpath.normpath(path))
            return parse_dotenv(text, self.given) if text else {}
        except (DotenvInvalid, ValueError):
            return {}

    def _parse(self, path: str, asking: ComposeFile | None, place: Path = ()) -> list[ComposeFile]:
        if path in self.parsed:
            return self.parsed[path]
        try:
            text = self.tree.text(path)
        except ValueError as error:
            raise BlueprintInvalid(file=path, problems=[Problem(str(error))]) from error
        if text is None or len(self.parsed) > MAX_FILES:
            message = f"{path}: there is no such file in the source" if text is None else f"more than {MAX_FILES} files"
            if asking is None:
                raise BlueprintInvalid(file=path, problems=[Problem(message)])
            self.problems.append(asking.problem(place, message, "Commit the file, or take the line out."))
            self._stop()
        documents = parse_compose(path, text or "")
        self.parsed[path] = documents
        self.files.extend(documents)
        return documents

    def _check(self, document: ComposeFile) -> None:
        if id(document) in self.checked:
            return
        self.checked.add(id(document))
        if document.data is not None and not isinstance(document.data, dict):
            self.problems.append(document.problem((), "the file must be a mapping"))
            return
        self.problems += [
            document.problem(odd, f"non-string key in {_parent(odd)}: {odd[-1]}", "Put it in quotes.")
            for odd in document.odd_keys
            if not _pair_key(odd)
        ]
        self.problems += check(document, ROOT, strict=self.rules.strict)
        if isinstance(document.data, dict) and document is self.main and "services" not in document.data:
            self._old_layout(document)

    def _old_layout(self, document: ComposeFile) -> None:
        for key, value in document.data.items():
            if isinstance(value, dict) and ("image" in value or "build" in value) and not key.startswith("x-"):
                self.problems.append(
                    document.problem(
                        (key,),
                        f"{key!r} stands where only `services:` and its like may: this is the layout Compose gave up in 2016",
                        "Indent it under `services:`.",
                    )
                )
                return

    def _name(self, documents: list[ComposeFile]) -> None:
        name = self.values.get("COMPOSE_PROJECT_NAME", "")
        if "COMPOSE_PROJECT_NAME" not in self.given:
            for document in documents:
                written = document.data.get("name") if isinstance(document.data, dict) else None
                if isinstance(written, str) and written:
                    name = self._interpolate(written, ("name",), document, {**self.values, "COMPOSE_PROJECT_NAME": name})
        name = name or (self.tree.name if self.fallback_name is None else self.fallback_name)
        if not name and self.main is not None:
            self.problems.append(self.main.problem((), "project name must not be empty"))
        self.values["COMPOSE_PROJECT_NAME"] = name

    # One file

    def _layer(self, data: dict[str, Any], document: ComposeFile, folder: str) -> dict[str, Any]:
        self._check(document)
        self._stop()
        if not isinstance(document.data, dict):
            return data
        own = self._prepared(document)
        own = self._with_extends(own, document, folder)
        for index, entry in enumerate(own.pop("include", None) or ()):
            data = self._include(data, entry, document, ("include", index), folder)
        return merge(data, own, document.tags) if data else without_reset(own, document.tags)

    def _prepared(self, document: ComposeFile) -> dict[str, Any]:
        result = canonical(self._put_in(document.data, (), document))
        for name, service in (result.get("services") or {}).items():
            if service is None:
                result["services"] = {**result["services"], name: {}}
        return result

    def _put_in(self, value: Any, path: Path, document: ComposeFile) -> Any:
        if isinstance(value, str):
            return self._interpolate(value, path, document, self.values) if "$" in value else value
        if isinstance(value, dict):
            if len(path) in (2, 3) and path[0] in ("services", "jobs"):
                return {
                    key: self._kept(item, (*path, key), document) if key in KEPT else self._put_in(item, (*path, key), document)
                    for key, item in value.items()
                }
            return {key: item if key.startswith("x-") else self._put_in(item, (*path, key), document) for key, item in value.items()}
        if isinstance(value, list):
            return [self._put_in(item, (*path, index), document) for index, item in enumerate(value)]
        return value

    def _kept(self, value: Any, path: Path, document: ComposeFile) -> Any:
        """A value whose variables stay written; they are only checked."""
        stack: list[tuple[Path, Any]] = [(path, value)]
        while stack:
            where, item = stack.pop()
            if isinstance(item, str) and "$" in item:
                if self.rules.strict:
                    self._interpolate(item, where, document, self.values)
                else:
                    self._parseable(item, where, document)
            elif isinstance(item, dict):
                stack.extend(((*where, key), inner) for key, inner in item.items())
            elif isinstance(item, list):
                stack.extend(((*where, index), inner) for index, inner in enumerate(item))
        return value

    def _parseable(self, text: str, path: Path, document: ComposeFile) -> None:
        try:
            parse_template(text)
        except InvalidTemplate as error:
            self.problems.append(document.problem(path, str(error)))

    def _interpolate(self, text: str, path: Path, document: ComposeFile, values: Mapping[str, str]) -> str:
        try:
            return interpolate(text, values, self._unset_at(path), lenient=not self.rules.strict)
        except (InvalidTemplate, MissingVariable) as error:
            self.problems.append(document.problem(path, str(error)))
            return ""

    def _unset_at(self, path: Path) -> Callable[[str], None]:
        def remember(name: str) -> None:
            self.unset.setdefault(name, path)

        return remember

    # Other files

    def _include(self, data: dict[str, Any], entry: Any, document: ComposeFile, place: Path, folder: str) -> dict[str, Any]:
        entry = {"path": entry} if isinstance(entry, str) else entry
        paths = _texts(entry.get("path"))
        if not paths:
            self.problems.append(document.problem(place, "missing property 'path'"))
            return data
        first = _join(folder, paths[0])
        inner_folder = _join(folder, entry["project_directory"]) if entry.get("project_directory") else posixpath.dirname(first)
        outer = self.values
        files = _texts(entry.get("env_file")) or []
        found = [self._dotenv(_join(folder, file)) for file in files] if files else [self._dotenv(_join(inner_folder, ".env"))]
        self.values = {key: value for one in (*found, outer) for key, value in one.items()}
        included: dict[str, Any] = {}
        self.chain = [*getattr(self, "chain", []), document.file]
        for path in paths:
            full = _join(folder, path)
            if full in self.chain:
                self.problems.append(document.problem(place, f"include cycle detected: {' -> '.join([*self.chain, full])}"))
                self._stop()
            for one in self._parse(full, document, place):
                included = self._layer(included, one, inner_folder)
        self.chain = self.chain[:-1]
        self.values = {**self.values, **outer}
        return combined(data, rebased(included, _relative(inner_folder, folder)))

    def _with_extends(self, own: dict[str, Any], document: ComposeFile, folder: str) -> dict[str, Any]:
        result = dict(own)
        for group in ("services", "jobs"):
            services = own.get(group)
            if isinstance(services, dict) and any(isinstance(s, dict) and "extends" in s for s in services.values()):
                done: dict[str, Any] = {}
                for name in services:
                    self._extended(group, services, name, document, folder, done, ())
                result[group] = done
        return result

    def _extended(
        self,
        group: str,
        services: dict[str, Any],
        name: str,
        document: ComposeFile,
        folder: str,
        done: dict[str, Any],
        chain: tuple[tuple[str, str], ...],
    ) -> dict[str, Any]:
        if name in done:
            return dict(done[name])
        service = services[name] if isinstance(services[name], dict) else {}
        place: Path = (group, name, "extends")
        step = (document.file, name)
        extends = service.get("extends")
        if step in chain:
            names = " -> ".join(f"{file}:{one}" for file, one in (*chain, step))
            self.problems.append(document.problem(place, f"Circular reference: {names}"))
            self._stop()
        if isinstance(extends, dict):
            base = self._base(group, services, extends, document, folder, done, (*chain, step), place)
            service = merge_service(base, {k: v for k, v in service.items() if k != "extends"}, (group, name), document.tags)
        done[name] = service
        return service

    def _base(
        self,
        group: str,
        services: dict[str, Any],
        extends: dict[str, Any],
        document: ComposeFile,
        folder: str,
        done: dict[str, Any],
        chain: tuple[tuple[str, str], ...],
        place: Path,
    ) -> dict[str, Any]:
        target, file = str(extends.get("service") or ""), extends.get("file")
        if not file:
            if target not in services:
                self._missing_base(document, place, target, document.file)
                return {}
            return self._extended(group, services, target, document, folder, done, chain)
        path = _join(folder, str(file))
        result: dict[str, Any] | None = None
        for other in self._parse(path, document, place):
            self._check(other)
            self._stop()
            theirs = self._prepared(other) if isinstance(other.data, dict) else {}
            if target in (theirs.get(group) or {}):
                found = self._extended(group, theirs[group], target, other, posixpath.dirname(path), {}, chain)
                found = without_reset(found, other.tags, (group, target))
                result = found if result is None else merge_service(result, found, (group, target), other.tags)
        if result is None:
            self._missing_base(document, place, target, path)
        return rebased_service(result or {}, _relative(posixpath.dirname(path), folder))

    def _missing_base(self, document: ComposeFile, place: Path, target: str, file: str) -> None:
        self.problems.append(document.problem(place, f"cannot extend service {target!r}: there is none in {file}"))
        self._stop()


def _pair_key(path: Path) -> bool:
    return len(path) > 3 and path[-2] in ("labels", "driver_opts", "options") and path[0] != "services"


def _parent(path: Path) -> str:
    return ".".join(map(str, path[:-1])) or "top level"


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _join(folder: str, path: str) -> str:
    if ":" in path.split("/", 1)[0]:
        return path
    return posixpath.normpath(posixpath.join(folder, path))


def _relative(folder: str, start: str) -> str:
    if ":" in folder:
        return ""
    return posixpath.relpath(folder or ".", start or ".")
