"""What every add-on driver promises, held against the real engines: PostgreSQL 16 and 18, Valkey, MariaDB, Temporal."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import psycopg
import pymysql
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from homeport.drivers.addons.base import AddOnId, AddOnRequest, BackupRef, Credentials
from homeport.drivers.addons.errors import AddOnFailed, AddOnMissing, BackupDamaged, BackupFailed
from homeport.drivers.addons.keeping import ServerDriver
from homeport.drivers.addons.mariadb import MariaDBDriver
from homeport.drivers.addons.mariadb import engine as mariadb_engine
from homeport.drivers.addons.postgres import PostgresDriver
from homeport.drivers.addons.servers import Server
from homeport.drivers.addons.temporal import TemporalDriver
from homeport.drivers.addons.temporal.driver import HTTP_PORT
from homeport.drivers.addons.valkey import ValkeyDriver
from homeport.drivers.reach import forget, reachable
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import AddOn, MariaDB, Postgres, Redis, Temporal
from homeport.settings import Settings

ENGINES = Path(tempfile.gettempdir()) / f"homeport-test-engines-{os.getuid()}"
"""Engines are installed once for all runs of the tests."""
PASSWORDS = {"": "owner's pass:word/1", "web": "w" * 32, "worker": "k" * 32}
SOON = 30.0
BUSY_DISK = 120.0
"""Seconds that a few writes may take while others keep the disk busy."""


class Subject(Protocol):
    """One engine under test."""

    name: str
    definition: AddOn

    def driver(self, home: Path, at: Callable[[str], None] | None = None) -> ServerDriver: ...

    def write(self, credentials: Credentials, key: str, value: str) -> None: ...

    def read(self, credentials: Credentials, key: str) -> str | None: ...

    def connect(self, credentials: Credentials) -> None:
        """Raises when it is not let in."""

    def fill(self, credentials: Credentials, size: int) -> None:
        """Store so many bytes that no compression makes smaller."""

    def writer(self, credentials: Credentials, start: int) -> Iterator[int]:
        """Writes numbers from `start`, one at a time, and tells each once it is acknowledged."""

    def numbers(self, credentials: Credentials) -> set[int]:
        """The numbers that are there."""


class PostgresSubject:
    refusals: tuple[type[Exception], ...] = (psycopg.OperationalError,)

    def __init__(self, version: str) -> None:
        self.name = f"postgres{version}"
        self.definition = Postgres(version=version, database="shop", user="postgres", extensions_wanted=("vector",))

    def driver(self, home: Path, at: Callable[[str], None] | None = None) -> ServerDriver:
        return PostgresDriver(home, toolchains(), system=[], at=at)

    def _ask(self, credentials: Credentials, query: str, *values: object) -> list[Any]:
        with psycopg.connect(credentials.url, connect_timeout=30) as connection:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def write(self, credentials: Credentials, key: str, value: str) -> None:
        self._ask(credentials, "CREATE TABLE IF NOT EXISTS kept (key text PRIMARY KEY, value text)")
        self._ask(credentials, "INSERT INTO kept VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)

    def read(self, credentials: Credentials, key: str) -> str | None:
        rows = self._ask(credentials, "SELECT value FROM kept WHERE key = %s", key)
        return str(rows[0][0]) if rows else None

    def connect(self, credentials: Credentials) -> None:
        self._ask(credentials, "SELECT 1")

    def fill(self, credentials: Credentials, size: int) -> None:
        self._ask(credentials, "CREATE TABLE filling (data bytea)")
        self._ask(credentials, "INSERT INTO filling VALUES (%s)", os.urandom(size))

    def writer(self, credentials: Credentials, start: int) -> Iterator[int]:
        with psycopg.connect(credentials.url, autocommit=True, connect_timeout=30) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS numbers (n bigint PRIMARY KEY)")
            for number in range(start, 1 << 40):
                connection.execute("INSERT INTO numbers VALUES (%s) ON CONFLICT DO NOTHING", [number])
                yield number

    def numbers(self, credentials: Credentials) -> set[int]:
        return {int(row[0]) for row in self._ask(credentials, "SELECT n FROM numbers")}


def client_of(credentials: Credentials) -> redis.Redis:
    """A client that says at once what it meets."""
    return redis.Redis.from_url(credentials.url, retry=Retry(NoBackoff(), 0))


class ValkeySubject:
    refusals: tuple[type[Exception], ...] = (redis.exceptions.RedisError,)

    def __init__(self) -> None:
        self.name = "valkey"
        self.definition: AddOn = Redis(eviction="allkeys-lru")

    def driver(self, home: Path, at: Callable[[str], None] | None = None) -> ServerDriver:
        return ValkeyDriver(home, toolchains(), at=at)

    def write(self, credentials: Credentials, key: str, value: str) -> None:
        with client_of(credentials) as client:
            client.set(key, value)

    def read(self, credentials: Credentials, key: str) -> str | None:
        with client_of(credentials) as client:
            found = client.get(key)
        return None if found is None else bytes(found).decode()

    def connect(self, credentials: Credentials) -> None:
        with client_of(credentials) as client:
            client.ping()

    def fill(self, credentials: Credentials, size: int) -> None:
        with client_of(credentials) as client:
            client.set("filling", os.urandom(size))

    def writer(self, credentials: Credentials, start: int) -> Iterator[int]:
        with client_of(credentials) as client:
            for number in range(start, 1 << 40):
                client.sadd("numbers", number)
                yield number

    def numbers(self, credentials: Credentials) -> set[int]:
        with client_of(credentials) as client:
            return {int(word) for word in client.smembers("numbers")}


class MariaDBSubject:
    refusals: tuple[type[Exception], ...] = (pymysql.err.Error,)
    most_memory = 96 << 20
    kills = 6

    def __init__(self) -> None:
        if mariadb_engine.find() is None:
            pytest.skip(mariadb_engine.MISSING)
        self.name = "mariadb"
        self.definition: AddOn = MariaDB(database="shop")

    def driver(self, home: Path, at: Callable[[str], None] | None = None) -> ServerDriver:
        return MariaDBDriver(home, at=at)

    def _open(self, credentials: Credentials) -> Any:
        return contextlib.closing(
            pymysql.connect(
                host=credentials.host, port=credentials.port, user=credentials.user, password=credentials.password, autocommit=True,
                database=credentials.database, connect_timeout=30, read_timeout=10,
            )
        )  # fmt: skip

    def _ask(self, credentials: Credentials, query: str, *values: object) -> list[Any]:
        with self._open(credentials) as connection, connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return list(cursor.fetchall())

    def write(self, credentials: Credentials, key: str, value: str) -> None:
        self._ask(credentials, "CREATE TABLE IF NOT EXISTS kept (name varchar(100) PRIMARY KEY, value text)")
        self._ask(credentials, "REPLACE INTO kept VALUES (%s, %s)", key, value)

    def read(self, credentials: Credentials, key: str) -> str | None:
        rows = self._ask(credentials, "SELECT value FROM kept WHERE name = %s", key)
        return str(rows[0][0]) if rows else None

    def connect(self, credentials: Credentials) -> None:
        self._ask(credentials, "SELECT 1")

    def fill(self, credentials: Credentials, size: int) -> None:
        self._ask(credentials, "CREATE TABLE filling (data longblob)")
        self._ask(credentials, "INSERT INTO filling VALUES (_binary %s)", os.urandom(size))

    def writer(self, credentials: Credentials, start: int) -> Iterator[int]:
        with self._open(credentials) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS numbers (n bigint PRIMARY KEY)")
            for number in range(start, 1 << 40):
                cursor.execute("REPLACE INTO numbers VALUES (%s)", [number])
                yield number

    def numbers(self, credentials: Credentials) -> set[int]:
        return {int(row[0]) for row in self._ask(credentials, "SELECT n FROM numbers")}


class TemporalSubject:
    """What is stored are descriptions of namespaces. The server knows no passwords, so nobody is refused."""

    refusals: tuple[type[Exception], ...] = (OSError, http.client.HTTPException)
    most_memory = 400 << 20
    kills = 2
    between = 3
    """Each namespace takes several syncs: half a second while the disk is busy."""
    guarded = False

    def __init__(self) -> None:
        self.name = "temporal"
        self.definition: AddOn = Temporal(namespace="shop")

    def driver(self, home: Path, at: Callable[[str], None] | None = None) -> ServerDriver:
        self.made = TemporalDriver(home, toolchains(), at=at)
        return self.made

    def _ask(self, credentials: Credentials, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        with contextlib.closing(http.client.HTTPConnection(credentials.host, HTTP_PORT, timeout=10)) as connection:
            connection.request(
                method, f"/api/v1/namespaces{path}", json.dumps(body) if body else None, {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def write(self, credentials: Credentials, key: str, value: str) -> None:
        made = {"namespace": key, "description": value, "workflowExecutionRetentionPeriod": "86400s"}
        if self._ask(credentials, "POST", "", made)[0] == 409:
            assert self._ask(credentials, "POST", f"/{key}/update", {"updateInfo": {"description": value}})[0] == 200

    def read(self, credentials: Credentials, key: str) -> str | None:
        status, found = self._ask(credentials, "GET", f"/{key}")
        return str(found["namespaceInfo"]["description"]) if status == 200 else None

    def connect(self, credentials: Credentials) -> None:
        self._ask(credentials, "GET", "/shop")

    def fill(self, credentials: Credentials, size: int) -> None:
        pytest.skip("what a namespace holds is too small to fill a disk")

    def writer(self, credentials: Credentials, start: int) -> Iterator[int]:
        for number in range(start, 1 << 40):
            body = {"namespace": f"n-{number}", "workflowExecutionRetentionPeriod": "86400s"}
            if self._ask(credentials, "POST", "", body)[0] not in (200, 409):
                return
            yield number

    def numbers(self, credentials: Credentials) -> set[int]:
        names: list[str] = []
        token = ""
        while True:
            page = self._ask(credentials, "GET", f"?pageSize=1000&nextPageToken={quote(token, safe='')}")[1]
            names += [str(one["namespaceInfo"]["name"]) for one in page["namespaces"]]
            token = page.get("nextPageToken") or ""
            if not token:
                break
        return {int(name[2:]) for name in names if name.startswith("n-")}


SUBJECTS: dict[str, Callable[[], Any]] = {
    "postgres16": lambda: PostgresSubject("16"),
    "postgres18": lambda: PostgresSubject("18"),
    "valkey": ValkeySubject,
    "mariadb": MariaDBSubject,
    "temporal": TemporalSubject,
}


def toolchains() -> Toolchains:
    ENGINES.mkdir(mode=0o755, exist_ok=True)
    return Toolchains(ENGINES, network=Settings.from_environment().network, search=[])


class Bench:
    """A home with one engine's driver, and one add-on that every test may use but none may change for good."""

    def __init__(self, subject: Any, home: Path) -> None:
        self.subject, self.home = subject, home
        self.drivers: list[ServerDriver] = []
        self.driver = self.again()
        self._shared = self.request("shared")
        self.shared = self.driver.provision(self._shared)

    def again(self, at: Callable[[str], None] | None = None) -> Any:
        """A new driver over the same home, as after a restart of the control plane."""
        driver = self.subject.driver(self.home, at)
        self.drivers.append(driver)
        return driver

    def request(self, name: str, **changes: Any) -> AddOnRequest:
        id = AddOnId(project="shop", environment="production", name=name)
        return AddOnRequest(id=id, definition=self.subject.definition, consumers=("web", "worker"), passwords=PASSWORDS).model_copy(
            update=changes
        )

    def server(self, id: AddOnId) -> Server:
        server: Server = self.driver._server(self.driver._place(id))
        return server

    def kill(self, id: AddOnId) -> int:
        """SIGKILL to the main process; its pid."""
        pid = int(until(lambda: self.driver.inspect(id).pid))
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_and_revive(self, id: AddOnId) -> float:
        """Seconds from SIGKILL until it runs again."""
        pid = self.kill(id)
        began = time.monotonic()
        until(lambda: self.driver.ensure() or self.driver.inspect(id).pid not in (0, pid))
        return time.monotonic() - began

    def close(self) -> None:
        for folder in (self.home / "addons").iterdir():
            name = folder.name.removeprefix("shop-production-")
            if (folder / "addon.json").exists():
                self.driver.stop(AddOnId(project="shop", environment="production", name=name))
        for driver in self.drivers:
            driver.close()


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(f"addon-{name}")) for name in SUBJECTS])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    home = reachable(tmp_path_factory.mktemp(request.param) / "home")
    found = Bench(SUBJECTS[request.param](), home)
    yield found
    found.close()
    forget(home)


