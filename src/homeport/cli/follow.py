"""Showing a deploy while it happens."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from typing import Any

from homeport.cli.show import line, note


class Follower:
    """Shows progress: one line per step for pipes, a live line on a terminal, nothing on stdout for `--json`."""

    def __init__(self, *, json: bool, verbose: bool = False) -> None:
        self.json, self.verbose = json, verbose
        self.live = sys.stderr.isatty() and not json
        self.tail: deque[str] = deque(maxlen=40)
        self._status: Any = None

    def run(self, lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Show every line; the result of the last one."""
        result: dict[str, Any] = {}
        try:
            if self.live:
                from rich.console import Console

                self._status = Console(stderr=True).status("Asking", spinner="dots")
                self._status.start()
            for entry in lines:
                result = self._one(entry) or result
        finally:
            if self._status is not None:
                self._status.stop()
        return result

    def _one(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        kind = entry["kind"]
        if kind == "step":
            self._say(f"{entry['text']} …")
        elif kind == "build":
            self.tail.append(f"{entry['service']}: {entry['text']}")
            if self.verbose:
                self._print(f"  {entry['service']} | {entry['text']}")
            elif self._status is not None:
                self._status.update(f"{entry['service']} | {_cut(entry['text'])}")
        elif kind == "built":
            how = "unchanged, from the cache" if entry["cached"] else f"in {entry['seconds']:.1f} s"
            self._print(f"  built {entry['service']} {how}" + (f" ({entry['runtime']})" if entry.get("runtime") else ""))
        elif kind == "healthy":
            self._print(f"  {entry['service']} is healthy after {entry['seconds']:.2f} s")
        elif kind == "warning":
            self._print(f"  note: {entry['text']}")
        elif kind == "note":
            self._print(f"  {entry['text']}")
        elif kind in ("done", "failed"):
            found: dict[str, Any] = dict(entry["result"])
            if entry.get("tail"):
                found["tail"] = entry["tail"]
            return found
        return None

    def _say(self, text: str) -> None:
        if self._status is not None:
            self._status.update(text)
            self._status.console.print(text, style="dim", highlight=False, markup=False)
        elif not self.json:
            note(text)

    def _print(self, text: str) -> None:
        if self._status is not None:
            self._status.console.print(text, highlight=False, markup=False)
        elif not self.json:
            note(text)


def show_result(result: dict[str, Any]) -> None:
    """The summary of a deploy that went live."""
    probe = result["probe"]
    proved = f", {probe['failed']} of {probe['requests']} requests failed" if probe["requests"] else ""
    line(f"{result['project']} {result['release']} live in {result['seconds']:.1f} s{proved}")
    width = max((len(s["name"]) for s in result["services"]), default=0)
    for service in result["services"]:
        where = service["url"] or service["kind"]
        count = f"  ({service['instances']} instances)" if service["instances"] > 1 else ""
        line(f"  {service['name']:<{width}}  {where}{count}")


def _cut(text: str, width: int = 100) -> str:
    clean = "".join(c for c in text if c.isprintable())
    return clean if len(clean) <= width else clean[: width - 1] + "…"
