"""Showing a plan: services, differences to what is live, and the fate of every key."""

from __future__ import annotations

from typing import Any

from homeport.blueprints.discover import ProjectReading
from homeport.blueprints.explain import FileReport, Keys, keys_of, report_of
from homeport.blueprints.registry import DIALECTS
from homeport.cli import show
from homeport.model.reading import Fate

FEW = 3
"""Keys named of those that share a reason."""
NO_KEYS: dict[str, list[str]] = {"honoured": [], "approximated": [], "ignored": [], "unknown": []}


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
            *(report_of(one).as_json() for one in reading.readings),
            *(
                {"file": one.file, "dialect": one.dialect, "ok": False, "error": one.reason, "services": [], "addons": [], "keys": NO_KEYS}
                for one in reading.skipped
            ),
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
        command = service.command if isinstance(service.command, str) else " ".join(service.command)
        runs = command or getattr(service, "publish", "") or getattr(service, "schedule", "")
        rows.append((name, service.kind, *((actions.get(name, {}).get("action", ""),) if compared else ()), runs))
    show.table(("SERVICE", "KIND", *(("ACTION",) if compared else ()), "RUNS"), rows)
    if spec.addons:
        show.line()
        show.table(("ADD-ON", "KIND", "VERSION"), [(n, a.kind, a.version) for n, a in spec.addons.items()])
    if spec.pipelines:
        show.line()
        show.table(("PIPELINE", "FILE", "JOBS"), [(p.name, p.file, ", ".join(j.name for j in p.jobs)) for p in spec.pipelines])
    _differences(compared)
    _provided(reading, compared)
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


def _provided(reading: ProjectReading, compared: dict[str, Any] | None) -> None:
    """Which variables services get because the platform of their file gives them; services that get the same share a line."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, keys in ((compared or {}).get("provided") or {}).items():
        groups.setdefault((reading.dialects.get(name, ""), tuple(keys)), []).append(name)
    for (dialect, keys), names in groups.items():
        more = f" and {len(keys) - FEW} more" if len(keys) > FEW else ""
        verb = "gets" if len(names) == 1 else "get"
        platform = DIALECTS[dialect].title.partition(" (")[0]
        show.line(f"variables: {', '.join(names)} {verb} {', '.join(keys[:FEW])}{more}, as on {platform} (`homeport env --all` lists them)")


def _keys(reading: ProjectReading, every_key: bool) -> None:
    for one in reading.readings:
        if not one.keys:
            continue
        counts = ((fate, len(one.by_fate(fate))) for fate in Fate)
        show.line()
        show.line(f"{one.file}: " + ", ".join(f"{count} {fate.value}" for fate, count in counts if count))
        _told_keys(keys_of(one), every_key)


def show_reports(reports: list[FileReport], *, every_key: bool) -> None:
    """Files explained, for a person: one row each, then the keys that are not simply honoured, then what could not be read."""
    rows = [(r.file, r.dialect, *_counts(r.keys), ", ".join((*r.services, *r.addons)) if r.ok else "cannot be read") for r in reports]
    show.table(("FILE", "DIALECT", "HONOURED", "APPROXIMATED", "IGNORED", "UNKNOWN", "SERVICES AND ADD-ONS"), rows)
    for report in reports:
        if every_key or report.keys.total > len(report.keys.honoured):
            show.line(f"\n{report.file}")
            _told_keys(report.keys, every_key)
    for report in reports:
        if not report.ok:
            show.line(f"\n{report.error}")


def _counts(keys: Keys) -> tuple[int, int, int, int]:
    return len(keys.honoured), len(keys.approximated), len(keys.ignored), len(keys.unknown)


def _told_keys(keys: Keys, every_key: bool) -> None:
    """One line a key; without `every_key` keys of the same fate for the same reason share one."""
    lines = [("honoured", path, "") for path in keys.honoured] if every_key else []
    lines += [("approximated", key.path, key.reason) for key in keys.approximated]
    lines += [("ignored", key.path, key.reason) for key in keys.ignored]
    lines += [("unknown", key.path, f"did you mean {key.did_you_mean}?" if key.did_you_mean else "") for key in keys.unknown]
    groups: dict[tuple[str, str, str], list[str]] = {}
    for fate, path, reason in lines:
        alone = path if every_key or fate == "unknown" or not reason else ""
        groups.setdefault((fate, reason, alone), []).append(path)
    for (fate, reason, _), paths in groups.items():
        more = f" and {len(paths) - FEW} more" if len(paths) > FEW else ""
        show.line(f"  {fate:<12} {', '.join(paths[:FEW])}{more}" + (f": {reason}" if reason else ""))