@pytest.fixture
def guarded(bench: Bench) -> Bench:
    """An engine that knows passwords."""
    if not getattr(bench.subject, "guarded", True):
        pytest.skip("it knows no passwords")
    return bench


def until(condition: Callable[[], Any], timeout: float = SOON) -> Any:
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        threading.Event().wait(0.01)
    return result


def test_provisioning_twice_changes_nothing(bench: Bench) -> None:
    """The second time gives the same address, process and credentials."""
    pid = bench.driver.inspect(bench.shared.id).pid
    assert bench.driver.provision(bench._shared) == bench.shared
    assert bench.driver.inspect(bench.shared.id).pid == pid
    assert not bench.driver.check(bench.subject.definition)


def test_services_share_what_they_store(guarded: Bench) -> None:
    """What one service writes, the owner and the other services can read and change."""
    bench = guarded
    web, worker, owner = (bench.shared.credentials[name] for name in ("web", "worker", ""))
    bench.subject.write(web, "shared", "from web")
    assert bench.subject.read(worker, "shared") == "from web"
    bench.subject.write(worker, "shared", "from worker")
    assert bench.subject.read(owner, "shared") == "from worker"
    assert len({web.user, worker.user, owner.user}) == 3


def test_a_new_service_gets_in_without_a_restart(bench: Bench) -> None:
    """Adding a consumer leaves the process and the others' connections alone."""
    pid = bench.driver.inspect(bench.shared.id).pid
    wider = bench._shared.model_copy(update={"consumers": ("web", "worker", "default"), "passwords": {**PASSWORDS, "default": "c" * 32}})
    bench.subject.connect(bench.driver.provision(wider).credentials["default"])
    bench.subject.connect(bench.shared.credentials["web"])
    assert bench.driver.inspect(bench.shared.id).pid == pid


