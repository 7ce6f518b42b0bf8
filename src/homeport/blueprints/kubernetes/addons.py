"""Add-ons as StatefulSets of one instance, each with a claim, a Service and a password from a Secret."""

from __future__ import annotations

from typing import Any

from homeport.blueprints.kubernetes.names import PORTS, Objects, addon_image, database_of, is_outside, metadata, user_of
from homeport.blueprints.kubernetes.pods import claim, clean, resources
from homeport.blueprints.kubernetes.values import Values
from homeport.blueprints.manifests import escape, words
from homeport.model.addon import AddOn, MariaDB, Postgres, Redis, Temporal
from homeport.model.env import PlainValue
from homeport.model.service import Disk, Resources

_DATA = {"postgres": "/var/lib/postgresql/data", "redis": "/data", "mariadb": "/var/lib/mysql", "temporal": "/data"}


class AddOns:
    """Writes the add-ons of one project."""

    def __init__(self, objects: Objects, values: Values) -> None:
        self.objects, self.values = objects, values

    def documents(self, name: str, addon: AddOn) -> list[dict[str, Any]]:
        """StatefulSet and Services of an add-on; none for one that runs elsewhere."""
        path = f"addons.{name}"
        secret = self.objects.addons[name]
        if is_outside(addon):
            self.values.losses.append((path, f"it runs elsewhere: its values come from the Secret {secret}"))
            return []
        if not isinstance(addon, Temporal):
            self.values.need(secret, "password", f"password of {name}, letters and digits only")
        if isinstance(addon, Temporal):
            self.values.losses.append((path, "one development server on a file is written: run Temporal's own chart in production"))
        if addon.replicas or addon.high_availability:
            self.values.losses.append(
                (f"{path}.replicas", "one instance is written: replicas need an operator (CloudNativePG and its like)")
            )
        instance = self.objects.addons[name]
        labels = self.objects.labels(name, addon.kind, instance)
        selector = self.objects.selector(instance)
        documents: list[dict[str, Any]] = [self._stateful_set(name, addon, labels, selector)]
        free = [alias for alias in addon.aliases if self.objects.free(alias)]
        if len(free) < len(addon.aliases):
            names = ", ".join(alias[:60] for alias in addon.aliases if alias not in free)
            self.values.losses.append((f"{path}.aliases", f"no Service can have the name {names}"))
        for host in (instance, *free):
            ports = [{"name": "main", "port": PORTS[addon.kind], "targetPort": "main"}]
            documents.append(
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": metadata(host, labels),
                    "spec": {"selector": selector, "ports": ports},
                }
            )
        return documents

    def _stateful_set(self, name: str, addon: AddOn, labels: dict[str, str], selector: dict[str, str]) -> dict[str, Any]:
        instance = self.objects.addons[name]
        password = {"secretKeyRef": {"name": instance, "key": "password"}}
        env, args, ready = _engine(addon, password)
        for key, value in addon.env.items():
            if isinstance(value, PlainValue) and not any(entry["name"] == key for entry in env):
                env.append({"name": key, "value": escape(value.value)})
        container = {
            "name": instance,
            "image": addon_image(addon),
            "args": words(addon.command) if addon.command else args,
            "ports": [{"name": "main", "containerPort": PORTS[addon.kind], "protocol": "TCP"}],
            "env": env,
            "resources": resources(Resources(memory=addon.memory)),
            "securityContext": {"allowPrivilegeEscalation": False},
            "volumeMounts": [{"name": "data", "mountPath": _DATA[addon.kind]}],
            "readinessProbe": {**ready, "periodSeconds": 5, "timeoutSeconds": 5},
        }
        pod = {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 60,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [clean(container)],
        }
        if not addon.disk:
            self.values.losses.append((f"addons.{name}.disk", "a claim needs a size: 1 GiB is written, change it before you apply"))
        spec = {
            "serviceName": instance,
            "replicas": 1,
            "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": labels}, "spec": pod},
            "volumeClaimTemplates": [claim("data", selector, Disk(mount_path="/", size=addon.disk), "ReadWriteOnce")],
        }
        return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata(instance, labels), "spec": spec}


def _engine(addon: AddOn, password: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str], dict[str, Any]]:
    """Variables, arguments and the readiness check of an engine's image."""
    if isinstance(addon, Postgres):
        env: list[dict[str, Any]] = [
            {"name": "POSTGRES_USER", "value": user_of(addon)},
            {"name": "POSTGRES_DB", "value": database_of(addon)},
            {"name": "POSTGRES_PASSWORD", "valueFrom": password},
            {"name": "PGDATA", "value": _DATA["postgres"] + "/pgdata"},
        ]
        args = [word for key, value in addon.parameters.items() for word in ("-c", escape(f"{key}={value}"))]
        return env, args, {"exec": {"command": ["pg_isready", "-q", "-U", user_of(addon)]}}
    if isinstance(addon, Redis):
        args = ["--requirepass", "$(REDIS_PASSWORD)"]
        args += ["--appendonly", "yes" if addon.persistence is not False else "no"]
        args += ["--maxmemory-policy", addon.eviction] if addon.eviction else []
        args += [word for key, value in addon.parameters.items() for word in (f"--{key}", escape(value))]
        return [{"name": "REDIS_PASSWORD", "valueFrom": password}], args, {"tcpSocket": {"port": "main"}}
    if isinstance(addon, MariaDB):
        prefix = "MYSQL" if addon.flavour == "mysql" else "MARIADB"
        env = [
            {"name": f"{prefix}_DATABASE", "value": database_of(addon)},
            {"name": f"{prefix}_USER", "value": user_of(addon)},
            {"name": f"{prefix}_PASSWORD", "valueFrom": password},
            {"name": f"{prefix}_ROOT_PASSWORD", "valueFrom": password},
        ]
        env = [entry for entry in env if not (user_of(addon) == "root" and entry["name"] in (f"{prefix}_USER", f"{prefix}_PASSWORD"))]
        return env, [f"--{key}={escape(value)}" for key, value in addon.parameters.items()], {"tcpSocket": {"port": "main"}}
    namespace = ["--namespace", addon.namespace] if isinstance(addon, Temporal) and addon.namespace != "default" else []
    args = ["server", "start-dev", "--ip", "0.0.0.0", "--db-filename", "/data/temporal.db", *namespace]  # noqa: S104  # inside the pod
    return [], args, {"tcpSocket": {"port": "main"}}
