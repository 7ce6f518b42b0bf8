"""Receiving the log as it is written: a process beside the server that takes its WAL over a replication slot.

It is supervised like the server, and outlives the control plane. What it has of the unfinished segment lies in `stream-<major>/` as
`<segment>.partial`, of full size with zeros behind what was received (pg_receivewal). The slot keeps what a receiver that is away has
not taken yet, up to `max_slot_wal_keep_size`: one that was away for longer begins anew, and the archive holds what lies between.
"""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

from homeport.drivers.addons.postgres.cluster import Cluster
from homeport.drivers.addons.servers import Command, Server
from homeport.drivers.files import remove_tree
from homeport.model.base import Frozen

SLOT = "homeport_stream"
"""Name of the slot, and of the receiver among the sessions."""
PARTIAL = re.compile(r"([0-9A-F]{24})\.partial")
SEGMENT_SIZE = 16 << 20
"""Bytes of a segment: what initdb chooses unless it is told otherwise."""
STOP_WITHIN = 10.0
AGAIN_AFTER = 1.0
"""Seconds between two starts: one that ends at once (a full disk) is not started in a circle."""
_BLOCK = 1 << 20

_LOOK = """
SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint, (r.write_lsn - '0/0')::bigint, coalesce(s.wal_status, 'lost'),
       pg_wal_lsn_diff(pg_current_wal_flush_lsn(), s.restart_lsn)::bigint
  FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
 WHERE s.slot_name = %s
"""


class Seen(Frozen):
    """How far a receiver is."""

    written: int
    """Position (LSN) up to which the server's log is durable."""
    received: int | None
    """Position up to which the receiver said it has it, at most a second ago; None while it does not receive."""
    lost: bool
    """Whether the slot gave up on it: it has to begin anew."""
    kept: int
    """Bytes of log that the slot keeps on the disk."""


class Receiver:
    """The receiver of a cluster, running or not."""

    def __init__(self, cluster: Cluster, server: Server) -> None:
        self.cluster, self.server = cluster, server

    @property
    def folder(self) -> Path:
        """Segments as they were received; those of another major version are in a folder of their own."""
        return self.cluster.stream

    def look(self) -> Seen | None:
        """How far it is; None when there is no slot. Raises psycopg.Error."""
        with self.cluster.admin() as admin:
            row = admin.execute(_LOOK, [SLOT]).fetchone()
        return Seen(written=row[0], received=row[1], lost=row[2] == "lost", kept=max(0, int(row[3] or 0))) if row else None

    def ensure(self) -> bool:
        """Have it run; whether it was started. Raises psycopg.Error, AddOnFailed, AddOnInUse."""
        if self.server.running() is not None or self._just_started():
            return False
        with self.cluster.admin() as admin:
            if admin.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", [SLOT]).fetchone() is None:
                remove_tree(self.folder)  # of a slot that is gone: it would begin where that one was
                admin.execute("SELECT pg_create_physical_replication_slot(%s, true)", [SLOT])
        self.cluster.place.make(self.folder.name, self.cluster.record.user)
        self._clear()
        self.server.start(self._command())
        return True

    def _clear(self) -> None:
        """Remove what a full disk left: pg_receivewal takes no unfinished segment that has not its full size."""
        for file in self.folder.iterdir():
            if PARTIAL.fullmatch(file.name) and file.stat().st_size != SEGMENT_SIZE:
                file.unlink()

    def _just_started(self) -> bool:
        try:
            return time.time() - (self.server.folder / "generation").stat().st_mtime < AGAIN_AFTER
        except FileNotFoundError:
            return False

    def _command(self) -> Command:
        """It ends with its connection, so that it is started at once when the server is back: on its own it would wait 5 seconds."""
        argv = (*self.cluster.client("pg_receivewal"), "-D", str(self.folder), "--slot", SLOT, "--no-loop", "--no-password",
                "--status-interval", "1")  # fmt: skip
        return self.cluster.command().model_copy(update={"argv": argv, "cwd": self.cluster.run, "env": {"PGAPPNAME": SLOT}})

    def stop(self) -> None:
        """Already ended is success."""
        if self.server.folder.is_dir():
            self.server.stop(signal.SIGINT, STOP_WITHIN)

    def remove(self) -> None:
        """Stop it, and forget the slot and what it received. Raises psycopg.Error, AddOnInUse."""
        self.stop()
        with self.cluster.admin() as admin:
            admin.execute("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = %s AND active", [SLOT])
            admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [SLOT])
        remove_tree(self.folder)


def content(file: Path) -> bytes:
    """What was received of an unfinished segment, without the zeros behind it. Raises FileNotFoundError when it was finished meanwhile.

    The receiver writes front to back while this reads. So the end is looked for first and all before it read afterwards: whatever was
    seen at the end, everything before it had been written by then.
    """
    with file.open("rb") as source:
        end = source.seek(0, 2)
        while end > 0:
            begin = max(0, end - _BLOCK)
            source.seek(begin)
            block = source.read(end - begin).rstrip(b"\0")
            end = begin + len(block)
            if block:
                break
        source.seek(0)
        return source.read(end)
