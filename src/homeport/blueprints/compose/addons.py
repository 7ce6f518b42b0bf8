"""Known images as native add-ons: credentials, server settings, names; and the same written as a Compose service again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from homeport.blueprints.compose.fields import Fields
from homeport.blueprints.compose.images import Engine, version_of
from homeport.blueprints.compose.interpolation import Variable, parse_template
from homeport.blueprints.compose.ports import Mount, split_volume
from homeport.blueprints.compose.values import Credential, Values
from homeport.blueprints.view import scalar_text
from homeport.model.addon import AddOn, MariaDB, Postgres, Redis, Temporal
from homeport.model.base import parse_size
from homeport.model.env import AddOnProperty, EnvValue, FromAddOn, PlainValue, SecretValue

_SERVERS = frozenset(
    {
        "postgres",
        "redis-server",
        "valkey-server",
        "keydb-server",
        "dragonfly",
        "mysqld",
        "mariadbd",
        "docker-entrypoint.sh",
        "/opt/bitnami/scripts/redis/run.sh",
    }
)
_SHELLS = frozenset({"sh", "/bin/sh", "bash", "/bin/bash", "ash"})
_INIT_FOLDER = "/docker-entrypoint-initdb.d"

_USER = ("POSTGRES_USER", "POSTGRESQL_USERNAME", "MYSQL_USER", "MARIADB_USER")
_DATABASE = ("POSTGRES_DB", "POSTGRESQL_DATABASE", "MYSQL_DATABASE", "MARIADB_DATABASE")
_PASSWORD = ("POSTGRES_PASSWORD", "POSTGRESQL_PASSWORD", "MYSQL_PASSWORD", "MARIADB_PASSWORD", "REDIS_PASSWORD", "VALKEY_PASSWORD")
_ROOT = ("MYSQL_ROOT_PASSWORD", "MARIADB_ROOT_PASSWORD", "POSTGRESQL_POSTGRES_PASSWORD")
CREDENTIALS = frozenset({*_USER, *_DATABASE, *_PASSWORD, *_ROOT})
"""Variables of known images that name credentials."""

_TYPED = frozenset({"image", "environment", "command", "mem_limit", "volumes"})
"""Keys of an add-on's service that the spec holds in fields of its own (volumes: as they are)."""

MODULES = "Redis Stack's modules (search, JSON, time series) are not part of Valkey"


@dataclass
class Flags:
    """What a server's command line says."""

    options: dict[str, str] = field(default_factory=dict)
    complete: bool = True
    """Whether every word was understood."""


def server_command(raw: Any) -> list[str] | None:
    """The words after the server's name; None when the command starts something else."""
    if raw is None:
        return []
    words = [scalar_text(item) for item in raw] if isinstance(raw, list) else _words(str(raw))
    if len(words) == 3 and words[0] in _SHELLS and words[1].startswith("-") and "c" in words[1]:
        words = _words(words[2])
    if words[:1] == ["exec"]:
        words = words[1:]
    if any(word in ("&&", "||", ";", "|", ">", ">>") or word.endswith(";") for word in words):
        return None
    while words and words[0] in _SERVERS:
        words = words[1:]
    return words if not words or words[0].startswith("-") or ("/" in words[0] and words[0].endswith(".conf")) else None


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def parse_flags(words: list[str], *, short_c: bool) -> Flags:
    """`--name value…`, `--name=value` and, for PostgreSQL, `-c name=value`."""
    flags = Flags()
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if short_c and word.startswith("-c") and not word.startswith("--"):
            setting = word[2:] or (words[at] if at < len(words) else "")
            at += 0 if word[2:] else 1
            name, _, value = setting.partition("=")
            flags.options[name.strip()] = value.strip()
        elif word.startswith("--") and len(word) > 2:
            name, mark, value = word[2:].partition("=")
            if not mark:
                values = []
                while at < len(words) and not (words[at].startswith("--") or (short_c and words[at].startswith("-c"))):
                    values.append(words[at])
                    at += 1
                value = " ".join(values) if values else "yes"
            flags.options[name.replace("-", "_") if short_c else name] = value
        else:
            flags.complete = False
    return flags


