"""Add-ons of an environment: provisioned from the release, known by every name the file gives them."""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from homeport.deploys import external
from homeport.deploys.secrets import SecretBook, SecretsMissing
from homeport.deploys.seeds import seeds_of
from homeport.deploys.vendor import storage
from homeport.drivers.addons.base import AddOnDriver, AddOnId, AddOnRequest, Credentials, Provisioned
from homeport.drivers.addons.postgres.engines import absent, major_of
from homeport.drivers.addons.records import Place
from homeport.model.addon import AddOn, External, Postgres, Temporal
from homeport.model.env import EnvValue, GeneratedValue, PlainValue, SecretValue
from homeport.model.errors import HomeportError
from homeport.model.release import Release
from homeport.model.spec import Spec
from homeport.store import Store

TEMPORAL_PORT = 7233
NAMED = {"password": "PASSWORD", "root_password": "ROOT_PASSWORD", "tls_certificate": "TLS_CERT", "tls_key": "TLS_KEY"}
"""Fields of definitions that may be named by a variable, with the end of the name they have without one."""
PASSWORD = GeneratedValue(format="alphanumeric", bytes=32)


class AddOnUnwell(HomeportError):
    """An external add-on that the file requires does not answer."""

    code = "addon-unwell"


class AddOnBook:
    """Keeps the add-ons that releases ask for."""

    def __init__(
        self,
        store: Store,
        secrets: SecretBook,
        drivers: Mapping[str, AddOnDriver],
        account: Callable[[], int | None] = lambda: None,
        *,
        home: Path | None = None,
    ) -> None:
        self.store, self.secrets, self.drivers, self.account, self.home = store, secrets, drivers, account, home
        self._provisioned: dict[str, Provisioned] = {}
        self.ask: Callable[[Release, str], external.Health] | None = None
        """Runs the health command of an external add-on; set by the keeper, who can run commands."""
        self._health: dict[tuple[str, str, str], external.Health] = {}
        self._lock = threading.Lock()

    def problems(self, spec: Spec, name: str) -> list[str]:
        """What this machine cannot give of an add-on, one sentence each."""
        definition = spec.addons[name]
        if isinstance(definition, External):
            return []
        driver = self.drivers.get(definition.kind)
        return list(driver.check(definition)) if driver else [f"{definition.kind} add-ons are not part of this version yet"]

    def notes(self, spec: Spec, name: str, environment: str) -> list[str]:
        """What this machine gives differently of an add-on, one sentence each."""
        definition = spec.addons[name]
        driver = self.drivers.get(definition.kind)
        id = AddOnId(project=spec.name, environment=environment, name=name)
        notes = list(driver.notes(definition)) if driver else []
        return notes + [text for text in self._other_version(id, definition) if not _said_absent(notes, definition)]

    def _other_version(self, id: AddOnId, definition: AddOn) -> list[str]:
        """That its data is of another version than the file says: a deploy never moves data."""
        record = Place(self.home, id).read() if self.home and isinstance(definition, Postgres) else None
        wanted = major_of(definition.version)
        if record is None or not record.data or not record.version.isdigit() or wanted in (None, int(record.version)):
            return []
        assert wanted is not None  # noqa: S101
        newer = f"`homeport addons upgrade {id.name} --to {wanted}` moves it"
        fix = newer if wanted > int(record.version) else "change `version` in the file"
        return [f"its data is of version {record.version} and stays so: {fix}"]

    def provision(self, release: Release) -> list[Provisioned]:
        """Create, adjust and start every add-on of a release. Data that is there is never touched."""
        found = []
        for name, definition in release.spec.addons.items():
            if not isinstance(definition, External):
                found.append(self._provision(release, name, definition))
        return found

    def _provision(self, release: Release, name: str, definition: AddOn) -> Provisioned:
        id = AddOnId(project=release.project, environment=release.environment, name=name)
        consumers = consumers_of(release, name)
        definition = self._opened(release, id, definition)
        passwords = {consumer: self._password(id, consumer, definition) for consumer in ("", *consumers)}
        with self._lock:
            provisioned = self.drivers[definition.kind].provision(
                AddOnRequest(
                    id=id,
                    definition=definition,
                    user=self.account() if os.geteuid() == 0 else None,
                    consumers=consumers,
                    passwords=passwords,
                    seeds=seeds_of(definition, self.home) if self.home else (),
                )
            )
            self.store.ledger.claim("addon", id.slug, f"{id.project}/{id.environment}", addon=name, engine=definition.kind)
            self._provisioned[id.slug] = provisioned
        return provisioned

    def _opened(self, release: Release, id: AddOnId, definition: AddOn) -> AddOn:
        """The definition with what its file names by a variable in the clear: passwords, and the client certificate with its key.

        Those that have no name of their own lie in the vault as `NAME_PASSWORD`, `NAME_TLS_CERT`, …
        """
        found: dict[str, EnvValue | None] = {}
        for field, suffix in NAMED.items():
            value: EnvValue | None = getattr(definition, field, None)
            if value is not None and not isinstance(value, PlainValue):
                entry = f"{external.prefix(id.name)}_{suffix}"
                said = self._said(release, value, entry)
                if not said and field.startswith("tls") and isinstance(value, SecretValue) and value.required:
                    raise SecretsMissing({value.name or entry: value.description}, id.environment)
                if said or field.startswith("tls"):
                    found[field] = PlainValue(value=said) if said else None
        return definition.model_copy(update=found) if found else definition

    def _said(self, release: Release, value: EnvValue, entry: str) -> str:
        """What a variable of the file says: as a service of the release has it, else as it is set now, else its default; else nothing."""
        where = (release.project, release.environment)
        if isinstance(value, GeneratedValue):
            entry = value.scope or entry
            self.secrets.generate(*where, entry, value)
        entry = getattr(value, "name", "") or entry
        for service, mine in release.secrets.items():
            pinned = mine.get(entry) or mine.get(f"{service}/{entry}")
            if pinned is not None:
                return self.secrets.open(*where, pinned)
        return self.secrets.reveal(*where, entry) or getattr(value, "default", None) or ""

    def fixed_password(self, release: Release, name: str) -> str:
        """Where an add-on's password is fixed: `the project's file`, or the name of a variable; empty when Homeport makes it."""
        definition = release.spec.addons[name]
        value: EnvValue | None = getattr(definition, "password", None)
        if value is None:
            return ""
        if isinstance(value, PlainValue):
            return "the project's file" if value.value else ""
        entry = f"{external.prefix(name)}_PASSWORD"
        return (getattr(value, "name", "") or entry) if self._said(release, value, entry) else ""

    def _password(self, id: AddOnId, consumer: str, definition: AddOn) -> str:
        given: EnvValue | None = getattr(definition, "password", None)
        if isinstance(given, PlainValue) and given.value:
            return given.value
        entry = _entry(id, consumer)
        self.secrets.generate(id.project, id.environment, entry, PASSWORD)
        return self.secrets.reveal(id.project, id.environment, entry) or ""

    def lost(self, release: Release, name: str) -> bool:
        """Whether a password that Homeport made for an add-on does not open."""
        id = AddOnId(project=release.project, environment=release.environment, name=name)
        known = self.secrets.names(id.project, id.environment)
        rows = [row for consumer in ("", *consumers_of(release, name)) if (row := known.get(_entry(id, consumer))) is not None]
        return not all(self.secrets.can_open(row) for row in rows)

    def awake(self, release: Release, name: str) -> None:
        """Have an add-on run, so that it can be told other passwords. Its server starts without those that do not open."""
        if self.lost(release, name):
            id = AddOnId(project=release.project, environment=release.environment, name=name)
            self.drivers[release.spec.addons[name].kind].start(id)
        else:
            self.current(release, name)

    def current(self, release: Release, name: str) -> Provisioned:
        """A provisioned add-on; after a restart of the control plane it is asked for again, which changes nothing."""
        key = f"{release.project}-{release.environment}-{name}"
        return self._provisioned.get(key) or self._provision(release, name, release.spec.addons[name])

    def property(self, release: Release, service: str, name: str, wanted: str, *, direct: bool = False) -> str | None:
        """A property of an add-on as one service sees it, past its pool when `direct`; None when there is no such add-on or property."""
        found = resolve(release.spec, name)
        if found is None:
            return None
        definition = release.spec.addons[found]
        if isinstance(definition, External):
            return external.property_of(definition.url.value, wanted) if isinstance(definition.url, PlainValue) else None
        provisioned = self.current(release, found)
        credentials = provisioned.credentials.get(service) or provisioned.credentials[""]
        past = credentials.direct or credentials
        return past.url if wanted == "direct-url" else _property(past if direct else credentials, wanted)

    def variables(self, release: Release, service: str, *, direct: bool = False) -> dict[str, str]:
        """Conventional variables (`DATABASE_URL`, `REDIS_URL`, `TEMPORAL_ADDRESS`) of add-ons that no other one of the release disputes.

        With `direct` they lead past the pool, where there is one.
        """
        found: dict[str, list[str]] = {}
        several = sum(isinstance(definition, Postgres) for definition in release.spec.addons.values()) > 1
        for name, definition in release.spec.addons.items():
            if several and isinstance(definition, Postgres):
                continue  # one that alone has a pool would give `DIRECT_URL` beside a `DATABASE_URL` that means the other
            if not isinstance(definition, External):
                known = self.current(release, name).credentials
                credentials = known.get(service) or known[""]
                env = ((credentials.direct if direct else None) or credentials).env
                for key, value in {**env, **storage(release.dialects.get(service, ""), definition.kind, env)}.items():
                    found.setdefault(key, []).append(value)
        return {key: values[0] for key, values in found.items() if len(values) == 1}

    def forget(self, id: AddOnId) -> None:
        """Ask the driver again the next time: a password or an address has changed."""
        self._provisioned.pop(id.slug, None)

    def health(self, release: Release, name: str) -> external.Health | None:
        """What the last check of an external add-on saw."""
        return self._health.get((release.project, release.environment, name))

    def unwell(self, release: Release) -> dict[str, str]:
        """External add-ons that did not answer when last asked, with the reason."""
        found = {name: self.health(release, name) for name in release.spec.addons}
        return {name: seen.detail for name, seen in found.items() if seen is not None and seen.state == "unwell"}

    def check(self, release: Release, name: str) -> external.Health:
        """Ask an external add-on whether it is well."""
        definition = release.spec.addons[name]
        url = self.url(release, name)
        if not isinstance(definition, External):
            return external.Health(state="unknown", detail="it is no external add-on")
        way = external.way_of(definition)
        if way == "command":
            nobody = external.Health(state="unknown", detail="commands cannot be run here")
            found = self.ask(release, name) if self.ask is not None else nobody
        elif not url:
            found = external.Health(state="unknown", detail="nobody has said its address")
        else:
            found = external.check(url, definition.health_path, way=way, status=definition.health_status)
        self._health[(release.project, release.environment, name)] = found
        return found

    def demand(self, release: Release) -> None:
        """Ask the external add-ons that the file requires. Raises AddOnUnwell for the first that does not answer."""
        for name, definition in release.spec.addons.items():
            if isinstance(definition, External) and definition.required:
                found = self.check(release, name)
                if found.state == "unwell":
                    raise AddOnUnwell(
                        what=f"Release {release.id} was not put live; what served before still serves.",
                        why=f"{name}, which the file requires, does not answer: {found.detail}.",
                        fix=f"Bring it up and deploy again, or take `required` from addons.{name}.",
                    )

    def url(self, release: Release, name: str) -> str | None:
        """The address of an external add-on, as some service of the release gets it, else as it is set now."""
        definition = release.spec.addons[name]
        if not isinstance(definition, External):
            return None
        value = external.url_value(name, definition)
        if isinstance(value, PlainValue):
            return value.value
        key = getattr(value, "name", "") or external.url_key(name)
        for service, mine in release.secrets.items():
            pinned = mine.get(key) or mine.get(f"{service}/{key}")
            if pinned is not None:
                return self.secrets.open(release.project, release.environment, pinned)
        return self.secrets.reveal(release.project, release.environment, key) or getattr(value, "default", None)

    def names(self, release: Release) -> dict[str, str]:
        """Host names of add-ons with the address each listens on."""
        found: dict[str, str] = {}
        for name, definition in release.spec.addons.items():
            if not isinstance(definition, External) and _has_a_name(provisioned := self.current(release, name)):
                host = provisioned.host
                interfaces = definition.extensions.get("ui") if isinstance(definition, Temporal) and definition.ui else None
                found |= {alias: host for alias in (name, definition.title, *definition.aliases, *(interfaces or ())) if alias}
        return found

    def stop_all(self) -> None:
        """Stop every add-on of the home; their data stays."""
        for row in self.store.ledger.list("addon"):
            project, environment = row.owner.split("/")
            driver = self.drivers.get(str(row.value.get("engine", "")))
            if driver is not None:
                driver.stop(AddOnId(project=project, environment=environment, name=str(row.value["addon"])))
        self._provisioned.clear()

    def destroy(self, project: str, environment: str) -> None:
        """Stop the add-ons of an environment and tombstone their data."""
        for row in self.store.ledger.list("addon", f"{project}/{environment}"):
            id = AddOnId(project=project, environment=environment, name=str(row.value["addon"]))
            grave = self.drivers[str(row.value["engine"])].destroy(id)
            self._provisioned.pop(id.slug, None)
            self.store.ledger.claim("tombstone", grave.name, id.slug, folder=str(grave))
            self.store.ledger.release("addon", row.key)


