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
    """Command lines to run before the build."""
    image: str = ""
    """Image to run when `builder` is `image`, or the name that a built one gets."""
    registry_credentials: str = ""
    """Name of the credentials that fetch the image."""
    dockerfile: str = ""
    """Path of the Dockerfile, relative to the repository root."""
    dockerfile_inline: str = ""
    """Text of a Dockerfile in place of a file."""
    context: str = ""
    """Build context, relative to the repository root."""
    target: str = ""
    """Stage of the Dockerfile to stop at."""
    args: Env = {}
    """Arguments of the Dockerfile."""
    env: Env = {}
    """Variables seen by the build only."""
    buildpacks: tuple[str, ...] = ()
    """Buildpacks by name or address."""
    stack: str = ""
    """Base image of buildpacks."""
    runtime: str = ""
    """Language named by the file: `node`, `python`, `go`, `ruby`, `rust`, `elixir`, `docker`, `static`, …"""
    runtime_version: str = ""
    """Version of the language; the source's own files come first."""
    framework: str = ""
    """Framework preset (`nextjs`, `vite`, …)."""
    ignore_command: str = ""
    """Exit 0 means: nothing to build for this revision."""
    cache: bool = True
    """Use layers of earlier builds."""
    options: dict[str, Json] = {}
    """Options of another builder (labels, ssh, platforms, …), acted upon by the container builder."""


class BuildFilter(Frozen):
    """Which changed files rebuild a service. Globs are relative to the repository root."""

    paths: tuple[str, ...] = ()
    """Empty means all."""
    ignored_paths: tuple[str, ...] = ()
    """Changes here alone rebuild nothing."""


class Resources(Frozen):
    """What one instance may use."""

    plan: str = ""
    """Size by name; the operator's table maps it to cpu and memory."""
    cpu: float | None = Field(default=None, gt=0)
    """Cores."""
    memory: Size | None = None
    """Most memory, in bytes."""
    cpu_reserved: float | None = Field(default=None, ge=0)
    """Cores it counts on."""
    memory_reserved: Size | None = None
    """Memory it counts on."""
    swap: Size | None = None
    """Most swap."""
    pids: int | None = None
    """Most processes and threads."""
    gpu: str = ""
    """Kind of graphics processor."""
    cpu_kind: str = ""
    """`shared` or `performance`, as Fly has it."""


class Scale(Frozen):
    """How many instances run, fixed or between bounds."""

    instances: int = Field(default=1, ge=0, le=1000)
    """How many run, unless `homeport scale` says otherwise."""
    min: int | None = Field(default=None, ge=0)
    """Fewest, when something scales it."""
    max: int | None = Field(default=None, ge=0)
    """Most, when something scales it."""
    target_cpu: float | None = None
    """Percent of the allowed cpu at which one more instance starts."""
    target_memory: float | None = None
    """Percent."""
    target_concurrency: int | None = None
    """Requests in flight per instance at which one more starts."""
    hard_concurrency: int | None = None
    """Requests in flight per instance past which no more are sent to it."""
    concurrency_type: Literal["", "requests", "connections"] = ""
    """What `target_concurrency` counts."""
    regions: dict[str, int] = {}
    """Instances by region name."""
    scale_to_zero: bool = False
    """May run no instance while nobody calls."""
    sleep_after: Duration | None = None
    """Idle time until it sleeps."""
    cooldown: Duration | None = None
    """Least time between two changes of the number."""


