"""Every key of the Compose specification, its form, and what Homeport does with it.

Forms follow compose-spec `schema/compose-spec.json`. A key honoured "by the container runtime" is held by the spec; where a
service runs as a process instead, the plan names it.
"""

from __future__ import annotations

from collections.abc import Iterator

from homeport.blueprints.compose.shapes import (
    Shape,
    anything,
    either,
    flag,
    integer,
    listing,
    mapping,
    named,
    number,
    pairs,
    scalar,
    text,
)
from homeport.model.reading import Fate

_CONTAINER = "by the container runtime; a service that runs as a process is told so in the plan"
_BUILDER = "by the container builder; a native build does not need it"
_SWARM = "kept for a cluster runtime; one machine places every instance itself"


def _container(shape: Shape) -> Shape:
    return shape.so(Fate.HONOURED, _CONTAINER)


def _builder(shape: Shape) -> Shape:
    return shape.so(Fate.HONOURED, _BUILDER)


_command = Shape("text", items=scalar)
_size = Shape("scalar")
_hosts = Shape(items=text, values=either())
_limits = named(Shape("integer", keys={"soft": integer, "hard": integer}))
_driver_opts = named(scalar)
_labels = pairs()

_grant = listing(Shape("text", keys={"source": text, "target": text, "uid": scalar, "gid": scalar, "mode": scalar}))
_devices_request = listing(
    mapping(
        {"capabilities": listing(), "count": scalar, "device_ids": listing(), "driver": text, "options": pairs()},
    )
)
_reserved_devices = listing(
    mapping({"capabilities": listing(), "count": scalar, "device_ids": listing(), "driver": text, "options": pairs()}, "capabilities")
)
_hook = mapping({"command": _command, "user": scalar, "privileged": flag, "working_dir": text, "environment": pairs()}, "command")

BUILD = Shape(
    "text",
    keys={
        "context": text,
        "dockerfile": text,
        "dockerfile_inline": _builder(text),
        "args": pairs(),
        "target": text,
        "entitlements": _builder(listing()),
        "ssh": _builder(Shape(items=text, values=scalar, null=False)),
        "labels": _builder(_labels),
        "cache_from": _builder(either()),
        "cache_to": _builder(either()),
        "no_cache": flag,
        "no_cache_filter": _builder(either()),
        "additional_contexts": _builder(pairs()),
        "network": _builder(text),
        "provenance": _builder(scalar),
        "sbom": _builder(scalar),
        "pull": _builder(flag),
        "shm_size": _builder(_size),
        "extra_hosts": _builder(_hosts),
        "isolation": _builder(text),
        "privileged": _builder(flag),
        "secrets": _builder(_grant),
        "tags": _builder(listing()),
        "ulimits": _builder(_limits),
        "platforms": _builder(listing()),
        "platform": _builder(either()),
    },
)

_update = mapping(
    {
        "parallelism": integer,
        "delay": text,
        "failure_action": text,
        "monitor": text,
        "max_failure_ratio": number,
        "order": Shape("text", choices=("start-first", "stop-first")),
    }
)

DEPLOY = mapping(
    {
        "mode": text.so(Fate.HONOURED, "`replicated-job` and `global-job` run once per deploy; `global` is kept for a cluster runtime"),
        "endpoint_mode": text.so(Fate.HONOURED, _SWARM),
        "replicas": integer,
        "labels": _container(_labels),
        "rollback_config": _update.so(Fate.APPROXIMATED, "a rollback is a deploy like any other; kept for a cluster runtime"),
        "update_config": _update,
        "resources": mapping(
            {
                "limits": mapping({"cpus": number, "memory": _size, "pids": integer}),
                "reservations": mapping(
                    {
                        "cpus": number,
                        "memory": _size,
                        "generic_resources": listing(anything).so(Fate.HONOURED, _SWARM),
                        "devices": _container(_reserved_devices),
                    }
                ),
            }
        ),
        "restart_policy": mapping({"condition": text, "delay": text, "max_attempts": integer, "window": text}),
        "placement": mapping(
            {"constraints": listing(), "preferences": listing(mapping({"spread": text})), "max_replicas_per_node": integer}
        ).so(Fate.HONOURED, _SWARM),
    }
)

HEALTHCHECK = mapping(
    {
        "disable": flag,
        "interval": text,
        "retries": number,
        "test": either(),
        "timeout": text,
        "start_period": text,
        "start_interval": text,
    }
)

