"""Writes a spec as Kubernetes manifests: real fields wherever there is one, and a list of what the cluster would not do.

The stream is read back while it is written. What the reader would not find again is kept, as a merge patch (RFC 7386) over
the spec, in one ConfigMap that nothing in the cluster reads; each part of it that the cluster does not act upon is a loss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

from homeport.blueprints.kubernetes.addons import AddOns
from homeport.blueprints.kubernetes.names import COMPONENT, GROUP, HOOK, MANAGED_BY, OWNER, PART_OF, SPEC, Objects, metadata
from homeport.blueprints.kubernetes.network import Network
from homeport.blueprints.kubernetes.pods import Pods, Volumes, claim, clean, digest
from homeport.blueprints.kubernetes.reader import KubernetesReader
from homeport.blueprints.kubernetes.reasons import DEFAULT, QUIET, REASONS, matches
from homeport.blueprints.kubernetes.values import Values
from homeport.blueprints.manifests import VARIABLE, dump_manifests, seconds
from homeport.blueprints.overrides import merge_diff, merge_patch
from homeport.blueprints.source import MAX_FILE, MemoryTree
from homeport.model.env import PlainValue
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Loss, Written, show_path
from homeport.model.service import Command, CronService, FunctionService, Service, StaticService
from homeport.model.spec import Spec

FILE = "kubernetes.yaml"
MAX_PATCH = 200_000
"""Characters of the patch that are kept; kubectl copies an object into an annotation, and those end at 256 KiB."""
_PARTS = frozenset({"container", "health", "scale", "rollout", "resources", "restart"})
"""Properties that are compared part by part, also where one side has none."""
_CONCURRENCY = {"forbid": "Forbid", "allow": "Allow", "replace": "Replace"}


class KubernetesWriter:
    """Deployments, StatefulSets, CronJobs and Jobs with all that belongs to them."""

    dialect: ClassVar[str] = "kubernetes"

    def write(self, spec: Spec) -> Written:
        emitter = Emitter(spec)
        documents = list(emitter.documents())
        text = dump_manifests(documents)
        losses = dict(emitter.values.losses)
        back = _read(spec, text)
        wanted = json.loads(json.dumps(spec.canonical()))
        before = json.loads(json.dumps(back.canonical())) if back is not None else {}
        patch = merge_diff(before, wanted)
        if patch:
            for path in _differences(wanted, before):
                if not _told(path, losses) and not emitter.does(path):
                    losses[path] = _reason(path)
            text = dump_manifests([*documents, emitter.kept("patch" if merge_patch(before, patch) == wanted else "whole", patch, wanted)])
        for secret, keys in emitter.values.keys.items():
            what = "; ".join(f"{key} ({meaning})" if meaning != key else key for key, meaning in keys.items())
            losses[f"secrets.{secret}"] = f"no secret is ever written: create the Secret {secret} with {what}"
        return Written(dialect=self.dialect, files={FILE: text}, losses=tuple(Loss(path=p, reason=r) for p, r in losses.items()))


def _read(spec: Spec, text: str) -> Spec | None:
    try:
        return KubernetesReader().read(MemoryTree({FILE: text}, name=spec.name), FILE).spec if len(text) <= MAX_FILE else None
    except BlueprintInvalid:
        return None


def _differences(wanted: Any, before: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Where the spec says something that reading back does not: a path for each property, four levels deep at most."""
    if len(path) == 3 and path[2] in _PARTS and isinstance(wanted or before, dict):
        wanted, before = wanted or {}, before or {}
    if isinstance(wanted, dict) and isinstance(before, dict) and len(path) < 5:
        for key in dict.fromkeys([*wanted, *before]):
            yield from _differences(wanted.get(key), before.get(key), (*path, key))
    elif isinstance(wanted, list) and isinstance(before, list) and len(wanted) == len(before) and len(path) == 3:
        for number, (left, right) in enumerate(zip(wanted, before, strict=True)):
            if left != right:
                yield f"{show_path(path)}[{number}]"
    elif wanted != before:
        yield show_path(path)


def _told(path: str, losses: dict[str, str]) -> bool:
    return any(one == path or path.startswith((f"{one}.", f"{one}[")) or one.startswith((f"{path}.", f"{path}[")) for one in losses)


def _reason(path: str) -> str:
    return next((reason for pattern, reason in REASONS if matches(path, pattern)), DEFAULT)


