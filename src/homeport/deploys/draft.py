"""A release that is decided and not yet built: read, filled, planned, and its secrets pinned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from homeport.blueprints.discover import read_project
from homeport.blueprints.extensions import with_made_extensions
from homeport.blueprints.source import FolderTree
from homeport.blueprints.strict import require_known
from homeport.deploys import plan as planning
from homeport.deploys.audit import ITSELF, Caller
from homeport.deploys.config import pin
from homeport.deploys.envfiles import fold_env_files
from homeport.deploys.guard import guarded
from homeport.deploys.platform import Platform
from homeport.deploys.references import referring, with_references
from homeport.deploys.request import DeployRequest
from homeport.deploys.secrets import SecretBook
from homeport.deploys.seeds import notes as seed_notes
from homeport.deploys.seeds import with_seeds
from homeport.model.base import Frozen
from homeport.model.env import SecretValue
from homeport.model.plan import Plan
from homeport.model.release import Artifact, PinnedSecret, Release, Revision
from homeport.model.service import Listening, Service, StaticService, WebService
from homeport.model.spec import Spec


class Draft(Frozen):
    """A release that is decided and not yet built."""

    spec: Spec
    plan: Plan
    secrets: dict[str, dict[str, PinnedSecret]] = {}
    blueprint: str = ""
    warnings: tuple[str, ...] = ()
    revision: Revision
    folder: str
    dialects: dict[str, str] = {}
    """By service, the dialect its description was read in."""


def draft_release(platform: Platform, request: DeployRequest, revision: Revision, folder: Path) -> Draft:
    """Read, fill, plan and pin. Raises BlueprintInvalid, UnknownKeys, SecretsMissing."""
    tree = FolderTree(folder, name=request.project)
    reading = read_project(tree, environment=request.environment, prefer=request.prefer)
    if request.strict:
        require_known(reading.readings)
    references = referring(platform.secrets, request.project, request.environment)
    spec = with_references(fold_env_files(reading.spec.model_copy(update={"name": request.project}), tree), references)
    spec = with_seeds(with_made_extensions(spec, tree), folder, platform.home)
    live = platform.live_release(request.project, request.environment)
    row = platform.store.environments.get(request.project, request.environment)
    plan = planning.make_plan(
        spec,
        request.environment,
        live,
        capabilities=platform.runtime.capabilities,
        addon_problems=lambda name: platform.addons.problems(spec, name),
        addon_notes=lambda name: [*platform.addons.notes(spec, name, request.environment), *seed_notes(spec.addons[name], folder)],
        scale=row.scale if row else {},
        profiles=frozenset(request.profiles),
    )
    running = [
        p.service for p in plan.services if p.action not in ("skip", "stop") and not isinstance(spec.services[p.service], StaticService)
    ]
    fetch = platform.outside.fetcher(
        request.project, request.environment, folder, by=Caller(request.actor or ITSELF.name, f"deploy {request.id}")
    )
    pins = pin(spec, running, platform.secrets, request.project, request.environment, fetch=fetch)
    return Draft(
        spec=spec,
        plan=guarded(plan, live, spec, pins.by_service),
        secrets=pins.by_service,
        blueprint=", ".join(r.file for r in reading.readings) if reading.readings else "",
        warnings=reading.warnings,
        revision=revision,
        folder=str(folder),
        dialects=reading.dialects,
    )


def build_secrets(book: SecretBook, service: Service, name: str, project: str, environment: str) -> dict[str, str]:
    """The vault values that a build asks for by name; no other reaches it."""
    found: dict[str, str] = {}
    for key, value in {**service.build.args, **service.build.env}.items():
        if isinstance(value, SecretValue):
            for entry in (f"{name}/{value.name or key}", value.name or key):
                text = book.reveal(project, environment, entry)
                if text is not None:
                    found[key] = text
                    break
    return found


def fitted(spec: Spec, artifacts: Mapping[str, Artifact]) -> Spec:
    """The spec as what was built turned out: a web service that became files is served as files, and a program that insists on a
    port of its own cannot run twice, so its old instance ends first."""
    services: dict[str, Service] = {}
    for name, service in spec.services.items():
        artifact = artifacts.get(name)
        if artifact is not None and artifact.kind == "static" and isinstance(service, WebService):
            shared = {
                field: getattr(service, field)
                for field in StaticService.model_fields
                if field in WebService.model_fields and field != "kind"
            }
            services[name] = StaticService(**shared)
        elif artifact is not None and artifact.port and isinstance(service, Listening) and not service.rollout.strategy:
            services[name] = service.model_copy(update={"rollout": service.rollout.model_copy(update={"strategy": "hold"})})
        else:
            services[name] = service
    return spec.model_copy(update={"services": services})


def keep_warm(release: Release) -> list[str]:
    """Services whose former instances finish their requests; those of all others stop at once."""
    return [name for name, service in release.spec.services.items() if service.kind in ("web", "private")]
