"""Railway's reference variables: `${{Postgres.DATABASE_URL}}`, `${{shared.KEY}}`, `${{RAILWAY_PUBLIC_DOMAIN}}`, `${{secret(32)}}`.

The grammar is that of Railway's variables reference: `${{ NAMESPACE.VAR }}` where NAMESPACE is `shared` or a service's name, `${{ VAR }}`
for a variable of the service itself, and the template functions `secret` and `randomInt`.
"""

from __future__ import annotations

import re

from homeport.model.addon import AddOn, External, MariaDB, Postgres, Redis
from homeport.model.base import slug
from homeport.model.env import (
    AddOnProperty,
    Env,
    EnvValue,
    FromAddOn,
    FromGroup,
    FromService,
    GeneratedValue,
    HostValue,
    PlainValue,
    ServiceProperty,
    Template,
)

REFERENCE = re.compile(r"\$\{\{\s*([^{}]{1,300}?)\s*\}\}")
_FUNCTION = re.compile(r"^(secret|randomInt)\s*\(\s*(\d{0,4})[^)]{0,200}\)$")

_KINDS = {
    "postgres": ("postgres", "pgvector", "timescale", "postgis", "paradedb"),
    "redis": ("redis", "valkey", "keydb", "dragonfly"),
    "mysql": ("mysql", "mariadb"),
    "mongodb": ("mongo",),
}
"""Kind of add-on by how Railway's database templates name their services."""

_PROPERTIES: dict[str, AddOnProperty] = {
    "DATABASE_URL": "url",
    "DATABASE_PRIVATE_URL": "private-url",
    "DATABASE_PUBLIC_URL": "public-url",
    "DATABASE_URL_PRIVATE": "private-url",
    "POSTGRES_URL": "url",
    "PGHOST": "host",
    "PGPORT": "port",
    "PGUSER": "user",
    "PGPASSWORD": "password",
    "PGDATABASE": "database",
    "POSTGRES_USER": "user",
    "POSTGRES_PASSWORD": "password",
    "POSTGRES_DB": "database",
    "RAILWAY_PRIVATE_DOMAIN": "host",
    "RAILWAY_TCP_PROXY_DOMAIN": "host",
    "RAILWAY_TCP_PROXY_PORT": "port",
    "MYSQL_ROOT_PASSWORD": "password",
    "MYSQLDATABASE": "database",
    "MYSQL_DATABASE": "database",
    "MONGO_INITDB_ROOT_USERNAME": "user",
    "MONGO_INITDB_ROOT_PASSWORD": "password",
}
"""Variables that Railway's database services offer, by what they hold."""

_ENDINGS: tuple[tuple[str, AddOnProperty], ...] = (
    ("PRIVATE_URL", "private-url"),
    ("PUBLIC_URL", "public-url"),
    ("URL", "url"),
    ("HOST", "host"),
    ("PORT", "port"),
    ("USER", "user"),
    ("PASSWORD", "password"),
)
"""`REDISHOST`, `REDIS_HOST`, `MONGO_PRIVATE_URL`: the other engines' variables, by their endings."""


def _property(variable: str) -> AddOnProperty:
    name = variable.upper()
    if name in _PROPERTIES:
        return _PROPERTIES[name]
    return next((meaning for ending, meaning in _ENDINGS if name.endswith(ending)), "url")


_SERVICE_PROPERTIES: dict[str, ServiceProperty] = {
    "RAILWAY_PUBLIC_DOMAIN": "public-host",
    "RAILWAY_STATIC_URL": "public-host",
    "RAILWAY_PRIVATE_DOMAIN": "host",
    "PORT": "port",
}


def addon_kind(name: str) -> str:
    """`postgres`, `redis`, `mysql` or `mongodb` when a service of this name is one of Railway's databases, else empty."""
    lowered = slug(name)
    return next((kind for kind, starts in _KINDS.items() if lowered.startswith(starts)), "")


def make_addon(kind: str, title: str) -> AddOn:
    """The add-on behind a database service; MongoDB is one that somebody else runs."""
    title = title if slug(title) != title else ""
    if kind == "postgres":
        wanted = ("vector",) if "pgvector" in title.lower() else ()
        return Postgres(title=title, extensions_wanted=wanted)
    if kind == "redis":
        return Redis(title=title)
    if kind == "mysql":
        return MariaDB(title=title, flavour="mysql")
    return External(type=kind, title=title)


def railway_addons(*texts: str) -> dict[str, AddOn]:
    """The add-ons that texts with references imply, by name."""
    found: dict[str, AddOn] = {}
    for text in texts:
        for match in REFERENCE.finditer(text):
            namespace, dot, _ = match[1].partition(".")
            if dot and (kind := addon_kind(namespace)):
                found.setdefault(slug(namespace), make_addon(kind, namespace.strip()))
    return found


