"""Finds out how a service is built: pure reading of its source and definition into a `Recipe`."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import PurePosixPath
from typing import Any

from homeport.blueprints.source import SourceTree
from homeport.drivers.builders.commands import read_line
from homeport.drivers.builders.errors import UnknownLanguage
from homeport.drivers.builders.recipe import Command, NodeInstall, PythonInstall, Recipe, Step
from homeport.model.service import Service, StaticService

LOCKS = {
    "package-lock.json": "npm", "npm-shrinkwrap.json": "npm", "pnpm-lock.yaml": "pnpm", "yarn.lock": "yarn",
    "bun.lock": "bun", "bun.lockb": "bun",
}  # fmt: skip
PYTHON_FILES = ("requirements.txt", "pyproject.toml", "uv.lock", "Pipfile", "setup.py", "poetry.lock", "manage.py", "runtime.txt")
PUBLISH = ("dist", "build", "out", "public", "_site", "www", ".output/public", "dist/browser", "storybook-static")
"""Where static builds put their files, in the order they are looked for once the build is done."""
FAMILIES = {
    "node": "node", "nodejs": "node", "bun": "node", "javascript": "node", "typescript": "node", "deno": "deno",
    "python": "python", "python3": "python",
    "static": "static", "docker": "docker", "image": "image", "dockerfile": "docker",
}  # fmt: skip
_PYTHON_WORD = re.compile(
    r"(?:^|[\s;&|(/])(?:python[\d.]*|pip[\d.]*|uv|poetry|pipenv|gunicorn|uvicorn|alembic|django-admin|flask|celery)(?:\s|$)"
)
_NODE_WORD = re.compile(r"(?:^|[\s;&|(/])(?:node|npm|npx|yarn|pnpm|bun|bunx|tsc|vite|next|corepack)(?:\s|$)")


class Folder:
    """The service's own folder in the source tree."""

    def __init__(self, tree: SourceTree, root: str) -> None:
        self.tree, self.root = tree, PurePosixPath(root)

    def text(self, path: str) -> str | None:
        """A file's text; None when it is not there or too large to be read."""
        try:
            return self.tree.text(str(self.root / path))
        except ValueError:
            return None

    def names(self, folder: str = "") -> set[str]:
        """Names in a folder; folders end with `/`."""
        return set(self.tree.list(str(self.root / folder) if str(self.root / folder) != "." else ""))

    def json(self, path: str) -> dict[str, Any]:
        """A JSON object; empty when there is none."""
        try:
            data = json.loads(self.text(path) or "{}")
        except (ValueError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}

    def toml(self, path: str) -> dict[str, Any]:
        """A TOML document; empty when there is none."""
        try:
            return tomllib.loads(self.text(path) or "")
        except (tomllib.TOMLDecodeError, RecursionError):
            return {}


def detect(tree: SourceTree, definition: Service, service: str, env: dict[str, str]) -> Recipe:
    """Decide everything about the build of a service. Raises UnknownLanguage."""
    build, folder = definition.build, Folder(tree, definition.root)
    family = FAMILIES.get(build.runtime.lower(), build.runtime.lower())
    publish = definition.publish if isinstance(definition, StaticService) else ""
    if build.builder == "none":
        return Recipe(publish=publish)
    if build.builder in {"dockerfile", "image"} or family in {"docker", "image"}:
        from homeport.drivers.builders.dockerfile import recipe_from_dockerfile

        return recipe_from_dockerfile(tree, definition, service, env)
    names = folder.names()
    steps, notes = _steps(folder, names, definition, family, service)
    python = _needs(_PYTHON_WORD, PythonInstall, steps, definition) or family == "python" or (not family and _is_python(names))
    node = _needs(_NODE_WORD, NodeInstall, steps, definition) or family == "node" or (not family and "package.json" in names)
    tools = {step.tool: "" for step in steps if isinstance(step, NodeInstall) and step.tool != "npm"}
    tools |= {tool: "" for tool in ("pnpm", "yarn", "bun") if any(tool in c.text.split() for c in steps if isinstance(c, Command))}
    manager = _package_manager(folder)
    if manager and manager[0] in tools:
        tools[manager[0]] = manager[1]
    elif "yarn" in tools:
        tools["yarn"] = "4" if _is_berry(folder) else "1"
    return Recipe(
        steps=tuple(steps),
        python=python_wish(folder, definition, env) if python else None,
        node=node_wish(folder, definition, env) if node else None,
        tools=tools,
        publish=publish,
        notes=tuple(notes),
    )


