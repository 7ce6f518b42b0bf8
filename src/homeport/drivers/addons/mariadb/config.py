"""Configuration and accounts of a MariaDB server, rendered from its plan. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence

from homeport.model.addon import MariaDB
from homeport.model.base import Frozen
from homeport.model.env import PlainValue

ADMIN = "homeport.admin"
"""The account that Homeport is; no service can be called so."""
ROOT = "root"
SOCKET = "mariadb.sock"
LOG_FILE = "24M"
"""Size of the redo log: a quarter of the server's default keeps small databases small."""
KEPT = frozenset({ADMIN, ROOT, "mariadb.sys", "mysql", "public"})
SYSTEM_DATABASES = frozenset({"mysql", "information_schema", "performance_schema", "sys"})
RESERVED = frozenset({
    "basedir", "bind_address", "core_file", "datadir", "general_log_file", "init_file", "init_connect", "log_bin", "log_error",
    "lc_messages_dir", "pid_file", "plugin_dir", "plugin_load", "plugin_load_add", "port", "secure_file_priv", "server_id",
    "skip_grant_tables", "skip_name_resolve", "skip_networking", "slow_query_log_file", "socket", "ssl_ca", "ssl_cert", "ssl_key",
    "tmpdir", "user", "wsrep_provider",
})  # fmt: skip
"""Settings a file cannot change."""
OPEN_ROOT = (
    "MYSQL_ALLOW_EMPTY_PASSWORD", "MARIADB_ALLOW_EMPTY_PASSWORD", "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD", "ALLOW_EMPTY_PASSWORD",
)  # fmt: skip
"""Variables of the images that let root in without a password; any text counts (the images' entry points)."""
NOBODY = "*" + "0" * 40
"""The hash of no password that is known."""
_SETTING = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DIGEST = re.compile(r"\*[0-9A-F]{40}")


class Layout(Frozen):
    """Names inside the server."""

    database: str
    owner: str

    def account(self, consumer: str) -> str:
        """A consumer's account; the owner's own under the empty name."""
        if not consumer:
            return self.owner
        return f"svc_{consumer}" if consumer in KEPT or consumer == self.owner else consumer


def layout(name: str, definition: MariaDB) -> Layout:
    """Database and owner: as the file says, else after the add-on."""
    user = definition.user if definition.user != ROOT else ""
    database = definition.database or user or name.replace("-", "_")
    return Layout(database=database, owner=user or database[:80])


def open_root(definition: MariaDB) -> bool:
    """Whether the file lets root in with no password (`MYSQL_ALLOW_EMPTY_PASSWORD` and its like in the image's variables)."""
    asked = (definition.env.get(key) for key in OPEN_ROOT)
    return definition.root_password is None and any(isinstance(value, PlainValue) and value.value.strip() for value in asked)


def problems(definition: MariaDB) -> list[str]:
    """What no server can be given, one sentence each."""
    found = layout("x", definition)
    wrong = []
    if not _name_is_good(found.database, 64) or found.database.lower() in SYSTEM_DATABASES:
        wrong.append(f"the database name {found.database[:80]!r} cannot be used in MariaDB")
    if not _name_is_good(found.owner, 80) or found.owner in KEPT:
        wrong.append(f"the user name {found.owner[:90]!r} cannot be used in MariaDB")
    return wrong + refused(definition.parameters)


def _name_is_good(name: str, longest: int) -> bool:
    return 0 < len(name) <= longest and name.isprintable() and name == name.strip() and all(ord(c) < 0x10000 for c in name)


def refused(parameters: Mapping[str, str]) -> list[str]:
    """Settings of a file that no server is given."""
    wrong = []
    for written, value in parameters.items():
        name = canonical(written)
        if name in RESERVED:
            wrong.append(f"the setting {written[:80]!r} is Homeport's own to decide")
        elif not _SETTING.fullmatch(name) or not value.isprintable():
            wrong.append(f"{written[:80]!r} is not a setting")
    return wrong


def canonical(name: str) -> str:
    """A setting's name as the server lists it: `max-connections` is `max_connections`."""
    return name.lower().replace("-", "_")


def conf(host: str, port: int, memory: int, parameters: Mapping[str, str]) -> str:
    """`my.cnf`. Every acknowledged commit is on the disk (`innodb_flush_log_at_trx_commit=1`)."""
    pool = max(8, memory // 4 >> 20)
    values: dict[str, str | int] = {
        "bind_address": host,
        "port": port,
        "socket": f"../run/{SOCKET}",
        "pid_file": "../run/mariadb.pid",
        "tmpdir": "../tmp",
        "init_file": "../accounts.sql",
        "secure_file_priv": "../tmp",
        "skip_name_resolve": "ON",
        "local_infile": "OFF",
        "performance_schema": "OFF",
        "character_set_server": "utf8mb4",
        "collation_server": "utf8mb4_unicode_ci",
        "innodb_flush_log_at_trx_commit": 1,
        "innodb_buffer_pool_size": f"{pool}M",
        "innodb_log_file_size": LOG_FILE,
        "innodb_log_buffer_size": "4M",
        "key_buffer_size": "1M",
        "aria_pagecache_buffer_size": "4M",
        "max_connections": 100 if memory < 1 << 30 else 300,
        "thread_cache_size": 4,
        "table_open_cache": 400,
        "max_allowed_packet": "64M",
    }
    values |= {canonical(name): _quoted(value) for name, value in parameters.items() if not refused({name: value})}
    return "# Written by Homeport; changes are overwritten.\n[mariadbd]\n" + "".join(
        f"{name} = {value}\n" for name, value in values.items()
    )


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[\w.:/,+-]+", value) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def digest(password: str) -> str:
    """A password as `mysql_native_password` keeps it (MariaDB's PASSWORD()): SHA-1 twice. Those given out have 256 bits."""
    return "*" + hashlib.sha1(hashlib.sha1(password.encode()).digest()).hexdigest().upper()  # noqa: S324 (the protocol's own)


def accounts_file(admin: str) -> str:
    """Statements of every start, one a line: Homeport's own way in."""
    return (
        f"CREATE OR REPLACE USER {text(ADMIN)}@'localhost' IDENTIFIED BY PASSWORD '{admin}';\n"
        f"GRANT ALL PRIVILEGES ON *.* TO {text(ADMIN)}@'localhost' WITH GRANT OPTION;\n"
    )


def identified(digests: Sequence[str]) -> str:
    """How an account proves itself: by any of these passwords; by none when there are none."""
    if not digests:
        return f"IDENTIFIED BY PASSWORD '{NOBODY}'"
    assert all(_DIGEST.fullmatch(known) for known in digests)  # noqa: S101
    return "IDENTIFIED VIA " + " OR ".join(f"mysql_native_password USING '{known}'" for known in digests)


def known_digests(private: str) -> tuple[str, ...]:
    """The passwords of an account out of `mysql.global_priv`, the newest last."""
    said = json.loads(private)
    parts = [part or said for part in said.get("auth_or", [{}])]
    return tuple(found for part in parts if _DIGEST.fullmatch(found := str(part.get("authentication_string", ""))) and found != NOBODY)


def text(value: str) -> str:
    """A string of SQL."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def name(value: str) -> str:
    """A name of SQL."""
    return "`" + value.replace("`", "``") + "`"


def pattern(database: str) -> str:
    """A database's name where GRANT reads a pattern: `_` and `%` stand for themselves."""
    return name(database.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%"))
