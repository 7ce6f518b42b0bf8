"""Releases, artifacts and deploys: what was built, what is put live, and how that went."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from homeport.model.base import Frozen, Name
from homeport.model.env import EnvValue
from homeport.model.spec import Spec


class Revision(Frozen):
    """Source as it was taken: content-addressed, so that equal trees have equal digests."""

    digest: str
    """sha256 of the tree (paths, modes, contents)."""
    commit: str = ""
    """Git commit, when the tree is one."""
    dirty: bool = False
    """Whether the work tree differed from the commit."""
    branch: str = ""
    origin: str = ""
    """Folder or git address it came from, without credentials."""
    message: str = ""
    files: int = 0
    bytes: int = 0


class Artifact(Frozen):
    """Source made runnable. Immutable; addressed by the digest of everything that went into it."""

    id: str
    """sha256 of the inputs: source, build settings, toolchain versions, build environment names."""
    kind: Literal["process", "static", "image"] = "process"
    folder: str
    """Absolute folder of the artifact."""
    root: str = ""
    """Working directory of the service, relative to `folder`."""
    publish: str = ""
    """For `static`: folder of the files, relative to `folder`."""
    command: tuple[str, ...] | str = ""
    """Start command that was detected; the spec's own wins."""
    port: int | None = None
    """Port the program insists on, when its Dockerfile says so; the spec's own wins."""
    path: tuple[str, ...] = ()
    """Absolute folders in front of PATH (toolchains, virtual environment, node_modules/.bin)."""
    env: dict[str, str] = {}
    """Variables that the toolchain needs (`VIRTUAL_ENV`, `NODE_ENV`)."""
    linked: tuple[str, ...] = ()
    """Dependency folders, relative to `folder`: an instance links them instead of copying."""
    runtime: str = ""
    """`python 3.11.7`, `node 20.20.2`, …"""
    notes: tuple[str, ...] = ()
    """Sentences for the user (a version that was approximated, …)."""
    bytes: int = 0
    seconds: float = 0
    """Time the build took; 0 when it came from the cache."""
    cached: bool = False


class PinnedSecret(Frozen):
    """One version of a vault entry."""

    kind: Literal["pinned"] = "pinned"
    name: str
    version: int
    until: datetime | None = None
    """A former value that is handed out beside the new one until then; later deploys do without it."""


PinnedValue = Annotated[EnvValue | PinnedSecret, Field()]


class Release(Frozen):
    """What can be put live, now or again: nothing in it changes after it is recorded."""

    id: str
    """`r42`: counts per environment."""
    project: Name
    environment: Name
    number: int
    revision: Revision
    spec: Spec
    artifacts: dict[str, Artifact] = {}
    """By service."""
    secrets: dict[str, dict[str, PinnedSecret]] = {}
    """Per service, the variables that come from the vault, each at its version."""
    profile: tuple[str, ...] = ()
    created_at: datetime
    created_by: str = ""
    rollback_of: str = ""
    """The release it repeats, when it was made by a rollback."""
    blueprint: str = ""
    """The file the spec was read from."""
    dialects: dict[str, str] = {}
    """By service, the dialect its description was read in (`render`, `fly`): it decides which variables its platform's programs expect."""


class DeployStatus(StrEnum):
    """Where a deploy is. The last four are final."""

    QUEUED = "queued"
    RUNNING = "running"
    LIVE = "live"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    ROLLED_BACK = "rolled-back"


class ProbeResult(Frozen):
    """What the probe through the edge saw during a switch."""

    requests: int = 0
    failed: int = 0
    first_new: float = 0
    """Seconds from the start of the deploy to the first answer of the new release."""
    errors: tuple[str, ...] = ()


class ServiceView(Frozen):
    """One service as the user sees it after a deploy."""

    name: str
    kind: str
    url: str | None = None
    instances: int = 0


class DeployResult(Frozen):
    """How a deploy or rollback ended: the object `--json` prints."""

    project: str
    environment: str
    release: str
    status: str
    seconds: float
    services: tuple[ServiceView, ...] = ()
    probe: ProbeResult = ProbeResult()
    deploy: str = ""
    error: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
