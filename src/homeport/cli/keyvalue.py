"""Talking to a Valkey add-on without its client program: one command, or one a line."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from homeport.cli import show
from homeport.cli.errors import CliError


def run(where: dict[str, Any], words: Sequence[str], *, json: bool) -> None:
    """Run one command and print its answer. Raises CliError with what the server said."""
    client = _client(where)
    with contextlib.closing(client):
        answer = _asked(client, words)
    if json:
        return show.as_json(_plain(answer))
    for text in _lines(answer):
        show.line(text)
    return None


def converse(where: dict[str, Any], source: TextIO) -> None:
    """Run every line of a terminal or a pipe."""
    prompt = f"{where['host']}:{where['port']}> " if source.isatty() else ""
    client = _client(where)
    with contextlib.closing(client):
        while True:
            sys.stdout.write(prompt)
            sys.stdout.flush()
            line = source.readline()
            if not line or line.strip().lower() in ("quit", "exit"):
                return
            try:
                words = shlex.split(line)
                for text in _lines(_asked(client, words)) if words else ():
                    show.line(text)
            except ValueError as error:
                show.note(f"(error) {error}")
            except CliError as error:
                if not prompt:
                    raise
                show.note(f"(error) {error.body['why']}")


def _client(where: dict[str, Any]) -> Any:
    import redis

    return redis.Redis(
        host=where["host"], port=where["port"], username=where["user"] or None, password=where["password"] or None,
        single_connection_client=True,
    )  # fmt: skip


def _asked(client: Any, words: Sequence[str]) -> Any:
    from redis.exceptions import RedisError

    try:
        client.connection.send_command(*words)
        return client.connection.read_response()
    except (RedisError, OSError) as error:
        body = {"code": "client-failed", "what": "The command did not run to its end.", "fix": "Correct it and try again."}
        raise CliError({**body, "why": str(error)}) from error


def _plain(answer: Any) -> Any:
    if isinstance(answer, bytes):
        return answer.decode(errors="replace")
    if isinstance(answer, list | tuple | set):
        return [_plain(item) for item in answer]
    if isinstance(answer, dict):
        return {str(_plain(key)): _plain(value) for key, value in answer.items()}
    return answer


def _lines(answer: Any) -> list[str]:
    """An answer as people read it; control characters, which could act on the terminal, are shown as such."""
    plain = _plain(answer)
    if plain is None:
        return ["(nil)"]
    if isinstance(plain, list):
        return [f"{number}) {text}" for number, item in enumerate(plain, 1) for text in _lines(item)] or ["(empty)"]
    if isinstance(plain, dict):
        return [f"{key}: {text}" for key, value in plain.items() for text in _lines(value)] or ["(empty)"]
    return ["".join(c if c.isprintable() or c == "\t" else "�" for c in line) for line in str(plain).splitlines()] or [""]
