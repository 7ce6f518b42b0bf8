"""The Protocol of an outside secret store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from homeport.model.base import Frozen, Name
from homeport.model.errors import HomeportError

Kind = Literal["vault", "gcp", "aws", "onepassword", "infisical", "doppler", "sops", "age"]

MAX_VALUE = 128 * 1024
"""Bytes of one value: what Linux allows for one environment string."""


class SecretStoreUnavailable(HomeportError):
    """An outside store did not give an answer that can be used."""

    code = "secret-store-unavailable"


class ExternalSecretMissing(HomeportError):
    """An outside store has no such secret, or the secret no such field."""

    code = "external-secret-missing"


class SecretStoreInvalid(HomeportError):
    """A store, or a reference to one, cannot be right."""

    code = "secret-store-invalid"


class StoreConfig(Frozen):
    """An outside store as this home knows it."""

    name: Name
    kind: Kind
    address: str = Field(default="", max_length=500)
    """Web address, for those that have one: `https://vault.example.com:8200`."""
    options: dict[str, str] = Field(default={}, max_length=20)
    """What the kind needs besides: `mount`, `namespace`, `project`, `region`, `environment`; `private: "true"` allows an address inside
    the network."""
    credential: str = Field(default="", repr=False, max_length=MAX_VALUE)
    """Token, service account or identity. Lies sealed in the vault."""


class Reference(Frozen):
    """One value of a store."""

    path: str
    key: str = ""
    version: str = ""
    root: Path | None = None
    """Folder of the source, for stores that are files of it."""


class SecretStore(Protocol):
    """Reads values. Nothing is ever written to an outside store."""

    def problems(self) -> list[str]:
        """What keeps it from working here, one sentence each; asks nobody."""

    def read(self, reference: Reference) -> str:
        """The value. Raises ExternalSecretMissing, SecretStoreUnavailable, SecretStoreInvalid; no error repeats a value or credential."""


def field_of(config: StoreConfig, reference: Reference, value: object) -> str:
    """The field a reference names of a secret with fields; without a name the only one there is. Raises ExternalSecretMissing."""
    if not isinstance(value, dict):
        raise missing(config, reference, "it has no fields")
    if not reference.key:
        if len(value) != 1:
            raise missing(config, reference, f"it has {len(value)} fields, and none was named")
        return text_of(config, reference, next(iter(value.values())))
    found: object = value
    for part in [reference.key] if reference.key in value else reference.key.split("."):
        if not isinstance(found, dict) or part not in found:
            raise missing(config, reference, "it has no such field")
        found = found[part]
    return text_of(config, reference, found)


def text_of(config: StoreConfig, reference: Reference, value: object) -> str:
    """A value as the text of a variable. Raises SecretStoreUnavailable."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if len(text.encode()) > MAX_VALUE or "\0" in text:
        raise unavailable(config, f"the value of {_shown(reference)} cannot be a variable: it is too large or binary")
    return text


def missing(config: StoreConfig, reference: Reference, why: str) -> ExternalSecretMissing:
    return ExternalSecretMissing(
        what="Nothing was changed; what runs keeps running.",
        why=f"The store {config.name} ({config.kind}) does not have {_shown(reference)}: {why}.",
        fix="Correct the reference in the file, or put the value into the store.",
    )


def unavailable(config: StoreConfig, why: str) -> SecretStoreUnavailable:
    return SecretStoreUnavailable(
        what="Nothing was changed; what runs keeps running with the values it has.",
        why=f"The store {config.name} ({config.kind}) gave no value: {why}.",
        fix="Check it with `homeport stores`; deploy again when it answers, or set the value with `homeport env set`.",
    )


def invalid(name: str, why: str) -> SecretStoreInvalid:
    return SecretStoreInvalid(
        what="Nothing was changed; what runs keeps running.", why=f"The store {name}: {why}.", fix="See docs/how-to/set-secrets.md."
    )


def _shown(reference: Reference) -> str:
    return f"{reference.path[:200]!r}" + (f" field {reference.key[:80]!r}" if reference.key else "")
