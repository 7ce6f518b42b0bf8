"""From a source tree without a deployment file to a spec: one service per application found, folder by folder."""

from __future__ import annotations

import re
from typing import ClassVar

from homeport.blueprints.detect.files import Folder
from homeport.blueprints.detect.found import Found
from homeport.blueprints.detect.node import detect_node, read_package
from homeport.blueprints.detect.python import MANIFESTS, detect_python
from homeport.blueprints.document import invalid
from homeport.blueprints.naming import Names
from homeport.blueprints.source import SourceTree
from homeport.model.base import slug
from homeport.model.reading import Reading
from homeport.model.service import Build, StaticService, WebService
from homeport.model.spec import Spec

OTHER_LANGUAGES = {
    "go.mod": "go", "Gemfile": "ruby", "Cargo.toml": "rust", "mix.exs": "elixir", "composer.json": "php", "pom.xml": "java",
    "build.gradle": "java", "build.gradle.kts": "java", "deno.json": "deno", "project.clj": "clojure",
}  # fmt: skip
GROUPS = ("apps", "services", "packages", "projects", "workspaces", "src")
"""Folders whose subfolders may each be an application."""
MAX_SERVICES = 20
FRONTENDS = frozenset({"frontend", "client", "web", "ui", "webapp", "website", "dashboard", "admin", "site", "www"})


class DetectReader:
    """Detection, as the reader of last resort."""

    dialect: ClassVar[str] = "detect"
    precedence: ClassVar[int] = 90

    def recognises(self, file_name: str, text: str) -> bool:  # noqa: ARG002
        return False

    def candidates(self, tree: SourceTree) -> list[str]:
        return ["."] if detect_services(tree) else []

    def read(self, tree: SourceTree, path: str) -> Reading:
        """`path` is a folder; `.` is the root. Raises BlueprintInvalid when no application is recognised there."""
        found = detect_services(tree, "" if path == "." else path)
        if not found:
            fix = "Add a homeport.yaml, render.yaml or Procfile that says how it starts (`homeport init` writes one)."
            raise invalid(path, "", "no application was recognised in this folder", fix=fix)
        spec = Spec(name=slug(tree.name), title=Names.title(tree.name, slug(tree.name)), services={n: f.service for n, f in found.items()})
        warnings = tuple(f"{name}: {note}" for name, result in found.items() for note in result.notes)
        return Reading(file=path, dialect=self.dialect, spec=spec, warnings=warnings)


def detect_services(tree: SourceTree, root: str = "") -> dict[str, Found]:
    """Every application of a tree, by the name of its service. A single one is called by its kind."""
    folder = Folder(tree, root)
    found: list[tuple[str, Found]] = []
    top = detect_folder(folder)
    if top is not None:
        found.append((root, top))
    if top is None or not _is_final(folder, top):
        found += _below(folder, top is None)
    if not found and (page := _site(folder)) is not None:
        found.append((root, page))
    names = Names()
    result: dict[str, Found] = {}
    for path, item in found[:MAX_SERVICES]:
        own = path.rpartition("/")[2]
        name = names.claim(own if own and path != root else item.service.kind if item.service.kind != "static" else "site")
        service = item.service.model_copy(update={"root": path}) if path else item.service
        result[name] = Found(service, item.notes)
    return result


def detect_folder(folder: Folder) -> Found | None:
    """The application of one folder, without looking below it."""
    python, node = detect_python(folder), detect_node(folder)
    if python is not None and node is not None:
        return _of_two(folder, python, node)
    return python or node or _other(folder)


def _of_two(folder: Folder, python: Found, node: Found) -> Found:
    """Both languages in one folder: a web server beats a worker; assets built by Node for a Python server are not a site of their own."""
    declared = folder.has(*MANIFESTS)
    if node.service.kind == "web" and (python.service.kind != "web" or not declared):
        return node
    if python.service.kind == "web":
        return Found(python.service, (*python.notes, "package.json is there as well; it is taken for tools and assets."))
    return node if node.service.kind == "static" or not declared else python


def _is_final(folder: Folder, top: Found) -> bool:
    """Whether an application at the top takes its subfolders as its own parts."""
    package = read_package(folder)
    scripts = " ".join(str(value) for value in package.scripts.values()) if package is not None else ""
    if re.search(r"--prefix|--cwd|--workspace|cd (frontend|client|web|ui)\b|-w ", scripts):
        return True
    return top.service.kind in ("worker", "static") or not any(name in FRONTENDS for name in folder.folders())


def _below(folder: Folder, everything: bool) -> list[tuple[str, Found]]:
    """Applications in subfolders; beside an application at the top only those named like a front end."""
    found: list[tuple[str, Found]] = []
    for name in folder.folders():
        if not everything and name not in FRONTENDS:
            continue
        inner = Folder(folder.tree, folder.at(name))
        if name in GROUPS and everything and not inner.has("package.json", *MANIFESTS):
            for sub in inner.folders():
                _collect(Folder(folder.tree, inner.at(sub)), found)
        else:
            _collect(inner, found)
    return found


def _collect(folder: Folder, into: list[tuple[str, Found]]) -> None:
    if not folder.has("package.json", *MANIFESTS, *OTHER_LANGUAGES):
        return
    found = detect_folder(folder)
    if found is not None:
        into.append((folder.path, found))


def _site(folder: Folder) -> Found | None:
    for publish in ("", "public", "dist", "site", "www", "html", "static", "docs", "build", "_site", "out"):
        if folder.first(f"{publish}/index.html" if publish else "index.html"):
            where = publish or "the root folder"
            service = StaticService(publish=publish, build=Build(builder="none", runtime="static"))
            return Found(service, (f"index.html in {where}: a static site.",))
    return None


def _other(folder: Folder) -> Found | None:
    for name, language in OTHER_LANGUAGES.items():
        if folder.has(name):
            note = f"{name} says {language}: a Dockerfile or a start command is needed unless a builder for it is there."
            return Found(WebService(build=_dockerfile(folder) or Build(runtime=language)), (note,))
    build = _dockerfile(folder)
    return (
        Found(WebService(build=build, port=_exposed(folder)), ("Only a Dockerfile is here: it needs the container runtime.",))
        if build
        else None
    )


def _dockerfile(folder: Folder) -> Build | None:
    name = folder.first("Dockerfile", "Containerfile")
    return Build(builder="dockerfile", dockerfile=folder.at(name), context=folder.path, runtime="docker") if name else None


def _exposed(folder: Folder) -> int | None:
    found = re.findall(r"^\s*EXPOSE\s+(\d{1,5})", folder.text(folder.first("Dockerfile", "Containerfile")), re.MULTILINE | re.IGNORECASE)
    return int(found[-1]) if found and 0 < int(found[-1]) < 65536 else None
