"""Variables as Terraform has them: text, references to other resources, and secrets whose values nobody writes down."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from homeport.blueprints.cloudrun.names import RESERVED, secret_id
from homeport.blueprints.terraform.hcl import Block, Joined, Ref, Value
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


@dataclass(frozen=True)
class Known:
    """A value in Terraform's words: the parts of a text; `secret` when one of them must not be seen."""

    parts: tuple[str | Ref, ...]
    secret: bool = False

    @property
    def value(self) -> Value:
        if all(isinstance(part, str) for part in self.parts):
            return "".join(str(part) for part in self.parts)
        return self.parts[0] if len(self.parts) == 1 else Joined(self.parts)


class Identifiers:
    """Names of resources and variables: each its own."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, str], str] = {}
        self._used: set[tuple[str, str]] = set()

    def of(self, kind: str, name: str) -> str:
        """The identifier of a thing; the same one each time."""
        if (kind, name) not in self._taken:
            base = re.sub(r"[^a-z0-9_]", "_", name.lower()).strip("_") or "x"
            base = base if base[0].isalpha() else f"x_{base}"
            found, number = base, 2
            while (kind, found) in self._used:
                found, number = f"{base}_{number}", number + 1
            self._used.add((kind, found))
            self._taken[kind, name] = found
        return self._taken[kind, name]


class Values:
    """Resolves variables, and collects the secrets and input variables that they need."""

    def __init__(self, spec: Spec, ids: Identifiers, addon: Callable[[str, str], Known | None], loss: Callable[[str, str], None]) -> None:
        self.spec, self.ids, self.addon, self.loss = spec, ids, addon, loss
        self.inputs: dict[str, str] = {}
        """Sensitive variables: identifier to what it is."""
        self.generated: dict[str, GeneratedValue] = {}
        self.secrets: dict[str, Known] = {}
        """By secret id, what its version holds."""
        self.used: dict[str, dict[str, None]] = {}
        """By service, the secrets that its variables come from."""
        self.at = ""
        """The service whose variables are being resolved."""
        self.edges: dict[str, set[str]] = {}
        """Which services refer to which."""

    def declared(self, service: Service) -> Env:
        """The variables of a service: its groups first, its own on top."""
        env: Env = {}
        for group in service.env_groups:
            env |= self.spec.env_groups[group].env if group in self.spec.env_groups else {}
        return {**env, **service.env}

    def blocks(self, name: str, service: Service) -> list[Block]:
        """The `env` blocks of a container."""
        found: list[Block] = []
        self.at = name
        for key, value in self.declared(service).items():
            path = show_path(("services", name, "env", key))
            if key in RESERVED or key.startswith("X_GOOGLE_") or not key or "=" in key:
                self.loss(path, "Cloud Run sets this variable itself, or takes none of this name")
                continue
            owner = name if key in service.env else ""
            known = self.resolve(owner, key, value)
            if known is None:
                self.loss(path, "what it refers to has no such address here, or would refer back to it")
                continue
            if isinstance(value, HostValue):
                self.loss(path, "nobody's own environment is passed on: the default is written, or a variable asks for it")
            if not known.secret:
                found.append(Block("env", attributes={"name": key, "value": known.value}))
                continue
            own = isinstance(value, FromAddOn | SecretValue | FromGroup | GeneratedValue | ExternalValue)
            ref = self._secret(name, self._secret_of(owner, key, value) if own else f"{name}-{key}", known)
            source = Block("value_source", blocks=[Block("secret_key_ref", attributes={"secret": ref, "version": "latest"})])
            found.append(Block("env", attributes={"name": key}, blocks=[source]))
            if isinstance(value, SecretValue) and (not value.required or value.default is not None):
                self.loss(path, "an input variable is asked for: there are no optional secrets, and no default is written down")
        return found

    def _secret_of(self, name: str, key: str, value: EnvValue) -> str:
        """A secret is shared by all that mean the same."""
        if isinstance(value, FromAddOn):
            return f"{value.addon}-{value.property}"
        if isinstance(value, FromGroup):
            inner = self.spec.env_groups[value.group].env.get(value.key) if value.group in self.spec.env_groups else None
            return self._secret_of("", value.key, inner) if inner is not None else value.key
        if isinstance(value, GeneratedValue):
            return value.scope or "-".join(filter(None, (name, key)))
        return (value.name if isinstance(value, SecretValue) else "") or key

    def _secret(self, service: str, name: str, known: Known) -> Ref:
        identifier = self.ids.of("secret", name)
        self.used.setdefault(service, {})[identifier] = None
        self.secrets.setdefault(name, known)
        return Ref(f"google_secret_manager_secret.{identifier}.secret_id")

    def resolve(self, service: str, key: str, value: EnvValue, depth: int = 0) -> Known | None:
        """A value in Terraform's words; None when there is no such thing. `service` is empty for a value of an env group."""
        if depth > MAX_DEPTH:
            return None
        if isinstance(value, PlainValue):
            return Known((value.value,))
        if isinstance(value, SecretValue):
            return self.input(value.name or key, value.description or key)
        if isinstance(value, ExternalValue):
            return self.input(key, f"{value.path} of {value.store}")
        if isinstance(value, HostValue):
            return Known((value.default,)) if value.default is not None else self.input(value.name, value.name)
        if isinstance(value, GeneratedValue):
            name = value.scope or "-".join(filter(None, (service, key)))
            first = self.generated.setdefault(name, value)
            return Known((Ref(self._random(name, first)),), secret=True)
        if isinstance(value, FromGroup):
            inner = self.spec.env_groups[value.group].env.get(value.key) if value.group in self.spec.env_groups else None
            return None if inner is None else self.resolve("", value.key, inner, depth + 1)
        if isinstance(value, FromAddOn):
            return self.addon(value.addon, value.property)
        if isinstance(value, FromService):
            return self._from_service(value, depth)
        return self._joined(service, key, value, depth)

    def input(self, name: str, what: str) -> Known:
        """An input variable that is asked for and never shown."""
        identifier = self.ids.of("variable", name)
        self.inputs.setdefault(identifier, what)
        return Known((Ref(f"var.{identifier}"),), secret=True)

    def _random(self, name: str, value: GeneratedValue) -> str:
        identifier = self.ids.of("random", name)
        if value.format == "uuid":
            return f"random_uuid.{identifier}.result"
        if value.format == "alphanumeric":
            return f"random_password.{identifier}.result"
        return f"random_bytes.{identifier}.{value.format}"

    def random_blocks(self) -> list[Block]:
        """The resources behind generated values."""
        found = []
        for name, value in self.generated.items():
            identifier = self.ids.of("random", name)
            if value.format == "uuid":
                found.append(Block("resource", ("random_uuid", identifier)))
            elif value.format == "alphanumeric":
                found.append(Block("resource", ("random_password", identifier), {"length": value.bytes, "special": False}))
            else:
                found.append(Block("resource", ("random_bytes", identifier), {"length": value.bytes}))
        return found

    def secret_blocks(self, account: str) -> list[Block]:
        """Secrets, their versions, and who may read them."""
        found = []
        taken: set[str] = set()
        for name, known in self.secrets.items():
            identifier = self.ids.of("secret", name)
            title = secret_id(f"{self.spec.name}-{name}")
            title = title if title not in taken else secret_id(f"{self.spec.name}-{identifier}"[:240] + f"-{len(taken)}")
            taken.add(title)
            resource = f"google_secret_manager_secret.{identifier}"
            replication = Block("replication", blocks=[Block("auto")])
            found.append(
                Block(
                    "resource",
                    ("google_secret_manager_secret", identifier),
                    {"secret_id": title, "depends_on": [Ref("google_project_service.apis")]},
                    [replication],
                )
            )
            version: dict[str, Value] = {"secret": Ref(f"{resource}.id"), "secret_data": known.value}
            found.append(Block("resource", ("google_secret_manager_secret_version", identifier), version))
            access: dict[str, Value] = {
                "secret_id": Ref(f"{resource}.id"),
                "role": "roles/secretmanager.secretAccessor",
                "member": Ref(f"{account}.member"),
            }
            found.append(Block("resource", ("google_secret_manager_secret_iam_member", identifier), access))
        return found

    def _from_service(self, value: FromService, depth: int) -> Known | None:
        target = next((n for n, s in self.spec.services.items() if value.service in (n, *s.aliases)), None)
        if target is None:
            what = {"public-url": "url", "public-host": "host"}.get(value.property or "", value.property or "hostport")
            return self.addon(value.service, what)
        other = self.spec.services[target]
        if value.variable is not None:
            inner = self.declared(other).get(value.variable)
            return None if inner is None else self.resolve(target, value.variable, inner, depth + 1)
        if other.kind not in ("web", "private", "static"):
            return None
        if value.property == "port":
            return Known(("443",))
        domain = next((d.host for d in getattr(other, "domains", ()) if not d.redirect_to), None)
        if domain is not None and value.property in ("public-url", "public-host"):
            return Known((domain if value.property == "public-host" else f"https://{domain}",))
        if not self._link(self.at, target):
            return None
        uri = f"google_cloud_run_v2_service.{self.ids.of('service', target)}.uri"
        if value.property in ("url", "public-url"):
            return Known((Ref(uri),))
        host = Ref(f'trimprefix({uri}, "https://")')
        return Known((host, ":443")) if value.property in ("hostport", None) else Known((host,))

    def _link(self, service: str, target: str) -> bool:
        """Remember that one service refers to another; False when that would close a circle, which Terraform refuses."""
        seen, stack = set(), [target]
        while stack:
            at = stack.pop()
            if at == service:
                return False
            if at not in seen:
                seen.add(at)
                stack += self.edges.get(at, ())
        self.edges.setdefault(service, set()).add(target)
        return True

    def _joined(self, service: str, key: str, value: Template, depth: int) -> Known | None:
        found = [self.resolve(service, f"{key}-{n}", part, depth + 1) for n, part in enumerate(value.parts)]
        parts: list[str | Ref] = []
        for known in found:
            if known is None:
                return None
            for part in known.parts:
                if isinstance(part, str) and parts and isinstance(parts[-1], str):
                    parts[-1] += part
                else:
                    parts.append(part)
        return Known(tuple(parts) or ("",), any(known is not None and known.secret for known in found))
