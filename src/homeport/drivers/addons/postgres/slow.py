"""Slow statements, as the server's log tells them: grouped by what they are, without the values in them.

The bundled engine has no pg_stat_statements; what the log has is enough to find the statement that hurts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from homeport.drivers.addons.base import SlowQuery

LINES = 5_000
"""Lines of log that are looked at."""
MOST = 10
LONGEST = 300
"""Characters of a statement that are shown."""
_LINE = re.compile(r"^(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)[\d.]* \w+ \[\d+\] (?:\S*@\S* )?(?P<level>[A-Z]+):  (?P<text>.*)$")
_DURATION = re.compile(r"duration: (?P<ms>[\d.]+) ms  (?:statement|execute [^:]*|fetch from [^:]*): (?P<statement>.*)", re.DOTALL)
_STRING = re.compile(r"\b[Ee]'(?:[^'\\]|''|\\.)*'|(?:\b[BbXxNn])?'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w$.])\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b")
_LIST = re.compile(r"\?(?:\s*,\s*\?)+")


def slowest(lines: Iterable[str]) -> list[SlowQuery]:
    """The statements that took longest together, first."""
    found: dict[str, SlowQuery] = {}
    for text in _messages(lines):
        seen = _DURATION.match(text)
        if seen is None:
            continue
        statement, took = shape(seen["statement"]), float(seen["ms"])
        known = found.get(statement, SlowQuery(statement=statement))
        found[statement] = known.model_copy(
            update={"count": known.count + 1, "total_ms": round(known.total_ms + took, 1), "longest_ms": max(known.longest_ms, took)}
        )
    return sorted(found.values(), key=lambda query: -query.total_ms)[:MOST]


def shape(statement: str) -> str:
    """A statement without its values, on one line: `SELECT * FROM orders WHERE id = ?`."""
    bare = _COMMENT.sub(" ", _STRING.sub("?", statement)).partition("'")[0]  # a string that has no end here is cut off
    bare = " ".join(_NUMBER.sub("?", bare).split())
    bare = _LIST.sub("?, …", bare)
    return bare if len(bare) <= LONGEST else bare[:LONGEST] + "…"


def _messages(lines: Iterable[str]) -> Iterator[str]:
    """What the server logged as such; a statement of several lines is one message."""
    text = ""
    for line in lines:
        begin = _LINE.match(line)
        if begin is not None:
            if text:
                yield text
            text = begin["text"] if begin["level"] == "LOG" else ""
        elif text:
            text += "\n" + line.lstrip("\t")
    if text:
        yield text
