"""How Compose lays one file over another: lists that append, lists that are keyed, values that replace.

Rules: compose-spec `13-merge.md`; where it is silent, the behaviour of compose-go `override`. Both sides are first brought
into one form (`canonical`), so that short and long syntax meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from homeport.blueprints.compose.ports import Mount, port_key, split_volume
from homeport.blueprints.view import scalar_text
from homeport.model.reading import Path, show_path

Tags = Mapping[Path, str]

_PAIRS = frozenset({"annotations", "environment", "labels", "sysctls", "args", "additional_contexts"})
_LISTS = frozenset({"dns", "dns_search", "tmpfs", "label_file"})
_REPLACED = frozenset({"command", "entrypoint", "test", "runtime_flags"})


class CannotMerge(ValueError):
    """Two files give one key forms that do not go together."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"cannot override {show_path(path)}: the files give it different forms")
        self.path = path


def canonical(model: dict[str, Any]) -> dict[str, Any]:
    """A file's data with every short form written long. Values that have a wrong type stay as they are."""
    result = dict(model)
    for group in ("services", "jobs"):
        if isinstance(services := result.get(group), dict):
            result[group] = {
                name: canonical_service(service) if isinstance(service, dict) else service for name, service in services.items()
            }
    for group in ("networks", "volumes", "secrets", "configs"):
        if isinstance(entries := result.get(group), dict):
            result[group] = {name: _with_pairs(entry) if isinstance(entry, dict) else entry for name, entry in entries.items()}
    return result


def _with_pairs(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: as_pairs(value) if key == "labels" else value for key, value in entry.items()}


def canonical_service(service: dict[str, Any]) -> dict[str, Any]:
    """One service in long form."""
    result = {key: _FORMS[key](value) if key in _FORMS and value is not None else value for key, value in service.items()}
    if isinstance(deploy := result.get("deploy"), dict) and "labels" in deploy:
        result["deploy"] = _with_pairs(deploy)
    return result


