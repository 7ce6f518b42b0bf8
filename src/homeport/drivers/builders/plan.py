"""Decides a whole build before anything runs: which steps, which toolchains, which layers, and the key of it all."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from homeport.blueprints.source import FolderTree
from homeport.drivers.builders.base import BuildRequest
from homeport.drivers.builders.detect import Folder, detect
from homeport.drivers.builders.errors import UnknownLanguage
from homeport.drivers.builders.filters import belonging, is_workspace, matching
from homeport.drivers.builders.layers import layer_key
from homeport.drivers.builders.manifests import Manifests, node_manifests, python_manifests
from homeport.drivers.builders.recipe import Command, NodeInstall, PythonInstall, Recipe, Step
from homeport.drivers.builders.tree import read_manifest
from homeport.drivers.sources.snapshot import Manifest, digest_of
from homeport.drivers.toolchains.toolchains import Node, NodeTool, Python, Toolchains
from homeport.model.service import Service

FORMAT = 1
"""Raised when the way artifacts are made changes, so that old ones are not taken for new."""
_TOUCHES_VENV = re.compile(r"(?:^|[\s;&|(/])(?:pip[\d.]*|uv|poetry|pipenv|pdm|conda|setup\.py)(?:\s|$)|-m\s+(?:pip|venv|spacy|nltk)\b")
Layer = tuple[NodeInstall | PythonInstall, str, Manifests]
"""A step, the key of its layer, and the files it reads."""


@dataclass(frozen=True)
class BuildPlan:
    """One build, fully decided."""

    request: BuildRequest
    recipe: Recipe
    key: str
    files: Manifest
    """What is copied into the artifact."""
    layers: tuple[Layer, ...]
    steps: tuple[Step, ...]
    """What runs in the build's own folder, in order."""
    python: Python | None
    node: Node | None
    node_tools: tuple[NodeTool, ...]
    notes: tuple[str, ...] = ()
    generated: dict[str, str] = field(default_factory=dict)
    """Per folder, the requirements file made from a Poetry or Pipenv lock."""

    @property
    def works(self) -> bool:
        """Whether anything runs in the build's own folder."""
        return bool(self.steps)

    @property
    def steps_digest(self) -> str:
        """A short name for what runs in the build's own folder."""
        return hashlib.sha256(json.dumps([step.model_dump(mode="json") for step in self.steps]).encode()).hexdigest()[:16]

    @property
    def seeds(self) -> bool:
        """Whether commands call pip themselves."""
        return any(isinstance(step, Command) and _TOUCHES_VENV.search(step.text) for step in self.steps)

    def private(self) -> BuildPlan:
        """The same build with all Node packages installed in its own folder, where the installer runs the project's scripts itself."""
        kept = tuple(layer for layer in self.layers if not isinstance(layer[0], NodeInstall))
        moved = {id(step) for step, _, _ in self.layers if isinstance(step, NodeInstall)}
        steps = tuple(step for step in self.recipe.steps if id(step) in moved or step in self.steps)
        return replace(self, layers=kept, steps=steps)


def inside(path: str, service: str, what: str) -> str:
    """A relative path without `..`, in its shortest form. Raises UnknownLanguage."""
    parts = PurePosixPath(path).parts if path else ()
    if path.startswith("/"):
        parts = parts[1:]  # files write /dist for dist
    if ".." in parts or any(ord(c) < 32 for c in path):
        raise UnknownLanguage(
            service=service, why=f"{what} {path!r} leads out of the repository", fix="Give a folder relative to the repository's root."
        )
    return "/".join(part for part in parts if part != ".")


