"""Variables as Cloud Run has them: plain values, and whole secrets of Secret Manager. Nothing is put together at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from homeport.blueprints.cloudrun.names import RESERVED, secret_id
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
from homeport.model.service import Service
from homeport.model.spec import Spec

MAX_DEPTH = 8


class Variables:
    """Resolves what can be known before anything runs."""

    def __init__(self, spec: Spec, loss: Callable[[str, str], None]) -> None:
        self.spec, self.loss = spec, loss

    def declared(self, service: Service) -> Env:
        """The variables of a service: its groups first, its own on top."""
        env: Env = {}
        for group in service.env_groups:
            env |= self.spec.env_groups[group].env if group in self.spec.env_groups else {}
        return {**env, **service.env}

    def entries(self, name: str, service: Service) -> list[dict[str, Any]]:
        """The `env` of a container."""
        found: list[dict[str, Any]] = []
        for key, value in self.declared(service).items():
            path = show_path(("services", name, "env", key))
            if key in RESERVED or key.startswith("X_GOOGLE_") or not key or "=" in key:
                self.loss(path, "Cloud Run sets this variable itself, or takes none of this name")
                continue
            resolved = self.resolve(name if key in service.env else "", key, value)
            if isinstance(resolved, PlainValue):
                found.append({"name": key, "value": resolved.value})
            elif resolved is None:
                self.loss(path, "an address that Google gives when it creates the resource: set it afterwards")
                continue
            else:
                version = self._version(service, key)
                found.append({"name": key, "valueFrom": {"secretKeyRef": {"name": resolved.name or secret_id(key), "key": version}}})
            self._explain(path, key, value, resolved)
        return found

    @staticmethod
    def _version(service: Service, key: str) -> str:
        kept = service.extensions.get("cloudrun")
        versions = kept.get("versions") if isinstance(kept, dict) else None
        return str(versions.get(key, "latest")) if isinstance(versions, dict) else "latest"

    def _explain(self, path: str, key: str, value: EnvValue, resolved: PlainValue | SecretValue) -> None:
        if isinstance(resolved, PlainValue):
            if not isinstance(value, PlainValue):
                self.loss(path, "written as plain text: it no longer follows what it refers to")
            return
        name = resolved.name or secret_id(key)
        if isinstance(value, GeneratedValue):
            self.loss(path, f"nothing is generated: put a random value into the secret {name} (`openssl rand -base64 {value.bytes}`)")
        elif not isinstance(value, SecretValue):
            self.loss(path, f"nothing is put together at run time: store the whole value in the secret {name}")
        elif not value.required or value.default is not None:
            self.loss(path, f"the secret {name} has to exist: there are no optional ones and no defaults")

    def resolve(self, service: str, key: str, value: EnvValue, depth: int = 0) -> PlainValue | SecretValue | None:
        """Text, a secret, or None for what is only known once it runs. `service` is empty for a value of an env group."""
        if depth > MAX_DEPTH:
            return None
        if isinstance(value, PlainValue):
            return value
        if isinstance(value, SecretValue):
            return (
                value.model_copy(update={"name": secret_id(value.name)})
                if value.name
                else SecretValue(name="" if secret_id(key) == key else secret_id(key))
            )
        if isinstance(value, GeneratedValue):
            return SecretValue(name=secret_id(value.scope or "-".join(filter(None, (service, key)))))
        if isinstance(value, ExternalValue):
            return SecretValue(name="" if secret_id(key) == key else secret_id(key))
        if isinstance(value, HostValue):
            return PlainValue(value=value.default) if value.default is not None else SecretValue(name=secret_id(value.name))
        if isinstance(value, FromGroup):
            inner = self.spec.env_groups[value.group].env.get(value.key) if value.group in self.spec.env_groups else None
            return None if inner is None else self._named(value.key, self.resolve("", value.key, inner, depth + 1))
        if isinstance(value, FromAddOn):
            return SecretValue(name=secret_id(f"{self.spec.name}-{value.addon}-{value.property}"))
        if isinstance(value, FromService):
            return self._from_service(value, depth)
        return self._joined(service, key, value, depth)

    @staticmethod
    def _named(key: str, value: PlainValue | SecretValue | None) -> PlainValue | SecretValue | None:
        return value.model_copy(update={"name": secret_id(key)}) if isinstance(value, SecretValue) and not value.name else value

    def _from_service(self, value: FromService, depth: int) -> PlainValue | SecretValue | None:
        target = next((n for n, s in self.spec.services.items() if value.service in (n, *s.aliases)), None)
        if target is None:
            return SecretValue(name=secret_id(f"{self.spec.name}-{value.service}-url")) if value.service in self.spec.addons else None
        other = self.spec.services[target]
        if value.variable is not None:
            inner = self.declared(other).get(value.variable)
            return None if inner is None else self._named(value.variable, self.resolve(target, value.variable, inner, depth + 1))
        domain = next((d.host for d in getattr(other, "domains", ()) if not d.redirect_to), None)
        if domain is None or value.property not in ("public-url", "public-host", "url", "host"):
            return None
        return PlainValue(value=domain if value.property in ("public-host", "host") else f"https://{domain}")

    def _joined(self, service: str, key: str, value: Template, depth: int) -> PlainValue | SecretValue | None:
        parts = [self.resolve(service, f"{key}.{n}", part, depth + 1) for n, part in enumerate(value.parts)]
        texts = [part.value for part in parts if isinstance(part, PlainValue)]
        if len(texts) == len(parts):
            return PlainValue(value="".join(texts))
        return None if None in parts else SecretValue(name=secret_id(f"{self.spec.name}-{service}-{key}"))
