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
    """`manual`: on request; `automatic`: for every pull request; `off`."""
    expire_after_days: int | None = Field(default=None, ge=1)
    """Days without a change after which a preview ends."""
    data: str = Field(default="", max_length=63)
    """Environment whose data the databases of a new preview (`pr-…`, `preview-…`, `mr-…`) begin with, masked by `mask`; empty: with none.

    What counts is the live release of that environment, not the branch's file: nobody gets at data by a change that was not deployed.
    """
    workers: bool = False
    """Whether workers of a preview with such data run from the start. `homeport scale NAME=1` starts one later."""
    crons: bool = False
    """Whether scheduled jobs of a preview with such data run from the start."""


class NamedResource(Frozen):
    """A volume, network, config or secret file declared at the top of a Compose file."""

    name: str = ""
    """Its name outside the project."""
    driver: str = ""
    """Driver of the container engine."""
    external: bool = False
    """It exists already and is not made."""
    file: str = ""
    """File of the source that holds it."""
    environment: str = ""
    """Variable that holds it."""
    content: str = ""
    """The content itself."""
    labels: dict[str, str] = {}
    """Labels for the container engine."""
    options: dict[str, Json] = {}
    """What else the driver is told."""


class Tunnel(Frozen):
    """An outbound tunnel that carries routes (cloudflared)."""

    id: str = ""
    """The tunnel's own id or name."""
    credentials_file: str = ""
    """File with its credentials."""
    protocol: str = ""
    """`quic`, `http2` or empty for the tunnel's choice."""
    options: dict[str, Json] = {}
    """What else the file says of it."""


class Job(Frozen):
    """One job or step of a pipeline."""

    name: str
    """Its name."""
    needs: tuple[str, ...] = ()
    """Jobs that end well before it starts."""
    runs_on: str = ""
    """Kind of machine it asks for."""
    image: str = ""
    """Image it runs in."""
    steps: int = 0
    """How many steps it has."""
    uses: tuple[str, ...] = ()
    """Actions or images it calls."""
    matrix: bool = False
    """Whether it is repeated for a matrix of values."""
    condition: str = ""
    """When it runs, in the file's own words."""


class Pipeline(Frozen):
    """A CI workflow: chains of jobs that can gate deploys."""

    name: str
    """Its name."""
    dialect: Literal["github-workflow", "cloudbuild"]
    """The dialect it was read from."""
    file: str
    """The file it was read from."""
    on: tuple[str, ...] = ()
    """Events that start it."""
    jobs: tuple[Job, ...] = ()
    """Its jobs."""
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
    """Version of this format."""
    name: Name
    """The project's name; without one the folder's."""
    title: str = ""
    """The name as the file writes it, when it is not a valid name."""
    description: str = ""
    """What the project is, in a sentence."""
    services: Services = {}
    """What runs, by name."""
    addons: AddOns = {}
    """Stateful engines the project uses, by name."""
    env_groups: dict[str, EnvGroup] = {}
    """Variables that several services share, by name."""
    routes: tuple[Route, ...] = ()
    """Rules of the edge, first match first. Without any, each web service and static site answers its own hosts."""
    environments: dict[str, dict[str, Any]] = {}
    """Per environment, a JSON merge patch (RFC 7386) over this document: `null` removes."""
    previews: Previews = Previews()
    """Environments for pull requests."""
    watch: Watch = Watch()
    """How a new release is observed."""
    volumes: dict[str, NamedResource] = {}
    """Volumes that disks name, with their options."""
    networks: dict[str, NamedResource] = {}
    """Networks of a Compose project."""
    configs: dict[str, NamedResource] = {}
    """Configuration files that services mount."""
    secrets: dict[str, NamedResource] = {}
    """Secret files that services mount."""
    tunnels: tuple[Tunnel, ...] = ()
    """Outbound tunnels."""
    pipelines: tuple[Pipeline, ...] = ()
    """CI workflows found beside."""
    mask: dict[str, str] = {}
    """Masking rules for forked data: `table.column` to a masker name."""
    metadata: dict[str, Json] = {}
    """Links and texts about the project (repository, website, logo, keywords)."""
    extensions: dict[str, Json] = {}
    """What a dialect says that no driver serves; kept so that it can be written back."""

    def canonical(self) -> dict[str, Any]:
        """The spec as plain data without defaults: what `homeport.yaml` holds. `Spec.model_validate` reads it back."""
        return {"version": self.version, **self.model_dump(mode="json", exclude_defaults=True)}
