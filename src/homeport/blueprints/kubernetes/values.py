"""Variables as Kubernetes has them: plain ones in a ConfigMap, secrets by reference, composed ones by `$(NAME)`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from homeport.blueprints.kubernetes.names import Objects, addon_value
from homeport.blueprints.manifests import VARIABLE, escape
from homeport.model.env import (
    Env,
    EnvValue,
    ExternalValue,
    FromAddOn,
    FromGroup,
    FromService,
    GeneratedValue,
    HostValue,
    PlainValue,
    SecretValue,
    Template,
)
from homeport.model.reading import show_path
from homeport.model.service import Listening, Service

DEFAULT_PORT = 8080
"""Told to a program as `PORT` when the file leaves the choice to the platform."""
MAX_DEPTH = 8
"""How deep variables may refer to variables of other services."""


@dataclass
class Variables:
    """The environment of one container."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    plain: dict[str, str] = field(default_factory=dict)
    """For the service's own ConfigMap."""
    sources: list[dict[str, Any]] = field(default_factory=list)


def port_of(service: Service) -> int | None:
    """The port a service answers on; None for one that does not listen."""
    if isinstance(service, Listening):
        return service.port or DEFAULT_PORT
    return DEFAULT_PORT if service.kind == "static" else None


class Values:
    """Turns variables into entries; `says` is told what the cluster would not do, `fine` what it does by other words."""

    def __init__(self, objects: Objects) -> None:
        self.objects, self.spec = objects, objects.spec
        self.losses: list[tuple[str, str]] = []
        self.fine: set[str] = set()
        self.keys: dict[str, dict[str, str]] = {}
        """By Secret, each key that has to exist, and what it is for."""
        self._known: dict[str, Variables] = {}

    def of(self, name: str, service: Service) -> Variables:
        """The environment of a service, groups below its own variables."""
        if name not in self._known:
            self._known[name] = self._read(name, service)
        return self._known[name]

    def _read(self, name: str, service: Service) -> Variables:
        found = Variables()
        for group in service.env_groups:
            if group not in self.spec.env_groups:
                self.losses.append((f"services.{name}.env_groups", f"there is no env group {group[:60]!r}"))
                continue
            found.sources.append({"configMapRef": {"name": self.objects.groups[group]}})
        if service.env_groups and any(ref.get("configMapRef") for ref in found.sources):
            for key, (group, value) in self._from_groups(service).items():
                self._add(found, show_path(("env_groups", group, "env", key)), key, value, name, secret=self.objects.groups[group])
        for key, value in service.env.items():
            if isinstance(value, PlainValue) and VARIABLE.fullmatch(key):
                found.plain[key] = value.value
            else:
                self._add(found, show_path(("services", name, "env", key)), key, value, name)
        if found.plain:
            found.sources.append({"configMapRef": {"name": self.objects.services[name]}})
        port = port_of(service)
        if port is not None and not any("PORT" in env for env in (service.env, *(self._group(g) for g in service.env_groups))):
            found.entries.insert(0, {"name": "PORT", "value": str(port)})
        return found

    def _group(self, name: str) -> Env:
        return self.spec.env_groups[name].env if name in self.spec.env_groups else {}

    def _from_groups(self, service: Service) -> dict[str, tuple[str, EnvValue]]:
        """Values of groups that cannot stand in the group's ConfigMap, the last group first in rank."""
        found: dict[str, tuple[str, EnvValue]] = {}
        for group in service.env_groups:
            for key, value in self._group(group).items():
                found.pop(key, None)
                if not isinstance(value, PlainValue) and key not in service.env:
                    found[key] = (group, value)
        return found

    def _add(self, found: Variables, path: str, key: str, value: EnvValue, service: str, *, secret: str = "") -> None:
        if not VARIABLE.fullmatch(key):
            self.losses.append((path, "Kubernetes takes no variable of this name"))
            return
        if isinstance(value, FromGroup) and (inner := self._group(value.group).get(value.key)) is not None:
            secret = self.objects.groups[value.group]
            if isinstance(inner, PlainValue) and VARIABLE.fullmatch(value.key):
                found.entries.append({"name": key, "valueFrom": {"configMapKeyRef": {"name": secret, "key": value.key}}})
                self.fine.add(path)
                return
            if isinstance(inner, SecretValue) and not inner.name:
                value = inner.model_copy(update={"name": value.key})
        resolved = self.resolve(value, "" if secret else service, key)
        if resolved is None:
            self.losses.append((path, self._why(value)))
            return
        self._explain(path, value)
        found.entries += self._entries(key, resolved, service, secret)

    def _explain(self, path: str, value: EnvValue) -> None:
        if isinstance(value, GeneratedValue):
            how = f"openssl rand -{'hex' if value.format == 'hex' else 'base64'} {value.bytes}"
            self.losses.append((path, f"Kubernetes generates no values: put one into the Secret yourself (`{how}`)"))
        elif isinstance(value, HostValue):
            self.losses.append((path, "nobody's own environment is passed on: the default is written, or a key of the Secret"))
        elif isinstance(value, ExternalValue):
            self.losses.append((path, "the cluster asks no outside store: put the value into the Secret, or let External Secrets write it"))
        elif isinstance(value, SecretValue) and value.default is not None:
            self.losses.append((path, "a reference to a Secret has no default: put the value into the Secret"))
        else:
            self.fine.add(path)

    @staticmethod
    def _why(value: EnvValue) -> str:
        if isinstance(value, FromService) and value.property in ("public-url", "public-host"):
            return "the service it names has no domain of its own, and Kubernetes makes up none"
        return "what it refers to is not in this project"

    def resolve(self, value: EnvValue, service: str, key: str, depth: int = 0) -> EnvValue | None:
        """A value without references to services, groups or whole add-ons: text, Secret keys, and templates of both.
        `service` is empty for a value of an env group."""
        if depth > MAX_DEPTH:
            return None
        if isinstance(value, HostValue):
            return PlainValue(value=value.default) if value.default is not None else SecretValue(name=value.name, required=False)
        if isinstance(value, FromService):
            return self._from_service(value, depth)
        if isinstance(value, FromAddOn):
            return self._from_addon(value.addon, value.property)
        if isinstance(value, FromGroup):
            inner = self._group(value.group).get(value.key)
            return None if inner is None else self.resolve(inner, "", value.key, depth + 1)
        if isinstance(value, Template):
            parts = [self.resolve(part, service, f"{key}.{n}", depth + 1) for n, part in enumerate(value.parts)]
            return None if None in parts else _flat([part for part in parts if part is not None])
        if isinstance(value, GeneratedValue):
            return SecretValue(name=value.scope or (f"{service}.{key}" if service else key))
        if isinstance(value, ExternalValue):
            return SecretValue(description=f"{value.path} of {value.store}")
        return value

    def _from_addon(self, name: str, what: str) -> EnvValue | None:
        addon = self.spec.addons.get(name)
        return None if addon is None else addon_value(name, self.objects.addons[name], addon, what)

    def _from_service(self, value: FromService, depth: int) -> EnvValue | None:
        target = next((n for n, s in self.spec.services.items() if value.service in (n, *s.aliases)), None)
        if target is None:
            what = {"public-url": "url", "public-host": "host"}.get(value.property or "", value.property or "hostport")
            return self._from_addon(value.service, what)
        service = self.spec.services[target]
        if value.variable is not None:
            declared: Env = {}
            for group in service.env_groups:
                declared |= self._group(group)
            inner = {**declared, **service.env}.get(value.variable)
            return None if inner is None else self.resolve(inner, target, value.variable, depth + 1)
        text = self._property(target, service, value.property or "hostport")
        return None if text is None else PlainValue(value=text)

    def _property(self, name: str, service: Service, what: str) -> str | None:
        host, port = self.objects.services[name], port_of(service)
        domain = next((d.host for d in getattr(service, "domains", ()) if not d.redirect_to), None)
        if what == "host":
            return host
        if what == "public-host":
            return domain
        if what == "public-url":
            return domain and f"https://{domain}"
        if port is None:
            return None
        return {"port": str(port), "hostport": f"{host}:{port}"}.get(what, f"http://{host}:{port}")

    def _entries(self, key: str, value: EnvValue, service: str, secret: str) -> list[dict[str, Any]]:
        if isinstance(value, PlainValue):
            return [{"name": key, "value": escape(value.value)}]
        if not isinstance(value, Template):
            return [{"name": key, "valueFrom": {"secretKeyRef": self._secret(key, value, secret)}}]
        helpers: list[dict[str, Any]] = []
        text = ""
        for part in value.parts:
            if isinstance(part, PlainValue):
                text += escape(part.value, joined=True)
                continue
            helper = f"{key}__{len(helpers) + 1}"
            helpers += self._entries(helper, part, service, secret)
            text += f"$({helper})"
        return [*helpers, {"name": key, "value": text}]

    def _secret(self, key: str, value: EnvValue, secret: str) -> dict[str, Any]:
        if isinstance(value, FromAddOn):
            name, entry, optional = self.objects.addons[value.addon], str(value.property), False
            self.need(name, entry, f"{value.property} of {value.addon}")
        else:
            said = value if isinstance(value, SecretValue) else SecretValue()
            name, optional = secret or self.objects.secrets, not said.required
            entry = re.sub(r"[^-._a-zA-Z0-9]", "_", said.name or key)[:253] or "_"
            self.need(name, entry, said.description or key)
        return {"name": name, "key": entry} | ({"optional": True} if optional else {})

    def need(self, secret: str, key: str, what: str) -> None:
        """Remember that a Secret must have a key."""
        self.keys.setdefault(secret, {}).setdefault(key, what)


def _flat(parts: list[EnvValue]) -> EnvValue:
    """Parts joined: templates in templates opened, neighbouring texts made one; text alone is a plain value."""
    flat: list[EnvValue] = []
    for part in parts:
        for inner in part.parts if isinstance(part, Template) else (part,):
            if isinstance(inner, PlainValue) and flat and isinstance(flat[-1], PlainValue):
                flat[-1] = PlainValue(value=flat[-1].value + inner.value)
            else:
                flat.append(inner)
    if not flat:
        return PlainValue(value="")
    return flat[0] if len(flat) == 1 and isinstance(flat[0], PlainValue) else Template(parts=tuple(flat))
