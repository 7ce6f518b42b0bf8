"""Services of another folder's file, with their relative paths seen from the project's folder."""

from __future__ import annotations

import posixpath
from typing import Any

from homeport.blueprints.compose.ports import Mount, split_volume


def combined(data: dict[str, Any], included: dict[str, Any]) -> dict[str, Any]:
    """Included resources beside those already there; what was there first stays."""
    result = dict(data)
    for group, entries in included.items():
        if group in ("services", "jobs", "networks", "volumes", "secrets", "configs", "models") and isinstance(entries, dict):
            result[group] = {**entries, **(result.get(group) or {})}
    return result


def rebased(data: dict[str, Any], prefix: str) -> dict[str, Any]:
    if prefix in ("", "."):
        return data
    result = dict(data)
    for group in ("services", "jobs"):
        if isinstance(data.get(group), dict):
            result[group] = {name: rebased_service(s, prefix) if isinstance(s, dict) else s for name, s in data[group].items()}
    for group in ("secrets", "configs"):
        if isinstance(data.get(group), dict):
            result[group] = {
                name: {**e, "file": _local(e["file"], prefix)} if isinstance(e, dict) and isinstance(e.get("file"), str) else e
                for name, e in data[group].items()
            }
    return result


def _local(path: str, prefix: str) -> str:
    if prefix in ("", ".") or path.startswith(("/", "~", "git@", "github.com/")) or "://" in path:
        return path
    return posixpath.normpath(posixpath.join(prefix, path))


def rebased_service(service: dict[str, Any], prefix: str) -> dict[str, Any]:
    """A service of another folder's file with its relative paths seen from this one."""
    if prefix in ("", "."):
        return service
    result = dict(service)
    if isinstance(build := service.get("build"), dict) and "dockerfile_inline" not in build:
        result["build"] = {**build, "context": _local(str(build.get("context") or "."), prefix)}
    elif isinstance(build, dict) and "context" in build:
        result["build"] = {**build, "context": _local(str(build["context"]), prefix)}
    if isinstance(files := service.get("env_file"), list):
        result["env_file"] = [{**f, "path": _local(str(f.get("path")), prefix)} if isinstance(f, dict) else f for f in files]
    if isinstance(labels := service.get("label_file"), list):
        result["label_file"] = [_local(str(f), prefix) for f in labels]
    if isinstance(volumes := service.get("volumes"), list):
        result["volumes"] = [_rebased_volume(v, prefix) for v in volumes]
    return result


def _rebased_volume(volume: Any, prefix: str) -> Any:
    if isinstance(volume, dict):
        if volume.get("type") == "bind" and isinstance(volume.get("source"), str):
            return {**volume, "source": "./" + _local(volume["source"], prefix) if volume["source"].startswith(".") else volume["source"]}
        return volume
    pieces = split_volume(str(volume))
    if len(pieces) > 1 and Mount.of(pieces).source.startswith("."):
        return ":".join(["./" + _local(pieces[0], prefix), *pieces[1:]])
    return volume
