"""One Compose service as a service of the spec."""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import Any

from homeport.blueprints.compose.fields import Fields
from homeport.blueprints.compose.images import TEXT_PORTS
from homeport.blueprints.compose.ports import BadPort, Mount, parse_port, split_volume
from homeport.blueprints.compose.values import Values
from homeport.blueprints.view import scalar_text
from homeport.model.container import ContainerOptions, NetworkAttachment, Port, Ulimit
from homeport.model.env import EnvFile
from homeport.model.service import (
    Build,
    DependsOn,
    Disk,
    HealthCheck,
    Hook,
    Resources,
    Restart,
    Rollout,
    Scale,
)

_REMOTE = re.compile(r"^(?:https?://|git://|git@|ssh://|github\.com/|oci://|docker-image://)")
_PROBE = re.compile(r"^https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\])(?::(\d{1,5}))?(/[^\s'\"|;&<>$]*)?$")
_SIMPLE_FLAGS = re.compile(r"^-{1,2}[A-Za-z][\w-]*(?:=\S+)?$")
_CONDITIONS = {"service_started": "started", "service_healthy": "healthy", "service_completed_successfully": "completed"}


def ports_of(service: Fields) -> tuple[Port, ...]:
    """Published ports, then exposed ones; ranges spread out."""
    result: list[Port] = []
    for index, entry in enumerate(service.data.get("ports") or ()):
        if isinstance(entry, dict):
            port = _long_port(service, index, entry)
            result += [port] if port else []
        elif entry not in (None, ""):
            result += _short_ports(service, index, scalar_text(entry))
    for index, entry in enumerate(service.data.get("expose") or ()):
        try:
            result += [Port(target=one.target, protocol=_protocol(one.protocol)) for one in parse_port(scalar_text(entry))]
        except (BadPort, ValueError) as error:
            if scalar_text(entry).strip():
                service.problem("expose", str(error) if isinstance(error, BadPort) else f"entry {index} is no port")
    return tuple(result)


def _protocol(text: str) -> Any:
    return text.lower() if text.lower() in ("tcp", "udp", "sctp") else "tcp"


def _short_ports(service: Fields, index: int, text: str) -> list[Port]:
    if not text.partition("/")[0].strip(":"):
        where = ".".join(map(str, service.path))
        service.project.warnings.append(f"{where}.ports[{index}] names no port until its variables have a value; it is left out.")
        return []
    try:
        entries = parse_port(text)
    except BadPort as error:
        service.project.problem((*service.path, "ports", index), str(error))
        return []
    return [
        Port(target=one.target, published=one.published, host_ip=one.host_ip, protocol=_protocol(one.protocol))
        for one in entries
        if one.target
    ]


def _long_port(service: Fields, index: int, entry: dict[str, Any]) -> Port | None:
    fields = Fields(service.project, entry, (*service.path, "ports", index))
    target = fields.integer("target")
    if target is None or not 1 <= target <= 65535:
        fields.problem("target", "a port mapping needs a `target` from 1 to 65535")
        return None
    options = {key: value for key, value in entry.items() if key.startswith("x-")}
    return Port(
        target=target,
        published=fields.text("published") or "0",
        host_ip=fields.text("host_ip"),
        protocol=_protocol(fields.text("protocol")),
        mode=fields.text("mode"),
        name=fields.text("name"),
        app_protocol=fields.text("app_protocol"),
        options=options,
    )


def main_port(ports: tuple[Port, ...]) -> Port | None:
    """The port that answers the public: the first published TCP port that is not known to speak something else."""
    return next((p for p in ports if p.published and p.protocol == "tcp" and p.target not in TEXT_PORTS), None)


