"""Services: what runs. One class per kind over a common base."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from homeport.model.base import Duration, Frozen, Json, Name, Size
from homeport.model.container import ContainerOptions, Port
from homeport.model.env import Env, EnvFile

Command = tuple[str, ...] | str
"""An argv list, or one command line. A line without shell syntax is split and run without a shell."""


class Build(Frozen):
    """How source becomes an artifact."""

    builder: Literal["auto", "command", "dockerfile", "image", "buildpacks", "none"] = "auto"
    """`auto` detects the language; `command` runs only `command`; `none` uses the source as it is."""
    command: str = ""
    """Build command line; empty means the detected one."""
    install: str = ""
    """Dependency install command line; empty means the detected one."""
    prebuild: tuple[str, ...] = ()
    image: str = ""
    """Image to run when `builder` is `image`, or the name that a built one gets."""
    registry_credentials: str = ""
    dockerfile: str = ""
    """Path of the Dockerfile, relative to the repository root."""
    dockerfile_inline: str = ""
    context: str = ""
    """Build context, relative to the repository root."""
    target: str = ""
    args: Env = {}
    env: Env = {}
    """Variables seen by the build only."""
    buildpacks: tuple[str, ...] = ()
    stack: str = ""
    runtime: str = ""
    """Language named by the file: `node`, `python`, `go`, `ruby`, `rust`, `elixir`, `docker`, `static`, …"""
    runtime_version: str = ""
    framework: str = ""
    """Framework preset (`nextjs`, `vite`, …)."""
    ignore_command: str = ""
    """Exit 0 means: nothing to build for this revision."""
    cache: bool = True
    options: dict[str, Json] = {}
    """Options of another builder (labels, ssh, platforms, …), acted upon by the container builder."""


class BuildFilter(Frozen):
    """Which changed files rebuild a service. Globs are relative to the repository root."""

    paths: tuple[str, ...] = ()
    """Empty means all."""
    ignored_paths: tuple[str, ...] = ()


class Resources(Frozen):
    """What one instance may use."""

    plan: str = ""
    """Size by name; the operator's table maps it to cpu and memory."""
    cpu: float | None = Field(default=None, gt=0)
    """Cores."""
    memory: Size | None = None
    cpu_reserved: float | None = Field(default=None, ge=0)
    memory_reserved: Size | None = None
    swap: Size | None = None
    pids: int | None = None
    gpu: str = ""
    cpu_kind: str = ""


class Scale(Frozen):
    """How many instances run, fixed or between bounds."""

    instances: int = Field(default=1, ge=0, le=1000)
    min: int | None = Field(default=None, ge=0)
    max: int | None = Field(default=None, ge=0)
    target_cpu: float | None = None
    """Percent of the allowed cpu at which one more instance starts."""
    target_memory: float | None = None
    """Percent."""
    target_concurrency: int | None = None
    """Requests in flight per instance at which one more starts."""
    hard_concurrency: int | None = None
    concurrency_type: Literal["", "requests", "connections"] = ""
    regions: dict[str, int] = {}
    """Instances by region name."""
    scale_to_zero: bool = False
    sleep_after: Duration | None = None
    cooldown: Duration | None = None


class HealthCheck(Frozen):
    """When an instance counts as well."""

    kind: Literal["http", "tcp", "command", "none"] = "http"
    role: Literal["ready", "live", "startup", "monitor"] = "ready"
    name: str = ""
    path: str = "/"
    port: str = ""
    """Port number or name; empty means the service's own."""
    method: str = "GET"
    headers: dict[str, str] = {}
    body: str = ""
    expect_status: tuple[int, int] = (200, 399)
    """Inclusive range of good answers. Render and Kubernetes count 2xx and 3xx as well."""
    expect_body: str = ""
    """Text the answer must contain."""
    command: tuple[str, ...] | str = ()
    tls: bool = False
    tls_skip_verify: bool = False
    tls_server_name: str = ""
    interval: Duration | None = None
    """Between checks; default 1 s while starting, 10 s after."""
    timeout: Duration | None = None
    """Of one check; default 5 s."""
    retries: int | None = None
    """Failures in a row that make it unwell; default 3."""
    start_period: Duration | None = None
    """Failures that do not count at first."""
    start_interval: Duration | None = None
    deadline: Duration | None = None
    """How long a new instance may take to become well; default 60 s."""
    restart_after: int | None = None
    """Failures in a row after which the instance is restarted."""


