"""The spec in Compose's words: one mapping per service, add-on and resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeport.blueprints.compose.emit_addons import PORTS, AddOnEmitter
from homeport.blueprints.compose.reader import NEVER
from homeport.blueprints.compose.values import Writer, escape, escaped, public_name
from homeport.model.base import format_duration, format_size
from homeport.model.container import ContainerOptions, Port
from homeport.model.env import EnvValue, FromGroup, FromService, GeneratedValue, Template
from homeport.model.reading import Loss
from homeport.model.service import (
    Build,
    CronService,
    Disk,
    FunctionService,
    HealthCheck,
    Listening,
    ServiceBase,
    StaticService,
    WebService,
)
from homeport.model.spec import NamedResource, Spec

_RESTART = {"always": "always", "on-failure": "on-failure", "never": "no", "unless-stopped": "unless-stopped"}
_CONDITIONS = {"started": "service_started", "healthy": "service_healthy", "completed": "service_completed_successfully"}
_QUIET = frozenset({"kind", "title", "aliases", "port", "protocol", "root", "version", "user", "database", "ports", "scale"})
"""Properties whose words differ from the reader's guess, while Docker does the right thing."""


class Emitter:
    """Turns one spec into the data of a Compose file, noting what Docker would not do."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.losses: list[Loss] = []
        services = {name: (service.title or name, getattr(service, "port", None)) for name, service in spec.services.items()}
        addons = {name: (addon.title or name, PORTS.get(addon.kind, 0), addon) for name, addon in spec.addons.items()}
        self.titles = {**{n: t for n, (t, _) in services.items()}, **{n: t for n, (t, _, _) in addons.items()}}
        self.values = Writer(services, addons)
        self.volumes: dict[str, Any] = {}
        self.addons = AddOnEmitter(self.values, self.env, self.loss, self.volumes)

    def loss(self, path: str, reason: str) -> None:
        """Something Docker would not do."""
        self.losses.append(Loss(path=path, reason=reason))

    def equivalent(self, path: str) -> bool:
        """Whether a difference of the words makes none for Docker."""
        parts = path.split(".")
        if parts[0] in ("title", "name", "version", "volumes"):
            return True
        if parts[0] not in ("services", "addons") or len(parts) < 3:
            return False
        if parts[0] == "services" and parts[2] == "env":
            return True
        return parts[2] in _QUIET or (
            parts[0] == "addons" and parts[2] in ("image", "password", "persistence", "disk", "env", "extensions_wanted")
        )

    def document(self) -> dict[str, Any]:
        """The whole file."""
        spec = self.spec
        services: dict[str, Any] = {}
        jobs: dict[str, Any] = {}
        for name, addon in spec.addons.items():
            services[addon.title or name] = self.addons.service(name, addon)
            services.update(self.addons.interface(name, addon))
        for name, service in spec.services.items():
            if isinstance(service, CronService) and not service.job:
                jobs[service.title or name] = self._job(name, service)
            else:
                services[service.title or name] = self._service(name, service)
        self._project_losses()
        resources = {group: self._resources(group) for group in ("networks", "volumes", "configs", "secrets")}
        for entry in (*services.values(), *jobs.values()):
            for group in ("networks", "configs", "secrets"):
                for used in entry.get(group) or ():
                    named = str(used.get("source") if isinstance(used, dict) else used)
                    if named != "default":
                        resources[group].setdefault(named, {"external": True} if group != "networks" else {})
        resources["volumes"] = {**resources["volumes"], **{k: v for k, v in self.volumes.items() if k not in resources["volumes"]}}
        extensions = {key: value for key, value in spec.extensions.items() if key.startswith("x-") or key == "models"}
        return {
            "name": spec.title or spec.name,
            "services": services,
            **({"jobs": jobs} if jobs else {}),
            **{group: entries for group, entries in resources.items() if entries},
            **extensions,
        }

    def _project_losses(self) -> None:
        spec = self.spec
        for key, reason in {
            "routes": "Compose has no edge: route at a proxy of your own",
            "env_groups": "written into the services' own variables where they are used",
            "environments": "Compose has one environment per project",
            "tunnels": "Compose has no tunnels: run cloudflared as a service",
            "pipelines": "Compose runs no pipelines",
        }.items():
            if getattr(spec, key):
                self.loss(key, reason)

    # Values

    def env(self, where: str, env: Mapping[str, EnvValue]) -> dict[str, str | None]:
        """Variables as text."""
        for key, value in env.items():
            if reason := self._value_loss(value):
                self.loss(f"{where}.env.{key}", reason)
        return {key: self.values.text(key, value) for key, value in env.items()}

    def _value_loss(self, value: EnvValue) -> str:
        if isinstance(value, GeneratedValue):
            return "Docker makes no random values: set the variable in `.env`"
        if isinstance(value, FromGroup):
            return "Compose has no env groups: set the variable in `.env`"
        if isinstance(value, FromService) and (value.variable or value.property in ("public-url", "public-host")):
            return "Docker does not know the public address: set the variable in `.env`"
        if isinstance(value, Template):
            return next((reason for part in value.parts if (reason := self._value_loss(part))), "")
        return ""

    # Services

    def _service(self, name: str, service: ServiceBase) -> dict[str, Any]:
        where = f"services.{name}"
        result = self._common(where, service)
        if isinstance(service, CronService):
            result["restart"] = "no"
        else:
            policy = service.restart
            retries = f":{policy.max_retries}" if policy.policy == "on-failure" and policy.max_retries is not None else ""
            result["restart"] = _RESTART[policy.policy] + retries
        if ports := self._ports(service):
            result["ports"] = ports
        if exposed := self._exposed(service):
            result["expose"] = exposed
        if isinstance(service, StaticService | FunctionService):
            self.loss(where, f"Compose has no {service.kind} services: it is built and left to its image")
        if isinstance(service, WebService) and service.domains:
            self.loss(f"{where}.domains", "Compose has no host names: route at a proxy of your own")
        return result

    def _job(self, name: str, service: CronService) -> dict[str, Any]:
        result = self._common(f"services.{name}", service)
        schedule: Any = service.schedule
        if service.timezone != "UTC":
            schedule = {"cron": service.schedule, "timezone": service.timezone}
        kept = service.extensions.get("triggers") or {}
        if service.schedule == NEVER:
            triggers: dict[str, Any] = {"manual": True}
        else:
            triggers = {"schedule": [schedule]}
        result["triggers"] = {**triggers, **kept} if isinstance(kept, dict) else triggers
        return result

    def _common(self, where: str, service: ServiceBase) -> dict[str, Any]:
        result: dict[str, Any] = {}
        self._build(where, service, result)
        if service.command:
            result["command"] = escape(service.command) if isinstance(service.command, str) else [escape(word) for word in service.command]
        env = dict(service.env)
        for group in service.env_groups:
            if group in self.spec.env_groups:
                env = {**self.spec.env_groups[group].env, **env}
        if env:
            result["environment"] = self.env(where, env)
        if service.env_files:
            result["env_file"] = [self._env_file(file) for file in service.env_files]
        if service.depends_on:
            result["depends_on"] = self._depends(service)
        if service.health is not None:
            result["healthcheck"] = self._health(service)
        if service.disks:
            result["volumes"] = [self._disk(disk) for disk in service.disks]
        self._moments(service, result)
        self._container(service.container, result)
        deploy = self._deploy(service)
        if deploy:
            result["deploy"] = deploy
        result.update({key: value for key, value in service.extensions.items() if key.startswith("x-") or key == "models"})
        return result

    def _build(self, where: str, service: ServiceBase, result: dict[str, Any]) -> None:
        build = service.build
        if build.image:
            result["image"] = build.image if "${" in build.image else escape(build.image)
        if build.builder == "image" and build.image:
            return
        if build.builder != "dockerfile":
            self.loss(f"{where}.build", "Docker builds from a Dockerfile: write one beside the source")
        result["build"] = self._build_section(where, build, service.root or ".")

    def _build_section(self, where: str, build: Build, root: str) -> dict[str, Any]:
        context = build.context or root
        section: dict[str, Any] = {
            "context": context if context.startswith((".", "/")) or "://" in context or "@" in context else f"./{context}"
        }
        dockerfile = build.dockerfile.removeprefix(f"{context}/") if context != "." else build.dockerfile
        if build.dockerfile_inline:
            section["dockerfile_inline"] = escape(build.dockerfile_inline)
        elif dockerfile and dockerfile != "Dockerfile":
            section["dockerfile"] = escape(dockerfile)
        if build.target:
            section["target"] = escape(build.target)
        if build.args:
            section["args"] = self.env(f"{where}.build", build.args)
        if not build.cache:
            section["no_cache"] = True
        return section | {key: escaped(value) for key, value in build.options.items()}

    @staticmethod
    def _env_file(file: Any) -> Any:
        path = file.path if file.path.startswith(("/", ".")) else f"./{file.path}"
        if file.required and file.format == "dotenv":
            return escape(path)
        raw = {"format": "raw"} if file.format == "raw" else {}
        return {"path": escape(path), "required": file.required, **raw}

    def _depends(self, service: ServiceBase) -> dict[str, Any]:
        result = {}
        for one in service.depends_on:
            if one.service not in self.titles:
                continue
            options: dict[str, Any] = {"condition": _CONDITIONS[one.condition]}
            if one.restart:
                options["restart"] = True
            if not one.required:
                options["required"] = False
            result[self.titles.get(one.service, one.service)] = options
        return result

    def _health(self, service: ServiceBase) -> dict[str, Any]:
        check = service.health or HealthCheck()
        timing = {
            key: format_duration(value)
            for key in ("interval", "timeout", "start_period", "start_interval")
            if (value := getattr(check, key)) is not None
        }
        if check.retries is not None:
            timing["retries"] = check.retries  # type: ignore[assignment]
        if check.kind == "none":
            return {"disable": True, **timing}
        if not check.command and check.kind == "command":
            return dict(timing)
        return {"test": self._test(check, getattr(service, "port", None)), **timing}

    @staticmethod
    def _test(check: HealthCheck, port: int | None) -> Any:
        if isinstance(check.command, str) and check.command:
            return ["CMD-SHELL", escape(check.command)]
        if check.command:
            return ["CMD", *map(escape, check.command)]
        at = check.port if check.port.isdigit() else port or 80
        if check.kind == "tcp":
            return ["CMD-SHELL", f"nc -z 127.0.0.1 {at}"]
        return ["CMD-SHELL", escape(f"wget -qO- http://127.0.0.1:{at}{check.path} || exit 1")]

    def _disk(self, disk: Disk) -> Any:
        source = disk.source or disk.name
        plain = not disk.options.keys() - {"mode"} and not disk.subpath and disk.size is None
        if disk.kind in ("volume", "bind") and plain and (source or not (disk.read_only or disk.options)):
            if disk.kind == "volume" and source:
                self.volumes.setdefault(source, {})
            modes = [*(["ro"] if disk.read_only else []), *map(str, disk.options.get("mode", ()))]
            return ":".join(escape(part) for part in (source, disk.mount_path, ",".join(modes)) if part)
        kind = disk.kind if disk.kind in ("volume", "bind", "tmpfs", "image", "npipe", "cluster") else "volume"
        if kind in ("volume", "cluster") and source:
            self.volumes.setdefault(source, {})
        result: dict[str, Any] = {"type": kind, "target": escape(disk.mount_path)}
        if source:
            result["source"] = escape(source)
        if disk.read_only:
            result["read_only"] = True
        theirs = {"content": "x-content", "is_directory": "x-is-directory"}
        result.update({theirs.get(key, key): escaped(value) for key, value in disk.options.items() if key != "mode"})
        if disk.subpath and kind in ("volume", "image"):
            result[kind] = {**(result.get(kind) or {}), "subpath": escape(disk.subpath)}
        return result

    def _moments(self, service: ServiceBase, result: dict[str, Any]) -> None:
        for name, hook in service.hooks.items():
            moment = name.partition("-")[0]
            if moment in ("pre_start", "post_start", "pre_stop"):
                command = escape(hook.command) if isinstance(hook.command, str) else [escape(word) for word in hook.command]
                result.setdefault(moment, []).append(
                    {**({"command": command} if command else {}), **{k: escaped(v) for k, v in hook.options.items()}}
                )
        if service.shutdown_grace is not None:
            result["stop_grace_period"] = format_duration(service.shutdown_grace)
        if service.stop_signal:
            result["stop_signal"] = service.stop_signal
        if service.profiles:
            result["profiles"] = list(service.profiles)
        resources = service.resources
        if resources.swap is not None:
            result["memswap_limit"] = resources.swap if resources.swap < 0 else format_size(resources.swap)

    def _container(self, options: ContainerOptions, result: dict[str, Any]) -> None:
        data = options.model_dump(mode="json", exclude_defaults=True)
        renamed = {"storage": "storage_opt", "blkio": "blkio_config"}
        for key in ("placement", "endpoint_mode", "mode", "options", "cpu_options", "networks", "stop_timeout"):
            data.pop(key, None)
        result.update({renamed.get(key, key): escaped(value) for key, value in data.items()})
        if options.networks:
            result["networks"] = {
                one.network: ({**({"aliases": list(one.aliases)} if one.aliases else {}), **escaped(one.options)} or None)
                for one in options.networks
            }
        result.update(options.cpu_options)
        result.update({key: value for key, value in options.options.items() if key in ("umask", "use_api_socket", "pull_refresh_after")})

    def _deploy(self, service: ServiceBase) -> dict[str, Any]:
        options, resources = service.container, service.resources
        result: dict[str, Any] = {}
        waited = isinstance(service, CronService) and service.job and not self._awaited(service)
        mode = options.mode or ("replicated-job" if waited else "")
        simple = {"mode": mode, "endpoint_mode": options.endpoint_mode, "placement": escaped(options.placement)}
        result.update({key: value for key, value in simple.items() if value})
        if service.scale.instances != 1:
            result["replicas"] = service.scale.instances
        limits = {"cpus": _cpus(resources.cpu), "memory": resources.memory and format_size(resources.memory), "pids": resources.pids}
        reserved = {"cpus": _cpus(resources.cpu_reserved), "memory": resources.memory_reserved and format_size(resources.memory_reserved)}
        kept = options.options.get("reservations") or {}
        both: dict[str, dict[str, Any]] = {
            "limits": {key: value for key, value in limits.items() if value},
            "reservations": {**{key: value for key, value in reserved.items() if value}, **kept},
        }
        if any(both.values()):
            result["resources"] = {key: value for key, value in both.items() if value}
        restart = service.restart
        if restart.delay is not None or restart.window is not None or (restart.max_retries is not None and restart.policy != "on-failure"):
            policy: dict[str, Any] = {"condition": {"on-failure": "on-failure", "never": "none"}.get(restart.policy, "any")}
            policy |= {key: format_duration(value) for key in ("delay", "window") if (value := getattr(restart, key)) is not None}
            policy |= {"max_attempts": restart.max_retries} if restart.max_retries is not None else {}
            result["restart_policy"] = policy
        if update := _update(service):
            result["update_config"] = update
        if service.rollout.rollback:
            result["rollback_config"] = escaped(service.rollout.rollback)
        if labels := options.options.get("deploy_labels"):
            result["labels"] = escaped(labels)
        return result

    def _awaited(self, service: ServiceBase) -> bool:
        """Whether another service waits for this one to end: Compose's own way to say that it is a job."""
        name = next(name for name, one in self.spec.services.items() if one is service)
        return any(
            one.service == name and one.condition == "completed" for other in self.spec.services.values() for one in other.depends_on
        )

    # Ports

    def _ports(self, service: ServiceBase) -> list[Any]:
        ports = [_port(port) for port in service.ports if port.published]
        if isinstance(service, WebService | StaticService) and not ports and not _named_public(service):
            port = getattr(service, "port", None) or next((p.target for p in service.ports), None)
            return [str(port)] if port else []
        return ports

    @staticmethod
    def _exposed(service: ServiceBase) -> list[str]:
        exposed = [
            f"{port.target}" + ("" if port.protocol == "tcp" else f"/{port.protocol}") for port in service.ports if not port.published
        ]
        port = service.port if isinstance(service, Listening) else None
        if port and all(one.target != port for one in service.ports) and (not isinstance(service, WebService) or _named_public(service)):
            exposed.insert(0, str(port))
        return exposed

    # Resources

    def _resources(self, group: str) -> dict[str, Any]:
        entries: dict[str, NamedResource] = getattr(self.spec, group)
        return {name: self._resource(entry) for name, entry in entries.items()}

    @staticmethod
    def _resource(entry: NamedResource) -> dict[str, Any]:
        data = {key: escaped(value) for key, value in entry.model_dump(mode="json", exclude_defaults=True).items() if key != "options"}
        return {**data, **escaped(entry.options)}