def build_of(service: Fields, values: Values, folder: str) -> tuple[Build, str, str]:
    """`(build, root, repository)` of a service."""
    raw = service.data.get("build")
    image = _image(service)
    if raw is None:
        return Build(builder="image" if image else "none", image=image), "", ""
    fields = service.inner("build")
    context = fields.text("context") or "."
    dockerfile, inline = fields.text("dockerfile"), fields.text("dockerfile_inline")
    remote = bool(_REMOTE.match(context))
    base = context if remote else _join(folder, context)
    options = {
        key: value
        for key, value in fields.data.items()
        if key not in ("context", "dockerfile", "dockerfile_inline", "args", "target", "no_cache") and value is not None
    }
    build = Build(
        builder="dockerfile",
        image=image,
        context=base,
        dockerfile="" if inline else (dockerfile or "Dockerfile") if remote else _join(base, dockerfile or "Dockerfile"),
        dockerfile_inline=inline,
        target=fields.text("target"),
        args=values.env(fields.data.get("args")),
        cache=not fields.flag("no_cache"),
        options=options,
    )
    return build, "" if remote or base == "." else base, context if remote else ""


def _image(service: Fields) -> str:
    """The image with variables put in; as written where one has no value, so that no wrong tag is run."""
    raw = scalar_text(service.data.get("image"))
    if "$" not in raw:
        return raw
    resolved = service.resolved(raw)
    if resolved and not resolved.endswith((":", "@")) and "/:" not in resolved and not resolved.startswith((":", "/")):
        return resolved
    service.project.warnings.append(f"{'.'.join(map(str, service.path))}.image is {raw}: set its variable in `.env` before a deploy.")
    return raw


def _join(folder: str, path: str) -> str:
    if path.startswith(("/", "~")):
        return path
    return posixpath.normpath(posixpath.join(folder, path)) or "."


def health_of(service: Fields, port: int | None) -> HealthCheck | None:
    """The health check; None when the file says nothing."""
    if "healthcheck" not in service.data or service.data["healthcheck"] is None:
        return None
    fields = service.inner("healthcheck")
    test = fields.data.get("test")
    timing: dict[str, Any] = {key: fields.duration(key) for key in ("interval", "timeout", "start_period", "start_interval")}
    timing["retries"] = fields.integer("retries")
    command: tuple[str, ...] | str = tuple(map(scalar_text, test)) if isinstance(test, list) else scalar_text(test)
    if fields.flag("disable") or command == ("NONE",):
        return HealthCheck(kind="none", **timing)
    if isinstance(command, tuple):
        if command[:1] == ("CMD-SHELL",):
            command = " ".join(command[1:])
        elif command[:1] == ("CMD",):
            command = command[1:]
        elif command:
            fields.problem("test", "a list must start with `NONE`, `CMD` or `CMD-SHELL`")
    found = http_probe(command)
    if found is None:
        return HealthCheck(kind="command", path="/", command=command, **timing)
    probed, path = found
    return HealthCheck(kind="http", path=path, port="" if probed in (port, None) else str(probed), command=command, **timing)


def http_probe(command: tuple[str, ...] | str) -> tuple[int | None, str] | None:
    """`(port, path)` when a check only asks a local URL with curl or wget; None for anything else."""
    if isinstance(command, str):
        line = re.sub(r"\s*\|\|\s*exit\s+\d+\s*$", "", command.strip())
        try:
            words = shlex.split(line)
        except ValueError:
            return None
    else:
        words = list(command)
    if not words or words[0].rsplit("/", 1)[-1] not in ("curl", "wget"):
        return None
    urls = [match for word in words[1:] if (match := _PROBE.match(word))]
    rest = [word for word in words[1:] if not _PROBE.match(word)]
    takes = {
        "-o": 1,
        "-O": 1,
        "-m": 1,
        "--max-time": 1,
        "-T": 1,
        "-t": 1,
        "--timeout": 1,
        "--tries": 1,
        "--connect-timeout": 1,
        "--retry": 1,
    }
    at = 0
    while at < len(rest):
        if not _SIMPLE_FLAGS.match(rest[at]) or rest[at] in ("-X", "-H", "-d", "--header", "--data", "--post-data", "-u", "--user", "-k"):
            return None
        at += 1 + (takes.get(rest[at], 0) if not rest[at].startswith("-qO") else 0)
        if at and at <= len(rest) and rest[at - 1] in ("-qO", "-nvO"):
            at += 1
    if len(urls) != 1 or urls[0][0].startswith("https"):
        return None
    return int(urls[0][1]) if urls[0][1] else 80, urls[0][2] or "/"


