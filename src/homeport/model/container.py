"""What only a container runtime can act upon. The process runtime says so in the plan."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from homeport.model.base import Duration, Frozen, Json, Size


class Port(Frozen):
    """One listening port, possibly published on the host."""

    target: int = Field(ge=1, le=65535)
    """Port in the instance."""
    published: str = ""
    """Host port or range; `0` lets the host choose one; empty means not published."""
    host_ip: str = ""
    """Address on the host."""
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    """Transport."""
    mode: str = ""
    """`host` or `ingress`."""
    name: str = ""
    """Name."""
    app_protocol: str = ""
    """Protocol spoken, such as `http`."""
    handlers: tuple[str, ...] = ()
    """Edge handlers of the port (Fly: `http`, `tls`, …)."""
    options: dict[str, Json] = {}
    """What else the file says of it."""


class NetworkAttachment(Frozen):
    """A service on a network."""

    network: str
    """The network."""
    aliases: tuple[str, ...] = ()
    """Names on it."""
    options: dict[str, Json] = {}
    """Addresses and priorities."""


class Ulimit(Frozen):
    """A resource limit; -1 is unlimited."""

    soft: int
    """Limit to begin with."""
    hard: int
    """How far it may be raised."""


class ContainerOptions(Frozen):
    """Docker's own options, by Compose's names."""

    entrypoint: tuple[str, ...] | str | None = None
    working_dir: str = ""
    user: str = ""
    group_add: tuple[str, ...] = ()
    privileged: bool | None = None
    read_only: bool | None = None
    init: bool | None = None
    tty: bool | None = None
    stdin_open: bool | None = None
    container_name: str = ""
    hostname: str = ""
    domainname: str = ""
    platform: str = ""
    pull_policy: str = ""
    network_mode: str = ""
    networks: tuple[NetworkAttachment, ...] = ()
    links: tuple[str, ...] = ()
    external_links: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    devices: tuple[Json, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    gpus: Json = None
    sysctls: dict[str, str] = {}
    ulimits: dict[str, Ulimit] = {}
    tmpfs: tuple[str, ...] = ()
    shm_size: Size | None = None
    ipc: str = ""
    pid: str = ""
    uts: str = ""
    userns_mode: str = ""
    cgroup: str = ""
    cgroup_parent: str = ""
    runtime: str = ""
    isolation: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    label_file: tuple[str, ...] = ()
    logging: dict[str, Json] = {}
    volumes_from: tuple[str, ...] = ()
    secrets: tuple[Json, ...] = ()
    configs: tuple[Json, ...] = ()
    placement: dict[str, Json] = {}
    endpoint_mode: str = ""
    mode: str = ""
    develop: dict[str, Json] = {}
    attach: bool | None = None
    oom_kill_disable: bool | None = None
    oom_score_adj: int | None = None
    mem_swappiness: int | None = None
    cpuset: str = ""
    cpu_options: dict[str, Json] = {}
    blkio: dict[str, Json] = {}
    credential_spec: dict[str, Json] = {}
    storage: dict[str, str] = {}
    mac_address: str = ""
    stop_timeout: Duration | None = None
    options: dict[str, Json] = {}
    """Anything else the container engine knows."""
