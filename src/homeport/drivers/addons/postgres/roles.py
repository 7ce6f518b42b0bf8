"""Roles, databases and grants of a cluster: one owner, and two logins for each service so that passwords rotate with overlap.

All of a project's services work as the owner role (`ALTER ROLE … SET role`), so that tables one service's migrations create can be used
by the others. A password is sent as a verifier made here (RFC 5803), so that none is ever in a statement, a log or an error.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from typing import LiteralString

from psycopg import Connection, sql
from psycopg.errors import DuplicateDatabase
from psycopg.rows import TupleRow

from homeport.drivers.addons.postgres.settings import ADMIN
from homeport.model.addon import Postgres
from homeport.model.base import Frozen

Admin = Connection[TupleRow]
SLOTS = ("a", "b")
_SYSTEM_DATABASES = frozenset({"template0", "template1"})


class Layout(Frozen):
    """Names inside the cluster."""

    database: str
    owner: str

    def login(self, consumer: str, slot: str) -> str:
        """Role of a consumer's login. The owner's own first login is the owner itself, under the name its file gives."""
        if not consumer:
            return self.owner if slot == "a" else shorten(f"{self.owner}_{slot}")
        return shorten(f"{consumer}_{slot}" if consumer != self.owner else f"svc_{consumer}_{slot}")


def layout(name: str, definition: Postgres) -> Layout:
    """Database and owner: as the file says, else after the add-on."""
    database = definition.database or definition.user or name.replace("-", "_")
    return Layout(database=database, owner=definition.user or database)


def problems(found: Layout) -> list[str]:
    """Names that PostgreSQL or Homeport keeps for itself."""
    wrong = []
    if found.owner.startswith("pg_") or found.owner == ADMIN or not 0 < len(found.owner.encode()) <= 63 or "\0" in found.owner:
        wrong.append(f"the user name {found.owner[:80]!r} cannot be used in PostgreSQL")
    if found.database in _SYSTEM_DATABASES or not 0 < len(found.database.encode()) <= 63 or "\0" in found.database:
        wrong.append(f"the database name {found.database[:80]!r} cannot be used in PostgreSQL")
    return wrong


def shorten(name: str) -> str:
    """A role name of at most 63 bytes, the longest that PostgreSQL tells apart."""
    if len(name.encode()) <= 63:
        return name
    return f"{name[:48]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def ensure(admin: Admin, found: Layout, passwords: Mapping[str, str], slots: Mapping[str, str], *, major: int) -> dict[str, str]:
    """Bring owner, logins and database to what is asked for; returns by consumer the login that has the password given.

    What is right already is left alone, and nothing is taken away: instances of older releases may still use it.
    """
    ensure_role(admin, found.owner)
    creator: LiteralString = (
        " CREATEROLE" if major >= 16 else ""
    )  # before 16 it would let the owner become almost anything (release notes of 16)
    _run(admin, "ALTER ROLE {} LOGIN CREATEDB" + creator, found.owner)
    chosen = {}
    for consumer, password in passwords.items():
        ensure_login(admin, found, consumer, "a")
        chosen[consumer] = _settle(admin, found, consumer, password, slots.get(consumer, "a"))
    try:
        if not _has(admin, "SELECT 1 FROM pg_database WHERE datname = %s", found.database):
            _run(admin, "CREATE DATABASE {} OWNER {}", found.database, found.owner)
    except DuplicateDatabase:
        pass
    _run(admin, "ALTER DATABASE {} OWNER TO {}", found.database, found.owner)
    _run(admin, "REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC", found.database)
    _run(admin, "GRANT ALL ON DATABASE {} TO {}", found.database, found.owner)
    return chosen


def ensure_role(admin: Admin, name: str) -> None:
    if not _has(admin, "SELECT 1 FROM pg_roles WHERE rolname = %s", name):
        _run(admin, "CREATE ROLE {}", name)


def ensure_login(admin: Admin, found: Layout, consumer: str, slot: str) -> str:
    """A consumer's login that works as the owner."""
    name = found.login(consumer, slot)
    ensure_role(admin, name)
    if name != found.owner:
        _run(admin, "ALTER ROLE {} LOGIN INHERIT", name)
        _run(admin, "GRANT {} TO {}", found.owner, name)
        _run(admin, "ALTER ROLE {} SET role TO {}", name, found.owner)
    return name


def _settle(admin: Admin, found: Layout, consumer: str, password: str, newer: str) -> str:
    """The login that has this password; the newer one is given it when neither has."""
    order = [newer, *(slot for slot in SLOTS if slot != newer)]
    for slot in order:
        if password and matches(verifier(admin, found.login(consumer, slot)), password):
            return slot
    ensure_login(admin, found, consumer, newer)
    if password:
        set_password(admin, found.login(consumer, newer), password)
    return newer


def set_password(admin: Admin, role: str, password: str | None) -> None:
    """Give a role a password; None takes its password away, so that nobody gets in with it."""
    if password is None:
        _run(admin, "ALTER ROLE {} PASSWORD NULL", role)
        return
    encrypted = admin.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    admin.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(encrypted)))


def empower(admin: Admin, role: str) -> None:
    """Let a role do everything."""
    _run(admin, "ALTER ROLE {} SUPERUSER", role)


def disempower(admin: Admin) -> None:
    """Let nobody but Homeport's own role do everything."""
    for (name,) in admin.execute("SELECT rolname FROM pg_roles WHERE rolsuper AND rolname <> %s", [ADMIN]).fetchall():
        _run(admin, "ALTER ROLE {} NOSUPERUSER NOREPLICATION NOBYPASSRLS", str(name))


def end_sessions(admin: Admin, role: str) -> None:
    """End what is connected with a login."""
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role])


def verifier(admin: Admin, role: str) -> str:
    row = admin.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [role]).fetchone()
    return str(row[0]) if row and row[0] else ""


def verifiers(admin: Admin) -> list[tuple[str, str]]:
    """Every login that has a password, with its verifier; the superuser is none of them."""
    rows = admin.execute(
        "SELECT rolname, rolpassword FROM pg_authid WHERE rolcanlogin AND NOT rolsuper AND rolpassword LIKE 'SCRAM-SHA-256$%' ORDER BY 1"
    )
    return [(str(name), str(password)) for name, password in rows]


def matches(known: str, password: str) -> bool:
    """Whether a SCRAM verifier is of this password (RFC 5802, section 3)."""
    found = re.fullmatch(r"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):(.+)", known)
    if not found:
        return False
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(found[2]), int(found[1]))
    server = hmac.digest(salted, b"Server Key", "sha256")
    return hmac.compare_digest(server, base64.b64decode(found[4]))


def ensure_extensions(admin: Admin, names: Iterable[str]) -> None:
    """In the database that `admin` is connected to: most extensions may be created by the superuser alone."""
    for name in names:
        _run(admin, "CREATE EXTENSION IF NOT EXISTS {} CASCADE", name)


def untrusted(admin: Admin, names: Iterable[str]) -> list[str]:
    """Those of these extensions that are here and that only a superuser may make."""
    rows = admin.execute(
        "SELECT DISTINCT name FROM pg_available_extension_versions v WHERE name = ANY(%s) AND superuser AND NOT trusted ORDER BY 1",
        [list(names)],
    )
    return [str(row[0]) for row in rows]


def _has(admin: Admin, query: LiteralString, value: str) -> bool:
    return admin.execute(query, [value]).fetchone() is not None


def _run(admin: Admin, statement: LiteralString, *names: str) -> None:
    admin.execute(sql.SQL(statement).format(*(sql.Identifier(name) for name in names)))
