"""Programs whose start command names a port: several instances share one machine here, so each gets a port of its own in its place."""

from __future__ import annotations

import re

from homeport.blueprints.commands import fixed_port

Command = tuple[str, ...] | str


def at_port(command: Command, declared: int | None, port: int) -> Command:
    """The command with the port it names replaced by the instance's: `uvicorn app:app --port 8000`, `python -m http.server 8000`.

    `declared` is the port that the file says the program listens on; without one a number behind an option that means a port counts.
    A command that takes `$PORT` stays as it is: it is told.
    """
    text = command if isinstance(command, str) else " ".join(command)
    old = declared if declared and _of(declared).search(text) else fixed_port(command)
    if not port or not old or "$PORT" in text or "${PORT" in text:
        return command
    if isinstance(command, str):
        return _of(old).sub(str(port), command)
    return tuple(_of(old).sub(str(port), word) for word in command)


def _of(port: int) -> re.Pattern[str]:
    """The number as a word of its own, or behind `:` or `=`."""
    return re.compile(rf"(?:(?<=[\s=:'\"])|^){port}(?=$|[\s'\";&|)])")