def test_strangers_are_refused(guarded: Bench) -> None:
    """A wrong password, no password and another service's password do not open it."""
    bench = guarded
    web = bench.shared.credentials["web"]
    for password in ("wrong", "", PASSWORDS["worker"]):
        url = web.url.replace(PASSWORDS["web"], password)
        with pytest.raises(bench.subject.refusals):
            bench.subject.connect(web.model_copy(update={"password": password, "url": url}))


def test_another_projects_credentials_are_refused(guarded: Bench) -> None:
    """Each add-on knows its own users only."""
    bench = guarded
    id = AddOnId(project="shop", environment="production", name="neighbour")
    other = bench.driver.provision(bench.request("neighbour", id=id, passwords={"": "n" * 32, "web": "m" * 32}, consumers=("web",)))
    assert (other.host, other.port) != (bench.shared.host, bench.shared.port)
    mine = bench.shared.credentials["web"]
    swapped = mine.url.replace(f"{mine.host}:{mine.port}", f"{other.host}:{other.port}")
    with pytest.raises(bench.subject.refusals):
        bench.subject.connect(mine.model_copy(update={"host": other.host, "port": other.port, "url": swapped}))
    bench.driver.destroy(id)


def test_no_password_is_written_down(bench: Bench) -> None:
    """Neither files nor argument lists hold a password in the clear."""
    folder = bench.shared.folder
    found = [
        file for file in folder.rglob("*") if file.is_file() and any(word.encode() in file.read_bytes() for word in PASSWORDS.values())
    ]
    assert found == []
    for pid in bench.server(bench.shared.id).holders():
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert not any(word.encode() in line for word in PASSWORDS.values())


