"""The configuration files of a cluster, rendered from its plan. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

from homeport.model.base import Frozen

ADMIN = "homeport_admin"
"""The superuser of each cluster. It has no password: only Homeport's and the cluster's own account may be it, over the socket."""
SOCKETS = "../run"
"""Socket folder, seen from the data folder: a relative path is short wherever the home lies."""
MB = 1 << 20
SPARE = 80
"""Connections beside those of a pool: migrations, people, and the gate's."""

RESERVED = frozenset({
    "archive_cleanup_command", "archive_command", "archive_library", "archive_mode", "archive_timeout", "cluster_name",
    "config_file", "data_directory", "dynamic_library_path", "extension_control_path", "external_pid_file", "fsync",
    "full_page_writes", "hba_file", "hot_standby", "ident_file", "ignore_checksum_failure", "ignore_system_indexes",
    "krb_server_keyfile", "listen_addresses", "local_preload_libraries", "log_destination", "log_directory", "log_filename",
    "logging_collector", "password_encryption", "port", "primary_conninfo", "primary_slot_name", "recovery_end_command",
    "recovery_target", "recovery_target_action", "recovery_target_inclusive", "recovery_target_lsn", "recovery_target_name",
    "recovery_target_time", "recovery_target_timeline", "recovery_target_xid", "restore_command", "session_preload_libraries",
    "shared_preload_libraries", "ssl", "ssl_ca_file", "ssl_cert_file", "ssl_key_file", "ssl_passphrase_command",
    "stats_temp_directory", "syslog_facility", "syslog_ident", "unix_socket_directories", "unix_socket_group",
    "unix_socket_permissions", "wal_level", "zero_damaged_pages",
})  # fmt: skip
"""Settings a file cannot change: they decide who gets in, which programs run, and whether data survives."""
_SETTING = re.compile(r"[a-z][a-z0-9_]{0,62}(\.[a-z][a-z0-9_]{0,62})?")


class Tuning(Frozen):
    """What a cluster is tuned to."""

    major: int
    memory: int
    """Bytes of its plan."""
    host: str
    port: int
    archive: str = ""
    """Shell command that archives one WAL segment; empty turns archiving off."""
    archive_timeout: int = 50
    """Seconds after which an unfinished segment that holds something is archived. With the time to ship it, a minute is the most that can
    be lost."""
    name: str = ""
    parameters: dict[str, str] = {}
    replicas: int = 0
    pool: int = 0
    """Connections that a pool may hold."""
    slow: int = 1000
    """Milliseconds from which a statement is logged as slow; -1 logs none."""


def refused(parameters: Mapping[str, str]) -> list[str]:
    """Settings of a file that no cluster is given, one sentence each."""
    return [
        f"the setting {name[:80]!r} is Homeport's own to decide" if name in RESERVED else f"{name[:80]!r} is not a setting"
        for name, value in parameters.items()
        if name in RESERVED or not _SETTING.fullmatch(name) or "\n" in value or "\0" in value
    ]


def conf(tuning: Tuning) -> str:
    """`postgresql.conf`. Shares of memory follow the manual's advice (18.4, Resource Consumption): a quarter for shared buffers.

    Below 1 GB it is an eighth, since sessions need the rest; there, what an idle cluster holds matters too: 14 MB with these values.
    """
    memory = max(64 * MB, tuning.memory)
    small = memory < 1024 * MB
    connections = max(min(500, max(100, memory // (8 * MB) // 10 * 10)), tuning.pool + SPARE)
    values: dict[str, str | int] = {
        "cluster_name": tuning.name[:63],
        "listen_addresses": tuning.host,
        "port": tuning.port,
        "unix_socket_directories": SOCKETS,
        "unix_socket_permissions": "0700",
        "max_connections": connections,
        "superuser_reserved_connections": 5,
        "password_encryption": "scram-sha-256",
        "shared_buffers": f"{memory // (8 if small else 4) // MB}MB",
        "effective_cache_size": f"{memory * 3 // 4 // MB}MB",
        "maintenance_work_mem": f"{max(16, memory // 16 // MB)}MB",
        "work_mem": f"{max(1, memory // 4 // connections // MB)}MB",
        "wal_buffers": "1MB" if small else "16MB",
        "huge_pages": "off" if small else "try",
        "max_worker_processes": 4 if small else 8,
        "max_logical_replication_workers": 0 if small else 4,
        "max_parallel_workers": 2 if small else 4,
        "max_parallel_workers_per_gather": 1 if small else 2,
        "autovacuum_max_workers": 2 if small else 3,
        "jit": "off",
        "random_page_cost": "1.1",
        "fsync": "on",
        "wal_level": "replica",
        "wal_compression": "on",
        "max_wal_senders": 4 + tuning.replicas * 2,
        "max_replication_slots": 4 + tuning.replicas * 2,
        "max_slot_wal_keep_size": "1GB",
        "min_wal_size": "32MB",
        "max_wal_size": f"{min(4096, max(256, memory // MB))}MB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "hot_standby": "on",
        "archive_mode": "on",
        "archive_command": tuning.archive,
        "archive_timeout": tuning.archive_timeout if tuning.archive else 0,
        "log_destination": "stderr",
        "logging_collector": "off",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        "log_min_duration_statement": tuning.slow,
        "log_parameter_max_length": 0,
        "log_parameter_max_length_on_error": 0,
        "log_lock_waits": "on",
        "log_timezone": "UTC",
        "timezone": "UTC",
        "track_io_timing": "on",
        "tcp_keepalives_idle": 60,
    }
    if tuning.major >= 18:
        values["io_method"] = "sync" if small else "worker"
    values |= {name: value for name, value in tuning.parameters.items() if not refused({name: value})}
    return "# Written by Homeport; changes are overwritten.\n" + "".join(
        f"{name} = {quoted(str(value))}\n" for name, value in values.items()
    )


def quoted(value: str) -> str:
    """A value as postgresql.conf reads it: in quotes, which are doubled inside, and backslashes escaped."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def hba() -> str:
    """`pg_hba.conf`: Homeport over the socket, everybody else with a password, from this machine."""
    lines = [
        ("local", "all", ADMIN, "", "peer map=homeport"),
        ("local", "replication", ADMIN, "", "peer map=homeport"),
        ("local", "all", "all", "", "scram-sha-256"),
        ("host", "all", ADMIN, "all", "reject"),
        ("host", "all", "all", "127.0.0.0/8", "scram-sha-256"),
        ("host", "all", "all", "::1/128", "scram-sha-256"),
    ]
    return "# Written by Homeport; changes are overwritten.\n" + "".join(" ".join(part for part in line if part) + "\n" for line in lines)


def closed_hba() -> str:
    """`pg_hba.conf` of data that is not proven or masked yet: Homeport over the socket, and nobody else."""
    return "# Written by Homeport until the add-on is provisioned.\n" + f"local all {ADMIN} peer map=homeport\n"


def ident(accounts: Sequence[str]) -> str:
    """`pg_ident.conf`: which accounts of the machine may be the superuser."""
    names = [name for name in dict.fromkeys(accounts) if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name)]
    return "# Written by Homeport; changes are overwritten.\n" + "".join(f"homeport {name} {ADMIN}\n" for name in names)


def outside(sources: Sequence[str]) -> list[str]:
    """Networks of an allow-list that are not this machine's own loopback; what is no network is left out."""
    found = []
    for source in sources:
        try:
            network = ipaddress.ip_network(source, strict=False)
        except ValueError:
            continue
        if not network.is_loopback:
            found.append(str(network))
    return found
