"""The spec: Homeport's one typed description of a project. Every blueprint becomes one."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from homeport.model.addon import AddOns
from homeport.model.base import Duration, Frozen, Json, Name
from homeport.model.env import EnvGroup
from homeport.model.route import Route
from homeport.model.service import Services


class Previews(Frozen):
    """Environments per pull request."""

    generation: Literal["off", "manual", "automatic"] = "off"
    expire_after_days: int | None = Field(default=None, ge=1)


class NamedResource(Frozen):
    """A volume, network, config or secret file declared at the top of a Compose file."""

    name: str = ""
    driver: str = ""
    external: bool = False
    file: str = ""
    environment: str = ""
    content: str = ""
    labels: dict[str, str] = {}
    options: dict[str, Json] = {}


class Tunnel(Frozen):
    """An outbound tunnel that carries routes (cloudflared)."""

    id: str = ""
    credentials_file: str = ""
    protocol: str = ""
    options: dict[str, Json] = {}


class Job(Frozen):
    """One job or step of a pipeline."""

    name: str
    needs: tuple[str, ...] = ()
    runs_on: str = ""
    image: str = ""
    steps: int = 0
    """How many steps it has."""
    uses: tuple[str, ...] = ()
    """Actions or images it calls."""
    matrix: bool = False
    condition: str = ""


class Pipeline(Frozen):
    """A CI workflow: chains of jobs that can gate deploys."""

    name: str
    dialect: Literal["github-workflow", "cloudbuild"]
    file: str
    on: tuple[str, ...] = ()
    """Events that start it."""
    jobs: tuple[Job, ...] = ()
    document: dict[str, Json] = {}
    """The whole parsed file, kept for the runner."""


class Watch(Frozen):
    """How a new release is observed before it counts as good."""

    window: Duration | None = None
    """Default 60 s; 0 turns it off."""
    max_error_ratio: float | None = None
    """5xx answers over all, above the previous release's; default 0.05."""
    max_crashes: int | None = None
    """Default 2."""


class Spec(Frozen):
    """A project: services, add-ons, env groups, routes, and what differs per environment."""

    version: Literal[1] = 1
    name: Name
    title: str = ""
    """The name as the file writes it, when it is not a valid name."""
    description: str = ""
    services: Services = {}
    addons: AddOns = {}
    env_groups: dict[str, EnvGroup] = {}
    routes: tuple[Route, ...] = ()
    environments: dict[str, dict[str, Any]] = {}
    """Per environment, a JSON merge patch (RFC 7386) over this document: `null` removes."""
    previews: Previews = Previews()
    watch: Watch = Watch()
    volumes: dict[str, NamedResource] = {}
    networks: dict[str, NamedResource] = {}
    configs: dict[str, NamedResource] = {}
    secrets: dict[str, NamedResource] = {}
    tunnels: tuple[Tunnel, ...] = ()
    pipelines: tuple[Pipeline, ...] = ()
    mask: dict[str, str] = {}
    """Masking rules for forked data: `table.column` to a masker name."""
    metadata: dict[str, Json] = {}
    """Links and texts about the project (repository, website, logo, keywords)."""
    extensions: dict[str, Json] = {}
    """What a dialect says that no driver serves; kept so that it can be written back."""

    def canonical(self) -> dict[str, Any]:
        """The spec as plain data without defaults: what `homeport.yaml` holds. `Spec.model_validate` reads it back."""
        return {"version": self.version, **self.model_dump(mode="json", exclude_defaults=True)}
