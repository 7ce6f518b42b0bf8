"""Reads Cloud Run's YAML: services, worker pools and jobs (https://cloud.google.com/run/docs/reference/yaml/v1)."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, ClassVar

from pydantic import ValidationError

from homeport.blueprints.cloudrun.names import (
    ACCELERATOR,
    AFFINITY,
    BUCKETS,
    CONCURRENCY,
    COUNT,
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
    RESERVED,
    SCHEDULE,
    TIMEZONE,
)
from homeport.blueprints.dialect import open_blueprint, validation_problems
from homeport.blueprints.manifests import bytes_of, command_of, objects, parse_manifests, quantity, read_probe
from homeport.blueprints.naming import Names, bare_name, clean_path
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import Ledger, View
from homeport.model.base import slug
from homeport.model.env import EnvValue, PlainValue, SecretValue
from homeport.model.reading import Fate, Reading
from homeport.model.service import HealthCheck
from homeport.model.spec import Spec

_SIGN = re.compile(r"^\s*[\"']?apiVersion[\"']?\s*:\s*[\"']?(?:serving\.knative\.dev/|run\.googleapis\.com/v1)", re.MULTILINE)
GOOGLES = "Google Cloud's own; kept for writing it back"
MAX_FILES = 100


class CloudRunReader:
    """Reads one resource, and those that its file names."""

    dialect: ClassVar[str] = "cloudrun"
    precedence: ClassVar[int] = 10

    def recognises(self, file_name: str, text: str) -> bool:
        return bare_name(file_name).lower().endswith((".yaml", ".yml", ".json")) and bool(_SIGN.search(text))

    def candidates(self, tree: SourceTree) -> list[str]:
        """The first file of several first: it names the others."""
        found = []
        for name in tree.list():
            wanted = name.startswith("service") or "cloudrun" in name.lower() or "cloud-run" in name.lower()
            if wanted and name.endswith((".yaml", ".yml")) and self.recognises(name, text := tree.text(name) or ""):
                found.append((FILES not in text, name != "service.yaml", name))
        return [name for _, _, name in sorted(found)]

    def read(self, tree: SourceTree, path: str) -> Reading:
        document = parse_manifests(path, open_blueprint(tree, path))
        ledger = Ledger(document)
        if document.data is None:
            ledger.problem((), "there is no resource in this file")
            ledger.close()
        project = _Project(slug(tree.name))
        for view in objects(ledger):
            project.add(view)
        for name in project.files[:MAX_FILES]:
            self._beside(tree, path, name, project)
        try:
            spec = project.spec()
        except ValidationError as error:
            raise validation_problems(error, ledger) from error
        return Reading(file=path, dialect=self.dialect, spec=spec, keys=ledger.close(), warnings=tuple(project.warnings))

    @staticmethod
    def _beside(tree: SourceTree, path: str, name: str, project: _Project) -> None:
        folder = path.rpartition("/")[0]
        try:
            full = clean_path(f"{folder}/{name}")
        except ValueError:
            full = ""
        if not full or tree.text(full) is None:
            project.warnings.append(f"{name[:80]} is named by {path}, and is not there.")
            return
        ledger = Ledger(parse_manifests(full, open_blueprint(tree, full)))
        for view in objects(ledger):
            project.add(view)
        ledger.close()


class _Project:
    """The resources of one project."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.names = Names()
        self.services: dict[str, dict[str, Any]] = {}
        self.hooks: list[tuple[str, str, dict[str, Any]]] = []
        self.files: list[str] = []
        self.warnings: list[str] = []

    def spec(self) -> Spec:
        for moment, name, job in self.hooks:
            if name in self.services and job.get("command"):
                self.services[name][f"{moment}_command"] = {"command": job["command"], "timeout": job.get("timeout")}
        return Spec.model_validate({"name": self.name, "services": self.services})

    def add(self, view: View) -> None:
        """One resource."""
        kind = view.text("kind")
        view.honoured("apiVersion")
        view.ignored("status", reason="what the platform found, not what is wanted")
        metadata = view.view("metadata")
        title = metadata.text("name")
        if not title:
            metadata.problem(None, "a resource needs a name")
            return
        if kind not in ("Service", "Job", "WorkerPool"):
            view.problem("kind", f"{kind[:40]!r} is none of Cloud Run's: Service, Job and WorkerPool are read")
            return
        resource = _Resource(kind, view, metadata)
        own = resource.annotations
        if PROJECT in own:
            self.name = slug(own[PROJECT])
        self.files += own.get(FILES, "").split()
        fields = resource.fields()
        moment, _, owner = own.get(HOOK, "").partition(" ")
        if kind == "Job" and moment in ("release", "first_deploy"):
            self.hooks.append((moment, owner, fields))
            return
        name = self.names.claim(title)
        fields["title"] = Names.title(title, name)
        self.services[name] = {key: value for key, value in fields.items() if value not in (None, "", (), {}) or key == "schedule"}


