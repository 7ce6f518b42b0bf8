"""Configuration of a service: which value each variable has, from the file, the vault, or another part of the project.

Precedence, highest first: set by a person (`homeport env set`), the service's own `env`, its env files, its env groups in the
order written backwards, and what Homeport itself tells (`PORT`, `HOST`, addresses of services) below all but the first two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

from homeport.deploys import external, rotation
from homeport.deploys.audit import ITSELF
from homeport.deploys.secrets import REFERENCE, SecretBook, SecretsMissing, is_internal
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
from homeport.model.errors import HomeportError
from homeport.model.release import PinnedSecret, Release
from homeport.model.service import Service
from homeport.model.spec import Spec
from homeport.store.secrets import SecretRow

MAX_REFERENCES = 16
"""How deep references may refer to references."""


class ReferenceBroken(HomeportError):
    """A variable refers to something that does not exist."""

    code = "reference-broken"


def declared(spec: Spec, service: Service) -> Env:
    """The variables a service has by the file: groups first, then its own on top."""
    env: Env = {}
    for name in service.env_groups:
        if (group := spec.env_groups.get(name)) is not None:
            env |= group.env
    return {**env, **service.env}


@dataclass
class Pins:
    """The vault entries that each service of a release uses."""

    by_service: dict[str, dict[str, PinnedSecret]] = field(default_factory=dict)
    unset_optional: list[str] = field(default_factory=list)
    """`service/KEY` that is optional and not set."""


Fetch = Callable[[ExternalValue], str]
"""Reads a value of an outside store."""


def pin(spec: Spec, services: Iterable[str], book: SecretBook, project: str, environment: str, *, fetch: Fetch | None = None) -> Pins:
    """Pin every vault entry that these services need, generating what is generated and fetching what outside stores keep.

    Raises SecretsMissing with all that is required and not set, and what `fetch` raises.
    """
    services = list(services)
    if fetch is not None:
        _take_over(spec, services, book, project, environment, fetch)
    return _select(spec, services, book, project, environment, dry=False)


def preview(spec: Spec, services: Iterable[str], book: SecretBook, project: str, environment: str) -> Pins:
    """What `pin` would choose, as far as it is known: nothing is generated, fetched or missed."""
    return _select(spec, list(services), book, project, environment, dry=True)


def _take_over(spec: Spec, services: list[str], book: SecretBook, project: str, environment: str, fetch: Fetch) -> None:
    """Seal what outside stores keep as new versions, once all of it is there; what a person set for the same variable stays above it."""
    known = book.names(project, environment)
    fetched: dict[str, tuple[str, str]] = {}
    for name in services:
        for key, value in declared(spec, spec.services[name]).items():
            for entry, inner in _vault_entries(spec, name, key, value):
                bare = entry.rpartition("/")[2]
                by_hand = any(known[e].source != "external" for e in (entry, bare, f"{name}/{bare}") if e in known)
                if isinstance(inner, ExternalValue) and entry not in fetched and not by_hand:
                    note = f"{inner.store}: {inner.path}" + (f"#{inner.key}" if inner.key else "")
                    fetched[entry] = fetch(inner), note
    for entry, (text, note) in fetched.items():
        book.set(project, environment, entry, text, by=ITSELF.name, origin=ITSELF.origin, source="external", note=note)


def _select(spec: Spec, services: list[str], book: SecretBook, project: str, environment: str, *, dry: bool) -> Pins:
    rows = rotation.current(book.names(project, environment), datetime.now(UTC))
    known = {name: row for name, row in rows.items() if row.source != REFERENCE}
    owned = _owned_keys(spec)
    pins, missing = Pins(), {}
    for name in services:
        service = spec.services[name]
        mine: dict[str, PinnedSecret] = {}
        variables = declared(spec, service)
        for key, value in variables.items():
            for entry, inner in _vault_entries(spec, name, key, value):
                scoped = f"{name}/{entry}"
                found = scoped if scoped in known else entry if entry in known else ""
                if isinstance(inner, GeneratedValue) and not found:
                    if dry:
                        continue
                    version = book.generate(project, environment, entry, inner)
                    mine[entry] = PinnedSecret(name=entry, version=version)
                elif found:
                    mine[entry] = PinnedSecret(name=found, version=known[found].version)
                elif isinstance(inner, ExternalValue) or (isinstance(inner, SecretValue) and inner.default is None and inner.required):
                    missing[entry] = inner.description
                elif isinstance(inner, SecretValue) and inner.default is None:
                    pins.unset_optional.append(scoped)
        for entry, row in sorted(known.items(), key=_strength):
            scope, _, key = entry.rpartition("/")
            applies = scope == name or (not scope and (key in variables or key not in owned))
            if row.source == rotation.PREVIOUS:  # goes with the value it was
                now = entry.removesuffix(rotation.SUFFIX)
                applies = scope in ("", name) and any(pinned.name == now for pinned in mine.values())
            if applies and key not in mine and not is_internal(entry):
                mine[key] = PinnedSecret(name=entry, version=row.version, until=rotation.until_of(row))
        pins.by_service[name] = mine
    if missing and not dry:
        raise SecretsMissing(missing, environment)
    return pins


def _strength(item: tuple[str, SecretRow]) -> tuple[bool, bool, bool, str]:
    """Sorts values for the same variable: set by a person before made or fetched, of one service before of all; former values last."""
    entry, row = item
    return row.source == rotation.PREVIOUS, row.source in ("generated", "external"), "/" not in entry, entry


def _owned_keys(spec: Spec) -> set[str]:
    """Keys that some service or group declares: a value set for such a key goes only to those that declare it."""
    keys = {key for group in spec.env_groups.values() for key in group.env}
    return keys | {key for service in spec.services.values() for key in service.env}


def _vault_entries(spec: Spec, service: str, key: str, value: EnvValue) -> list[tuple[str, EnvValue]]:
    """The vault entries behind one variable, with the recipe of each."""
    if isinstance(value, SecretValue):
        return [(value.name or key, value)]
    if isinstance(value, HostValue):
        return [(value.name, SecretValue(required=False, default=value.default or ""))]
    if isinstance(value, GeneratedValue | ExternalValue):
        if isinstance(value, GeneratedValue) and value.scope:
            return [(value.scope, value)]
        in_group = any(key in spec.env_groups[g].env for g in spec.services[service].env_groups if g in spec.env_groups)
        own = key in spec.services[service].env
        return [(f"{service}/{key}" if own or not in_group else key, value)]
    if isinstance(value, Template):
        return [entry for number, part in enumerate(value.parts) for entry in _vault_entries(spec, service, f"{key}.{number}", part)]
    if isinstance(value, FromGroup):
        inner = spec.env_groups[value.group].env.get(value.key) if value.group in spec.env_groups else None
        return _vault_entries(spec, service, value.key, inner) if inner is not None else []
    if isinstance(value, FromAddOn) and (outside := external.find(spec, value.addon)) is not None:
        return _vault_entries(spec, service, external.url_key(outside[0]), external.url_value(*outside))
    return []


@dataclass(frozen=True)
class Surroundings:
    """What references resolve to: answers for services and add-ons of the same environment."""

    service: Callable[[str, str], str | None]
    """`(service, property)` to text."""
    addon: Callable[[str, str], str | None]
    """`(add-on, property)` to text."""
    provided: Callable[[str, str], str | None] = lambda _service, _key: None
    """`(service, variable)` to what the service's platform gives it by itself."""


