"""How services are reached: Services, Ingresses with hosts and paths, and who may connect to what is private."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from homeport.blueprints.kubernetes.names import COMPONENT, MANAGED_BY, OWNER, PART_OF, Objects, metadata
from homeport.blueprints.kubernetes.pods import clean, extra_ports
from homeport.blueprints.kubernetes.values import Values, port_of
from homeport.model.route import Route, ToService
from homeport.model.service import Domain, Listening, Service, StaticService, WebService

_HOST = re.compile(r"(?:\*\.)?[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_PROTOCOLS = {"h2c": "kubernetes.io/h2c", "https": "https", "tcp": "tcp"}
_INSIDE = ("private", "worker", "cron", "postgres", "redis", "mariadb", "temporal")


class Network:
    """Writes the network objects of one project."""

    def __init__(self, objects: Objects, values: Values) -> None:
        self.objects, self.values, self.spec = objects, values, objects.spec

    def service(self, name: str, service: Service) -> Iterator[dict[str, Any]]:
        """The Service of a service and of each of its aliases; none where nothing listens."""
        main = port_of(service)
        ports: list[dict[str, Any]] = []
        if main is not None:
            protocol = _PROTOCOLS.get(service.protocol) if isinstance(service, Listening) else None
            ports.append({"name": "main", "port": main, "targetPort": "main"} | ({"appProtocol": protocol} if protocol else {}))
        for label, port in extra_ports(service):
            entry = {"name": label, "port": port.target, "targetPort": label, "protocol": port.protocol.upper()}
            ports.append(clean({**entry, "appProtocol": port.app_protocol}))
        if not ports and not self._named(name, service):
            return
        instance = self.objects.services[name]
        labels = self.objects.labels(name, service.kind, instance)
        sticky = {"sessionAffinity": "ClientIP"} if getattr(service, "sticky", False) else {}
        for number, alias in enumerate(service.aliases):
            if not self.objects.free(alias):
                self.values.losses.append((f"services.{name}.aliases", f"no Service can have the name {alias[:60]!r} (entry {number + 1})"))
                continue
            yield self._service(alias, labels, instance, ports, sticky)
        yield self._service(instance, labels, instance, ports, sticky)

    def _service(
        self, name: str, labels: dict[str, str], instance: str, ports: list[dict[str, Any]], sticky: dict[str, str]
    ) -> dict[str, Any]:
        open_to = {"ports": ports} if ports else {"clusterIP": "None"}
        spec = {"selector": self.objects.selector(instance), **open_to, **sticky}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata(name, labels), "spec": spec}

    def _named(self, name: str, service: Service) -> bool:
        """Whether others may reach a service by name though it names no port: they get its pods' addresses (a headless Service)."""
        if service.aliases or service.disks or service.build.builder == "image":
            return True
        return any(d.service == name for other in self.spec.services.values() for d in other.depends_on)

    def ingress(self, name: str, service: Service) -> dict[str, Any] | None:
        """The Ingress of a service's domains; None when it has none that an Ingress can serve."""
        if not isinstance(service, WebService | StaticService):
            return None
        domains = [d for number, d in enumerate(service.domains) if self._serves(f"services.{name}.domains[{number}]", d)]
        if not domains:
            if service.default_domain:
                self.values.losses.append(
                    (f"services.{name}.default_domain", "Kubernetes makes up no host names: name a domain, or add an Ingress")
                )
            return None
        rules: dict[str, dict[str, Any]] = {}
        for domain in domains:
            rule = rules.setdefault(domain.host, {"host": domain.host, "http": {"paths": []}})
            rule["http"]["paths"].append(self._path(domain.path or "/", "Prefix", name))
        instance = self.objects.services[name]
        hosts = list(dict.fromkeys(d.host for d in domains if d.tls))
        spec: dict[str, Any] = {
            "tls": [{"hosts": hosts, "secretName": f"{instance}-tls"}] if hosts else None,
            "rules": list(rules.values()),
        }
        if hosts:
            self.values.need(f"{instance}-tls", "tls.crt, tls.key", "certificate; cert-manager writes it by itself where it is installed")
        labels = self.objects.labels(name, service.kind, instance)
        return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata(instance, labels), "spec": clean(spec)}

    def _serves(self, path: str, domain: Domain) -> bool:
        if domain.redirect_to:
            self.values.losses.append((path, "an Ingress has no redirects: set it up in the ingress controller's own words"))
            return False
        if len(domain.host) > 253 or not _HOST.fullmatch(domain.host):
            self.values.losses.append((path, "an Ingress takes host names in lower case only, no addresses and no ports"))
            return False
        return True

    def _path(self, path: str, kind: str, service: str) -> dict[str, Any]:
        backend = {"service": {"name": self.objects.services[service], "port": {"name": "main"}}}
        return {"path": path, "pathType": kind, "backend": backend}

    def routes(self) -> dict[str, Any] | None:
        """The Ingress of the routes that pass a path of a host on, unchanged, to a service; others are losses."""
        rules: dict[str, dict[str, Any]] = {}
        for number, route in enumerate(self.spec.routes):
            target = _simple(route)
            if target is None or target not in self.spec.services or port_of(self.spec.services[target]) is None:
                self.values.losses.append((f"routes[{number}]", "an Ingress only passes a host and a path on, unchanged, to a service"))
                continue
            host = route.match.host
            rule = rules.setdefault(host, {"host": host, "http": {"paths": []}})
            rule["http"]["paths"].append(self._path(route.match.path, "Exact" if route.match.syntax == "exact" else "Prefix", target))
        if not rules:
            return None
        labels = {PART_OF: self.spec.name, MANAGED_BY: OWNER, COMPONENT: "routes"}
        name = f"{self.objects.spec_map[:45]}-routes"
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": metadata(name, labels),
            "spec": {"rules": list(rules.values())},
        }

    def policy(self) -> dict[str, Any] | None:
        """Only pods of the project reach its private services, workers and add-ons. Needs a network plugin that enforces it."""
        kinds = {service.kind for service in self.spec.services.values()} | {addon.kind for addon in self.spec.addons.values()}
        inside = [kind for kind in _INSIDE if kind in kinds]
        if not inside:
            return None
        own = {PART_OF: self.spec.name}
        spec = {
            "podSelector": {"matchLabels": own, "matchExpressions": [{"key": COMPONENT, "operator": "In", "values": inside}]},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": own}}]}],
        }
        labels = {**own, MANAGED_BY: OWNER}
        name = f"{self.objects.spec_map[:45]}-inside"
        return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata(name, labels), "spec": spec}


def _simple(route: Route) -> str | None:
    """The service a route passes to, when an Ingress can say all of it."""
    match, action = route.match, route.action
    if not isinstance(action, ToService) or action.path or action.strip_prefix or route.service or route.force or route.signed:
        return None
    if match.syntax not in ("prefix", "exact") or match.methods or match.conditions or not _HOST.fullmatch(match.host):
        return None
    ok = match.path.startswith("/") and match.path.isprintable() and "//" not in match.path and " " not in match.path
    return action.service if ok and not route.proceed and not route.extensions else None