class HealthCheck(Frozen):
    """When an instance counts as well."""

    kind: Literal["http", "tcp", "command", "none"] = "http"
    """`http` asks a path, `tcp` connects, `command` runs inside the instance, `none` only looks whether it runs."""
    role: Literal["ready", "live", "startup", "monitor"] = "ready"
    """`ready` decides whether it gets requests, `live` whether it is restarted, `startup` counts only at first, `monitor` only reports."""
    name: str = ""
    """Name, where there are several."""
    path: str = "/"
    """Path to ask."""
    port: str = ""
    """Port number or name; empty means the service's own."""
    method: str = "GET"
    """HTTP method."""
    headers: dict[str, str] = {}
    """Headers to send."""
    body: str = ""
    """Body to send."""
    expect_status: tuple[int, int] = (200, 399)
    """Inclusive range of good answers. Render and Kubernetes count 2xx and 3xx as well."""
    expect_body: str = ""
    """Text the answer must contain."""
    command: tuple[str, ...] | str = ()
    """Command to run; exit code 0 is well."""
    tls: bool = False
    """Ask with TLS."""
    tls_skip_verify: bool = False
    """Accept any certificate."""
    tls_server_name: str = ""
    """Name to expect in the certificate."""
    interval: Duration | None = None
    """Between checks; default 1 s while starting, 10 s after."""
    timeout: Duration | None = None
    """Of one check; default 5 s."""
    retries: int | None = None
    """Failures in a row that make it unwell; default 3."""
    start_period: Duration | None = None
    """Failures that do not count at first."""
    start_interval: Duration | None = None
    """Between checks during `start_period`."""
    deadline: Duration | None = None
    """How long a new instance may take to become well; default 60 s."""
    restart_after: int | None = None
    """Failures in a row after which the instance is restarted."""


class Disk(Frozen):
    """Storage mounted into an instance."""

    name: str = ""
    """Name of the disk."""
    mount_path: str
    """Absolute path in the instance."""
    kind: Literal["volume", "bind", "tmpfs", "image", "npipe", "cluster", "config", "secret"] = "volume"
    """`volume` keeps data across releases; the others are views of something else."""
    source: str = ""
    """Volume name or host path; empty for an anonymous one."""
    size: Size | None = None
    """Wanted size."""
    read_only: bool = False
    """Instances cannot write."""
    subpath: str = ""
    """Folder of the volume that is mounted."""
    initial_size: Size | None = None
    """Size to begin with, where it grows by itself."""
    grow_threshold: float | None = None
    """Percent full at which it grows."""
    grow_by: Size | None = None
    """By how much it grows."""
    grow_limit: Size | None = None
    """How far it grows."""
    snapshot_retention: int | None = None
    """Days."""
    processes: tuple[str, ...] = ()
    """Process groups that mount it; empty means all."""
    files: tuple[str, ...] = ()
    """Files of the source, relative to the repository root, that live on the disk: links lead there. One that the source brings is its
    first content."""
    options: dict[str, Json] = {}
    """What else the driver is told."""


class Restart(Frozen):
    """What happens when an instance ends by itself."""

    policy: Literal["always", "on-failure", "never", "unless-stopped"] = "always"
    """Whether an ended instance starts again."""
    max_retries: int | None = None
    """Starts in a row before it stays down; None: without end, ever more slowly."""
    delay: Duration | None = None
    """Wait before the first restart."""
    window: Duration | None = None
    """How long it has to run to count as started."""


class Rollout(Frozen):
    """How a new release replaces the old one."""

    strategy: Literal["", "overlap", "hold", "rolling", "canary", "bluegreen", "immediate"] = ""
    """`overlap` starts the new beside the old; `hold` stops the old first while the edge holds requests.
    Empty: `hold` with a disk, else `overlap`."""
    overlap: Duration | None = None
    """How long the old keeps running after the switch."""
    max_unavailable: str = ""
    """Instances that may be missing meanwhile: a number or a percentage."""
    max_surge: str = ""
    """Instances that may be there on top: a number or a percentage."""
    parallelism: int | None = None
    """Instances replaced at once."""
    delay: Duration | None = None
    """Wait between two groups."""
    on_failure: Literal["", "rollback", "pause", "continue"] = ""
    """What follows when an instance does not become well."""
    order: Literal["", "start-first", "stop-first"] = ""
    """`start-first` is `overlap`, `stop-first` is `hold`."""
    monitor: Duration | None = None
    """How long an instance is observed before the next."""
    max_failure_ratio: float | None = None
    """Share of failed instances that is borne."""
    rollback: dict[str, Json] = {}
    """The same settings for going back."""
    wait_timeout: Duration | None = None
    """Most time for the whole."""