def environment_of(release: Release, service: str, book: SecretBook, around: Surroundings) -> dict[str, str]:
    """The complete variables of a service in a release, without `PORT` and `HOST`.

    Raises ReferenceBroken, SecretDoesNotOpen.
    """
    resolver = _Resolver(release, book, around)
    spec = release.spec
    values = {key: resolver.value(service, key, value, 0) for key, value in declared(spec, spec.services[service]).items()}
    for key, pinned in release.secrets.get(service, {}).items():
        if is_variable(key) and key not in _entry_only(spec, service):
            values[key] = resolver.open(pinned)
    return {key: value for key, value in values.items() if value is not None}


_PART = re.compile(r"\.\d+$")


def is_variable(entry: str) -> bool:
    """Whether a pinned entry is the variable of that name, and not a value of one service, of Homeport, or of a part of a text."""
    return "/" not in entry and not is_internal(entry) and not _PART.search(entry)


def _entry_only(spec: Spec, service: str) -> set[str]:
    """Vault entries that feed another variable and are no variable themselves."""
    entries: set[str] = set()
    variables = declared(spec, spec.services[service])
    for key, value in variables.items():
        entries |= {entry for entry, _ in _vault_entries(spec, service, key, value) if entry != key}
    return entries - set(variables)


class _Resolver:
    def __init__(self, release: Release, book: SecretBook, around: Surroundings) -> None:
        self.release, self.around = release, around
        pins = [pin for mine in release.secrets.values() for pin in mine.values()]
        self.open = book.opener(release.project, release.environment, pins)

    def value(self, service: str, key: str, value: EnvValue, depth: int) -> str | None:
        if depth > MAX_REFERENCES:
            raise _broken(service, key, "it refers to itself through other variables")
        if isinstance(value, PlainValue):
            return value.value
        if isinstance(value, SecretValue | GeneratedValue | HostValue | ExternalValue):
            return self._vault(service, key, value)
        if isinstance(value, FromService):
            return self._from_service(service, key, value, depth)
        if isinstance(value, FromAddOn):
            outside = external.find(self.release.spec, value.addon)
            if outside is not None:
                url = self.value(service, external.url_key(outside[0]), external.url_value(*outside), depth + 1)
                found = external.property_of(url, value.property) if url is not None else None
            else:
                found = self.around.addon(value.addon, value.property)
            if found is None:
                raise _broken(service, key, f"there is no {value.property} of an add-on {value.addon!r}")
            return found
        if isinstance(value, FromGroup):
            group = self.release.spec.env_groups.get(value.group)
            if group is None or value.key not in group.env:
                raise _broken(service, key, f"there is no {value.key!r} in an env group {value.group!r}")
            return self.value(service, value.key, group.env[value.key], depth + 1)
        return self._joined(service, key, value, depth)

    def _joined(self, service: str, key: str, value: Template, depth: int) -> str:
        text = ""
        for number, part in enumerate(value.parts):
            if isinstance(part, FromAddOn) and part.property in ("host", "hostport") and text.endswith("://"):
                text += self._login(part.addon)
            text += self.value(service, f"{key}.{number}", part, depth + 1) or ""
        return text

    def _login(self, addon: str) -> str:
        """`user:password@` for an address that names an add-on and nobody: inside a container network that was enough, here it is not."""
        user, password = (self.around.addon(addon, wanted) or "" for wanted in ("user", "password"))
        return f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""

    def _vault(self, service: str, key: str, value: SecretValue | GeneratedValue | HostValue | ExternalValue) -> str | None:
        pins = self.release.secrets.get(service, {})
        for entry, _ in _vault_entries(self.release.spec, service, key, value):
            if (pinned := pins.get(entry)) is not None:
                return self.open(pinned)
        if isinstance(value, HostValue):
            return self.around.provided(service, value.name) or value.default
        return value.default if isinstance(value, SecretValue) else None

    def _from_service(self, service: str, key: str, value: FromService, depth: int) -> str | None:
        spec = self.release.spec
        target = (
            value.service
            if value.service in spec.services
            else next((n for n, s in spec.services.items() if value.service in s.aliases), "")
        )
        if value.variable is not None:
            inner = declared(spec, spec.services[target]).get(value.variable) if target else None
            pinned = self.release.secrets.get(target, {}).get(value.variable)
            if pinned is not None:
                return self.open(pinned)
            if inner is None:
                told = self.around.provided(target, value.variable) if target else None
                if told is None:
                    raise _broken(service, key, f"there is no variable {value.variable!r} of a service {value.service!r}")
                return told
            return self.value(target, value.variable, inner, depth + 1)
        found = self.around.service(target or value.service, value.property or "hostport") if target else None
        if found is None and value.service in spec.addons:
            found = self.around.addon(value.service, _addon_property(value.property))
        if found is None:
            raise _broken(service, key, f"there is no {value.property} of a service {value.service!r}")
        return found


def _addon_property(name: str | None) -> str:
    return {"public-url": "url", "public-host": "host", None: "hostport"}.get(name, name or "hostport")


def _broken(service: str, key: str, why: str) -> ReferenceBroken:
    return ReferenceBroken(
        what="Nothing was changed; what runs keeps running.",
        why=f"services.{service}.env.{key}: {why}.",
        fix="Name a service, add-on or env group of this project, or set the value with `homeport env set`.",
    )
