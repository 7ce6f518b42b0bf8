"""The MariaDB driver."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar
from urllib.parse import quote

from homeport.drivers.addons import copies, passwords
from homeport.drivers.addons.base import AddOnDriver, AddOnId, AddOnRequest, BackupRef, Credentials, Inspection, Provisioned
from homeport.drivers.addons.errors import AddOnFailed, UpgradeFailed
from homeport.drivers.addons.filling import fill
from homeport.drivers.addons.keeping import LOOK_TIMEOUT, SILENT, ServerDriver, plan_memory, socket_host
from homeport.drivers.addons.mariadb import accounts, config, dumps
from homeport.drivers.addons.mariadb.dumps import Admin
from homeport.drivers.addons.mariadb.engine import MISSING, Engine, find
from homeport.drivers.addons.records import Place, Record, account_for, door
from homeport.drivers.addons.servers import Command, folder_size, keeping_fence, proportional_memory, run_outside
from homeport.drivers.files import locked, remove_tree, sync_folder, write_changed
from homeport.model.addon import AddOn, MariaDB

INSTALL_TIMEOUT = 300.0
UPGRADE_TIMEOUT = 3600.0
T = TypeVar("T")


class MariaDBDriver(ServerDriver):
    """One server per add-on. `at(point)` is called before each step of a change."""

    kind: ClassVar[str] = "mariadb"
    usual_port: ClassVar[int] = 3306
    stop_grace: ClassVar[float] = 60.0

    # -- planning --------------------------------------------------------------------------------------------------

    def check(self, definition: AddOn) -> Sequence[str]:
        assert isinstance(definition, MariaDB)  # noqa: S101
        return [*([] if find() else [MISSING]), *config.problems(definition)]

    def notes(self, definition: AddOn) -> Sequence[str]:
        assert isinstance(definition, MariaDB)  # noqa: S101
        notes, engine = [], find()
        if definition.flavour == "mysql":
            notes.append("MariaDB serves it in place of MySQL: `caching_sha2_password` and MySQL 8's JSON functions are not the same")
        if engine and definition.flavour == "mariadb" and definition.version and not engine.version.startswith(definition.version):
            notes.append(f"MariaDB {engine.version}, the one that is installed, serves it instead of {definition.version}")
        if config.open_root(definition):
            notes.append("its root asks for no password, as the file says: every process of this machine can reach it as root")
        if any(not rule.source.startswith("127.") for rule in definition.ip_allow_list or ()):
            notes.append("it is reached from this machine only: the allow-list names outside networks, which need TLS in front of it")
        if definition.replicas or definition.high_availability:
            notes.append("it runs without replicas: one server, brought back with its data when it ends")
        return notes

    def engine(self) -> Engine:
        """Raises AddOnFailed when none is installed."""
        found = find()
        if found is None:
            raise AddOnFailed(name="mariadb", why=f"{MISSING}.", fix="Install it and deploy again.")
        return found

    def client(self, id: AddOnId) -> str:
        """The system's `mariadb` program."""
        del id
        found = find()
        return str(found.client) if found else ""

    # -- provisioning ----------------------------------------------------------------------------------------------

    def provision(self, request: AddOnRequest) -> Provisioned:
        place = self._place(request.id)
        with locked(place.lock):
            self.engine()
            place, record = self._begin(request)
            if record.filling == "under way":
                record = self._emptied(place, record)
            if request.seeds and not record.data:
                record = place.write(record.model_copy(update={"filling": "under way"}))
            record, changed = self._settle(place, record)
            if changed and self._server(place).running():
                self._stop(place, record)
            self._at("start")
            self._start(place, record)
            self._at("accounts")
            with self.admin(place) as admin:
                accounts.ensure(admin, request)
                if record.filling == "under way":
                    self._at("fill")
                    record = self._fill(admin, place, record, request)
            self._at("done")
            return self._provisioned(record, request.passwords)

    def _settle(self, place: Place, record: Record) -> tuple[Record, bool]:
        """Folders, data and configuration as they should be; whether the configuration changed."""
        for name in ("run", "tmp"):
            place.make(name, record.user)
        self._at("initialise")
        self._initialise(place, record)
        self._at("configure")
        definition = record.definition
        assert isinstance(definition, MariaDB)  # noqa: S101
        text = config.conf(record.host, record.port, plan_memory(definition), definition.parameters)
        changed = write_changed(place.folder / "my.cnf", text, record.user)
        write_changed(place.folder / "accounts.sql", config.accounts_file(config.digest(passwords.of_homeport(place))), record.user)
        self._at("record")
        version = record.version or self.engine().series
        return place.write(record.model_copy(update={"data": "data", "version": version, "source": "system"})), changed

    def _initialise(self, place: Place, record: Record) -> None:
        """Make the data folder: complete or not there."""
        data = place.folder / "data"
        if data.is_dir():
            return
        part = place.folder / "data.part"
        if part.exists():
            self._server(place).sweep()
            remove_tree(part)
        place.make("data.part", record.user)
        argv = (str(self.engine().install), "--no-defaults", f"--datadir={part}", "--auth-root-authentication-method=socket",
                "--skip-test-db", "--skip-name-resolve", f"--innodb-log-file-size={config.LOG_FILE}")  # fmt: skip
        tmp = str(place.folder / "tmp")
        done = self._server(place).run(Command(argv=argv, cwd=part, user=record.user, env={"TMPDIR": tmp}), INSTALL_TIMEOUT)
        if done.code != 0:
            raise AddOnFailed(name=record.id.name, why="Its data folder could not be made.", tail=done.output.splitlines()[-20:])
        part.rename(data)
        sync_folder(place.folder)

    def _emptied(self, place: Place, record: Record) -> Record:
        """The add-on without its data: it was never handed to anybody, since the files that fill it did not come to their end."""
        self._stop(place, record)
        remove_tree(place.folder / "data")
        return place.write(record.model_copy(update={"data": "", "filling": ""}))

    def _fill(self, admin: Admin, place: Place, record: Record, request: AddOnRequest) -> Record:
        """Run the project's files as the owner, who may do everything meanwhile, as in the image that they are written for."""
        definition = request.definition
        assert isinstance(definition, MariaDB)  # noqa: S101
        found = config.layout(request.id.name, definition)
        owner = f"{config.text(found.account(''))}@'%'"
        argv = [str(self.engine().client), "--no-defaults", "--protocol=tcp", f"--host={record.host}", f"--port={record.port}",
                f"--user={found.account('')}", "--default-character-set=utf8mb4", "--", found.database]  # fmt: skip
        user = account_for(self.home, door(request.id.slug)) if os.geteuid() == 0 else None
        accounts.run(admin, f"GRANT ALL PRIVILEGES ON *.* TO {owner} WITH GRANT OPTION")
        try:
            fill(request.id.name, request.seeds, argv, {"MYSQL_PWD": request.passwords.get("", "")}, user)
        finally:
            if found.account("") != config.ROOT:
                accounts.run(admin, f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {owner}")
                accounts.ensure(admin, request)
        return place.write(record.model_copy(update={"filling": "done"}))

    def _provisioned(self, record: Record, passwords: dict[str, str]) -> Provisioned:
        definition = record.definition
        assert isinstance(definition, MariaDB)  # noqa: S101
        found = config.layout(record.id.name, definition)
        place = self._place(record.id)
        return Provisioned(
            id=record.id,
            kind=self.kind,
            engine=f"mariadb {self.engine().version} (system)",
            host=record.host,
            port=record.port,
            socket=str(place.folder / "run" / config.SOCKET),
            folder=place.folder,
            credentials={
                consumer: credentials_of(record, found, consumer, passwords.get(consumer, "")) for consumer in ("", *record.consumers)
            },
            notes=tuple(self.notes(definition)),
        )

    # -- credentials -----------------------------------------------------------------------------------------------

    def rotate(self, id: AddOnId, consumer: str) -> Credentials:
        """The account has both passwords until `retire_old`: `IDENTIFIED VIA … OR …`."""
        place = self._place(id)
        with locked(place.lock):
            record = place.get()
            found = self._layout(record)
            password = passwords.new()
            with self.admin(place) as admin:
                known = accounts.digests(admin, found.account(consumer)) or ()
                accounts.identify(admin, found.account(consumer), [*known[-1:], config.digest(password)])
            return credentials_of(record, found, consumer, password)

    def retire_old(self, id: AddOnId, consumer: str) -> None:
        place = self._place(id)
        with locked(place.lock):
            account = self._layout(place.get()).account(consumer)
            with self.admin(place) as admin:
                known = accounts.digests(admin, account) or ()
                if len(known) > 1:
                    accounts.identify(admin, account, known[-1:])
                    accounts.run(admin, f"KILL SOFT USER {config.text(account)}")

    def _layout(self, record: Record) -> config.Layout:
        assert isinstance(record.definition, MariaDB)  # noqa: S101
        return config.layout(record.id.name, record.definition)

    @contextlib.contextmanager
    def admin(self, place: Place, timeout: float | None = None) -> Iterator[Admin]:
        """A connection that may do everything, over the socket. Raises pymysql.err.Error, OSError."""
        import pymysql

        with socket_host(place.folder / "run") as host, contextlib.closing(socket.socket(socket.AF_UNIX)) as door:
            door.settimeout(timeout or 60)
            door.connect(f"{host}/{config.SOCKET}")
            connection: Admin = pymysql.connect(
                user=config.ADMIN, password=passwords.of_homeport(place), charset="utf8mb4", autocommit=True, defer_connect=True,
                read_timeout=timeout, write_timeout=timeout,
            )  # fmt: skip
            connection.connect(door)
            try:
                yield connection
            finally:
                connection.close()

    # -- what it does ----------------------------------------------------------------------------------------------

    def inspect(self, id: AddOnId) -> Inspection:
        import pymysql

        place = self._place(id)
        record = place.get()
        server = self._server(place)
        running = server.running()
        engine = find()
        size = folder_size(place.folder / "data")
        detail = {"host": record.host, "port": str(record.port), "wanted": record.wanted, "database": self._layout(record).database}
        version = engine.version if engine else record.version
        if running is None:
            return Inspection(running=False, version=version, size=size, detail=detail)
        metrics: dict[str, float] = {}
        try:
            with self.admin(place, LOOK_TIMEOUT) as admin:
                metrics = _figures(admin)
        except (pymysql.err.Error, OSError) as error:
            silent = isinstance(error, TimeoutError) or "timed out" in str(error)
            detail["problem"] = SILENT if silent else str(error)
        return Inspection(
            running=True, version=version, pid=running.pid, size=size, memory=proportional_memory(server.holders()),
            connections=int(metrics.get("connections", 0)), metrics=metrics, detail=detail,
        )  # fmt: skip

    # -- copies ----------------------------------------------------------------------------------------------------

    def back_up(self, id: AddOnId, target: Path) -> BackupRef:
        """A dump of every database as of one moment. Changes go on meanwhile. Raises AddOnMissing, BackupFailed."""
        return self._dump(self._place(id), target, lambda _: None)

    def back_up_reading(self, id: AddOnId, target: Path, read: Callable[[Admin], T]) -> tuple[BackupRef, T, bool]:
        """A dump, what `read` finds in a transaction of the same moment, and whether it was the same.

        Raises AddOnMissing, BackupFailed, pymysql.err.Error.
        """
        place = self._place(id)
        with self.admin(place) as holder, self.admin(place) as reader:
            moment = dumps.SameMoment(holder, reader)
            try:
                moment.begin()
                ref = self._dump(place, target, moment.join)
            finally:
                moment.release()
            return ref, read(reader), moment.exact

    def _dump(self, place: Place, target: Path, begun: Callable[[Callable[[], bool]], None]) -> BackupRef:
        record = place.get()
        with copies.copying(record, target) as (name, part):
            with self.admin(place) as admin:
                databases = [row for (row,) in accounts.rows(admin, "SHOW DATABASES") if str(row) not in config.SYSTEM_DATABASES]
            password = passwords.of_homeport(place)
            dumps.take(self.engine(), place.folder / "run", password, databases, part / "dump.sql", place.id.slug, begun)
            return copies.finish(record, name, part, (), {"engine": f"mariadb {self.engine().version}"})

    def restore(self, backup: BackupRef, source: Path, into: AddOnId) -> Provisioned:
        """Accounts come with the next provisioning. Raises BackupDamaged, AddOnFailed."""
        with self._restoring(backup, source, into) as (place, fresh, _):
            record, _ = self._settle(place, fresh)
            self._at("start")
            self._start(place, record)
            self._at("copy")
            dumps.load(self.engine(), place.folder / "run", passwords.of_homeport(place), source / "dump.sql", into.name)
            return self._provisioned(record, {})

    def upgrade(self, id: AddOnId, version: str) -> Provisioned:
        """Start it with the program that is installed now, and bring its system tables up to it.

        Raises AddOnFailed when another version is wanted, UpgradeFailed when the tables could not be upgraded.
        """
        place = self._place(id)
        with locked(place.lock):
            record, engine = place.get(), self.engine()
            if version and not f"{engine.version}.".startswith(f"{version}."):
                raise AddOnFailed(
                    name=id.name, what=f"{id.name} was not upgraded; it runs on as version {engine.version}.",
                    why=f"MariaDB {version} is not installed on this machine, {engine.version} is.",
                    fix="Install the wanted version from your system's packages, or leave the version out.",
                )  # fmt: skip
            self._stop(place, record)
            self._start(place, record)
            return self._provisioned(place.get(), {})

    # -- for the common half ---------------------------------------------------------------------------------------

    def _start(self, place: Place, record: Record) -> None:
        """Start it; after a new version of the system's package the system tables are upgraded first."""
        super()._start(place, record)
        engine = self.engine()
        if record.data and record.version not in ("", engine.series):
            with dumps.tool(engine.upgrade, place.folder / "run") as argv:
                env = dumps.environment(passwords.of_homeport(place))
                done = run_outside(argv, cwd=place.folder, env=env, timeout=UPGRADE_TIMEOUT)
            if done.code != 0:
                raise UpgradeFailed(
                    slug=record.id.slug, why="Its system tables could not be upgraded.", tail=done.output.splitlines()[-20:]
                )
            place.write(record.model_copy(update={"version": engine.series}))

    def _command(self, place: Place, record: Record) -> Command:
        argv = keeping_fence(str(self.engine().server), f"--defaults-file={place.folder / 'my.cnf'}", f"--datadir={place.folder / 'data'}")
        return Command(argv=argv, cwd=place.folder / "data", user=record.user, group=self._group(place))

    def _ready(self, place: Place, record: Record) -> bool:
        import pymysql

        del record
        if not (place.folder / "run" / config.SOCKET).exists():
            return False
        try:
            with self.admin(place) as admin:
                return bool(accounts.rows(admin, "SELECT 1"))
        except (pymysql.err.Error, OSError):
            return False


def credentials_of(record: Record, found: config.Layout, consumer: str, password: str) -> Credentials:
    user = found.account(consumer)
    address = f"{record.host}:{record.port}/{quote(found.database, safe='')}"
    url = f"mysql://{quote(user, safe='')}:{quote(password, safe='')}@{address}"
    env = {
        "DATABASE_URL": url,
        "MYSQL_URL": url,
        "MYSQL_HOST": record.host,
        "MYSQL_PORT": str(record.port),
        "MYSQL_USER": user,
        "MYSQL_PASSWORD": password,
        "MYSQL_DATABASE": found.database,
    }
    if getattr(record.definition, "flavour", "") == "mariadb":
        env |= {key.replace("MYSQL_", "MARIADB_"): value for key, value in env.items() if key.startswith("MYSQL_")}
    return Credentials(user=user, password=password, host=record.host, port=record.port, database=found.database, url=url, env=env)


def _figures(admin: Admin) -> dict[str, float]:
    status = {str(name): value for name, value in accounts.rows(admin, "SHOW GLOBAL STATUS")}
    limit = accounts.rows(admin, "SELECT @@max_connections")[0][0]
    asked, missed = (float(status.get(f"Innodb_buffer_pool_{what}", 0)) for what in ("read_requests", "reads"))
    names = {"queries": "Questions", "slow_queries": "Slow_queries", "uptime_seconds": "Uptime", "deadlocks": "Innodb_deadlocks"}
    found = {name: float(status.get(field) or 0) for name, field in names.items()}
    return {
        "connections": max(0.0, float(status.get("Threads_connected", 1)) - 1),  # our own
        "connections_limit": float(limit),
        "cache_hit_ratio": 1 - missed / asked if asked else 1.0,
        **found,
    }


if TYPE_CHECKING:
    _: type[AddOnDriver] = MariaDBDriver