class _Resource:
    """One resource as the fields of a service."""

    def __init__(self, kind: str, view: View, metadata: View) -> None:
        self.kind, self.view, self.metadata = kind, view, metadata
        self.kept: dict[str, Any] = {}
        self.annotations = self._texts(metadata.raw("annotations"))
        self.region = ""
        self._metadata()

    @staticmethod
    def _texts(value: Any) -> dict[str, str]:
        return {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in value.items()} if isinstance(value, dict) else {}

    def _metadata(self) -> None:
        labels = self.metadata.view("labels")
        self.region = labels.text(LOCATION)
        labels.ignored(*(k for k in labels.data if k != LOCATION), reason="labels group resources in Google's console and bills")
        self.metadata.ignored("namespace", reason="the Google Cloud project's number")
        rest = [k for k in self.metadata.data if k not in ("name", "labels", "annotations", "namespace")]
        self.metadata.ignored(*rest, reason="the platform's own bookkeeping")
        view = self.metadata.view("annotations")
        known = {PROJECT, FILES, KIND, SCHEDULE, TIMEZONE, CONCURRENCY, HOOK, INGRESS, NO_URL, MODE, COUNT, MIN, MAX}
        known |= {"run.googleapis.com/minScale", "run.googleapis.com/maxScale"}
        for key in view.data:
            if key in known:
                view.honoured(key)
            elif key == INVOKER:
                view.honoured(key, reason="a web service answers everybody")
            elif key == DESCRIPTION:
                self.kept["description"] = view.text(key, reason="kept for writing it back")
            else:
                view.ignored(key, reason="about Google's own tools and rules")

    def fields(self) -> dict[str, Any]:
        spec = self.view.view("spec")
        template = spec.view("template")
        inner = template.view("spec")
        if self.kind == "Job":
            return self._job(template, inner)
        notes = self._revision(template)
        fields = self._containers(inner, notes)
        fields["scale"] = self._scale(inner, notes)
        self._spec(inner)
        self._traffic(spec)
        if self.kind == "WorkerPool":
            fields["kind"] = "worker"
        else:
            own = self.annotations.get(KIND, "")
            public = self.annotations.get(INGRESS, "all") in ("all", "internal-and-cloud-load-balancing")
            fields["kind"] = own if own in ("static", "function") else "web" if public else "private"
            fields |= self._ports(fields, fields.pop("ports"))
        fields.pop("ports", None)
        if fields["kind"] in ("web", "static", "function") and self.annotations.get(NO_URL) == "true":
            fields["default_domain"] = False
        if fields["kind"] == "web" and notes.get(AFFINITY) == "true":
            fields["sticky"] = True
        return self._common(fields)

    def _common(self, fields: dict[str, Any]) -> dict[str, Any]:
        fields["region"] = self.region
        fields["extensions"] = {"cloudrun": self.kept} if self.kept else {}
        return fields

    def _revision(self, template: View) -> dict[str, str]:
        """The annotations of a revision."""
        metadata = template.view("metadata")
        metadata.ignored("name", reason="releases are numbered by Homeport")
        metadata.ignored("labels", "namespace", reason="labels group resources in Google's console and bills")
        view = metadata.view("annotations")
        found = self._texts(view.data)
        for key in view.data:
            if key in (MIN, MAX, AFFINITY):
                view.honoured(key)
            elif key in KEPT:
                self.kept.setdefault("annotations", {})[key] = found[key]
                view.approximated(key, reason=GOOGLES)
            else:
                view.ignored(key, reason="about Google's own tools")
        return found

    def _scale(self, inner: View, notes: dict[str, str]) -> dict[str, Any]:
        def number(*texts: str | None) -> int | None:
            return next((int(t) for t in texts if t and t.isascii() and t.isdecimal() and len(t) < 5), None)

        own = self.annotations
        if "containerConcurrency" in inner:
            hard = inner.integer("containerConcurrency", low=0, high=1000)
        else:
            hard = None
        found: dict[str, Any] = {"hard_concurrency": hard or None}
        if (count := number(own.get(COUNT))) is not None and own.get(MODE, "manual") == "manual":
            return {**found, "instances": min(count, 1000)}
        if self.kind == "WorkerPool":
            return found
        least = number(notes.get(MIN), own.get("run.googleapis.com/minScale"), own.get(MIN))
        most = number(notes.get(MAX), own.get("run.googleapis.com/maxScale"), own.get(MAX))
        return {**found, "min": least, "max": most or None, "scale_to_zero": not least}

    def _spec(self, inner: View) -> None:
        """What a revision says beside its containers."""
        for key in ("timeoutSeconds", "serviceAccountName"):
            if key in inner:
                self.kept[key] = inner.take(key)
        inner.approximated(
            "timeoutSeconds", reason="the edge waits for answers as long as the service sends something; kept for writing it back"
        )
        inner.approximated("serviceAccountName", reason=GOOGLES)
        inner.ignored("enableServiceLinks", "runtimeClassName", reason="no such choice outside of Google Cloud")

    def _traffic(self, spec: View) -> None:
        for key in ("traffic", "instanceSplits"):
            value = spec.raw(key)
            if isinstance(value, list) and not (
                len(value) == 1 and isinstance(value[0], dict) and value[0].get("percent") == 100 and "tag" not in value[0]
            ):
                self.kept[key] = value
            spec.approximated(key, reason="a release gets all requests at once; going back is a rollback")

    def _containers(self, inner: View, notes: dict[str, str]) -> dict[str, Any]:
        views = list(inner.views("containers"))
        if not views:
            inner.problem("containers", "a container is needed")
            return {"ports": None}
        main = next((v for v in views if "ports" in v), views[0])
        beside = [v for v in views if v is not main]
        for view in beside:
            view.ledger.note(view.path, Fate.APPROXIMATED, "a container beside the main one is kept, not started: make a service of it")
        if beside:
            self.kept["sidecars"] = [view.data for view in beside]
        volumes = {view.text("name"): view for view in inner.views("volumes")}
        fields = self._container(main, volumes)
        node = inner.view("nodeSelector")
        if ACCELERATOR in node:
            fields["resources"]["gpu"] = node.text(ACCELERATOR)
        if beside and "name" in main:
            self.kept["name"] = main.text("name")
        del notes
        return fields

    def _container(self, view: View, volumes: dict[str, View]) -> dict[str, Any]:
        view.honoured("name")
        fields: dict[str, Any] = {"build": {"builder": "image", "image": view.text("image")}}
        options: dict[str, Any] = {"working_dir": view.text("workingDir")}
        fields["command"] = command_of(view.texts("args")) if "args" in view else ""
        if "command" in view:
            options["entrypoint"] = view.texts("command")
        fields["env"] = self._env(view)
        fields["resources"] = self._resources(view)
        fields["disks"] = tuple(self._disk(mount, volumes) for mount in view.views("volumeMounts"))
        fields["container"] = {key: value for key, value in options.items() if value}
        port: int | None = None
        name = ""
        for item in view.views("ports"):
            port, name = item.integer("containerPort", low=1, high=65535), item.text("name")
            item.honoured("protocol")
        fields["ports"] = (port, name)
        fields |= _checks(view, port or DEFAULT_PORT)
        view.ignored(
            "imagePullPolicy", "securityContext", "terminationMessagePath", "terminationMessagePolicy", reason="the platform decides"
        )
        return fields

    @staticmethod
    def _ports(fields: dict[str, Any], ports: tuple[int | None, str] | None) -> dict[str, Any]:
        port, name = ports or (None, "")
        if fields["kind"] not in ("web", "private"):
            return {}
        return {"port": port, "protocol": "h2c" if name == "h2c" else "http"}

    def _env(self, container: View) -> dict[str, EnvValue]:
        found: dict[str, EnvValue] = {}
        for entry in container.views("env"):
            name = entry.text("name")
            if name in RESERVED:
                entry.ignored("value", reason="the platform sets it")
                continue
            if "valueFrom" not in entry:
                found[name] = PlainValue(value=entry.text("value"))
                continue
            origin = entry.view("valueFrom")
            ref = origin.view("secretKeyRef")
            secret, version = ref.text("name"), ref.text("key")
            ref.honoured("optional")
            if version not in ("", "latest"):
                ref.approximated("key", reason="the vault's newest version is used; releases keep the one they began with")
                self.kept.setdefault("versions", {})[name] = version
            origin.ignored("configMapKeyRef", "fieldRef", "resourceFieldRef", reason="Cloud Run has none of these either")
            found[name] = SecretValue(name="" if secret == name else secret)
        container.ignored("envFrom", reason="Cloud Run reads no variables from there either")
        return found

    @staticmethod
    def _resources(container: View) -> dict[str, Any]:
        view = container.view("resources")
        limits = view.view("limits")
        found: dict[str, Any] = {"cpu": quantity(limits.take("cpu")) or None, "memory": bytes_of(limits.take("memory")) or None}
        if "nvidia.com/gpu" in limits:
            count = limits.text("nvidia.com/gpu")
            found["gpu"] = f"nvidia:{count}"
        for key in limits.data:
            if key not in ("cpu", "memory", "nvidia.com/gpu"):
                limits.ignored(key, reason="an instance's limits are cpu, memory and GPUs")
        view.ignored("requests", reason="Cloud Run itself ignores requests")
        return found

    def _disk(self, mount: View, volumes: dict[str, View]) -> dict[str, Any]:
        name = mount.text("name")
        disk: dict[str, Any] = {"name": name, "mount_path": mount.text("mountPath"), "read_only": mount.flag("readOnly") or False}
        disk["subpath"] = mount.text("subPath")
        volume = volumes.get(name)
        if volume is None:
            if not name.startswith("cloudsql"):
                mount.problem("name", f"there is no volume {name[:60]!r}")
            return disk
        if "emptyDir" in volume:
            inner = volume.view("emptyDir")
            inner.honoured("medium")
            return {**disk, "kind": "tmpfs", "size": bytes_of(inner.take("sizeLimit")) if "sizeLimit" in inner else None}
        if "secret" in volume:
            return {**disk, **_secret_volume(volume.view("secret"))}
        if "nfs" in volume:
            inner = volume.view("nfs")
            source = f"nfs://{inner.text('server')}{inner.text('path') or '/'}"
            inner.approximated("server", "path", reason="a share elsewhere: mount it on the machine, or name a disk")
            return {**disk, "kind": "cluster", "source": source, "read_only": inner.flag("readOnly") or False}
        if "csi" in volume:
            inner = volume.view("csi")
            driver = inner.text("driver")
            attributes = inner.view("volumeAttributes")
            options = {key: attributes.text(key) for key in attributes.data if key != "bucketName"}
            source = f"gs://{attributes.text('bucketName')}" if driver == BUCKETS else driver
            attributes.approximated("bucketName", *options, reason="a bucket elsewhere: use an S3 client, or name a disk")
            read_only = inner.flag("readOnly") or False
            return {**disk, "kind": "cluster", "source": source, "read_only": read_only, "options": {"csi": options} if options else {}}
        volume.ignored(*(k for k in volume.data if k != "name"), reason="no such volume is known; an empty disk stands in its place")
        return disk

    def _job(self, template: View, inner: View) -> dict[str, Any]:
        """A job: `spec.template` is an execution, the template in it a task."""
        notes = self._revision(template)
        for key in ("taskCount", "parallelism"):
            if key in inner:
                self.kept[key] = inner.take(key)
        inner.approximated("taskCount", "parallelism", reason="a job is one run of one instance; kept for writing it back")
        task = inner.view("template")
        task.view("metadata").ignored("annotations", "labels", reason="about Google's own tools")
        body = task.view("spec")
        fields = self._containers(body, notes)
        fields.pop("ports", None)
        fields.pop("health", None)
        fields.pop("checks", None)
        fields["timeout"] = body.number("timeoutSeconds")
        retries = body.integer("maxRetries", low=0)
        fields["restart"] = {"policy": "on-failure", "max_retries": retries} if retries else {"policy": "never"} if retries == 0 else {}
        if "serviceAccountName" in body:
            self.kept["serviceAccountName"] = body.take("serviceAccountName")
            body.approximated("serviceAccountName", reason=GOOGLES)
        own = self.annotations
        fields |= {"kind": "cron", "schedule": own.get(SCHEDULE, ""), "job": SCHEDULE not in own, "timezone": own.get(TIMEZONE)}
        fields["concurrency"] = own.get(CONCURRENCY)
        return self._common(fields)


