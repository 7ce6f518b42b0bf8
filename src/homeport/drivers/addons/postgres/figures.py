"""What a cluster tells about itself."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

import psycopg

from homeport.drivers.addons.base import Inspection
from homeport.drivers.addons.keeping import SILENT
from homeport.drivers.addons.postgres import slow
from homeport.drivers.addons.postgres.cluster import Cluster
from homeport.drivers.addons.postgres.doors import Door
from homeport.drivers.addons.postgres.receiving import SLOT, Receiver
from homeport.drivers.addons.servers import folder_size, proportional_memory

_DATABASES = """
SELECT coalesce(sum(xact_commit), 0), coalesce(sum(xact_rollback), 0), coalesce(sum(blks_hit), 0), coalesce(sum(blks_read), 0),
       coalesce(sum(deadlocks), 0), coalesce(sum(temp_bytes), 0), coalesce(sum(checksum_failures), 0)
  FROM pg_stat_database
"""
_SESSIONS = """
SELECT count(*) FILTER (WHERE backend_type = 'client backend' AND application_name <> 'homeport'),
       count(*) FILTER (WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()),
       count(*) FILTER (WHERE state = 'active' AND pid <> pg_backend_pid() AND now() - query_start > interval '1 second'),
       coalesce(max(extract(epoch FROM now() - xact_start)) FILTER (WHERE pid <> pg_backend_pid()), 0)
  FROM pg_stat_activity
"""
_ARCHIVER = "SELECT archived_count, failed_count, coalesce(last_archived_wal, ''), coalesce(last_failed_wal, '') FROM pg_stat_archiver"
_REPLICAS = (
    "SELECT application_name, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) FROM pg_stat_replication WHERE application_name <> %s"
)


def version(cluster: Cluster) -> str:
    """Full version of the programs: `18.4`."""
    with suppress(OSError, subprocess.TimeoutExpired, IndexError):
        done = subprocess.run(
            [cluster.engine.bin / "postgres", "--version"], capture_output=True, text=True, timeout=20, check=False, env={}
        )
        return done.stdout.split()[2]
    return str(cluster.engine.major)


def inspect(cluster: Cluster, doors: Sequence[Door] = (), *, receiver: Receiver | None = None, covered: float | None = None) -> Inspection:
    """Figures of now; those of a stopped cluster are its size and version."""
    running = cluster.server.running()
    size = folder_size(cluster.data)
    detail = {
        "engine": cluster.engine.label,
        "host": cluster.record.host,
        "port": str(cluster.record.port),
        "wanted": cluster.record.wanted,
    }
    if running is None:
        return Inspection(running=False, version=version(cluster), size=size, detail=detail)
    memory = proportional_memory([pid for server in (cluster.server, *(door.server for door in doors)) for pid in server.holders()])
    metrics: dict[str, float] = {}
    try:
        metrics, more = _ask(cluster)
        detail |= more
        if receiver is not None:
            memory += proportional_memory(receiver.server.holders())
            metrics |= _received(receiver, covered)
        for door in doors:
            metrics |= door.figures()
    except psycopg.errors.ConnectionTimeout:
        detail["problem"] = SILENT
    except psycopg.Error as error:
        detail["problem"] = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return Inspection(
        running=True,
        version=version(cluster),
        pid=running.pid,
        size=size,
        memory=memory,
        connections=int(metrics.get("connections", 0)),
        metrics={**metrics, "archive_bytes": float(folder_size(cluster.archive))},
        detail=detail,
        slow=tuple(slow.slowest(cluster.server.tail(slow.LINES))),
    )


def _received(receiver: Receiver, covered: float | None) -> dict[str, float]:
    """How far behind a streamed log is: `backup_lag_seconds` is what would be lost if the machine were lost now."""
    seen = receiver.look()
    found = {"stream_running": float(seen is not None and seen.received is not None)}
    if seen is not None:
        found |= {"stream_kept_bytes": float(seen.kept)}
    return found if covered is None else {"backup_lag_seconds": round(time.monotonic() - covered, 1), **found}


def _ask(cluster: Cluster) -> tuple[dict[str, float], dict[str, str]]:
    with cluster.admin() as admin:
        commits, rollbacks, hit, read, deadlocks, temporary, failures = admin.execute(_DATABASES).fetchone() or (0,) * 7
        sessions, active, slow, oldest = admin.execute(_SESSIONS).fetchone() or (0,) * 4
        archived, failed, last, last_failed = admin.execute(_ARCHIVER).fetchone() or (0, 0, "", "")
        limit = admin.execute("SELECT current_setting('max_connections')::int").fetchone() or (0,)
        replicas = admin.execute(_REPLICAS, [SLOT]).fetchall()
    metrics = {
        "connections": float(sessions),
        "connections_limit": float(limit[0]),
        "active": float(active),
        "slow_queries": float(slow),
        "oldest_transaction_seconds": float(oldest),
        "commits": float(commits),
        "rollbacks": float(rollbacks),
        "cache_hit_ratio": float(hit) / float(hit + read) if hit + read else 1.0,
        "deadlocks": float(deadlocks),
        "temporary_bytes": float(temporary),
        "checksum_failures": float(failures),
        "archived_segments": float(archived),
        "archive_failures": float(failed),
        "replicas": float(len(replicas)),
    }
    metrics |= {f"replica_lag_bytes.{name}": float(lag or 0) for name, lag in replicas}
    return metrics, {"last_archived": last, "last_archive_failure": last_failed}
