"""The PostgreSQL driver."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psycopg

from homeport.drivers.addons import copies, passwords
from homeport.drivers.addons.base import AddOnDriver, AddOnId, AddOnRequest, BackupRef, Credentials, Inspection, Provisioned
from homeport.drivers.addons.errors import AddOnFailed
from homeport.drivers.addons.filling import fill
from homeport.drivers.addons.keeping import ROTATE_AT, ServerDriver
from homeport.drivers.addons.postgres import backups, doors, figures, recovering, replicas, roles, settings, upgrades
from homeport.drivers.addons.postgres.backups import Recovery, Target
from homeport.drivers.addons.postgres.cluster import Cluster, data_name
from homeport.drivers.addons.postgres.credentials import credentials_for
from homeport.drivers.addons.postgres.engines import Engine, Engines, major_of, needed
from homeport.drivers.addons.postgres.receiving import STOP_WITHIN as RECEIVER_GRACE
from homeport.drivers.addons.postgres.receiving import Receiver
from homeport.drivers.addons.records import Place, Record, account_for
from homeport.drivers.addons.records import door as account_of_doors
from homeport.drivers.addons.servers import Command, Server
from homeport.drivers.files import locked, remove_tree
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import AddOn, Postgres
from homeport.model.errors import HomeportError

log = logging.getLogger(__name__)


class PostgresDriver(ServerDriver):
    """One cluster per add-on. `at(point)` is called before each step of a change."""

    kind: ClassVar[str] = "postgres"
    usual_port: ClassVar[int] = 5432
    stop_signal: ClassVar[int] = signal.SIGINT  # fast shutdown: sessions are ended, nothing is lost
    stop_grace: ClassVar[float] = 60.0

    def __init__(
        self, home: Path, toolchains: Toolchains, *, system: Sequence[Path] | None = None, at: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(home, at=at)
        self.engines = Engines(toolchains, system=system)
        self.covered: dict[str, float] = {}
        """By slug, the moment (`time.monotonic`) up to which every target has a received log: who ships it writes it here."""

    # -- planning --------------------------------------------------------------------------------------------------

    def check(self, definition: AddOn) -> Sequence[str]:
        assert isinstance(definition, Postgres)  # noqa: S101
        found = roles.layout("database", definition)
        wrong = (*roles.problems(found), *settings.refused(definition.parameters), *doors.problems(definition))
        return (*self.engines.choose(definition).problems, *wrong)

    def notes(self, definition: AddOn) -> Sequence[str]:
        assert isinstance(definition, Postgres)  # noqa: S101
        notes = [*self.engines.choose(definition).notes, *doors.notes(definition)]
        if definition.high_availability:
            notes.append("it has no standby that takes over by itself; `replicas` gives read replicas")
        return notes

    # -- provisioning ----------------------------------------------------------------------------------------------

    def provision(self, request: AddOnRequest) -> Provisioned:
        place = self._place(request.id)
        with locked(place.lock):
            place, record = self._begin(request)
            if record.filling == "under way":
                record = self._emptied(place, record)
            cluster = self._settled(place, record, request)
            self._bring_up(cluster)
            self._at("roles")
            slots = self._roles(cluster, request)
            cluster = cluster.with_record(place.write(cluster.record.model_copy(update={"slots": {**cluster.record.slots, **slots}})))
            if cluster.record.filling == "under way":
                self._at("fill")
                cluster = self._fill(cluster, request)
            self._at("replicas")
            cluster = replicas.provide(cluster, self._keeper)
            self._at("doors")
            cluster = doors.open_doors(cluster, self._keeper)
            self._at("done")
            return self._provisioned(cluster, request.passwords)

    def _settled(self, place: Place, record: Record, request: AddOnRequest) -> Cluster:
        """The cluster with its engine chosen and its data made."""
        self._at("engine")
        if not record.data:
            assert isinstance(request.definition, Postgres)  # noqa: S101
            choice = self.engines.choose(request.definition)
            if choice.engine is None:
                raise AddOnFailed(name=request.id.name, why=f"{choice.problems[0]}.", fix="Install what is missing and deploy again.")
            engine = self._installed(request.id, choice.engine.major, choice.engine.source)
            record = record.model_copy(update={"version": str(engine.major), "source": engine.source})
        cluster = self._cluster(place, record)
        cluster.make_folders()
        self._at("initialise")
        cluster.initialise()
        self._at("record")
        filling = "under way" if request.seeds and not record.data else record.filling
        return cluster.with_record(place.write(record.model_copy(update={"data": cluster.data.name, "filling": filling})))

    def _emptied(self, place: Place, record: Record) -> Record:
        """The add-on without its data: it was never handed to anybody, since the files that fill it did not come to their end."""
        self._stop(place, record)
        for folder in [found for name in ("data", "archive", "stream") for found in place.folder.glob(f"{name}-*")]:
            remove_tree(folder)
        return place.write(record.model_copy(update={"data": "", "version": "", "source": "", "slots": {}, "filling": ""}))

    def _fill(self, cluster: Cluster, request: AddOnRequest) -> Cluster:
        """Run the project's files as the owner, who may do everything meanwhile, as in the image that they are written for."""
        found = roles.layout(cluster.id.name, cluster.definition)
        argv = [str(cluster.engine.bin / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        direct = credentials_for(cluster.record, found, "", cluster.record.slots.get("", "a"), request.passwords.get("", ""))
        env = {key: value for key, value in direct.env.items() if key.startswith("PG")}
        user = account_for(self.home, account_of_doors(cluster.id.slug)) if os.geteuid() == 0 else None
        with cluster.admin() as admin:
            roles.empower(admin, direct.user)
            try:
                fill(cluster.id.name, request.seeds, argv, env, user)
            finally:
                roles.disempower(admin)
        return cluster.with_record(cluster.place.write(cluster.record.model_copy(update={"filling": "done"})))

    def _bring_up(self, cluster: Cluster) -> None:
        """Configure and start; a server that runs is told, and restarted only for settings that need it."""
        self._at("configure")
        changed = cluster.configure()
        self._at("start")
        running = cluster.server.running() is not None
        if running and changed:
            self._reload(cluster)
        self._start(cluster.place, cluster.record)

    def _reload(self, cluster: Cluster) -> None:
        with cluster.admin() as admin:
            admin.execute("SELECT pg_reload_conf()")
        with cluster.admin() as admin:
            waiting = admin.execute("SELECT count(*) FROM pg_settings WHERE pending_restart").fetchone()
        if waiting and waiting[0]:
            self._pause(cluster.place, cluster.record)

    def _roles(self, cluster: Cluster, request: AddOnRequest) -> dict[str, str]:
        found = roles.layout(cluster.id.name, cluster.definition)
        wanted = {consumer: request.passwords.get(consumer, "") for consumer in ("", *request.consumers)}
        extensions = {"vector"} & cluster.engine.extensions | needed(cluster.definition)
        with cluster.admin("template1") as admin:
            roles.ensure_extensions(admin, {"vector"} & cluster.engine.extensions)  # for databases the application makes itself
        with cluster.admin() as admin:
            slots = roles.ensure(admin, found, wanted, cluster.record.slots, major=cluster.engine.major)
        self._at("extensions")
        try:
            with cluster.admin(found.database) as admin:
                roles.ensure_extensions(admin, [*sorted(extensions), *roles.untrusted(admin, cluster.definition.extensions_made)])
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
            raise AddOnFailed(
                name=cluster.id.name,
                why=f"Its data is served by {cluster.engine.label}: {str(error).strip().splitlines()[0]}.",
                fix=f"`homeport addons upgrade {cluster.id.name}` moves the data to a PostgreSQL of this machine that has it.",
            ) from error
        return slots

    def close_pool(self, id: AddOnId) -> bool:
        """Take down a pool that nobody uses any more; whether there was one. Raises InterruptedError while the add-on is being changed."""
        place = self._place(id)
        record = place.read()
        if record is None or not record.pool_port:
            return False
        with locked(place.lock, cancelled=lambda: True):
            cluster = self._cluster(place, place.get())
            if cluster.definition.pooling:
                return False
            doors.close_pool(cluster, self._keeper)
            return True

    def _replicas(self, cluster: Cluster) -> list[replicas.Replica]:
        return replicas.replicas_of(cluster, self._keeper)

    def _doors(self, cluster: Cluster) -> list[doors.Door]:
        return doors.doors_of(cluster, self._keeper)

    def _provisioned(self, cluster: Cluster, passwords: dict[str, str]) -> Provisioned:
        record = cluster.record
        found = roles.layout(record.id.name, cluster.definition)
        credentials = {
            consumer: credentials_for(record, found, consumer, record.slots.get(consumer, "a"), passwords.get(consumer, ""))
            for consumer in ("", *record.consumers)
        }
        notes = list(self.notes(cluster.definition))
        wanted = major_of(cluster.definition.version)
        if wanted is not None and wanted != cluster.engine.major and self.engines.choose(cluster.definition).engine != cluster.engine:
            notes.append(f"its data is of version {cluster.engine.major}: `homeport addons upgrade {record.id.name}` moves it")
        return Provisioned(
            id=record.id,
            kind=self.kind,
            engine=f"postgresql {figures.version(cluster)} ({record.source})",
            host=record.host,
            port=record.port,
            socket=str(cluster.run / f".s.PGSQL.{record.port}"),
            folder=cluster.place.folder,
            credentials=credentials,
            replicas=tuple(f"{record.host}:{port}" for port in record.replica_ports),
            pool=f"{record.host}:{record.pool_port}" if record.pool_port else "",
            gate=record.gate_port,
            notes=tuple(notes),
        )

    # -- credentials -----------------------------------------------------------------------------------------------

    def rotate(self, id: AddOnId, consumer: str) -> Credentials:
        """The new password belongs to the consumer's other login; a crash before the caller has kept it leaves the old one in use."""
        place = self._place(id)
        with locked(place.lock):
            cluster = self._cluster(place, place.get())
            slot = "b" if cluster.record.slots.get(consumer, "a") == "a" else "a"
            found = roles.layout(id.name, cluster.definition)
            password = passwords.new()
            with cluster.admin() as admin:
                name = roles.ensure_login(admin, found, consumer, slot)
                roles.set_password(admin, name, password)
            place.write(cluster.record.model_copy(update={"slots": {**cluster.record.slots, consumer: slot}}))
            for door in self._doors(cluster):
                door.refresh()
            return credentials_for(cluster.record, found, consumer, slot, password)

    def retire_old(self, id: AddOnId, consumer: str) -> None:
        place = self._place(id)
        with locked(place.lock):
            cluster = self._cluster(place, place.get())
            old = "b" if cluster.record.slots.get(consumer, "a") == "a" else "a"
            name = roles.layout(id.name, cluster.definition).login(consumer, old)
            with cluster.admin() as admin:
                if roles.verifier(admin, name):
                    roles.set_password(admin, name, None)
                    roles.end_sessions(admin, name)
            for door in self._doors(cluster):
                door.refresh()

    # -- what it does ----------------------------------------------------------------------------------------------

    def inspect(self, id: AddOnId) -> Inspection:
        place = self._place(id)
        cluster = self._cluster(place, place.get())
        return figures.inspect(cluster, self._doors(cluster), receiver=self.receiver(id), covered=self.covered.get(id.slug))

    # -- copies ----------------------------------------------------------------------------------------------------

    def back_up(self, id: AddOnId, target: Path, *, durable: bool = True) -> BackupRef:
        """A base backup in a new folder of `target`. Changes go on meanwhile. Raises AddOnMissing, BackupFailed.

        One that is packed and thrown away need not be `durable`: what it is packed into is.
        """
        return backups.back_up(self.cluster(id), target, durable=durable)

    def restore(self, backup: BackupRef, source: Path, into: AddOnId) -> Provisioned:
        """Logins keep the passwords of the backup until the new add-on is provisioned. Raises BackupDamaged, AddOnFailed."""
        with self.filled(backup, source, into) as cluster:
            self._at("start")
            self._start(cluster.place, cluster.record)
            self._at("done")
            return self._provisioned(cluster, {})

    def check_archive(self, backup: BackupRef, base: Path, wal: Path) -> Recovery | None:
        """Why a folder of WAL cannot carry a base backup forward, found without touching anything; None when it can."""
        record = copies.verify(backup, base)
        return backups.check_archive(self._installed(record.id, int(record.version), record.source), base, wal)

    def recover(
        self, backup: BackupRef, base: Path, wal: Path, target: Target, into: AddOnId, *, consume: bool = False,
        durable: bool = True,
    ) -> Recovery:  # fmt: skip
        """A new add-on as of `target`, from a base backup and a folder of WAL segments. What runs is not touched.

        With `consume` the data of the base backup is moved instead of copied, and not read a second time: for a copy that was checked as
        it was unpacked, and is thrown away afterwards. Without `durable` the caller has it written to the disk: `settling.settle`.

        Only `recovered` leaves an add-on `into`; every other state is an answer, with nothing left behind.

        Raises BackupDamaged, AddOnFailed.
        """
        problem = broken = self.check_archive(backup, base, wal)
        if broken is not None and broken.gap and target != Target():  # a moment before the gap needs nothing that is behind it
            backups.cut(wal, broken.gap)
            problem = self.check_archive(backup, base, wal)
        found = problem or recovering.recover(self, backup, base, wal, target, into, consume=consume, durable=durable)
        if broken is not None and found.state == "past-archive":
            return broken.model_copy(update={"latest": found.latest})
        return found

    @contextlib.contextmanager
    def filled(self, backup: BackupRef, source: Path, into: AddOnId, *, consume: bool = False) -> Iterator[Cluster]:
        """A new add-on with a backup's data, configured and not started; gone again when the block fails."""
        with self._restoring(backup, source, into) as (place, fresh, known):
            record = fresh.model_copy(update={"version": known.version, "source": known.source, "slots": known.slots})
            cluster = self._cluster(place, record)
            cluster.make_folders()
            self._at("copy")
            backups.place_data(cluster, source, backup.id, consume=consume)
            cluster.configure()
            self._at("record")
            yield cluster.with_record(place.write(cluster.record))

    def upgrade(self, id: AddOnId, version: str) -> Provisioned:
        """Raises UpgradeFailed after the old version runs again; AddOnFailed when the new one is not on this machine."""
        place = self._place(id)
        with locked(place.lock):
            cluster = self._cluster(place, place.get())
            target = upgrades.target(self.engines, cluster, version)
            if target == cluster.engine:
                return self._provisioned(cluster, {})
            definition = cluster.definition.model_copy(update={"version": str(target.major)}) if version else cluster.definition
            engine = self._installed(id, target.major, target.source)
            changed = upgrades.upgrade(self, cluster, engine, definition)
            return self._provisioned(changed, {})

    # -- for the common half ---------------------------------------------------------------------------------------

    def client(self, id: AddOnId) -> str:
        """psql of the engine that serves it."""
        found = self.cluster(id).engine.bin / "psql"
        return str(found) if found.is_file() else ""

    def cluster(self, id: AddOnId) -> Cluster:
        """The cluster of an add-on, for those who copy or look into it. Raises AddOnMissing."""
        place = self._place(id)
        return self._cluster(place, place.get())

    def _cluster(self, place: Place, record: Record) -> Cluster:
        engine = self._installed(record.id, int(record.version), record.source)
        record = record if record.data else record.model_copy(update={"data": data_name(engine.major)})
        return Cluster(place, record, engine, self._server(place), self._group(place))

    def _installed(self, id: AddOnId, major: int, source: str) -> Engine:
        try:
            return self.engines.installed(major, source)
        except LookupError as error:
            raise AddOnFailed(name=id.name, why=f"{error}.", fix="Install it again; the data needs the same major version.") from error

    def step(self, point: str) -> None:
        """Say which step follows."""
        self._at(point)

    def halt(self, cluster: Cluster) -> None:
        """Stop a cluster's servers; the clients of its pool wait."""
        self._pause(cluster.place, cluster.record)

    def run(self, cluster: Cluster) -> None:
        """Start a cluster's servers and wait until they answer."""
        self._start(cluster.place, cluster.record)

    def _servers(self, place: Place, record: Record) -> list[Server]:
        if not (record.replica_ports or record.pool_port or record.gate_port):
            return [self._server(place)]
        cluster = self._cluster(place, record)
        replicas, doors = self._replicas(cluster), self._doors(cluster)
        return [self._server(place), *(replica.server for replica in replicas), *(door.server for door in doors)]

    def _start(self, place: Place, record: Record) -> None:
        super()._start(place, record)
        if record.replica_ports or record.pool_port or record.gate_port:
            cluster = self._cluster(place, record)
            for replica in self._replicas(cluster):
                replica.ensure()
            doors.ensure(self._doors(cluster))
        self._receive(place, record)

    def _stop(self, place: Place, record: Record) -> None:
        """All of it, with the doors first."""
        if record.pool_port or record.gate_port:
            for door in self._doors(self._cluster(place, record)):
                door.stop()
        self._pause(place, record)

    def _pause(self, place: Place, record: Record) -> None:
        """The cluster and what follows it; clients of the doors wait until it answers again."""
        receiver = self._receiver(place)
        if receiver.folder.is_dir():  # it ends first: the server would wait until it has everything
            receiver.stop(signal.SIGINT, RECEIVER_GRACE)
        if record.replica_ports:
            for replica in reversed(self._replicas(self._cluster(place, record))):
                replica.server.stop(self.stop_signal, self.stop_grace)
        self._server(place).stop(self.stop_signal, self.stop_grace)

    def restart(self, id: AddOnId) -> None:
        place = self._place(id)
        with locked(place.lock):
            record = place.get()
            self._pause(place, record)
            self._start(place, record)

    def _revive(self, place: Place) -> list[AddOnId]:
        revived = super()._revive(place)
        record = place.read()
        if record is not None and record.wanted == "running" and record.data:
            self._receive(place, record)
        return revived

    # -- receiving its log -----------------------------------------------------------------------------------------

    def receiver(self, id: AddOnId) -> Receiver | None:
        """What takes an add-on's log as it is written; None when nothing does. Raises AddOnMissing."""
        place = self._place(id)
        record = place.get()
        return Receiver(self._cluster(place, record), self._receiver(place)) if record.streamed and record.data else None

    def stream(self, id: AddOnId, *, wanted: bool) -> bool:
        """Have a receiver take an add-on's log as it is written, or none; whether one had to begin anew, having been away for too long.

        Raises AddOnMissing, psycopg.Error; InterruptedError while the add-on is being changed, AddOnFailed when it does not start.
        """
        place = self._place(id)
        record = place.get()
        if record.streamed == wanted and (not wanted or self._receiver(place).running() is not None):
            return False
        with locked(place.lock, cancelled=lambda: True):
            record = place.get()
            if not record.data or record.wanted != "running" or self._server(place).running() is None:
                return False
            receiver = Receiver(self._cluster(place, record), self._receiver(place))
            seen = receiver.look()
            lost = seen is not None and seen.lost
            if lost or not wanted:
                receiver.remove()
            if record.streamed != wanted:
                record = place.write(record.model_copy(update={"streamed": wanted}))
            if wanted:
                receiver.ensure()
            return lost

    def _receiver(self, place: Place) -> Server:
        return Server(f"{place.id.slug} receiver", place.folder / "receiver" / "server", self._keeper)

    def _receive(self, place: Place, record: Record) -> None:
        """Have the receiver run, when there is to be one; what stands in its way is no reason for the database not to serve."""
        if not record.streamed:
            return
        server = self._receiver(place)
        with contextlib.suppress(OSError):
            server.log.rotate(ROTATE_AT)
        try:
            Receiver(self._cluster(place, record), server).ensure()
        except (HomeportError, psycopg.Error, OSError) as error:
            log.warning("the log of %s is not received: %s", place.id.slug, error)

    def _command(self, place: Place, record: Record) -> Command:
        return self._cluster(place, record).command()

    def _ready(self, place: Place, record: Record) -> bool:
        return self._cluster(place, record).answers()


if TYPE_CHECKING:
    _: type[AddOnDriver] = PostgresDriver
