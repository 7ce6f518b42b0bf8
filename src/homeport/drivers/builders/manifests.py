"""Which files an install reads, and whether it reads nothing else: then its result can be kept and shared by key."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Any

from homeport.drivers.builders.detect import LOCKS, Folder
from homeport.drivers.builders.recipe import NodeInstall, PythonInstall
from homeport.model.base import Frozen

_BEFORE = ("preinstall", "install")
_AFTER = ("postinstall", "prepublish", "prepare")
"""Scripts of the project that package managers run once the packages are there, in this order (npm-scripts(7), life cycle)."""
_KEPT = (
    "name", "type", "dependencies", "devDependencies", "optionalDependencies", "peerDependencies", "peerDependenciesMeta",
    "bundleDependencies", "bundledDependencies", "overrides", "resolutions", "engines", "os", "cpu", "packageManager", "pnpm",
    "trustedDependencies", "dependenciesMeta", "installConfig",
)  # fmt: skip
"""Fields of package.json that an install reads; a change elsewhere (scripts, version) keeps the layer."""
_LOCAL = re.compile(r"^(file:|link:|workspace:|portal:|patch:|\.{0,2}/|~/|exec:)")
_NOT_ON_LINUX = {"pywin32", "pywin32-ctypes", "pypiwin32", "pywinpty", "winkerberos", "pyobjc-core", "appnope", "windows-curses"}


class Manifests(Frozen):
    """The files an install reads, with what they hold (possibly reduced to what matters). `blocked` is why it reads more."""

    files: dict[str, str] = {}
    blocked: str = ""
    scripts: tuple[str, ...] = ()
    """Scripts of package.json that are run in the build's folder once the packages are there."""


def node_manifests(folder: Folder, step: NodeInstall) -> Manifests:
    """What installing the packages of `step.folder` reads."""
    here = Folder(folder.tree, str(folder.root / step.folder))
    names, package = here.names(), here.json("package.json")
    if not package:
        return Manifests(blocked="there is no readable package.json")
    files = {"package.json": json.dumps({key: package[key] for key in _KEPT if key in package}, indent=1)}
    for name in sorted(names & {*LOCKS, ".npmrc", ".yarnrc", "bunfig.toml", ".pnpmrc"}):
        text = here.text(name)
        if text is None or name == "bun.lockb":
            return Manifests(blocked=f"{name} is too large or not text")
        files[name] = text
    scripts = package.get("scripts")
    wanted = scripts if isinstance(scripts, dict) and "--ignore-scripts" not in step.arguments else {}
    after = tuple(name for name in _AFTER if isinstance(wanted.get(name), str) and wanted[name].strip())
    return Manifests(files=files, blocked=_node_block(names, package), scripts=after)


def _node_block(names: set[str], package: dict[str, Any]) -> str:
    scripts = package.get("scripts")
    if isinstance(scripts, dict) and any(scripts.get(name) for name in _BEFORE):
        return "package.json has scripts that run before the install"
    if package.get("workspaces") or "pnpm-workspace.yaml" in names:
        return "it is a workspace"
    for name in (".yarnrc.yml", ".pnpmfile.cjs", "binding.gyp", "patches/", ".yarn/"):
        if name in names:
            return f"it uses {name}"
    for field in ("dependencies", "devDependencies", "optionalDependencies", "overrides", "resolutions"):
        found = package.get(field)
        if isinstance(found, dict) and _names_local(found):
            return "it depends on a local folder"
    return ""


def _names_local(value: object) -> bool:
    todo: list[object] = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            todo.extend(one.values())
        elif isinstance(one, str) and _LOCAL.match(one):
            return True
    return False


def python_manifests(folder: Folder, step: PythonInstall) -> Manifests:
    """What installing requirements reads. For Poetry and Pipenv the result is one requirements file made from the lock."""
    here = Folder(folder.tree, str(folder.root / step.folder))
    if step.method == "files":
        return _requirement_files(here, step.files)
    pyproject = here.toml("pyproject.toml")
    if step.method == "project" or (step.method in {"uv", "pyproject", "poetry"} and _is_package(here, pyproject)):
        return Manifests(blocked="the project itself is installed")
    if step.method == "pyproject":
        wanted = (pyproject.get("project") or {}).get("dependencies")
        return _generated([str(one) for one in wanted] if isinstance(wanted, list) else [])
    if step.method == "uv":
        return _uv_files(here, pyproject)
    if step.method == "poetry":
        return _generated(_poetry(here, pyproject))
    return _generated(_pipenv(here))


def _is_package(here: Folder, pyproject: dict[str, Any]) -> bool:
    """Whether the project has to be installed to be imported or called: it has a src folder, or scripts."""
    if "build-system" not in pyproject:
        return False
    project = pyproject.get("project") or {}
    poetry = (pyproject.get("tool") or {}).get("poetry") or {}
    return bool(project.get("scripts") or poetry.get("scripts") or any(name.endswith("/") for name in here.names("src")))


def _generated(lines: list[str]) -> Manifests:
    if any("\n" in line or line.startswith("-") or "@ file:" in line for line in lines):
        return Manifests(blocked="it depends on a local folder")
    return Manifests(files={"requirements.txt": "\n".join(lines) + "\n"})