def test_the_engine_has_an_account_of_its_own(bench: Bench) -> None:
    """Where Homeport is root the engine is not, and nobody but the two can read its files."""
    pids = bench.server(bench.shared.id).holders()
    owners = {Path(f"/proc/{pid}").stat().st_uid for pid in pids}
    assert len(owners) == 1
    if os.geteuid() == 0:
        assert owners != {0}
    data = [folder for folder in bench.shared.folder.iterdir() if folder.name.startswith("data")]
    assert [oct(folder.stat().st_mode & 0o077) for folder in data] == [oct(0)] * len(data)


def test_a_new_control_plane_finds_it_running(bench: Bench) -> None:
    """Another driver over the same home sees the same process, and does not start a second one."""
    pid = bench.driver.inspect(bench.shared.id).pid
    other = bench.again()
    other.start(bench.shared.id)
    assert not other.ensure()
    assert other.inspect(bench.shared.id).pid == pid


def test_inspection_tells_figures(bench: Bench) -> None:
    """Size, memory, version, connections and hit ratio are told of a running add-on."""
    seen = bench.driver.inspect(bench.shared.id)
    assert seen.running and seen.version and seen.size > 0
    assert 1 << 20 < seen.memory < getattr(bench.subject, "most_memory", 64 << 20)
    assert 0 <= seen.metrics["cache_hit_ratio" if bench.subject.name != "temporal" else "workflows"] <= 1
    assert seen.connections >= 0


