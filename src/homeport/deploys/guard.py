"""The guard of the configuration: a deploy must not quietly drop a variable that the live release has, nor hide one.

The plan compares the files; this compares what the services would really get, from the files and the vault together. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from homeport.deploys.config import declared, is_variable
from homeport.model.env import EnvValue, ExternalValue, GeneratedValue, HostValue, PlainValue, SecretValue
from homeport.model.plan import Difference, Plan
from homeport.model.release import PinnedSecret, Release
from homeport.model.service import Service
from homeport.model.spec import Spec

Pins = Mapping[str, Mapping[str, PinnedSecret]]


@dataclass(frozen=True)
class Layer:
    """Where one variable's value comes from, and what loses against it."""

    origin: str
    """`vault`, `file`, `group <name>`."""
    hides: tuple[str, ...] = ()
    """Origins that have a value for the same key, strongest first."""
    hidden: EnvValue | None = None
    """The strongest value that is hidden."""


def layers(spec: Spec, service: Service, pins: Mapping[str, PinnedSecret]) -> dict[str, Layer]:
    """Every variable a service gets, by key, with its layer. A secret that nobody set gives none."""
    stacks: dict[str, list[tuple[str, EnvValue]]] = {}
    for name in service.env_groups:
        if (group := spec.env_groups.get(name)) is not None:
            for key, value in group.env.items():
                stacks.setdefault(key, []).insert(0, (f"group {name}", value))
    for key, value in service.env.items():
        stacks.setdefault(key, []).insert(0, ("file", value))
    found: dict[str, Layer] = {}
    entries = {entry.rpartition("/")[2] for entry in pins}
    for key in {*stacks, *(entry for entry in pins if is_variable(entry))}:
        below = stacks.get(key, [])
        if key in entries:
            hidden = [(origin, value) for origin, value in below if isinstance(value, PlainValue)]
            found[key] = Layer("vault", tuple(o for o, _ in hidden), hidden[0][1] if hidden else None)
        elif below and _has_value(below[0][1]):
            rest = [(origin, value) for origin, value in below[1:] if value != below[0][1]]
            found[key] = Layer(below[0][0], tuple(o for o, _ in rest), rest[0][1] if rest else None)
    return found


def guarded(plan: Plan, live: Release | None, spec: Spec, pins: Pins) -> Plan:
    """The plan with what the vault adds to it: variables that would vanish or be hidden, and those that have another value."""
    if live is None:
        return plan
    known = {(d.section, d.name) for d in plan.differences}
    found: list[Difference] = []
    warnings: list[str] = []
    for name, mine in pins.items():
        before_service, after_service = live.spec.services.get(name), spec.services.get(name)
        if before_service is None or after_service is None:
            continue
        before = layers(live.spec, before_service, live.secrets.get(name, {}))
        after = layers(spec, after_service, mine)
        for key in sorted(before):
            if (pinned := live.secrets.get(name, {}).get(key)) is not None and pinned.until is not None:
                continue  # a former value that was there for a while only
            full = f"{name}.{key}"
            if key not in after and not (key in declared(spec, after_service) and _comes_later(declared(spec, after_service)[key])):
                if ("env", full) not in known:
                    reason = "the live release has it and its value was taken away"
                    found.append(
                        Difference(kind="remove", section="env", name=full, before=before[key].origin, destructive=True, reason=reason)
                    )
            elif key in after:
                difference, warning = _shadow(full, before[key], after[key])
                found += [difference] if difference is not None else []
                warnings += [warning] if warning else []
        told = known | {(d.section, d.name) for d in found}
        found += [d for d in _other_versions(name, live.secrets.get(name, {}), mine, before) if (d.section, d.name) not in told]
    return plan.model_copy(update={"differences": (*plan.differences, *found), "warnings": (*plan.warnings, *warnings)})


def _other_versions(
    service: str, before: Mapping[str, PinnedSecret], after: Mapping[str, PinnedSecret], layers: Mapping[str, Layer]
) -> list[Difference]:
    """Values of the vault that are other versions than the live release has, and those that are new. By number: no value is looked at."""
    old, new = _versions(before), _versions(after)
    found = []
    for key in sorted(new):
        if key in old and old[key] != new[key]:
            found.append(
                Difference(kind="change", section="env", name=f"{service}.{key}", before=f"v{old[key][1]}", after=f"v{new[key][1]}")
            )
        elif key not in old and key not in layers:
            found.append(Difference(kind="add", section="env", name=f"{service}.{key}", after=f"v{new[key][1]}"))
    return found


def _versions(pins: Mapping[str, PinnedSecret]) -> dict[str, tuple[str, int]]:
    """By variable, which version of which entry it has."""
    keys = {entry: entry.rpartition("/")[2] for entry in pins}
    return {key: (pins[entry].name, pins[entry].version) for entry, key in keys.items() if is_variable(key)}


def _shadow(name: str, before: Layer, after: Layer) -> tuple[Difference | None, str]:
    """A value that is hidden now and was not, or that changed where nobody sees it."""
    if after.origin == "vault" and before.origin == "vault":
        if after.hidden is None or before.hidden is None or after.hidden == before.hidden:
            return None, ""
        reason = "its value in the file changed, and the value that was set by hand hides it"
        return _hidden(name, before, after, reason), ""
    if after.origin == "vault":
        return None, f"{name}: the value that was set hides the one of the {after.hides[0]}" if after.hides else ""
    if before.origin != after.origin and before.origin in after.hides:
        return _hidden(name, before, after, f"{after.origin} would hide the value of {before.origin} that the live release has"), ""
    return None, ""


def _hidden(name: str, before: Layer, after: Layer, reason: str) -> Difference:
    return Difference(
        kind="change", section="env", name=name, before=before.origin, after=after.origin, destructive=True, reason=f"shadowed: {reason}"
    )


def _has_value(value: EnvValue) -> bool:
    if isinstance(value, SecretValue | HostValue):
        return value.default is not None
    return not isinstance(value, GeneratedValue | ExternalValue)


def _comes_later(value: EnvValue) -> bool:
    """Whether the deploy itself makes, fetches or asks for the value."""
    return isinstance(value, GeneratedValue | ExternalValue) or (isinstance(value, SecretValue) and value.required)