def _requirement_files(here: Folder, wanted: tuple[str, ...]) -> Manifests:
    """The named files and all that they include. A path out of the service's folder, or a local project, blocks."""
    files: dict[str, str] = {}
    todo = list(wanted)
    while todo:
        name = str(PurePosixPath(todo.pop(0)))
        if name in files:
            continue
        text = None if name.startswith(("/", "..")) or "/../" in name else here.text(name)
        if text is None or len(files) > 50:
            return Manifests(blocked=f"{name} is not in the service's folder")
        files[name] = text
        for raw in re.sub(r"\\\r?\n", " ", text).splitlines():
            line = re.split(r"\s+#|^#", raw.strip())[0].strip()
            include = re.match(r"^(?:-r|-c|--requirement|--constraint)[\s=]*(\S+)$", line)
            if include:
                todo.append(str(PurePosixPath(name).parent / include[1]))
            elif re.match(r"^(-e\b|--editable|--find-links|-f\b)", line) or _is_local(line):
                return Manifests(files=files, blocked=f"{name} names a local project")
    return Manifests(files=files)


def _is_local(line: str) -> bool:
    bare = line.partition(";")[0].strip()
    return bool(re.match(r"^(\.|/|file:)", bare)) or "@ file:" in bare or (bare.endswith((".whl", ".tar.gz")) and "://" not in bare)


def _uv_files(here: Folder, pyproject: dict[str, Any]) -> Manifests:
    sources = ((pyproject.get("tool") or {}).get("uv") or {}).get("sources") or {}
    lock = here.text("uv.lock")
    if lock is None or "pyproject.toml" not in here.names():
        return Manifests(blocked="there is no uv.lock")
    local = [one for one in sources.values() if isinstance(one, dict) and ("path" in one or "workspace" in one)]
    if local or "[tool.uv.workspace]" in (here.text("pyproject.toml") or ""):
        return Manifests(blocked="it depends on a local folder")
    return Manifests(files={"pyproject.toml": here.text("pyproject.toml") or "", "uv.lock": lock})


def _poetry(here: Folder, pyproject: dict[str, Any]) -> list[str]:
    """Every package of poetry.lock that the main group needs, at its locked version; without a lock, the wishes."""
    locked = here.toml("poetry.lock").get("package")
    if not isinstance(locked, list):
        wishes = ((pyproject.get("tool") or {}).get("poetry") or {}).get("dependencies") or {}
        return [_wish(name, wish) for name, wish in wishes.items() if name != "python"]
    lines = []
    for package in locked:
        groups = package.get("groups") or ["main"]
        if package.get("optional") or "main" not in groups or str(package.get("name")).lower() in _NOT_ON_LINUX:
            continue
        source = package.get("source") or {}
        if source.get("type") in {"directory", "file"}:
            return ["-e local"]
        if source.get("type") == "git":
            lines.append(f"{package['name']} @ git+{source['url']}@{source.get('resolved_reference') or source.get('reference')}")
            continue
        markers = package.get("markers")
        text = markers.get("main", "") if isinstance(markers, dict) else markers or ""
        lines.append(f"{package['name']}=={package['version']}" + (f" ; {text}" if text else ""))
    return lines


def _pipenv(here: Folder) -> list[str]:
    """Every package of Pipfile.lock at its locked version; without a lock, the wishes of the Pipfile."""
    lock = here.json("Pipfile.lock")
    if not lock:
        return [_wish(name, wish) for name, wish in (here.toml("Pipfile").get("packages") or {}).items()]
    lines = []
    for name, entry in (lock.get("default") or {}).items():
        if not isinstance(entry, dict) or "path" in entry or "file" in entry:
            return ["-e local"]
        extras = f"[{','.join(entry['extras'])}]" if entry.get("extras") else ""
        markers = f" ; {entry['markers']}" if entry.get("markers") else ""
        version = f" @ git+{entry['git']}@{entry.get('ref', 'HEAD')}" if "git" in entry else entry.get("version", "")
        lines.append(f"{name}{extras}{version}{markers}")
    return lines


def _wish(name: str, wish: object) -> str:
    """One wish of Poetry or Pipenv as a requirement: `^2.1` and `~2.1` become ranges."""
    table = wish if isinstance(wish, dict) else {}
    if "path" in table or "file" in table:
        return "-e local"
    extras = f"[{','.join(table['extras'])}]" if table.get("extras") else ""
    if "git" in table:
        return f"{name}{extras} @ git+{table['git']}" + (f"@{table['rev']}" if "rev" in table else "")
    text = str(table.get("version", "*") if table else wish).strip()
    caret = re.fullmatch(r"\^(\d+)(?:\.(\d+))?(?:\.(\d+))?\S*", text)
    tilde = re.fullmatch(r"~(\d+)\.(\d+)\S*", text)
    if text in {"*", ""}:
        version = ""
    elif caret:
        upper = f"{int(caret[1]) + 1}" if int(caret[1]) or not caret[2] else f"0.{int(caret[2]) + 1}"
        version = f">={text[1:]},<{upper}"
    elif tilde and not text.startswith("~="):
        version = f">={text[1:]},<{tilde[1]}.{int(tilde[2]) + 1}"
    else:
        version = text if text[0] in "<>=!~" else f"=={text}"
    return f"{name}{extras}{version}"