def test_it_comes_back_with_its_data_after_kill(bench: Bench) -> None:
    """After SIGKILL the listener hears of it, `ensure` starts it again, and what was acknowledged is there."""
    ended: list[AddOnId] = []
    driver = bench.again()
    driver.inspect(bench.shared.id)
    driver.on_exit(ended.append)
    bench.subject.write(bench.shared.credentials["web"], "before", "the kill")
    bench.kill_and_revive(bench.shared.id)
    until(lambda: bench.shared.id in ended)
    assert bench.subject.read(bench.shared.credentials["web"], "before") == "the kill"


def test_two_servers_never_have_one_data_folder(bench: Bench) -> None:
    """Many drivers that start it at once after a kill end up with one process."""
    bench.kill(bench.shared.id)
    drivers = [bench.again() for _ in range(4)]
    threads = [threading.Thread(target=driver.start, args=(bench.shared.id,)) for driver in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert len({driver.inspect(bench.shared.id).pid for driver in drivers}) == 1
    bench.subject.connect(bench.shared.credentials["web"])


def test_what_a_dead_server_left_is_ended_before_the_next_starts(bench: Bench) -> None:
    """A process that still holds the data folder's lock, whoever started it, is gone before the new server runs."""
    server = bench.server(bench.shared.id)
    bench.kill(bench.shared.id)
    with (server.folder / "lock").open("rb") as lock:
        until(partial(taken, lock.fileno()))
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdin=lock)
    assert left.pid in server.holders()
    until(bench.driver.ensure)
    assert left.wait(SOON) == -signal.SIGKILL
    bench.subject.connect(bench.shared.credentials["web"])


def taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_stopped_stays_stopped_and_starts_with_its_data(bench: Bench) -> None:
    """`ensure` leaves a stopped add-on alone; a start brings the data back; stopping twice is once."""
    credentials = bench.shared.credentials["web"]
    bench.subject.write(credentials, "stopped", "kept")
    bench.driver.stop(bench.shared.id)
    bench.driver.stop(bench.shared.id)
    assert not bench.driver.ensure()
    assert not bench.driver.inspect(bench.shared.id).running
    bench.driver.start(bench.shared.id)
    bench.driver.start(bench.shared.id)
    assert bench.subject.read(credentials, "stopped") == "kept"
    assert bench.driver.logs(bench.shared.id, 10)


def test_passwords_rotate_with_overlap(guarded: Bench) -> None:
    """Old and new passwords work until the old one is retired; the data is the same."""
    bench = guarded
    old = bench.shared.credentials["worker"]
    bench.subject.write(old, "rotated", "seen")
    new = bench.driver.rotate(bench.shared.id, "worker")
    bench.subject.connect(old)
    assert bench.subject.read(new, "rotated") == "seen"
    again = bench.driver.provision(bench._shared.model_copy(update={"passwords": {**PASSWORDS, "worker": new.password}}))
    assert again.credentials["worker"] == new
    bench.driver.retire_old(bench.shared.id, "worker")
    bench.driver.retire_old(bench.shared.id, "worker")
    with pytest.raises(bench.subject.refusals):
        bench.subject.connect(old)
    bench.subject.connect(new)
    bench.driver.provision(bench._shared)
    bench.subject.connect(bench.driver.provision(bench._shared).credentials["worker"])