_mount = Shape(
    "scalar",
    keys={
        "type": Shape("text", choices=("bind", "volume", "tmpfs", "cluster", "npipe", "image")),
        "source": scalar,
        "target": text,
        "read_only": flag,
        "consistency": text.so(Fate.IGNORED, "it only ever meant something to Docker Desktop for Mac, which ignores it too"),
        "bind": mapping(
            {
                "propagation": text,
                "create_host_path": flag,
                "recursive": Shape("text", choices=("enabled", "disabled", "writable", "readonly")),
                "selinux": Shape("text", choices=("z", "Z")),
            }
        ).so(Fate.HONOURED, _CONTAINER),
        "volume": mapping({"labels": _labels, "nocopy": flag, "subpath": text}).so(Fate.HONOURED, _CONTAINER),
        "tmpfs": mapping({"size": Shape("integer", low=0), "mode": scalar}).so(Fate.HONOURED, _CONTAINER),
        "image": mapping({"subpath": text}).so(Fate.HONOURED, _CONTAINER),
        "content": text.so(Fate.HONOURED, "Coolify's: the text of the file; written before the container starts"),
        "is_directory": flag.so(Fate.HONOURED, "Coolify's: the source is a folder"),
        "isDirectory": flag.so(Fate.HONOURED, "Coolify's: the source is a folder"),
    },
    required=("type",),
)

_port = Shape(
    "scalar",
    keys={
        "name": text,
        "mode": text,
        "host_ip": text,
        "target": integer,
        "published": scalar,
        "protocol": text,
        "app_protocol": text,
    },
)

_CONTAINER_KEYS: dict[str, Shape] = {
    key: _container(shape)
    for key, shape in {
        "annotations": pairs(),
        "blkio_config": anything,
        "cap_add": listing(),
        "cap_drop": listing(),
        "cgroup": text,
        "cgroup_parent": text,
        "cpu_count": integer,
        "cpu_percent": integer,
        "cpu_shares": number,
        "cpu_quota": number,
        "cpu_period": scalar,
        "cpu_rt_period": scalar,
        "cpu_rt_runtime": scalar,
        "cpuset": scalar,
        "credential_spec": mapping({"config": text, "file": text, "registry": text}),
        "device_cgroup_rules": listing(),
        "devices": listing(Shape("text", keys={"source": text, "target": text, "permissions": text})),
        "dns": either(),
        "dns_opt": listing(),
        "dns_search": either(),
        "domainname": text,
        "extra_hosts": _hosts,
        "gpus": Shape("text", items=_devices_request.items),
        "group_add": listing(scalar),
        "init": flag,
        "ipc": text,
        "isolation": text,
        "label_file": either(),
        "labels": _labels,
        "logging": mapping({"driver": text, "options": named(scalar)}),
        "mac_address": text,
        "mem_swappiness": integer,
        "network_mode": text,
        "networks": Shape(
            items=text,
            values=mapping(
                {
                    "aliases": listing(),
                    "interface_name": text,
                    "ipv4_address": text,
                    "ipv6_address": text,
                    "link_local_ips": listing(),
                    "mac_address": text,
                    "driver_opts": _driver_opts,
                    "priority": number,
                    "gw_priority": number,
                    "use_service_name_alias": flag,
                }
            ),
        ),
        "oom_kill_disable": flag,
        "oom_score_adj": integer,
        "pid": text,
        "platform": text,
        "privileged": flag,
        "pull_policy": text,
        "pull_refresh_after": text,
        "read_only": flag,
        "runtime": text,
        "security_opt": listing(),
        "shm_size": _size,
        "secrets": _grant,
        "configs": _grant,
        "stdin_open": flag,
        "storage_opt": named(scalar),
        "sysctls": pairs(),
        "tmpfs": either(),
        "tty": flag,
        "ulimits": _limits,
        "umask": scalar,
        "use_api_socket": flag,
        "user": scalar,
        "userns_mode": text,
        "uts": text,
        "volumes_from": listing(),
        "working_dir": text,
        "entrypoint": _command,
        "attach": flag,
        "external_links": listing(),
    }.items()
}

WORKLOAD: dict[str, Shape] = {
    **_CONTAINER_KEYS,
    "build": BUILD,
    "command": _command,
    "container_name": text.so(Fate.HONOURED, "another name the service is reached by"),
    "cpus": number,
    "depends_on": Shape(
        items=text,
        values=mapping(
            {
                "condition": Shape("text", choices=("service_started", "service_healthy", "service_completed_successfully")),
                "restart": flag,
                "required": flag,
            }
        ),
    ),
    "env_file": Shape("text", items=Shape("text", keys={"path": text, "required": flag, "format": text}, required=("path",))),
    "environment": pairs(),
    "expose": listing(scalar),
    "healthcheck": HEALTHCHECK,
    "hostname": text.so(Fate.HONOURED, "another name the service is reached by"),
    "image": text.so(Fate.HONOURED, "run by the container runtime; the process runtime refuses it in the plan"),
    "mem_limit": _size,
    "mem_reservation": _size,
    "memswap_limit": _size,
    "models": Shape(items=text, values=mapping({"endpoint_var": text, "model_var": text})).so(
        Fate.IGNORED, "Docker Model Runner is part of Docker Desktop; give the service the address of a model server instead"
    ),
    "pids_limit": number,
    "ports": listing(_port).so(
        Fate.HONOURED, "the edge serves the first one that speaks HTTP; host ports are opened by the container runtime only"
    ),
    "profiles": listing(),
    "stop_grace_period": text,
    "stop_signal": text,
    "volumes": listing(_mount).so(Fate.HONOURED, "mounted by the container runtime; a process gets named volumes as disks"),
    "extends": Shape("text", keys={"service": text, "file": text}, required=("service",)),
    "exclude_from_hc": flag.so(Fate.IGNORED, "Coolify's: leaves the service out of its status page; a job counts as done by itself here"),
    "is_directory": flag.so(Fate.IGNORED, "Coolify's: it belongs to a volume"),
}