def as_pairs(value: Any) -> Any:
    """`[KEY=value, KEY]` as `{KEY: value, KEY: null}`; every value as text."""
    if isinstance(value, dict):
        return {key: item if item is None or isinstance(item, str | dict | list) else scalar_text(item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    result: dict[str, Any] = {}
    for item in value:
        key, mark, rest = str(item).partition("=")
        result[key] = rest if mark else None
    return result


def as_list(value: Any) -> Any:
    """One text as a list of one."""
    return [value] if isinstance(value, str) else value


def as_names(value: Any) -> Any:
    """A list of names as a mapping to nothing."""
    return dict.fromkeys(map(str, value)) if isinstance(value, list) else value


def _hosts(value: Any) -> Any:
    if isinstance(value, dict):
        return [
            f"{host}={address}"
            for host, addresses in sorted(value.items())
            for address in (addresses if isinstance(addresses, list) else [addresses])
        ]
    if not isinstance(value, list):
        return value
    result = []
    for item in map(str, value):
        host, mark, address = item.partition("=") if "=" in item else item.partition(":")
        result.append(f"{host.strip()}={address.strip().strip('[]')}" if mark else item)
    return result


def _depends(value: Any) -> Any:
    if isinstance(value, list):
        return {str(name): {"condition": "service_started", "required": True} for name in value}
    return value


def _env_files(value: Any) -> Any:
    if isinstance(value, str):
        value = [value]
    return [{"path": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value


def _build(value: Any) -> Any:
    if isinstance(value, str):
        return {"context": value}
    if not isinstance(value, dict):
        return value
    forms = {
        "args": as_pairs,
        "labels": as_pairs,
        "additional_contexts": as_pairs,
        "extra_hosts": _hosts,
        "ssh": as_pairs,
        "cache_from": as_list,
    }
    return {key: forms[key](item) if key in forms else item for key, item in value.items()}


def _extends(value: Any) -> Any:
    return {"service": value} if isinstance(value, str) else value


_FORMS: dict[str, Callable[[Any], Any]] = {
    "annotations": as_pairs,
    "build": _build,
    "depends_on": _depends,
    "dns": as_list,
    "dns_search": as_list,
    "env_file": _env_files,
    "environment": as_pairs,
    "extends": _extends,
    "extra_hosts": _hosts,
    "label_file": as_list,
    "labels": as_pairs,
    "models": as_names,
    "networks": as_names,
    "sysctls": as_pairs,
    "tmpfs": as_list,
}


def merge(base: dict[str, Any], override: dict[str, Any], tags: Tags | None = None) -> dict[str, Any]:
    """`override` laid over `base`, both canonical. `tags` are the override's `!reset` and `!override` paths. Raises CannotMerge."""
    merged = _merge(base, override, (), tags or {})
    return merged if isinstance(merged, dict) else {}


def merge_service(base: dict[str, Any], override: dict[str, Any], path: Path, tags: Tags | None = None) -> dict[str, Any]:
    """The same for one service that stands at `path`. Raises CannotMerge."""
    merged = _merge(base, override, path, tags or {})
    return merged if isinstance(merged, dict) else {}


def without_reset(model: Any, tags: Tags, path: Path = ()) -> Any:
    """A file's data without what it resets."""
    if not tags:
        return model
    if isinstance(model, dict):
        return {key: without_reset(value, tags, (*path, key)) for key, value in model.items() if tags.get((*path, key)) != "reset"}
    return model


def _merge(base: Any, override: Any, path: Path, tags: Tags) -> Any:
    if override is None:
        return base
    if base is None:
        return override
    if isinstance(base, dict) and isinstance(override, dict):
        return _mappings(base, override, path, tags)
    if isinstance(base, list) and isinstance(override, list):
        return _lists(base, override, path)
    if isinstance(base, dict | list) != isinstance(override, dict | list) or isinstance(base, dict) != isinstance(override, dict):
        if _is_replaced(path):
            return override
        raise CannotMerge(path)
    return override


def _is_replaced(path: Path) -> bool:
    last = path[-1] if path else ""
    if last in _REPLACED:
        return True
    return (len(path) > 1 and path[-2] == "ulimits") or last in ("provenance", "sbom", "external", "platform")


def _mappings(base: dict[str, Any], override: dict[str, Any], path: Path, tags: Tags) -> dict[str, Any]:
    if len(path) > 1 and path[-2] == "ulimits":
        return override
    if path and path[-1] == "logging" and None not in (base.get("driver"), override.get("driver")) and base["driver"] != override["driver"]:
        return override
    result = dict(base)
    for key, value in override.items():
        where = (*path, key)
        tag = tags.get(where) if tags else None
        if tag == "reset":
            result.pop(key, None)
        elif tag == "override" or key not in result or (key.startswith("x-") and len(path) != 1):
            result[key] = without_reset(value, tags, where)
        else:
            result[key] = _merge(result[key], value, where, tags)
    return result


def _lists(base: list[Any], override: list[Any], path: Path) -> list[Any]:
    last = path[-1] if path else ""
    if last in _REPLACED:
        return override
    if last == "config" and len(path) > 1 and path[-2] == "ipam":
        return _keyed(base, override, lambda item: str(item.get("subnet")) if isinstance(item, dict) else str(item), combine=True)
    return _keyed(base, override, _INDEXES.get(str(last), repr))


def _keyed(base: list[Any], override: list[Any], index: Callable[[Any], str], *, combine: bool = False) -> list[Any]:
    """Append; an item whose key is already there takes the place of the earlier one."""
    result: list[Any] = []
    seen: dict[str, int] = {}
    for item in (*base, *override):
        key = index(item)
        if key not in seen:
            seen[key] = len(result)
            result.append(item)
        elif combine and isinstance(item, dict) and isinstance(result[seen[key]], dict):
            result[seen[key]] = _mappings(result[seen[key]], item, (), {})
        else:
            result[seen[key]] = item
    return result


def _by_source(item: Any) -> str:
    return str(item).replace("=", ":").partition(":")[0]


def _by_target(item: Any) -> str:
    if isinstance(item, dict):
        return str(item.get("target") or item.get("source") or "")
    pieces = str(item).split(":")
    return pieces[1] if len(pieces) > 1 else pieces[0]


def _by_mount(item: Any) -> str:
    return str(item.get("target") or "") if isinstance(item, dict) else Mount.of(split_volume(str(item))).target


def _by_grant(folder: str) -> Callable[[Any], str]:
    def index(item: Any) -> str:
        source = item.get("source") if isinstance(item, dict) else item
        target = item.get("target") if isinstance(item, dict) else None
        if not target:
            return f"{folder}/{source}"
        return str(target) if str(target).startswith("/") or not folder else f"{folder}/{target}"

    return index


_INDEXES: dict[str, Callable[[Any], str]] = {
    "links": _by_source,
    "devices": _by_target,
    "volumes": _by_mount,
    "secrets": _by_grant("/run/secrets"),
    "configs": _by_grant(""),
    "env_file": lambda item: str(item.get("path")) if isinstance(item, dict) else str(item),
    "ports": port_key,
    "expose": str,
    "include": repr,
}
