"""One cluster on disk: its data, its configuration, its tools, and the way in over its socket.

`data-<major>/` is the cluster, `run/` has the socket, `archive-<major>/` the finished WAL segments, `stream-<major>/` those that a receiver
takes as they are written, `replicas/<n>/` the read replicas.
The server's folder is its data folder, so everything it needs is named relative to that: the home may be moved.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import psycopg

from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.errors import AddOnFailed
from homeport.drivers.addons.keeping import memory_limit, plan_memory, socket_host
from homeport.drivers.addons.postgres import roles, settings
from homeport.drivers.addons.postgres.engines import Engine
from homeport.drivers.addons.records import Place, Record
from homeport.drivers.addons.servers import Command, Server, account_name
from homeport.drivers.cgroups import Group
from homeport.drivers.files import remove_tree, sync_folder, write_atomic, write_changed
from homeport.drivers.runtimes.base import Executed
from homeport.model.addon import Postgres, pooling_of

TOOL_TIMEOUT = 600.0
"""Seconds initdb and its like may take."""


class Cluster:
    """A PostgreSQL add-on with the programs that serve it."""

    def __init__(self, place: Place, record: Record, engine: Engine, server: Server, group: Group | None) -> None:
        self.place, self.record, self.engine, self.server, self.group = place, record, engine, server, group

    @property
    def id(self) -> AddOnId:
        return self.record.id

    @property
    def definition(self) -> Postgres:
        assert isinstance(self.record.definition, Postgres)  # noqa: S101 (the record's kind says so)
        return self.record.definition

    @property
    def data(self) -> Path:
        return self.place.folder / (self.record.data or data_name(self.engine.major))

    @property
    def run(self) -> Path:
        return self.place.folder / "run"

    @property
    def archive(self) -> Path:
        """Finished WAL segments; those of another major version are in a folder of their own, since they belong to another history."""
        return self.place.folder / f"archive-{self._history}"

    @property
    def _history(self) -> str:
        return self.data.name.removeprefix("data-")

    @property
    def stream(self) -> Path:
        """WAL segments as a receiver takes them, the last one unfinished; there only while one is asked for."""
        return self.place.folder / f"stream-{self._history}"

    def replica(self, number: int) -> Path:
        return self.place.folder / "replicas" / str(number)

    def with_record(self, record: Record) -> Cluster:
        return Cluster(self.place, record, self.engine, self.server, self.group)

    # -- making it -------------------------------------------------------------------------------------------------

    def make_folders(self) -> None:
        user = self.record.user
        self.place.make("run", user)
        self.place.make(self.archive.name, user)
        script = self.place.folder / "archive.sh"
        wanted = (resources.files("homeport.drivers.addons.postgres") / "archive.sh").read_bytes()
        if not script.exists() or script.read_bytes() != wanted:
            write_atomic(script, wanted, 0o755)

    def initialise(self) -> None:
        """Make the data folder, whole or not at all. Raises AddOnFailed."""
        if (self.data / "PG_VERSION").exists():
            return
        part = self.data.with_name(f"{self.data.name}.part")
        if part.exists():
            self.server.sweep()  # an initdb that outlived its control plane writes into it still
            remove_tree(part)
        self.place.make(part.name, self.record.user)
        done = self.tool(
            ["initdb", "-D", str(part), "-U", settings.ADMIN, "--auth-local=peer", "--auth-host=reject", "--data-checksums",
             "--encoding=UTF8", *self._locale(), "--no-instructions"],
            cwd=part,
        )  # fmt: skip
        if done.code != 0:
            raise AddOnFailed(name=self.id.name, why="Its cluster could not be made.", tail=done.output.splitlines()[-20:])
        part.rename(self.data)
        sync_folder(self.place.folder)

    def _locale(self) -> Sequence[str]:
        """UTF-8 with one order on every machine: an index sorted by one C library's rules is damaged under another's."""
        if self.engine.major >= 17:
            return ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
        return ("--locale=C.UTF-8",)

    def configure(self) -> bool:
        """Write the configuration; whether something changed."""
        return self.write_conf(self.tuning())

    def tuning(self) -> settings.Tuning:
        return settings.Tuning(
            major=self.engine.major,
            memory=plan_memory(self.definition),
            host=self.record.host,
            port=self.record.port,
            archive=f'/bin/sh ../archive.sh "%p" "%f" ../{self.archive.name}',
            name=self.place.id.slug,
            parameters=self.definition.parameters,
            replicas=self.definition.replicas,
            pool=pooling.size if (pooling := pooling_of(self.definition.pooling)) else 0,
            slow={True: 100, None: 1000, False: -1}[self.definition.insights],
        )

    def write_conf(self, tuning: settings.Tuning, data: Path | None = None) -> bool:
        accounts = ["root" if os.geteuid() == 0 else account_name(os.geteuid())]
        if self.record.user is not None:
            accounts.append(account_name(self.record.user))
        wanted = {
            "postgresql.conf": settings.conf(tuning),
            "pg_hba.conf": settings.hba(),
            "pg_ident.conf": settings.ident(accounts),
        }
        changed = False
        for name, text in wanted.items():
            changed |= self.write((data or self.data) / name, text)
        return changed

    def write(self, file: Path, text: str) -> bool:
        """A file of the cluster's own account; whether it is new."""
        return write_changed(file, text, self.record.user)

    # -- running it ------------------------------------------------------------------------------------------------

    def command(self) -> Command:
        return Command(
            argv=(str(self.engine.bin / "postgres"), "-D", str(self.data)),
            cwd=self.data,
            user=self.record.user,
            group=self.group,
            memory=memory_limit(self.definition),
            stale=(self.data / "postmaster.pid",),  # its process may be dead and not yet reaped, or its number another one's since
        )

    def tool(self, argv: Sequence[str], *, cwd: Path, timeout: float = TOOL_TIMEOUT, server: Server | None = None) -> Executed:
        """Run one of the engine's programs as the cluster's account while its server cannot run."""
        program, *arguments = argv
        command = Command(argv=(str(self.engine.bin / program), *arguments), cwd=cwd, user=self.record.user)
        return (server or self.server).run(command, timeout)

    # -- the way in ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def admin(self, database: str = "postgres", *, run: Path | None = None, port: int = 0) -> Iterator[roles.Admin]:
        """A connection as the superuser, to a replica when its `run` and `port` are given.

        Raises psycopg.OperationalError while the server does not answer.
        """
        with (
            socket_host(run or self.run) as host,
            psycopg.connect(
                host=host, port=port or self.record.port, user=settings.ADMIN, dbname=database, autocommit=True, connect_timeout=10,
                application_name="homeport",
            ) as connection,
        ):  # fmt: skip
            yield connection

    def answers(self, *, data: Path | None = None, run: Path | None = None, port: int = 0) -> bool:
        """Whether it takes connections: asked only once it says so itself, since each early try is a line in its log."""
        try:
            status = ((data or self.data) / "postmaster.pid").read_text().splitlines()[7].strip()
        except (OSError, IndexError):
            return False
        if status not in ("ready", "standby"):
            return False
        try:
            with self.admin(run=run, port=port):
                return True
        except psycopg.OperationalError:
            return False

    def is_primary(self) -> bool:
        """Whether it takes writes: recovery is over."""
        if not self.answers():
            return False
        try:
            with self.admin() as admin:
                row = admin.execute("SELECT pg_is_in_recovery()").fetchone()
                return bool(row and not row[0])
        except psycopg.OperationalError:
            return False

    def client(self, program: str) -> list[str]:
        """The beginning of an argument list of a client program that is run in the folder `run` by Homeport's own account."""
        return [str(self.engine.bin / program), "-h", "/proc/self/cwd", "-p", str(self.record.port), "-U", settings.ADMIN]


def data_name(major: int) -> str:
    return f"data-{major}"
