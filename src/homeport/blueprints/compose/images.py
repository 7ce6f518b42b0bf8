"""Which container images Homeport serves natively, and what their names say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["postgres", "redis", "mariadb", "temporal", "temporal-ui"]


@dataclass(frozen=True)
class Engine:
    """What a known image is."""

    kind: Kind
    port: int
    extensions: tuple[str, ...] = ()
    flavour: str = ""
    modules: bool = False
    """Whether the image carries modules that Valkey lacks (Redis Stack)."""


_POSTGRES = Engine("postgres", 5432)
_VECTOR = Engine("postgres", 5432, ("vector",))
_REDIS = Engine("redis", 6379)
_MYSQL = Engine("mariadb", 3306, flavour="mysql")
_MARIADB = Engine("mariadb", 3306, flavour="mariadb")

_KNOWN: dict[str, Engine] = {
    "postgres": _POSTGRES,
    "bitnami/postgresql": _POSTGRES,
    "bitnamilegacy/postgresql": _POSTGRES,
    "pgvector/pgvector": _VECTOR,
    "ankane/pgvector": _VECTOR,
    "supabase/postgres": _VECTOR,
    "immich-app/postgres": _VECTOR,
    "tensorchord/pgvecto-rs": Engine("postgres", 5432, ("vectors",)),
    "tensorchord/vchord-postgres": Engine("postgres", 5432, ("vchord",)),
    "postgis/postgis": Engine("postgres", 5432, ("postgis",)),
    "imresamu/postgis": Engine("postgres", 5432, ("postgis",)),
    "timescale/timescaledb": Engine("postgres", 5432, ("timescaledb",)),
    "timescale/timescaledb-ha": Engine("postgres", 5432, ("timescaledb", "vector")),
    "redis": _REDIS,
    "valkey/valkey": _REDIS,
    "valkey/valkey-bundle": _REDIS,
    "eqalpha/keydb": _REDIS,
    "dragonflydb/dragonfly": _REDIS,
    "bitnami/redis": _REDIS,
    "bitnamilegacy/redis": _REDIS,
    "bitnami/valkey": _REDIS,
    "bitnamilegacy/valkey": _REDIS,
    "redis/redis-stack": Engine("redis", 6379, modules=True),
    "redis/redis-stack-server": Engine("redis", 6379, modules=True),
    "mysql": _MYSQL,
    "mysql/mysql-server": _MYSQL,
    "bitnami/mysql": _MYSQL,
    "bitnamilegacy/mysql": _MYSQL,
    "percona": _MYSQL,
    "percona/percona-server": _MYSQL,
    "mariadb": _MARIADB,
    "bitnami/mariadb": _MARIADB,
    "bitnamilegacy/mariadb": _MARIADB,
    "linuxserver/mariadb": _MARIADB,
    "temporalio/auto-setup": Engine("temporal", 7233),
    "temporalio/temporal": Engine("temporal", 7233),
    "temporalio/server": Engine("temporal", 7233),
    "temporalio/ui": Engine("temporal-ui", 8080),
    "temporalio/web": Engine("temporal-ui", 8080),
}

_PG_TAG = re.compile(r"(?:^|[-_])pg(\d{1,2})(?=[-._]|$)")
_NUMBER = re.compile(r"^v?(\d+(?:\.\d+)*)")


def repository(image: str) -> tuple[str, str]:
    """`(repository, tag)` of an image: registry host, `library/` and digest taken off."""
    name = image.split("@", 1)[0]
    head, slash, rest = name.rpartition("/")
    last, _, tag = (rest if slash else name).partition(":")
    full = f"{head}/{last}" if slash else last
    first, _, after = full.partition("/")
    if after and ("." in first or ":" in first or first == "localhost"):
        full = after
    return full.removeprefix("docker/").removeprefix("library/"), tag


def engine_of(image: str) -> Engine | None:
    """The engine behind an image; None for one that only a container runtime can run."""
    return _KNOWN.get(repository(image)[0].lower())


def version_of(image: str, engine: Engine) -> str:
    """The engine's version by the tag: the major one of PostgreSQL, else the number it starts with; empty when it says none."""
    tag = repository(image)[1]
    if engine.kind == "postgres":
        if found := _PG_TAG.search(tag):
            return found[1]
        number = _NUMBER.match(tag)
        return number[1].split(".")[0] if number and engine.extensions[:1] != ("timescaledb",) else ""
    number = _NUMBER.match(tag)
    return number[1] if number else ""


TEXT_PORTS = frozenset(
    {21, 22, 25, 53, 110, 123, 143, 389, 465, 587, 636, 993, 995, 1433, 1521, 1883, 2181, 2375, 2376, 3306, 4222, 5432, 5433, 5672, 5671,
     6379, 6380, 6432, 7233, 7687, 8883, 9042, 9092, 9093, 9094, 11211, 19092, 26257, 27017, 27018, 51820}
)  # fmt: skip
"""Ports whose usual protocol is not HTTP: a service that publishes only these gets no host name."""