def _needs(word: re.Pattern[str], install: type, steps: list[Step], definition: Service) -> bool:
    start = definition.command if isinstance(definition.command, str) else " ".join(definition.command)
    texts = [step.text for step in steps if isinstance(step, Command)] + [start]
    return any(isinstance(step, install) for step in steps) or any(word.search(text) for text in texts)


def _steps(folder: Folder, names: set[str], definition: Service, family: str, service: str) -> tuple[list[Step], list[str]]:
    build = definition.build
    given = [step for line in (build.install, *build.prebuild, build.command) if line for step in read_line(line)]
    if build.builder == "command" or (build.command and any(isinstance(step, NodeInstall | PythonInstall) for step in given)):
        return given, []
    found = _found_installs(folder, names, family) if not build.install else []
    if build.command or build.install:
        installs: list[Step] = [*found, *given]
        if build.command:
            return installs, []
        return [*installs, *_found_builds(folder, names, installs)], []
    if not found and not _known(names, definition, family):
        raise UnknownLanguage(
            service=service,
            why=_why_unknown(family, definition.root),
            fix="Add a requirements.txt, pyproject.toml, package.json or index.html, or give a build command and a start command.",
        )
    return [*found, *_found_builds(folder, names, found)], []


def _why_unknown(family: str, root: str) -> str:
    where = f"the folder {root}" if root else "the repository"
    if family and family not in {"node", "python", "static"}:
        return f"it is written for {family}, for which Homeport has no toolchain, and no build command is given"
    return f"{where} has none of the files by which Homeport knows a language"


def _known(names: set[str], definition: Service, family: str) -> bool:
    if isinstance(definition, StaticService) or definition.kind == "function" or family in {"static", "node", "python"}:
        return True
    return bool(definition.command) or "index.html" in names or _is_python(names)


def _is_python(names: set[str]) -> bool:
    return any(name in names for name in PYTHON_FILES) or any(name in names for name in ("app.py", "main.py", "wsgi.py", "asgi.py"))


def _found_installs(folder: Folder, names: set[str], family: str) -> list[Step]:
    found: list[Step] = []
    if "package.json" in names and family != "python":
        found.append(NodeInstall(tool=node_tool(folder, names), line="install packages"))
    if family in {"", "python"} and (step := _python_install(folder, names)) is not None:
        found.append(step)
    return found


def node_tool(folder: Folder, names: set[str]) -> str:
    """The package manager by its lock file, else by `packageManager`, else npm."""
    by_lock = [tool for file, tool in LOCKS.items() if file in names]
    manager = _package_manager(folder)
    if manager and (not by_lock or manager[0] in by_lock):
        return manager[0]
    return by_lock[0] if by_lock else "npm"


def _package_manager(folder: Folder) -> tuple[str, str] | None:
    match = re.match(r"^(npm|pnpm|yarn|bun)@(\d[\w.-]*)", str(folder.json("package.json").get("packageManager") or ""))
    return (match[1], match[2]) if match else None


def _is_berry(folder: Folder) -> bool:
    """Yarn from version 2 on: its lock file says so, or it has its own configuration file."""
    return ".yarnrc.yml" in folder.names() or "__metadata:" in (folder.text("yarn.lock") or "")[:400]


