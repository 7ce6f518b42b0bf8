"""What the doors show: the answers of the API, field by field."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from homeport.model.base import Frozen


class InstanceView(Frozen):
    """One instance, as it is and as it should be."""

    id: str
    service: str
    release: str
    role: str
    state: str
    address: str = ""
    pid: int = 0
    memory: int = 0
    """Resident bytes."""
    cpu_seconds: float = 0
    restarts: int = 0
    crashes: int = 0
    started_at: datetime | None = None
    detail: str = ""


class ServiceStatus(Frozen):
    """One service of what is live."""

    name: str
    kind: str
    url: str | None = None
    wanted: int = 0
    healthy: int = 0
    state: str = ""
    """`live`, `degraded`, `down`, `scheduled`, `served`, `stopped` or `skipped`."""
    detail: str = ""
    """For a scheduled job its next run."""


class EnvironmentView(Frozen):
    """One environment."""

    project: str
    environment: str
    origin: str = ""
    release: str = ""
    live_since: datetime | None = None
    commit: str = ""
    deploying: str = ""
    """Id of the deploy that runs now."""
    watched_until: datetime | None = None
    services: tuple[ServiceStatus, ...] = ()
    addons: tuple[str, ...] = ()
    unwell_addons: dict[str, str] = {}
    """External add-ons that did not answer when last asked, with the reason."""


class ReleaseView(Frozen):
    """One release."""

    id: str
    state: str
    created_at: datetime
    created_by: str = ""
    live_at: datetime | None = None
    commit: str = ""
    dirty: bool = False
    message: str = ""
    blueprint: str = ""
    services: tuple[str, ...] = ()
    reason: str = ""


class EventView(Frozen):
    """One thing that happened."""

    seq: int
    at: datetime
    project: str = ""
    environment: str = ""
    kind: str
    actor: str = ""
    subject: str = ""
    text: str = ""
    data: dict[str, Any] = {}


class VariableView(Frozen):
    """One variable of a service, without its value."""

    service: str
    key: str
    origin: str
    """`file`, `group <name>`, `generated`, `external`, `set`, `reference` or `missing`; of those that nobody names, `add-on`, `service` or
    `platform`."""
    version: int = 0
    set_by: str = ""
    set_at: datetime | None = None
    value: str | None = None
    """Only for plain values of the file, or when revealed."""
    source: str = ""
    """How a value of the vault came there: `cli`, `api`, `file`, `terminal`, `generated`, `external`, `restored`."""
    note: str = ""
    """For a value of an outside store, which one and where; for a restored value, its version."""
    hides: tuple[str, ...] = ()
    """What has another value for the same key and loses against this one, strongest first: `file`, `group shared`."""


class SecretVersion(Frozen):
    """One version of a variable, without its value."""

    name: str
    version: int
    state: str
    source: str
    created_at: datetime
    created_by: str
    note: str = ""


class AuditView(Frozen):
    """One row of the audit log."""

    seq: int
    at: datetime
    actor: str
    origin: str = ""
    action: str
    subject: str
    previous: str
    digest: str
    """SHA-256 over the previous digest and this row."""


class ValueRotation(Frozen):
    """What rotating a variable did. It takes effect with the next deploy."""

    name: str
    version: int
    """Of the new value."""
    previous: str = ""
    """Entry that holds the former value meanwhile."""
    until: datetime | None = None
    """When deploys no longer hand out the former value."""
    dropped: datetime | None = None
    """Until when an earlier former value was promised, whose place the former one takes; None when there is none."""


class AuditReport(Frozen):
    """Whether the audit log is whole."""

    ok: bool
    rows: int
    """Rows that are known to be as they were written."""
    broken_at: int = 0
    """Number of the first row that is not; 0 when all are."""
    why: str = ""
    head: str = ""
    """Digest of the last good row: keep it elsewhere to prove later that nothing was changed up to here."""


class VaultView(Frozen):
    """The vault's keys by name."""

    key: str
    """Fingerprint of the vault key."""
    place: str
    """Where the key is kept: `vault.key`, `HOMEPORT_VAULT_KEY` or `HOMEPORT_VAULT_KEY_COMMAND`."""
    generation: int
    """Counts every change of keys."""
    data_key: int
    """Number of the data key that new values are sealed with."""
    data_keys: dict[str, int]
    """How many values each data key has sealed."""
    rekeyed: str = ""
    values: int = 0
    unreadable: int = 0
    """How many of the values do not open: their key was lost, or their rows were changed by something else."""


