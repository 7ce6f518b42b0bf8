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
    """What it is for."""


class Pooling(Frozen):
    """A pool of connections in front of a database (pgbouncer)."""

    mode: Literal["transaction", "session"] = "transaction"
    """When a connection goes back to the pool: after each transaction, or when its client goes."""
    size: int = Field(default=20, ge=1, le=500)
    """Most connections that the pool holds to the server."""
    clients: int = Field(default=1000, ge=1, le=20_000)
    """Most clients at once; those beyond `size` wait their turn."""


def pooling_of(wanted: bool | Pooling) -> Pooling | None:
    """How to pool; None when nobody asks for it."""
    return wanted if isinstance(wanted, Pooling) else Pooling() if wanted else None


class SeedFile(Frozen):
    """A file that an empty database is filled from."""

    path: str
    """As the project names it."""
    digest: str
    """SHA-256 of its content."""


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
    """Whether storage grows by itself."""
    memory: Size | None = None
    """Most memory."""
    replicas: int = Field(default=0, ge=0, le=10)
    """Read replicas beside the primary."""
    replica_names: tuple[str, ...] = ()
    """Names of the read replicas in the file."""
    high_availability: bool = False
    """A standby that takes over."""
    region: str = ""
    """Region the file asks for."""
    ip_allow_list: tuple[IpRule, ...] | None = None
    """Networks allowed from outside, with TLS; None means local only, an empty list the same."""
    image: str = ""
    """The container image that the file named, kept so that it can be written back."""
    command: tuple[str, ...] | str | None = None
    """The image's command, kept so that it can be written back."""
    parameters: dict[str, str] = {}
    """Server settings by the engine's own names."""
    init: tuple[str, ...] = ()
    """Files (`.sql`, `.sql.gz`) and folders of the source that a new, empty database is filled from, once."""
    seeds: tuple[SeedFile, ...] = ()
    """The files behind `init`. Filled from the source."""
    preview_plan: str = ""
    """Size in previews."""
    bind: tuple[str, ...] = ()
    """Config variables the provider sets under other names (Heroku `as:`)."""
    extensions: dict[str, Json] = {}
    """What a dialect says that no driver serves; kept so that it can be written back."""


class Postgres(AddOnBase):
    """PostgreSQL; `extensions_wanted` such as `vector`, `pg_trgm` decide which engine can serve it."""

    kind: Literal["postgres"] = "postgres"
    database: str = ""
    """Name of the database; empty is the add-on's."""
    user: str = ""
    """Name of the role; empty is the add-on's."""
    password: EnvValue | None = None
    """Only when the file fixes one; otherwise generated."""
    extensions_wanted: tuple[str, ...] = ()
    """Extensions that must be there, such as `vector`; they are made in the database."""
    extensions_made: tuple[str, ...] = ()
    """Extensions that the project's migrations make themselves: an engine that has them is preferred. Filled from the source."""
    pooling: bool | Pooling = False
    """Connect services through a pool: `true`, or how. Migrations and release commands connect directly."""
    insights: bool | None = None
    """Slow statements are told from 1000 ms on; from 100 ms with `true`, never with `false`."""


class Redis(AddOnBase):
    """A Redis-compatible key-value store (Valkey)."""

    kind: Literal["redis"] = "redis"
    eviction: Literal[
        "", "noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"
    ] = ""
    """What goes when memory is full."""
    persistence: bool | None = None
    """None lets the plan decide: on."""
    password: EnvValue | None = None
    """Only when the file fixes one; otherwise generated."""


SearchAttribute = Literal["Text", "Keyword", "KeywordList", "Int", "Double", "Bool", "Datetime"]
"""What a custom search attribute of Temporal holds."""


class Temporal(AddOnBase):
    """A Temporal server, or an address of one."""

    kind: Literal["temporal"] = "temporal"
    namespace: str = "default"
    """Namespace."""
    ui: bool = False
    """Run the web interface as well."""
    search_attributes: dict[str, SearchAttribute] = {}
    """Custom search attributes of the namespace, by name; those that are there are never taken away."""
    address: str = ""
    """`host:port` of an outside cluster; empty means Homeport runs one."""
    tls_certificate: EnvValue | None = None
    """Client certificate for an outside cluster."""
    tls_key: EnvValue | None = None
    """Its key."""


class MariaDB(AddOnBase):
    """MariaDB or MySQL."""

    kind: Literal["mariadb"] = "mariadb"
    flavour: Literal["mariadb", "mysql"] = "mariadb"
    """Which of the two the file names."""
    database: str = ""
    """Name of the database."""
    user: str = ""
    """Name of the user."""
    password: EnvValue | None = None
    """Only when the file fixes one; otherwise generated."""
    root_password: EnvValue | None = None
    """The same for root."""


class External(AddOnBase):
    """A service somebody else runs: a URL, or a set of variables, with a health check."""

    kind: Literal["external"] = "external"
    type: str
    """What it is: `neo4j`, `weaviate`, `supabase`, `mongodb`, …"""
    url: EnvValue | None = None
    """Its address, with credentials where it needs them."""
    health: Literal["", "tcp", "http", "command", "none"] = ""
    """How it is asked: whether a connection opens, whether `health_path` answers, or what `health_command` says. Empty means `command` or
    `http` where one is named, else `tcp`."""
    health_path: str = ""
    """Path that tells whether it is well: an answer of 2xx, or of `health_status`."""
    health_status: int | None = Field(default=None, ge=100, le=599)
    """Status that counts as well too: 401 of a service that wants to know who asks."""
    health_command: tuple[str, ...] | str = ()
    """Command that ends with 0 when it is well. It runs with the source and the variables of the project's first service."""
    health_interval: Duration | None = None
    """Between checks; without one a minute."""
    required: bool = False
    """Whether a deploy stops when it does not answer. Otherwise that is shown and told, and holds nothing up."""


AddOn = Annotated[Postgres | Redis | Temporal | MariaDB | External, Field(discriminator="kind")]
AddOns = dict[Name, AddOn]
