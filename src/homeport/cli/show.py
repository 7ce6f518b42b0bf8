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
    """A table without frames: folded to the width of a terminal, one row a line everywhere else, so that it can be searched and piped."""
    cells = [[str(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        lines = [list(headings), *cells]
        widths = [max(len(row[column]) for row in lines) for column in range(len(headings))]
        for row in lines:
            line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for heading in headings:
        shown.add_column(heading, overflow="fold")
    for row in cells:
        shown.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
    Console().print(shown)


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
