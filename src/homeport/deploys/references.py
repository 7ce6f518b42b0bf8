"""Values set by hand that are references (`${{Postgres.DATABASE_URL}}`, as Railway's variables are) and no secrets themselves.

They become part of the spec, so that a release holds what they refer to and the add-ons they imply are provisioned.
"""

from __future__ import annotations

from homeport.blueprints.railway.references import railway_addons, railway_references
from homeport.deploys.secrets import REFERENCE, SecretBook
from homeport.model.env import EnvValue
from homeport.model.service import Service, StaticService
from homeport.model.spec import Spec


def referring(book: SecretBook, project: str, environment: str) -> dict[str, str]:
    """Entries of the vault whose value is a reference, with their text."""
    rows = book.names(project, environment)
    return {name: book.reveal(project, environment, name) or "" for name, row in rows.items() if row.source == REFERENCE}


def with_references(spec: Spec, found: dict[str, str]) -> Spec:
    """The spec with each reference as the variable's value, and with the add-ons that references imply and no file names."""
    if not found:
        return spec
    services: dict[str, Service] = {}
    for name, service in spec.services.items():
        env: dict[str, EnvValue] = {}
        for entry, text in found.items():
            scope, _, key = entry.rpartition("/")
            if scope in ("", name) and not isinstance(service, StaticService):
                env[key] = railway_references(text, name)
        services[name] = service.model_copy(update={"env": {**service.env, **env}})
    return spec.model_copy(update={"services": services, "addons": {**railway_addons(*found.values()), **spec.addons}})
