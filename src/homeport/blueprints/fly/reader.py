"""Reads `fly.toml`."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from homeport.blueprints.document import parse_toml
from homeport.blueprints.fly.services import Listener, at_port, read_http_service, read_named_check, read_service
from homeport.blueprints.fly.values import (
    CONTAINER,
    FLY_ONLY,
    GPUS,
    MEMORY,
    MIB,
    REGION,
    SCHEDULES,
    STRATEGIES,
    length,
    matches,
    raw_extension,
    size,
    tables,
)
from homeport.blueprints.naming import Names, bare_name
from homeport.blueprints.opening import finish, join, open_file, parent_of
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import View
from homeport.model.base import slug
from homeport.model.container import ContainerOptions, Port
from homeport.model.env import Env, EnvValue, PlainValue
from homeport.model.reading import Reading
from homeport.model.route import Route
from homeport.model.service import (
    Build,
    CronService,
    Disk,
    HealthCheck,
    Hook,
    PrivateService,
    Resources,
    Restart,
    Rollout,
    Scale,
    Service,
    WebService,
    WorkerService,
)
from homeport.model.spec import Spec

FILE = re.compile(r"^fly(?:[._-][A-Za-z0-9_.-]+)?\.toml$")
DEFAULT_GROUP = "app"
"""The process group of a file that names none."""


class FlyReader:
    """Each process group is a service: web when it has HTTP ports of the edge, private when it listens otherwise, else a worker."""

    dialect: ClassVar[str] = "fly"
    precedence: ClassVar[int] = 10

    def recognises(self, file_name: str, text: str) -> bool:  # noqa: ARG002
        return FILE.match(bare_name(file_name)) is not None

    def candidates(self, tree: SourceTree) -> list[str]:
        names = [name for name in tree.list() if self.recognises(name, "")]
        return sorted(names, key=lambda name: (name != "fly.toml", name != "fly.production.toml", name))

    def read(self, tree: SourceTree, path: str) -> Reading:
        view = open_file(tree, path, parse_toml)
        file = _File(view, tree, parent_of(path))
        file.gather()
        if view.ledger.problems:
            view.ledger.close()
        return finish(view, self.dialect, file.spec, file.warnings)


class _File:
    """One file being read: first every section is gathered, then each group picks what is about it."""

    def __init__(self, view: View, tree: SourceTree, folder: str) -> None:
        self.view, self.tree, self.folder = view, tree, folder
        self.warnings: list[str] = []
        self.names = Names()

    def gather(self) -> None:
        view = self.view
        self.app = view.text("app")
        self.groups = self._groups()
        self.default = DEFAULT_GROUP if DEFAULT_GROUP in self.groups else min(self.groups)
        self.region = view.text("primary_region")
        view.approximated("primary_region", reason=REGION)
        self.signal = view.text("kill_signal")
        self.grace = length(view, "kill_timeout")
        self.swap = size(view, "swap_size_mb", unit=MIB)
        self.console = view.text("console_command")
        view.approximated("console_command", reason="`homeport run` takes the command on its line; this one is kept as its hook `console`")
        self.own: dict[str, Any] = {}
        raw_extension(view, ("host_dedication_id", "machine_config", "container"), self.own)
        view.ignored("host_dedication_id", "machine_config", "container", "machine_checks", "vpn", "organization", "org", reason=FLY_ONLY)
        self.env = self._env()
        self.build = self._build(view.view("build"))
        self._deploy(view.view("deploy"))
        self._experimental(view.view("experimental"))
        self._sections()

    def _groups(self) -> dict[str, str]:
        raw = self.view.raw("processes")
        if not isinstance(raw, dict):
            for entry in tables(self.view, "processes"):
                entry.honoured(*entry.keys())
            return {DEFAULT_GROUP: ""}
        inner = self.view.view("processes")
        groups = {name: inner.text(name) for name in inner.keys()}  # noqa: SIM118
        return groups or {DEFAULT_GROUP: ""}

    def _env(self) -> Env:
        found: dict[str, EnvValue] = {}
        for table in tables(self.view, "env"):
            for name in table.keys():  # noqa: SIM118
                found[name] = PlainValue(value=table.text(name))
        return found

    def _build(self, view: View) -> Build:
        builder, image = view.text("builder"), view.text("image")
        view.honoured("builder", "buildpacks", reason="buildpacks run when the container builder has them; else the language is detected")
        view.honoured("image", reason=CONTAINER)
        packs = view.texts("buildpacks")
        dockerfile = view.text("dockerfile", reason=CONTAINER)
        target = next((view.text(key, reason=CONTAINER) for key in ("build-target", "build_target", "target") if key in view), "")
        arguments = view.view("args")
        options: dict[str, Any] = {}
        raw_extension(view, ("ignorefile", "builtin", "settings", "compression", "compression_level"), options)
        view.honoured("ignorefile", reason=CONTAINER)
        view.ignored("builtin", "settings", "compression", "compression_level", reason="about Fly's own builders; kept for writing it back")
        kind = "image" if image else "buildpacks" if builder or packs else "dockerfile" if dockerfile or target else "auto"
        return Build.model_validate({
            "builder": kind, "image": image, "stack": builder, "buildpacks": packs,
            "dockerfile": join(self.folder, dockerfile) if dockerfile else "", "target": target,
            "args": {name: PlainValue(value=arguments.text(name)) for name in arguments.keys()},  # noqa: SIM118
            "options": options,
        })  # fmt: skip

    def _deploy(self, view: View) -> None:
        self.release = view.text("release_command")
        self.release_timeout = length(view, "release_command_timeout")
        self.release_options: dict[str, Any] = {}
        raw_extension(view, ("release_command_vm",), self.release_options)
        view.approximated("release_command_vm", reason="the release command has the limits of its service; kept for writing it back")
        self.seed = view.text("seed_command", reason="runs once, after the first deploy of an environment")
        strategy = view.text("strategy").lower()
        if strategy and strategy not in STRATEGIES:
            view.problem("strategy", f"{strategy[:40]!r} is not a strategy", f"Use one of {', '.join(STRATEGIES)}.")
            strategy = ""
        if strategy in ("canary", "immediate"):
            view.approximated("strategy", reason="the new instances start beside the old and take over when they are well")
        unavailable = view.text("max_unavailable")
        view.approximated("max_unavailable", reason="no old instance stops before its successor is well, which is 0")
        self.rollout = {"strategy": strategy, "max_unavailable": unavailable, "wait_timeout": length(view, "wait_timeout")}

    def _experimental(self, view: View) -> None:
        if view.flag("auto_rollback", reason="a release that fails its watch window is rolled back") is False:
            self.rollout["on_failure"] = "continue"
        self.command = [*view.texts("exec"), *view.texts("cmd")]
        self.entrypoint = view.texts("entrypoint", reason=CONTAINER)
        view.honoured("private_network", reason="services of a project always reach each other by name")
        view.honoured("allowed_public_ports", reason="only the ports named under `services` are public")
        kept = ("enable_consul", "enable_etcd", "lazy_load_images", "attached", "machine_config", "use_zstd", "kill_timeout", "uses_gpus")
        extra: dict[str, Any] = {}
        raw_extension(view, kept, extra)
        if extra:
            self.own["experimental"] = extra
        view.ignored(*kept, reason=FLY_ONLY)

    def _sections(self) -> None:
        view = self.view
        self.listeners: list[Listener] = [read_http_service(entry) for entry in tables(view, "http_service")]
        for entry in tables(view, "services"):
            if entry.data:
                self.listeners.append(read_service(entry))
        self.checks: list[tuple[HealthCheck, tuple[str, ...]]] = []
        raw = view.raw("checks")
        named = view.view("checks").items() if isinstance(raw, dict) else ((str(v.raw("name") or ""), v) for v in tables(view, "checks"))
        for name, entry in named:
            self.checks.append(read_named_check(name, entry))
        self.disks = [found for key in ("mounts", "mount") for entry in tables(view, key) if (found := self._disk(entry))]
        self.machines = [(self._machine(entry), entry.texts("processes")) for entry in tables(view, "vm")]
        self.restarts = [(self._restart(entry), entry.texts("processes")) for entry in tables(view, "restart")]
        self.files = [(self._file(entry), entry.texts("processes")) for entry in tables(view, "files")]
        self.metrics = [(self._metrics(entry), entry.texts("processes")) for entry in tables(view, "metrics")]
        self.statics = [self._static(entry) for entry in tables(view, "statics")]
        schedules = view.view("schedules")
        self.schedules = {group: self._schedule(schedules, group) for group in schedules.keys()}  # noqa: SIM118

    def _schedule(self, view: View, group: str) -> str:
        text = view.text(group).strip().lower()
        view.approximated(group, reason="Fly picks the minute itself; Homeport takes the start of the hour")
        if text not in SCHEDULES:
            view.problem(group, f"{text[:40]!r} is not a schedule", f"Use one of {', '.join(SCHEDULES)}.")
        return SCHEDULES.get(text, "0 * * * *")

    def _disk(self, view: View) -> tuple[Disk, tuple[str, ...]] | None:
        destination = view.text("destination")
        if not destination:
            if view.data:
                view.problem(None, "a mount needs a `destination`", 'Write `destination = "/data"`.')
            return None
        if "swap_size_mb" in view:
            self.swap = size(view, "swap_size_mb", unit=MIB)
            view.honoured("swap_size_mb", reason="Fly reads it at the top of the file only; Homeport takes it at its word")
        grown = "a folder of the machine's own disk, which needs no growing; the limit is watched"
        gib = MIB * 1024
        disk = Disk(
            name=view.text("source"),
            mount_path=destination,
            size=None,
            initial_size=size(view, "initial_size", unit=gib),
            snapshot_retention=view.integer("snapshot_retention", low=0, high=3650),
            grow_threshold=view.number("auto_extend_size_threshold"),
            grow_by=size(view, "auto_extend_size_increment", unit=gib),
            grow_limit=size(view, "auto_extend_size_limit", unit=gib),
        )
        view.approximated(
            "initial_size", "auto_extend_size_threshold", "auto_extend_size_increment", "auto_extend_size_limit", reason=grown
        )
        view.honoured("source")
        view.honoured("scheduled_snapshots", reason="backups run by Homeport's own schedule")
        return disk, view.texts("processes")

    def _machine(self, view: View) -> dict[str, Any]:
        name = view.text("size")
        gpu = view.text("gpu_kind", reason=CONTAINER) or (name if name in GPUS else "")
        count = view.integer("gpus", low=0, high=64)
        memory = next((found for key in ("memory", "memory_mb") if (found := size(view, key, unit=MIB)) is not None), None)
        cpus = view.number("cpus")
        if cpus is not None and not 0 < cpus <= 1024:
            view.problem("cpus", "a number of cpus above 0 is expected here")
            cpus = None
        own: dict[str, Any] = {}
        raw_extension(view, ("kernel_args", "host_dedication_id", "persist_rootfs"), own)
        view.ignored("kernel_args", "host_dedication_id", "persist_rootfs", reason=FLY_ONLY)
        if own:
            self.own["vm"] = own
        if name and memory is None:
            view.honoured("size", reason="as the operator's table of plans says; without an entry, the memory that Fly's size has")
        return {
            "plan": "" if name in GPUS else name,
            "cpu": cpus,
            "memory": memory or MEMORY.get(name),
            "cpu_kind": view.text("cpu_kind"),
            "gpu": f"{gpu}:{count}" if gpu and count and count > 1 else gpu,
        }

    def _restart(self, view: View) -> Restart:
        policy = view.text("policy").lower()
        if policy and policy not in ("always", "never", "on-failure", "no"):
            view.problem("policy", f"{policy[:40]!r} is not a restart policy", "Use `always`, `never` or `on-failure`.")
            policy = ""
        retries = next((view.integer(k, low=0, high=1_000_000) for k in ("retries", "max_retries") if k in view), None)
        return Restart.model_validate({"policy": "never" if policy == "no" else policy or "always", "max_retries": retries})

    def _file(self, view: View) -> dict[str, Any]:
        found = {key: view.text(key, reason=CONTAINER) for key in ("guest_path", "local_path", "secret_name", "raw_value") if key in view}
        if not found.get("guest_path"):
            view.problem(None, "a file needs a `guest_path`")
        return found

    def _metrics(self, view: View) -> dict[str, Any]:
        found = {key: view.take(key) for key in ("port", "path", "https") if key in view}
        view.approximated(
            *found, reason="Homeport measures requests, cpu and memory itself; the program's own metrics page is kept, not read"
        )
        return found

    def _static(self, view: View) -> dict[str, Any]:
        found = {key: view.take(key) for key in ("guest_path", "url_prefix", "tigris_bucket", "index_document") if key in view}
        view.approximated(
            "guest_path", "url_prefix", "index_document", reason="the program itself answers these paths, as it does outside of Fly"
        )
        view.ignored("tigris_bucket", reason="about Fly's own object store; kept for writing it back")
        return found

    def spec(self) -> Spec:
        names = {group: self.names.claim(group) for group in self.groups}
        services: dict[str, Service] = {}
        routes: list[Route] = []
        for group, name in names.items():
            services[name] = self._service(group, name)
            for listener in self._of(group):
                if listener.headers is not None:
                    routes.append(Route(service=name, action=listener.headers))
        project = slug(self.app or self.tree.name)
        return Spec(
            name=project,
            title=Names.title(self.app, project) if self.app else "",
            services=services,
            routes=tuple(routes),
            extensions={"fly": self.own} if self.own else {},
        )

    def _of(self, group: str) -> list[Listener]:
        return [listener for listener in self.listeners if matches(listener.processes, group, self.default)]

    def _picked(self, found: list[Any], group: str) -> list[Any]:
        return [value for value, processes in found if matches(processes, group, self.default)]

    def _service(self, group: str, name: str) -> Service:
        listeners = self._of(group)
        main = next((item for item in listeners if item.public), listeners[0] if listeners else None)
        checks = self._picked(self.checks, group)
        own_checks = list(main.health) if main else []
        for other in listeners:
            if other is not main:
                own_checks += at_port(other.health, other.internal_port)
        values: dict[str, Any] = {
            "title": Names.title(group, name),
            "root": self._root(),
            "build": self.build,
            "command": self.groups[group] or (tuple(self.command) if len(self.command) > 1 else "".join(self.command)),
            "env": self.env,
            "resources": self._resources(group),
            "scale": _scale(main),
            "disks": tuple(self._picked(self.disks, group)),
            "restart": next(iter(self._picked(self.restarts, group)), Restart()),
            "rollout": Rollout(**self.rollout),
            "shutdown_grace": self.grace,
            "stop_signal": self.signal,
            "region": self.region,
            "health": own_checks[0] if own_checks else None,
            "checks": (*own_checks[1:], *checks),
            "ports": tuple(port for item in listeners for port in _extra_ports(item, main)),
            "container": ContainerOptions(entrypoint=self.entrypoint or None, configs=tuple(self._picked(self.files, group))),
        }
        if group == self.default:
            values |= self._moments()
        if metrics := self._picked(self.metrics, group):
            values["extensions"] = {"fly": {"metrics": metrics}}
        return self._kind(group, main, values)

    def _kind(self, group: str, main: Listener | None, values: dict[str, Any]) -> Service:
        if group in self.schedules:
            return CronService(schedule=self.schedules[group], **values)
        if main is None:
            return WorkerService(**values)
        values["port"] = main.internal_port
        if not main.public:
            return PrivateService(protocol="tcp", **values)
        edge = {**main.edge, **({"statics": self.statics} if self.statics and group == self.default else {})}
        return WebService(force_https=main.force_https, protocol="h2c" if main.h2c else "http", edge=edge, **values)

    def _moments(self) -> dict[str, Any]:
        release = Hook(command=self.release, timeout=self.release_timeout, options=self.release_options) if self.release else None
        return {
            "release_command": release,
            "first_deploy_command": Hook(command=self.seed) if self.seed else None,
            "hooks": {"console": Hook(command=self.console)} if self.console else {},
        }

    def _resources(self, group: str) -> Resources:
        named = [machine for machine, processes in self.machines if group in processes]
        shared = [machine for machine, processes in self.machines if not processes]
        return Resources(swap=self.swap, **(named or shared or [{}])[0])

    def _root(self) -> str:
        """The file's folder, when source stands in it; a file in a folder of its own deploys the repository's root."""
        sources = ("Dockerfile", "package.json", "pyproject.toml", "requirements.txt", "go.mod", "Gemfile", "mix.exs", "Cargo.toml")
        return self.folder if self.folder and any(name in self.tree.list(self.folder) for name in sources) else ""


def _scale(main: Listener | None) -> Scale:
    if main is None:
        return Scale()
    minimum = main.minimum
    return Scale.model_validate({
        "instances": max(1, minimum or 0),
        "min": minimum,
        "scale_to_zero": main.auto_stop and not minimum,
        "target_concurrency": main.soft,
        "hard_concurrency": main.hard,
        "concurrency_type": main.limit_kind,
    })  # fmt: skip


def _extra_ports(listener: Listener, main: Listener | None) -> tuple[Port, ...]:
    """Ports beside the main one: those of the edge under other numbers, and those of other `[[services]]`."""
    if listener is main or listener.ports:
        return listener.ports
    return (Port(target=listener.internal_port),) if listener.internal_port else ()