class Disk(Frozen):
    """Storage mounted into an instance."""

    name: str = ""
    mount_path: str
    kind: Literal["volume", "bind", "tmpfs", "image", "npipe", "cluster", "config", "secret"] = "volume"
    source: str = ""
    """Volume name or host path; empty for an anonymous one."""
    size: Size | None = None
    read_only: bool = False
    subpath: str = ""
    initial_size: Size | None = None
    grow_threshold: float | None = None
    grow_by: Size | None = None
    grow_limit: Size | None = None
    snapshot_retention: int | None = None
    """Days."""
    processes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Files of the source, relative to the repository root, that live on the disk: links lead there. One that the source brings is its
    first content."""
    options: dict[str, Json] = {}


class Restart(Frozen):
    """What happens when an instance ends by itself."""

    policy: Literal["always", "on-failure", "never", "unless-stopped"] = "always"
    max_retries: int | None = None
    delay: Duration | None = None
    window: Duration | None = None


class Rollout(Frozen):
    """How a new release replaces the old one."""

    strategy: Literal["", "overlap", "hold", "rolling", "canary", "bluegreen", "immediate"] = ""
    """`overlap` starts the new beside the old; `hold` stops the old first while the edge holds requests.
    Empty: `hold` with a disk, else `overlap`."""
    overlap: Duration | None = None
    """How long the old keeps running after the switch."""
    max_unavailable: str = ""
    max_surge: str = ""
    parallelism: int | None = None
    delay: Duration | None = None
    on_failure: Literal["", "rollback", "pause", "continue"] = ""
    order: Literal["", "start-first", "stop-first"] = ""
    monitor: Duration | None = None
    max_failure_ratio: float | None = None
    rollback: dict[str, Json] = {}
    wait_timeout: Duration | None = None


class DependsOn(Frozen):
    """Start after another service or add-on."""

    service: str
    condition: Literal["started", "healthy", "completed"] = "started"
    restart: bool = False
    required: bool = True


class PushTrigger(Frozen):
    """Deploys when the repository changes."""

    kind: Literal["push"] = "push"
    when: Literal["commit", "checks-pass", "off"] = "commit"
    branch: str = ""
    repository: str = ""


class ScheduleTrigger(Frozen):
    """Calls a path of the service on a schedule."""

    kind: Literal["schedule"] = "schedule"
    schedule: str
    """Five-field cron expression, UTC."""
    path: str = "/"
    name: str = ""


class QueueTrigger(Frozen):
    """Hands batches of a queue to a function."""

    kind: Literal["queue"] = "queue"
    queue: str
    max_batch_size: int | None = None
    max_batch_timeout: Duration | None = None
    max_retries: int | None = None
    dead_letter_queue: str = ""
    max_concurrency: int | None = None
    retry_delay: Duration | None = None
    type: str = ""
    options: dict[str, Json] = {}


Trigger = Annotated[PushTrigger | ScheduleTrigger | QueueTrigger, Field(discriminator="kind")]


class Hook(Frozen):
    """A command the platform runs at a moment of a deploy, once per release, with the release's environment."""

    command: Command
    timeout: Duration | None = None
    """Default 30 min."""
    options: dict[str, Json] = {}


class Domain(Frozen):
    """A custom host name."""

    host: str
    path: str = ""
    redirect_to: str = ""
    tls: bool = True
    options: dict[str, Json] = {}


class PreviewOptions(Frozen):
    """How the service differs in previews."""

    generation: Literal["", "off", "manual", "automatic"] = ""
    plan: str = ""
    instances: int | None = None
    expire_after_days: int | None = None


