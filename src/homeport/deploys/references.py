"""Values set by hand that are references (`${{Postgres.DATABASE_URL}}`, as Railway's variables are) and no secrets themselves.

They become part of the spec, so that a release holds what they refer to and the add-ons they imply are provisioned.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeport.blueprints.railway.references import railway_addons
from homeport.deploys.literals import PREFIX, sealed
from homeport.deploys.secrets import REFERENCE, SecretBook
from homeport.model.env import EnvValue
from homeport.model.service import Service, StaticService
from homeport.model.spec import Spec


@dataclass(frozen=True)
class Referring:
    """The references of an environment."""

    texts: dict[str, str]
    """By the vault's entry."""
    parts: frozenset[str]
    """Entries that hold texts around references."""


def referring(book: SecretBook, project: str, environment: str) -> Referring:
    """Entries of the vault whose value is a reference, with their text."""
    rows = book.names(project, environment)
    texts = {name: book.reveal(project, environment, name) or "" for name, row in rows.items() if row.source == REFERENCE}
    return Referring(texts, frozenset(name for name in rows if name.startswith(PREFIX)))


def with_references(spec: Spec, found: Referring) -> Spec:
    """The spec with each reference as the variable's value, and with the add-ons that references imply and no file names."""
    if not found.texts:
        return spec
    services: dict[str, Service] = {}
    for name, service in spec.services.items():
        env: dict[str, EnvValue] = {}
        for entry, text in found.texts.items():
            scope, _, key = entry.rpartition("/")
            if scope in ("", name) and not isinstance(service, StaticService):
                env[key] = sealed(entry, text, name, found.parts)
        services[name] = service.model_copy(update={"env": {**service.env, **env}})
    return spec.model_copy(update={"services": services, "addons": {**railway_addons(*found.texts.values()), **spec.addons}})
