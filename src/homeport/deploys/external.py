"""External add-ons: services somebody else runs, known by an address. What it says, and whether anybody answers there."""

from __future__ import annotations

import http.client
import socket
import time
from urllib.parse import unquote, urlsplit, urlunsplit

from homeport.drivers.outgoing import AddressRefusedError, Outgoing
from homeport.model.addon import External
from homeport.model.base import Frozen
from homeport.model.env import EnvValue, SecretValue
from homeport.model.spec import Spec

PORTS = {
    "amqp": 5672, "amqps": 5671, "bolt": 7687, "clickhouse": 9000, "elasticsearch": 9200, "http": 80, "https": 443, "kafka": 9092,
    "mariadb": 3306, "mongodb": 27017, "mysql": 3306, "nats": 4222, "neo4j": 7687, "postgres": 5432, "postgresql": 5432,
    "redis": 6379, "rediss": 6379,
}  # fmt: skip
"""Port of an address that names none, by the scheme's first part (`bolt+s`, `postgresql+asyncpg`); as IANA or the project registers it."""
PATIENCE = 3.0
"""Seconds for one health check."""


class Health(Frozen):
    """What a health check saw."""

    state: str
    """`well`, `unwell`, or `unknown` where there is nothing to ask."""
    detail: str = ""
    milliseconds: float = 0.0


def find(spec: Spec, name: str) -> tuple[str, External] | None:
    """The external add-on a file means by a name, a title or an alias."""
    for known, addon in spec.addons.items():
        if isinstance(addon, External) and (name in (known, addon.title) or name in addon.aliases):
            return known, addon
    return None


def prefix(name: str) -> str:
    """The beginning of the variables that are about an add-on."""
    return name.upper().replace("-", "_")


def url_key(name: str) -> str:
    """The variable an external add-on's address is kept under in the vault: `NEO4J_URL`."""
    return f"{prefix(name)}_URL"


def url_value(name: str, addon: External) -> EnvValue:
    """Its address; one that the file does not say is asked for."""
    return addon.url if addon.url is not None else SecretValue(description=f"Address of the {addon.type} service {name}, run elsewhere.")


def property_of(url: str, wanted: str) -> str | None:
    """A property of an address; None when the address does not say it."""
    if wanted in ("url", "private-url", "public-url", "pooled-url", "direct-url"):
        return url
    try:
        split = urlsplit(url)
        port = split.port or PORTS.get(split.scheme.partition("+")[0], 0)
    except ValueError:
        return None
    host = split.hostname or ""
    return {
        "host": host or None,
        "port": str(port) if port else None,
        "hostport": f"{host}:{port}" if host and port else None,
        "user": unquote(split.username or ""),
        "password": unquote(split.password or ""),
        "database": unquote(split.path.lstrip("/")),
    }.get(wanted)


def without_password(url: str) -> str:
    """An address without its password: `postgresql://user@host:port/db`."""
    split = urlsplit(url)
    user, _, host = split.netloc.rpartition("@")
    user = user.partition(":")[0]
    return urlunsplit(split._replace(netloc=f"{user}@{host}" if user else host))


def way_of(addon: External) -> str:
    """How an external add-on is asked: `tcp`, `http`, `command` or `none`."""
    return addon.health or ("command" if addon.health_command else "http" if addon.health_path else "tcp")


def check(url: str, path: str = "", *, way: str = "", status: int | None = None) -> Health:
    """Whether somebody answers at an address: a path of a web address with 2xx or `status`, else a connection that opens.

    Never says the address.
    """
    way = way or ("http" if path else "tcp")
    if way == "none":
        return Health(state="unknown", detail="it is not asked, as the file says")
    host, port = property_of(url, "host"), property_of(url, "port")
    if not host or not port or urlsplit(url).scheme.endswith("+srv"):
        return Health(state="unknown", detail="its address names no host and port that can be asked")
    began = time.monotonic()
    try:
        web = way == "http" and urlsplit(url).scheme in ("http", "https")
        detail = _ask_path(url, path, status) if web else _connect(host, int(port))
    except AddressRefusedError as error:
        detail = str(error)
    except (OSError, http.client.HTTPException) as error:
        detail = f"no answer: {getattr(error, 'strerror', None) or type(error).__name__}"
    return Health(state="unwell" if detail else "well", detail=detail, milliseconds=round((time.monotonic() - began) * 1000, 1))


def _ask_path(url: str, path: str, wanted: int | None) -> str:
    split = urlsplit(url)
    bare = urlunsplit((split.scheme, split.netloc.rpartition("@")[2], "/" + path.lstrip("/"), "", ""))
    status = Outgoing(private=True, seconds=PATIENCE).request("GET", bare).status
    return "" if 200 <= status < 300 or status == wanted else f"its health path answered {status}"


def _connect(host: str, port: int) -> str:
    with socket.create_connection((host, port), timeout=PATIENCE):
        return ""
