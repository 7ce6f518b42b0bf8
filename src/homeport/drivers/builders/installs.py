"""The exact commands that install dependencies, and the environment every command of a build sees."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from homeport.drivers.builders.recipe import NodeInstall, PythonInstall
from homeport.drivers.builders.run import Runner, StepFailed
from homeport.drivers.toolchains.install import SYSTEM_PATH
from homeport.model.base import Frozen

_TOOL_QUIET = {
    "NEXT_TELEMETRY_DISABLED": "1", "DO_NOT_TRACK": "1", "ASTRO_TELEMETRY_DISABLED": "1", "GATSBY_TELEMETRY_DISABLED": "1",
    "YARN_ENABLE_TELEMETRY": "0", "DISABLE_OPENCOLLECTIVE": "1", "ADBLOCK": "1", "COREPACK_ENABLE_DOWNLOAD_PROMPT": "0",
    "NPM_CONFIG_UPDATE_NOTIFIER": "false", "NPM_CONFIG_FUND": "false", "NPM_CONFIG_AUDIT": "false", "NPM_CONFIG_YES": "true",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONUNBUFFERED": "1", "UV_PYTHON_DOWNLOADS": "never",
    "UV_NO_PROGRESS": "1", "LANG": "C.UTF-8",
}  # fmt: skip
"""What stops tools from asking, reporting home and looking for updates."""


class Tools(Frozen):
    """The prepared toolchains of one build, by absolute path."""

    uv: Path
    python: Path | None = None
    folders: tuple[Path, ...] = ()
    """Folders of package managers and Node, in order."""
    cache: Path
    """Home and download caches of the account that builds."""
    temporary: Path
    """Temporary files of this one build; its name also tells this build's processes from others."""
    network: dict[str, str] = {}
    berry: bool = False
    """Whether `yarn` is version 2 or newer."""

    def path(self, folder: Path, venv: Path | None) -> tuple[Path, ...]:
        """Folders in front of the system's on PATH, for commands that run in `folder`."""
        return (*([venv / "bin"] if venv else []), folder / "node_modules" / ".bin", *self.folders)

    def environment(self, env: Mapping[str, str], folder: Path, venv: Path | None) -> dict[str, str]:
        """The whole environment of a command: nothing is inherited, and the build's own variables win."""
        cache = self.cache
        return {
            **_TOOL_QUIET,
            "NPM_CONFIG_CACHE": str(cache / "npm"),
            "YARN_CACHE_FOLDER": str(cache / "yarn"),
            "YARN_GLOBAL_FOLDER": str(cache / "yarn-global"),
            "BUN_INSTALL_CACHE_DIR": str(cache / "bun"),
            "UV_CACHE_DIR": str(cache / "uv"),
            "PIP_CACHE_DIR": str(cache / "pip"),
            "XDG_CACHE_HOME": str(cache / "xdg"),
            "TMPDIR": str(self.temporary),
            **self.network,
            **({"VIRTUAL_ENV": str(venv)} if venv else {}),
            **{name: value for name, value in env.items() if "\0" not in value},
            "HOME": str(cache / "home"),
            "PATH": ":".join([*(str(one) for one in self.path(folder, venv)), SYSTEM_PATH]),
        }


_MISSING = re.compile(r"Missing: (?:@?[\w./-]+)@(\S*) from lock file")
_HEARD = 4000
"""Lines of an install that are looked at when it fails."""


def install_node(step: NodeInstall, names: set[str], tools: Tools, runner: Runner, folder: Path, env: Mapping[str, str]) -> None:
    """Install the packages of one package.json. Raises StepFailed, BuildTimedOut, BuildCancelled.

    A package-lock.json that only leaves out packages for other platforms (npm writes such ones, and then refuses them: npm/cli#4828)
    is completed, and the log says so; any other disagreement with package.json is an error, as npm means it.
    """
    argv = node_command(step, names, tools)
    heard: deque[str] = deque(maxlen=_HEARD)
    with runner.heard(heard.append):
        try:
            runner.run(argv, folder, env, step.line)
            return
        except StepFailed:
            lacking = [match[1] for line in heard if (match := _MISSING.search(line))]
            disagreeing = any("Invalid: lock file" in line for line in heard)
            if argv[:2] != ["npm", "ci"] or not lacking or any(lacking) or disagreeing:
                raise
    runner.lines.say("package-lock.json leaves out packages for other platforms; going on with `npm install`.")
    runner.run(["npm", "install", *argv[2:]], folder, env, step.line)


def node_command(step: NodeInstall, names: set[str], tools: Tools) -> list[str]:
    """The install of one package manager. Development packages are installed too: builds need them.

    `names` are the files beside package.json. A lock file is followed to the letter when the user wrote no command of his own.
    """
    own = step.line.split()[:1] == [step.tool]
    production = bool({"--omit=dev", "--production", "--only=production", "--prod", "-P"} & set(step.arguments))
    words = list(step.arguments)
    match step.tool:
        case "npm":
            locked = bool({"package-lock.json", "npm-shrinkwrap.json"} & names)
            verb = "ci" if {"ci", "clean-install"} & set(step.line.split()) or (locked and not own) else "install"
            return ["npm", verb, "--no-audit", "--no-fund", "--prefer-offline", *([] if production else ["--include=dev"]), *words]
        case "pnpm":
            locked = "pnpm-lock.yaml" in names and not own
            frozen = [] if any("frozen-lockfile" in word for word in words) else [f"--{'' if locked else 'no-'}frozen-lockfile"]
            keep = ["--package-import-method=clone-or-copy", f"--store-dir={tools.cache / 'pnpm'}", "--reporter=append-only"]
            return ["pnpm", "install", *frozen, *([] if production else ["--prod=false"]), *keep, *words]
        case "yarn" if tools.berry:
            return ["yarn", "install", *(["--immutable"] if "--immutable" in words else [])]
        case "yarn":
            frozen = ["--frozen-lockfile"] if "yarn.lock" in names and not own and "--frozen-lockfile" not in words else []
            return ["yarn", "install", "--non-interactive", *([] if production else ["--production=false"]), *frozen, *words]
        case _:
            frozen = ["--frozen-lockfile"] if {"bun.lock", "bun.lockb"} & names and not own and "--frozen-lockfile" not in words else []
            return ["bun", "install", "--no-progress", "--backend=copyfile", *frozen, *words]


def python_commands(step: PythonInstall, venv: Path, tools: Tools, *, package: bool, seed: bool = False) -> list[list[str]]:
    """Create the virtual environment if it is not there, and install into it. Run in the step's folder.

    `package` installs the project itself too; `seed` gives the environment a pip of its own for commands that call it.
    """
    uv = str(tools.uv)
    commands: list[list[str]] = []
    if not (venv / "bin" / "python").exists():
        commands.append([uv, "venv", "--quiet", "--no-config", "--python", str(tools.python), *(["--seed"] if seed else []), str(venv)])
    install = [uv, "pip", "install", "--python", str(venv / "bin" / "python"), "--compile-bytecode"]
    match step.method:
        case "uv":
            groups = [*step.groups, *([] if package else ["--no-install-project"]), "--no-editable"]
            active = ["env", f"UV_PROJECT_ENVIRONMENT={venv}", uv, "sync", "--frozen", "--no-dev", "--python", str(tools.python)]
            commands.append([*active, "--compile-bytecode", *groups])
        case "files":
            if step.files:
                commands.append([*install, *(word for file in step.files for word in ("-r", file))])
        case _:
            commands.append([*install, "."])
    return commands
