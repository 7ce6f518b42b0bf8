"""Rendering: tables and lines for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any


def as_json(data: Any) -> None:
    """Print data as JSON, one document."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")


def line(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line beside the answer."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A plain table; cut to nothing, so that it can be searched and piped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for heading in headings:
        shown.add_column(heading, overflow="fold")
    for row in rows:
        shown.add_row(*(_cell(value, Text) for value in row))
    console = Console(width=None if sys.stdout.isatty() else 200, soft_wrap=not sys.stdout.isatty())
    console.print(shown)


_COLOURS = {
    "live": "green",
    "healthy": "green",
    "succeeded": "green",
    "served": "green",
    "scheduled": "green",
    "degraded": "yellow",
    "starting": "yellow",
    "backoff": "yellow",
    "unwell": "yellow",
    "warm": "dim",
    "retired": "dim",
    "retiring": "dim",
    "failed": "red",
    "down": "red",
    "missing": "red",
}


def _cell(value: Any, text: Any) -> Any:
    return text(str(value), style=_COLOURS.get(str(value), ""))


def ago(moment: str | None) -> str:
    """`3 min ago`, from an ISO moment."""
    if not moment:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"


def size(count: float) -> str:
    """Bytes for people: `12.3 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return ""
