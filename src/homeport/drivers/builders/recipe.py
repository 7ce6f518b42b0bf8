"""What a build consists of: typed, pure values. How they are found is `commands.py` and `detect.py`; who runs them is `process.py`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from homeport.model.base import Frozen


class NodeInstall(Frozen):
    """Install the packages of one package.json."""

    kind: Literal["node-install"] = "node-install"
    tool: Literal["npm", "pnpm", "yarn", "bun"]
    folder: str = ""
    """Relative to the service's root."""
    arguments: tuple[str, ...] = ()
    """What the user wrote after `install`, when it changes the result."""
    line: str = ""


class PythonInstall(Frozen):
    """Install requirements into the service's one virtual environment."""

    kind: Literal["python-install"] = "python-install"
    method: Literal["files", "uv", "poetry", "pipenv", "project", "pyproject"] = "files"
    folder: str = ""
    files: tuple[str, ...] = ()
    """For `files`: requirements files, relative to `folder`."""
    groups: tuple[str, ...] = ()
    """Extras or dependency groups that were asked for."""
    line: str = ""


class Command(Frozen):
    """Run a program of the user's. With `script`, `argv` is one line for /bin/sh."""

    kind: Literal["command"] = "command"
    argv: tuple[str, ...]
    script: bool = False
    folder: str = ""
    env: dict[str, str] = {}

    @property
    def text(self) -> str:
        """As the user would write it."""
        return " ".join(self.argv)


Step = Annotated[NodeInstall | PythonInstall | Command, Field(discriminator="kind")]


class Recipe(Frozen):
    """Every decision about a build, taken before anything runs."""

    steps: tuple[Step, ...] = ()
    python: str | None = None
    """Wished version; None when the service needs no Python."""
    node: str | None = None
    tools: dict[str, str] = {}
    """Wished versions of pnpm, yarn and bun."""
    publish: str = ""
    """For static services: folder of the files, relative to the service's root."""
    command: tuple[str, ...] | str = ""
    """Start command that a Dockerfile or framework gave."""
    folder: str = ""
    """Working folder of the start command, relative to the service's root."""
    port: int | None = None
    """Port that a Dockerfile exposes, when its command does not take PORT."""
    env: dict[str, str] = {}
    """Variables of a Dockerfile's ENV."""
    notes: tuple[str, ...] = ()
