"""The Valkey driver."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from homeport.drivers.addons import copies, passwords
from homeport.drivers.addons.base import AddOnDriver, AddOnId, AddOnRequest, BackupRef, Credentials, Inspection, Provisioned
from homeport.drivers.addons.errors import AddOnFailed
from homeport.drivers.addons.keeping import LOOK_TIMEOUT, SILENT, ServerDriver, plan_memory, socket_host
from homeport.drivers.addons.records import Place, Record
from homeport.drivers.addons.servers import Command, folder_size, proportional_memory
from homeport.drivers.addons.valkey import config, snapshots
from homeport.drivers.addons.valkey.engine import Engine, find, find_client
from homeport.drivers.addons.valkey.syncing import Syncing
from homeport.drivers.files import locked, write_changed
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import AddOn, Redis

if TYPE_CHECKING:
    import redis


class ValkeyDriver(ServerDriver):
    """One server per add-on. `at(point)` is called before each step of a change."""

    kind: ClassVar[str] = "redis"
    usual_port: ClassVar[int] = 6379

    def __init__(self, home: Path, toolchains: Toolchains, *, at: Callable[[str], None] | None = None) -> None:
        super().__init__(home, at=at)
        self._toolchains = toolchains
        self._engine: Engine | None = None
        self._syncing = Syncing(home)

    def close(self) -> None:
        self._syncing.close()
        super().close()

    # -- planning --------------------------------------------------------------------------------------------------

    def check(self, definition: AddOn) -> Sequence[str]:
        return config.refused(definition.parameters)

    def notes(self, definition: AddOn) -> Sequence[str]:
        notes = []
        if _open(definition):
            notes.append(
                "it asks for no password, as its image does not: every process of this machine can reach it until `requirepass` is set"
            )
        if "redis-stack" in definition.image or "valkey-bundle" in definition.image:
            notes.append("the modules of its image (search, JSON, time series, Bloom filters) are not part of Valkey: their commands fail")
        if any(not rule.source.startswith("127.") for rule in definition.ip_allow_list or ()):
            notes.append("it is reached from this machine only: the allow-list names outside networks, which need TLS in front of it")
        if definition.replicas or definition.high_availability:
            notes.append("it runs without replicas: one server, brought back with its data when it ends")
        return notes

    def engine(self) -> Engine:
        """The bundled Valkey, else the system's Redis or Valkey. Raises ToolchainUnavailable."""
        if self._engine is None:
            self._engine = find(self._toolchains)
        return self._engine

    # -- provisioning ----------------------------------------------------------------------------------------------

    def provision(self, request: AddOnRequest) -> Provisioned:
        place = self._place(request.id)
        with locked(place.lock):
            place, record = self._begin(request)
            self._at("engine")
            engine = self.engine()
            about = {"data": "data", "version": engine.version.split()[1].split(".")[0], "source": engine.source}
            record = place.write(record.model_copy(update={**about, "open": _open(request.definition)}))
            self._at("users")
            self._write_users(place, record, self._wanted_users(place, request))
            self._at("configure")
            changed = self._configure(place, record)
            if changed and self._server(place).running():
                self._adjust(place, record)
            self._at("start")
            self._start(place, record)
            self._at("apply")
            self._apply_users(place)
            self._at("done")
            return self._provisioned(place, record, request.passwords)

    def _wanted_users(self, place: Place, request: AddOnRequest) -> dict[str, tuple[str, ...]]:
        """Users with what they have, and their password replaced only when it is none of theirs."""
        users = self._users(place)
        for consumer in ("", *request.consumers):
            user, password = config.user_of(consumer), request.passwords.get(consumer, "")
            known = users.get(user, ())
            if password and config.digest(password) not in known:
                known = (config.digest(password),)
            users[user] = known
        return users

    def _configure(self, place: Place, record: Record) -> bool:
        for name in ("data", "run"):
            place.make(name, record.user)
        tuning = self._tuning(record)
        if self._server(place).running() is None:
            snapshots.settle(place.folder / "data", record.user, on=tuning.persistence)
        return write_changed(place.folder / "valkey.conf", config.conf(tuning), record.user)

    def _tuning(self, record: Record) -> config.Tuning:
        definition = record.definition
        assert isinstance(definition, Redis)  # noqa: S101 (the record's kind says so)
        return config.Tuning(
            host=record.host,
            port=record.port,
            memory=plan_memory(definition),
            eviction=definition.eviction or "noeviction",
            persistence=definition.persistence is not False,
            parameters={name: value for name, value in definition.parameters.items() if not config.refused({name: value})},
        )

    def _adjust(self, place: Place, record: Record) -> None:
        """Tell a running server what can be told; restart it for the rest."""
        tuning = self._tuning(record)
        with self.admin(place) as server:
            server.config_set("maxmemory", tuning.memory)
            server.config_set("maxmemory-policy", tuning.eviction)
            server.config_set("save", config.saves(tuning).strip('"'))
            snapshots.switch(server, place.id.slug, on=tuning.persistence)
        if not tuning.persistence:
            snapshots.set_aside(place.folder / "data")
        if tuning.parameters:
            self._stop(place, record)

    def _provisioned(self, place: Place, record: Record, passwords: dict[str, str]) -> Provisioned:
        return Provisioned(
            id=record.id,
            kind=self.kind,
            engine=f"{self.engine().version} ({record.source})",
            host=record.host,
            port=record.port,
            socket=str(place.folder / "run" / config.SOCKET),
            folder=place.folder,
            credentials={
                consumer: credentials_of(record, config.user_of(consumer), passwords.get(consumer, ""))
                for consumer in ("", *record.consumers)
            },
            notes=tuple(self.notes(record.definition)),
        )

    # -- credentials -----------------------------------------------------------------------------------------------

    def rotate(self, id: AddOnId, consumer: str) -> Credentials:
        place = self._place(id)
        with locked(place.lock):
            record = place.get()
            password = passwords.new()
            user = config.user_of(consumer)
            users = self._users(place)
            users[user] = (*users.get(user, ())[-1:], config.digest(password))
            self._write_users(place, record, users)
            self._apply_users(place)
            return credentials_of(record, user, password)

    def retire_old(self, id: AddOnId, consumer: str) -> None:
        place = self._place(id)
        with locked(place.lock):
            record = place.get()
            user = config.user_of(consumer)
            users = self._users(place)
            if len(users.get(user, ())) > 1:
                users[user] = users[user][-1:]
                self._write_users(place, record, users)
                self._apply_users(place)
                with self.admin(place) as server:
                    server.execute_command("CLIENT", "KILL", "USER", user, "SKIPME", "yes")  # type: ignore[no-untyped-call]

    def _users(self, place: Place) -> dict[str, tuple[str, ...]]:
        try:
            return config.parse_acl((place.folder / "users.acl").read_text())
        except FileNotFoundError:
            return {}

    def _write_users(self, place: Place, record: Record, users: dict[str, tuple[str, ...]]) -> None:
        users = {config.ADMIN: (config.digest(passwords.of_homeport(place)),), **users}
        write_changed(place.folder / "users.acl", config.acl(users, open=record.open), record.user)

    def _apply_users(self, place: Place) -> None:
        """Bring the running server's users to those of the file; connections stay."""
        if self._server(place).running() is None:
            return
        with self.admin(place) as server:
            for user, digests in self._users(place).items():
                if user != config.ADMIN:
                    rules = config.rules(user, digests, open=place.get().open)
                    server.execute_command("ACL", "SETUSER", user, *rules)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def admin(self, place: Place, *, decoded: bool = True, database: int = 0, timeout: float = 30.0) -> Iterator[redis.Redis]:
        """A client that may do everything, over the socket; not `decoded` it gives bytes. Raises redis.exceptions.RedisError.

        Its pool hands out the connection that was last used: one at a time, it is always the same one.
        """
        import redis

        with socket_host(place.folder / "run") as host:
            client = redis.Redis(
                unix_socket_path=f"{host}/{config.SOCKET}",
                db=database,
                username=config.ADMIN,
                password=passwords.of_homeport(place),
                socket_timeout=timeout,
                decode_responses=decoded,
                retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
            )
            try:
                yield client
            finally:
                client.close()

    # -- what it does ----------------------------------------------------------------------------------------------

    def inspect(self, id: AddOnId) -> Inspection:
        import redis

        place = self._place(id)
        record = place.get()
        server = self._server(place)
        running = server.running()
        size = folder_size(place.folder / "data")
        detail = {"engine": self.engine().version, "host": record.host, "port": str(record.port), "wanted": record.wanted}
        version = self.engine().version.split()[1]
        if running is None:
            return Inspection(running=False, version=version, size=size, detail=detail)
        metrics: dict[str, float] = {}
        try:
            with self.admin(place, timeout=LOOK_TIMEOUT) as client:
                metrics = figures(client.info("everything"))
        except (redis.TimeoutError, TimeoutError):
            detail["problem"] = SILENT
        except (redis.RedisError, OSError) as error:
            detail["problem"] = str(error)
        return Inspection(
            running=True,
            version=version,
            pid=running.pid,
            size=size,
            memory=proportional_memory(server.holders()),
            connections=int(metrics.get("connections", 0)),
            metrics=metrics,
            detail=detail,
        )

    # -- copies ----------------------------------------------------------------------------------------------------

    def back_up(self, id: AddOnId, target: Path) -> BackupRef:
        """A snapshot of now in a new folder of `target`. Raises AddOnMissing, BackupFailed."""
        place = self._place(id)
        record = place.get()
        with copies.copying(record, target) as (name, part), locked(place.folder / "server" / "snapshot.lock"):
            with self.admin(place) as client:
                snapshots.take(client, id.slug)
            with (place.folder / "data" / "dump.rdb").open("rb") as source:
                copies.copy_open(source, part / "dump.rdb")
            if not self._tuning(record).persistence:
                snapshots.set_aside(place.folder / "data")
            return copies.finish(record, name, part, (), {"engine": self.engine().version})

    def restore(self, backup: BackupRef, source: Path, into: AddOnId) -> Provisioned:
        """Users have no passwords until the new add-on is provisioned. Raises BackupDamaged, AddOnFailed."""
        with self._restoring(backup, source, into) as (place, fresh, known):
            data = place.make("data", fresh.user)
            self._at("copy")
            snapshots.put(source / "dump.rdb", data / "dump.rdb", fresh.user)
            record = fresh.model_copy(update={"data": "data", "version": known.version, "source": self.engine().source})
            self._write_users(place, record, {})
            self._configure(place, record)
            self._at("start")
            place.write(record)
            self._start(place, record)
            return self._provisioned(place, record, {})

    def upgrade(self, id: AddOnId, version: str) -> Provisioned:
        """Start it again with the program that is pinned now: each reads the files of those before it (valkey.io, upgrading)."""
        place = self._place(id)
        with locked(place.lock):
            record = place.get()
            have = self.engine().version.split()[1].split(".")[0]
            if version and version.split(".", maxsplit=1)[0] != have:
                raise AddOnFailed(
                    name=id.name, what=f"{id.name} was not upgraded and runs on.", why=f"This machine has {self.engine().version}.",
                    fix="Install the wanted version, or leave the version out.",
                )  # fmt: skip
            self._stop(place, record)
            record = place.write(record.model_copy(update={"version": have, "source": self.engine().source}))
            self._start(place, record)
            return self._provisioned(place, record, {})

    # -- for the common half ---------------------------------------------------------------------------------------

    def client(self, id: AddOnId) -> str:
        """The system's client, where it has one: none comes with the bundled server."""
        del id
        return find_client()

    def _start(self, place: Place, record: Record) -> None:
        super()._start(place, record)
        self._syncing.wake()

    def _command(self, place: Place, record: Record) -> Command:
        return Command(
            argv=(str(self.engine().program), "../valkey.conf"), cwd=place.folder / "data", user=record.user, group=self._group(place)
        )

    def _ready(self, place: Place, record: Record) -> bool:
        import redis

        del record
        if not (place.folder / "run" / config.SOCKET).exists():
            return False
        try:
            with self.admin(place) as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False


