"""Writes `fly.toml`: one app, a process group per service. Valid for the published schema, which knows less than flyctl."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

import tomli_w

from homeport.blueprints.fly.reader import DEFAULT_GROUP, FlyReader
from homeport.blueprints.fly.values import GPUS, MEMORY, MIB, SCHEDULES, SIGNALS, STRATEGIES
from homeport.blueprints.patch import losses
from homeport.blueprints.source import MemoryTree
from homeport.model.base import format_duration
from homeport.model.env import PlainValue
from homeport.model.reading import Loss, Written
from homeport.model.route import Match, Route, SetHeaders
from homeport.model.service import CronService, HealthCheck, Listening, Service, WebService
from homeport.model.spec import Spec

DEFAULT_PORT = 8080
"""Fly's own default for `internal_port`."""
_CPUS = (1, 2, 4, 8, 16)
_SIZES = tuple(MEMORY)
_GPU_KINDS = ("a10", "a100-40gb", "a100-80gb", "l40s")

REASONS = (
    ("*.env.*", "fly.toml holds plain values only: set it with `fly secrets set`"),
    ("*.env", "fly.toml holds plain values only, the same for every process group: set the others with `fly secrets set`"),
    ("*.env_groups", "Fly has no env groups; their plain values are written under `env`"),
    ("env_groups*", "Fly has no env groups; their plain values are written under `env`"),
    ("addons*", "databases are apps of their own on Fly (`fly mpg create`, `fly redis create`)"),
    ("*.scale.instances", "Fly keeps the number of machines outside of the file: `fly scale count`"),
    ("*.first_deploy_command", "the published schema has no `seed_command`: add it under `deploy` by hand"),
    ("*.release_command*", "Fly runs one release command per app, for its default group, and its published schema has no time limit"),
    ("*.domains*", "custom domains are added with `fly certs add`"),
    ("*.port", "Fly needs a fixed port: 8080 is written, and told to the program as PORT"),
    ("*.schedule", "Fly runs schedules hourly, daily, weekly or monthly only"),
    ("*.kind", "Fly has no such kind of process group"),
    ("*.build*", "a Fly app has one build for all its process groups"),
    ("*.health*", "Fly's checks have no such setting"),
    ("*.checks*", "Fly's checks have no such setting"),
    ("*.disks*", "Fly mounts volumes only"),
    ("routes*", "Fly's proxy has no routing rules"),
    ("environments*", "a Fly app has one environment: write one app, and one file, per environment"),
    ("services.*", "Fly's file has no key for this, or one for the whole app only"),
)


class FlyWriter:
    """Web, private and worker services become process groups; what a Fly app cannot hold is a loss."""

    dialect: ClassVar[str] = "fly"

    def write(self, spec: Spec) -> Written:
        services = {name: service for name, service in spec.services.items() if _fits(service)}
        text = tomli_w.dumps(_clean(_App(spec, services).document()))
        back = FlyReader().read(MemoryTree({"fly.toml": text}, name=spec.name), "fly.toml").spec
        found = losses(spec, back, REASONS, "Fly's file has no key for this")
        if not services:
            found = (*found, Loss(path="services", reason="no service of this project can run as a process group"))
        return Written(dialect=self.dialect, files={"fly.toml": text}, losses=found)


def _fits(service: Service) -> bool:
    if isinstance(service, CronService):
        return service.schedule in SCHEDULES.values()
    return service.kind in ("web", "private", "worker")


