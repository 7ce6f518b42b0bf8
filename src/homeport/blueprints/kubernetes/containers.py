"""The container of a pod as the fields of a service."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from homeport.blueprints.manifests import bytes_of, command_of, expand, plain_text, quantity, read_probe
from homeport.blueprints.view import View
from homeport.model.addon import AddOnBase
from homeport.model.env import AddOnProperty, EnvValue, FromAddOn, FromGroup, PlainValue, SecretValue, Template
from homeport.model.service import HealthCheck

_ADDON_KEYS = frozenset(get_args(AddOnProperty))
_PULL = {"Always": "always", "IfNotPresent": "missing", "Never": "never"}
PLACED = "decides where in a cluster a pod runs"


@dataclass
class Surroundings:
    """What the variables of a container may refer to: objects of the same stream."""

    maps: dict[str, dict[str, str]] = field(default_factory=dict)
    """ConfigMaps by name."""
    groups: dict[str, str] = field(default_factory=dict)
    """ConfigMaps (and Secrets) that are env groups: name to group."""
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    """Secrets of the stream, their keys."""
    group_env: dict[str, dict[str, EnvValue]] = field(default_factory=dict)
    addons: dict[str, str] = field(default_factory=dict)
    """Object name to add-on."""
    urls: list[tuple[EnvValue, FromAddOn]] = field(default_factory=list)
    """What the address of each add-on looks like when it is composed."""


class Variables:
    """Reads `envFrom` and `env` of one container."""

    def __init__(self, around: Surroundings, owner: str, managed: bool) -> None:
        self.around, self.owner, self.managed = around, owner, managed
        self.env: dict[str, EnvValue] = {}
        self.groups: list[str] = []

    def read(self, container: View) -> None:
        for source in container.views("envFrom"):
            self._source(source)
        known: dict[str, EnvValue] = dict(self.env)
        own: dict[str, EnvValue] = {}
        for entry in container.views("env"):
            name = entry.text("name")
            value = self._value(entry, name, known)
            if value is not None and name:
                known[name] = own[name] = value
        for name, value in own.items():
            helped = re.fullmatch(r"(.+)__\d+", name) if self.managed else None
            if not (helped and isinstance(own.get(helped[1]), Template | FromAddOn)) and not self._in_group(name, value):
                self.env[name] = value

    def _in_group(self, name: str, value: EnvValue) -> bool:
        return any(self.around.group_env.get(group, {}).get(name) == value for group in self.groups) and not isinstance(value, PlainValue)

    def _source(self, source: View) -> None:
        prefix = source.text("prefix")
        for key, kept in (("configMapRef", self.around.maps), ("secretRef", self.around.secrets)):
            if key not in source:
                continue
            ref = source.view(key)
            name = ref.text("name")
            ref.flag("optional")
            if not prefix and name in self.around.groups:
                self.groups.append(self.around.groups[name])
            elif name in kept:
                secret = key == "secretRef"
                self.env |= {
                    prefix + k: SecretValue(name=k if prefix else "") if secret else PlainValue(value=v) for k, v in kept[name].items()
                }
            else:
                ref.ignored("name", reason="the manifest does not say which variables it holds: set them with `homeport env set`")

    def _value(self, entry: View, name: str, known: Mapping[str, EnvValue]) -> EnvValue | None:
        if "valueFrom" not in entry:
            value = expand(entry.text("value"), known)
            return next((found for shape, found in self.around.urls if shape == value), value)
        origin = entry.view("valueFrom")
        if "secretKeyRef" in origin:
            return self._secret(origin.view("secretKeyRef"), name)
        if "configMapKeyRef" in origin:
            ref = origin.view("configMapKeyRef")
            source, key = ref.text("name"), ref.text("key")
            ref.flag("optional")
            if source in self.around.groups:
                return FromGroup(group=self.around.groups[source], key=key)
            if key in self.around.maps.get(source, {}):
                return PlainValue(value=self.around.maps[source][key])
            ref.ignored("name", "key", reason="the ConfigMap is not in this file: set the variable with `homeport env set`")
            return SecretValue(name="" if key == name else key, required=False)
        origin.ignored("fieldRef", "resourceFieldRef", "fileKeyRef", reason="a fact about the pod, and there is none")
        return None

    def _secret(self, ref: View, name: str) -> EnvValue:
        source, key = ref.text("name"), ref.text("key")
        optional = ref.flag("optional") or False
        if source in self.around.addons and key in _ADDON_KEYS:
            return FromAddOn.model_validate({"addon": self.around.addons[source], "property": key})
        value = SecretValue(name="" if key == name else key, required=not optional)
        if self.managed and (group := self.around.groups.get(source)) is not None:
            if group not in self.groups:
                return FromGroup(group=group, key=key)
            self.around.group_env.setdefault(group, {})[name] = value
        return value


@dataclass
class Ports:
    """The ports of a container."""

    main: int | None = None
    names: dict[str, int] = field(default_factory=dict)
    extra: list[dict[str, Any]] = field(default_factory=list)


def read_ports(container: View, targets: Mapping[int | str, str], managed: bool) -> Ports:
    """The ports of a container. `targets` are those that a Service passes to, with their `appProtocol`, the main one first."""
    found = Ports()
    entries: list[dict[str, Any]] = []
    for view in container.views("ports"):
        number = view.integer("containerPort", low=1, high=65535)
        name, protocol = view.text("name"), view.text("protocol", "TCP").lower()
        view.ignored("hostPort", "hostIP", reason="the edge takes connections, not the instance's machine")
        if number is not None:
            entries.append({"target": number, "name": name, "protocol": protocol if protocol in ("tcp", "udp", "sctp") else "tcp"})
            if name:
                found.names[name] = number
    numbers = [found.names.get(str(t), t) for t in targets]
    first = next((entry["target"] for entry in entries if entry["protocol"] == "tcp"), None)
    found.main = found.names.get("main") if managed else next((n for n in numbers if isinstance(n, int)), first)
    protocols = {found.names.get(str(t), t): p for t, p in targets.items()}
    for entry in entries:
        if entry["target"] == found.main and entry["protocol"] == "tcp":
            continue
        label = entry["name"]
        name = "" if label == f"{entry['protocol']}-{entry['target']}" else label
        found.extra.append({**entry, "name": name, "app_protocol": protocols.get(entry["target"], "") if targets else ""})
    return found


def read_health(container: View, ports: Ports) -> tuple[HealthCheck | None, tuple[HealthCheck, ...]]:
    """The readiness probe as the health check; what the other two say beyond it."""
    found: dict[str, HealthCheck | None] = {}
    for key in ("readinessProbe", "livenessProbe", "startupProbe"):
        main = "main" if "main" in ports.names else ports.main
        found[key] = read_probe(container.view(key), main, {**ports.names, "main": ports.main or 0}) if key in container else None
    ready, live, start = found["readinessProbe"], found["livenessProbe"], found["startupProbe"]
    checks: list[HealthCheck] = []
    if live is not None:
        if ready is not None and _handler(live) == _handler(ready) and live.interval == ready.interval:
            ready = ready.model_copy(update={"restart_after": live.retries or 3})
        else:
            checks.append(live.model_copy(update={"role": "live"}))
    if start is not None:
        if ready is not None and _handler(start) == _handler(ready):
            period = start.interval.total_seconds() if start.interval else 10
            ready = HealthCheck.model_validate({**ready.model_dump(), "start_period": period * (start.retries or 3)})
        else:
            checks.append(start.model_copy(update={"role": "startup"}))
    return ready, tuple(checks)


def _handler(check: HealthCheck) -> tuple[Any, ...]:
    return check.kind, check.path, check.port, check.tls, check.command, tuple(check.headers.items()), check.timeout


def read_resources(container: View) -> dict[str, Any]:
    """Limits and requests."""
    view = container.view("resources")
    found: dict[str, Any] = {}
    for section, suffix in (("limits", ""), ("requests", "_reserved")):
        inner = view.view(section)
        for key in inner.data:
            raw = inner.raw(key)
            if key == "cpu" and quantity(raw):
                found["cpu" + suffix] = quantity(inner.take(key))
            elif key == "memory" and bytes_of(raw):
                found["memory" + suffix] = bytes_of(inner.take(key))
            elif key.endswith("/gpu") and not suffix:
                found["gpu"] = inner.text(key)
            else:
                inner.ignored(key, reason="an instance's limits are cpu, memory and GPUs")
    view.ignored("claims", reason=PLACED)
    return found


def read_container(container: View, managed: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a container says beside variables, ports and probes: fields of the service, and Docker's options."""
    fields: dict[str, Any] = {"build": {"builder": "image", "image": container.text("image")}, "resources": read_resources(container)}
    options: dict[str, Any] = {"working_dir": container.text("workingDir")}
    container.honoured("name")
    if "args" in container:
        fields["command"] = command_of([plain_text(word) for word in container.texts("args")])
    if "command" in container:
        options["entrypoint"] = tuple(plain_text(word) for word in container.texts("command"))
    options["tty"], options["stdin_open"] = container.flag("tty"), container.flag("stdin")
    image = fields["build"]["image"]
    latest = "@" not in image and (image.endswith(":latest") or ":" not in image.rpartition("/")[2])
    policy = container.text("imagePullPolicy")
    if policy != ("Always" if latest else "IfNotPresent"):
        options["pull_policy"] = _PULL.get(policy, "")
    lifecycle = container.view("lifecycle")
    for key, hook in (("postStart", "post_start"), ("preStop", "pre_stop")):
        inner = lifecycle.view(key)
        if "exec" in inner:
            argv = inner.view("exec").texts("command")
            command = argv[2] if len(argv) == 3 and argv[:2] == ("sh", "-c") else argv
            fields.setdefault("hooks", {})[hook] = {"command": command}
        if key == "preStop" and "sleep" in inner:
            fields["settle"] = inner.view("sleep").integer("seconds", 0)
        inner.ignored("httpGet", "tcpSocket", "sleep" if key == "postStart" else "httpGet", reason="hooks are commands")
    lifecycle.ignored("stopSignal", reason="not read yet by every cluster")
    security = container.view("securityContext")
    options["privileged"], options["read_only"] = security.flag("privileged"), security.flag("readOnlyRootFilesystem")
    capabilities = security.view("capabilities")
    options["cap_add"], options["cap_drop"] = capabilities.texts("add"), capabilities.texts("drop")
    options |= _user(security)
    security.approximated("allowPrivilegeEscalation", reason="processes of Homeport never gain privileges")
    _no_security(security)
    container.ignored("terminationMessagePath", "terminationMessagePolicy", "volumeDevices", "resizePolicy", "stdinOnce", reason=PLACED)
    if not managed and options.get("entrypoint") and not fields.get("command"):
        fields["command"] = command_of(options.pop("entrypoint"))
        container.approximated("command", reason="runs instead of the image's own entry point and command")
    return fields, {key: value for key, value in options.items() if value not in (None, "", ())}


