"""Builds what a Dockerfile describes without a container engine, as far as that can be done honestly.

All stages that the wanted one needs are played in the one folder that holds the source: the paths of an image are mapped back to
the paths they were copied from, installs become layers, system packages and accounts become notes, and what cannot be done
(another language, a file from another image) stops with the line that asks for it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import PurePosixPath

from homeport.blueprints.source import SourceTree
from homeport.drivers.builders.commands import plain_words, read_line
from homeport.drivers.builders.detect import Folder, node_tool
from homeport.drivers.builders.dockerfile_text import Instruction, Stage, pairs_of, parse, substitute, words_of
from homeport.drivers.builders.errors import UnknownLanguage
from homeport.drivers.builders.recipe import Command, NodeInstall, PythonInstall, Recipe, Step
from homeport.model.env import PlainValue
from homeport.model.service import Service, StaticService

_PYTHON_IMAGE = re.compile(r"(?:^|/)(?:python|pypy)(?::(\d[\d.]*)?|$)|python:?(\d\.\d+)|tiangolo/uvicorn|distroless/python3")
_NODE_IMAGE = re.compile(r"(?:^|/)(?:node|bun)(?::(\d[\d.]*)?|$)|distroless/nodejs(\d*)")
_SERVER_IMAGE = re.compile(r"(?:^|/)(?:nginx|nginx-unprivileged|httpd|caddy|static-web-server)(?::|@|$)")
_PLAIN_IMAGE = re.compile(r"(?:^|/)(?:ubuntu|debian|alpine|buildpack-deps|fedora|almalinux|rockylinux|amazonlinux|busybox|scratch|base-debian\d+|static-debian\d+)(?::|@|$)")  # fmt: skip  # noqa: E501
_SITE = ("/usr/share/nginx/html", "/usr/local/apache2/htdocs", "/usr/share/caddy", "/srv", "/public", "/var/www/html")
_SYSTEM = {"apt-get", "apt", "apk", "yum", "dnf", "microdnf", "dpkg", "curl", "wget", "gpg", "add-apt-repository", "locale-gen", "update-ca-certificates", "gem", "go", "cargo"}  # fmt: skip  # noqa: E501
_HARMLESS = {"useradd", "adduser", "addgroup", "groupadd", "usermod", "chown", "chmod", "mkdir", "rm", "ln", "echo", "true", "touch", "set", "ls", "cat", "which", "groupmod", "userdel", "install", "date", "sed"}  # fmt: skip  # noqa: E501
_BRANCHES = re.compile(r"(?:^|[;&|\s])(?:if|for|while|case)\s")
_BUILDS = re.compile(r"\brun build\b|\byarn build\b")
_READS_PORT = re.compile(r"env(?:iron)?\b[^\n]{0,20}\bPORT\b|getenv\([^\n]{0,4}PORT\b|\$\{?PORT\b")
_DROPPED_ENV = {"PORT", "HOSTNAME", "PATH", "VIRTUAL_ENV", "HOME", "NPM_CONFIG_PREFIX", "PNPM_HOME", "TMPDIR"}


def recipe_from_dockerfile(tree: SourceTree, definition: Service, service: str, env: dict[str, str]) -> Recipe:
    """The recipe that a Dockerfile amounts to. Raises UnknownLanguage naming what cannot be done."""
    build, root = definition.build, PurePosixPath(definition.root)
    if build.builder == "image" or (build.image and not build.dockerfile and not build.dockerfile_inline and build.builder == "auto"):
        raise _hopeless(service, f"it runs the image {build.image or build.runtime}, which only a container engine can")
    path = build.dockerfile or str(root / "Dockerfile")
    text = build.dockerfile_inline or tree.text(path)
    if text is None:
        raise _hopeless(service, f"there is no {path}")
    try:
        stages = parse(text)
    except ValueError as error:
        raise _hopeless(service, f"{path} cannot be read: {error}") from error
    args = {name: value.value for name, value in build.args.items() if isinstance(value, PlainValue)}
    player = _Player(stages, {**args, **{k: v for k, v in env.items() if k in args}}, service, path, tree, root)
    return player.play(build.target, isinstance(definition, StaticService))


def _hopeless(service: str, why: str) -> UnknownLanguage:
    return UnknownLanguage(
        service=service,
        why=f"{why}, and there is no container engine",
        fix="Install Docker or Podman, or give a build command and a start command.",
    )


class _Player:
    """Plays stages in one folder. `paths` maps absolute paths of the image to paths of the source."""

    def __init__(self, stages: list[Stage], args: dict[str, str], service: str, file: str, tree: SourceTree, root: PurePosixPath) -> None:
        self.tree, self.root = tree, root
        self.stages, self.args, self.service, self.file = stages, args, service, file
        self.steps: list[Step] = []
        self.notes: list[str] = []
        self.packages: list[str] = []
        self.python: str | None = None
        self.node: str | None = None
        self.tools: dict[str, str] = {}
        self.site: str | None = None
        self.done: dict[str, _State] = {}

    def play(self, target: str, static: bool) -> Recipe:
        last = next((stage for stage in self.stages if target and stage.name == target.lower()), self.stages[-1])
        state = self.stage(last)
        notes = [f"Built from {self.file} without a container engine: the machine's own system is used, not the image {self._image(last)}."]
        if self.packages:
            notes.append(f"System packages are not installed; these should be on the machine: {', '.join(dict.fromkeys(self.packages))}.")
        command: tuple[str, ...] | str = "" if static or self.site is not None else state.start()
        command, port = self._port(command, state.port)
        return Recipe(
            steps=tuple(self.steps),
            python=self.python,
            node=self.node,
            tools=self.tools,
            publish=self.site or "",
            folder=state.source(state.workdir),
            command=command,
            port=port,
            env={name: value for name, value in state.env.items() if name not in _DROPPED_ENV},
            notes=(*notes, *self.notes),
        )

    def _image(self, stage: Stage) -> str:
        parent = next((one for one in self.stages[: self.stages.index(stage)] if one.name == stage.base.lower()), None)
        return stage.base if parent is None else self._image(parent)

    def _port(self, command: tuple[str, ...] | str, exposed: int | None) -> tuple[tuple[str, ...] | str, int | None]:
        """An exposed port written into the command becomes $PORT, so that two releases can run side by side.

        Where the program's own source reads PORT nothing is fixed either; else it must get the exposed one.
        """
        text = command if isinstance(command, str) else shlex.join(command)
        if exposed is None or "PORT" in text:
            return command, None
        replaced, times = re.subn(rf"(?<=[:\s=]){exposed}(?=\s|$)", "$PORT", text)
        if times == 1:
            self.notes.append(f"The start command listens on PORT instead of {exposed}.")
            return replaced, None
        return command, None if _reads_port(self.tree, str(self.root)) else exposed

    def stage(self, stage: Stage) -> _State:
        if stage.name in self.done:
            return self.done[stage.name]
        parent = next((one for one in self.stages if one.name == stage.base.lower() and one is not stage), None)
        if parent is not None and self.stages.index(parent) < self.stages.index(stage):
            state = self.stage(parent).child()
        else:
            self._language(stage.base)
            state = _State(dict(self.args))
        self.done[stage.name] = state
        state.look_ahead(stage, self._copied)
        for one in stage.instructions:
            self._instruction(one, state, stage)
        return state

    def _language(self, image: str) -> None:
        name = image.lower()
        if match := _NODE_IMAGE.search(name):
            self.node = match[1] or match[2] or "" if "bun" not in name else ""
            if "bun" in name:
                self.tools["bun"] = ""
        elif match := _PYTHON_IMAGE.search(name):
            self.python = match[1] or match[2] or ""
        elif not _SERVER_IMAGE.search(name) and not _PLAIN_IMAGE.search(name):
            raise _hopeless(self.service, f"{self.file} builds on the image {image[:80]}")

    def _instruction(self, one: Instruction, state: _State, stage: Stage) -> None:
        text = substitute(one.text, state.known())
        match one.name:
            case "ARG":
                name, _, value = text.partition("=")
                state.args.setdefault(name, value.strip("\"'"))
            case "ENV":
                state.env |= pairs_of(text)
            case "WORKDIR":
                state.workdir = state.absolute(text.strip("\"'"))
            case "EXPOSE":
                ports = re.findall(r"\d+", text)
                state.port = int(ports[0]) if ports and 0 < int(ports[0]) < 65536 else None
            case "COPY" | "ADD":
                self._copy(one, text, state, stage)
            case "RUN":
                self._run(one, state)
            case "CMD":
                state.cmd = state.command(one.text)
            case "ENTRYPOINT":
                state.entrypoint, state.cmd = state.command(one.text), ()
            case "SHELL" | "ONBUILD":
                self.notes.append(f"{self.file}:{one.line}: {one.name} is not acted upon.")

    def _copy(self, one: Instruction, text: str, state: _State, stage: Stage) -> None:
        words = words_of(text)
        if len(words) < 2:
            return
        *sources, target = words
        origin = one.flags.get("from", "").lower()
        if any(source.startswith(("http://", "https://", "git@")) for source in sources):
            raise _hopeless(self.service, f"{self.file}:{one.line} adds a file from the network")
        other: _State | None = None
        if origin:
            found = next((s for s in self.stages if origin in {s.name, str(self.stages.index(s))} and s is not stage), None)
            if found is None:
                if "uv" in origin or "node" in origin:
                    return  # a tool that is there anyway (COPY --from=ghcr.io/astral-sh/uv)
                raise _hopeless(self.service, f"{self.file}:{one.line} copies from the image {origin[:80]}")
            other = self.stage(found)
        for source in sources:
            here = other.source(other.absolute(source)) if other else source.strip("/").removeprefix("./").strip(".") or ""
            self._copy_one(here, source, target, state, many=len(sources) > 1)

    def _copied(self, stage: Stage, origin: str, path: str) -> str:
        """The source path of a file or folder that a stage takes from another stage; empty when that is no stage."""
        found = next((s for s in self.stages if origin in {s.name, str(self.stages.index(s))} and s is not stage), None)
        if found is None:
            return ""
        state = self.stage(found)
        return state.source(state.absolute(path))

    def _copy_one(self, here: str, source: str, target: str, state: _State, *, many: bool) -> None:
        there = state.absolute(target)
        if any(there == site or there.startswith(site + "/") for site in _SITE) and not state.workdir.startswith(there):
            self.site = here
            return
        if state.top == "/" or not there.startswith(state.top) or any(c in source for c in "*?["):
            return  # outside the application (configuration of nginx, a virtual environment), or a pattern copied in place
        name = PurePosixPath(here).name
        into = target.endswith(("/", "/.")) or target in {".", "./"} or many
        landed = state.source(there)
        wanted = f"{landed}/{name}".strip("/") if into and "." in name else landed
        if here in {wanted, landed} or (into and here == f"{landed}/{name}".strip("/")) or not here or wanted.startswith(".."):
            return
        self.steps.append(Command(argv=("cp", "-rT", here, wanted or ".")))

    def _run(self, one: Instruction, state: _State) -> None:
        text = substitute(one.text, {**state.args}) if state.args else one.text
        if text.startswith("["):
            try:
                words = [str(word) for word in json.loads(text)]
                text = shlex.join(words[2:] if words[:2] in (["/bin/sh", "-c"], ["sh", "-c"], ["/bin/bash", "-c"]) else words)
            except ValueError:
                pass
        folder = state.source(state.workdir)
        if _BRANCHES.search(text):
            self._run_script(one, text, state, folder)
            return
        parts = [part.strip() for part in re.split(r"&&|;|\n", text) if part.strip()]
        kept = [part for part in parts if not self._is_system(part)]
        if not kept:
            return
        joined = " && ".join(state.relative(part) for part in kept)
        for step in read_line(joined, folder):
            if isinstance(step, NodeInstall):
                self.node = self.node or ""
                if step.tool != "npm":
                    self.tools.setdefault(step.tool, "")
            elif isinstance(step, PythonInstall):
                self.python = self.python or ""
            self.steps.append(step)

    def _run_script(self, one: Instruction, text: str, state: _State, folder: str) -> None:
        """A RUN with branches or loops: the well-known choice of package manager by lock file is made here, others run as they are."""
        if "package-lock.json" in text and ("yarn.lock" in text or "pnpm-lock" in text):
            here = Folder(self.tree, str(self.root / folder))
            tool = node_tool(here, here.names())
            if _BUILDS.search(text):
                self.steps.append(Command(argv=(tool, "run", "build"), folder=folder))
            else:
                self.node = self.node or ""
                self.tools |= {} if tool == "npm" else {tool: ""}
                self.steps.append(NodeInstall(tool=tool, folder=folder, line="install packages"))
        elif any(re.search(rf"\b{re.escape(word)}\b", text) for word in ("apt-get", "apk", "yum", "dnf")):
            self.notes.append(f"{self.file}:{one.line}: the RUN that installs system packages was left out.")
        else:
            self.steps.append(Command(argv=(state.relative(text),), script=True, folder=folder))

    def _is_system(self, part: str) -> bool:
        """Parts that set up the image itself: packages are noted down, accounts and modes are left out."""
        words = plain_words(part) or part.split()
        while words and re.match(r"^[A-Za-z_]\w*=", words[0]):
            words = words[1:]
        if not words:
            return True
        if words[0] in _SYSTEM:
            wanted = (
                words[2:] if words[1:2] in (["install"], ["add"]) else words[words.index("install") + 1 :] if "install" in words else []
            )
            self.packages += [word.split("=")[0] for word in wanted if re.match(r"^[a-z0-9][\w.+-]*(=.*)?$", word)]
            return True
        if words[0] in _HARMLESS or words[:3] in (["python", "-m", "venv"], ["python3", "-m", "venv"]) or words[:2] == ["uv", "venv"]:
            return True
        return words[0] in {"npm", "corepack"} and ("-g" in words or "--global" in words or words[1:2] == ["cache"])


def _reads_port(tree: SourceTree, root: str) -> bool:
    """Whether any of the first 300 source files asks the environment for PORT."""
    todo, looked = ["" if root == "." else root], 0
    while todo and looked < 300:
        folder = todo.pop(0)
        for name in tree.list(folder):
            path = f"{folder}/{name}".lstrip("/")
            if name.endswith("/"):
                todo += [] if name in {"node_modules/", "tests/", "test/", "docs/"} or name.startswith(".") else [path.rstrip("/")]
            elif name.endswith((".py", ".js", ".ts", ".mjs", ".cjs", ".sh", ".toml")) or name in {"package.json", "Procfile"}:
                looked += 1
                try:
                    text = tree.text(path) or ""
                except ValueError:
                    continue
                if _READS_PORT.search(text) or (name == "package.json" and '"next"' in text):
                    return True
    return False


class _State:
    """What an image looks like after the instructions so far."""

    def __init__(self, args: dict[str, str]) -> None:
        self.args, self.env = args, dict[str, str]()
        self.workdir, self.port = "/", None  # type: tuple[str, int | None]
        self.top = "/"
        self.folders: dict[str, str] = {}
        self.cmd: tuple[str, ...] | str = ()
        self.entrypoint: tuple[str, ...] | str = ()

    def child(self) -> _State:
        made = _State(dict(self.args))
        made.env, made.workdir, made.port, made.top = dict(self.env), self.workdir, self.port, self.top
        made.folders, made.cmd, made.entrypoint = dict(self.folders), self.cmd, self.entrypoint
        return made

    def known(self) -> dict[str, str]:
        return {**self.args, **self.env}

    def look_ahead(self, stage: Stage, copied: Callable[[Stage, str, str], str]) -> None:
        """Learn from all COPYs of a stage which folder of the image is which folder of the source."""
        workdir = self.workdir
        for one in stage.instructions:
            text = substitute(one.text, self.known())
            if one.name == "WORKDIR":
                self.workdir = self.absolute(text.strip("\"'"))
                self.top = self.top if self.top != "/" else "/" + self.workdir.strip("/").split("/")[0] if self.workdir != "/" else "/"
            elif one.name == "COPY" and "from" in one.flags:
                words = words_of(text)
                if len(words) == 2 and self.absolute(words[1]) == self.workdir != "/":
                    folder = copied(stage, one.flags["from"].lower(), words[0])
                    if folder and "." not in PurePosixPath(folder).name.strip("."):
                        self.folders[self.workdir] = folder
            elif one.name == "COPY":
                self._learn(words_of(text))
        self.workdir = workdir

    def _learn(self, words: list[str]) -> None:
        """One COPY from the source: a folder stands for a folder, a file says where the folder around it is."""
        if len(words) < 2 or (any(c in words[0] for c in "*?[") and len(words) == 2 and not words[1].endswith(("/", "."))):
            return
        source, target = PurePosixPath(words[0].removeprefix("./").strip("/") or "."), self.absolute(words[-1])
        if len(words) == 2 and "." not in source.name.strip(".") and not any(c in words[0] for c in "*?["):
            self.folders.setdefault(target, "" if str(source) == "." else str(source))
            return
        if PurePosixPath(target).name == source.name:
            target = str(PurePosixPath(target).parent)
        parent = str(source.parent)
        self.folders.setdefault(target, "" if parent == "." else parent)

    def absolute(self, path: str) -> str:
        parts: list[str] = []
        for part in (PurePosixPath(self.workdir) / path).parts[1:]:
            if part == "..":
                parts = parts[:-1]
            elif part != ".":
                parts.append(part)
        return "/" + "/".join(parts)

    def source(self, absolute: str) -> str:
        """The source path an image path was copied from; what nobody copied lies where it would below the working folder."""
        for known in sorted(self.folders, key=len, reverse=True):
            if absolute == known or absolute.startswith(known.rstrip("/") + "/"):
                rest = absolute[len(known) :].strip("/")
                return f"{self.folders[known]}/{rest}".strip("/")
        return absolute.removeprefix(self.top).strip("/") if self.top != "/" else ""

    def relative(self, text: str) -> str:
        """A command with paths of the application made relative to the working folder."""
        if self.workdir == "/":
            return text
        base = re.escape(self.workdir.rstrip("/"))
        return re.sub(rf"(?<![\w./-]){base}(?=/|\s|$)(/?)", lambda match: "./" if match[1] else ".", text)

    def command(self, text: str) -> tuple[str, ...] | str:
        text = text.strip()
        if text.startswith("["):
            try:
                return tuple(self.relative(str(word)) for word in json.loads(text))
            except ValueError:
                pass
        return self.relative(text)

    def start(self) -> tuple[str, ...] | str:
        """ENTRYPOINT and CMD together, as an image would start."""
        if not self.entrypoint:
            return self.cmd
        if isinstance(self.entrypoint, str) or not self.cmd:
            return self.entrypoint
        return (*self.entrypoint, *(self.cmd if isinstance(self.cmd, tuple) else ("/bin/sh", "-c", self.cmd)))
