"""What a home tells processes and builds by itself: the facts that a platform's own variables are made of."""

from __future__ import annotations

from datetime import datetime
from itertools import chain

from homeport.deploys.routes import host_of
from homeport.deploys.vendor import Facts, of_the_revision, platform_name, provided
from homeport.model.reading import Loss
from homeport.model.release import Release, Revision
from homeport.model.service import StaticService, WebService
from homeport.model.spec import Spec

PRODUCTION = "production"


def address_of(spec: Spec, environment: str, name: str, port: int, *, own: bool = False) -> str:
    """Where the public reaches a service; with `own` by its own domain before the one that Homeport gives it. Empty for one it cannot."""
    service = spec.services.get(name)
    if not isinstance(service, WebService | StaticService):
        return ""
    given = [host_of(spec.name, environment, name)] if service.default_domain else []
    domains = [domain.host.lower() for domain in service.domains if not domain.redirect_to] if environment == PRODUCTION else []
    hosts = sorted(domains, key=len) + given if own else given + domains
    return f"http://{hosts[0]}{'' if port == 80 else f':{port}'}" if hosts else ""


def facts_of_build(spec: Spec, environment: str, service: str, revision: Revision, port: int) -> Facts:
    """What is known of a service while it is built."""
    return Facts(
        project=spec.name,
        environment=environment,
        service=service,
        definition=spec.services[service],
        revision=revision,
        url=address_of(spec, environment, service, port),
        production_url=address_of(spec, PRODUCTION, service, port, own=True),
    )


def facts_of_run(release: Release, service: str, port: int, *, private_host: str, instance: str, ordinal: int, once: str) -> Facts:
    """What is known of a process of a release; without `instance` what holds for all of them."""
    known = facts_of_build(release.spec.model_copy(update={"name": release.project}), release.environment, service, release.revision, port)
    more = {"private_host": private_host, "instance": instance, "ordinal": ordinal, "once": once}
    made: datetime = release.created_at
    return known.model_copy(update={**more, "release": release.id, "number": release.number, "created_at": made})


def build_variables(
    spec: Spec, environment: str, service: str, revision: Revision, dialect: str, port: int
) -> tuple[dict[str, str], dict[str, str]]:
    """What the platform gives a build: what makes it another build, and what is only about the revision."""
    facts = facts_of_build(spec, environment, service, revision, port)
    found = provided(dialect, facts, "build")
    about = of_the_revision(found, facts)
    return {key: value for key, value in found.items() if key not in about}, about


def told_names(spec: Spec, environment: str, dialects: dict[str, str], port: int) -> dict[str, tuple[str, ...]]:
    """By service, the names of the variables its platform gives it when it runs, or when it is built if it is only files."""
    found: dict[str, tuple[str, ...]] = {}
    for name, service in spec.services.items():
        facts = facts_of_build(spec, environment, name, Revision(digest="0", commit="0", branch="0", message="0"), port)
        facts = facts.model_copy(update={"instance": "0", "number": 1, "release": "r1"})
        names = provided(dialects.get(name, ""), facts, "build" if isinstance(service, StaticService) else "run")
        own = {*service.env, *(key for group in service.env_groups if group in spec.env_groups for key in spec.env_groups[group].env)}
        if rest := tuple(sorted(set(names) - own)):
            found[name] = rest
    return found


def not_carried(spec: Spec, dialects: dict[str, str], to: str) -> list[Loss]:
    """What services lose that are written in another dialect: the variables that their platform gives by itself.

    They stay with the platform's file on purpose: a project that was written anew says itself what its programs get.
    """
    lost: dict[str, dict[str, tuple[str, ...]]] = {}
    for service, names in told_names(spec, PRODUCTION, {name: dialect for name, dialect in dialects.items() if dialect != to}, 80).items():
        lost.setdefault(platform_name(dialects[service]), {})[service] = names
    return [
        Loss(
            path=f"services.{next(iter(services)) if len(services) == 1 else '*'}.env",
            reason=f"{platform} gives {', '.join(sorted({*chain(*services.values())}))} by itself; set those that the programs read",
        )
        for platform, services in lost.items()
    ]


__all__ = ["address_of", "build_variables", "facts_of_build", "facts_of_run", "not_carried", "platform_name", "provided", "told_names"]
