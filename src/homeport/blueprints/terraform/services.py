"""Services, worker pools and jobs as resources of Cloud Run's second API."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import timedelta

from homeport.blueprints.cloudrun.names import CPUS, DEFAULT_PORT, short
from homeport.blueprints.manifests import argv, byte_quantity, seconds
from homeport.blueprints.terraform.hcl import Block, Joined, Ref, Value
from homeport.blueprints.terraform.network import access_blocks
from homeport.blueprints.terraform.values import Identifiers, Values
from homeport.model.service import (
    Command,
    CronService,
    Disk,
    HealthCheck,
    Listening,
    Service,
    StaticService,
    WebService,
    WorkerService,
)
from homeport.model.spec import Spec

_HOST = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+")
ACCOUNT = "google_service_account.app"


class Services:
    """Writes what runs."""

    def __init__(self, spec: Spec, ids: Identifiers, values: Values, loss: Callable[[str, str], None], *, databases: bool) -> None:
        self.spec, self.ids, self.values, self.loss, self.databases = spec, ids, values, loss, databases
        self.images: dict[str, str] = {}
        """Input variables of images that somebody has to build: identifier to the service."""
        self.mapped: set[str] = set()
        """Host names that have a mapping."""
        self.schedules = False

    def name(self, name: str, limit: int = 49) -> str:
        """A service's name in Google Cloud, where projects share one region: the project's name stands before it."""
        return short(name if name == self.spec.name else f"{self.spec.name}-{name}", limit)

    def image(self, name: str, service: Service) -> Value:
        """The image of a service: the one it names, else a variable."""
        if service.build.builder == "image" and service.build.image:
            return service.build.image
        identifier = self.ids.of("variable", f"{name}-image")
        self.images[identifier] = name
        return Ref(f"var.{identifier}")

    def service(self, name: str, service: Service) -> list[Block]:
        """A service that answers requests, who may call it, and its domains. What is private is so by the network, as everywhere
        else: an invoker role of its own would ask each caller for a token."""
        identifier = self.ids.of("service", name)
        resource = f"google_cloud_run_v2_service.{identifier}"
        scale = service.scale
        ranged = scale.min is not None or scale.max is not None or scale.scale_to_zero
        least = scale.min if scale.min is not None else 0 if scale.scale_to_zero else 1
        template: dict[str, Value] = {
            "service_account": Ref(f"{ACCOUNT}.email"),
            "max_instance_request_concurrency": scale.hard_concurrency if 0 < (scale.hard_concurrency or 0) <= 1000 else None,
            "session_affinity": True if isinstance(service, WebService) and service.sticky else None,
        }
        inner = [Block("scaling", attributes={"min_instance_count": least, "max_instance_count": scale.max or None})] if ranged else []
        inner += self._pod(name, service)
        outer = [] if ranged else [Block("scaling", attributes={"scaling_mode": "MANUAL", "manual_instance_count": scale.instances})]
        public = service.kind != "private"
        attributes: dict[str, Value] = {
            "name": self.name(name),
            "location": Ref("var.region"),
            "ingress": "INGRESS_TRAFFIC_ALL" if public else "INGRESS_TRAFFIC_INTERNAL_ONLY",
            "default_uri_disabled": True if getattr(service, "default_domain", True) is False else None,
            "deletion_protection": False,
            "depends_on": self._after(name),
        }
        member: dict[str, Value] = {
            "name": Ref(f"{resource}.name"),
            "location": Ref(f"{resource}.location"),
            "role": "roles/run.invoker",
            "member": "allUsers",
        }
        found = [
            Block("resource", ("google_cloud_run_v2_service", identifier), attributes, [*outer, Block("template", (), template, inner)]),
            Block("resource", ("google_cloud_run_v2_service_iam_member", identifier), member),
        ]
        return found + self._domains(name, service, resource)

    def _after(self, name: str) -> Value:
        """What has to be there before a service runs: the APIs, its secrets' values, and the right to read them."""
        secrets = self.values.used.get(name, {})
        kinds = ("google_secret_manager_secret_version", "google_secret_manager_secret_iam_member")
        return [Ref("google_project_service.apis"), *(Ref(f"{kind}.{secret}") for secret in secrets for kind in kinds)]

    def _domains(self, name: str, service: Service, resource: str) -> list[Block]:
        found = []
        for number, domain in enumerate(service.domains if isinstance(service, WebService | StaticService) else ()):
            if domain.redirect_to or domain.path or "*" in domain.host or not domain.tls:
                self.loss(f"services.{name}.domains[{number}]", "a domain mapping is a whole host name, with TLS: use a load balancer")
                continue
            if domain.host in self.mapped or not _HOST.fullmatch(domain.host):
                self.loss(f"services.{name}.domains[{number}]", "a host name in lower case, mapped once")
                continue
            self.mapped.add(domain.host)
            spec = Block("spec", attributes={"route_name": Ref(f"{resource}.name")})
            metadata = Block("metadata", attributes={"namespace": Ref("var.project")})
            attributes: dict[str, Value] = {"name": domain.host, "location": Ref(f"{resource}.location")}
            found.append(
                Block("resource", ("google_cloud_run_domain_mapping", self.ids.of("domain", domain.host)), attributes, [metadata, spec])
            )
        return found

    def pool(self, name: str, service: WorkerService) -> list[Block]:
        """A worker: instances that nobody calls."""
        identifier = self.ids.of("pool", name)
        pod = self._pod(name, service)
        attributes: dict[str, Value] = {
            "name": self.name(name),
            "location": Ref("var.region"),
            "deletion_protection": False,
            "depends_on": self._after(name),
        }
        scaling = Block("scaling", attributes={"manual_instance_count": service.scale.instances})
        template = Block("template", (), {"service_account": Ref(f"{ACCOUNT}.email")}, pod)
        return [Block("resource", ("google_cloud_run_v2_worker_pool", identifier), attributes, [scaling, template])]

    def cron(self, name: str, service: CronService) -> list[Block]:
        """A job, and what runs it on schedule."""
        retries = 0 if service.restart.policy == "never" else service.restart.max_retries or 0
        found = [self._job(name, service, self.name(name), max(0, retries), service.timeout, None)]
        identifier = self.ids.of("job", self.name(name))
        resource = f"google_cloud_run_v2_job.{identifier}"
        if service.job:
            self.loss(f"services.{name}.job", f"nothing runs it by itself: `gcloud run jobs execute {self.name(name)}` after each apply")
            return found
        if service.concurrency != "allow":
            self.loss(f"services.{name}.concurrency", "Cloud Scheduler starts a run whether or not the last one has ended")
        if len(service.schedule.split()) != 5:
            self.loss(f"services.{name}.schedule", "Cloud Scheduler takes five fields: the job is written without a schedule")
            return found
        self.schedules = True
        uri = Joined(
            (
                "https://run.googleapis.com/v2/projects/",
                Ref("var.project"),
                "/locations/",
                Ref("var.region"),
                f"/jobs/{self.name(name)}:run",
            )
        )
        token = Block("oauth_token", attributes={"service_account_email": Ref(f"{ACCOUNT}.email")})
        attributes: dict[str, Value] = {
            "name": self.name(name),
            "region": Ref("var.region"),
            "schedule": service.schedule,
            "time_zone": "Etc/UTC" if service.timezone == "UTC" else service.timezone,
            "depends_on": [Ref("google_project_service.apis")],
        }
        member: dict[str, Value] = {
            "name": Ref(f"{resource}.name"),
            "location": Ref(f"{resource}.location"),
            "role": "roles/run.invoker",
            "member": Ref(f"{ACCOUNT}.member"),
        }
        target = Block("http_target", (), {"http_method": "POST", "uri": uri}, [token])
        return [
            *found,
            Block("resource", ("google_cloud_run_v2_job_iam_member", identifier), member),
            Block("resource", ("google_cloud_scheduler_job", identifier), attributes, [target]),
        ]

    def hooks(self, name: str, service: Service) -> list[Block]:
        """Release commands as jobs that somebody has to run."""
        found = []
        for moment, hook in (("release", service.release_command), ("first-deploy", service.first_deploy_command)):
            if hook is None:
                continue
            job = self.name(f"{name}-{moment}")
            when = "before each new release" if moment == "release" else "once, after the first apply"
            field = f"{moment.replace('-', '_')}_command"
            self.loss(f"services.{name}.{field}.order", f"Terraform runs no jobs: `gcloud run jobs execute {job} --wait` {when}")
            found.append(self._job(name, service, job, 0, hook.timeout, hook.command))
        return found

    def _job(self, name: str, service: Service, job: str, retries: int | None, limit: timedelta | None, command: Command | None) -> Block:
        pod = self._pod(name, service, job=True, command=command)
        attributes: dict[str, Value] = {
            "name": job,
            "location": Ref("var.region"),
            "deletion_protection": False,
            "depends_on": self._after(name),
        }
        length = seconds(limit)
        task: dict[str, Value] = {
            "service_account": Ref(f"{ACCOUNT}.email"),
            "max_retries": retries,
            "timeout": f"{length}s" if length else None,
        }
        inner = Block("template", (), task, pod)
        return Block("resource", ("google_cloud_run_v2_job", self.ids.of("job", job)), attributes, [Block("template", (), {}, [inner])])

    def _pod(self, name: str, service: Service, *, job: bool = False, command: Command | None = None) -> list[Block]:
        """Network, container and volumes of a revision or a task."""
        found = access_blocks(self.spec, databases=self.databases)
        mounts, volumes = self._volumes(name, service)
        wanted = service.command if command is None else command
        attributes: dict[str, Value] = {
            "image": self.image(name, service),
            "command": list(argv(service.container.entrypoint)) if service.container.entrypoint else None,
            "args": list(argv(wanted)) if wanted else None,
            "working_dir": service.container.working_dir or None,
        }
        inner: list[Block] = []
        if isinstance(service, Listening) and not job and (service.port or service.protocol == "h2c"):
            ports: dict[str, Value] = {
                "name": "h2c" if service.protocol == "h2c" else "http1",
                "container_port": service.port or DEFAULT_PORT,
            }
            inner.append(Block("ports", attributes=ports))
        inner += self.values.blocks(name, service)
        inner += _resources(service, idle=isinstance(service, Listening) and not job)
        if not job:
            inner += _probes(service)
        return [*found, Block("containers", (), attributes, [*inner, *mounts]), *volumes]

    def _volumes(self, name: str, service: Service) -> tuple[list[Block], list[Block]]:
        mounts: list[Block] = []
        volumes: list[Block] = []
        taken: set[str] = set()
        for number, disk in enumerate(service.disks):
            source = _source(disk)
            if source is None:
                reason = "Cloud Run keeps no disks: mount a bucket (`gs://…`) or an NFS share, or use a database"
                self.loss(f"services.{name}.disks[{number}]", reason)
                continue
            volume = short(disk.name or f"disk-{number}", 40)
            volume = volume if volume not in taken else f"{volume}-{number}"
            taken.add(volume)
            mounts.append(Block("volume_mounts", attributes={"name": volume, "mount_path": disk.mount_path}))
            volumes.append(Block("volumes", attributes={"name": volume}, blocks=[source]))
        return mounts, volumes