def _cpus(value: float | None) -> str | None:
    return f"{value:g}" if value else None


def _port(port: Port) -> Any:
    published = "" if port.published == "0" else port.published
    if port.name or port.app_protocol or port.mode or port.options:
        long: dict[str, Any] = {"target": port.target, "protocol": port.protocol}
        optional = {
            "published": published,
            "host_ip": port.host_ip,
            "mode": port.mode,
            "name": port.name,
            "app_protocol": port.app_protocol,
        }
        return {**long, **{key: value for key, value in optional.items() if value}, **port.options}
    ip = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    host = f"{ip}:{published}:" if ip else f"{published}:" if published else ""
    return f"{host}{port.target}" + ("" if port.protocol == "tcp" else f"/{port.protocol}")


def _named_public(service: ServiceBase) -> bool:
    """Whether a Coolify variable of the service (`SERVICE_URL_WEB_3000`) already makes it public."""
    return any(isinstance(value, FromService) and public_name(key, value) for key, value in service.env.items())


def _update(service: ServiceBase) -> dict[str, Any]:
    rollout = service.rollout
    found: dict[str, Any] = {"parallelism": rollout.parallelism, "max_failure_ratio": rollout.max_failure_ratio}
    found |= {"failure_action": rollout.on_failure or None, "order": rollout.order or None}
    found |= {key: format_duration(value) for key in ("delay", "monitor") if (value := getattr(rollout, key)) is not None}
    return {key: value for key, value in found.items() if value is not None}