def test_a_rotation_nobody_kept_leaves_the_old_password_in_use(guarded: Bench) -> None:
    """When the caller died before it kept the new password, provisioning with the old one works as before."""
    bench = guarded
    bench.driver.rotate(bench.shared.id, "web")
    again = bench.driver.provision(bench._shared)
    assert again.credentials["web"] == bench.shared.credentials["web"]
    bench.subject.connect(again.credentials["web"])


def test_a_backup_becomes_a_new_add_on(bench: Bench, tmp_path: Path) -> None:
    """The copy has what was there at its time; the original runs on and is not the copy."""
    credentials = bench.shared.credentials["web"]
    bench.subject.write(credentials, "copied", "yes")
    backup: BackupRef = bench.driver.back_up(bench.shared.id, tmp_path)
    bench.subject.write(credentials, "copied", "changed later")
    into = AddOnId(project="shop", environment="production", name="restored")
    restored = bench.driver.restore(backup, Path(backup.folder), into)
    assert (restored.host, restored.port) != (bench.shared.host, bench.shared.port)
    there = bench.driver.provision(bench.request("restored", passwords={"": "r" * 32, "web": "s" * 32})).credentials["web"]
    assert bench.subject.read(there, "copied") == "yes"
    assert bench.subject.read(credentials, "copied") == "changed later"
    with pytest.raises(AddOnFailed):
        bench.driver.restore(backup, Path(backup.folder), into)
    assert backup.size > 0 and len(backup.digest) == 64
    bench.driver.destroy(into)


def test_a_damaged_backup_is_found_before_anything_is_made(bench: Bench, tmp_path: Path) -> None:
    """One flipped bit in the largest file, or a file that is missing, is an error that leaves nothing behind."""
    backup: BackupRef = bench.driver.back_up(bench.shared.id, tmp_path)
    largest = max(
        (file for file in Path(backup.folder).rglob("*") if file.is_file() and "pg_wal" not in file.parts), key=lambda f: f.stat().st_size
    )
    whole = largest.read_bytes()
    into = AddOnId(project="shop", environment="production", name="damaged")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    largest.write_bytes(flipped)
    with pytest.raises(BackupDamaged):
        bench.driver.restore(backup, Path(backup.folder), into)
    largest.unlink()
    with pytest.raises(BackupDamaged):
        bench.driver.restore(backup, Path(backup.folder), into)
    assert not (bench.home / "addons" / into.slug).exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_during_a_backup_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    """The error says that there is no room, the target is empty again, and the add-on runs on."""
    request = bench.request("full")
    full = bench.driver.provision(request)
    bench.subject.fill(full.credentials["web"], 6 << 20)
    target = tmp_path / "small"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "homeport-test", str(target)], check=True)
    try:
        with pytest.raises(BackupFailed, match="no room"):
            bench.driver.back_up(request.id, target)
        assert list(target.iterdir()) == []
    finally:
        subprocess.run(["umount", str(target)], check=True)
    bench.subject.connect(full.credentials["web"])
    bench.driver.destroy(request.id)


def test_destroying_can_be_undone(bench: Bench) -> None:
    """A destroyed add-on is in a tombstone, refuses connections, and comes back with its data and its passwords."""
    request = bench.request("buried")
    credentials = bench.driver.provision(request).credentials["web"]
    bench.subject.write(credentials, "buried", "alive")
    grave = bench.driver.destroy(request.id)
    assert bench.driver.destroy(request.id) == grave
    with pytest.raises(bench.subject.refusals):
        bench.subject.connect(credentials)
    with pytest.raises(AddOnMissing):
        bench.driver.inspect(request.id)
    bench.driver.undo_destroy(request.id, grave)
    assert bench.subject.read(credentials, "buried") == "alive"
    grave = bench.driver.destroy(request.id)
    bench.driver.purge(grave)
    assert not grave.exists()


