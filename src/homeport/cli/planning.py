"""Showing a plan: services, differences to what is live, and the fate of every key."""

from __future__ import annotations

from typing import Any

from homeport.blueprints.discover import ProjectReading
from homeport.cli import show
from homeport.model.reading import Fate


def as_data(reading: ProjectReading, compared: dict[str, Any] | None) -> dict[str, Any]:
    """The plan as JSON."""
    return {
        "project": reading.spec.name,
        "environment": reading.environment,
        "file": reading.file,
        "dialect": reading.dialect,
        "services": {name: service.kind for name, service in reading.spec.services.items()},
        "addons": {name: addon.kind for name, addon in reading.spec.addons.items()},
        "pipelines": [{"name": p.name, "file": p.file, "jobs": {j.name: list(j.needs) for j in p.jobs}} for p in reading.spec.pipelines],
        "warnings": list(reading.warnings),
        "conflicts": [conflict.model_dump(mode="json") for conflict in reading.conflicts],
        "plan": compared,
        "files": [
            {
                "file": one.file,
                "dialect": one.dialect,
                "keys": {fate.value: [{"path": n.path, "reason": n.reason} for n in one.by_fate(fate)] for fate in Fate},
            }
            for one in reading.readings
        ],
    }


def show_plan(reading: ProjectReading, compared: dict[str, Any] | None, *, every_key: bool) -> None:
    """The plan for a person."""
    spec = reading.spec
    where = "the source itself" if reading.dialect == "detect" else reading.file
    show.line(f"{spec.name} ({reading.environment}), from {where}")
    actions = {p["service"]: p for p in (compared or {}).get("services", ())}
    rows = []
    for name, service in spec.services.items():
        action = actions.get(name, {})
        command = service.command if isinstance(service.command, str) else " ".join(service.command)
        rows.append(
            (name, service.kind, action.get("action", ""), command or getattr(service, "publish", "") or getattr(service, "schedule", ""))
        )
    show.table(("SERVICE", "KIND", "ACTION", "RUNS"), rows)
    if spec.addons:
        show.line()
        show.table(("ADD-ON", "KIND", "VERSION"), [(n, a.kind, a.version) for n, a in spec.addons.items()])
    if spec.pipelines:
        show.line()
        show.table(("PIPELINE", "FILE", "JOBS"), [(p.name, p.file, ", ".join(j.name for j in p.jobs)) for p in spec.pipelines])
    _differences(compared)
    for conflict in reading.conflicts:
        show.line(f"conflict: {conflict}")
    for warning in (*reading.warnings, *(compared or {}).get("warnings", ())):
        show.line(f"note: {warning}")
    for refusal in (compared or {}).get("refusals", ()):
        show.line(f"cannot: {refusal}")
    _keys(reading, every_key)


def _differences(compared: dict[str, Any] | None) -> None:
    if not compared or not compared["live"]:
        return
    show.line()
    if not compared["differences"]:
        show.line(f"Nothing differs from {compared['live']} but the source.")
        return
    show.line(f"Compared with {compared['live']}:")
    signs = {"add": "+", "remove": "-", "change": "~"}
    for one in compared["differences"]:
        values = f": {one['before']} -> {one['after']}" if one["kind"] == "change" and (one["before"] or one["after"]) else ""
        mark = "  ! needs --yes: " + one["reason"] if one["destructive"] else ""
        show.line(f"  {signs[one['kind']]} {one['section']} {one['name']}{values}{mark}")


def _keys(reading: ProjectReading, every_key: bool) -> None:
    for one in reading.readings:
        if not one.keys:
            continue
        counts = {fate: one.by_fate(fate) for fate in Fate}
        show.line()
        show.line(f"{one.file}: " + ", ".join(f"{len(notes)} {fate.value}" for fate, notes in counts.items() if notes))
        for fate, notes in counts.items():
            for note in notes:
                if every_key or fate is not Fate.HONOURED:
                    hint = f" Did you mean {note.did_you_mean}?" if note.did_you_mean else ""
                    show.line(f"  {fate.value:<12} {note.path}" + (f"  {note.reason}{hint}" if note.reason or hint else ""))
