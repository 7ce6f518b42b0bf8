"""What a start command tells about its program."""

from __future__ import annotations

import re
import shlex

from homeport.model.service import Command

_FIXED_PORT = re.compile(r"(?:--port[= ]|--server\.port[= ]|--bind[= ]\S*:|-b[ =]?\S*:|(?<=\s)-p[ =]|--http-port[ =])(\d{2,5})(?![\d.])")


def command_line(command: Command) -> str:
    """A command as one line, as a Procfile writes it."""
    return command if isinstance(command, str) else shlex.join(command)


def fixed_port(command: Command) -> int | None:
    """The port that is written into a command as a number (`--port 8000`, `--bind 0.0.0.0:8000`), else None.

    `${PORT:-8000}` and `$PORT` are no fixed ports: the program takes what it is told.
    """
    found = _FIXED_PORT.search(command_line(command))
    return int(found[1]) if found and 1 <= int(found[1]) <= 65535 else None


def without_comment(line: str) -> str:
    """A command line without a trailing ` # comment` that stands outside of quotes."""
    quote = ""
    for at, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "#" and at and line[at - 1] in " \t":
            return line[:at].rstrip()
    return line.rstrip()
