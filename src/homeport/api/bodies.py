"""What callers send. Every field has a bound."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from homeport.model.base import Frozen, Name
from homeport.model.views import EventView

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
    confirmed: bool = False
    """Accept what the deploy would take away."""
    strict: bool = False
    """Refuse files with keys that nobody knows."""


class RollbackBody(Frozen):
    release: int = Field(default=0, ge=0)
    """Number of the release; 0 is the one before."""
    reason: str = Field(default="", max_length=500)


class ScaleBody(Frozen):
    services: dict[str, int] = Field(max_length=100)


class EnvBody(Frozen):
    """Variables to set and unset; a name is `KEY` or `service/KEY`."""

    set: dict[str, str] = Field(default={}, max_length=1000, repr=False)
    unset: tuple[str, ...] = Field(default=(), max_length=1000)
    source: str = Field(default="api", max_length=32)


class EnvResult(Frozen):
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]


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
