"""One project, several files: the first decides, the others fill what it leaves open, and what they dispute is named.

The rules, in the order of precedence homeport.yaml, platform files, Compose, Procfile:
- Services come from the first file that describes any. A service of a later file is matched by name, else by its folder, else because
  both files have just one that is built from source; it fills an empty start command, release command, port and health check.
- `app.json` and `Procfile` are two halves of one description: process types that only the Procfile names are added.
- Add-ons come from the first file that names any, together with the variables that refer to them.
- Routes come with the services they are about. Tunnels and pipelines are taken from everywhere.
"""

from __future__ import annotations

from typing import Any

from homeport.model.base import Frozen
from homeport.model.env import EnvValue
from homeport.model.reading import Reading
from homeport.model.service import Service
from homeport.model.spec import Spec

FILLED = ("release_command", "health", "port", "shutdown_grace")
COMPARED = ("command", "release_command", "health", "port", "schedule", "publish")


class Conflict(Frozen):
    """Two files say different things about one matter."""

    path: str
    """Where in the spec."""
    kept: str
    """File that decided."""
    dropped: str
    """File whose word was not taken."""
    reason: str = ""


def merge(readings: list[Reading]) -> tuple[Spec, list[Conflict], list[str]]:
    """One spec out of readings that stand in order of precedence; at least one."""
    first = readings[0]
    spec = first.spec
    owners = {"services": first.file if spec.services else "", "addons": first.file if spec.addons else ""}
    conflicts: list[Conflict] = []
    warnings: list[str] = []
    for reading in readings[1:]:
        spec = _merged(spec, first, reading, owners, conflicts, warnings)
    return spec, conflicts, warnings


def _merged(spec: Spec, first: Reading, reading: Reading, owners: dict[str, str], conflicts: list[Conflict], warnings: list[str]) -> Spec:
    other = reading.spec
    changes: dict[str, Any] = {
        "tunnels": spec.tunnels + tuple(tunnel for tunnel in other.tunnels if tunnel not in spec.tunnels),
        "pipelines": spec.pipelines + tuple(pipeline for pipeline in other.pipelines if pipeline not in spec.pipelines),
        "metadata": {**other.metadata, **spec.metadata},
    }
    if not spec.services:
        owners["services"] = reading.file
        changes |= {"services": other.services, "env_groups": {**other.env_groups, **spec.env_groups}}
        changes["routes"] = spec.routes + other.routes
        for kind in ("volumes", "networks", "configs", "secrets"):
            changes[kind] = {**getattr(other, kind), **getattr(spec, kind)}
    else:
        changes["services"], pairs = _fill(spec, reading, owners, conflicts)
        if reading.dialect == "procfile" and first.dialect == "appjson":
            changes["services"] |= {name: service for name, service in other.services.items() if name not in pairs.values()}
        else:
            _name_left_out(reading, owners["services"], set(pairs.values()), warnings)
        if reading.dialect == "cloudflared":
            changes["routes"] = spec.routes + other.routes
    if other.addons and not spec.addons:
        owners["addons"] = reading.file
        changes["addons"] = other.addons
        if spec.services:
            changes["services"] = _wired(changes["services"], other, pairs, set(other.addons))
            warnings.append(f"The add-ons {', '.join(other.addons)} come from {reading.file}, since {owners['services']} names none.")
    elif other.addons:
        conflicts += [
            Conflict(path=f"addons.{name}", kept=owners["addons"], dropped=reading.file, reason="add-ons come from one file")
            for name in other.addons
            if name not in spec.addons
        ]
    return spec.model_copy(update=changes)


def match(spec: Spec, other: Spec) -> dict[str, str]:
    """Which service of the second spec is which of the first."""
    pairs = {name: name for name in spec.services if name in other.services}
    for name, service in spec.services.items():
        if name in pairs or not service.root:
            continue
        same = [n for n, s in other.services.items() if n not in pairs.values() and service.root in (s.root, s.build.context)]
        if len(same) == 1:
            pairs[name] = same[0]
    ours, theirs = _built(spec, set(pairs)), _built(other, set(pairs.values()))
    if len(ours) == 1 and len(theirs) == 1:
        pairs[ours[0]] = theirs[0]
    return pairs


def _built(spec: Spec, taken: set[str]) -> list[str]:
    """The services that are the application: built from source (pgAdmin or a mail catcher come as images), with a port if any has one."""
    built = [n for n, s in spec.services.items() if n not in taken and s.build.builder != "image" and s.kind not in ("static", "cron")]
    listening = [n for n in built if spec.services[n].kind in ("web", "private")]
    return listening or built


def _fill(spec: Spec, reading: Reading, owners: dict[str, str], conflicts: list[Conflict]) -> tuple[dict[str, Service], dict[str, str]]:
    pairs = match(spec, reading.spec)
    services = dict(spec.services)
    for mine, theirs in pairs.items():
        own, other = services[mine], reading.spec.services[theirs]
        changes: dict[str, Any] = {}
        for field in FILLED:
            if getattr(own, field, None) is None and getattr(other, field, None) is not None and field in type(own).model_fields:
                changes[field] = getattr(other, field)
        runs_source = own.build.builder in ("auto", "command", "none")
        if not own.command and other.command and runs_source and other.build.builder not in ("image", "dockerfile"):
            changes["command"] = other.command
        for field in COMPARED:
            before, after = getattr(own, field, None), getattr(other, field, None)
            if before and after and before != after:
                conflicts.append(Conflict(path=f"services.{mine}.{field}", kept=owners["services"], dropped=reading.file))
        if changes:
            services[mine] = own.model_copy(update=changes)
    return services, pairs


def _name_left_out(reading: Reading, owner: str, matched: set[str], warnings: list[str]) -> None:
    left = [name for name in reading.spec.services if name not in matched]
    if left:
        warnings.append(f"{reading.file} also describes {', '.join(left)}: not started, because {owner} decides what runs here.")


def _wired(services: dict[str, Service], other: Spec, pairs: dict[str, str], addons: set[str]) -> dict[str, Service]:
    """The services with the variables by which the other file's matching services reach the add-ons."""
    wired = dict(services)
    for mine, theirs in pairs.items():
        own = wired[mine]
        found = {key: value for key, value in other.services[theirs].env.items() if key not in own.env and _refers(value, addons)}
        if found:
            wired[mine] = own.model_copy(update={"env": {**own.env, **found}})
    return wired


def _refers(value: EnvValue, addons: set[str]) -> bool:
    if value.kind == "addon":
        return value.addon in addons
    return value.kind == "template" and any(_refers(part, addons) for part in value.parts)
