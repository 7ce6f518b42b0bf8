"""The pod of a service: container, probes, limits, volumes, and what of Docker's options a pod has a field for."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field
from typing import Any

from homeport.blueprints.kubernetes.names import Objects, short
from homeport.blueprints.kubernetes.values import Values, Variables, port_of
from homeport.blueprints.manifests import byte_quantity, cpu_quantity, probe, seconds, words
from homeport.model.service import Command, Disk, HealthCheck, Resources, Service

GRACE = 30
"""Seconds between the stop signal and SIGKILL when the spec names none."""
SETTLE = 5
"""Seconds an instance goes on serving after it left the Service: endpoints vanish from proxies later than the signal comes (KEP-3960)."""
_PULL = {"always": "Always", "missing": "IfNotPresent", "if_not_present": "IfNotPresent", "never": "Never"}
_MOUNTED = frozenset({"name", "mount_path", "kind", "source", "size", "read_only", "subpath"})
"""What a mount says; with anything else a part of the disk is lost."""
_PLATFORM = re.compile(r"(linux|windows)/(amd64|arm64|arm|ppc64le|s390x|riscv64)(?:/v\d)?")


@dataclass
class Volumes:
    """What is mounted: pod volumes, mounts, claim templates (one claim for each instance), and claims that are shared."""

    pod: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)
    templates: list[tuple[str, Disk]] = field(default_factory=list)
    shared: list[tuple[str, Disk]] = field(default_factory=list)


class Pods:
    """Makes pod templates for one project."""

    def __init__(self, objects: Objects, values: Values) -> None:
        self.objects, self.values, self.spec = objects, values, objects.spec
        uses: dict[str, set[str]] = {}
        for name, service in self.spec.services.items():
            for disk in service.disks:
                if disk.kind == "volume" and disk.source:
                    uses.setdefault(disk.source, set()).add(name)
        self.common = {source for source, names in uses.items() if len(names) > 1}
        """Volumes that several services mount."""

    def image(self, name: str, service: Service) -> str:
        """The image of a service: the one it names, else one by convention."""
        return service.build.image or f"{self.spec.name}-{name}:latest"

    def template(self, name: str, service: Service, *, volumes: Volumes, restart: str = "Always") -> dict[str, Any]:
        """The pod template of a long-running service, or of a job with another restart policy."""
        options = service.container
        container = self.container(name, service, volumes)
        if restart == "Always":
            container |= _probes(service)
            container |= self._lifecycle(service)
        annotations = dict(options.annotations)
        spec: dict[str, Any] = {
            "restartPolicy": restart,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": grace(service) + (settle(service) if restart == "Always" else 0),
            "securityContext": self._pod_security(service),
            "imagePullSecrets": [{"name": short(service.build.registry_credentials)}] if service.build.registry_credentials else None,
            "hostname": options.hostname if options.hostname and short(options.hostname) == options.hostname else None,
            "hostNetwork": options.network_mode == "host" or None,
            "hostPID": options.pid == "host" or None,
            "hostIPC": options.ipc == "host" or None,
            "hostAliases": _host_aliases(options.extra_hosts),
            "dnsConfig": {"nameservers": list(options.dns), "searches": list(options.dns_search)},
            "nodeSelector": _node(options.platform),
            "containers": [container],
            "volumes": volumes.pod,
        }
        labels = self.objects.labels(name, service.kind, self.objects.services[name])
        return {"metadata": {"labels": labels} | ({"annotations": annotations} if annotations else {}), "spec": clean(spec)}

    def container(self, name: str, service: Service, volumes: Volumes, command: Command | None = None) -> dict[str, Any]:
        """The one container of a service; with another command for a hook."""
        variables: Variables = self.values.of(name, service)
        image = self.image(name, service)
        options = service.container
        latest = "@" not in image and (image.endswith(":latest") or ":" not in image.rpartition("/")[2])
        found: dict[str, Any] = {
            "name": self.objects.services[name],
            "image": image,
            "imagePullPolicy": _PULL.get(options.pull_policy, "Always" if latest else "IfNotPresent"),
            "command": words(options.entrypoint) if options.entrypoint else None,
            "args": words(service.command if command is None else command) if (service.command if command is None else command) else None,
            "workingDir": options.working_dir,
            "tty": options.tty,
            "stdin": options.stdin_open,
            "ports": _ports(service),
            "envFrom": variables.sources,
            "env": variables.entries,
            "resources": resources(service.resources),
            "securityContext": self._security(service),
            "volumeMounts": volumes.mounts,
        }
        return clean(found)

    def volumes(self, name: str, service: Service, *, claims: bool) -> Volumes:
        """The volumes of a service. Without `claims` (jobs, CronJobs), disks are shared claims: they have no claims of their own."""
        found = Volumes()
        for number, disk in enumerate(service.disks):
            self._volume(found, name, f"services.{name}.disks[{number}]", number, disk, claims)
        options = service.container
        for number, path in enumerate(options.tmpfs):
            target, _, _ = path.partition(":")
            found.pod.append({"name": f"tmpfs-{number}", "emptyDir": {"medium": "Memory"}})
            found.mounts.append({"name": f"tmpfs-{number}", "mountPath": target})
        if options.shm_size:
            found.pod.append({"name": "dev-shm", "emptyDir": {"medium": "Memory", "sizeLimit": byte_quantity(options.shm_size)}})
            found.mounts.append({"name": "dev-shm", "mountPath": "/dev/shm"})  # noqa: S108  # the mount's own name
        return found

    def _volume(self, found: Volumes, name: str, path: str, number: int, disk: Disk, claims: bool) -> None:
        volume = self._volume_name(disk, number, found)
        source: dict[str, Any] | None = None
        if disk.model_dump(exclude_defaults=True).keys() <= _MOUNTED:
            self.values.fine |= {path, f"{path}.name"}
        if disk.kind == "tmpfs":
            source = {"emptyDir": {"medium": "Memory"} | ({"sizeLimit": byte_quantity(disk.size)} if disk.size else {})}
        elif disk.kind == "bind" and disk.source.startswith("/"):
            source = {"hostPath": {"path": disk.source}}
            self.values.losses.append((path, "a folder of the node it happens to run on: nodes do not share it"))
        elif disk.kind in ("config", "secret") and disk.source:
            key, inner = ("configMap", "name") if disk.kind == "config" else ("secret", "secretName")
            source = {key: {inner: short(disk.source)}}
            self.values.losses.append((path, f"create the {'ConfigMap' if disk.kind == 'config' else 'Secret'} {short(disk.source)} first"))
        elif disk.kind == "image" and disk.source:
            source = {"image": {"reference": disk.source}}
        elif disk.kind == "volume":
            self._claim(found, name, path, volume, disk, claims)
        else:
            self.values.losses.append((path, f"Kubernetes mounts no {disk.kind} of {disk.source[:60] or 'an unnamed source'!r}"))
            return
        if source is not None:
            found.pod.append({"name": volume, **source})
        mount = {"name": volume, "mountPath": disk.mount_path, "readOnly": disk.read_only or None, "subPath": disk.subpath}
        found.mounts.append(clean(mount))

    def _claim(self, found: Volumes, name: str, path: str, volume: str, disk: Disk, claims: bool) -> None:
        if not disk.size:
            self.values.losses.append((f"{path}.size", "a claim needs a size: 1 GiB is written, change it before you apply"))
        common = disk.source in self.common
        if claims and not common:
            found.templates.append((volume, disk))
            return
        claim = short(disk.source) if common else short(f"{name}-{volume}")
        found.pod.append({"name": volume, "persistentVolumeClaim": {"claimName": claim}})
        found.shared.append((claim, disk))
        if common:
            self.values.losses.append((path, "several services share it: it needs a storage class that can be mounted by many nodes"))

    @staticmethod
    def _volume_name(disk: Disk, number: int, found: Volumes) -> str:
        taken = {mount["name"] for mount in found.mounts}
        wanted = short(disk.name or disk.source.rpartition("/")[2] or f"disk-{number}", 40)
        return wanted if wanted not in taken else f"{wanted}-{number}"

    def _pod_security(self, service: Service) -> dict[str, Any]:
        options = service.container
        user, _, group = options.user.partition(":")
        return clean(
            {
                "seccompProfile": None if "seccomp:unconfined" in options.security_opt else {"type": "RuntimeDefault"},
                "runAsUser": int(user) if user.isdecimal() else None,
                "runAsGroup": int(group) if group.isdecimal() else None,
                "supplementalGroups": [int(g) for g in options.group_add if g.isdecimal()],
                "sysctls": [{"name": k, "value": v} for k, v in options.sysctls.items()],
            }
        )

    @staticmethod
    def _security(service: Service) -> dict[str, Any]:
        options = service.container
        caps = {"add": [c.removeprefix("CAP_") for c in options.cap_add], "drop": [c.removeprefix("CAP_") for c in options.cap_drop]}
        more = bool(options.privileged) or any(cap.endswith(("SYS_ADMIN", "ALL")) for cap in options.cap_add)
        return clean(
            {
                "privileged": options.privileged,
                "allowPrivilegeEscalation": None if more else False,
                "readOnlyRootFilesystem": options.read_only,
                "capabilities": caps,
            }
        )

    @staticmethod
    def _lifecycle(service: Service) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for hook, key in (("post_start", "postStart"), ("pre_stop", "preStop")):
            if hook in service.hooks:
                command = service.hooks[hook].command
                found[key] = {"exec": {"command": ["sh", "-c", command] if isinstance(command, str) else list(command)}}
        if settle(service):
            found["preStop"] = {"sleep": {"seconds": SETTLE}}
        return {"lifecycle": found} if found else {}


def settle(service: Service) -> int:
    """Seconds a listening instance waits before it gets the stop signal."""
    return SETTLE if port_of(service) is not None and "pre_stop" not in service.hooks else 0


def grace(service: Service) -> int:
    whole = seconds(service.shutdown_grace)
    return GRACE if whole is None else whole


def resources(wanted: Resources) -> dict[str, Any]:
    """Limits and requests."""
    gpus = re.fullmatch(r"(?:nvidia[:=])?(\d+)", wanted.gpu)
    limits = {
        "cpu": cpu_quantity(wanted.cpu) if wanted.cpu else None,
        "memory": byte_quantity(wanted.memory) if wanted.memory else None,
        "nvidia.com/gpu": gpus[1] if gpus else None,
    }
    requests = {
        "cpu": cpu_quantity(wanted.cpu_reserved) if wanted.cpu_reserved else None,
        "memory": byte_quantity(wanted.memory_reserved) if wanted.memory_reserved else None,
    }
    return clean({"limits": limits, "requests": requests})


def _ports(service: Service) -> list[dict[str, Any]]:
    main = port_of(service)
    found = [{"name": "main", "containerPort": main, "protocol": "TCP"}] if main is not None else []
    for name, port in extra_ports(service):
        found.append({"name": name, "containerPort": port.target, "protocol": port.protocol.upper()})
    return found


def extra_ports(service: Service) -> list[tuple[str, Any]]:
    """The ports beside the main one, each with a name that is valid and its own."""
    main = port_of(service)
    found: dict[tuple[int, str], tuple[str, Any]] = {}
    taken = {"main"}
    for port in service.ports:
        key = (port.target, port.protocol)
        if key == (main, "tcp") or key in found:
            continue
        name = port.name if re.fullmatch(r"[a-z](?:[a-z0-9]|-(?!-)){0,13}[a-z0-9]", port.name) else f"{port.protocol}-{port.target}"
        name = name if name not in taken else f"{port.protocol}-{port.target}"
        taken.add(name)
        found[key] = (name, port)
    return list(found.values())


def _probes(service: Service) -> dict[str, Any]:
    """Readiness from `health`; liveness from `restart_after` or a check of that role; start-up from its grace or a check of that role."""
    main = "main" if port_of(service) is not None else None
    found: dict[str, Any] = {}
    health = service.health
    if health is not None and health.role == "ready" and (ready := probe(health, main)) is not None:
        found["readinessProbe"] = ready
        if health.restart_after:
            found["livenessProbe"] = {**ready, "failureThreshold": health.restart_after}
        if health.start_period:
            found["startupProbe"] = {
                **ready,
                "periodSeconds": 1,
                "failureThreshold": max(1, math.ceil(health.start_period.total_seconds())),
            }
    rest = service.checks if health is None or health.role == "ready" else (health, *service.checks)
    for check in rest:
        key = {"live": "livenessProbe", "startup": "startupProbe", "ready": "readinessProbe"}.get(check.role, "")
        if key and key not in found and (made := probe(check, main)) is not None:
            found[key] = made | _initial(check)
    return found


def _initial(check: HealthCheck) -> dict[str, Any]:
    delay = seconds(check.start_period)
    return {"initialDelaySeconds": delay} if delay else {}


def _host_aliases(entries: tuple[str, ...]) -> list[dict[str, Any]]:
    found: dict[str, list[str]] = {}
    for entry in entries:
        host, mark, address = entry.partition("=" if "=" in entry else ":")
        if mark and re.fullmatch(r"[0-9a-fA-F.:]+", address.strip("[]")):
            found.setdefault(address.strip("[]"), []).append(host)
    return [{"ip": address, "hostnames": hosts} for address, hosts in found.items()]


def _node(platform: str) -> dict[str, str]:
    match = _PLATFORM.fullmatch(platform)
    return {"kubernetes.io/os": match[1], "kubernetes.io/arch": match[2]} if match else {}


def claim(name: str, labels: dict[str, str], disk: Disk, mode: str) -> dict[str, Any]:
    """A PersistentVolumeClaim's metadata and spec; in a claim template without the kind."""
    size = byte_quantity(disk.size or 1 << 30)
    spec = {"accessModes": [mode], "resources": {"requests": {"storage": size}}}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


def digest(text: str) -> str:
    """Ten hex digits that change with a text: a pod restarts when its variables change."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def clean(value: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing: null, empty text, empty lists and mappings."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        inner = clean(item) if isinstance(item, dict) else item
        if inner is not None and inner not in ("", [], {}):
            found[key] = inner
    return found