def test_a_kill_at_every_step_of_provisioning_is_repaired_by_the_next(bench: Bench) -> None:
    """The control plane is killed before each step in turn; after the last the add-on is as if nothing had happened."""
    points: list[str] = []
    driver = bench.again(points.append)
    driver.provision(bench.request("rehearsal"))
    driver.destroy(bench.request("rehearsal").id)
    request = bench.request("crashed")
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__, bench.subject.name, str(bench.home), request.model_dump_json(), *points],
        env={**os.environ, "CRASHED": json.dumps(PASSWORDS)}, timeout=100, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == [f"{point}:{signal.SIGKILL:d}" for point in points], done.stderr
    found = bench.driver.provision(request)
    bench.subject.write(found.credentials["web"], "crashed", "no matter")
    assert bench.subject.read(found.credentials["worker"], "crashed") == "no matter"
    assert bench.driver.provision(request) == found
    bench.driver.destroy(request.id)


@pytest.mark.parametrize("rounds", [20, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1500)])])
def test_no_acknowledged_write_is_lost_under_kills(bench: Bench, rounds: int) -> None:
    """SIGKILL in the middle of writes, on a disk that others keep busy, again and again: everything that was acknowledged is there."""
    credentials = bench.shared.credentials["web"]
    rounds = rounds if rounds > 20 else getattr(bench.subject, "kills", rounds)
    acknowledged: list[int] = []
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            try:
                for piece in bench.subject.writer(credentials, number):
                    number = piece + 1
                    acknowledged.append(piece)
                    if stop.is_set():
                        return
            except (*bench.subject.refusals, ValueError):  # half an answer is none
                stop.wait(0.01)

    thread = threading.Thread(target=write)
    thread.start()
    down: list[float] = []
    others = subprocess.Popen([sys.executable, "-c", BUSY, str(bench.home / "busy")])
    try:
        for _ in range(rounds):
            until(partial(more_than, acknowledged, len(acknowledged) + getattr(bench.subject, "between", 20)), BUSY_DISK)
            down.append(bench.kill_and_revive(bench.shared.id))
    finally:
        others.kill()
        others.wait()
        stop.set()
        thread.join(SOON)
    kept = bench.subject.numbers(credentials)
    lost = sorted(set(acknowledged) - kept)
    print(json.dumps({"engine": bench.subject.name, "kills": rounds, "acknowledged": len(acknowledged), "lost": len(lost),
                      "down_seconds_max": round(max(down), 3), "down_seconds_mean": round(sum(down) / rounds, 3)}))  # fmt: skip
    assert lost == []


BUSY = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
while True:
    for _ in range(8):
        os.write(file, bytes(4 << 20))
    os.fsync(file)
    os.lseek(file, 0, os.SEEK_SET)
"""
"""Keeps the disk busy, so that a sync takes long: engines may delay what they have acknowledged meanwhile."""


def more_than(acknowledged: list[int], count: int) -> bool:
    return len(acknowledged) > count


def crash(name: str, home: str, request: str, *points: str) -> None:
    """In a process of its own: for each point a fork that provisions, and dies before that step. Prints how each ended."""
    passwords = json.loads(os.environ.pop("CRASHED"))
    wanted = AddOnRequest.model_validate_json(request).model_copy(update={"passwords": passwords})
    for point in points:
        child = os.fork()
        if child == 0:
            SUBJECTS[name]().driver(Path(home), partial(die_at, point)).provision(wanted)
            os._exit(0)
        print(f"{point}:{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) * -1}")


def die_at(point: str, reached: str) -> None:
    if reached == point:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    crash(*sys.argv[1:])


def test_one_that_hangs_is_told_of_soon(bench: Bench) -> None:
    """A server that runs and says nothing is named so; whoever looks does not wait for it."""
    if bench.subject.name.startswith("postgres"):
        pytest.skip("its main process does not answer queries itself, and connections time out after 10 s")
    pid = int(until(lambda: bench.driver.inspect(bench.shared.id).pid))
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in Path(f"/proc/{pid}/task").glob("*/stat")))
        began = time.monotonic()
        seen = bench.driver.inspect(bench.shared.id)
        assert seen.running and seen.detail["problem"] == "it does not answer"
        assert time.monotonic() - began < 12
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: "problem" not in bench.driver.inspect(bench.shared.id).detail)
