"""What callers send. Every field has a bound."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from homeport.drivers.vault.stores.base import Kind
from homeport.model.base import Duration, Frozen, Name
from homeport.model.views import EventView

MAX_VARIABLES = 20_000
"""Variables of one request; its size has a bound of its own."""

Text = Field(default="", max_length=4096)


class DeployBody(Frozen):
    """A deploy of a folder of this machine, or of a git repository."""

    folder: str = Text
    repository: str = Text
    reference: str = Field(default="", max_length=255)
    project: Name | None = None
    """Empty: as the files say."""
    environment: Name = "production"
    prefer: str = Field(default="", max_length=255)
    profiles: tuple[str, ...] = Field(default=(), max_length=20)
    data_from: Name | None = None
    """Environment whose data a new environment's databases begin with, masked. Asks for an admin's key unless that environment's
    `previews.data` names itself."""
    workers: bool = False
    """Run workers beside such data."""
    crons: bool = False
    """Run scheduled jobs beside such data."""
    confirmed: bool = False
    """Accept what the deploy would take away."""
    strict: bool = False
    """Refuse files with keys that nobody knows."""


class RollbackBody(Frozen):
    release: int = Field(default=0, ge=0, le=2**31 - 1)
    """Number of the release; 0 is the one before."""
    reason: str = Field(default="", max_length=500)


class ScaleBody(Frozen):
    services: dict[str, int] = Field(max_length=100)


class EnvBody(Frozen):
    """Variables to set and unset; a name is `KEY` or `service/KEY`."""

    set: dict[str, str] = Field(default={}, max_length=MAX_VARIABLES, repr=False)
    unset: tuple[str, ...] = Field(default=(), max_length=MAX_VARIABLES)
    source: Literal["api", "cli", "file", "terminal", "env-file"] = "api"


class EnvResult(Frozen):
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What may be a slip: a service or an environment that is not there yet."""


class Exported(Frozen):
    """Values in the clear, by name."""

    variables: dict[str, str] = Field(repr=False)


class VersionBody(Frozen):
    """One version to enable, disable or destroy."""

    name: str = Field(min_length=1, max_length=300)
    version: int = Field(ge=1, le=2**31)
    state: Literal["enabled", "disabled", "destroyed"]
    confirmed: bool = False
    """Also when a release needs it."""


class RestoreBody(Frozen):
    """Either `name` with `version`, or `at`."""

    name: str = Field(default="", max_length=300)
    version: int = Field(default=0, ge=0, le=2**31)
    at: datetime | None = None
    """Moment to bring every variable back to; without a zone it is UTC."""
    dry: bool = False
    """Only say what would change."""


class StoreBody(Frozen):
    """An outside secret store."""

    name: Name
    kind: Kind
    address: str = Field(default="", max_length=500)
    options: dict[str, Annotated[str, Field(max_length=500)]] = Field(default={}, max_length=20)
    credential: str = Field(default="", max_length=64 * 1024, repr=False)
    """Empty leaves the one it has."""
    projects: tuple[Name, ...] = Field(default=(), max_length=100)
    """Projects that may refer to it; empty means all."""


class RotateValueBody(Frozen):
    """One variable to rotate."""

    name: str = Field(min_length=1, max_length=300)
    value: str = Field(default="", max_length=256 * 1024, repr=False)
    """Empty: made anew as its file says."""
    overlap: Annotated[Duration, Field(ge=timedelta(0), le=timedelta(days=90))] = timedelta(days=1)
    """How long deploys hand out the former value as well, as `NAME_PREVIOUS`."""


class RotateKeyBody(Frozen):
    overlap: Annotated[Duration, Field(ge=timedelta(0), le=timedelta(days=30))] = timedelta(hours=1)
    """How long the old key still works."""


class RunBody(Frozen):
    """A one-off command in a service's surroundings."""

    service: str = Field(default="", max_length=63)
    command: tuple[str, ...] = Field(min_length=1, max_length=1000)


class KeyBody(Frozen):
    name: str = Field(min_length=1, max_length=100)
    scopes: tuple[str, ...] = Field(default=("read",), max_length=4)
    expires_at: datetime | None = None


class KeyView(Frozen):
    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class NewKey(Frozen):
    key: str = Field(repr=False)
    """Shown this once."""
    id: str


class TokenBody(Frozen):
    token: str = Field(max_length=200, repr=False)


class Health(Frozen):
    status: str
    version: str
    pid: int
    edge: bool


class Version(Frozen):
    version: str
    python: str
    sqlite: str


class Identified(Frozen):
    project: str


class Events(Frozen):
    events: tuple[EventView, ...]


class Removed(Frozen):
    removed: tuple[str, ...]


class Accepted(Frozen):
    accepted: bool = True
