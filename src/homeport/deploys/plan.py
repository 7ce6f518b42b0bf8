"""The planner: pure. From what is live and what is wanted to what will be done, with every decision stated."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from croniter import croniter

from homeport.deploys.config import declared
from homeport.deploys.routes import UNKNOWN, answerable
from homeport.drivers.runtimes.base import Capabilities
from homeport.model.env import EnvValue, PlainValue
from homeport.model.errors import HomeportError
from homeport.model.plan import Difference, Plan, ServicePlan
from homeport.model.release import Release
from homeport.model.service import CronService, FunctionService, Service, StaticService, WorkerService
from homeport.model.spec import Spec

Section = Literal["service", "env", "route", "addon", "scale", "command", "build", "health", "disk", "schedule", "group", "setting"]

_VARIABLE = re.compile(r"[^=\x00-\x1f\x7f]+")
"""What execve(2) and every program can tell apart as a name."""


class PlanRefused(HomeportError):
    """The plan cannot be carried out on this machine."""

    code = "plan-refused"


class ConfirmationNeeded(HomeportError):
    """The plan would take something away that the live release has."""

    code = "confirmation-needed"


def make_plan(
    spec: Spec,
    environment: str,
    live: Release | None,
    *,
    capabilities: Capabilities,
    addon_problems: Callable[[str], Iterable[str]] = lambda _: (),
    addon_notes: Callable[[str], Iterable[str]] = lambda _: (),
    scale: Mapping[str, int] | None = None,
    profiles: frozenset[str] = frozenset(),
) -> Plan:
    """Decide what a deploy does. `addon_problems(name)` tells what this machine cannot give of an add-on."""
    old = live.spec if live else None
    refusals: list[str] = []
    warnings: list[str] = []
    services: list[ServicePlan] = []
    for name, service in spec.services.items():
        if service.profiles and not profiles & set(service.profiles):
            services.append(
                ServicePlan(service=name, kind=service.kind, action="skip", reason=f"profile {service.profiles[0]} is not active")
            )
            continue
        services.append(_plan_service(name, service, old, scale or {}))
        refusals += [f"{name}: {why}" for why in unsupported(service, capabilities)]
        refusals += [
            f"{name}: no variable can be named {key[:60]!r}" for key in variables_of(spec, service) if not _VARIABLE.fullmatch(key)
        ]
        warnings += [f"{name}: {text}" for text in limits(service, capabilities)]
    warnings += unanswerable(spec)
    if old:
        services += [
            ServicePlan(service=n, kind=s.kind, action="stop", reason="no longer in the file")
            for n, s in old.services.items()
            if n not in spec.services
        ]
    for addon in spec.addons:
        refusals += [f"{addon}: {why}" for why in addon_problems(addon)]
        warnings += [f"{addon}: {text}" for text in addon_notes(addon)]
    return Plan(
        project=spec.name,
        environment=environment,
        live=live.id if live else "",
        services=tuple(services),
        differences=tuple(compare(old, spec)) if old else (),
        warnings=tuple(warnings),
        refusals=tuple(refusals),
    )


def check(plan: Plan, *, confirmed: bool) -> None:
    """Raise PlanRefused or ConfirmationNeeded when the plan must not be carried out as it is."""
    if plan.refusals:
        raise PlanRefused(
            what="Nothing was changed; what runs keeps running.",
            why=" ".join(f"{text.rstrip('.')}." for text in plan.refusals[:5]),
            fix="Take the service out with a profile, or run Homeport where what it needs is installed; `homeport doctor` lists it.",
        )
    if plan.destructive and not confirmed:
        lost = ", ".join(d.name for d in plan.destructive[:8] if d.kind == "remove")
        hidden = ", ".join(f"{d.name} ({d.reason.removeprefix('shadowed: ')})" for d in plan.destructive[:8] if d.kind != "remove")
        why = [f"The live release has these and the new one would not: {lost}."] if lost else []
        why += [f"These would be hidden: {hidden}."] if hidden else []
        raise ConfirmationNeeded(
            what="Nothing was changed; what runs keeps running.",
            why=" ".join(why),
            fix="Put them back, or confirm with `--yes`.",
        )


def variables_of(spec: Spec, service: Service) -> list[str]:
    """The names of all variables that a service and its build get from the file."""
    return [*declared(spec, service), *service.build.env]


def unsupported(service: Service, capabilities: Capabilities) -> list[str]:
    """Why a service cannot run here at all."""
    if service.build.builder == "image" and not capabilities.images:
        return [f"it runs the image {service.build.image or '(unnamed)'}, and no container engine is set up here"]
    if isinstance(service, CronService) and service.schedule and not croniter.is_valid(service.schedule):
        return [f"its schedule {service.schedule[:60]!r} is no cron expression"]
    if isinstance(service, FunctionService):
        return ["it is an edge function, and this version does not run functions yet"]
    return []


def limits(service: Service, capabilities: Capabilities) -> list[str]:
    """What of a service's wishes this runtime does not enforce, one sentence each."""
    found = []
    if service.resources.memory and not capabilities.limits_memory:
        found.append(f"its memory limit is not enforced: {capabilities.reasons.get('limits_memory', 'the runtime cannot')}")
    if service.resources.cpu and not capabilities.limits_cpu:
        found.append(f"its cpu limit is not enforced: {capabilities.reasons.get('limits_cpu', 'the runtime cannot')}")
    if service.disks and not capabilities.mounts:
        found.append("its disk is not mounted at its path; variables that name the path are pointed at the real folder")
    if service.container != type(service.container)() and not capabilities.images:
        found.append("its container options act only under the container runtime")
    return found


