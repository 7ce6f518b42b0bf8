"""Workloads as services and add-ons."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from homeport.blueprints.compose.addons import parse_flags, server_command
from homeport.blueprints.compose.images import engine_of, version_of
from homeport.blueprints.kubernetes.containers import (
    PLACED,
    Ports,
    Surroundings,
    Variables,
    read_container,
    read_health,
    read_pod_security,
    read_ports,
)
from homeport.blueprints.kubernetes.names import COMPONENT, HOOK, INSTANCE, PORTS
from homeport.blueprints.kubernetes.outside import Outside, read_claim
from homeport.blueprints.kubernetes.pods import GRACE
from homeport.blueprints.kubernetes.values import DEFAULT_PORT
from homeport.blueprints.manifests import bytes_of, command_of, plain_text
from homeport.blueprints.naming import Names
from homeport.blueprints.view import View
from homeport.model.addon import AddOn
from homeport.model.env import PlainValue
from homeport.model.reading import Fate

if TYPE_CHECKING:
    from homeport.blueprints.kubernetes.reader import Object

_ADDON: TypeAdapter[AddOn] = TypeAdapter(AddOn)
_KINDS = frozenset({"web", "private", "worker", "cron", "static"})
_CONCURRENCY = {"Forbid": "forbid", "Allow": "allow", "Replace": "replace"}
_EVICTION = frozenset(
    {"noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"}
)
_USER = ("POSTGRES_USER", "MARIADB_USER", "MYSQL_USER")
_DATABASE = ("POSTGRES_DB", "MARIADB_DATABASE", "MYSQL_DATABASE")


class Workloads:
    """Collects services and add-ons; hooks and the objects around come afterwards."""

    def __init__(self, project: str, around: Surroundings, outside: Outside, names: Names, addon_names: Names) -> None:
        self.project, self.around, self.outside = project, around, outside
        self.names, self.addon_names = names, addon_names
        self.services: dict[str, dict[str, Any]] = {}
        self.addons: dict[str, AddOn] = {}
        self.hosts: dict[str, str] = {}
        """Object name of each add-on."""
        self.backends: dict[str, str] = {}
        """Service objects by name: the service they pass to."""
        self.instances: dict[str, str] = {}
        """Object name to service."""

    def is_addon(self, one: Object) -> bool:
        """Whether a workload is an engine that Homeport has itself."""
        if one.managed:
            return one.labels.get(COMPONENT) in PORTS
        if one.kind not in ("StatefulSet", "Deployment"):
            return False
        pod = _raw(one.view.data, "spec", "template", "spec")
        containers = pod.get("containers") if isinstance(pod, dict) else None
        if not isinstance(containers, list) or len(containers) != 1 or not isinstance(containers[0], dict):
            return False
        engine = engine_of(str(containers[0].get("image", "")))
        return engine is not None and engine.kind in PORTS

    def addon(self, one: Object) -> None:
        """One add-on from a StatefulSet or a Deployment."""
        spec = one.view.view("spec")
        pod = self._pod(spec)
        container = next(pod.views("containers"))
        image = container.text("image")
        engine = engine_of(image)
        kind = one.labels[COMPONENT] if one.managed else engine.kind if engine else ""
        name = self.addon_names.claim(one.title)
        labels = self._labels(spec)
        hosts = [s.name for s in self.outside.of(labels)]
        self.hosts[name] = one.name if one.name in hosts or one.managed else (hosts or [one.name])[0]
        found: dict[str, Any] = {"kind": kind, "title": Names.title(one.title, name), "image": image}
        found["aliases"] = tuple(h for h in hosts if h != self.hosts[name])
        if engine is not None:
            found["version"] = version_of(image, engine)
            if kind == "postgres":
                found["extensions_wanted"] = engine.extensions
            if kind == "mariadb" and engine.flavour:
                found["flavour"] = engine.flavour
        found["memory"] = bytes_of(container.view("resources").view("limits").raw("memory")) if "resources" in container else None
        found |= self._settings(kind, container)
        sizes = [read_claim(t.view("spec")) for t in spec.views("volumeClaimTemplates")]
        volumes = pod.views("volumes")
        sizes += [
            self.outside.claims.get(v.view("persistentVolumeClaim").text("claimName")) for v in volumes if "persistentVolumeClaim" in v
        ]
        found["disk"] = next((size for size in sizes if size), None)
        for key in list(container.data):
            if key not in ("image", "env", "args", "command"):
                container.approximated(key, reason="Homeport runs this engine itself, with its own settings")
        container.honoured("name")
        self._rest(spec, pod, ("containers", "volumes"), "Homeport runs this engine itself, with its own settings")
        self.addons[name] = _ADDON.validate_python({key: value for key, value in found.items() if value not in (None, "", ())})

    def _settings(self, kind: str, container: View) -> dict[str, Any]:
        """What an engine's variables and arguments say."""
        values = {entry.text("name"): plain_text(entry.text("value")) for entry in container.views("env")}
        for entry in container.views("env"):
            entry.approximated("valueFrom", reason="Homeport makes the engine's password itself")
        for source in container.views("envFrom"):
            ref = source.view("configMapRef")
            values |= self.around.maps.get(ref.text("name"), {})
        found: dict[str, Any] = {}
        user, database = next((values[k] for k in _USER if k in values), ""), next((values[k] for k in _DATABASE if k in values), "")
        if kind in ("postgres", "mariadb"):
            found |= {"user": user, "database": database}
        args = [plain_text(word) for word in (*container.texts("command"), *container.texts("args"))]
        words = server_command(args) if args else []
        if kind == "temporal":
            found["namespace"] = (
                args[args.index("--namespace") + 1] if "--namespace" in args[:-1] else values.get("DEFAULT_NAMESPACE", "") or "default"
            )
            return found
        if words is None:
            return {**found, "command": tuple(args)}
        options = parse_flags(words, short_c=kind == "postgres").options
        if kind == "redis":
            options.pop("requirepass", None)
            policy = options.get("maxmemory-policy", "")
            if policy in _EVICTION:
                found["eviction"] = options.pop("maxmemory-policy")
            if options.get("appendonly") in ("yes", "no"):
                found["persistence"] = options.pop("appendonly") == "yes"
        return {**found, "parameters": options}

    def service(self, one: Object) -> None:
        """One service from any other workload."""
        name = self.names.claim(one.title)
        self.instances[one.name] = name
        top = one.view.view("spec")
        if one.kind == "CronJob":
            spec = top.view("jobTemplate").view("spec")
            top.view("jobTemplate").honoured("metadata")
        else:
            spec = top
        pod = spec if one.kind == "Pod" else self._pod(spec)
        labels = one.labels if one.kind == "Pod" else self._labels(spec)
        selected = self.outside.of(labels)
        containers = list(pod.views("containers"))
        if not containers:
            one.view.problem("spec", "a workload needs a container")
            return
        container, rest = containers[0], containers[1:]
        for other in (*rest, *pod.views("initContainers")):
            other.ledger.note(
                other.path, Fate.IGNORED, "a service has one container: make another service of it, or put it into the start command"
            )
        targets = {target: app for s in selected[:1] for target, app in s.targets.items()}
        ports = read_ports(container, targets, one.managed)
        fields, options = read_container(container, one.managed)
        variables = Variables(self.around, name, one.managed)
        variables.read(container)
        if (
            one.managed
            and variables.env.get("PORT") == PlainValue(value=str(ports.main or DEFAULT_PORT))
            and "PORT" not in self._own(one.name)
        ):
            variables.env.pop("PORT")
        kind = self._kind(one, selected, ports)
        settle = fields.pop("settle", 0) or 0
        fields |= {
            "kind": kind,
            "title": Names.title(one.title, name),
            "env": variables.env,
            "env_groups": tuple(dict.fromkeys(variables.groups)),
        }
        fields |= self._options(pod, options)
        fields["disks"] = self._disks(one, name, spec, pod, container)
        if (secret := next((s.text("name") for s in pod.views("imagePullSecrets")), "")) != "":
            fields["build"] = {**fields["build"], "registry_credentials": secret}
        grace = pod.number("terminationGracePeriodSeconds")
        if grace is not None and grace - settle != GRACE:
            fields["shutdown_grace"] = max(0, grace - settle)
        if kind in ("web", "private"):
            fields |= {"port": ports.main, "protocol": self.outside.protocol(selected)}
        if kind == "web":
            fields["sticky"] = any(s.sticky for s in selected)
            fields["default_domain"] = True
        if ports.extra:
            fields["ports"] = ports.extra
        fields["aliases"] = tuple(s.name for s in selected if s.name not in (one.name, name))
        health, checks = read_health(container, ports)
        fields |= {"health": health, "checks": checks}
        self.backends |= {s.name: name for s in selected}
        {"CronJob": self._cron, "Job": self._job}.get(one.kind, self._scale)(one, top, spec, pod, fields)
        self._rest(spec, pod, ("containers", "initContainers", "volumes", "securityContext", "imagePullSecrets"), PLACED)
        self.services[name] = {key: value for key, value in fields.items() if value not in (None, "", (), {}) or key == "schedule"}

    def _own(self, name: str) -> dict[str, str]:
        return self.around.maps.get(name, {})

    def _kind(self, one: Object, selected: list[Any], ports: Ports) -> str:
        if one.kind in ("CronJob", "Job"):
            return "cron"
        if one.managed and one.labels.get(COMPONENT) in _KINDS:
            return one.labels[COMPONENT]
        if self.outside.exposed({s.name for s in selected}):
            return "web"
        return "private" if selected or ports.main else "worker"

    def _options(self, pod: View, options: dict[str, Any]) -> dict[str, Any]:
        found = {**read_pod_security(pod), **options}
        if text := pod.text("hostname"):
            found["hostname"] = text
        shared = (("hostNetwork", "network_mode"), ("hostPID", "pid"), ("hostIPC", "ipc"))
        found |= {field: "host" for key, field in shared if pod.flag(key)}
        hosts = [f"{host}:{alias.text('ip')}" for alias in pod.views("hostAliases") for host in alias.texts("hostnames")]
        dns = pod.view("dnsConfig")
        found |= {"extra_hosts": tuple(hosts), "dns": dns.texts("nameservers"), "dns_search": dns.texts("searches")}
        dns.ignored("options", reason="the machine's resolver decides")
        node = pod.view("nodeSelector")
        system, machine = node.text("kubernetes.io/os") or "linux", node.text("kubernetes.io/arch")
        if machine:
            found["platform"] = f"{system}/{machine}"
        node.ignored(*(k for k in node.data if not k.startswith("kubernetes.io/")), reason=PLACED)
        return {"container": {key: value for key, value in found.items() if value not in (None, "", ())}}

    def _disks(self, one: Object, name: str, spec: View, pod: View, container: View) -> tuple[dict[str, Any], ...]:
        sizes: dict[str, int | None] = {}
        for template in spec.views("volumeClaimTemplates"):
            metadata = template.view("metadata")
            sizes[metadata.text("name")] = read_claim(template.view("spec"))
            metadata.honoured("labels", "annotations")
            template.honoured("apiVersion", "kind")
        volumes = {view.text("name"): view for view in pod.views("volumes")}
        found = []
        for mount in container.views("volumeMounts"):
            volume = mount.text("name")
            disk: dict[str, Any] = {"name": "" if re.fullmatch(r"disk-\d+", volume) else volume, "mount_path": mount.text("mountPath")}
            disk |= {"read_only": mount.flag("readOnly") or False, "subpath": mount.text("subPath")}
            mount.ignored("mountPropagation", "subPathExpr", "recursiveReadOnly", reason="mounted as it is")
            if volume in sizes:
                disk["size"] = sizes[volume]
            elif volume in volumes:
                disk |= self._source(volumes[volume], f"{name}-{volume}")
            else:
                mount.problem("name", f"there is no volume {volume[:60]!r}")
            if re.fullmatch(r"tmpfs-\d+|dev-shm", volume) and one.managed:
                continue
            found.append({key: value for key, value in disk.items() if value not in (None, "", False)})
        return tuple(found)

    def _source(self, view: View, own: str) -> dict[str, Any]:
        """What a pod's volume is."""
        if "persistentVolumeClaim" in view:
            inner = view.view("persistentVolumeClaim")
            claim = inner.text("claimName")
            inner.honoured("readOnly")
            return {"source": "" if claim == own else claim, "size": self.outside.claims.get(claim)}
        if "emptyDir" in view:
            inner = view.view("emptyDir")
            inner.honoured("medium")
            return {"kind": "tmpfs", "size": bytes_of(inner.take("sizeLimit")) if "sizeLimit" in inner else None}
        for key, kind, field in (("hostPath", "bind", "path"), ("configMap", "config", "name"), ("secret", "secret", "secretName")):
            if key in view:
                inner = view.view(key)
                source = inner.text(field)
                inner.ignored("type", "items", "defaultMode", "optional", reason="mounted whole")
                return {"kind": kind, "source": source}
        if "image" in view:
            inner = view.view("image")
            inner.ignored("pullPolicy", reason="fetched when it is missing")
            return {"kind": "image", "source": inner.text("reference")}
        view.ignored(
            *(k for k in view.data if k != "name"), reason="no such volume outside of a cluster; an empty disk stands in its place"
        )
        return {}

    def _scale(self, one: Object, top: View, _: View, pod: View, fields: dict[str, Any]) -> None:
        count = top.integer("replicas", low=0, high=1000) if one.kind != "Pod" else None
        scale: dict[str, Any] = dict(self.outside.scalers.get(one.name, {}))
        scale["instances"] = count if count is not None else 1
        fields["scale"] = scale
        pod.honoured("restartPolicy")
        rollout: dict[str, Any] = {}
        if (settle := top.number("minReadySeconds")) is not None:
            rollout["monitor"] = settle
        strategy = top.view("strategy") if "strategy" in top else top.view("updateStrategy")
        rolling = strategy.view("rollingUpdate")
        if strategy.text("type") == "Recreate":
            rollout["strategy"] = "hold"
        unavailable, surge = rolling.text("maxUnavailable"), rolling.text("maxSurge")
        if not (one.managed and (unavailable, surge) == ("0", "1")):
            rollout |= {"max_unavailable": unavailable, "max_surge": surge}
        rolling.ignored("partition", reason="a release replaces all instances")
        fields["rollout"] = {key: value for key, value in rollout.items() if value != ""}
        deadline = top.number("progressDeadlineSeconds") if "progressDeadlineSeconds" in top else None
        if deadline is not None and fields["health"] is not None:
            fields["health"] = type(fields["health"]).model_validate({**fields["health"].model_dump(), "deadline": deadline})
        top.honoured("selector", "serviceName", "podManagementPolicy")
        top.ignored(
            "revisionHistoryLimit",
            "paused",
            "ordinals",
            "persistentVolumeClaimRetentionPolicy",
            reason="releases are kept by their own rule",
        )

    def _job_fields(self, spec: View, pod: View, fields: dict[str, Any]) -> None:
        limit = spec.number("activeDeadlineSeconds")
        fields["timeout"] = limit
        retries = spec.integer("backoffLimit", low=0)
        policy = pod.text("restartPolicy") or "Never"
        restart: dict[str, Any] = {}
        if policy == "OnFailure":
            restart["policy"] = "on-failure"
        elif not retries:
            restart["policy"] = "never"
        if retries:
            restart["max_retries"] = retries
        fields["restart"] = restart
        for key in spec.data:
            if key not in ("activeDeadlineSeconds", "backoffLimit", "template"):
                spec.ignored(key, reason="a job is one run of one instance")

    def _cron(self, _: Object, top: View, spec: View, pod: View, fields: dict[str, Any]) -> None:
        self._job_fields(spec, pod, fields)
        fields["schedule"] = top.text("schedule")
        fields["timezone"] = top.text("timeZone") or "UTC"
        fields["concurrency"] = _CONCURRENCY.get(top.text("concurrencyPolicy") or "Allow", "forbid")
        top.ignored(
            "successfulJobsHistoryLimit",
            "failedJobsHistoryLimit",
            "startingDeadlineSeconds",
            "suspend",
            reason="runs are kept by their own rule",
        )

    def _job(self, _: Object, __: View, spec: View, pod: View, fields: dict[str, Any]) -> None:
        self._job_fields(spec, pod, fields)
        fields |= {"schedule": "", "job": True}

    def hook(self, one: Object) -> None:
        """A Job of Homeport's own that belongs to a service."""
        name = self.names.find(one.title)
        spec = one.view.view("spec")
        spec.ledger.note(spec.path, Fate.HONOURED)
        limit = spec.number("activeDeadlineSeconds")
        containers = list(self._pod(spec).views("containers"))
        argv = containers[0].texts("args") if containers else ()
        if name in self.services and argv:
            key = "release_command" if one.annotations[HOOK] == "release" else "first_deploy_command"
            self.services[name][key] = {"command": command_of([plain_text(word) for word in argv]), "timeout": limit}

    def finished(self, outside: Outside) -> dict[str, Any]:
        """The services with their domains."""
        for name, domains in outside.domains.items():
            if self.services[name]["kind"] in ("web", "static"):
                self.services[name]["domains"] = domains
        return self.services

    @staticmethod
    def _pod(spec: View) -> View:
        template = spec.view("template")
        metadata = template.view("metadata")
        metadata.honoured("labels", "name", "namespace")
        metadata.ignored(*(k for k in metadata.data if k not in ("labels", "name", "namespace")), reason="about programs of the cluster")
        return template.view("spec")

    @staticmethod
    def _labels(spec: View) -> dict[str, str]:
        labels = _raw(spec.data, "template", "metadata", "labels")
        return {str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {}

    @staticmethod
    def _rest(spec: View, pod: View, known: tuple[str, ...], reason: str) -> None:
        """What nobody asked for: known keys of a pod that mean nothing outside of a cluster; others stay unknown."""
        pod.ignored(*(k for k in _POD if k not in known and k in pod.data), reason=reason)
        if reason != PLACED:
            for key in pod.data:
                if key not in known:
                    pod.approximated(key, reason=reason)
            for key in spec.data:
                if key not in ("template", "volumeClaimTemplates"):
                    spec.approximated(key, reason=reason)
            for template in spec.views("volumeClaimTemplates"):
                template.honoured("metadata", "apiVersion", "kind")
            for volume in pod.views("volumes"):
                volume.approximated(*volume.data, reason=reason)


_POD = (
    "automountServiceAccountToken", "enableServiceLinks", "serviceAccountName", "serviceAccount", "affinity", "tolerations",
    "topologySpreadConstraints", "schedulerName", "priorityClassName", "priority", "preemptionPolicy", "runtimeClassName", "nodeName",
    "dnsPolicy", "shareProcessNamespace", "subdomain", "setHostnameAsFQDN", "overhead", "readinessGates", "activeDeadlineSeconds",
    "hostUsers", "os", "schedulingGates", "resourceClaims", "resources", "ephemeralContainers", "hostnameOverride",
)  # fmt: skip


def _raw(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


__all__ = ["INSTANCE", "Workloads"]
