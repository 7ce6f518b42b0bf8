"""SQL with its rows as plain values, for `--json`."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any

from homeport.cli.errors import CliError

TIMEOUT = 3600.0
"""Seconds one statement may take."""
_ESCAPES = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


def postgres(where: dict[str, Any], statements: Sequence[str]) -> list[dict[str, Any]]:
    """Run statements one after another; each with its columns and rows. Raises CliError with what the server said."""
    import psycopg

    found: list[dict[str, Any]] = []
    try:
        with psycopg.connect(
            host=where["host"], port=where["port"], user=where["user"], password=where["password"], dbname=where["database"],
            autocommit=True, connect_timeout=10, application_name="homeport psql",
        ) as connection:  # fmt: skip
            for text in statements:
                cursor = connection.execute(text.encode())
                columns = [column.name for column in cursor.description or ()]
                rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()] if cursor.description else []
                found.append({"status": cursor.statusmessage or "", "columns": columns, "rows": rows})
    except psycopg.Error as error:
        raise _failed(str(error).strip().partition("\n")[0]) from error
    return found


def mariadb(client: Sequence[str], env: dict[str, str], database: str, statements: Sequence[str]) -> list[dict[str, Any]]:
    """The same with MariaDB's client, whose batch output has tabs between values and escapes inside them."""
    found: list[dict[str, Any]] = []
    for text in statements:
        argv = [*client, "--batch", f"--execute={text}", "--", database]
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        if done.returncode:
            raise _failed(done.stderr.strip().partition("\n")[0])
        lines = [[_plain(cell) for cell in line.split("\t")] for line in done.stdout.split("\n")[:-1]]
        columns = [str(name) for name in lines[0]] if lines else []
        found.append({"status": "", "columns": columns, "rows": [dict(zip(columns, row, strict=True)) for row in lines[1:]]})
    return found


def _plain(cell: str) -> str | None:
    if cell == "NULL":
        return None
    parts, at = [], 0
    while (slash := cell.find("\\", at)) >= 0 and slash + 1 < len(cell):
        parts += [cell[at:slash], _ESCAPES.get(cell[slash + 1], cell[slash + 1])]
        at = slash + 2
    return "".join([*parts, cell[at:]])


def _failed(why: str) -> CliError:
    return CliError(
        {"code": "client-failed", "what": "The command did not run to its end.", "why": why, "fix": "Correct it and try again."}
    )