def unanswerable(spec: Spec) -> list[str]:
    """One sentence for each rule with conditions that the edge cannot decide."""
    found = []
    for route in spec.routes:
        kinds = sorted({condition.type for condition in route.match.conditions if condition.type in UNKNOWN})
        if kinds:
            then = "never applies" if answerable(route.match.conditions) is None else "applies whatever it is"
            found.append(
                f"{route.service}: the rule for {route.match.path} {then}: the edge does not know a visitor's {' or '.join(kinds)}"
            )
    return found


def strategy_of(service: Service) -> Literal["overlap", "hold"]:
    """How a service is replaced: a disk allows one user at a time, so requests are held meanwhile."""
    if service.rollout.strategy == "hold" or service.rollout.order == "stop-first":
        return "hold"
    if service.rollout.strategy == "overlap" or service.rollout.order == "start-first":
        return "overlap"
    return "hold" if any(disk.kind == "volume" and not disk.read_only for disk in service.disks) else "overlap"


def instances_of(name: str, service: Service, scale: Mapping[str, int]) -> int:
    """How many instances of a service run all the time."""
    if isinstance(service, CronService | StaticService | FunctionService):
        return 0
    wanted = scale.get(name, service.scale.instances)
    if service.scale.min is not None and name not in scale:
        wanted = max(wanted, service.scale.min)
    alone = any(d.kind == "volume" and not d.read_only for d in service.disks) or service.rollout.strategy == "hold"
    return min(wanted, 1) if alone else wanted


def _plan_service(name: str, service: Service, old: Spec | None, scale: Mapping[str, int]) -> ServicePlan:
    if isinstance(service, StaticService):
        return ServicePlan(service=name, kind=service.kind, action="serve")
    if isinstance(service, CronService):
        return ServicePlan(service=name, kind=service.kind, action="schedule", reason=service.schedule)
    if isinstance(service, FunctionService):
        return ServicePlan(service=name, kind=service.kind, action="serve")
    there = old is not None and name in old.services
    return ServicePlan(
        service=name,
        kind=service.kind,
        action="replace" if there else "start",
        instances=instances_of(name, service, scale),
        strategy="overlap" if isinstance(service, WorkerService) else strategy_of(service),
    )


