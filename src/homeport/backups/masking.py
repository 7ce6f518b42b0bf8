"""Masking of copied data by the rules of `mask:` in the spec: what leaves production must not name anybody.

A rule is `table.column` or `schema.table.column`; its value one of the maskers below. Values of one column that were equal stay equal, so
that joins still work; two forks give different ones, since the salt is made anew.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import LiteralString

import psycopg
from psycopg import sql

from homeport.backups.errors import ForkRefused
from homeport.backups.fingerprints import names
from homeport.drivers.addons.postgres.cluster import Cluster

# Each takes the column `c` and the salt `%s` (given twice), and gives text.
_DIGEST: LiteralString = "encode(sha256(convert_to({salt} || {c}::text, 'UTF8')), 'hex')"
MASKERS: dict[str, LiteralString] = {
    "email": "'user-' || left(" + _DIGEST + ", 12) || '@example.invalid'",
    "name": "'Person ' || left(" + _DIGEST + ", 8)",
    "hash": _DIGEST,
    "phone": "'+1555' || lpad((('x' || left(" + _DIGEST + ", 8))::bit(32)::bigint % 10000000)::text, 7, '0')",
    "digits": "regexp_replace({c}::text, '[0-9]', '0', 'g')",
    "text": "regexp_replace({c}::text, '[[:alnum:]]', 'x', 'g')",
    "empty": "''",
    "null": "NULL",
    "zero": "'0'",
}
"""`email` and `phone` give what cannot be delivered (RFC 2606 `.invalid`; 555 numbers); `digits` and `text` keep the shape."""
_RULE = re.compile(r"(?:([^.]+)\.)?([^.]+)\.([^.]+)")


def problems(rules: Mapping[str, str]) -> list[str]:
    """What is wrong with the rules themselves, one sentence each."""
    found = [f"{rule!r} is not `table.column`" for rule in rules if not _RULE.fullmatch(rule)]
    return found + [f"{masker!r} is not one of {', '.join(MASKERS)}" for masker in rules.values() if masker not in MASKERS]


def mask(clusters: Sequence[Cluster], rules: Mapping[str, str]) -> dict[str, int]:
    """Apply every rule to every database, one transaction each; rows changed by rule. A rule that fits no column anywhere is refused.

    Triggers of the application do not run. Raises ForkRefused.
    """
    if wrong := problems(rules):
        raise ForkRefused(why=f"A masking rule cannot be read: {wrong[0]}.", fix="Correct `mask:` in homeport.yaml and deploy it.")
    salt = secrets.token_hex(16)
    done: dict[str, int] = {}
    for cluster in clusters:
        for database in names(cluster) if rules else ():
            with cluster.admin(database) as session, session.transaction():
                session.execute("SET LOCAL session_replication_role = replica")
                for rule, masker in rules.items():
                    for place in _columns(session, rule):
                        done[rule] = done.get(rule, 0) + _apply(session, place, masker, salt, rule)
    missing = [rule for rule in rules if rule not in done]
    if missing:
        why = f"The masking rule {missing[0]!r} fits no column, so what it should hide would not be hidden."
        raise ForkRefused(why=why, fix="Correct or remove the rule in `mask:` of homeport.yaml and deploy it.")
    return done


def _columns(session: psycopg.Connection, rule: str) -> list[tuple[str, str, str]]:
    found = _RULE.fullmatch(rule)
    assert found is not None  # noqa: S101 (asked before)
    query = (
        "SELECT n.nspname, c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 "
        "AND NOT a.attisdropped AND n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema' "
        "AND (%(schema)s::text IS NULL OR n.nspname = %(schema)s) AND c.relname = %(table)s AND a.attname = %(column)s"
    )
    rows = session.execute(query, {"schema": found[1], "table": found[2], "column": found[3]}).fetchall()
    return [(str(row[0]), str(row[1]), str(row[2])) for row in rows]


def _apply(session: psycopg.Connection, place: tuple[str, str, str], masker: str, salt: str, rule: str) -> int:
    schema, table, column = place
    name = sql.Identifier(column)
    row = session.execute(
        "SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s AND a.attname = %s",
        place,
    ).fetchone()
    kind = sql.SQL(row[0] if row else "text")  # as PostgreSQL itself writes the type
    value = sql.SQL(MASKERS[masker]).format(c=name, salt=sql.Literal(salt)) if "{" in MASKERS[masker] else sql.SQL(MASKERS[masker])
    query = sql.SQL("UPDATE {} SET {} = ({})::{} WHERE {} IS NOT NULL").format(sql.Identifier(schema, table), name, value, kind, name)
    try:
        return session.execute(query).rowcount
    except psycopg.Error as error:
        why = f"The rule {rule!r} cannot mask {schema}.{table}.{column} with {masker!r}: {error.diag.message_primary}."
        raise ForkRefused(why=why, fix="Choose a masker that fits the column's type, or `null`.") from error
