"""Add-ons in Compose's words: the image, its variables and its command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from homeport.blueprints.compose.values import Writer, escape, escaped, password_variable
from homeport.model.addon import AddOn, External, MariaDB, Postgres, Redis, Temporal
from homeport.model.base import format_size
from homeport.model.env import EnvValue, GeneratedValue

_IMAGES = {"postgres": "postgres", "redis": "valkey/valkey", "mariadb": "mariadb", "temporal": "temporalio/auto-setup"}
_DATA = {"postgres": "/var/lib/postgresql/data", "redis": "/data", "mariadb": "/var/lib/mysql"}
PORTS = {"postgres": 5432, "redis": 6379, "mariadb": 3306, "temporal": 7233}


class AddOnEmitter:
    """Writes one add-on as a service."""

    def __init__(
        self,
        values: Writer,
        env: Callable[[str, Mapping[str, EnvValue]], dict[str, str | None]],
        loss: Callable[[str, str], None],
        volumes: dict[str, Any],
    ) -> None:
        self.values, self.env, self.loss, self.volumes = values, env, loss, volumes

    def service(self, name: str, addon: AddOn) -> dict[str, Any]:
        kept = escaped(addon.extensions.get("compose") or {})
        if isinstance(addon, External):
            provider: dict[str, Any] = {"type": escape(addon.type)}
            if addon.extensions.get("options"):
                provider["options"] = escaped(addon.extensions["options"])
            self.loss(f"addons.{name}", f"Docker has no {addon.type}: it calls a provider program of that name")
            variables = {"environment": self.env(f"addons.{name}", addon.env)} if addon.env else {}
            return {"provider": provider, **variables, **kept}
        tag = addon.version or ("16" if addon.kind == "postgres" else "latest")
        if isinstance(addon, Postgres) and "vector" in addon.extensions_wanted and not addon.image:
            default = f"pgvector/pgvector:pg{tag}"
        elif isinstance(addon, MariaDB) and addon.flavour == "mysql":
            default = f"mysql:{tag}"
        else:
            default = f"{_IMAGES[addon.kind]}:{tag}"
        result: dict[str, Any] = {"image": escape(addon.image or default)}
        env = self._credentials(name, addon)
        if env:
            result["environment"] = env
        if command := self._server(addon):
            result["command"] = command
        if addon.memory:
            result["deploy"] = {"resources": {"limits": {"memory": format_size(addon.memory)}}}
        volumes = addon.extensions.get("volumes")
        if volumes:
            result["volumes"] = escaped(volumes)
        elif addon.kind in _DATA and "compose" not in addon.extensions and not addon.image:
            self.volumes.setdefault(f"{name}-data", {})
            result["volumes"] = [f"{name}-data:{_DATA[addon.kind]}"]
        result.setdefault("restart", "unless-stopped") if not addon.image else None
        taken = {addon.title or name, *(str(kept.get(key)) for key in ("container_name", "hostname"))}
        aliases = [alias for alias in addon.aliases if alias not in taken]
        if aliases and "networks" not in kept and "network_mode" not in kept:
            result["networks"] = {"default": {"aliases": aliases}}
        return {**result, **kept}

    def _credentials(self, name: str, addon: AddOn) -> dict[str, str | None]:
        prefix = {"postgres": "POSTGRES", "mariadb": "MARIADB", "redis": "REDIS"}.get(addon.kind, "")
        if isinstance(addon, MariaDB) and addon.flavour == "mysql":
            prefix = "MYSQL"
        if "bitnami" in addon.image and prefix == "POSTGRES":
            names = {"user": "POSTGRESQL_USERNAME", "database": "POSTGRESQL_DATABASE", "password": "POSTGRESQL_PASSWORD"}
        else:
            names = {
                "user": f"{prefix}_USER",
                "database": "POSTGRES_DB" if prefix == "POSTGRES" else f"{prefix}_DATABASE",
                "password": f"{prefix}_PASSWORD",
            }
        result: dict[str, str | None] = {}
        for field in ("user", "database"):
            text = getattr(addon, field, "")
            if text and names[field] not in addon.env:
                result[names[field]] = escape(text)
        password = getattr(addon, "password", None)
        if isinstance(addon, Postgres | MariaDB | Redis) and password is not None and (addon.kind != "redis" or "bitnami" in addon.image):
            result[names["password"]] = self.values.text(names["password"], password)
            if isinstance(password, GeneratedValue):
                self.loss(f"addons.{name}.password", "Docker makes no random values: set the variable in `.env`")
        elif isinstance(addon, Postgres) and not addon.image:
            result[names["password"]] = f"${{{password_variable(name)}:?set a password}}"
        root = getattr(addon, "root_password", None)
        if root is not None:
            result[f"{prefix}_ROOT_PASSWORD"] = self.values.text(f"{prefix}_ROOT_PASSWORD", root)
        elif isinstance(addon, MariaDB) and not addon.image:
            result[f"{prefix}_RANDOM_ROOT_PASSWORD"] = "yes"
        if isinstance(addon, Temporal) and addon.namespace != "default" and "DEFAULT_NAMESPACE" not in addon.env:
            result["DEFAULT_NAMESPACE"] = escape(addon.namespace)
        return {**result, **self.env(f"addons.{name}", addon.env)}

    def _server(self, addon: AddOn) -> Any:
        if addon.command:
            return escape(addon.command) if isinstance(addon.command, str) else [escape(word) for word in addon.command]
        words: list[str] = []
        for key, value in addon.parameters.items():
            words += (
                ["-c", escape(f"{key}={value}")]
                if addon.kind == "postgres"
                else [f"--{key}={escape(value)}"]
                if addon.kind == "mariadb"
                else [f"--{key}", escape(value)]
            )
        if isinstance(addon, Redis):
            words += ["--maxmemory-policy", addon.eviction] if addon.eviction else []
            words += ["--appendonly", "yes" if addon.persistence else "no"] if addon.persistence is not None else []
            if addon.password is not None and "bitnami" not in addon.image:
                words += ["--requirepass", self.values.text("REDIS_PASSWORD", addon.password) or ""]
        if not words:
            return None
        server = {"postgres": "postgres", "redis": "redis-server", "mariadb": "mysqld" if "mysql" in addon.image else "mariadbd"}
        if addon.kind == "redis" and (not addon.image or "valkey" in addon.image):
            return ["valkey-server", *words]
        return [server.get(addon.kind, "start"), *words]

    def interface(self, name: str, addon: AddOn) -> dict[str, Any]:
        if not isinstance(addon, Temporal) or not addon.ui:
            return {}
        kept = addon.extensions.get("ui")
        if isinstance(kept, dict):
            return dict(kept)
        title = addon.title or name
        return {f"{title}-ui": {"image": "temporalio/ui:latest", "environment": {"TEMPORAL_ADDRESS": f"{title}:7233"}, "ports": ["8080"]}}
