"""The doors of a cluster: pgbouncer as the pool that services connect through, and as the gate for networks from outside.

Both know the logins by the verifiers that the cluster itself keeps (SCRAM): what a client proves to the door, the door proves on to the
cluster (pgbouncer's manual, "auth_type"), so no password is ever written down. The gate speaks TLS with a certificate of its own, so it
needs none of the engine's. Each door is a server like every other: an account of its own, which is not the cluster's, and a fence.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg

from homeport.drivers.addons.errors import AddOnFailed
from homeport.drivers.addons.keeping import socket_host
from homeport.drivers.addons.postgres import roles, settings
from homeport.drivers.addons.postgres.cluster import Cluster
from homeport.drivers.addons.records import FIRST_PORT, LAST_PORT, account_for, begin_at, records
from homeport.drivers.addons.records import door as account_name
from homeport.drivers.addons.servers import PATH, Command, Keeper, Server
from homeport.drivers.files import locked, remove_tree, write_changed
from homeport.drivers.runtimes.addresses import free_port, is_free
from homeport.model.addon import Pooling, Postgres, pooling_of
from homeport.model.base import Frozen

log = logging.getLogger(__name__)

PROGRAM = "pgbouncer"
MISSING = "pgbouncer is not installed; on Debian and Ubuntu: `apt-get install pgbouncer`"
USUAL_PORT = 6432
EVERYWHERE = "0.0.0.0"  # noqa: S104 (the gate is what listens to the outside)
KEEPER = "homeport_keeper"
"""Who asks a door about itself: over a socket in a folder that only the door's account and root can enter."""
NEWS = (1, 21)
"""Version from which prepared statements work in transaction mode."""
STOP_SIGNAL = signal.SIGTERM
STOP_GRACE = 5.0
TIMEOUT = 20.0
RESET = (
    "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; DEALLOCATE ALL; CLOSE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); "
    "DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES; RESET ROLE"
)
"""What a session is cleaned with: DISCARD ALL spelled out, and then the login's own role again, which DISCARD ALL takes away."""


class Program(Frozen):
    """An installed pgbouncer."""

    path: Path
    version: tuple[int, ...]

    @property
    def label(self) -> str:
        return "pgbouncer " + ".".join(map(str, self.version))


@cache
def find(search: str = f"{PATH}:/usr/sbin:/usr/local/sbin") -> Program | None:
    """The pgbouncer of this machine; None when there is none."""
    found = shutil.which(PROGRAM, path=search)
    if found is None:
        return None
    try:
        said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=20, check=False, env={}).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"(\d+(?:\.\d+)+)", said)
    return Program(path=Path(found), version=tuple(int(part) for part in version[1].split("."))) if version else None


class Plan(Frozen):
    """What a door is, decided."""

    name: str
    """`pool` or `gate`; its folder's name."""
    host: str
    port: int
    pooling: Pooling
    networks: tuple[str, ...]
    """Networks whose clients it takes."""
    tls: bool = False


def pool(host: str, port: int, pooling: Pooling) -> Plan:
    return Plan(name="pool", host=host, port=port, pooling=pooling, networks=("127.0.0.0/8",))


def gate(port: int, networks: Sequence[str]) -> Plan:
    """Each client has a connection of its own: outside are people and their tools, which count on a session."""
    host = "*" if any(":" in network for network in networks) else EVERYWHERE
    return Plan(
        name="gate", host=host, port=port, pooling=Pooling(mode="session", size=50, clients=200), networks=tuple(networks), tls=True
    )


def ini(plan: Plan, upstream: tuple[str, int], version: tuple[int, ...]) -> str:
    """`pgbouncer.ini`; files are named relative to the door's folder, where it runs."""
    values: dict[str, str | int] = {
        "listen_addr": plan.host,
        "listen_port": plan.port,
        "unix_socket_dir": ".",
        "unix_socket_mode": "0700",
        "auth_type": "hba",
        "auth_hba_file": "hba.conf",
        "auth_file": "users.txt",
        "admin_users": KEEPER,
        "pool_mode": plan.pooling.mode,
        "default_pool_size": plan.pooling.size,
        "max_db_connections": plan.pooling.size,
        "max_client_conn": plan.pooling.clients,
        "server_reset_query": RESET,
        "server_login_retry": 1,
        "server_tls_sslmode": "disable",
        "client_login_timeout": 15,
        "ignore_startup_parameters": "extra_float_digits",
        "tcp_keepalive": 1,
        "tcp_keepidle": 60,
        "log_connections": 0,
        "log_disconnections": 0,
        "log_stats": 0,
    }
    if version >= NEWS and plan.pooling.mode == "transaction":
        values["max_prepared_statements"] = 200
    if plan.tls:
        values |= {"client_tls_sslmode": "require", "client_tls_key_file": "server.key", "client_tls_cert_file": "server.crt"}
    lines = "".join(f"{name} = {value}\n" for name, value in values.items())
    return f"; Written by Homeport; changes are overwritten.\n[databases]\n* = host={upstream[0]} port={upstream[1]}\n[pgbouncer]\n{lines}"