def _entry(id: AddOnId, consumer: str) -> str:
    """Where the vault keeps an add-on's password; the owner's under the empty name."""
    return f"addon.{id.name}/{consumer or 'owner'}.password"


def _said_absent(notes: list[str], definition: AddOn) -> bool:
    """Whether it is told already that this machine does not have the version."""
    return any(text.startswith(absent(major_of(definition.version))) for text in notes)


def resolve(spec: Spec, name: str) -> str | None:
    """The add-on a file means by a name, a title or an alias."""
    if name in spec.addons:
        return name
    return next((n for n, a in spec.addons.items() if name == a.title or name in a.aliases), None)


def consumers_of(release: Release, name: str) -> tuple[str, ...]:
    """Services that connect to an add-on: all that run, since a file may hand an address on in ways that cannot be seen."""
    del name
    return tuple(n for n, s in release.spec.services.items() if s.kind != "static")


def _has_a_name(provisioned: Provisioned) -> bool:
    """Whether a name with the engine's usual port behind it leads to this add-on and to no other one."""
    try:
        address = ipaddress.ip_address(provisioned.host)
    except ValueError:
        return False  # a name already, of an outside cluster
    shared = address.is_loopback and provisioned.host == "127.0.0.1" and provisioned.kind == "temporal"
    return not shared or provisioned.port == TEMPORAL_PORT


def _property(credentials: Credentials, wanted: str) -> str | None:
    values = {
        "url": credentials.url,
        "private-url": credentials.url,
        "public-url": credentials.url,
        "pooled-url": credentials.url,
        "host": credentials.host,
        "port": str(credentials.port),
        "user": credentials.user,
        "password": credentials.password,
        "database": credentials.database,
        "hostport": f"{credentials.host}:{credentials.port}",
    }
    return values.get(wanted)