class LostValue(Frozen):
    """A value in use that does not open."""

    project: str
    environment: str
    name: str
    version: int
    source: str
    """`cli`, `api`, `file`, `generated`, …"""
    fix: str
    """What gives it another value."""


class RenewedAddOn(Frozen):
    """An add-on whose passwords did not open."""

    project: str
    environment: str
    addon: str
    error: str = ""
    """Why it has no new ones; empty when it has."""


class VaultRenewal(Frozen):
    """What was done about values that do not open, and what is left to do."""

    addons: tuple[RenewedAddOn, ...] = ()
    values: tuple[LostValue, ...] = ()


class EnvChange(Frozen):
    """What a restore did, or would do, to one variable."""

    name: str
    action: Literal["set", "unset"]
    version: int = 0
    """The version whose value comes back."""


class EnvDifference(Frozen):
    """One variable of two environments or releases, compared without its value."""

    service: str
    key: str
    status: Literal["different", "only-left", "only-right", "same"]
    left: str = ""
    """Where the value comes from there."""
    right: str = ""


class StoreView(Frozen):
    """An outside secret store, without its credentials."""

    name: str
    kind: str
    address: str = ""
    options: dict[str, str] = {}
    projects: tuple[str, ...] = ()
    created_at: datetime | None = None
    created_by: str = ""
    problems: tuple[str, ...] = ()


class CronView(Frozen):
    """One scheduled job."""

    service: str
    schedule: str
    timezone: str = "UTC"
    next: datetime | None = None
    last: datetime | None = None
    status: str = ""
    code: int | None = None
    detail: str = ""


class CronRunView(Frozen):
    """One run of a scheduled job."""

    id: str
    service: str
    release: str
    trigger: str
    status: str
    scheduled_for: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    code: int | None = None
    detail: str = ""


class DeployView(Frozen):
    """One deploy."""

    id: str
    project: str
    environment: str
    kind: str
    status: str
    actor: str = ""
    requested_at: datetime
    finished_at: datetime | None = None
    result: dict[str, Any] | None = None


class SlowQueryView(Frozen):
    """Statements of one shape that took long."""

    statement: str
    """Without the values in it."""
    count: int
    total_ms: float
    longest_ms: float


class AddOnView(Frozen):
    """One add-on of what is live."""

    name: str
    kind: str
    """`postgres`, `redis`, `temporal`, `mariadb`, or for an outside service its type."""
    engine: str = ""
    """`postgresql 18.4 (bundled)`; `external` for a service somebody else runs."""
    state: str = ""
    """`running`, `unwell` (it runs and does not answer), `stopped`, `down`, `missing`; of an external one `well`, `unwell`, `unknown`."""
    detail: str = ""
    host: str = ""
    port: int = 0
    replicas: tuple[str, ...] = ()
    pool: str = ""
    """`host:port` of its connection pool."""
    gate: int = 0
    """Port that its allowed networks reach it by, with TLS; 0 when there is none."""
    size: int = 0
    """Bytes on disk."""
    memory: int = 0
    """Bytes of memory, shared pages counted once."""
    connections: int = 0
    aliases: tuple[str, ...] = ()
    """Other names that services reach it by."""
    consumers: tuple[str, ...] = ()
    """Services with credentials of their own."""
    metrics: dict[str, float] = {}
    facts: dict[str, str] = {}
    slow: tuple[SlowQueryView, ...] = ()
    """The statements that took longest together, as the server's log tells them."""
    notes: tuple[str, ...] = ()


class ConnectionView(Frozen):
    """How to connect to an add-on as its owner."""

    kind: str
    host: str
    port: int
    user: str = ""
    password: str = Field(default="", repr=False)
    database: str = ""
    url: str = Field(default="", repr=False)
    client: str = ""
    """The engine's command-line client on the machine of the control plane; empty where there is none."""


class KeptView(Frozen):
    """Data of an add-on that was put aside, by a removal or a restore."""

    tombstone: str
    """Name of its folder in `tombstones/`."""
    addon: str
    kind: str
    since: datetime
    until: datetime
    """When it is removed for good."""


class UndoneView(Frozen):
    """An add-on that has its former data again."""

    addon: str
    tombstone: str
    """Where that data was kept."""
    former: str = ""
    """Where the data is kept that it had until now; empty when it had none."""


class RotationView(Frozen):
    """Passwords that were changed."""

    addon: str
    consumers: tuple[str, ...]
    """Services with a new password; the owner's under the empty name."""
    deploy: str = ""
    """The deploy that hands them out; empty when the next one does."""