def hba(plan: Plan) -> str:
    """Who is let in: the keeper over the socket, the plan's networks with a password, nobody else."""
    kind = "hostssl" if plan.tls else "host"
    lines = [f"local pgbouncer {KEEPER} trust", f"host all {KEEPER} 0.0.0.0/0 reject", f"host all {KEEPER} ::/0 reject"]
    lines += [f"{kind} all all {network} scram-sha-256" for network in plan.networks]
    return "".join(f"{line}\n" for line in lines)


def users(verifiers: Sequence[tuple[str, str]]) -> str:
    """`users.txt`: names with their verifiers."""
    lines = [(KEEPER, ""), *verifiers]
    return "".join(" ".join('"' + text.replace('"', '""') + '"' for text in line) + "\n" for line in lines)


class Door:
    """One pgbouncer in front of a cluster."""

    def __init__(self, cluster: Cluster, plan: Plan, server: Server, user: int | None) -> None:
        self.cluster, self.plan, self.server, self.user = cluster, plan, server, user
        self.folder = cluster.place.folder / plan.name
        self.files = self.folder / "files"

    def ensure(self) -> None:
        """Running, with the logins of now. Raises AddOnFailed."""
        program = find()
        if program is None:
            raise AddOnFailed(
                name=self.cluster.id.name, why=f"Its {self.plan.name} cannot run: {MISSING}.", fix="Install it, and deploy again."
            )
        place = self.cluster.place
        place.make(self.plan.name, None, 0o711)
        place.make(f"{self.plan.name}/files", self.user)
        upstream = (self.cluster.record.host, self.cluster.record.port)
        text = ini(self.plan, upstream, program.version)
        moved = self._listens_elsewhere(text)
        changed = self._write("pgbouncer.ini", text) | self._write("hba.conf", hba(self.plan)) | self.learn()
        if self.plan.tls:
            self._certify()
        if moved:
            self.stop()
        if self.server.running() is not None and changed:
            self.reload()
        if self.server.running() is None and not is_free(EVERYWHERE if self.plan.host == "*" else self.plan.host, self.plan.port):
            raise AddOnFailed(name=self.cluster.id.name, why=f"Another program has the port {self.plan.port} of its {self.plan.name}.")
        self.server.start(Command(argv=(str(program.path), "-q", "pgbouncer.ini"), cwd=self.files, user=self.user))
        self.server.wait_ready(self.answers, TIMEOUT)

    def _listens_elsewhere(self, text: str) -> bool:
        """Whether what runs was told another address: that is not changed by a reload."""
        try:
            before = (self.files / "pgbouncer.ini").read_text()
        except FileNotFoundError:
            return False
        return re.findall(r"^listen_.*", before, re.MULTILINE) != re.findall(r"^listen_.*", text, re.MULTILINE)

    def learn(self) -> bool:
        """Write down the logins of the cluster; whether something changed."""
        with self.cluster.admin() as admin:
            return self._write("users.txt", users(roles.verifiers(admin)))

    def refresh(self) -> None:
        """Let the logins of now in, and no others."""
        if self.server.running() is not None and self.learn():
            self.reload()

    def reload(self) -> None:
        """Have it read its files again; done when this returns."""
        with self._console() as console:
            console.execute("RELOAD")

    def answers(self) -> bool:
        try:
            with self._console() as console:
                console.execute("SHOW VERSION")
        except (psycopg.Error, OSError):
            return False
        return True

    def figures(self) -> dict[str, float]:
        """Clients and connections of now."""
        with self._console() as console:
            cursor = console.execute("SHOW POOLS")
            names = [column.name for column in cursor.description or ()]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        rows = [row for row in rows if row["database"] != "pgbouncer"]
        total = {key: float(sum(int(str(row[key])) for row in rows)) for key in ("cl_active", "cl_waiting", "sv_active", "sv_idle")}
        return {
            f"{self.plan.name}_clients": total["cl_active"] + total["cl_waiting"],
            f"{self.plan.name}_waiting": total["cl_waiting"],
            f"{self.plan.name}_connections": total["sv_active"] + total["sv_idle"],
        }

    def stop(self) -> None:
        self.server.stop(STOP_SIGNAL, STOP_GRACE)

    def remove(self) -> None:
        self.stop()
        remove_tree(self.folder)

    @contextmanager
    def _console(self) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        with socket_host(self.files) as host:
            connection = psycopg.connect(
                host=host, port=self.plan.port, user=KEEPER, dbname="pgbouncer", autocommit=True, connect_timeout=5, sslmode="disable"
            )
            try:
                yield connection  # without a transaction around it, which the console does not know
            finally:
                connection.close()

    def _certify(self) -> None:
        if not (self.files / "server.crt").exists():
            from homeport.drivers.addons.postgres.certificates import self_made  # its library takes 2 MB that most homes never need

            key, certificate = self_made(self.cluster.id.slug, names=(socket.gethostname(),))
            self._write("server.key", key)
            self._write("server.crt", certificate)

    def _write(self, name: str, text: str) -> bool:
        return write_changed(self.files / name, text, self.user)


