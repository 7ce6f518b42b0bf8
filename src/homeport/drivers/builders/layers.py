"""Dependency layers: what an install that reads only manifests leaves behind, kept read-only under the key of those manifests.

A layer lies at `layers/<key>/` from the first byte (scripts of a virtual environment name their own path) and counts only once
`layer.json`, written last, is there. Its key names everything the install sees: manifests, tools, platform, build environment and
the account it ran as, so that one project cannot plant files in the layer of another.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

from homeport.drivers.builders.detect import LOCKS
from homeport.drivers.builders.installs import Tools, install_node, python_commands
from homeport.drivers.builders.manifests import Manifests
from homeport.drivers.builders.recipe import NodeInstall, PythonInstall
from homeport.drivers.builders.run import Runner
from homeport.drivers.files import freeze, give, locked, remove_tree, write_atomic

FORMAT = 1
"""Raised when the way layers are made changes, so that old ones are not taken for new."""


def boot_id() -> str:
    """The kernel's name for the time since it started; empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def layer_key(step: NodeInstall | PythonInstall, manifests: Manifests, tools: str, env: Mapping[str, str], user: int | None) -> str:
    """sha256 of all that the install can see."""
    return hashlib.sha256(
        json.dumps(
            {
                "format": FORMAT,
                "step": step.model_dump(mode="json", exclude={"folder", "line"}),
                "own": step.line.split()[:1] == [getattr(step, "tool", "")] and not manifests.files.keys().isdisjoint(LOCKS),
                "ci": not {"ci", "clean-install"}.isdisjoint(step.line.split()),
                "files": manifests.files,
                "tools": tools,
                "platform": [platform.machine(), *platform.libc_ver()],
                "env": {name: hashlib.sha256(value.encode()).hexdigest() for name, value in env.items()},
                "user": user,
            },
            sort_keys=True,
        ).encode()
    ).hexdigest()


class LayerStore:
    """The folder `layers/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)

    def ready(self, key: str) -> bool:
        """Whether the layer is complete. After a restart of the machine its size is checked once: a power cut loses writes."""
        record = self.folder / key / "layer.json"
        try:
            data = json.loads(record.read_bytes())
        except (OSError, ValueError):
            return False
        if data.get("boot") == boot_id():
            return True
        if _size(self.folder / key) != data.get("bytes"):
            return False
        write_atomic(record, json.dumps({**data, "boot": boot_id()}).encode())
        return True

    def changed(self, key: str, steps: str) -> bool:
        """Whether a build with these steps had to have its own packages because the steps change them."""
        return (self.folder / f".{key}.{steps}.changed").exists()

    def remember_change(self, key: str, steps: str) -> None:
        """Save the next build with these packages and steps from trying with shared ones first."""
        (self.folder / f".{key}.{steps}.changed").touch()

    def ensure(
        self,
        key: str,
        step: NodeInstall | PythonInstall,
        manifests: Manifests,
        tools: Tools,
        env: Mapping[str, str],
        runner: Callable[[Path], Runner],
        cancelled: Callable[[], bool],
    ) -> Path:
        """The layer's folder, made first when it is not there. Raises what `Runner.run` raises."""
        target = self.folder / key
        if self.ready(key):
            os.utime(target)  # used now: `prune` goes by it
            return target
        with locked(self.folder / f".{key}.lock", cancelled):
            if not self.ready(key):
                remove_tree(target)
                target.mkdir()
                target.chmod(0o755)
                with runner(target) as running:
                    self._make(target, step, manifests, tools, env, running)
        return target

    def _make(
        self, target: Path, step: NodeInstall | PythonInstall, manifests: Manifests, tools: Tools, env: Mapping[str, str], running: Runner
    ) -> None:
        for name, text in manifests.files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_text(text)
        if running.user is not None:
            give(target, running.user)
        if isinstance(step, NodeInstall):
            install_node(step, set(manifests.files), tools, running, target, tools.environment(env, target, None))
            (target / "node_modules").mkdir(exist_ok=True)
        else:
            venv = target / "venv"
            inner = step.model_copy(update={"folder": "", **({} if step.method in {"files", "uv"} else _GENERATED)})
            for argv in python_commands(inner, venv, tools, package=False):
                running.run(argv, target, tools.environment(env, target, venv), step.line)
        for name in manifests.files:
            if name not in {"package-lock.json", "pnpm-lock.yaml", "yarn.lock", "bun.lock"}:
                (target / name).unlink(missing_ok=True)  # .npmrc and the like may hold a password
        owner = (0, 0) if os.geteuid() == 0 else None
        freeze(target, owner)
        write_atomic(target / "layer.json", json.dumps({"boot": boot_id(), "bytes": _size(target), "line": step.line}).encode())


_GENERATED = {"method": "files", "files": ("requirements.txt",)}


def _size(folder: Path) -> int:
    """Bytes of all files but the record itself."""
    total = 0
    for here, _, names in os.walk(folder):
        total += sum(os.lstat(f"{here}/{name}").st_size for name in names if name != "layer.json")
    return total