def resources_of(service: Fields) -> Resources:
    """Limits and reservations; `deploy.resources` wins over the older keys, as in Compose."""
    wanted = service.inner("deploy").inner("resources")
    limits, reserved = wanted.inner("limits"), wanted.inner("reservations")
    cpu = limits.number("cpus") if "cpus" in limits else service.number("cpus")
    memory = limits.size("memory") if "memory" in limits else service.size("mem_limit")
    pids = limits.integer("pids") if "pids" in limits else service.integer("pids_limit")
    return Resources(
        cpu=cpu if cpu and cpu > 0 else None,
        memory=memory if memory and memory > 0 else None,
        cpu_reserved=reserved.number("cpus"),
        memory_reserved=(reserved.size("memory") if "memory" in reserved else service.size("mem_reservation")) or None,
        swap=service.size("memswap_limit"),
        pids=pids or None,
        gpu=_gpu(service, reserved),
    )


def _gpu(service: Fields, reserved: Fields) -> str:
    devices = [d for d in reserved.data.get("devices") or () if isinstance(d, dict) and "gpu" in (d.get("capabilities") or ())]
    wanted = service.data.get("gpus")
    if not devices and not wanted:
        return ""
    first = devices[0] if devices else wanted[0] if isinstance(wanted, list) and wanted and isinstance(wanted[0], dict) else {}
    return scalar_text(first.get("driver") or "any")


def restart_of(service: Fields) -> Restart:
    """`deploy.restart_policy`, else `restart`. Compose's own default is never; Homeport keeps what runs running."""
    policy = service.inner("deploy").inner("restart_policy")
    if policy.data:
        condition = policy.text("condition") or "any"
        return Restart(
            policy={"none": "never", "no": "never", "on-failure": "on-failure"}.get(condition, "always"),
            max_retries=policy.integer("max_attempts"),
            delay=policy.duration("delay"),
            window=policy.duration("window"),
        )
    text = "no" if service.data.get("restart") is False else service.text("restart")
    name, _, count = text.partition(":")
    known = {"no": "never", "always": "always", "unless-stopped": "unless-stopped", "on-failure": "on-failure"}
    if text and name not in known:
        service.problem("restart", f"{text[:40]!r} is no restart policy: write no, always, on-failure or unless-stopped")
    return Restart(policy=known.get(name, "always"), max_retries=int(count) if count.isdigit() else None)


def scale_of(service: Fields) -> Scale:
    """How many instances."""
    deploy = service.inner("deploy")
    count = deploy.integer("replicas") if "replicas" in deploy else service.integer("scale")
    return Scale() if count is None else Scale(instances=count)


def rollout_of(service: Fields) -> Rollout:
    """`deploy.update_config` and `rollback_config`."""
    deploy = service.inner("deploy")
    update = deploy.inner("update_config")
    action = update.text("failure_action")
    order = update.text("order")
    return Rollout(
        parallelism=update.integer("parallelism"),
        delay=update.duration("delay"),
        on_failure=action if action in ("rollback", "pause", "continue") else "",
        order=order if order in ("start-first", "stop-first") else "",
        monitor=update.duration("monitor"),
        max_failure_ratio=update.number("max_failure_ratio"),
        rollback=deploy.inner("rollback_config").data,
    )


def disks_of(service: Fields) -> tuple[Disk, ...]:
    """Mounts, short and long."""
    result = []
    for index, entry in enumerate(service.data.get("volumes") or ()):
        if isinstance(entry, dict):
            result.append(_long_disk(Fields(service.project, entry, (*service.path, "volumes", index))))
        elif entry not in (None, ""):
            result.append(_short_disk(scalar_text(entry)))
    return tuple(result)