def _secret_volume(inner: View) -> dict[str, Any]:
    """Secrets mounted as files: one secret, one file a version."""
    disk: dict[str, Any] = {"kind": "secret", "source": inner.text("secretName")}
    items = [{"key": item.text("key"), "path": item.text("path")} for item in inner.views("items")]
    inner.ignored("defaultMode", "optional", reason="files are readable by the service only")
    return {**disk, "options": {"items": items} if items else {}}


def _checks(view: View, port: int) -> dict[str, Any]:
    """The start-up probe decides when an instance is ready; the liveness probe restarts it."""
    found: dict[str, HealthCheck] = {}
    for key in ("startupProbe", "livenessProbe", "readinessProbe"):
        if key in view and (check := read_probe(view.view(key), port, {})) is not None:
            found[key] = check
    start, live, ready = (found.get(key) for key in ("startupProbe", "livenessProbe", "readinessProbe"))
    checks: list[HealthCheck] = []
    health = start
    if start is not None and start.retries:
        period = start.interval or timedelta(seconds=10)
        health = start.model_copy(update={"deadline": period * start.retries, "retries": None})
    if live is not None:
        if health is not None and _same(live, health):
            health = health.model_copy(update={"restart_after": live.retries or 3})
        else:
            checks.append(live.model_copy(update={"role": "live"}))
    if ready is not None:
        health, checks = (ready, checks) if health is None else (health, [*checks, ready])
    return {"health": health, "checks": tuple(checks)}


def _same(left: HealthCheck, right: HealthCheck) -> bool:
    return (left.kind, left.path, left.headers, left.interval, left.timeout, left.start_period) == (
        right.kind,
        right.path,
        right.headers,
        right.interval,
        right.timeout,
        right.start_period,
    )
