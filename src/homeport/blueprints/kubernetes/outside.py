"""What stands around workloads: Services, Ingresses, autoscalers and claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from homeport.blueprints.kubernetes.names import COMPONENT
from homeport.blueprints.manifests import bytes_of
from homeport.blueprints.view import Ledger, View
from homeport.model.reading import Fate

if TYPE_CHECKING:
    from homeport.blueprints.kubernetes.reader import Object

_PUBLIC = frozenset({"LoadBalancer", "NodePort"})
_PROTOCOLS = {"kubernetes.io/h2c": "h2c", "https": "https", "tcp": "tcp"}


class Service:
    """A Service object."""

    def __init__(self, one: Object) -> None:
        view = one.view.view("spec")
        self.name = one.name
        self.type = view.text("type") or "ClusterIP"
        selector = view.take("selector")
        self.selector = {k: str(v) for k, v in selector.items()} if isinstance(selector, dict) else {}
        self.sticky = view.text("sessionAffinity") == "ClientIP"
        self.targets: dict[int | str, str] = {}
        for port in view.views("ports"):
            number, target = port.integer("port", low=1, high=65535), port.take("targetPort")
            app = port.text("appProtocol")
            port.honoured("name", "protocol")
            port.ignored("nodePort", reason="the edge takes connections")
            self.targets[target if isinstance(target, int | str) and not isinstance(target, bool) and target else number or 0] = app
        if self.type == "ExternalName":
            view.ignored("externalName", reason="name it in the variables of the services that use it")
        rest = [key for key in view.data if key not in ("type", "selector", "sessionAffinity", "ports", "externalName")]
        view.ignored(*rest, reason="about the cluster's network")


class Outside:
    """Finds what belongs to a pod by its labels and names."""

    def __init__(self, around: list[Object], ledger: Ledger) -> None:
        self.ledger = ledger
        self.services = [Service(one) for one in around if one.kind == "Service"]
        self.ingresses = [one for one in around if one.kind == "Ingress"]
        self.claims = {one.name: self._claim(one) for one in around if one.kind == "PersistentVolumeClaim"}
        self.scalers = {target: found for one in around if one.kind == "HorizontalPodAutoscaler" for target, found in self._scaler(one)}
        self.routes: list[dict[str, Any]] = []
        self.domains: dict[str, list[dict[str, Any]]] = {}
        """By service."""

    def of(self, labels: Mapping[str, str]) -> list[Service]:
        """The Services that select a pod."""
        return [s for s in self.services if s.selector and s.selector.items() <= labels.items()]

    def exposed(self, names: set[str]) -> bool:
        """Whether an Ingress passes to one of these Services, or one of them is open to the public."""
        if any(s.type in _PUBLIC for s in self.services if s.name in names):
            return True
        return any(names & set(_backends(one.view.data)) for one in self.ingresses)

    @staticmethod
    def protocol(services: list[Service]) -> str:
        return next((_PROTOCOLS[app] for s in services for app in list(s.targets.values())[:1] if app in _PROTOCOLS), "http")

    def connect(self, backends: Mapping[str, str]) -> None:
        """Turn Ingresses into domains and routes. `backends` maps names of Services to services."""
        for one in self.ingresses:
            view = one.view.view("spec")
            secure = {host for tls in view.views("tls") for host in tls.texts("hosts")}
            for tls in view.views("tls"):
                tls.approximated("secretName", reason="certificates are fetched, or imported, by the edge")
            view.ignored("ingressClassName", reason="there is one edge")
            view.ignored("defaultBackend", reason="unknown hosts answer 404")
            for rule in view.views("rules"):
                host = rule.text("host")
                for path in rule.view("http").views("paths"):
                    self._path(one, host, path, host in secure, backends)

    def _path(self, one: Object, host: str, view: View, secure: bool, backends: Mapping[str, str]) -> None:
        path, kind = view.text("path") or "/", view.text("pathType") or "Prefix"
        if kind not in ("Prefix", "Exact"):
            view.approximated("pathType", reason="read as a prefix")
        backend = view.view("backend")
        backend.ignored("resource", reason="only services answer")
        inner = backend.view("service")
        target = backends.get(inner.text("name"))
        inner.honoured("port")
        if target is None:
            inner.ignored("name", "port", reason="there is no such service in this file")
            return
        own = one.managed and one.labels.get(COMPONENT) != "routes"
        if host and (own or (path == "/" and kind != "Exact" and not one.managed)):
            domain = {"host": host, "path": "" if path == "/" else path, "tls": secure}
            known = self.domains.setdefault(target, [])
            if domain not in known:
                known.append(domain)
            return
        if path == "/" and not host:
            return
        match = {"host": host, "path": path, "syntax": "exact" if kind == "Exact" else "prefix"}
        self.routes.append({"match": match, "action": {"kind": "service", "service": target}, "service": "" if host else target})

    @staticmethod
    def _claim(one: Object) -> int | None:
        view = one.view.view("spec")
        return read_claim(view)

    def _scaler(self, one: Object) -> list[tuple[str, dict[str, Any]]]:
        view = one.view.view("spec")
        target = view.view("scaleTargetRef")
        target.honoured("apiVersion", "kind")
        name = target.text("name")
        found: dict[str, Any] = {"min": view.integer("minReplicas", low=0), "max": view.integer("maxReplicas", low=0)}
        if "targetCPUUtilizationPercentage" in view:
            found["target_cpu"] = view.number("targetCPUUtilizationPercentage")
        for metric in view.views("metrics"):
            resource = metric.view("resource")
            what = resource.text("name")
            goal = resource.view("target")
            if what in ("cpu", "memory") and "averageUtilization" in goal:
                goal.honoured("type")
                metric.honoured("type")
                found[f"target_{what}"] = goal.number("averageUtilization")
            else:
                self.ledger.note(metric.path, Fate.IGNORED, "instances are started by cpu, memory or requests in flight")
        view.ignored("behavior", reason="instances start and end one by one")
        return [(name, {k: v for k, v in found.items() if v is not None})] if name else []


def read_claim(view: View) -> int | None:
    """The size of a claim, in bytes."""
    requests = view.view("resources").view("requests")
    size = bytes_of(requests.take("storage")) if "storage" in requests else None
    view.approximated("accessModes", reason="a disk belongs to the instances of one machine")
    rest = [key for key in view.data if key not in ("resources", "accessModes")]
    view.ignored(*rest, reason="about the cluster's storage")
    view.view("resources").ignored("limits", reason="a disk has one size")
    return size


def _backends(data: Any) -> list[str]:
    found: list[str] = []
    stack = [data]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            service = value.get("service")
            if isinstance(service, dict) and "name" in service:
                found.append(str(service["name"]))
            if "serviceName" in value:
                found.append(str(value["serviceName"]))
            stack.extend(value.values())
    return found