def _short_disk(text: str) -> Disk:
    mount = Mount.of(split_volume(text))
    options = {"mode": [m for m in mount.modes if m not in ("ro", "rw")]} if any(m not in ("ro", "rw") for m in mount.modes) else {}
    kind = "bind" if mount.is_path else "volume"
    return Disk(
        name="" if kind == "bind" else mount.source,
        kind=kind,
        source=mount.source,
        mount_path=mount.target or mount.source,
        read_only="ro" in mount.modes,
        options=options,
    )


_COOLIFY = {"x-content": "content", "x-is-directory": "is_directory", "isDirectory": "is_directory"}
"""Coolify's keys of a mount, and how they are written where the specification leaves room."""


def _long_disk(entry: Fields) -> Disk:
    kind = entry.text("type") or "volume"
    source = entry.text("source")
    volume, image, tmpfs = entry.inner("volume"), entry.inner("image"), entry.inner("tmpfs")
    options: dict[str, Any] = {
        _COOLIFY.get(key, key): value
        for key, value in entry.data.items()
        if key not in ("type", "source", "target", "read_only") and value is not None
    }
    return Disk(
        name=source if kind in ("volume", "cluster") else "",
        kind=kind if kind in ("volume", "bind", "tmpfs", "image", "npipe", "cluster") else "volume",
        source=source,
        mount_path=entry.text("target"),
        read_only=bool(entry.flag("read_only")),
        subpath=volume.text("subpath") or image.text("subpath"),
        size=tmpfs.size("size"),
        options=options,
    )


def depends_of(service: Fields, names: dict[str, str]) -> tuple[DependsOn, ...]:
    """What must run before: `depends_on`, and services whose namespace, volumes or links are used."""
    result: dict[str, DependsOn] = {}
    depends = service.data.get("depends_on")
    for other, options in depends.items() if isinstance(depends, dict) else ():
        if other not in names:
            continue
        fields = Fields(service.project, options, (*service.path, "depends_on", other))
        required = fields.flag("required")
        result[names[other]] = DependsOn(
            service=names[other],
            condition=_CONDITIONS.get(fields.text("condition"), "started"),
            restart=bool(fields.flag("restart")),
            required=True if required is None else required,
        )
    return tuple(result.values())


def env_files_of(service: Fields, folder: str) -> tuple[EnvFile, ...]:
    """Dotenv files, relative to the repository root."""
    result = []
    for index, entry in enumerate(service.data.get("env_file") or ()):
        fields = Fields(service.project, entry, (*service.path, "env_file", index))
        required = fields.flag("required")
        if fields.text("path"):
            result.append(
                EnvFile(
                    path=_join(folder, fields.text("path")),
                    required=True if required is None else required,
                    format="raw" if fields.text("format") == "raw" else "dotenv",
                )
            )
    return tuple(result)


def hooks_of(service: Fields) -> dict[str, Hook]:
    """`pre_start`, `post_start` and `pre_stop`: the first of each kind under its name, further ones numbered."""
    result = {}
    for moment in ("pre_start", "post_start", "pre_stop"):
        for index, entry in enumerate(service.data.get(moment) or ()):
            fields = Fields(service.project, entry, (*service.path, moment, index))
            name = moment if index == 0 else f"{moment}-{index + 1}"
            options = {key: value for key, value in fields.data.items() if key != "command" and value is not None}
            result[name] = Hook(command=fields.command("command") or "", options=options)
    return result


