"""Names and labels of the objects that Homeport writes, and how an add-on is reached."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from homeport.model.addon import AddOn, External, MariaDB, Postgres, Redis, Temporal
from homeport.model.base import slug
from homeport.model.env import EnvValue, FromAddOn, PlainValue, Template
from homeport.model.spec import Spec

PART_OF = "app.kubernetes.io/part-of"
NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "app.kubernetes.io/managed-by"
OWNER = "homeport"
GROUP = "homeport.dev/env-group"
"""Annotation of a ConfigMap that holds an env group: the group's name."""
HOOK = "homeport.dev/hook"
"""Annotation of a Job that runs before (`release`) or once after (`first-deploy`) a service."""
SPEC = "homeport.dev/spec"
"""Annotation of the ConfigMap that keeps what Kubernetes has no field for: `patch` or `whole`."""
LONGEST = 52
"""Characters of an object's name: a CronJob's jobs and a StatefulSet's pods add up to eleven (63 is the limit of a label)."""
PORTS = {"postgres": 5432, "redis": 6379, "mariadb": 3306, "temporal": 7233}
DEFAULT_USER = "app"
IMAGES = {"postgres": "postgres:18", "redis": "valkey/valkey:9", "mariadb": "mariadb:11", "temporal": "temporalio/temporal:latest"}
VERSIONED = {"postgres": "postgres", "redis": "valkey/valkey", "mariadb": "mariadb", "temporal": "temporalio/temporal"}


def short(text: str, limit: int = LONGEST) -> str:
    """A valid object name of any text: RFC 1035 label, as a Service needs it; a long one is cut and marked with a digest."""
    name = slug(text)
    name = name if name[:1].isalpha() else f"x-{name}"
    if len(name) <= limit:
        return name
    return f"{name[: limit - 7].rstrip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


class Objects:
    """The object names of one project. A service and an add-on never share one."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._taken: set[str] = set()
        self.services = {name: self._claim(name) for name in spec.services}
        self.addons = {name: self._claim(name) for name in spec.addons}
        self.groups = {name: self._claim(f"group-{name}") for name in spec.env_groups}
        self.secrets = self._claim(f"{spec.name}-secrets")
        self.spec_map = self._claim(f"{spec.name}-homeport")

    def _claim(self, wanted: str) -> str:
        name, number = short(wanted), 2
        while name in self._taken:
            name, number = short(f"{wanted[:200]}-{number}"), number + 1
        self._taken.add(name)
        return name

    def free(self, name: str) -> bool:
        """Claim exactly this name; False when it is no object name or taken."""
        if name != short(name) or name in self._taken:
            return False
        self._taken.add(name)
        return True

    def labels(self, title: str, component: str, instance: str) -> dict[str, str]:
        return {NAME: title, INSTANCE: instance, COMPONENT: component, PART_OF: self.spec.name, MANAGED_BY: OWNER}

    def selector(self, instance: str) -> dict[str, str]:
        return {INSTANCE: instance, PART_OF: self.spec.name}


def metadata(name: str, labels: dict[str, str], annotations: dict[str, str] | None = None) -> dict[str, Any]:
    return {"name": name, "labels": labels} | ({"annotations": annotations} if annotations else {})


def addon_image(addon: AddOn) -> str:
    """The image that serves an add-on: its own, else the engine's at the wanted version."""
    if addon.image:
        return addon.image
    version = addon.version if re.fullmatch(r"[\w.-]+", addon.version) else ""
    if isinstance(addon, Postgres) and "vector" in addon.extensions_wanted:
        return f"pgvector/pgvector:pg{version.split('.')[0] or '18'}"
    if isinstance(addon, MariaDB) and addon.flavour == "mysql":
        return f"mysql:{version or '8.4'}"
    return f"{VERSIONED[addon.kind]}:{version}" if version else IMAGES[addon.kind]


def user_of(addon: AddOn) -> str:
    return (addon.user if isinstance(addon, Postgres | MariaDB) else "") or (DEFAULT_USER if isinstance(addon, Postgres | MariaDB) else "")


def database_of(addon: AddOn) -> str:
    return (addon.database if isinstance(addon, Postgres | MariaDB) else "") or user_of(addon)


def is_outside(addon: AddOn) -> bool:
    """Whether somebody else runs it: its values come from a Secret."""
    return isinstance(addon, External) or (isinstance(addon, Temporal) and bool(addon.address))


def addon_value(name: str, host: str, addon: AddOn, what: str) -> EnvValue:
    """What a property of an add-on is in the cluster: text, the password itself, or text around the password.

    Everything of an outside service, and a fixed one's password, comes from the Secret that is named after it."""
    if is_outside(addon):
        return FromAddOn.model_validate({"addon": name, "property": what})
    port = PORTS[addon.kind]
    texts = {"host": host, "port": str(port), "hostport": f"{host}:{port}", "user": user_of(addon), "database": database_of(addon)}
    if what in texts:
        return PlainValue(value=texts[what])
    password = FromAddOn(addon=name, property="password")
    if what == "password":
        return password
    if isinstance(addon, Temporal):
        return PlainValue(value=texts["hostport"])
    scheme = {"postgres": "postgresql", "redis": "redis"}.get(addon.kind, "mysql")
    tail = f"@{host}:{port}" + ("/0" if isinstance(addon, Redis) else f"/{database_of(addon)}")
    return Template(parts=(PlainValue(value=f"{scheme}://{user_of(addon)}:"), password, PlainValue(value=tail)))
