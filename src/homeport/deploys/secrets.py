"""Secrets of an environment: set, pinned by releases, opened only to start something.

A name is `KEY` for the whole environment or `service/KEY` for one service; group values are environment-wide.
"""

from __future__ import annotations

import base64
import secrets
import string
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.exc import IntegrityError

from homeport.drivers.vault.seal import Sealer
from homeport.model.env import GeneratedValue
from homeport.model.errors import HomeportError
from homeport.model.release import PinnedSecret
from homeport.store import Store
from homeport.store.secrets import SecretRow, unset_row

MAX_VALUE = 128 * 1024
"""Bytes of one value: what Linux allows for one environment string."""


class SecretsMissing(HomeportError):
    """A deploy needs values that nobody has set."""

    code = "secrets-missing"

    def __init__(self, missing: Mapping[str, str], environment: str) -> None:
        self.missing, self.environment = dict(missing), environment
        shown = ", ".join(self.missing)
        super().__init__(
            what="Nothing was changed; what runs keeps running.",
            why=f"These values are required and not set: {shown}.",
            fix=f"Set them with `homeport env set KEY=VALUE --env {environment}`, or deploy with `--env-file FILE`.",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return SecretsMissing, (self.missing, self.environment)


class EnvInvalid(HomeportError):
    """A variable cannot be set like this."""

    code = "env-invalid"


@dataclass(frozen=True)
class Change:
    """What setting a value did."""

    name: str
    version: int
    changed: bool


class SecretBook:
    """Reads and writes the sealed values of every environment."""

    def __init__(self, store: Store, sealer: Sealer) -> None:
        self.store, self.sealer = store, sealer

    def set(self, project: str, environment: str, name: str, value: str, *, by: str, source: str = "cli", note: str = "") -> Change:
        """Set a value as a new version; an equal value changes nothing. Raises EnvInvalid."""
        _check(name, value)
        current = self.store.secrets.current(project, environment).get(name)
        if current is not None and self._open(current) == value:
            return Change(name, current.version, changed=False)
        while True:
            version = self.store.secrets.next_version(project, environment, name)
            sealed = self.sealer.seal(value, _place(project, environment, name, version))
            row = SecretRow(project, environment, name, version, sealed, "enabled", source, datetime.now(UTC), by, note)
            try:
                self.store.secrets.add(row)
            except IntegrityError:  # somebody else took the number at the same moment
                continue
            return Change(name, version, changed=True)

    def unset(self, project: str, environment: str, name: str, *, by: str) -> bool:
        """The name has no value from now on; releases that pinned one keep it. False when there was none."""
        if name not in self.store.secrets.current(project, environment):
            return False
        version = self.store.secrets.next_version(project, environment, name)
        self.store.secrets.add(unset_row(project, environment, name, version, by))
        return True

    def reveal(self, project: str, environment: str, name: str, version: int | None = None) -> str | None:
        """A value in the clear; None when there is none. The caller audits. Raises SecretDoesNotOpen."""
        if version is None:
            row = self.store.secrets.current(project, environment).get(name)
        else:
            row = self.store.secrets.version(project, environment, name, version)
        return self._open(row) if row is not None and row.sealed is not None else None

    def open(self, project: str, environment: str, pin: PinnedSecret) -> str:
        """The value a release pinned. Raises SecretDoesNotOpen, EnvInvalid when the version was destroyed or disabled."""
        row = self.store.secrets.version(project, environment, pin.name, pin.version)
        if row is None or row.sealed is None or row.state == "disabled":
            state = "gone" if row is None else row.state
            raise EnvInvalid(
                what="The release was not started; what runs keeps running.",
                why=f"Version {pin.version} of {pin.name}, which it needs, is {state}.",
                fix="Enable that version again, or deploy a new release that uses the current one.",
            )
        return self._open(row)

    def generate(self, project: str, environment: str, name: str, recipe: GeneratedValue) -> int:
        """The version of a generated value, made the first time it is asked for."""
        current = self.store.secrets.current(project, environment).get(name)
        if current is None:
            return self.set(project, environment, name, _random(recipe), by="homeport", source="generated").version
        return current.version

    def names(self, project: str, environment: str) -> dict[str, SecretRow]:
        """The current version of every name."""
        return self.store.secrets.current(project, environment)

    def _open(self, row: SecretRow) -> str:
        return self.sealer.open(row.sealed or b"", _place(row.project, row.environment, row.name, row.version))


def _place(project: str, environment: str, name: str, version: int) -> str:
    return f"{project}/{environment}/{name}@{version}"


def _check(name: str, value: str) -> None:
    key = name.rsplit("/", 1)[-1]
    why = ""
    if not key or "=" in key or "\0" in key or any(c.isspace() for c in key) or len(name) > 300:
        why = f"{key[:60]!r} is not the name of an environment variable."
    elif "\0" in value:
        why = f"The value of {key} holds a NUL byte, which no program can receive."
    elif len(value.encode()) > MAX_VALUE:
        why = f"The value of {key} is larger than {MAX_VALUE // 1024} KiB, the most that Linux passes on."
    if why:
        raise EnvInvalid(what="Nothing was set.", why=why, fix="Put large or binary values in a file on a disk, or encode them.")


def _random(recipe: GeneratedValue) -> str:
    raw = secrets.token_bytes(recipe.bytes)
    if recipe.format == "hex":
        return raw.hex()
    if recipe.format == "uuid":
        return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))
    if recipe.format == "alphanumeric":
        return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(recipe.bytes))
    return base64.b64encode(raw).decode()