class AddOns:
    """Makes an add-on of each service whose image is known."""

    def __init__(self, values: Values) -> None:
        self.values = values

    def make(self, service: Fields, engine: Engine, aliases: tuple[str, ...], title: str) -> AddOn:
        """The add-on of one service."""
        image = service.resolved(service.data.get("image"))
        env: dict[str, Any] = service.data.get("environment") or {}
        words = server_command(service.data.get("command")) or []
        flags = parse_flags(words, short_c=engine.kind == "postgres")
        makers: dict[str, Callable[..., dict[str, Any]]] = {
            "postgres": self._postgres,
            "redis": self._redis,
            "mariadb": self._mysql,
            "temporal": self._temporal,
        }
        fields = makers[engine.kind](service, engine, env, flags)
        limits = service.inner("deploy").inner("resources").inner("limits")
        common: dict[str, Any] = {
            "title": title,
            "aliases": aliases,
            "image": image,
            "version": version_of(image, engine),
            "memory": (service.size("mem_limit") or limits.size("memory")) or None,
            "command": None if flags.complete else service.command("command"),
            "env": self.values.env({key: value for key, value in env.items() if not self._held(key, value)}),
            "parameters": {name: service.resolved(value) for name, value in flags.options.items()},
            "extensions": _rest(service.data),
        }
        if init := _init_files(service):
            common["extensions"] = {**common["extensions"], "init": list(init)}
        kinds: dict[str, type[Postgres | Redis | MariaDB | Temporal]] = {
            "postgres": Postgres,
            "redis": Redis,
            "mariadb": MariaDB,
            "temporal": Temporal,
        }
        return kinds[engine.kind](**{**common, **fields})

    def credentials(self, service: Fields, engine: Engine, name: str) -> Iterator[tuple[str, Credential]]:
        """Variables of the project that hold a credential of the add-on, and nothing else."""
        addon = self.make(service, engine, (), "")
        env: dict[str, Any] = service.data.get("environment") or {}
        properties: tuple[tuple[AddOnProperty, tuple[str, ...]], ...] = (("user", _USER), ("database", _DATABASE))
        for key, wanted in properties:
            for variable in (env[one] for one in wanted if isinstance(env.get(one), str)):
                parts = parse_template(variable)
                if len(parts) == 1 and isinstance(parts[0], Variable):
                    yield parts[0].name, Credential(FromAddOn(addon=name, property=key), service.resolved(variable))
        password = getattr(addon, "password", None)
        if isinstance(password, SecretValue) and not password.required and password.default is None and password.name:
            yield password.name, Credential(FromAddOn(addon=name, property="password"), "")

    @staticmethod
    def _held(key: str, raw: Any) -> bool:
        """Whether a field of the add-on says all that the variable says: a templated user or database stays beside it."""
        if key in _PASSWORD or key in _ROOT:
            return True
        return key in CREDENTIALS and "$" not in scalar_text(raw)

    def _text(self, service: Fields, env: dict[str, Any], names: tuple[str, ...]) -> str:
        return next((service.resolved(env[name]) for name in names if env.get(name) not in (None, "")), "")

    def _secret(self, env: dict[str, Any], names: tuple[str, ...]) -> EnvValue | None:
        for name in names:
            if name not in env:
                continue
            value = SecretValue(required=False) if env[name] is None else self.values.value(name, scalar_text(env[name]))
            if isinstance(value, SecretValue) and not value.name:
                return value.model_copy(update={"name": name})
            return None if isinstance(value, PlainValue) and not value.value else value
        return None

    def _postgres(self, service: Fields, engine: Engine, env: dict[str, Any], _: Flags) -> dict[str, Any]:
        user = self._text(service, env, _USER) or "postgres"
        return {
            "user": user,
            "database": self._text(service, env, _DATABASE) or user,
            "password": self._secret(env, _PASSWORD),
            "extensions_wanted": engine.extensions,
        }

    def _mysql(self, service: Fields, engine: Engine, env: dict[str, Any], _: Flags) -> dict[str, Any]:
        return {
            "flavour": engine.flavour,
            "user": self._text(service, env, _USER),
            "database": self._text(service, env, _DATABASE),
            "password": self._secret(env, _PASSWORD),
            "root_password": self._secret(env, _ROOT),
        }

    def _redis(self, service: Fields, _: Engine, env: dict[str, Any], flags: Flags) -> dict[str, Any]:
        raw = flags.options.pop("requirepass", None)
        if raw and raw.startswith("$$") and raw[2:].strip("{}") in env:
            password = self._secret(env, (raw[2:].strip("{}"),))
        elif raw:
            password = self._secret({"REDIS_PASSWORD": raw}, ("REDIS_PASSWORD",))
        else:
            password = self._secret(env, _PASSWORD)
        result: dict[str, Any] = {"password": password}
        policy = service.resolved(flags.options.get("maxmemory-policy", ""))
        if policy in Redis.model_fields["eviction"].annotation.__args__:  # type: ignore[union-attr]
            flags.options.pop("maxmemory-policy", None)
            result["eviction"] = policy
        if flags.options.get("appendonly") in ("yes", "no"):
            result["persistence"] = flags.options.pop("appendonly") == "yes"
        if "save" in flags.options:
            result.setdefault("persistence", bool(flags.options.pop("save").strip("\"' ")))
            flags.options.pop("save", None)
        limit = parsed_size(service.resolved(flags.options.get("maxmemory", "")))
        if limit:
            flags.options.pop("maxmemory")
            result["memory"] = limit
        return result

    def _temporal(self, service: Fields, _: Engine, env: dict[str, Any], __: Flags) -> dict[str, Any]:
        return {"namespace": self._text(service, env, ("DEFAULT_NAMESPACE",)) or "default"}


def _rest(data: dict[str, Any]) -> dict[str, Any]:
    """What an add-on's service says beyond its fields: kept, and written back."""
    kept = {key: value for key, value in data.items() if key not in _TYPED and value is not None}
    if _only_memory(kept.get("deploy")):
        kept.pop("deploy")
    result: dict[str, Any] = {"compose": kept} if kept else {}
    if data.get("volumes"):
        result["volumes"] = data["volumes"]
    return result


def _only_memory(deploy: Any) -> bool:
    """Whether `deploy` says nothing but the memory limit, which is a field."""
    if not isinstance(deploy, dict) or set(deploy) != {"resources"}:
        return False
    resources = deploy["resources"]
    return isinstance(resources, dict) and set(resources) == {"limits"} and set(resources["limits"] or ()) == {"memory"}


def _init_files(service: Fields) -> tuple[str, ...]:
    """Files and folders of the source that an empty database is filled from."""
    found = []
    for volume in service.data.get("volumes") or ():
        if isinstance(volume, dict):
            source, target = str(volume.get("source") or ""), str(volume.get("target") or "")
        else:
            mount = Mount.of(split_volume(str(volume)))
            source, target = mount.source, mount.target
        if target.startswith(_INIT_FOLDER) and source.startswith("."):
            found.append(source)
    return tuple(found)


def parsed_size(text: str) -> int | None:
    """A size as Redis writes it (`64mb`, `1gb`, bytes); None when it is none."""
    try:
        return int(parse_size(text)) if text else None
    except (ValueError, OverflowError):
        return None
