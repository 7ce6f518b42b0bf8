"""The configuration and access rules of a Valkey server, rendered from its plan. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from homeport.model.base import Frozen

ADMIN = "homeport:admin"
"""The user that Homeport is; no service can be called so."""
OWNER = "default"
"""The user that a password alone means (`redis://:password@host`)."""
SOCKET = "valkey.sock"

RULES = (
    "resetchannels", "resetkeys", "allkeys", "allchannels", "+@all", "-@admin", "-@dangerous",
    "+keys", "+sort", "+sort_ro", "+info", "+flushdb", "+flushall", "+role", "+restore", "+swapdb", "+client|list", "+client|info",
)  # fmt: skip
"""What services may do: everything but run the server. Of the dangerous commands those stay that libraries count on and that reach
no further than this add-on's own data: KEYS, SORT, INFO and CLIENT LIST (Sidekiq, BullMQ, Celery), FLUSHDB and
FLUSHALL (a cache's `clear`)."""

RESERVED = frozenset({
    "aclfile", "aof-use-rdb-preamble", "appenddirname", "appendfilename", "appendonly", "bind", "bind-source-addr",
    "cluster-enabled", "daemonize", "dbfilename", "dir", "enable-debug-command", "enable-module-command",
    "enable-protected-configs", "include", "loadmodule", "logfile", "masterauth", "masteruser", "maxmemory", "maxmemory-policy",
    "pidfile", "port", "primaryauth", "primaryuser", "protected-mode", "rdbchecksum", "rename-command", "replicaof",
    "requirepass", "save", "slaveof", "supervised", "syslog-enabled", "tls-ca-cert-file", "tls-cert-file", "tls-key-file",
    "tls-port", "unixsocket", "unixsocketperm", "user",
})  # fmt: skip
"""Directives a file cannot change."""
_DIRECTIVE = re.compile(r"[a-z][a-z0-9-]{0,62}")


class Tuning(Frozen):
    """What a server is tuned to."""

    host: str
    port: int
    memory: int
    """Bytes its keys may use."""
    eviction: str = "noeviction"
    persistence: bool = True
    parameters: dict[str, str] = {}


def conf(tuning: Tuning) -> str:
    """`valkey.conf`. Every accepted write is in the append-only file before it is answered, and on the disk within a second: `syncing`."""
    values: dict[str, str | int] = {
        "bind": tuning.host,
        "port": tuning.port,
        "unixsocket": f"../run/{SOCKET}",
        "unixsocketperm": "700",
        "protected-mode": "yes",
        "daemonize": "no",
        "supervised": "no",
        "logfile": '""',
        "always-show-logo": "no",
        "aclfile": "../users.acl",
        "maxmemory": tuning.memory,
        "maxmemory-policy": tuning.eviction,
        "appendonly": "yes" if tuning.persistence else "no",
        "appendfsync": "no",
        "save": saves(tuning),
        "dbfilename": "dump.rdb",
        "tcp-keepalive": 60,
        "enable-debug-command": "no",
        "enable-module-command": "no",
        "enable-protected-configs": "no",
    }
    for name, value in tuning.parameters.items():
        if not refused({name: value}):
            values[name] = quoted(value)
    return "# Written by Homeport; changes are overwritten.\n" + "".join(f"{name} {value}\n" for name, value in values.items())


def saves(tuning: Tuning) -> str:
    """When a snapshot is written by itself: seconds and changes, the engine's own defaults."""
    return "3600 1 300 100 60 10000" if tuning.persistence else '""'


def refused(parameters: Mapping[str, str]) -> list[str]:
    """Directives of a file that no server is given, one sentence each."""
    found = []
    for name, value in parameters.items():
        if name.startswith("tls-"):
            found.append(f"the setting {name[:80]!r} asks for TLS, which it does not speak: connections to it never leave this machine")
        elif name in RESERVED:
            found.append(f"the setting {name[:80]!r} is Homeport's own to decide")
        elif not _DIRECTIVE.fullmatch(name) or not value.isprintable():
            found.append(f"{name[:80]!r} is not a setting")
    return found


def quoted(value: str) -> str:
    """A value as the configuration reads it: in quotes unless it is plain words."""
    if re.fullmatch(r"[\w.:/ -]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def digest(password: str) -> str:
    """A password as the access rules name it: passwords given out have 256 bits, so a plain hash tells nothing."""
    return hashlib.sha256(password.encode()).hexdigest()


def user_of(consumer: str) -> str:
    if not consumer:
        return OWNER
    return f"svc-{consumer}" if consumer == OWNER else consumer


def rules(user: str, digests: tuple[str, ...], *, open: bool = False) -> list[str]:
    """What ACL SETUSER is told, complete: the same again changes nothing. `open` lets the owner in with any password and with none."""
    allowed = ("allkeys", "allchannels", "+@all") if user == ADMIN else RULES
    if open and user == OWNER:
        return ["reset", "on", "nopass", *allowed]
    return ["reset", "on" if digests else "off", *(f"#{known}" for known in digests), *allowed]


def acl(users: Mapping[str, tuple[str, ...]], *, open: bool = False) -> str:
    """`users.acl`: each user with the hashes of its passwords, the newest last."""
    named = {OWNER: (), **users}
    return "".join(f"user {user} {' '.join(rules(user, digests, open=open)[1:])}\n" for user, digests in named.items())


def parse_acl(text: str) -> dict[str, tuple[str, ...]]:
    """The users of a file that `acl` wrote."""
    users = {}
    for words in (line.split() for line in text.splitlines()):
        if len(words) > 2 and words[0] == "user":
            users[words[1]] = tuple(word[1:] for word in words[2:] if word.startswith("#"))
    return users