_SAME = (
    "user", "privileged", "read_only", "init", "tty", "stdin_open", "container_name", "hostname", "domainname", "platform", "pull_policy",
    "network_mode", "working_dir", "ipc", "pid", "uts", "userns_mode", "cgroup", "cgroup_parent", "runtime", "isolation", "attach",
    "oom_kill_disable", "mac_address", "cpuset",
)  # fmt: skip
_FLAGS = frozenset({"privileged", "read_only", "init", "tty", "stdin_open", "attach", "oom_kill_disable"})
_LISTS = (
    "group_add", "links", "external_links", "extra_hosts", "dns", "dns_search", "dns_opt", "cap_add", "cap_drop", "security_opt",
    "device_cgroup_rules", "tmpfs", "label_file", "volumes_from",
)  # fmt: skip
_PAIRS = {"sysctls": "sysctls", "labels": "labels", "annotations": "annotations", "storage_opt": "storage"}
_CPU = ("cpu_count", "cpu_percent", "cpu_shares", "cpu_quota", "cpu_period", "cpu_rt_period", "cpu_rt_runtime")
_OTHER = ("umask", "use_api_socket", "pull_refresh_after")


def container_of(service: Fields) -> ContainerOptions:
    """Docker's own options."""
    data = service.data
    found: dict[str, Any] = {key: service.flag(key) if key in _FLAGS else service.text(key) for key in _SAME if data.get(key) is not None}
    found |= {key: service.texts(key) for key in _LISTS if data.get(key)}
    found |= {name: service.pairs(key) for key, name in _PAIRS.items() if data.get(key)}
    found |= {key: service.integer(key) for key in ("oom_score_adj", "mem_swappiness") if key in service}
    if "entrypoint" in data:
        found["entrypoint"] = service.command("entrypoint")
    if "shm_size" in service:
        found["shm_size"] = service.size("shm_size")
    networks = data.get("networks")
    if isinstance(networks, dict):
        found["networks"] = tuple(_attachment(name, options) for name, options in networks.items())
    if isinstance(data.get("ulimits"), dict):
        found["ulimits"] = {name: _ulimit(service.inner("ulimits"), name) for name in data["ulimits"]}
    for key in ("secrets", "configs"):
        if data.get(key):
            found[key] = tuple({"source": item} if isinstance(item, str) else item for item in data[key])
    simple = {"devices": tuple, "gpus": lambda v: v, "logging": dict, "develop": dict, "credential_spec": dict}
    found |= {key: make(data[key]) for key, make in simple.items() if data.get(key)}
    if isinstance(data.get("blkio_config"), dict):
        found["blkio"] = data["blkio_config"]
    if cpu := {key: data[key] for key in _CPU if data.get(key) is not None}:
        found["cpu_options"] = cpu
    options = {key: data[key] for key in _OTHER if data.get(key) is not None}
    found |= _deploy(service.inner("deploy"), options)
    if options:
        found["options"] = options
    return ContainerOptions(**found) if found else _NONE


_NONE = ContainerOptions()


def _deploy(deploy: Fields, options: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {key: deploy.text(key) for key in ("mode", "endpoint_mode") if key in deploy}
    if found.get("mode") == "replicated-job":
        del found["mode"]
    if deploy.data.get("placement"):
        found["placement"] = deploy.inner("placement").data
    if deploy.data.get("labels"):
        options["deploy_labels"] = deploy.pairs("labels")
    reserved = deploy.inner("resources").inner("reservations").data
    kept = {key: reserved[key] for key in ("devices", "generic_resources") if reserved.get(key)}
    if kept:
        options["reservations"] = kept
    return found


def _attachment(name: str, options: Any) -> NetworkAttachment:
    data = options if isinstance(options, dict) else {}
    return NetworkAttachment(
        network=name,
        aliases=tuple(map(scalar_text, data.get("aliases") or ())),
        options={key: value for key, value in data.items() if key != "aliases" and value is not None},
    )


def _ulimit(limits: Fields, name: str) -> Ulimit:
    if isinstance(limits.data.get(name), dict):
        inner = limits.inner(name)
        soft, hard = inner.integer("soft"), inner.integer("hard")
    else:
        soft = hard = limits.integer(name)
    return Ulimit(soft=(hard if soft is None else soft) or 0, hard=(soft if hard is None else hard) or 0)