class DependsOn(Frozen):
    """Start after another service or add-on."""

    service: str
    """Service or add-on."""
    condition: Literal["started", "healthy", "completed"] = "started"
    """What has to be true of it first."""
    restart: bool = False
    """Restart with it."""
    required: bool = True
    """Without it this service does not start."""


class PushTrigger(Frozen):
    """Deploys when the repository changes."""

    kind: Literal["push"] = "push"
    when: Literal["commit", "checks-pass", "off"] = "commit"
    """`commit`: any push; `checks-pass`: after CI is green; `off`."""
    branch: str = ""
    """Branch that counts."""
    repository: str = ""
    """Repository that counts, when another."""


class ScheduleTrigger(Frozen):
    """Calls a path of the service on a schedule."""

    kind: Literal["schedule"] = "schedule"
    schedule: str
    """Five-field cron expression, UTC."""
    path: str = "/"
    """Path that is called."""
    name: str = ""
    """Name of the schedule."""


class QueueTrigger(Frozen):
    """Hands batches of a queue to a function."""

    kind: Literal["queue"] = "queue"
    queue: str
    """Queue."""
    max_batch_size: int | None = None
    """Most messages in a batch."""
    max_batch_timeout: Duration | None = None
    """Longest wait for a batch to fill."""
    max_retries: int | None = None
    """Attempts per message."""
    dead_letter_queue: str = ""
    """Queue for messages that failed every time."""
    max_concurrency: int | None = None
    """Batches at once."""
    retry_delay: Duration | None = None
    """Wait before another attempt."""
    type: str = ""
    """Kind of queue."""
    options: dict[str, Json] = {}
    """What else the file says of it."""


Trigger = Annotated[PushTrigger | ScheduleTrigger | QueueTrigger, Field(discriminator="kind")]


class Hook(Frozen):
    """A command the platform runs at a moment of a deploy, once per release, with the release's environment."""

    command: Command
    """The command."""
    timeout: Duration | None = None
    """Default 30 min."""
    options: dict[str, Json] = {}
    """What else the file says of it."""


class Domain(Frozen):
    """A custom host name."""

    host: str
    """Host name."""
    path: str = ""
    """Path below which it answers."""
    redirect_to: str = ""
    """Host it sends visitors to."""
    tls: bool = True
    """Whether it wants a certificate."""
    options: dict[str, Json] = {}
    """What else the file says of it."""


class PreviewOptions(Frozen):
    """How the service differs in previews."""

    generation: Literal["", "off", "manual", "automatic"] = ""
    """Whether previews get this service."""
    plan: str = ""
    """Size in previews."""
    instances: int | None = None
    """Instances in previews."""
    expire_after_days: int | None = None
    """Days after which it ends."""


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
    """How it is built."""
    build_filter: BuildFilter = BuildFilter()
    """Which changed files rebuild it."""
    command: Command = ""
    """Start command; empty means the detected one."""
    env: Env = {}
    """Variables; they win over those of groups and files."""
    env_groups: tuple[str, ...] = ()
    """Groups whose variables it gets; a later group wins over an earlier one."""
    env_files: tuple[EnvFile, ...] = ()
    """Dotenv files of the source whose variables it gets."""
    resources: Resources = Resources()
    """What one instance may use."""
    scale: Scale = Scale()
    """How many instances run."""
    disks: tuple[Disk, ...] = ()
    """Storage that survives releases."""
    restart: Restart = Restart()
    """What happens when an instance ends by itself."""
    rollout: Rollout = Rollout()
    """How a new release replaces the old one."""
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
    """What has to be there before it starts."""
    triggers: tuple[Trigger, ...] = ()
    """What deploys or calls it."""
    previews: PreviewOptions = PreviewOptions()
    """How it differs in previews."""
    region: str = ""
    """Region the file asks for; it runs where this Homeport runs."""
    health: HealthCheck | None = None
    """When an instance counts as well. Without one: it accepts connections, or has run for half a second."""
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
    """Who is told, in the file's own words."""
    extensions: dict[str, Json] = {}
    """What a dialect says that no driver serves; kept so that it can be written back."""


