"""Add-ons: stateful engines that Homeport provisions, and outside services a project counts on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from homeport.model.base import Duration, Frozen, Json, Name, Size
from homeport.model.env import Env, EnvValue


class IpRule(Frozen):
    """One allowed source network."""

    source: str
    """CIDR."""
    description: str = ""


class AddOnBase(Frozen):
    """What every add-on has."""

    plan: str = ""
    """Size by name; the operator's table maps it to memory and disk. Empty means the smallest."""
    version: str = ""
    """Wanted version; the newest installed one that matches. Empty means the default."""
    env: Env = {}
    """Variables that the image form of the add-on carried."""
    aliases: tuple[str, ...] = ()
    """Other names that the file knows it by (host names, container names)."""
    title: str = ""
    """The name as the file writes it, when it is not a valid name."""
    disk: Size | None = None
    """Wanted storage in bytes."""
    disk_autoscaling: bool | None = None
    memory: Size | None = None
    replicas: int = Field(default=0, ge=0, le=10)
    """Read replicas beside the primary."""
    replica_names: tuple[str, ...] = ()
    high_availability: bool = False
    region: str = ""
    ip_allow_list: tuple[IpRule, ...] | None = None
    """Networks allowed from outside; None means local only, an empty list the same."""
    image: str = ""
    """The container image that the file named, kept so that it can be written back."""
    command: tuple[str, ...] | str | None = None
    parameters: dict[str, str] = {}
    """Server settings by the engine's own names."""
    preview_plan: str = ""
    bind: tuple[str, ...] = ()
    """Config variables the provider sets under other names (Heroku `as:`)."""
    extensions: dict[str, Json] = {}
    """What a dialect says that no driver serves; kept so that it can be written back."""


class Postgres(AddOnBase):
    """PostgreSQL; `extensions_wanted` such as `vector`, `pg_trgm` decide which engine can serve it."""

    kind: Literal["postgres"] = "postgres"
    database: str = ""
    user: str = ""
    password: EnvValue | None = None
    """Only when the file fixes one; otherwise generated."""
    extensions_wanted: tuple[str, ...] = ()
    pooling: bool = False
    insights: bool | None = None


class Redis(AddOnBase):
    """A Redis-compatible key-value store (Valkey)."""

    kind: Literal["redis"] = "redis"
    eviction: Literal[
        "", "noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"
    ] = ""
    persistence: bool | None = None
    """None lets the plan decide: on."""
    password: EnvValue | None = None


class Temporal(AddOnBase):
    """A Temporal server, or an address of one."""

    kind: Literal["temporal"] = "temporal"
    namespace: str = "default"
    ui: bool = False
    address: str = ""
    """`host:port` of an outside cluster; empty means Homeport runs one."""
    tls_certificate: EnvValue | None = None
    tls_key: EnvValue | None = None


class MariaDB(AddOnBase):
    """MariaDB or MySQL."""

    kind: Literal["mariadb"] = "mariadb"
    flavour: Literal["mariadb", "mysql"] = "mariadb"
    database: str = ""
    user: str = ""
    password: EnvValue | None = None
    root_password: EnvValue | None = None


class External(AddOnBase):
    """A service somebody else runs: a URL, or a set of variables, with a health check."""

    kind: Literal["external"] = "external"
    type: str
    """What it is: `neo4j`, `weaviate`, `supabase`, `mongodb`, …"""
    url: EnvValue | None = None
    health_path: str = ""
    health_interval: Duration | None = None


AddOn = Annotated[Postgres | Redis | Temporal | MariaDB | External, Field(discriminator="kind")]
AddOns = dict[Name, AddOn]
