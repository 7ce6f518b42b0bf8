"""Masking of copied data by the rules of `mask:` in the spec: what leaves production must not name anybody.

A rule is `table.column` or `schema.table.column`; its value one of the maskers below. Values of one column that were equal stay equal, so
that joins still work; two forks give different ones, since the salt is made anew. A column of a foreign key is changed only together with
its partners, by the same masker. Afterwards nothing keeps the former values: materialised views are made anew, dead rows are removed, and
the planner's statistics, which quote values, are gathered again.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql

from homeport.backups.errors import ForkRefused
from homeport.backups.fingerprints import names
from homeport.drivers.addons.postgres.cluster import Cluster

# Each takes the column `c` and the salt, and gives text.
_DIGEST: LiteralString = "encode(sha256(convert_to({salt} || {c}::text, 'UTF8')), 'hex')"
_LOREM: LiteralString = "'Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore. '"
MASKERS: dict[str, LiteralString] = {
    "email": "'user-' || left(" + _DIGEST + ", 16) || '@example.invalid'",
    "name": "'Person ' || left(" + _DIGEST + ", 16)",
    "hash": _DIGEST,
    "uuid": "overlay(overlay(left(" + _DIGEST + ", 32) placing '4' from 13) placing '8' from 17)::uuid",
    "phone": "'+1555' || lpad((('x' || left(" + _DIGEST + ", 15))::bit(60)::bigint % 10000000000)::text, 10, '0')",
    "ip": "'192.0.2.' || (('x' || left(" + _DIGEST + ", 2))::bit(8)::int % 254 + 1)::text",
    "digits": "regexp_replace({c}::text, '[0-9]', '0', 'g')",
    "text": "regexp_replace({c}::text, '[[:alnum:]]', 'x', 'g')",
    "lorem": "left(repeat(" + _LOREM + ", 1 + length({c}::text) / 100), length({c}::text))",
    "empty": "''",
    "null": "NULL",
    "zero": "'0'",
}
"""`email`, `phone` and `ip` give what cannot be reached (RFC 2606 `.invalid`; 555 numbers; RFC 5737); `digits`, `text` and `lorem` keep
the shape. `fixed:TEXT` is the text itself. Only those made of the digest stay different from each other."""
FIXED = "fixed:"
_DIFFERENT = frozenset({"email", "name", "hash", "uuid", "phone"})
_RULE = re.compile(r"(?:([^.]+)\.)?([^.]+)\.([^.]+)")
_SALTS = 5
"""Salts that are tried when two values of a unique column come out equal by chance."""


@dataclass(frozen=True)
class Column:
    """A column that a rule means."""

    schema: str
    table: str
    name: str
    type: str
    """As PostgreSQL itself writes it."""
    rule: str
    masker: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}.{self.name}"


def problems(rules: Mapping[str, str]) -> list[str]:
    """What is wrong with the rules themselves, one sentence each."""
    found = [f"{rule!r} is not `table.column`" for rule in rules if not _RULE.fullmatch(rule)]
    known = ", ".join([*MASKERS, "fixed:TEXT"])
    return found + [
        f"{masker!r} is not one of {known}" for masker in rules.values() if masker not in MASKERS and not masker.startswith(FIXED)
    ]


def check(rules: Mapping[str, str]) -> None:
    """Raises ForkRefused when a rule cannot be read."""
    if wrong := problems(rules):
        raise ForkRefused(why=f"A masking rule cannot be read: {wrong[0]}.", fix="Correct `mask:` in homeport.yaml and deploy it.")


def mask(clusters: Sequence[Cluster], rules: Mapping[str, str]) -> dict[str, int]:
    """Apply every rule to every database, one transaction each; rows changed by rule. A rule that fits no column anywhere is refused.

    Triggers of the application do not run. Raises ForkRefused.
    """
    check(rules)
    if not rules:
        return {}
    found = {(cluster, database): _found(cluster, database, rules) for cluster in clusters for database in names(cluster)}
    fitting = {column.rule for columns in found.values() for column in columns}
    missing = [rule for rule in rules if rule not in fitting]
    if missing:
        why = f"The masking rule {missing[0]!r} fits no column, so what it should hide would not be hidden."
        raise ForkRefused(why=why, fix="Correct or remove the rule in `mask:` of homeport.yaml and deploy it.")
    for attempt in range(_SALTS):
        try:
            return _with_salt(found, secrets.token_hex(16))
        except _Collided as error:
            if attempt == _SALTS - 1 or not error.by_chance:
                raise error.refused from error
    return {}


class _Collided(Exception):
    """Two values of a unique column came out equal."""

    def __init__(self, refused: ForkRefused, *, by_chance: bool) -> None:
        super().__init__(refused.why)
        self.refused, self.by_chance = refused, by_chance


def _found(cluster: Cluster, database: str, rules: Mapping[str, str]) -> list[Column]:
    with cluster.admin(database) as session:
        columns = [column for rule, masker in rules.items() for column in _columns(session, rule, masker)]
        _check_keys(session, columns)
        return columns


def _with_salt(found: Mapping[tuple[Cluster, str], Sequence[Column]], salt: str) -> dict[str, int]:
    """Every database, each in one transaction. One that is done already is masked once more after a collision in a later one."""
    done: dict[str, int] = {}
    for (cluster, database), columns in found.items():
        if not columns:
            continue
        with cluster.admin(database) as session:
            with session.transaction():
                session.execute("SET LOCAL session_replication_role = replica")
                session.execute("SET LOCAL statement_timeout = 0")
                for column in columns:
                    done[column.rule] = done.get(column.rule, 0) + _apply(session, column, salt)
            _forget(session, columns)
    return done


def _columns(session: psycopg.Connection, rule: str, masker: str) -> list[Column]:
    parts = _RULE.fullmatch(rule)
    assert parts is not None  # noqa: S101 (asked before)
    query = (
        "SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a "
        "JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 "
        "AND NOT a.attisdropped AND n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema' "
        "AND (%(schema)s::text IS NULL OR n.nspname = %(schema)s) AND c.relname = %(table)s AND a.attname = %(column)s"
    )
    rows = session.execute(query, {"schema": parts[1], "table": parts[2], "column": parts[3]}).fetchall()
    return [Column(str(row[0]), str(row[1]), str(row[2]), str(row[3]), rule, masker) for row in rows]


def _check_keys(session: psycopg.Connection, columns: Sequence[Column]) -> None:
    """Both sides of a foreign key are masked alike, or neither is: `session_replication_role` would let it break unseen."""
    query = (
        "SELECT n.nspname, c.relname, a.attname, m.nspname, d.relname, b.attname FROM pg_constraint k "
        "JOIN LATERAL unnest(k.conkey, k.confkey) AS pair(mine, other) ON true "
        "JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = pair.mine "
        "JOIN pg_class d ON d.oid = k.confrelid JOIN pg_namespace m ON m.oid = d.relnamespace "
        "JOIN pg_attribute b ON b.attrelid = d.oid AND b.attnum = pair.other WHERE k.contype = 'f'"
    )
    maskers = {(column.schema, column.table, column.name): column for column in columns}
    for row in session.execute(query).fetchall():
        mine, other = maskers.get((row[0], row[1], row[2])), maskers.get((row[3], row[4], row[5]))
        if (mine.masker if mine else None) != (other.masker if other else None):
            one, partner = (mine, f"{row[3]}.{row[4]}.{row[5]}") if mine is not None else (other, f"{row[0]}.{row[1]}.{row[2]}")
            assert one is not None  # noqa: S101 (they differ)
            raise ForkRefused(
                why=f"The rule {one.rule!r} would tear {one} from {partner}, which a foreign key ties to it.",
                fix=f"Give both the same masker in `mask:`, or leave {one} as it is.",
            )


def _apply(session: psycopg.Connection, column: Column, salt: str) -> int:
    name = sql.Identifier(column.name)
    value: sql.Composable
    if column.masker.startswith(FIXED):
        value = sql.Literal(column.masker.removeprefix(FIXED))
    else:
        recipe = MASKERS[column.masker]
        value = sql.SQL(recipe).format(c=name, salt=sql.Literal(salt)) if "{" in recipe else sql.SQL(recipe)
    kind = sql.SQL(column.type)
    table = sql.Identifier(column.schema, column.table)
    query = sql.SQL("UPDATE {} SET {} = ({})::{} WHERE {} IS NOT NULL").format(table, name, value, kind, name)
    try:
        return session.execute(query).rowcount
    except psycopg.errors.UniqueViolation as error:
        fix = "Choose one that keeps values apart: email, name, hash, uuid or phone."
        refused = ForkRefused(why=f"{column} is unique, and {column.masker!r} makes values of it equal.", fix=fix)
        raise _Collided(refused, by_chance=column.masker in _DIFFERENT) from error
    except psycopg.Error as error:
        why = f"The rule {column.rule!r} cannot mask {column} with {column.masker!r}: {error.diag.message_primary}."
        raise ForkRefused(why=why, fix="Choose a masker that fits the column's type, or `null`.") from error


def _forget(session: psycopg.Connection, columns: Sequence[Column]) -> None:
    """Have nothing of the former values in views, dead rows and statistics."""
    views = (
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relkind = 'm' AND c.relispopulated ORDER BY c.oid"
    )
    for schema, view in session.execute(views).fetchall():
        session.execute(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(sql.Identifier(schema, view)))
        session.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(schema, view)))
    for schema, table in dict.fromkeys((column.schema, column.table) for column in columns):
        session.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(schema, table)))