class Listening(ServiceBase):
    """A service that answers on a port."""

    port: int | None = Field(default=None, ge=1, le=65535)
    """Port the program insists on; None lets Homeport choose and tell it as `PORT`."""
    protocol: Literal["http", "h2c", "tcp", "https"] = "http"
    """What it speaks on its port."""


class Maintenance(Frozen):
    """Answers 503 for a web service instead of passing requests on."""

    enabled: bool = False
    """Whether it is on."""
    page: str = ""
    """Path or URL of the page shown."""


class WebService(Listening):
    """Answers the public through the edge."""

    kind: Literal["web"] = "web"
    domains: tuple[Domain, ...] = ()
    """Custom host names beside `<service>.<project>.localhost`."""
    default_domain: bool = True
    """Whether the generated host name also answers."""
    maintenance: Maintenance = Maintenance()
    """Answer 503 in place of passing requests on."""
    ip_allow_list: tuple[str, ...] | None = None
    """CIDRs; None means everybody."""
    force_https: bool = False
    """Send plain requests to https."""
    sticky: bool = False
    """Send a visitor's requests to the same instance."""
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
    """Time zone of the schedule, such as `Europe/Vienna`."""
    concurrency: Literal["forbid", "allow", "replace"] = "forbid"
    """What happens when the last run still goes on."""
    timeout: Duration | None = None
    """Most time of one run."""
    job: bool = False
    """Runs once per deploy instead of on a schedule; `schedule` is then empty."""


class StaticService(ServiceBase):
    """Files served by the edge."""

    kind: Literal["static"] = "static"
    publish: str = ""
    """Folder of the built files, relative to `root`."""
    domains: tuple[Domain, ...] = ()
    """Custom host names."""
    default_domain: bool = True
    """Whether it answers `<service>.<project>.localhost`."""
    clean_urls: bool = False
    """`/about` serves `about.html`."""
    trailing_slash: bool | None = None
    """Whether paths end with a slash; None leaves them."""
    single_page: bool = False
    """Unknown paths answer `index.html`."""
    not_found_page: str = ""
    """File answered for what is not there."""
    ip_allow_list: tuple[str, ...] | None = None
    """Networks that may ask; None is all."""
    maintenance: Maintenance = Maintenance()
    """Answer 503."""


class Binding(Frozen):
    """A resource a function sees under a name."""

    kind: str
    """`kv`, `r2`, `d1`, `durable-object`, `queue`, `service`, `ai`, `vectorize`, `hyperdrive`, `analytics`, `browser`, …"""
    name: str
    """Name in the code."""
    resource: str = ""
    """What it stands for."""
    options: dict[str, Json] = {}
    """What else the file says of it."""


class FunctionService(ServiceBase):
    """Code called per request."""

    kind: Literal["function"] = "function"
    runtime: Literal["workerd", "node", "python", "edge", "go", "ruby", "other"] = "workerd"
    """Language and engine."""
    entrypoint: str = ""
    """File of the handler."""
    compatibility_date: str = ""
    """Date of the platform's behaviour it was written for."""
    compatibility_flags: tuple[str, ...] = ()
    """Single behaviours on or off."""
    bindings: tuple[Binding, ...] = ()
    """Resources it sees."""
    assets: StaticService | None = None
    """Static files served before or beside the function."""
    domains: tuple[Domain, ...] = ()
    """Custom host names."""
    default_domain: bool = True
    """Whether it answers `<service>.<project>.localhost`."""
    max_duration: Duration | None = None
    """Most time of one call."""
    memory: Size | None = None
    """Most memory."""
    regions: tuple[str, ...] = ()
    """Regions it asks for."""
    path: str = ""
    """Path it answers, when it belongs to one (`/api/hello`)."""


Service = Annotated[
    WebService | PrivateService | WorkerService | CronService | StaticService | FunctionService, Field(discriminator="kind")
]
Services = dict[Name, Service]