class Emitter:
    """Turns one spec into a stream of objects."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.objects = Objects(spec)
        self.values = Values(self.objects)
        self.pods = Pods(self.objects, self.values)
        self.network = Network(self.objects, self.values)
        self.claims: set[str] = set()

    def does(self, path: str) -> bool:
        """Whether the cluster does what a path says, though it reads back in other words."""
        done = self.values.fine
        return path in done or path.rpartition(".")[0] in done or any(matches(path, pattern) for pattern in QUIET)

    def documents(self) -> Iterator[dict[str, Any]]:
        """Configuration first, then what uses it."""
        later: list[dict[str, Any]] = []
        for name, addon in self.spec.addons.items():
            later += AddOns(self.objects, self.values).documents(name, addon)
        for name, service in self.spec.services.items():
            later += self._service(name, service)
        yield from self._groups()
        yield from self._config_maps()
        yield from later
        for one in (self.network.routes(), self.network.policy()):
            if one is not None:
                yield one

    def _groups(self) -> Iterator[dict[str, Any]]:
        for name, group in self.spec.env_groups.items():
            labels = {PART_OF: self.spec.name, MANAGED_BY: OWNER, COMPONENT: "config"}
            data = {key: value.value for key, value in group.env.items() if isinstance(value, PlainValue) and VARIABLE.fullmatch(key)}
            yield _config_map(self.objects.groups[name], labels, data, {GROUP: name})

    def _config_maps(self) -> Iterator[dict[str, Any]]:
        for name, service in self.spec.services.items():
            data = self.values.of(name, service).plain
            if data and not isinstance(service, FunctionService):
                instance = self.objects.services[name]
                yield _config_map(instance, self.objects.labels(name, service.kind, instance), data)

    def _service(self, name: str, service: Service) -> Iterator[dict[str, Any]]:
        if isinstance(service, FunctionService):
            self.values.losses.append((f"services.{name}", "Kubernetes runs containers, no functions: nothing is written for it"))
            return
        self._say_image(name, service)
        if service.restart.policy == "unless-stopped":
            self.values.fine.add(f"services.{name}.restart.policy")
        for moment, key in ((service.release_command, "release"), (service.first_deploy_command, "first-deploy")):
            if moment is not None:
                yield self._hook(name, service, key, moment.command, seconds(moment.timeout))
        if isinstance(service, CronService):
            yield from self._cron(name, service)
            return
        volumes = self.pods.volumes(name, service, claims=True)
        yield from self._claims(name, service, volumes)
        yield self._workload(name, service, volumes)
        yield from self.network.service(name, service)
        ingress = self.network.ingress(name, service)
        if ingress is not None:
            yield ingress
        yield from self._scaling(name, service, "StatefulSet" if volumes.templates else "Deployment")

    def _say_image(self, name: str, service: Service) -> None:
        image = self.pods.image(name, service)
        if service.build.builder == "image" and service.build.image:
            return
        how = "an image with a web server and the built files" if isinstance(service, StaticService) else "the image"
        port = " that answers on 8080" if isinstance(service, StaticService) else ""
        reason = f"Kubernetes builds nothing: build {how}{port}, push it as {image}, or write another name"
        self.values.losses.append((f"services.{name}.build", reason))

    def _claims(self, name: str, service: Service, volumes: Volumes) -> Iterator[dict[str, Any]]:
        for one, disk in volumes.shared:
            if one not in self.claims:
                self.claims.add(one)
                labels = self.objects.labels(name, service.kind, self.objects.services[name])
                mode = "ReadWriteMany" if disk.source in self.pods.common else "ReadWriteOnce"
                yield {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim(one, labels, disk, mode)}

    def _template(self, name: str, service: Service, volumes: Volumes, restart: str = "Always") -> dict[str, Any]:
        template = self.pods.template(name, service, volumes=volumes, restart=restart)
        plain = self.values.of(name, service).plain
        groups = {g: self.spec.env_groups[g].model_dump(mode="json") for g in service.env_groups if g in self.spec.env_groups}
        if restart == "Always" and (plain or groups):
            mark = digest(json.dumps([plain, groups], sort_keys=True))
            template["metadata"].setdefault("annotations", {})["homeport.dev/config"] = mark
        return template

    def _workload(self, name: str, service: Service, volumes: Volumes) -> dict[str, Any]:
        instance = self.objects.services[name]
        labels = self.objects.labels(name, service.kind, instance)
        selector = self.objects.selector(instance)
        scaled = _scales(service)
        spec: dict[str, Any] = {
            "replicas": None if scaled else service.scale.instances,
            "minReadySeconds": seconds(service.rollout.monitor),
            "selector": {"matchLabels": selector},
            "template": self._template(name, service, volumes),
        }
        if volumes.templates:
            spec |= {"serviceName": instance, "podManagementPolicy": "Parallel"}
            spec["volumeClaimTemplates"] = [claim(volume, selector, disk, "ReadWriteOnce") for volume, disk in volumes.templates]
            kind = "StatefulSet"
        else:
            deadline = service.health.deadline if service.health else None
            spec |= {"strategy": _strategy(service), "progressDeadlineSeconds": seconds(deadline)}
            kind = "Deployment"
        body = {key: value for key, value in spec.items() if value is not None}
        return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata(instance, labels), "spec": body}

    def _scaling(self, name: str, service: Service, kind: str) -> Iterator[dict[str, Any]]:
        instance = self.objects.services[name]
        labels = self.objects.labels(name, service.kind, instance)
        scale = service.scale
        if _scales(service):
            targets = (("cpu", scale.target_cpu), ("memory", scale.target_memory))
            metrics = [
                {
                    "type": "Resource",
                    "resource": {"name": what, "target": {"type": "Utilization", "averageUtilization": max(1, round(goal))}},
                }
                for what, goal in targets
                if goal is not None
            ]
            low = max(1, scale.min or 0)
            spec = {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": instance},
                "minReplicas": low,
                "maxReplicas": max(low, scale.max or 0),
                "metrics": metrics,
            }
            yield {
                "apiVersion": "autoscaling/v2",
                "kind": "HorizontalPodAutoscaler",
                "metadata": metadata(instance, labels),
                "spec": clean(spec),
            }
        if ((scale.min if _scales(service) else scale.instances) or 0) > 1:
            body = {"maxUnavailable": 1, "selector": {"matchLabels": self.objects.selector(instance)}}
            yield {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata(instance, labels), "spec": body}

    def _hook(self, name: str, service: Service, key: str, command: Command, limit: int | None) -> dict[str, Any]:
        instance = self.objects.services[name]
        labels = {**self.objects.labels(name, "hook", instance), "app.kubernetes.io/instance": f"{instance[:44]}-{key[:7]}"}
        volumes = Volumes()
        template = self.pods.template(name, service, volumes=volumes, restart="Never")
        template["metadata"] = {"labels": labels}
        template["spec"]["containers"] = [self.pods.container(name, service, volumes, command)]
        template["spec"]["containers"][0].pop("ports", None)
        template["spec"].pop("volumes", None)
        spec = clean({"backoffLimit": None, "activeDeadlineSeconds": limit, "ttlSecondsAfterFinished": 3600})
        annotations = {HOOK: key} | ({"argocd.argoproj.io/hook": "PreSync"} if key == "release" else {})
        when = "before each new release" if key == "release" else "once, after the first release"
        job = f"{instance[:44]}-{key[:7]}"
        self.values.losses.append(
            (
                f"services.{name}.{key.replace('-', '_')}_command.order",
                f"kubectl runs no Job by itself at the right time: apply the Job {job} {when}, and wait for it (Argo CD does)",
            )
        )
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata(job, labels, annotations),
            "spec": {"backoffLimit": 0, **spec, "template": template},
        }

    def _cron(self, name: str, service: CronService) -> Iterator[dict[str, Any]]:
        instance = self.objects.services[name]
        labels = self.objects.labels(name, service.kind, instance)
        volumes = self.pods.volumes(name, service, claims=False)
        yield from self._claims(name, service, volumes)
        retries = service.restart.policy != "never"
        template = self._template(name, service, volumes, "OnFailure" if service.restart.policy == "on-failure" else "Never")
        job: dict[str, Any] = {
            "backoffLimit": (service.restart.max_retries if service.restart.max_retries is not None else 0) if retries else 0,
            "activeDeadlineSeconds": seconds(service.timeout) or None,
            "template": template,
        }
        job = {key: value for key, value in job.items() if value is not None}
        if service.job:
            yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata(instance, labels), "spec": job}
            return
        if not (len(service.schedule.split()) == 5 or service.schedule.startswith("@")):
            self.values.losses.append((f"services.{name}.schedule", "a CronJob takes five fields: nothing is written for it"))
            return
        spec = {
            "schedule": service.schedule,
            "timeZone": service.timezone,
            "concurrencyPolicy": _CONCURRENCY[service.concurrency],
            "jobTemplate": {"metadata": {"labels": labels}, "spec": job},
        }
        yield {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata(instance, labels), "spec": spec}

    def kept(self, form: str, patch: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
        """The ConfigMap of what the other objects do not say."""
        text = json.dumps(patch if form == "patch" else whole, ensure_ascii=False, sort_keys=True)
        labels = {PART_OF: self.spec.name, MANAGED_BY: OWNER, COMPONENT: "spec"}
        data = {"spec.json": text} if len(text) <= MAX_PATCH else {}
        return _config_map(self.objects.spec_map, labels, data, {SPEC: form})


def _scales(service: Service) -> bool:
    """Whether an autoscaler decides how many run."""
    scale = service.scale
    return bool(scale.max and scale.max > max(1, scale.min or 0)) or (
        scale.max is not None and bool(scale.target_cpu or scale.target_memory)
    )


def _strategy(service: Service) -> dict[str, Any]:
    rollout = service.rollout
    if rollout.strategy in ("hold", "immediate") or rollout.order == "stop-first":
        return {"type": "Recreate"}
    steps = {"maxUnavailable": _steps(rollout.max_unavailable, 0), "maxSurge": _steps(rollout.max_surge, 1)}
    if steps["maxUnavailable"] in (0, "0%") and steps["maxSurge"] in (0, "0%"):
        steps["maxSurge"] = 1
    return {"type": "RollingUpdate", "rollingUpdate": steps}


def _steps(text: str, default: int) -> int | str:
    number = text.removesuffix("%")
    if not (number.isascii() and number.isdecimal() and len(number) < 5):
        return default
    return text if text.endswith("%") else int(text)


def _config_map(name: str, labels: dict[str, str], data: dict[str, str], annotations: dict[str, str] | None = None) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(name, labels, annotations), "data": data}