def _source(disk: Disk) -> Block | None:
    if disk.kind == "tmpfs":
        size = byte_quantity(disk.size) if disk.size else None
        return Block("empty_dir", attributes={"medium": "MEMORY", "size_limit": size})
    if disk.source.startswith("gs://"):
        return Block("gcs", attributes={"bucket": disk.source.removeprefix("gs://"), "read_only": disk.read_only})
    if disk.source.startswith("nfs://"):
        server, _, path = disk.source.removeprefix("nfs://").partition("/")
        return Block("nfs", attributes={"server": server, "path": f"/{path}", "read_only": disk.read_only})
    if disk.kind == "secret" and disk.source:
        return Block(
            "secret", attributes={"secret": disk.source}, blocks=[Block("items", attributes={"version": "latest", "path": disk.source})]
        )
    return None


def _resources(service: Service, *, idle: bool) -> list[Block]:
    """Limits; the processor is kept between requests, as everywhere else, unless the service may go to zero."""
    wanted = service.resources
    limits: dict[str, Value] = {}
    if wanted.cpu is not None:
        whole = next((n for n in CPUS if n >= wanted.cpu), CPUS[-1])
        limits["cpu"] = str(whole) if wanted.cpu > 0.999 else f"{max(80, math.ceil(round(wanted.cpu * 1000, 6)))}m"
    if wanted.memory:
        limits["memory"] = byte_quantity(wanted.memory)
    cpu_idle = service.scale.scale_to_zero if idle else None
    if not limits and not idle:
        return []
    return [Block("resources", attributes={"limits": limits or None, "cpu_idle": cpu_idle})]


