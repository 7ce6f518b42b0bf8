"""Reads Kubernetes manifests: workloads as services, known images as add-ons, and what is around them.

Written by Homeport or by hand: labels of `app.kubernetes.io` decide names and kinds where Homeport set them, else the objects do.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ValidationError

from homeport.blueprints.dialect import open_blueprint, validation_problems
from homeport.blueprints.kubernetes.containers import Surroundings, address_shapes
from homeport.blueprints.kubernetes.names import COMPONENT, GROUP, HOOK, INSTANCE, MANAGED_BY, NAME, OWNER, PART_OF, SPEC, addon_value
from homeport.blueprints.kubernetes.outside import Outside
from homeport.blueprints.kubernetes.workloads import Workloads
from homeport.blueprints.manifests import objects, parse_manifests
from homeport.blueprints.naming import Names, bare_name
from homeport.blueprints.overrides import merge_patch
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import Ledger, View
from homeport.model.base import slug
from homeport.model.env import EnvValue, PlainValue, SecretValue
from homeport.model.reading import Fate, Reading
from homeport.model.spec import Spec

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod", "CronJob", "Job")
_AROUND = ("Service", "Ingress", "HorizontalPodAutoscaler", "PersistentVolumeClaim", "ConfigMap", "Secret")
_POLICIES = ("NetworkPolicy", "PodDisruptionBudget")
_SIGN = re.compile(r"^\s*[\"']?apiVersion[\"']?\s*:", re.MULTILINE)
_KIND = re.compile(r"^\s*[\"']?kind[\"']?\s*:\s*[\"']?(?:Deployment|StatefulSet|DaemonSet|CronJob|Job|Pod|List)\b", re.MULTILINE)
_FOREIGN = re.compile(r"serving\.knative\.dev/|run\.googleapis\.com/v1")


@dataclass
class Object:
    """One object of the stream."""

    kind: str
    view: View
    name: str
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def managed(self) -> bool:
        """Whether Homeport wrote it."""
        return self.labels.get(MANAGED_BY) == OWNER

    @property
    def title(self) -> str:
        return self.labels.get(NAME, self.name) if self.managed else self.name


class KubernetesReader:
    """Reads one stream of manifests."""

    dialect: ClassVar[str] = "kubernetes"
    precedence: ClassVar[int] = 40

    def recognises(self, file_name: str, text: str) -> bool:
        if not bare_name(file_name).lower().endswith((".yaml", ".yml", ".json")):
            return False
        return bool(_SIGN.search(text) and _KIND.search(text)) and not _FOREIGN.search(text)

    def candidates(self, tree: SourceTree) -> list[str]:
        """Only what Homeport wrote: manifests by hand name images that somebody else built, and the source beside them is what to run."""
        names = [name for name in tree.list() if name in ("kubernetes.yaml", "kubernetes.yml", "k8s.yaml", "k8s.yml")]
        return [name for name in names if f"{MANAGED_BY}: {OWNER}" in (tree.text(name) or "")]

    def read(self, tree: SourceTree, path: str) -> Reading:
        document = parse_manifests(path, open_blueprint(tree, path))
        ledger = Ledger(document)
        if document.data is None or document.data == []:
            ledger.problem((), "there is no object in this file")
            ledger.close()
        project = _Project(ledger, slug(tree.name))
        try:
            spec = project.spec()
        except ValidationError as error:
            raise validation_problems(error, ledger) from error
        return Reading(file=path, dialect=self.dialect, spec=spec, keys=ledger.close(), warnings=tuple(project.warnings))


class _Project:
    """All objects of one stream."""

    def __init__(self, ledger: Ledger, name: str) -> None:
        self.ledger = ledger
        self.warnings: list[str] = []
        self.objects: list[Object] = [found for view in objects(ledger) if (found := self._object(view)) is not None]
        owned = next((o.labels[PART_OF] for o in self.objects if o.managed and o.labels.get(PART_OF)), "")
        self.name = slug(owned) if owned else name
        self.names, self.addon_names = Names(), Names()
        self.around = Surroundings()

    def _object(self, view: View) -> Object | None:
        kind = view.text("kind")
        view.honoured("apiVersion")
        if not kind:
            view.problem(None, "an object needs a `kind`")
            return None
        metadata = view.view("metadata")
        name = metadata.text("name") or metadata.text("generateName").rstrip("-")
        labels = _texts(metadata.take("labels", reason="labels connect objects"))
        annotations = _texts(metadata.raw("annotations"))
        for key in annotations:
            known = key in (HOOK, GROUP, SPEC)
            at = (*metadata.at("annotations"), key)
            self.ledger.note(at, Fate.HONOURED if known else Fate.IGNORED, "" if known else "about a program of the cluster")
        metadata.approximated("namespace", reason="environments take the place of namespaces")
        metadata.ignored(
            *(k for k in metadata.data if k not in ("name", "generateName", "labels", "annotations", "namespace")),
            reason="the cluster's own bookkeeping",
        )
        view.ignored("status", reason="the cluster's own bookkeeping")
        if not name:
            metadata.problem(None, "an object needs a name")
            return None
        return Object(kind, view, name, labels, annotations)

    def _of(self, *kinds: str) -> list[Object]:
        return [one for one in self.objects if one.kind in kinds]

    def spec(self) -> Spec:
        self._config()
        outside = Outside(self._of(*_AROUND), self.ledger)
        workloads = Workloads(self.name, self.around, outside, self.names, self.addon_names)
        running = self._of(*WORKLOADS)
        known = [one for one in running if workloads.is_addon(one)]
        for one in known:
            workloads.addon(one)
        for name, addon in workloads.addons.items():
            host = workloads.hosts[name]
            self.around.addons[host] = name
            self.around.urls += address_shapes(name, addon_value(name, host, addon, "url"))
        hooks = [one for one in running if HOOK in one.annotations]
        for one in running:
            if one not in known and one not in hooks:
                workloads.service(one)
        for one in hooks:
            workloads.hook(one)
        outside.connect(workloads.backends)
        for one in self.objects:
            if one.kind in _POLICIES:
                one.view.approximated("spec", reason="Homeport keeps private services to their project, and replaces instances one by one")
            elif one.kind not in (*WORKLOADS, *_AROUND):
                one.view.ignored(
                    *(k for k in one.view.data if k not in ("apiVersion", "kind", "metadata")),
                    reason=f"a {one.kind[:40]} is about a cluster",
                )
        groups = {name: {"env": {key: value.model_dump() for key, value in env.items()}} for name, env in self.around.group_env.items()}
        spec = Spec.model_validate(
            {
                "name": self.name,
                "services": workloads.finished(outside),
                "addons": workloads.addons,
                "env_groups": groups,
                "routes": outside.routes,
            }
        )
        return self._patched(spec)

    def _config(self) -> None:
        """ConfigMaps and Secrets: by name, and which of them are env groups."""
        used = _used_as_source(self.ledger.document.data)
        for one in self._of("ConfigMap"):
            one.view.ignored("binaryData", "immutable", reason="variables are text, and releases never change")
            data = _texts(one.view.take("data"))
            if SPEC in one.annotations:
                continue
            self.around.maps[one.name] = data
            group = one.annotations.get(GROUP) or ("" if one.managed else one.name if one.name in used else "")
            if group:
                self.around.groups[one.name] = group
                self.around.group_env.setdefault(group, {}).update({k: PlainValue(value=v) for k, v in data.items()})
        for one in self._of("Secret"):
            keys = {**_texts(one.view.raw("data")), **_texts(one.view.raw("stringData"))}
            one.view.approximated("data", "stringData", reason="values belong in the vault: set them with `homeport env set`")
            one.view.ignored("type", "immutable", reason="the vault keeps one kind of value")
            self.around.secrets[one.name] = keys
            if keys and not one.managed:
                self.warnings.append(f"The values of the Secret {one.name} were not taken over: set them with `homeport env set`.")
            if one.name in used:
                self.around.groups.setdefault(one.name, one.name)
                env: dict[str, EnvValue] = {key: SecretValue() for key in keys}
                self.around.group_env.setdefault(self.around.groups[one.name], {}).update(env)

    def _patched(self, spec: Spec) -> Spec:
        """The spec with what Homeport kept beside the other objects."""
        kept = next((one for one in self.objects if SPEC in one.annotations and one.kind == "ConfigMap"), None)
        text = _texts(kept.view.raw("data")).get("spec.json", "") if kept is not None else ""
        if kept is None or not text:
            return spec
        try:
            patch = json.loads(text)
            return Spec.model_validate(patch if kept.annotations[SPEC] == "whole" else merge_patch(spec.canonical(), patch))
        except (ValueError, RecursionError) as error:
            reason = (
                "it is no JSON"
                if isinstance(error, json.JSONDecodeError | RecursionError)
                else "it does not fit the other objects any more"
            )
            kept.view.ignored("data", reason=reason)
            self.warnings.append(f"What Homeport kept in the ConfigMap {kept.name} was left out: {reason}.")
            return spec


def _texts(value: Any) -> dict[str, str]:
    return {key: str(item) for key, item in value.items() if not isinstance(item, dict | list)} if isinstance(value, dict) else {}


def _used_as_source(data: Any) -> set[str]:
    """Names of ConfigMaps and Secrets whose keys become variables all at once."""
    found: set[str] = set()
    stack = [data]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            for source in value.get("envFrom") or () if isinstance(value.get("envFrom"), list) else ():
                for key in ("configMapRef", "secretRef"):
                    ref = source.get(key) if isinstance(source, dict) else None
                    if isinstance(ref, dict) and not source.get("prefix"):
                        found.add(str(ref.get("name")))
            stack.extend(value.values())
    return found


__all__ = ["COMPONENT", "INSTANCE", "KubernetesReader", "Object"]
