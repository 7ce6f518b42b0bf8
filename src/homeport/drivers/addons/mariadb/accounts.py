"""The accounts of a MariaDB server: one owner of the database, one for each service, and root where the file gives it a password.

An account may have several passwords at once (`IDENTIFIED VIA … OR …`), so that they rotate with overlap. Only their hashes are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from homeport.drivers.addons.base import AddOnRequest
from homeport.drivers.addons.mariadb import config
from homeport.drivers.addons.mariadb.dumps import Admin
from homeport.model.addon import MariaDB
from homeport.model.env import PlainValue


def ensure(admin: Admin, request: AddOnRequest) -> None:
    """The database, its owner and an account for each consumer. What is right already is left alone, and nothing is taken away."""
    definition = request.definition
    assert isinstance(definition, MariaDB)  # noqa: S101
    found = config.layout(request.id.name, definition)
    run(admin, f"CREATE DATABASE IF NOT EXISTS {config.name(found.database)}")
    for consumer in ("", *request.consumers):
        password = request.passwords.get(consumer, "")
        known = digests(admin, found.account(consumer))
        if known is None or (password and config.digest(password) not in known):
            identify(admin, found.account(consumer), [config.digest(password)] if password else [])
        grant = " WITH GRANT OPTION" if not consumer else ""
        run(admin, f"GRANT ALL PRIVILEGES ON {config.pattern(found.database)}.* TO {config.text(found.account(consumer))}@'%'{grant}")
    root = definition.password if definition.user == config.ROOT else definition.root_password
    given = root.value if isinstance(root, PlainValue) else ""
    if given or config.open_root(definition):
        if given:
            identify(admin, config.ROOT, [config.digest(given)])
        else:
            run(admin, f"CREATE OR REPLACE USER {config.text(config.ROOT)}@'%' IDENTIFIED BY ''")
        run(admin, f"GRANT ALL PRIVILEGES ON *.* TO {config.text(config.ROOT)}@'%' WITH GRANT OPTION")


def run(admin: Admin, statement: str) -> None:
    """Raises pymysql.err.Error."""
    with admin.cursor() as cursor:
        cursor.execute(statement)


def rows(admin: Admin, query: str, *values: str) -> list[tuple[Any, ...]]:
    """What a query gives. Raises pymysql.err.Error."""
    with admin.cursor() as cursor:
        cursor.execute(query, values or None)
        return list(cursor.fetchall())


def digests(admin: Admin, account: str) -> tuple[str, ...] | None:
    """The passwords of an account; None when there is no such account."""
    found = rows(admin, "SELECT priv FROM mysql.global_priv WHERE user = %s AND host = '%%'", account)
    if not found:
        return None
    private = found[0][0]
    return config.known_digests(private.decode() if isinstance(private, bytes) else str(private))


def identify(admin: Admin, account: str, wanted: Sequence[str]) -> None:
    """Give an account these passwords and no other; only their hashes are sent."""
    who = f"{config.text(account)}@'%'"
    run(admin, f"CREATE USER IF NOT EXISTS {who} {config.identified(wanted)}")
    run(admin, f"ALTER USER {who} {config.identified(wanted)}")