def _python_install(folder: Folder, names: set[str]) -> PythonInstall | None:
    if "uv.lock" in names and "pyproject.toml" in names:
        return PythonInstall(method="uv", line="uv sync")
    if "requirements.txt" in names:
        return PythonInstall(method="files", files=("requirements.txt",), line="install requirements.txt")
    if "poetry.lock" in names:
        return PythonInstall(method="poetry", line="install poetry.lock")
    if "Pipfile" in names:
        return PythonInstall(method="pipenv", line="install the Pipfile")
    if "pyproject.toml" in names and (folder.toml("pyproject.toml").get("project") or {}).get("dependencies") is not None:
        return PythonInstall(method="pyproject", line="install pyproject.toml")
    if "setup.py" in names or "build-system" in folder.toml("pyproject.toml"):
        return PythonInstall(method="project", line="install the project")
    return None


def _found_builds(folder: Folder, names: set[str], installs: list[Step]) -> list[Step]:
    """What is run after the install when the file names no build command: package.json's `build`, Django's collectstatic."""
    steps: list[Step] = []
    node = next((step for step in installs if isinstance(step, NodeInstall)), None)
    scripts = folder.json("package.json").get("scripts")
    if node is not None and isinstance(scripts, dict) and scripts.get("build"):
        steps.append(Command(argv=(node.tool, "run", "build")))
    if "manage.py" in names and any(isinstance(step, PythonInstall) for step in installs) and _collects_static(folder, names):
        steps.append(Command(argv=("python", "manage.py", "collectstatic", "--noinput")))
    return steps


def _collects_static(folder: Folder, names: set[str]) -> bool:
    """Whether a settings module next to or one folder below manage.py sets STATIC_ROOT."""
    for name in sorted(names):
        if name.endswith("/") and "settings.py" in (inner := folder.names(name.rstrip("/"))):
            return "STATIC_ROOT" in (folder.text(f"{name}settings.py") or "")
        if name.endswith("/") and "settings/" in inner:
            return any("STATIC_ROOT" in (folder.text(f"{name}settings/{file}") or "") for file in folder.names(f"{name}settings"))
    return "settings.py" in names and "STATIC_ROOT" in (folder.text("settings.py") or "")


def python_wish(folder: Folder, definition: Service, env: dict[str, str]) -> str:
    """Wished Python: the file's, PYTHON_VERSION, .python-version, runtime.txt, Pipfile, pyproject; empty when none says."""
    pipfile = folder.toml("Pipfile").get("requires") or {}
    pyproject = folder.toml("pyproject.toml")
    poetry = ((pyproject.get("tool") or {}).get("poetry") or {}).get("dependencies") or {}
    wishes = (
        definition.build.runtime_version if definition.build.runtime.lower() in {"python", "python3", ""} else "",
        env.get("PYTHON_VERSION", ""),
        _first_line(folder.text(".python-version")),
        _first_line(folder.text("runtime.txt")),
        pipfile.get("python_full_version") or pipfile.get("python_version") or "",
        (pyproject.get("project") or {}).get("requires-python") or "",
        poetry.get("python") or "",
    )
    return next((str(wish).strip()[:80] for wish in wishes if wish), "")


def node_wish(folder: Folder, definition: Service, env: dict[str, str]) -> str:
    """Wished Node: the file's, NODE_VERSION, .node-version, .nvmrc, .tool-versions, `engines.node`; empty when none says."""
    package = folder.json("package.json")
    engines, volta = package.get("engines"), package.get("volta")
    tool_versions = re.search(r"^nodejs\s+(\S+)", folder.text(".tool-versions") or "", re.MULTILINE)
    wishes = (
        definition.build.runtime_version if definition.build.runtime.lower() in {"node", "nodejs", ""} else "",
        env.get("NODE_VERSION", ""),
        _first_line(folder.text(".node-version")),
        _first_line(folder.text(".nvmrc")),
        tool_versions[1] if tool_versions else "",
        engines.get("node", "") if isinstance(engines, dict) else "",
        volta.get("node", "") if isinstance(volta, dict) else "",
    )
    return next((str(wish).strip()[:80] for wish in wishes if wish), "")


def _first_line(text: str | None) -> str:
    lines = [line.strip() for line in (text or "").splitlines() if line.strip() and not line.strip().startswith("#")]
    return lines[0] if lines else ""
