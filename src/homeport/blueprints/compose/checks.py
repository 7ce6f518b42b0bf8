"""What Compose asks of a whole project: no contradictions, no references into the void."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from homeport.blueprints.compose.ports import Mount, split_volume
from homeport.blueprints.compose.project import Project, Rules
from homeport.model.reading import Path


def _check_env_files(project: Project, services: dict[str, Any]) -> None:
    for name, service in services.items():
        for index, entry in enumerate(service.get("env_file") or ()):
            path = str(entry.get("path")) if isinstance(entry, dict) else str(entry)
            if (
                str(entry.get("required", True)).lower() != "false"
                and project.tree.text(posixpath.normpath(posixpath.join(project.folder, path))) is None
            ):
                project.problem(("services", name, "env_file", index), f"env file {path} not found")


def check_project(project: Project, rules: Rules) -> None:
    """What Compose asks of the whole: no contradictions, no references into the void."""
    services = {name: service for name, service in (project.data.get("services") or {}).items() if isinstance(service, dict)}
    for name, service in services.items():
        _check_service(project, name, service)
        if rules.references:
            _check_references(project, name, service, services)
        if rules.complete:
            _check_complete(project, name, service)
    if rules.references:
        _check_cycles(project, services)
    for group in ("volumes", "networks", "secrets", "configs"):
        for name, entry in (project.data.get(group) or {}).items():
            if isinstance(entry, dict):
                _check_external(project, group, name, entry)
    if rules.strict:
        _check_env_files(project, services)


def _check_service(project: Project, name: str, service: dict[str, Any]) -> None:
    here: Path = ("services", name)
    if service.get("network_mode") and service.get("networks"):
        project.problem((*here, "network_mode"), f"service {name} declares mutually exclusive `network_mode` and `networks`")
    for index, volume in enumerate(service.get("volumes") or ()):
        if isinstance(volume, dict):
            if volume.get("type") == "bind" and not volume.get("source"):
                project.problem((*here, "volumes", index), "a bind mount needs a `source`")
            if not volume.get("target"):
                project.problem((*here, "volumes", index), "a mount needs a `target`")
    reservations = ((service.get("deploy") or {}).get("resources") or {}).get("reservations") or {}
    for index, device in enumerate(reservations.get("devices") or ()):
        _check_device(project, (*here, "deploy", "resources", "reservations", "devices", index), device)


def _check_device(project: Project, path: Path, device: Any) -> None:
    if not isinstance(device, dict):
        return
    count = device.get("count")
    if count is not None and str(count) != "all" and not str(count).lstrip("-").isdigit() and "$" not in str(count):
        project.problem((*path, "count"), f"{str(count)[:40]!r} is not a number of devices: write a number or `all`")
    if count is not None and device.get("device_ids"):
        project.problem(path, "`count` and `device_ids` exclude each other")


def references(service: dict[str, Any]) -> Iterator[tuple[Path, str, bool]]:
    """Services another one needs: where it says so, the name, and whether it must exist."""
    depends = service.get("depends_on")
    for name, options in depends.items() if isinstance(depends, dict) else ():
        required = options.get("required") if isinstance(options, dict) else True
        yield ("depends_on", name), name, str(required).lower() not in ("false", "no", "0")
    for key in ("network_mode", "ipc", "pid", "uts", "cgroup"):
        value = service.get(key)
        if isinstance(value, str) and value.startswith("service:"):
            yield (key,), value.removeprefix("service:"), True
    for index, item in enumerate(service.get("volumes_from") or ()):
        if not str(item).startswith("container:"):
            yield ("volumes_from", index), str(item).partition(":")[0], True
    for index, item in enumerate(service.get("links") or ()):
        yield ("links", index), str(item).partition(":")[0], True


def _check_references(project: Project, name: str, service: dict[str, Any], services: dict[str, Any]) -> None:
    known = {*services, *(project.data.get("jobs") or {})}
    for where, other, required in references(service):
        if required and other not in known:
            project.problem(("services", name, *where), f"service {name!r} depends on undefined service {other!r}: invalid compose project")


def _check_cycles(project: Project, services: dict[str, Any]) -> None:
    edges = {name: [other for _, other, _ in references(service) if other in services] for name, service in services.items()}
    state: dict[str, int] = {}
    for root, needed in edges.items():
        stack: list[tuple[str, Iterator[str]]] = [(root, iter(needed))] if root not in state else []
        state.setdefault(root, 1)
        while stack:
            name, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                state[name] = 2
                stack.pop()
            elif following not in state:
                state[following] = 1
                stack.append((following, iter(edges[following])))
            elif state[following] == 1:
                cycle = [one for one, _ in stack]
                cycle = [*cycle[cycle.index(following) :], following]
                project.problem(("services", name, "depends_on"), f"dependency cycle detected: {' -> '.join(cycle)}")
                return


def _check_complete(project: Project, name: str, service: dict[str, Any]) -> None:
    here: Path = ("services", name)
    if not any(service.get(key) for key in ("image", "provider")) and service.get("build") is None:
        project.problem(here, f"service {name!r} has neither an image nor a build context specified: invalid compose project")
    networks = service.get("networks")
    for network in networks if isinstance(networks, dict) else ():
        if network != "default" and network not in (project.data.get("networks") or {}):
            project.problem(
                (*here, "networks", network), f"service {name!r} refers to undefined network {network}: invalid compose project"
            )
    for volume in service.get("volumes") or ():
        source = volume_name(volume)
        if source and source not in (project.data.get("volumes") or {}):
            _declare_volume(project, name, source)
    for group in ("secrets", "configs"):
        for index, grant in enumerate(service.get(group) or ()):
            wanted = grant.get("source") if isinstance(grant, dict) else grant
            if wanted and str(wanted) not in (project.data.get(group) or {}):
                project.problem(
                    (*here, group, index), f"service {name!r} refers to undefined {group[:-1]} {wanted}: invalid compose project"
                )


def _declare_volume(project: Project, service: str, volume: str) -> None:
    """Coolify's templates leave `volumes:` out; Docker Compose itself would refuse the file."""
    project.data["volumes"] = {**(project.data.get("volumes") or {}), volume: None}
    project.warnings.append(f"The volume {volume!r} of {service!r} is declared nowhere; it is made as if it stood under `volumes:`.")


def volume_name(volume: Any) -> str:
    """The named volume that an entry mounts; empty for anything else."""
    if isinstance(volume, dict):
        return str(volume.get("source") or "") if volume.get("type", "volume") in ("volume", "cluster") else ""
    mount = Mount.of(split_volume(str(volume)))
    return "" if mount.is_path or "$" in mount.source else mount.source


def _check_external(project: Project, group: str, name: str, entry: dict[str, Any]) -> None:
    external = entry.get("external")
    here: Path = (group, name)
    if isinstance(external, dict) and external.get("name") and entry.get("name"):
        project.problem(here, f"{group}.{name}: name and external.name conflict; only use name")
    if external and external not in ("false", "no") and group == "volumes":
        clash = [key for key in entry if key not in ("name", "external") and not key.startswith("x-")]
        if clash:
            project.problem((*here, clash[0]), f'conflicting parameters "external" and {clash[0]!r} specified for {group[:-1]} {name!r}')