_init = mapping(
    {
        **_CONTAINER_KEYS,
        **{key: WORKLOAD[key] for key in ("command", "cpus", "environment", "env_file", "image", "volumes", "mem_limit", "memswap_limit")},
        "per_replica": flag,
    }
)

SERVICE = mapping(
    {
        **WORKLOAD,
        "deploy": DEPLOY,
        "develop": mapping(
            {
                "watch": listing(
                    mapping(
                        {
                            "path": text,
                            "action": Shape("text", choices=("rebuild", "sync", "restart", "sync+restart", "sync+exec")),
                            "target": text,
                            "ignore": either(),
                            "include": either(),
                            "exec": _hook,
                            "initial_sync": flag,
                        },
                        "path",
                        "action",
                    )
                )
            }
        ).so(Fate.APPROXIMATED, "for a developer's machine only: kept and written back; a deploy builds what is committed"),
        "links": listing(),
        "post_start": listing(_hook),
        "pre_stop": listing(_hook),
        "pre_start": listing(_init),
        "provider": mapping({"type": text, "options": anything}, "type"),
        "restart": scalar,
        "scale": integer,
        "volume_driver": text.so(Fate.IGNORED, "removed from the Compose specification"),
    }
)

JOB = mapping(
    {
        **WORKLOAD,
        "triggers": mapping(
            {
                "manual": flag,
                "schedule": listing(
                    Shape(
                        "text",
                        keys={
                            "cron": text,
                            "timezone": text,
                            "concurrency": Shape("text", choices=("forbid", "queue")),
                            "missed_fires": Shape("text", choices=("one", "skip")),
                        },
                        required=("cron",),
                    )
                ),
            }
        ),
    },
    "triggers",
)

_external = Shape("flag", keys={"name": text})

NETWORK = mapping(
    {
        "name": text,
        "driver": text,
        "driver_opts": _driver_opts,
        "ipam": mapping(
            {
                "driver": text,
                "config": listing(mapping({"subnet": text, "ip_range": text, "gateway": text, "aux_addresses": named(text)})),
                "options": named(scalar),
            }
        ),
        "external": _external,
        "internal": flag,
        "enable_ipv4": flag,
        "enable_ipv6": flag,
        "attachable": flag,
        "labels": _labels,
    }
).so(Fate.HONOURED, _CONTAINER)

VOLUME = mapping({"name": text, "driver": text, "driver_opts": _driver_opts, "external": _external, "labels": _labels})

_file = {
    "name": text,
    "environment": text,
    "file": text,
    "content": text,
    "external": _external,
    "labels": _labels,
    "template_driver": text,
}
SECRET = mapping({**_file, "driver": text, "driver_opts": _driver_opts}).so(Fate.HONOURED, _CONTAINER)
CONFIG = mapping(_file).so(Fate.HONOURED, _CONTAINER)
MODEL = mapping({"name": text, "model": text, "context_size": integer, "runtime_flags": listing()}, "model").so(
    Fate.IGNORED, "Docker Model Runner is part of Docker Desktop"
)

ROOT = mapping(
    {
        "version": scalar.so(Fate.IGNORED, "obsolete: Compose itself reads it no more"),
        "name": text,
        "include": listing(Shape("text", keys={"path": either(), "env_file": either(), "project_directory": text})),
        "services": named(SERVICE),
        "jobs": named(JOB),
        "networks": named(NETWORK),
        "volumes": named(VOLUME),
        "secrets": named(SECRET),
        "configs": named(CONFIG),
        "models": named(MODEL),
    }
)


def key_table() -> Iterator[tuple[str, Fate, str]]:
    """Every key with its usual fate and the reason: what the reference page prints."""
    yield from _rows(ROOT, "", Fate.HONOURED, "")


def _rows(shape: Shape, path: str, fate: Fate, reason: str) -> Iterator[tuple[str, Fate, str]]:
    if shape.fate is not None:
        fate, reason = shape.fate, shape.reason
    children: list[tuple[str, Shape]] = [(f"{path}.{key}" if path else key, inner) for key, inner in (shape.keys or {}).items()]
    if shape.values is not None:
        children.append((f"{path}.*", shape.values))
    if shape.items is not None and (shape.items.keys or shape.items.values):
        children.append((f"{path}[]", shape.items))
    if path and not (shape.values is not None and shape.values.keys):
        yield path, fate, reason
    for name, inner in children:
        if inner.keys or inner.values or inner.items or inner.fate is not None or name.rsplit(".", 1)[-1] != "*":
            yield from _rows(inner, name, fate, reason)
