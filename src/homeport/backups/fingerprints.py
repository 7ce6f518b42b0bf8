"""Fingerprints of databases: rows and a sum over a hash of each, taken at a named point of the WAL.

Both ends must see exactly the same transactions. A snapshot is taken, a restore point written, and another snapshot taken: when both are
equal, no transaction that writes ended between them, so the snapshot is what a recovery to the point gives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
from psycopg import sql

from homeport.backups.manifest import Fingerprint, TablePrint
from homeport.drivers.addons.postgres.cluster import Cluster

TRIES = 50
SETTLE = 0.02
"""Seconds between the point and the second look: a transaction that has written its end is seen as ended within moments."""
STATEMENT = "20min"
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_SETTINGS = ("timezone = 'UTC'", "datestyle = 'ISO, YMD'", "intervalstyle = 'postgres'", "extra_float_digits = 1", "bytea_output = 'hex'")
"""What decides how a row reads as text."""


def at_point(cluster: Cluster, label: str) -> tuple[Fingerprint, str]:
    """Write a restore point and say what the data is there, and the point's name. Raises psycopg.Error."""
    with contextlib.ExitStack() as stack:
        databases = {name: stack.enter_context(_session(cluster, name)) for name in names(cluster)}
        with cluster.admin() as admin:
            exact, point = _same_moment(admin, list(databases.values()), label)
        return Fingerprint(exact=exact, databases={name: tables(session) for name, session in databases.items()}), point


def of(cluster: Cluster) -> Fingerprint:
    """What the data is now. Reads every row, so a damaged page is found. Raises psycopg.Error."""
    found = {}
    for name in names(cluster):
        with _session(cluster, name) as session:
            found[name] = tables(session)
    return Fingerprint(databases=found)


def names(cluster: Cluster) -> list[str]:
    """Databases that hold data of applications."""
    with cluster.admin() as admin:
        query = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
        return [str(row[0]) for row in admin.execute(query).fetchall()]


def tables(session: psycopg.Connection) -> dict[str, TablePrint]:
    """Rows and sums of every table with rows of its own. Order and physical place do not matter."""
    query = (
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' "
        "ORDER BY 1, 2"
    )
    found = {}
    for schema, name in session.execute(query).fetchall():
        count = sql.SQL("SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text FROM ONLY {} t")
        row = session.execute(count.format(sql.Identifier(schema, name))).fetchone()
        assert row is not None  # noqa: S101 (an aggregate)
        found[f"{schema}.{name}"] = TablePrint(rows=row[0], total=row[1])
    return found


@contextlib.contextmanager
def _session(cluster: Cluster, database: str) -> Iterator[psycopg.Connection]:
    """A transaction that has seen nothing yet and will see one moment."""
    with cluster.admin(database) as session:
        for setting in (*_SETTINGS, f"statement_timeout = '{STATEMENT}'", "idle_in_transaction_session_timeout = 0"):
            session.execute(sql.SQL("SET " + setting))
        session.execute(_BEGIN)
        yield session
        session.execute("ROLLBACK")


def _same_moment(admin: psycopg.Connection, sessions: list[psycopg.Connection], label: str) -> tuple[bool, str]:
    """Let every session look at the same moment, with a restore point in it; whether it was one moment, and the point's name."""
    point = ""
    for attempt in range(TRIES):
        if attempt:
            for session in sessions:
                session.execute("ROLLBACK")
                session.execute(_BEGIN)
        seen = {_snapshot(session) for session in sessions}
        point = f"{label}.{attempt}"  # of its own: recovery stops at the first point of a name
        admin.execute("SELECT pg_create_restore_point(%s)", [point])
        admin.execute("SELECT pg_sleep(%s)", [SETTLE])
        if len(seen | {_snapshot(admin)}) == 1:
            return True, point
    return False, point


def _snapshot(session: psycopg.Connection) -> str:
    row = session.execute("SELECT pg_current_snapshot()::text").fetchone()
    return str(row[0]) if row else ""