def railway_references(text: str, service: str = "") -> EnvValue:
    """A variable's text as a value: plain text stays plain, a lone reference becomes that reference, a mixture a template.

    `service` is the name of the service the variable belongs to, for references to its own variables."""
    parts: list[EnvValue] = []
    at = 0
    for match in REFERENCE.finditer(text):
        if match.start() > at:
            parts.append(PlainValue(value=text[at : match.start()]))
        parts.append(_value(match[1], service))
        at = match.end()
    if at < len(text):
        parts.append(PlainValue(value=text[at:]))
    if not parts:
        return PlainValue(value=text)
    return parts[0] if len(parts) == 1 else Template(parts=tuple(parts))


def _value(inner: str, service: str) -> EnvValue:
    if function := _FUNCTION.match(inner):
        length = int(function[2] or 32)
        return GeneratedValue(format="alphanumeric", bytes=min(max(length, 8), 1024))
    namespace, dot, variable = inner.partition(".")
    namespace, variable = namespace.strip(), variable.strip()
    if not dot:
        return _own(namespace, service)
    if namespace.lower() == "shared":
        return FromGroup(group="shared", key=variable)
    if addon_kind(namespace):
        return FromAddOn(addon=slug(namespace), property=_property(variable))
    return _of_service(slug(namespace), variable)


def _of_service(service: str, variable: str) -> EnvValue:
    wanted = _SERVICE_PROPERTIES.get(variable)
    return FromService(service=service, property=wanted, variable=None if wanted else variable)


def _own(variable: str, service: str) -> EnvValue:
    if variable == "RAILWAY_SERVICE_NAME" and service:
        return PlainValue(value=service)
    if variable in _SERVICE_PROPERTIES and service:
        return _of_service(service, variable)
    if variable.startswith("RAILWAY_") or not service:
        return HostValue(name=variable, default="")
    return FromService(service=service, property=None, variable=variable)


def lift(command: str, service: str) -> tuple[str, Env]:
    """A command line with its references moved into variables: `psql ${{Postgres.DATABASE_URL}}` becomes `psql $POSTGRES_DATABASE_URL`."""
    env: dict[str, EnvValue] = {}

    def variable(match: re.Match[str]) -> str:
        inner = match[1]
        if re.fullmatch(r"[A-Za-z_]\w*", inner) and not inner.startswith("RAILWAY_"):
            return f"${{{inner}}}"
        name = re.sub(r"\W+", "_", inner).strip("_").upper() or "VALUE"
        env[name] = _value(inner, service)
        return f"${{{name}}}"

    return REFERENCE.sub(variable, command), env


_NAMES: dict[str, dict[str, str]] = {
    "postgres": {
        **dict.fromkeys(("url", "private-url", "pooled-url", "direct-url"), "DATABASE_URL"),
        "public-url": "DATABASE_PUBLIC_URL",
        "prefix": "PG",
    },
    "redis": {"url": "REDIS_URL", "private-url": "REDIS_URL", "public-url": "REDIS_PUBLIC_URL", "prefix": "REDIS"},
    "mariadb": {"url": "MYSQL_URL", "private-url": "MYSQL_URL", "public-url": "MYSQL_PUBLIC_URL", "prefix": "MYSQL"},
    "external": {"url": "MONGO_URL", "private-url": "MONGO_URL", "public-url": "MONGO_PUBLIC_URL", "prefix": "MONGO"},
}
_TITLES = {"postgres": "Postgres", "redis": "Redis", "mariadb": "MySQL", "external": "MongoDB"}


def railway_text(value: EnvValue, addons: dict[str, AddOn]) -> str | None:
    """A value as Railway's variable editor takes it; None when only a person can give it (a secret)."""
    match value:
        case PlainValue():
            return value.value
        case GeneratedValue():
            return f"${{{{secret({value.bytes})}}}}"
        case FromGroup():
            return f"${{{{shared.{value.key}}}}}"
        case FromService():
            if value.property in ("url", "hostport", "public-url"):
                host = "RAILWAY_PUBLIC_DOMAIN" if value.property == "public-url" else "RAILWAY_PRIVATE_DOMAIN"
                scheme = {"url": "http://", "public-url": "https://"}.get(value.property, "")
                port = "" if value.property == "public-url" else f":${{{{{value.service}.PORT}}}}"
                return f"{scheme}${{{{{value.service}.{host}}}}}{port}"
            names = {"host": "RAILWAY_PRIVATE_DOMAIN", "port": "PORT", "public-host": "RAILWAY_PUBLIC_DOMAIN"}
            return f"${{{{{value.service}.{value.variable or names.get(value.property or '', 'PORT')}}}}}"
        case FromAddOn():
            addon = addons.get(value.addon)
            kind = addon.kind if addon else "postgres"
            names = _NAMES.get(kind, _NAMES["external"])
            usual = _TITLES.get(kind, "")
            title = (addon.title if addon else "") or (usual if slug(usual) == value.addon else value.addon)
            if value.property == "hostport":
                return f"${{{{{title}.{names['prefix']}HOST}}}}:${{{{{title}.{names['prefix']}PORT}}}}"
            return f"${{{{{title}.{names.get(value.property) or names['prefix'] + value.property.upper()}}}}}"
        case Template():
            texts = [railway_text(part, addons) for part in value.parts]
            return None if None in texts else "".join(t for t in texts if t is not None)
        case HostValue():
            return value.default
    return None
