"""What fly.toml's values mean: machine sizes, schedules, durations, lists that may be one entry.

The tolerant forms are those of flyctl (`internal/appconfig/patches.go`): numbers as text, one table for a list of tables, `"20,25"` for
limits, whole numbers of milliseconds in checks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from homeport.blueprints.view import View
from homeport.model.base import parse_duration, parse_size

MIB = 1 << 20
MEMORY = {
    **{f"shared-cpu-{n}x": 256 * n * MIB for n in (1, 2, 4, 8)},
    **{f"performance-{n}x": 2048 * n * MIB for n in (1, 2, 4, 8, 16)},
}
"""Memory that a size comes with. Source: Fly's machine sizing table."""
GPUS = ("a10", "a100-40gb", "a100-pcie-40gb", "a100-80gb", "a100-sxm4-80gb", "l40s")
"""Sizes that name a GPU."""

SCHEDULES = {"hourly": "0 * * * *", "daily": "0 0 * * *", "weekly": "0 0 * * 0", "monthly": "0 0 1 * *"}
SIGNALS = ("SIGINT", "SIGTERM", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGSTOP")
STRATEGIES = ("canary", "rolling", "bluegreen", "immediate")

REGION = "instances run on the machines there are; the region is kept as their label"
CONTAINER = "acted upon by the container runtime; the plan says so when there is none"
FLY_ONLY = "about Fly's own machines; kept for writing it back"


def tables(view: View, key: str) -> Iterator[View]:
    """The mappings under a key, be it one table or a list of tables; an empty one counts as read."""
    raw = view.raw(key)
    if isinstance(raw, dict):
        yield view.view(key)
    elif raw is not None:
        yield from view.views(key)


def length(view: View, key: str, *, milliseconds: bool = False) -> timedelta | None:
    """A duration: text like `1m30s`, or a number of seconds; with `milliseconds`, whole numbers of 100 and more are milliseconds,
    as the first generation of fly.toml wrote its checks."""
    value = view.take(key)
    if value is None or value == "":
        return None
    try:
        if milliseconds and isinstance(value, int) and not isinstance(value, bool) and value >= 100:
            return timedelta(milliseconds=value)
        found = parse_duration(value)
    except (ValueError, OverflowError):
        found = None
    if not isinstance(found, timedelta) or found < timedelta(0) or found > timedelta(days=365):
        view.problem(key, f"{str(value)[:40]!r} is not a duration", "Write it like `30s` or `1m30s`.")
        return None
    return found


def size(view: View, key: str, *, unit: int = 1) -> int | None:
    """A number of bytes; a bare number counts in `unit` bytes."""
    value = view.take(key)
    if value is None or value == "":
        return None
    text = str(value).strip()
    try:
        found = int(text) * unit if re.fullmatch(r"\d{1,18}", text) else parse_size(text)
    except ValueError:
        found = None
    if not isinstance(found, int) or found < 0:
        view.problem(key, f"{text[:40]!r} is not a size", "Write it like `512mb` or `1gb`.")
        return None
    return found


def whole(view: View, key: str, low: int, high: int) -> int | None:
    """A whole number, also written as text; text that is a placeholder (`$PORT`) is a problem."""
    return view.integer(key, low=low, high=high)


def port_number(view: View, key: str) -> int | None:
    """A port, given as a number or as text."""
    return whole(view, key, 1, 65535)


def matches(processes: tuple[str, ...], group: str, default: str) -> bool:
    """Whether a section with this `processes` list is about a process group: an empty list means the default group."""
    return group in processes if processes else group == default


def raw_extension(view: View, keys: tuple[str, ...], into: dict[str, Any]) -> None:
    """Keep keys that no driver serves, for writing them back."""
    for key in keys:
        if key in view:
            into[key] = view.raw(key)