def _open(definition: AddOn) -> bool:
    """Whether nobody is asked for a password: the file names an image, and gives it none."""
    return isinstance(definition, Redis) and bool(definition.image) and definition.password is None


def credentials_of(record: Record, user: str, password: str) -> Credentials:
    url = f"redis://{quote(user, safe='')}:{quote(password, safe='')}@{record.host}:{record.port}/0"
    env = {"REDIS_URL": url, "REDIS_HOST": record.host, "REDIS_PORT": str(record.port), "REDIS_USERNAME": user, "REDIS_PASSWORD": password}
    return Credentials(user=user, password=password, host=record.host, port=record.port, database="0", url=url, env=env)


def figures(info: dict[str, Any]) -> dict[str, float]:
    """Metrics out of INFO."""
    hits, misses = float(info.get("keyspace_hits", 0)), float(info.get("keyspace_misses", 0))
    names = {
        "connections": "connected_clients",
        "connections_limit": "maxclients",
        "memory_bytes": "used_memory",
        "memory_limit_bytes": "maxmemory",
        "commands": "total_commands_processed",
        "evicted_keys": "evicted_keys",
        "expired_keys": "expired_keys",
        "uptime_seconds": "uptime_in_seconds",
    }
    keys = sum(int(value["keys"]) for name, value in info.items() if re.fullmatch(r"db\d+", name) and isinstance(value, dict))
    found = {name: float(info.get(field, 0)) for name, field in names.items()}
    found["connections"] = max(0.0, found["connections"] - 1)  # our own
    return {**found, "keys": float(keys), "cache_hit_ratio": hits / (hits + misses) if hits + misses else 1.0}


if TYPE_CHECKING:
    _: type[AddOnDriver] = ValkeyDriver
