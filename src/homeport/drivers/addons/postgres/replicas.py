"""Read replicas: clusters beside the primary that follow it by streaming over its socket."""

from __future__ import annotations

import signal
from pathlib import Path

from psycopg import errors

from homeport.drivers.addons.errors import AddOnFailed
from homeport.drivers.addons.postgres.cluster import Cluster
from homeport.drivers.addons.postgres.settings import ADMIN, quoted
from homeport.drivers.addons.records import FIRST_PORT, LAST_PORT, Record, records
from homeport.drivers.addons.servers import Command, Keeper, Server
from homeport.drivers.files import locked, remove_tree, sync_folder
from homeport.drivers.runtimes.addresses import free_port

TIMEOUT = 60.0
COPY_TIMEOUT = 6 * 3600.0


def ports(home: Path, record: Record, wanted: int) -> tuple[int, ...]:
    """Ports of so many replicas: those they have, and free ones for new ones. Call with `.addresses.lock` held."""
    kept = record.replica_ports[:wanted]
    taken = {number for found in records(home) for number in found.ports}
    for _ in range(wanted - len(kept)):
        port = free_port(taken | set(kept), host=record.host, first=FIRST_PORT, last=LAST_PORT)
        kept = (*kept, port)
    return kept


class Replica:
    """One of them. A replica that cannot follow any more is made anew: it holds nothing of its own."""

    def __init__(self, cluster: Cluster, number: int, server: Server) -> None:
        self.cluster, self.number, self.server = cluster, number, server
        self.folder = cluster.replica(number)
        self.data, self.run = self.folder / "data", self.folder / "run"
        self.slot = f"replica_{number}"

    @property
    def port(self) -> int:
        return self.cluster.record.replica_ports[self.number]

    def ensure(self) -> None:
        """Running and following. Raises AddOnFailed."""
        try:
            self._up()
        except AddOnFailed:
            self.server.stop(signal.SIGINT, TIMEOUT)
            remove_tree(self.data)
            self._up()

    def _up(self) -> None:
        if self.server.running() is None and not self._usable():
            self._copy()
        self._configure()
        command = self.cluster.command()
        self.server.start(command.model_copy(update={"argv": (command.argv[0], "-D", str(self.data)), "cwd": self.data,
                                                       "stale": (self.data / "postmaster.pid",)}))  # fmt: skip
        self.server.wait_ready(lambda: self.cluster.answers(data=self.data, run=self.run, port=self.port), TIMEOUT)

    def _usable(self) -> bool:
        """Whether its data is of the primary's major version."""
        try:
            return (self.data / "PG_VERSION").read_text().strip() == str(self.cluster.engine.major)
        except FileNotFoundError:
            return False

    def _copy(self) -> None:
        place, user = self.cluster.place, self.cluster.record.user
        for name in ("", "/run"):
            place.make(f"replicas/{self.number}{name}", user)
        (place.folder / "replicas").chmod(0o711)
        self.folder.chmod(0o711)
        remove_tree(self.data)
        part = self.data.with_name("data.part")
        remove_tree(part)
        self._drop_slot()
        with self.cluster.admin() as admin:
            admin.execute("SELECT pg_create_physical_replication_slot(%s, true)", [self.slot])
        argv = (*self.cluster.client("pg_basebackup"), "-D", str(part), "--wal-method=stream", "--checkpoint=fast", "--no-password",
                "--slot", self.slot)  # fmt: skip
        done = self.server.run(Command(argv=argv, cwd=self.cluster.run, user=user), COPY_TIMEOUT)
        if done.code != 0:
            raise AddOnFailed(name=self.server.name, why="The primary could not be copied.", tail=done.output.splitlines()[-10:])
        part.rename(self.data)
        sync_folder(self.folder)

    def _configure(self) -> None:
        """As the primary, but with its own port, no archive, and the primary to follow: seen from the data folder."""
        tuning = self.cluster.tuning().model_copy(update={"port": self.port, "archive": "", "name": f"{self.cluster.id.slug}-{self.slot}"})
        self.cluster.write_conf(tuning, self.data)
        primary = f"host=/proc/self/cwd/../../../run port={self.cluster.record.port} user={ADMIN} application_name={self.slot}"
        text = f"primary_conninfo = {quoted(primary)}\nprimary_slot_name = {quoted(self.slot)}\n"
        self.cluster.write(self.data / "postgresql.auto.conf", text)
        self.cluster.write(self.data / "standby.signal", "")

    def remove(self) -> None:
        """Stop it and remove its copy."""
        self.server.stop(signal.SIGINT, TIMEOUT)
        if self.cluster.server.running() is not None:
            self._drop_slot()
        remove_tree(self.folder)

    def _drop_slot(self) -> None:
        with self.cluster.admin() as admin:
            try:
                admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [self.slot])
            except errors.ObjectInUse:
                admin.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", [self.slot])
                admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [self.slot])


def replicas_of(cluster: Cluster, keeper: Keeper) -> list[Replica]:
    """The replicas that an add-on has ports for."""
    return [
        Replica(cluster, number, Server(f"{cluster.id.slug} replica {number}", cluster.replica(number) / "server", keeper))
        for number in range(len(cluster.record.replica_ports))
    ]


def provide(cluster: Cluster, keeper: Keeper) -> Cluster:
    """As many as are asked for, running and following. Raises AddOnFailed."""
    wanted = cluster.definition.replicas
    for replica in replicas_of(cluster, keeper)[wanted:]:
        replica.remove()
    with locked(cluster.place.addons / ".addresses.lock"):
        kept = ports(cluster.place.addons.parent, cluster.record, wanted)
        cluster = cluster.with_record(cluster.place.write(cluster.record.model_copy(update={"replica_ports": kept})))
    for replica in replicas_of(cluster, keeper):
        replica.ensure()
    return cluster
