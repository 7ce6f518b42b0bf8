"""Add-ons as Google's managed databases: Cloud SQL and Memorystore, reached over a private network."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from homeport.blueprints.cloudrun.names import short
from homeport.blueprints.terraform.hcl import Block, Ref, Value
from homeport.blueprints.terraform.network import NETWORK
from homeport.blueprints.terraform.values import Identifiers, Known
from homeport.model.addon import AddOn, External, MariaDB, Postgres, Redis, Temporal
from homeport.model.spec import Spec

_POSTGRES = ("13", "14", "15", "16", "17", "18")
_MYSQL = {"5.7": "MYSQL_5_7", "8.0": "MYSQL_8_0", "8": "MYSQL_8_0", "8.4": "MYSQL_8_4"}


class Databases:
    """The managed databases of one project. `input` asks for a value that nobody here knows."""

    def __init__(self, spec: Spec, ids: Identifiers, loss: Callable[[str, str], None]) -> None:
        self.spec, self.ids, self.loss = spec, ids, loss
        self.input: Callable[[str, str], Known] = lambda name, what: Known((f"{name}: {what}",))

    @property
    def needed(self) -> bool:
        """Whether there is a database, and so a network."""
        return any(isinstance(addon, Postgres | MariaDB | Redis) for addon in self.spec.addons.values())

    def value(self, name: str, what: str) -> Known | None:
        """A property of an add-on."""
        addon = self.spec.addons.get(name)
        if addon is None:
            return None
        if isinstance(addon, External) or (isinstance(addon, Temporal) and not addon.address):
            return self.input(f"{name}-{what}", f"{what} of {name}")
        if isinstance(addon, Temporal):
            return _temporal(addon, what)
        if isinstance(addon, Redis):
            return self._redis_value(name, what)
        return self._sql_value(name, addon, what)

    def _redis_value(self, name: str, what: str) -> Known:
        base = f"google_redis_instance.{self.ids.of('redis', name)}"
        host, port, auth = Ref(f"{base}.host"), Ref(f"{base}.port"), Ref(f"{base}.auth_string")
        simple = {"host": Known((host,)), "port": Known((port,)), "hostport": Known((host, ":", port)), "user": Known(("default",))}
        simple |= {"database": Known(("0",)), "password": Known((auth,), secret=True)}
        return simple.get(what) or Known(("redis://:", auth, "@", host, ":", port, "/0"), secret=True)

    def _sql_value(self, name: str, addon: Postgres | MariaDB, what: str) -> Known:
        identifier = self.ids.of("sql", name)
        base = f"google_sql_database_instance.{identifier}"
        host, password = Ref(f"{base}.private_ip_address"), Ref(f"random_password.{self.ids.of('random', f'addon {name} password')}.result")
        user, database = Ref(f"google_sql_user.{identifier}.name"), Ref(f"google_sql_database.{identifier}.name")
        port = "5432" if isinstance(addon, Postgres) else "3306"
        simple = {"host": Known((host,)), "port": Known((port,)), "hostport": Known((host, f":{port}")), "user": Known((user,))}
        simple |= {"database": Known((database,)), "password": Known((password,), secret=True)}
        scheme = "postgresql" if isinstance(addon, Postgres) else "mysql"
        return simple.get(what) or Known((f"{scheme}://", user, ":", password, "@", host, f":{port}/", database), secret=True)

    def blocks(self) -> list[Block]:
        """The instances of all add-ons."""
        found: list[Block] = []
        for name, addon in self.spec.addons.items():
            if isinstance(addon, Postgres | MariaDB):
                found += self._sql(name, addon)
            elif isinstance(addon, Redis):
                found.append(self._redis(name, addon))
            elif isinstance(addon, Temporal):
                what = "it runs elsewhere: its address is written" if addon.address else "Google runs no Temporal: its values are asked for"
                self.loss(f"addons.{name}", what)
            else:
                self.loss(f"addons.{name}", "it runs elsewhere: its values are asked for")
        return found

    def _sql(self, name: str, addon: Postgres | MariaDB) -> list[Block]:
        identifier = self.ids.of("sql", name)
        instance = Ref(f"google_sql_database_instance.{identifier}.name")
        network: dict[str, Value] = {"ipv4_enabled": False, "private_network": Ref(f"{NETWORK}.id")}
        backup: dict[str, Value] = {"enabled": True}
        backup["point_in_time_recovery_enabled" if isinstance(addon, Postgres) else "binary_log_enabled"] = True
        settings = Block(
            "settings",
            attributes={
                "tier": Ref("var.database_tier"),
                "edition": "ENTERPRISE",
                "availability_type": "REGIONAL" if addon.high_availability else "ZONAL",
                "disk_size": max(10, math.ceil(addon.disk / (1 << 30))) if addon.disk else None,
                "disk_autoresize": addon.disk_autoscaling if addon.disk_autoscaling is not None else True,
            },
            blocks=[
                Block("ip_configuration", attributes=network),
                Block("backup_configuration", attributes=backup),
                *(Block("database_flags", attributes={"name": key, "value": value}) for key, value in addon.parameters.items()),
            ],
        )
        attributes: dict[str, Value] = {
            "name": short(f"{self.spec.name}-{name}", 80),
            "region": Ref("var.region"),
            "database_version": self._version(name, addon),
            "deletion_protection": True,
            "depends_on": [Ref("google_service_networking_connection.app")],
        }
        random = self.ids.of("random", f"addon {name} password")
        password = Ref(f"random_password.{random}.result")
        user = addon.user or "app"
        return [
            Block("resource", ("google_sql_database_instance", identifier), attributes, [settings]),
            Block("resource", ("google_sql_database", identifier), {"name": addon.database or user, "instance": instance}),
            Block("resource", ("random_password", random), {"length": 32, "special": False}),
            Block("resource", ("google_sql_user", identifier), {"name": user, "instance": instance, "password": password}),
        ]

    def _version(self, name: str, addon: Postgres | MariaDB) -> str:
        path = f"addons.{name}.version"
        if isinstance(addon, Postgres):
            major = addon.version.split(".")[0]
            if major and major not in _POSTGRES:
                self.loss(path, f"Cloud SQL has PostgreSQL {_POSTGRES[0]} to {_POSTGRES[-1]}: 17 is written")
            return f"POSTGRES_{major if major in _POSTGRES else '17'}"
        if addon.flavour == "mariadb":
            self.loss(f"addons.{name}.flavour", "Google runs MySQL, no MariaDB: MySQL 8.4 is written")
            return "MYSQL_8_4"
        wanted = re.match(r"\d+(?:\.\d+)?", addon.version)
        if wanted and wanted[0] not in _MYSQL:
            self.loss(path, "Cloud SQL has MySQL 5.7, 8.0 and 8.4: 8.4 is written")
        return _MYSQL.get(wanted[0] if wanted else "", "MYSQL_8_4")

    def _redis(self, name: str, addon: Redis) -> Block:
        configs: dict[str, Value] = {"maxmemory-policy": addon.eviction} if addon.eviction else {}
        if addon.parameters:
            self.loss(f"addons.{name}.parameters", "Memorystore takes few settings: add those it knows under `redis_configs`")
        attributes: dict[str, Value] = {
            "name": short(f"{self.spec.name}-{name}", 40),
            "region": Ref("var.region"),
            "tier": "STANDARD_HA" if addon.high_availability else "BASIC",
            "memory_size_gb": max(1, math.ceil((addon.memory or 1) / (1 << 30))),
            "redis_version": "REDIS_7_2",
            "auth_enabled": True,
            "authorized_network": Ref(f"{NETWORK}.id"),
            "connect_mode": "PRIVATE_SERVICE_ACCESS",
            "redis_configs": configs or None,
            "depends_on": [Ref("google_service_networking_connection.app")],
        }
        blocks = []
        if addon.persistence:
            blocks = [Block("persistence_config", attributes={"persistence_mode": "RDB", "rdb_snapshot_period": "ONE_HOUR"})]
        return Block("resource", ("google_redis_instance", self.ids.of("redis", name)), attributes, blocks)


def _temporal(addon: AddOn, what: str) -> Known | None:
    address = addon.address if isinstance(addon, Temporal) else ""
    host, _, port = address.rpartition(":")
    return {"host": Known((host,)), "port": Known((port,)), "hostport": Known((address,)), "url": Known((address,))}.get(what)