def _probes(service: Service) -> list[Block]:
    """The start-up probe decides when an instance gets requests; the liveness probe restarts it."""
    health = service.health
    found: list[Block] = []
    if not isinstance(service, Listening):
        return found
    if health is not None and health.role == "ready" and health.kind in ("http", "tcp") and not health.tls:
        period = max(1, seconds(health.interval) or 10)
        tries = math.ceil(health.deadline / timedelta(seconds=period)) if health.deadline else None
        found.append(_probe("startup_probe", health, service.port, max(1, tries) if tries is not None else None))
        if health.restart_after and health.restart_after > 0 and health.kind == "http":
            found.append(_probe("liveness_probe", health, service.port, health.restart_after))
    live = next((check for check in service.checks if check.role == "live" and check.kind == "http" and not check.tls), None)
    if live is not None and not any(block.kind == "liveness_probe" for block in found):
        found.append(_probe("liveness_probe", live, service.port, live.retries if (live.retries or 0) > 0 else None))
    return found


def _probe(kind: str, check: HealthCheck, port: int | None, threshold: int | None) -> Block:
    attributes: dict[str, Value] = {
        "initial_delay_seconds": seconds(check.start_period) or None,
        "period_seconds": max(1, seconds(check.interval) or 0) if check.interval is not None else None,
        "timeout_seconds": max(1, seconds(check.timeout) or 0) if check.timeout is not None else None,
        "failure_threshold": threshold,
    }
    if check.kind == "tcp":
        return Block(kind, (), attributes, [Block("tcp_socket", attributes={"port": port})])
    headers = [Block("http_headers", attributes={"name": name, "value": value}) for name, value in check.headers.items()]
    return Block(kind, (), attributes, [Block("http_get", (), {"path": check.path, "port": port}, headers)])
