"""SQL with its rows as plain values, for `--json`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from homeport.cli.errors import CliError


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


def mariadb(where: dict[str, Any], statements: Sequence[str]) -> list[dict[str, Any]]:
    """The same in MariaDB."""
    import pymysql

    found: list[dict[str, Any]] = []
    try:
        connection = pymysql.connect(
            host=where["host"], port=where["port"], user=where["user"], password=where["password"], database=where["database"] or None,
            autocommit=True, connect_timeout=10, charset="utf8mb4",
        )  # fmt: skip
        with contextlib.closing(connection), connection.cursor() as cursor:
            for text in statements:
                count = cursor.execute(text)
                columns = [str(column[0]) for column in cursor.description or ()]
                rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
                found.append({"status": f"{count} rows", "columns": columns, "rows": rows})
    except pymysql.err.Error as error:
        raise _failed(str(error.args[-1])) from error
    return found


def _failed(why: str) -> CliError:
    return CliError(
        {"code": "client-failed", "what": "The command did not run to its end.", "why": why, "fix": "Correct it and try again."}
    )
