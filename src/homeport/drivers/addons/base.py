"""The Protocol of an add-on driver, and the frozen values it speaks in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from pydantic import Field

from homeport.model.addon import AddOn
from homeport.model.base import Frozen


class AddOnId(Frozen):
    """Which add-on: `folder` under `addons/` is `<project>-<environment>-<name>`."""

    project: str
    environment: str
    name: str

    @property
    def slug(self) -> str:
        return f"{self.project}-{self.environment}-{self.name}"


class Seed(Frozen):
    """A file that an empty database is filled from."""

    path: str
    """As the project names it."""
    file: Path
    """Where its content lies."""


class AddOnRequest(Frozen):
    """An add-on as it should be."""

    id: AddOnId
    definition: AddOn
    user: int | None = None
    """uid the engine runs as, when Homeport is root."""
    consumers: tuple[str, ...] = ()
    """Services that get credentials of their own."""
    passwords: dict[str, str] = Field(default={}, repr=False)
    """By consumer, the owner's own under the empty name. They come from the vault; the driver keeps none on disk in the clear."""
    seeds: tuple[Seed, ...] = ()
    """Files that a new database is filled from, in this order."""
    host: str = ""
    """Loopback address it listens on; empty lets the driver choose one that no other add-on has, and keep it."""
    port: int = 0
    """0 lets the driver choose and keep it: the engine's usual one where it is free on `host`, so that files that name it are right."""


class Credentials(Frozen):
    """How a consumer connects. `properties` are what `fromDatabase` and its like can ask for."""

    user: str = ""
    password: str = Field(default="", repr=False)
    host: str = ""
    port: int = 0
    database: str = ""
    url: str = Field(default="", repr=False)
    env: dict[str, str] = Field(default={}, repr=False)
    """Conventional variables: `DATABASE_URL`, `PGHOST`, …"""
    direct: Credentials | None = Field(default=None, repr=False)
    """The same login past the pool, where there is one: for migrations, and whatever else needs a session of its own."""


class Provisioned(Frozen):
    """A running add-on."""

    id: AddOnId
    kind: str
    engine: str
    """`postgresql 18.4 (bundled)`, …"""
    host: str
    port: int
    socket: str = ""
    folder: Path
    credentials: dict[str, Credentials] = Field(default={}, repr=False)
    """By consumer; the owner's own under the empty name."""
    replicas: tuple[str, ...] = ()
    """`host:port` of each read replica; credentials are those of the primary."""
    pool: str = ""
    """`host:port` of the pool, when there is one."""
    gate: int = 0
    """Port of all the machine's addresses that allowed networks reach it by; 0 when none are."""
    notes: tuple[str, ...] = ()


class SlowQuery(Frozen):
    """Statements of one shape that took long."""

    statement: str
    """Without the values in it."""
    count: int = 0
    total_ms: float = 0.0
    longest_ms: float = 0.0


class Inspection(Frozen):
    """What an add-on is doing."""

    running: bool
    version: str = ""
    pid: int = 0
    size: int = 0
    """Bytes on disk."""
    memory: int = 0
    """Resident bytes (proportional share where the kernel tells it)."""
    connections: int = 0
    metrics: dict[str, float] = {}
    detail: dict[str, str] = {}
    slow: tuple[SlowQuery, ...] = ()
    """The statements that took longest together, where the engine tells."""


class BackupRef(Frozen):
    """One backup of one add-on."""

    id: str
    addon: AddOnId
    kind: str
    taken_at: datetime
    size: int
    digest: str
    folder: str
    proven_at: datetime | None = None
    metadata: dict[str, str] = {}


class AddOnDriver(Protocol):
    """Keeps one kind of add-on. Every method may be called twice: after a crash, it will be."""

    kind: ClassVar[str]

    def check(self, definition: AddOn) -> Sequence[str]:
        """What this machine cannot give of the definition, one sentence each; [] when all. Asked by the planner."""

    def notes(self, definition: AddOn) -> Sequence[str]:
        """What it gives in another way than the definition says, one sentence each; [] when nothing. No reason to stop a plan."""

    def provision(self, request: AddOnRequest) -> Provisioned:
        """Create or adjust, start, and return it with credentials. Existing data is never touched."""

    def rotate(self, id: AddOnId, consumer: str) -> Credentials:
        """New password for a consumer; the old one works until `retire_old`."""

    def retire_old(self, id: AddOnId, consumer: str) -> None: ...

    def inspect(self, id: AddOnId) -> Inspection: ...

    def start(self, id: AddOnId) -> None: ...

    def stop(self, id: AddOnId) -> None: ...

    def back_up(self, id: AddOnId, target: Path) -> BackupRef:
        """A consistent copy in `target`, with checksums."""

    def restore(self, backup: BackupRef, source: Path, into: AddOnId) -> Provisioned:
        """A new add-on from a backup. Never touches a running one."""

    def upgrade(self, id: AddOnId, version: str) -> Provisioned:
        """Move to another major version; on failure the old one runs again, unchanged."""

    def destroy(self, id: AddOnId) -> Path:
        """Stop, and move the data to a tombstone that is kept 7 days; returns its folder."""

    def undo_destroy(self, id: AddOnId, grave: Path) -> None:
        """Take a destroyed add-on back from its tombstone, and start it."""

    def ensure(self) -> Sequence[AddOnId]:
        """Start again every add-on that should run and does not; returns those. To be called on every exit and now and then."""

    def on_exit(self, listener: Callable[[AddOnId], None]) -> None:
        """Call `listener` soon after a server has ended, wanted or not. It must be quick."""

    def logs(self, id: AddOnId, tail: int = 100) -> list[str]: ...


@runtime_checkable
class HasPool(Protocol):
    """An engine with a connection pool that outlives the wish for it."""

    def close_pool(self, id: AddOnId) -> bool:
        """Take down a pool that nobody uses any more; whether there was one. Raises InterruptedError while the add-on is being changed."""


@runtime_checkable
class HasClient(Protocol):
    """An engine with a command-line client."""

    def client(self, id: AddOnId) -> str:
        """Path of the client that fits this add-on's server; empty when this machine has none."""