class _App:
    """The document being written."""

    def __init__(self, spec: Spec, services: dict[str, Service]) -> None:
        self.spec, self.services = spec, services
        self.groups = {name: service.title or name for name, service in services.items()}
        self.alone = len(services) == 1

    def document(self) -> dict[str, Any]:
        own = self.spec.extensions.get("fly")
        own = dict(own) if isinstance(own, dict) else {}
        own.pop("vm", None)
        first = next(iter(self.services.values()), None)
        found: dict[str, Any] = {"app": self.spec.title or self.spec.name}
        if first is not None:
            found["primary_region"] = first.region
            found["kill_signal"] = first.stop_signal if first.stop_signal in SIGNALS else ""
            found["kill_timeout"] = _length(first.shutdown_grace)
            found["swap_size_mb"] = (first.resources.swap or 0) // MIB or None
            found["console_command"] = next((_line(s.hooks["console"].command) for s in self.services.values() if "console" in s.hooks), "")
            found["build"] = _build(first)
        found["env"] = self._env()
        found["deploy"] = self._deploy()
        found["experimental"] = self._experimental(own.pop("experimental", {}))
        found["processes"] = self._processes()
        found["schedules"] = self._schedules()
        found |= {key: value for key, value in own.items() if isinstance(value, str)}
        self._listeners(found)
        found["checks"] = self._checks()
        found["mounts"] = self._per_group(_mounts)
        found["vm"] = self._per_group(_machines)
        found["restart"] = self._per_group(_restarts)
        found["files"] = self._per_group(lambda s: [dict(c) for c in s.container.configs if isinstance(c, dict) and c.get("guest_path")])
        found["metrics"] = self._per_group(_metrics)
        found["statics"] = [static for s in self.services.values() if isinstance(s, WebService) for static in _statics(s)]
        return found

    def _per_group(self, make: Callable[[Service], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Sections of each service, with its group named; the same section of all services is written once per group."""
        return [
            section if self.alone else {**section, "processes": [self.groups[name]]}
            for name, service in self.services.items()
            for section in make(service)
        ]

    def _env(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for service in self.services.values():
            groups = (self.spec.env_groups[g].env for g in service.env_groups if g in self.spec.env_groups)
            for env in (service.env, *groups):
                for name, value in env.items():
                    if isinstance(value, PlainValue):
                        found.setdefault(name, value.value)
            if isinstance(service, Listening) and service.port is None:
                found.setdefault("PORT", str(DEFAULT_PORT))
        return found

    def _deploy(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for service in self.services.values():
            if service.release_command and "release_command" not in found:
                found["release_command"] = _line(service.release_command.command)
                vm = service.release_command.options.get("release_command_vm")
                found["release_command_vm"] = vm if isinstance(vm, dict) else None
            rollout = service.rollout
            strategy = {"overlap": "bluegreen", "hold": "immediate"}.get(rollout.strategy, rollout.strategy)
            if strategy in STRATEGIES:
                found.setdefault("strategy", strategy)
            if rollout.max_unavailable:
                found.setdefault("max_unavailable", _number(rollout.max_unavailable))
            if rollout.wait_timeout is not None:
                found.setdefault("wait_timeout", _length(rollout.wait_timeout))
        return found

    def _experimental(self, kept: Any) -> dict[str, Any]:
        found: dict[str, Any] = dict(kept) if isinstance(kept, dict) else {}
        if any(service.rollout.on_failure == "continue" for service in self.services.values()):
            found["auto_rollback"] = False
        first = next(iter(self.services.values()), None)
        if first is not None and first.container.entrypoint:
            entrypoint = first.container.entrypoint
            found["entrypoint"] = [entrypoint] if isinstance(entrypoint, str) else list(entrypoint)
        if first is not None and self._by_cmd(first):
            found["cmd"] = list(first.command)
        return found

    def _by_cmd(self, service: Service) -> bool:
        """Whether a lone service's argv list can stand as it is, without being joined to a command line."""
        return (
            self.alone
            and not isinstance(service.command, str)
            and len(service.command) > 1
            and self.groups == {DEFAULT_GROUP: DEFAULT_GROUP}
        )

    def _processes(self) -> dict[str, str]:
        if self.alone:
            (name, service), *_ = self.services.items()
            if self.groups[name] == DEFAULT_GROUP and (not service.command or self._by_cmd(service)):
                return {}
        return {self.groups[name]: _line(service.command) for name, service in self.services.items()}

    def _schedules(self) -> dict[str, str]:
        words = {cron: word for word, cron in SCHEDULES.items()}
        return {self.groups[n]: words[s.schedule] for n, s in self.services.items() if isinstance(s, CronService)}

    def _listeners(self, found: dict[str, Any]) -> None:
        services: list[dict[str, Any]] = []
        for name, service in self.services.items():
            group = {} if self.alone else {"processes": [self.groups[name]]}
            main_port = (service.port or DEFAULT_PORT) if isinstance(service, Listening) else None
            if isinstance(service, WebService) and "http_service" not in found:
                found["http_service"] = {**self._http_service(name, service), **group}
                services += [{**entry, **group} for entry in _extra(service, main_port, own=False)]
            else:
                services += [{**entry, **group} for entry in _extra(service, main_port, own=isinstance(service, Listening))]
        found["services"] = services

    def _http_service(self, name: str, service: WebService) -> dict[str, Any]:
        headers = [r for r in self.spec.routes if r.service == name and isinstance(r.action, SetHeaders) and _everywhere(r)]
        options: dict[str, Any] = {}
        kept = service.edge.get("http_options")
        options |= kept if isinstance(kept, dict) else {}
        response: dict[str, Any] = dict(options.get("response") or {})
        if headers and isinstance(headers[0].action, SetHeaders):
            action = headers[0].action
            response["headers"] = {**action.response, **dict.fromkeys(action.remove, False)}
        if response:
            options["response"] = response
        if service.protocol == "h2c":
            options["h2_backend"] = True
        return {
            "internal_port": service.port or DEFAULT_PORT,
            "force_https": service.force_https or None,
            **_common(service),
            "http_options": options,
            "tls_options": service.edge.get("tls_options"),
            "proxy_proto_options": service.edge.get("proxy_proto_options"),
            "machine_checks": service.edge.get("machine_checks"),
            **_service_checks(service, ""),
        }

    def _checks(self) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = {}
        for name, service in self.services.items():
            for check in service.checks:
                if not check.name or check.role != "live" or check.kind not in ("http", "tcp"):
                    continue
                entry = {"type": check.kind, "port": int(check.port) if check.port.isdecimal() else None, **_check(check)}
                known = found.setdefault(check.name, entry)
                if known is entry or {k: v for k, v in known.items() if k != "processes"} == entry:
                    known.update({} if self.alone else {"processes": [*known.get("processes", []), self.groups[name]]})
        return found


def _everywhere(route: Route) -> bool:
    return route.match == Match() and not route.force and not route.proceed


def _common(service: Service) -> dict[str, Any]:
    scale = service.scale
    limits = {"type": scale.concurrency_type, "hard_limit": scale.hard_concurrency, "soft_limit": scale.target_concurrency}
    return {
        "auto_stop_machines": "stop" if scale.scale_to_zero else None,
        "auto_start_machines": True if scale.scale_to_zero else None,
        "min_machines_running": scale.min,
        "concurrency": limits,
    }


def _extra(service: Service, main_port: int | None, *, own: bool) -> list[dict[str, Any]]:
    """`[[services]]` entries: the service's own port when `own`, and every port beside it."""
    entries: dict[tuple[int, str], dict[str, Any]] = {}
    if own and main_port:
        entries[main_port, "tcp"] = {"internal_port": main_port, "protocol": "tcp", **_common(service), **_service_checks(service, "")}
    for port in service.ports:
        protocol = port.protocol if port.protocol in ("tcp", "udp") else "tcp"
        entry = entries.setdefault((port.target, protocol), {"internal_port": port.target, "protocol": protocol})
        for key, value in _service_checks(service, str(port.target)).items():
            entry.setdefault(key, value)
        start, _, end = port.published.partition("-")
        if not start.isdecimal() or not 1 <= int(start) <= 65535:  # Compose writes 0 for any free port
            continue
        numbers = {"start_port": int(start), "end_port": int(end)} if end.isdecimal() else {"port": int(start)}
        handlers = [h for h in port.handlers if h in ("http", "tls", "proxy_proto", "pg_tls", "edge_http")]
        options = {key: port.options.get(key) for key in ("tls_options", "proxy_proto_options")}
        entry.setdefault("ports", []).append({**numbers, "handlers": handlers or None, **options})
    return list(entries.values())


def _service_checks(service: Service, port: str) -> dict[str, Any]:
    """The checks of a service that are about one port, by Fly's three lists."""
    mine = [
        c for c in ((service.health,) if service.health else ()) + service.checks if c.port == port and not (c.name and c.role == "live")
    ]
    return {
        "checks" if not port else "http_checks": [_check(c) for c in mine if c.kind == "http"],
        "tcp_checks": [_check(c) for c in mine if c.kind == "tcp"],
        "script_checks": [{**_check(c), "command": _argv(c.command)} for c in mine if c.kind == "command"],
    }


def _check(check: HealthCheck) -> dict[str, Any]:
    found: dict[str, Any] = {
        "interval": _length(check.interval),
        "timeout": _length(check.timeout),
        "grace_period": _length(check.start_period),
        "restart_limit": check.restart_after,
    }
    if check.kind == "http":
        found |= {"method": check.method, "path": check.path, "protocol": "https" if check.tls else None, "headers": dict(check.headers)}
        found |= {"tls_skip_verify": check.tls_skip_verify or None, "tls_server_name": check.tls_server_name}
    return found


def _build(service: Service) -> dict[str, Any]:
    build = service.build
    found: dict[str, Any] = {"builder": build.stack, "buildpacks": list(dict.fromkeys(build.buildpacks)), "image": build.image}
    found |= {"dockerfile": build.dockerfile, "build-target": build.target}
    found["ignorefile"] = build.options.get("ignorefile") if isinstance(build.options.get("ignorefile"), str) else None
    found["args"] = {name: value.value for name, value in build.args.items() if isinstance(value, PlainValue)}
    return found


def _mounts(service: Service) -> list[dict[str, Any]]:
    return [
        {
            "source": disk.name or disk.source or "data",
            "destination": disk.mount_path,
            "initial_size": _gigabytes(disk.initial_size or disk.size),
            "snapshot_retention": disk.snapshot_retention,
            "auto_extend_size_threshold": None if disk.grow_threshold is None else int(disk.grow_threshold),
            "auto_extend_size_increment": _gigabytes(disk.grow_by),
            "auto_extend_size_limit": _gigabytes(disk.grow_limit),
        }
        for disk in service.disks
        if disk.kind == "volume"
    ]


def _machines(service: Service) -> list[dict[str, Any]]:
    wanted = service.resources
    gpu, _, count = wanted.gpu.partition(":")
    found: dict[str, Any] = {
        "size": wanted.plan if wanted.plan in _SIZES else None,
        "memory": _megabytes(wanted.memory) if wanted.memory != MEMORY.get(wanted.plan) else None,
        "cpus": None if wanted.cpu is None else next((n for n in _CPUS if n >= wanted.cpu), _CPUS[-1]),
        "cpu_kind": wanted.cpu_kind if wanted.cpu_kind in ("shared", "performance") else None,
        "gpu_kind": gpu if gpu in _GPU_KINDS and gpu in GPUS else None,
        "gpus": int(count) if count in ("2", "4", "8") else None,
    }
    return [found] if any(value is not None for value in found.values()) else []


def _restarts(service: Service) -> list[dict[str, Any]]:
    restart = service.restart
    if restart.policy == "always" and restart.max_retries is None:
        return []
    return [{"policy": "always" if restart.policy == "unless-stopped" else restart.policy, "retries": restart.max_retries}]


def _metrics(service: Service) -> list[dict[str, Any]]:
    own = service.extensions.get("fly")
    entries = own.get("metrics") if isinstance(own, dict) else None
    return [dict(entry) for entry in entries if isinstance(entry, dict)] if isinstance(entries, list | tuple) else []


def _statics(service: WebService) -> list[dict[str, Any]]:
    entries = service.edge.get("statics")
    kept = entries if isinstance(entries, list | tuple) else ()
    return [
        {key: str(entry[key]) for key in ("guest_path", "url_prefix")}
        for entry in kept
        if isinstance(entry, dict) and "guest_path" in entry and "url_prefix" in entry
    ]


def _line(command: tuple[str, ...] | str) -> str:
    return command if isinstance(command, str) else shlex.join(command)


def _argv(command: tuple[str, ...] | str) -> list[str] | str:
    return command if isinstance(command, str) else list(command)


def _length(value: timedelta | None) -> str | None:
    return None if value is None else format_duration(value)


def _number(text: str) -> float | int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value == int(value) else value


def _megabytes(value: int | None) -> str | None:
    return None if value is None else f"{max(1, -(-value // MIB))}mb"


def _gigabytes(value: int | None) -> str | None:
    if value is None:
        return None
    return f"{value // (1024 * MIB)}gb" if value and value % (1024 * MIB) == 0 else _megabytes(value)


_USERS_OWN = frozenset({"env", "processes", "args", "headers"})
"""Tables of names the user chose: empty text in them means something."""


def _clean(value: Any, key: str = "") -> Any:
    """Without nulls, which TOML cannot hold, and without empty parts, which say nothing."""
    if isinstance(value, dict):
        cleaned = {name: _clean(item, name) for name, item in value.items() if item is not None}
        return {name: item for name, item in cleaned.items() if item not in ({}, []) and (item != "" or key in _USERS_OWN)}
    return [_clean(item) for item in value if item is not None] if isinstance(value, list | tuple) else value
