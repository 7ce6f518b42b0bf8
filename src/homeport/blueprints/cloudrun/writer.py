"""Writes a spec for Cloud Run: a file for each service, worker pool and job, as `gcloud run … replace` takes them."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Any, ClassVar

from homeport.blueprints.cloudrun.names import (
    ACCELERATOR,
    AFFINITY,
    BUCKETS,
    CONCURRENCY,
    COUNT,
    CPUS,
    DEFAULT_PORT,
    DESCRIPTION,
    FILES,
    HOOK,
    INGRESS,
    INVOKER,
    KEPT,
    KIND,
    LOCATION,
    MAX,
    MIN,
    MODE,
    NO_URL,
    PROJECT,
    REGION,
    SCHEDULE,
    TIMEZONE,
    short,
)
from homeport.blueprints.cloudrun.reader import CloudRunReader
from homeport.blueprints.cloudrun.reasons import QUIET, REASONS
from homeport.blueprints.cloudrun.values import Variables
from homeport.blueprints.convert import covered, renamed_back
from homeport.blueprints.kubernetes.reasons import matches
from homeport.blueprints.manifests import argv, byte_quantity, dump_manifests, probe, seconds
from homeport.blueprints.patch import losses
from homeport.blueprints.source import MemoryTree
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Loss, Written
from homeport.model.service import Command, CronService, Disk, FunctionService, HealthCheck, Listening, Service, WebService
from homeport.model.spec import Spec

SERVING, RUN = "serving.knative.dev/v1", "run.googleapis.com/v1"


class CloudRunWriter:
    """Web, private and static services, worker pools, and jobs for what runs to its end."""

    dialect: ClassVar[str] = "cloudrun"

    def write(self, spec: Spec) -> Written:
        emitter = Emitter(spec)
        resources = emitter.resources()
        files = _files(spec, resources)
        renamed = {name: there for name, there in emitter.names.items() if name != there and name in emitter.written}
        told = {loss.path: loss for loss in emitter.losses}
        back = _read(spec, files, renamed)
        for loss in losses(spec, back, REASONS, "Cloud Run has no field for it"):
            if not covered(loss.path, told) and not any(matches(loss.path, pattern) for pattern in QUIET):
                told[loss.path] = loss
        return Written(dialect=self.dialect, files=files, losses=tuple(told.values()), renamed=renamed)


def _files(spec: Spec, resources: list[dict[str, Any]]) -> dict[str, str]:
    """A file for each resource; the first names the project and the others."""
    if not resources:
        return {}
    kinds = {"Service": "service", "Job": "cloudrun-job", "WorkerPool": "cloudrun-worker"}
    names = [f"{kinds[one['kind']]}-{one['metadata']['name']}.yaml" for one in resources]
    if resources[0]["kind"] == "Service":
        names[0] = "service.yaml"
    own = resources[0]["metadata"].setdefault("annotations", {})
    own[PROJECT] = spec.name
    if names[1:]:
        own[FILES] = " ".join(names[1:])
    return {name: dump_manifests([one]) for name, one in zip(names, resources, strict=True)}


def _read(spec: Spec, files: dict[str, str], renamed: dict[str, str]) -> Spec:
    """What the reader makes of it; an empty project when nothing was written or it cannot be read."""
    if not files:
        return Spec(name=spec.name)
    try:
        return renamed_back(CloudRunReader().read(MemoryTree(files, name=spec.name), next(iter(files))).spec, renamed)
    except BlueprintInvalid:
        return Spec(name=spec.name)


class Emitter:
    """Turns one spec into resources."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.losses: list[Loss] = []
        self.written: set[str] = set()
        taken: set[str] = set()
        self.names: dict[str, str] = {}
        for name in spec.services:
            there, number = short(name), 2
            while there in taken:
                there, number = short(f"{name}-{number}"), number + 1
            taken.add(there)
            self.names[name] = there
        self.variables = Variables(spec, self.loss)

    def loss(self, path: str, reason: str) -> None:
        """Something Cloud Run would not do, or a person has to."""
        self.losses.append(Loss(path=path, reason=reason))

    def resources(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for name, service in self.spec.services.items():
            self.written.add(name)
            self._say_image(name, service)
            if isinstance(service, CronService):
                found.append(self._cron(name, service))
                continue
            found.append(self._pool(name, service) if service.kind == "worker" else self._service(name, service))
            found += self._hooks(name, service)
        for name, addon in self.spec.addons.items():
            product = {"postgres": "Cloud SQL", "mariadb": "Cloud SQL", "redis": "Memorystore"}.get(addon.kind, "somewhere else")
            self.loss(f"addons.{name}", f"databases are resources of their own: run it on {product}, or write Terraform instead")
        return sorted(found, key=lambda one: one["kind"] != "Service")

    def image(self, name: str, service: Service) -> str:
        """The image of a service: the one it names, else where Artifact Registry would have it."""
        return service.build.image or f"REGION-docker.pkg.dev/PROJECT_ID/{self.spec.name}/{self.names[name]}:latest"

    def _say_image(self, name: str, service: Service) -> None:
        if service.build.builder == "image" and service.build.image:
            return
        what = {"static": "an image with a web server and the built files, answering on PORT"}.get(service.kind, "the image")
        if isinstance(service, FunctionService):
            what = "an image that answers on PORT and calls the function (buildpacks make one of a Node or Python function)"
        reason = f"YAML builds nothing: build {what}, push it as {self.image(name, service)}, or write another name"
        self.loss(f"services.{name}.build", reason)

    def _kept(self, service: Service) -> dict[str, Any]:
        kept = service.extensions.get("cloudrun")
        return kept if isinstance(kept, dict) else {}

    def _metadata(self, name: str, service: Service, annotations: dict[str, str | None]) -> dict[str, Any]:
        kept = self._kept(service)
        notes = {DESCRIPTION: kept.get("description"), **annotations}
        labels = {LOCATION: service.region} if REGION.fullmatch(service.region) else {}
        return _clean({"name": self.names[name], "labels": labels, "annotations": {k: v for k, v in notes.items() if v}})

    def _revision(self, service: Service, annotations: dict[str, str | None]) -> dict[str, Any]:
        kept = self._kept(service).get("annotations")
        own = {key: str(value) for key, value in kept.items() if key in KEPT} if isinstance(kept, dict) else {}
        notes = {**own, **{key: value for key, value in annotations.items() if value is not None}}
        return {"metadata": {"annotations": notes}} if notes else {}

    def _service(self, name: str, service: Service) -> dict[str, Any]:
        scale = service.scale
        private = service.kind == "private"
        ranged = scale.min is not None or scale.max is not None or scale.scale_to_zero
        own: dict[str, str | None] = {INGRESS: "internal" if private else "all", INVOKER: "true"}
        own[KIND] = service.kind if service.kind in ("static", "function") else None
        own[NO_URL] = "true" if getattr(service, "default_domain", True) is False else None
        if not ranged:
            own |= {MODE: "manual", COUNT: str(scale.instances)}
        least = scale.min if scale.min is not None else None if scale.scale_to_zero else 1
        notes: dict[str, str | None] = {
            MIN: str(least) if ranged and least is not None else None,
            MAX: str(scale.max) if ranged and scale.max else None,
            AFFINITY: "true" if isinstance(service, WebService) and service.sticky else None,
        }
        body = {"containerConcurrency": scale.hard_concurrency if 0 < (scale.hard_concurrency or 0) <= 1000 else None}
        template = {**self._revision(service, notes), "spec": {**body, **self._body(name, service)}}
        traffic = self._kept(service).get("traffic") or [{"latestRevision": True, "percent": 100}]
        spec = {"template": _clean(template), "traffic": traffic}
        if private:
            self.loss(f"services.{name}.kind", "reached from the VPC only: the services that call it need Direct VPC egress, and its URL")
        return {"apiVersion": SERVING, "kind": "Service", "metadata": self._metadata(name, service, own), "spec": spec}

    def _pool(self, name: str, service: Service) -> dict[str, Any]:
        own: dict[str, str | None] = {MODE: "manual", COUNT: str(service.scale.instances)}
        spec: dict[str, Any] = {"template": _clean({**self._revision(service, {}), "spec": self._body(name, service)})}
        if splits := self._kept(service).get("instanceSplits"):
            spec["instanceSplits"] = splits
        return {"apiVersion": RUN, "kind": "WorkerPool", "metadata": self._metadata(name, service, own), "spec": spec}

    def _body(self, name: str, service: Service) -> dict[str, Any]:
        """The pod of a revision."""
        kept = self._kept(service)
        mounts, volumes = self._volumes(name, service)
        container = self.container(name, service, mounts)
        if isinstance(service, Listening) and (service.port or service.protocol == "h2c"):
            container["ports"] = [
                {"name": "h2c" if service.protocol == "h2c" else "http1", **({"containerPort": service.port} if service.port else {})}
            ]
        container |= self._probes(service)
        beside = kept.get("sidecars")
        more = [one for one in beside if isinstance(one, dict)] if isinstance(beside, list | tuple) else []
        return {
            "timeoutSeconds": kept.get("timeoutSeconds"),
            "serviceAccountName": kept.get("serviceAccountName"),
            "containers": [container, *more],
            "volumes": volumes,
            "nodeSelector": _accelerator(service),
        }

    def container(self, name: str, service: Service, mounts: list[dict[str, Any]], command: Command | None = None) -> dict[str, Any]:
        """The main container of a service; with another command for a hook."""
        wanted = service.command if command is None else command
        found = {
            "name": self._kept(service).get("name"),
            "image": self.image(name, service),
            "command": argv(service.container.entrypoint) if service.container.entrypoint else None,
            "args": argv(wanted) if wanted else None,
            "workingDir": service.container.working_dir,
            "env": self.variables.entries(name, service),
            "resources": _resources(service),
            "volumeMounts": mounts,
        }
        return _clean(found)

    @staticmethod
    def _probes(service: Service) -> dict[str, Any]:
        found: dict[str, Any] = {}
        health = service.health
        if not isinstance(service, Listening):
            return found
        port = service.port or DEFAULT_PORT
        if health is not None and health.role == "ready" and health.kind in ("http", "tcp") and not health.tls:
            plain = health.model_copy(update={"retries": None})
            start = _timed(probe(plain, port, ports=False), health) or {}
            if health.deadline:
                period = start.get("periodSeconds", 10)
                start["failureThreshold"] = max(1, math.ceil(health.deadline / timedelta(seconds=period)))
            found["startupProbe"] = start
            if health.restart_after and health.restart_after > 0 and health.kind == "http":
                found["livenessProbe"] = {
                    **(_timed(probe(plain, port, ports=False), health) or {}),
                    "failureThreshold": health.restart_after,
                }
        for check in service.checks:
            if check.role == "live" and check.kind == "http" and "livenessProbe" not in found and not check.tls:
                found["livenessProbe"] = _timed(probe(check, port, ports=False), check)
        return found

    def _volumes(self, name: str, service: Service) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        mounts: list[dict[str, Any]] = []
        volumes: list[dict[str, Any]] = []
        for number, disk in enumerate(service.disks):
            source = _volume(disk)
            if source is None:
                reason = "Cloud Run keeps no disks: mount a bucket (`gs://…`) or an NFS share, or use a database"
                self.loss(f"services.{name}.disks[{number}]", reason)
                continue
            volume = short(disk.name or f"disk-{number}", 40)
            if any(known["name"] == volume for known in volumes):
                volume = f"{volume}-{number}"
            volumes.append({"name": volume, **source})
            inside = "nfs" in source or "csi" in source
            mount = {
                "name": volume,
                "mountPath": disk.mount_path,
                "subPath": disk.subpath,
                "readOnly": (disk.read_only and not inside) or None,
            }
            mounts.append(_clean(mount))
        return mounts, volumes

    def _task(
        self, name: str, service: Service, job: str, annotations: dict[str, str | None], limits: dict[str, Any], command: Command | None
    ) -> dict[str, Any]:
        """A job that runs one task."""
        kept = self._kept(service)
        mounts, volumes = self._volumes(name, service)
        body = {
            **limits,
            "serviceAccountName": kept.get("serviceAccountName"),
            "containers": [self.container(name, service, mounts, command)],
            "volumes": volumes,
            "nodeSelector": _accelerator(service),
        }
        body = {key: value for key, value in body.items() if value not in (None, "", [], {})}
        inner = {"taskCount": kept.get("taskCount"), "parallelism": kept.get("parallelism"), "template": {"spec": body}}
        template = {**self._revision(service, {}), "spec": {key: value for key, value in inner.items() if value is not None}}
        metadata = {**self._metadata(name, service, annotations), "name": job}
        return {"apiVersion": RUN, "kind": "Job", "metadata": metadata, "spec": {"template": template}}

    def _cron(self, name: str, service: CronService) -> dict[str, Any]:
        own: dict[str, str | None] = {}
        if not service.job:
            own = {SCHEDULE: service.schedule or " ", TIMEZONE: service.timezone, CONCURRENCY: service.concurrency}
            call = f"gcloud scheduler jobs create http {self.names[name]} --schedule='{service.schedule}' --time-zone={service.timezone}"
            self.loss(f"services.{name}.schedule", f"a job has no schedule: Cloud Scheduler runs it (`{call} …`); Terraform writes both")
        else:
            self.loss(f"services.{name}.job", f"nothing runs it by itself: `gcloud run jobs execute {self.names[name]}` after each deploy")
        retries = service.restart.max_retries
        limits = {"maxRetries": 0 if service.restart.policy == "never" else retries, "timeoutSeconds": seconds(service.timeout)}
        return self._task(name, service, self.names[name], own, limits, None)

    def _hooks(self, name: str, service: Service) -> list[dict[str, Any]]:
        found = []
        for moment, hook in (("release", service.release_command), ("first_deploy", service.first_deploy_command)):
            if hook is None:
                continue
            job = short(f"{self.names[name]}-{moment}")
            when = "before each new release" if moment == "release" else "once, after the first release"
            self.loss(
                f"services.{name}.{moment}_command.order", f"nothing runs it by itself: `gcloud run jobs execute {job} --wait` {when}"
            )
            limits = {"maxRetries": 0, "timeoutSeconds": seconds(hook.timeout)}
            found.append(self._task(name, service, job, {HOOK: f"{moment} {self.names[name]}"}, limits, hook.command))
        return found


def _timed(found: dict[str, Any] | None, check: HealthCheck) -> dict[str, Any] | None:
    """A probe with the delay before its first try."""
    delay = seconds(check.start_period)
    return found if found is None or not delay else {**found, "initialDelaySeconds": delay}


def _resources(service: Service) -> dict[str, Any]:
    wanted = service.resources
    cpu = None
    if wanted.cpu is not None:
        whole = next((n for n in CPUS if n >= wanted.cpu), CPUS[-1])
        cpu = str(whole) if wanted.cpu > 0.999 else f"{max(80, math.ceil(round(wanted.cpu * 1000, 6)))}m"
    gpus = "1" if _accelerator(service) else None
    return {"limits": {"cpu": cpu, "memory": byte_quantity(wanted.memory) if wanted.memory else None, "nvidia.com/gpu": gpus}}


def _accelerator(service: Service) -> dict[str, str]:
    gpu = service.resources.gpu
    return {ACCELERATOR: gpu} if re.fullmatch(r"nvidia-[a-z0-9-]+", gpu) else {}


def _volume(disk: Disk) -> dict[str, Any] | None:
    """The source of a volume; None when Cloud Run has no such thing."""
    if disk.kind == "tmpfs":
        return {"emptyDir": {"medium": "Memory"} | ({"sizeLimit": byte_quantity(disk.size)} if disk.size else {})}
    if disk.kind == "secret" and disk.source:
        items = disk.options.get("items")
        known = [dict(item) for item in items if isinstance(item, dict)] if isinstance(items, list | tuple) else []
        return {"secret": {"secretName": disk.source, **({"items": known} if known else {})}}
    if disk.source.startswith("gs://") and disk.kind in ("cluster", "volume", "bind"):
        options = disk.options.get("csi")
        more = {key: str(value) for key, value in options.items()} if isinstance(options, dict) else {}
        attributes = {"bucketName": disk.source.removeprefix("gs://"), **more}
        return {"csi": {"driver": BUCKETS, **({"readOnly": True} if disk.read_only else {}), "volumeAttributes": attributes}}
    if disk.source.startswith("nfs://") and disk.kind in ("cluster", "volume", "bind"):
        server, _, path = disk.source.removeprefix("nfs://").partition("/")
        return {"nfs": {"server": server, "path": f"/{path}", **({"readOnly": True} if disk.read_only else {})}}
    return None


def _clean(value: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing: null, empty text, empty lists and mappings."""
    cleaned = {key: _clean(item) if isinstance(item, dict) else item for key, item in value.items()}
    return {key: item for key, item in cleaned.items() if item is not None and item not in ("", [], {})}