class Planner:
    """Makes plans. Reading only: quick enough to be asked at every deploy."""

    def __init__(self, toolchains: Toolchains) -> None:
        self.toolchains = toolchains

    def plan(self, given: BuildRequest) -> BuildPlan:
        """Decide the build of one service. Raises UnknownLanguage."""
        root = inside(_context(given.definition), given.service, "the root folder")
        request = given.model_copy(update={"definition": given.definition.model_copy(update={"root": root})})
        definition = request.definition
        manifest = read_manifest(request.source, request.source_digest)
        if root and not any(path.startswith(root + "/") for path in manifest):
            raise UnknownLanguage(
                service=request.service, why=f"there is no folder {root} in the repository", fix="Correct the service's root folder."
            )
        tree = FolderTree(request.source)
        recipe = detect(tree, definition, request.service, request.env)
        recipe = recipe.model_copy(
            update={
                "publish": inside(recipe.publish, request.service, "the publish folder"),
                "folder": inside(recipe.folder, request.service, "the working folder"),
            }
        )
        if recipe.python is not None and not _installs_python(recipe):
            recipe = recipe.model_copy(update={"steps": (PythonInstall(line="create the virtual environment"), *recipe.steps)})
        python, node, tools = self._toolchains(recipe)
        layers, steps, generated = self._split(Folder(tree, root), recipe, request, python, node, tools)
        whole = bool(root) and (_reaches_out(definition, layers) or is_workspace(manifest, Folder(tree, "").json("package.json")))
        files = belonging(manifest, root, whole)
        notes = (*recipe.notes, *(one.note for one in (python, node, *tools) if one is not None and one.note))
        return BuildPlan(
            request=request,
            recipe=recipe,
            key=self._key(request, recipe, files, python, node, tools),
            files=files,
            layers=layers,
            steps=steps,
            python=python,
            node=node,
            node_tools=tools,
            notes=notes,
            generated=generated,
        )

    def _toolchains(self, recipe: Recipe) -> tuple[Python | None, Node | None, tuple[NodeTool, ...]]:
        python = self.toolchains.python(recipe.python) if recipe.python is not None else None
        node = self.toolchains.node(recipe.node) if recipe.node is not None else None
        tools = tuple(self.toolchains.node_tool(name, wish) for name, wish in sorted(recipe.tools.items())) if node else ()
        return python, node, tools

    def _split(
        self, folder: Folder, recipe: Recipe, request: BuildRequest, python: Python | None, node: Node | None, tools: tuple[NodeTool, ...]
    ) -> tuple[tuple[Layer, ...], tuple[Step, ...], dict[str, str]]:
        """Installs that become layers, and everything else in order."""
        commands = [step for step in recipe.steps if isinstance(step, Command)]
        pythons = [(step, python_manifests(folder, step)) for step in recipe.steps if isinstance(step, PythonInstall)]
        merged = _merge([step for step, _ in pythons])
        shared = merged is not None and not any(found.blocked for _, found in pythons)
        shared = shared and not any(_TOUCHES_VENV.search(command.text) for command in commands) and request.definition.build.cache
        generated = {
            step.folder: found.files["requirements.txt"]
            for step, found in pythons
            if step.method in {"poetry", "pipenv", "pyproject"} and not found.blocked
        }
        layers: list[Layer] = []
        steps: list[Step] = []
        seen: set[str] = set()
        if shared and merged is not None and python is not None:
            files = {name: text for _, found in pythons for name, text in found.files.items()}
            wanted = Manifests(files=files)
            name = f"python {python.version} {python.executable}"
            layers.append((merged, layer_key(merged, wanted, name, request.env, request.user), wanted))
        for step in recipe.steps:
            if isinstance(step, NodeInstall):
                wanted = node_manifests(folder, step)
                if wanted.blocked or not request.definition.build.cache or node is None:
                    steps.append(step)
                elif step.folder not in seen:
                    seen.add(step.folder)
                    name = f"node {node.version} {[tool.version for tool in tools if tool.name == step.tool]}"
                    layers.append((step, layer_key(step, wanted, name, request.env, request.user), wanted))
                    steps += [Command(argv=(step.tool, "run", script), folder=step.folder) for script in wanted.scripts]
            elif isinstance(step, Command) or not shared:
                steps.append(step)
        return tuple(layers), tuple(steps), generated

    def _key(
        self,
        request: BuildRequest,
        recipe: Recipe,
        files: Manifest,
        python: Python | None,
        node: Node | None,
        tools: tuple[NodeTool, ...],
    ) -> str:
        definition = request.definition
        material = {
            "format": FORMAT,
            "source": digest_of(matching(files, definition.build_filter)),
            "kind": definition.kind,
            "root": definition.root,
            "recipe": recipe.model_dump(mode="json", exclude={"notes"}),
            "python": python and [python.version, str(python.executable)],
            "node": node and node.version,
            "tools": [(tool.name, tool.version) for tool in tools],
            "platform": [platform.machine(), *platform.libc_ver()],
            "env": {name: hashlib.sha256(value.encode()).hexdigest() for name, value in request.env.items()},
            "user": request.user,
        }
        if request.provided:
            material["provided"] = {name: hashlib.sha256(value.encode()).hexdigest() for name, value in request.provided.items()}
        return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()


def _context(definition: Service) -> str:
    """The folder that a service is built in: its root, or the context of its Dockerfile."""
    containers = definition.build.builder == "dockerfile" or definition.build.runtime.lower() == "docker"
    return definition.build.context if containers and definition.build.context else definition.root


def _installs_python(recipe: Recipe) -> bool:
    return any(isinstance(step, PythonInstall) or (isinstance(step, Command) and _TOUCHES_VENV.search(step.text)) for step in recipe.steps)


def _merge(steps: list[PythonInstall]) -> PythonInstall | None:
    """Several installs of requirements files from one folder are one; other mixtures are not."""
    if not steps:
        return None
    first = steps[0]
    if len(steps) == 1:
        return first
    if any(step.method != "files" or step.folder != first.folder for step in steps):
        return None
    files = tuple(dict.fromkeys(file for step in steps for file in step.files))
    return first.model_copy(update={"files": files, "line": " && ".join(step.line for step in steps)})


def _reaches_out(definition: Service, layers: tuple[Layer, ...]) -> bool:
    """Whether a service in a folder uses files beside that folder."""
    start = definition.command if isinstance(definition.command, str) else " ".join(definition.command)
    texts = [definition.build.command, definition.build.install, *definition.build.prebuild, start]
    texts += [text for _, _, found in layers for text in found.files.values() if len(text) < 100_000]
    return any("../" in text or text.endswith("..") for text in texts)