def _user(view: View) -> dict[str, Any]:
    user, group = view.integer("runAsUser"), view.integer("runAsGroup")
    if user is None:
        return {}
    return {"user": str(user) if group is None else f"{user}:{group}"}


def _no_security(view: View) -> None:
    view.approximated("runAsNonRoot", reason="instances have a user of their own")
    view.ignored(
        "seLinuxOptions", "windowsOptions", "procMount", "seccompProfile", "appArmorProfile", reason="the container engine's defaults hold"
    )


def read_pod_security(pod: View) -> dict[str, Any]:
    """The pod's security context as Docker's options."""
    view = pod.view("securityContext")
    options = _user(view)
    if groups := view.texts("supplementalGroups"):
        options["group_add"] = groups
    if sysctls := {item.text("name"): item.text("value") for item in view.views("sysctls")}:
        options["sysctls"] = sysctls
    view.approximated("fsGroup", "fsGroupChangePolicy", "supplementalGroupsPolicy", reason="disks belong to the user of the service")
    _no_security(view)
    return options


def address_shapes(name: str, value: EnvValue) -> list[tuple[EnvValue, FromAddOn]]:
    """The composed address of an add-on, as it looks when its entries are read."""
    return [(value, FromAddOn(addon=name, property="url"))] if isinstance(value, Template) else []


__all__ = [
    "AddOnBase",
    "Ports",
    "Surroundings",
    "Variables",
    "address_shapes",
    "read_container",
    "read_health",
    "read_pod_security",
    "read_ports",
]