def free_ports(cluster: Cluster, *, pooled: bool, gated: bool) -> dict[str, int]:
    """Ports of the doors that are wanted: those they have, else free ones. Call with `.addresses.lock` held."""
    record, home = cluster.record, cluster.place.addons.parent
    others = [found for found in records(home) if found.id != record.id]
    taken = {number for found in others for number in found.ports} | {record.port, *record.replica_ports, *record.extra_ports}
    pool_port, gate_port = record.pool_port if pooled else 0, record.gate_port if gated else 0
    if pooled and not pool_port:
        mine = {number for found in others if found.host == record.host for number in found.ports}
        usual = USUAL_PORT not in mine and is_free(record.host, USUAL_PORT)
        pool_port = USUAL_PORT if usual else free_port(taken, host=record.host, first=FIRST_PORT, last=LAST_PORT)
    if gated and not gate_port:
        gate_port = free_port(taken | {pool_port}, host=EVERYWHERE, after=begin_at(home, record.id.slug), first=FIRST_PORT, last=LAST_PORT)
    return {"pool_port": pool_port, "gate_port": gate_port}


def networks_of(definition: Postgres) -> list[str]:
    """Networks beyond this machine that may connect."""
    return settings.outside([rule.source for rule in definition.ip_allow_list or ()])


def problems(definition: Postgres) -> list[str]:
    """What this machine has no door for."""
    return [f"its connections cannot be pooled: {MISSING}"] if definition.pooling and find() is None else []


def notes(definition: Postgres) -> list[str]:
    """What its doors do in another way than the definition says."""
    found = []
    program, networks, pooling = find(), networks_of(definition), pooling_of(definition.pooling)
    if networks and program is None:
        found.append(f"it is reached from this machine only: for the networks of its allow-list, {MISSING}")
    elif networks:
        found.append(f"with TLS and a password it is open to {', '.join(networks)}: `homeport addons info` has the port")
    if pooling is not None and pooling.mode == "transaction" and program is not None and program.version < NEWS:
        found.append(
            f"{program.label} forgets prepared statements after each transaction: turn them off in the client "
            "(psycopg `prepare_threshold=None`, asyncpg `statement_cache_size=0`, Prisma `?pgbouncer=true`), or pool by session"
        )
    return found


def doors_of(cluster: Cluster, keeper: Keeper) -> list[Door]:
    """The doors that an add-on has ports for."""
    record, home = cluster.record, cluster.place.addons.parent
    plans = []
    if record.pool_port:
        plans.append(pool(record.host, record.pool_port, pooling_of(cluster.definition.pooling) or Pooling()))
    if record.gate_port:
        plans.append(gate(record.gate_port, networks_of(cluster.definition)))
    user = account_for(home, account_name(record.id.slug)) if plans and os.geteuid() == 0 else None

    def server(plan: Plan) -> Server:
        return Server(f"{record.id.slug} {plan.name}", cluster.place.folder / plan.name / "server", keeper)

    return [Door(cluster, plan, server(plan), user) for plan in plans]


def open_doors(cluster: Cluster, keeper: Keeper) -> Cluster:
    """The pool and the gate that are asked for. A gate that is not any more is taken down; a pool stays until it is closed, since what is
    live may use it, and a deploy that no longer asks for it may yet fail."""
    gated = bool(networks_of(cluster.definition)) and find() is not None
    with locked(cluster.place.addons / ".addresses.lock"):
        ports = free_ports(cluster, pooled=bool(cluster.definition.pooling or cluster.record.pool_port), gated=gated)
        for door in doors_of(cluster, keeper):
            if not ports[f"{door.plan.name}_port"]:
                door.remove()
        cluster = cluster.with_record(cluster.place.write(cluster.record.model_copy(update=ports)))
    ensure(doors_of(cluster, keeper))
    return cluster


def close_pool(cluster: Cluster, keeper: Keeper) -> Cluster:
    """Take the pool down for good."""
    for door in doors_of(cluster, keeper):
        if door.plan.name == "pool":
            door.remove()
    return cluster.with_record(cluster.place.write(cluster.record.model_copy(update={"pool_port": 0})))


def ensure(doors: Sequence[Door]) -> None:
    """Have doors run. Services need the pool; what stands in the gate's way is no reason for the database not to serve."""
    for door in doors:
        try:
            door.ensure()
        except AddOnFailed as error:
            if door.plan.name == "pool":
                raise
            log.warning("%s is not open to outside networks: %s", door.cluster.id.slug, error.why)