class ServiceBase(Frozen):
    """What every service has."""

    title: str = ""
    """The name as the file writes it, when it is not a valid name."""
    aliases: tuple[str, ...] = ()
    """Other host names that services of the project reach it by."""
    root: str = ""
    """Folder of the service, relative to the repository root; empty is the root."""
    repository: str = ""
    """Git address when it is not this repository."""
    build: Build = Build()
    build_filter: BuildFilter = BuildFilter()
    command: Command = ""
    """Start command; empty means the detected one."""
    env: Env = {}
    env_groups: tuple[str, ...] = ()
    env_files: tuple[EnvFile, ...] = ()
    resources: Resources = Resources()
    scale: Scale = Scale()
    disks: tuple[Disk, ...] = ()
    restart: Restart = Restart()
    rollout: Rollout = Rollout()
    release_command: Hook | None = None
    """Runs once before the new release starts (migrations). Failure stops the deploy."""
    first_deploy_command: Hook | None = None
    """Runs once after the very first deploy of an environment (Heroku's `postdeploy`)."""
    hooks: dict[str, Hook] = {}
    """Other moments a dialect names: `post_start`, `pre_stop`, `pr-predestroy`, …"""
    shutdown_grace: Duration | None = None
    """Between the stop signal and SIGKILL; default 30 s."""
    stop_signal: str = ""
    """Default SIGTERM."""
    depends_on: tuple[DependsOn, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    previews: PreviewOptions = PreviewOptions()
    region: str = ""
    health: HealthCheck | None = None
    checks: tuple[HealthCheck, ...] = ()
    """Further checks beside `health`."""
    ports: tuple[Port, ...] = ()
    """Ports beside the main one, or published on the host."""
    profiles: tuple[str, ...] = ()
    """Runs only when one of these profiles is active; empty means always."""
    container: ContainerOptions = ContainerOptions()
    """What only the container runtime acts upon."""
    pipeline: str = ""
    """Name of the pipeline that gates its deploys."""
    notifications: str = ""
    extensions: dict[str, Json] = {}
    """What a dialect says that no driver serves; kept so that it can be written back."""


class Listening(ServiceBase):
    """A service that answers on a port."""

    port: int | None = Field(default=None, ge=1, le=65535)
    """Port the program insists on; None lets Homeport choose and tell it as `PORT`."""
    protocol: Literal["http", "h2c", "tcp", "https"] = "http"


class Maintenance(Frozen):
    """Answers 503 for a web service instead of passing requests on."""

    enabled: bool = False
    page: str = ""
    """Path or URL of the page shown."""


class WebService(Listening):
    """Answers the public through the edge."""

    kind: Literal["web"] = "web"
    domains: tuple[Domain, ...] = ()
    default_domain: bool = True
    """Whether the generated host name also answers."""
    maintenance: Maintenance = Maintenance()
    ip_allow_list: tuple[str, ...] | None = None
    """CIDRs; None means everybody."""
    force_https: bool = False
    sticky: bool = False
    edge: dict[str, Json] = {}
    """Edge options of a dialect (TLS versions, proxy protocol, …)."""


class PrivateService(Listening):
    """Answers other services of its project only."""

    kind: Literal["private"] = "private"


class WorkerService(ServiceBase):
    """Runs without a port."""

    kind: Literal["worker"] = "worker"


class CronService(ServiceBase):
    """Runs to its end on a schedule."""

    kind: Literal["cron"] = "cron"
    schedule: str
    """Five-field cron expression."""
    timezone: str = "UTC"
    concurrency: Literal["forbid", "allow", "replace"] = "forbid"
    timeout: Duration | None = None
    job: bool = False
    """Runs once per deploy instead of on a schedule; `schedule` is then empty."""


class StaticService(ServiceBase):
    """Files served by the edge."""

    kind: Literal["static"] = "static"
    publish: str = ""
    """Folder of the built files, relative to `root`."""
    domains: tuple[Domain, ...] = ()
    default_domain: bool = True
    clean_urls: bool = False
    trailing_slash: bool | None = None
    single_page: bool = False
    """Unknown paths answer `index.html`."""
    not_found_page: str = ""
    ip_allow_list: tuple[str, ...] | None = None
    maintenance: Maintenance = Maintenance()


class Binding(Frozen):
    """A resource a function sees under a name."""

    kind: str
    """`kv`, `r2`, `d1`, `durable-object`, `queue`, `service`, `ai`, `vectorize`, `hyperdrive`, `analytics`, `browser`, …"""
    name: str
    resource: str = ""
    options: dict[str, Json] = {}


class FunctionService(ServiceBase):
    """Code called per request."""

    kind: Literal["function"] = "function"
    runtime: Literal["workerd", "node", "python", "edge", "go", "ruby", "other"] = "workerd"
    entrypoint: str = ""
    compatibility_date: str = ""
    compatibility_flags: tuple[str, ...] = ()
    bindings: tuple[Binding, ...] = ()
    assets: StaticService | None = None
    """Static files served before or beside the function."""
    domains: tuple[Domain, ...] = ()
    default_domain: bool = True
    max_duration: Duration | None = None
    memory: Size | None = None
    regions: tuple[str, ...] = ()
    path: str = ""
    """Path it answers, when it belongs to one (`/api/hello`)."""


Service = Annotated[
    WebService | PrivateService | WorkerService | CronService | StaticService | FunctionService, Field(discriminator="kind")
]
Services = dict[Name, Service]