_SECTIONS: tuple[tuple[Section, tuple[str, ...]], ...] = (
    ("command", ("command", "release_command", "first_deploy_command", "hooks")),
    ("build", ("build", "build_filter", "root")),
    ("scale", ("scale", "resources")),
    ("health", ("health", "checks")),
    ("schedule", ("schedule", "timezone")),
)


def compare(old: Spec, new: Spec) -> list[Difference]:
    """Every difference between two specs. Values of variables are compared and never shown."""
    found: list[Difference] = []
    for name in [*old.services, *(n for n in new.services if n not in old.services)]:
        before, after = old.services.get(name), new.services.get(name)
        if before is None and after is not None:
            found.append(Difference(kind="add", section="service", name=name, after=after.kind))
        elif after is None and before is not None:
            lost = bool(before.disks)
            reason = "its disk would no longer be mounted" if lost else ""
            found.append(Difference(kind="remove", section="service", name=name, before=before.kind, destructive=lost, reason=reason))
        elif before is not None and after is not None and before != after:
            found += _compare_service(name, old, new, before, after)
    for name in [*old.addons, *(n for n in new.addons if n not in old.addons)]:
        a, b = old.addons.get(name), new.addons.get(name)
        if a is None and b is not None:
            found.append(Difference(kind="add", section="addon", name=name, after=b.kind))
        elif b is None and a is not None:
            reason = "its data would no longer be reachable"
            found.append(Difference(kind="remove", section="addon", name=name, before=a.kind, destructive=True, reason=reason))
        elif a is not None and b is not None and a != b:
            found.append(Difference(kind="change", section="addon", name=name, before=a.version or a.plan, after=b.version or b.plan))
    if old.routes != new.routes:
        found.append(Difference(kind="change", section="route", name="routes", before=f"{len(old.routes)}", after=f"{len(new.routes)}"))
    return found


def _compare_service(name: str, old: Spec, new: Spec, before: Service, after: Service) -> list[Difference]:
    found: list[Difference] = []
    if before.kind != after.kind:
        found.append(Difference(kind="change", section="service", name=name, before=before.kind, after=after.kind))
    for section, fields in _SECTIONS:
        for attribute in fields:
            a, b = getattr(before, attribute, None), getattr(after, attribute, None)
            if a != b:
                shown = (_short(a), _short(b)) if section != "build" else ("", "")
                found.append(Difference(kind="change", section=section, name=f"{name}.{attribute}", before=shown[0], after=shown[1]))
    for disk in before.disks:
        if disk.mount_path not in {d.mount_path for d in after.disks}:
            found.append(
                Difference(
                    kind="remove",
                    section="disk",
                    name=f"{name}:{disk.mount_path}",
                    destructive=True,
                    reason="its data would no longer be mounted",
                )
            )
    found += _compare_env(name, declared(old, before), declared(new, after))
    return found


def _compare_env(name: str, before: Mapping[str, EnvValue], after: Mapping[str, EnvValue]) -> list[Difference]:
    found = [Difference(kind="add", section="env", name=f"{name}.{key}", after=_origin(after[key])) for key in after if key not in before]
    for key, value in before.items():
        if key not in after:
            found.append(
                Difference(
                    kind="remove",
                    section="env",
                    name=f"{name}.{key}",
                    before=_origin(value),
                    destructive=True,
                    reason="the live release has it",
                )
            )
        elif value != after[key]:
            found.append(Difference(kind="change", section="env", name=f"{name}.{key}", before=_origin(value), after=_origin(after[key])))
    return found


def _origin(value: EnvValue) -> str:
    return "value in the file" if isinstance(value, PlainValue) else value.kind


def _short(value: Any) -> str:
    if value is None or value == "":
        return ""
    data = value.model_dump(mode="json", exclude_defaults=True) if hasattr(value, "model_dump") else value
    text = data if isinstance(data, str) else json.dumps(data, default=str)
    return text[:120]
