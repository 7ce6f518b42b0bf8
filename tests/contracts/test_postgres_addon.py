"""What PostgreSQL add-ons promise beyond the contract: any point in time, replicas, major upgrades, and a fence that holds."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from homeport.drivers.addons.base import AddOnId, AddOnRequest, BackupRef, Provisioned
from homeport.drivers.addons.errors import AddOnInUse, UpgradeFailed
from homeport.drivers.addons.postgres import PostgresDriver, backups
from homeport.drivers.addons.postgres.backups import Target
from homeport.drivers.addons.servers import Command
from homeport.drivers.files import remove_tree
from homeport.drivers.reach import forget, reachable
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import Postgres
from homeport.settings import Settings

pytestmark = pytest.mark.xdist_group("addon-postgres-history")

ENGINES = Path(tempfile.gettempdir()) / f"homeport-test-engines-{os.getuid()}"


class Yard:
    """A home with PostgreSQL add-ons."""

    def __init__(self, home: Path) -> None:
        self.home = home
        ENGINES.mkdir(mode=0o755, exist_ok=True)
        self.toolchains = Toolchains(ENGINES, network=Settings.from_environment().network, search=[])
        self.driver = PostgresDriver(home, self.toolchains, system=[])
        self.made: list[AddOnId] = []

    def id(self, name: str) -> AddOnId:
        found = AddOnId(project="shop", environment="test", name=name)
        self.made.append(found)
        return found

    def provision(self, name: str, **definition: object) -> Provisioned:
        request = AddOnRequest(
            id=self.id(name),
            definition=Postgres(database="shop", **definition),
            passwords={"": "o" * 32, "web": "w" * 32},
            consumers=("web",),
        )
        return self.driver.provision(request)

    def close(self) -> None:
        for id in self.made:
            self.driver.stop(id)
        self.driver.close()


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    home = reachable(tmp_path_factory.mktemp("postgres") / "home")
    found = Yard(home)
    yield found
    found.close()
    forget(home)


def connect(provisioned: Provisioned, user: str = "web", port: int = 0) -> psycopg.Connection[tuple[object, ...]]:
    found = provisioned.credentials[user]
    return psycopg.connect(found.url, autocommit=True, port=port or found.port, connect_timeout=5)


def until(condition: Callable[[], object], timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        threading.Event().wait(0.02)


class History:
    """A base backup, the archive after it, and what was written when."""

    def __init__(self, yard: Yard, folder: Path) -> None:
        self.yard = yard
        self.live = yard.provision("history", version="18")
        cluster = yard.driver.cluster(self.live.id)
        self.base: BackupRef = yard.driver.back_up(self.live.id, folder)
        self.written: list[tuple[int, datetime, str]] = []
        with connect(self.live) as connection:
            connection.execute("CREATE TABLE kept (n int PRIMARY KEY, data bytea)")
            connection.execute("ALTER TABLE kept ALTER data SET STORAGE EXTERNAL")
            for number in range(400):
                with connection.transaction():
                    row = connection.execute(
                        "INSERT INTO kept VALUES (%s, %s) RETURNING pg_current_xact_id()", [number, os.urandom(60_000)]
                    )
                    (xid,) = row.fetchone() or ("",)
                at = connection.execute("SELECT clock_timestamp()").fetchone()
                assert at is not None and isinstance(at[0], datetime)
                self.written.append((number, at[0], str(xid)))
        with cluster.admin() as admin:
            (last,) = admin.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone() or ("",)
        until(lambda: (cluster.archive / str(last)).exists())
        self.wal = folder / "wal"
        shutil.copytree(cluster.archive, self.wal, ignore=shutil.ignore_patterns(".*"))  # what is just being archived has a dot

    @property
    def folder(self) -> Path:
        return Path(self.base.folder)

    def recover(self, name: str, target: Target, wal: Path | None = None) -> tuple[backups.Recovery, int]:
        """How it ended, and how many rows there are then; the new add-on is gone afterwards."""
        into = self.yard.id(name)
        found = self.yard.driver.recover(self.base, self.folder, wal or self.wal, target, into)
        if found.state != "recovered":
            assert not (self.yard.home / "addons" / into.slug).exists()
            return found, 0
        try:
            with self.yard.driver.cluster(into).admin("shop") as admin:
                row = admin.execute("SELECT count(*), coalesce(max(n), -1) + 1 FROM kept").fetchone()
                assert row is not None and row[0] == row[1]
                return found, int(row[0])
        finally:
            self.yard.driver.purge(self.yard.driver.destroy(into))


@pytest.fixture(scope="module")
def history(yard: Yard, tmp_path_factory: pytest.TempPathFactory) -> History:
    return History(yard, tmp_path_factory.mktemp("history"))


@pytest.mark.parametrize("count", [4, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_any_point_in_time_is_exact_to_the_transaction(history: History, count: int) -> None:
    """The transaction before the target is there, the one after it is not."""
    seed = 20261120
    for place in random.Random(seed).sample(range(1, 400), count):
        number, at, _ = history.written[place]
        found, rows = history.recover("moment", Target(time=at))
        assert (found.state, rows) == ("recovered", number + 1), f"seed {seed}, target {at}"


def test_a_transaction_can_be_the_target(history: History) -> None:
    """Recovery by transaction number keeps that transaction as the last."""
    number, _, xid = history.written[123]
    assert history.recover("xid", Target(xid=xid))[1] == number + 1
    assert history.recover("end", Target())[1] == 400


def test_a_target_past_the_archive_is_an_answer(history: History) -> None:
    """It says how far the archive reaches; what runs goes on."""
    found, _ = history.recover("later", Target(time=datetime.now(UTC) + timedelta(hours=1)))
    assert found.state == "past-archive"
    assert found.latest is not None
    assert found.latest <= history.written[-1][1]
    with connect(history.live) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (400,)


def test_damage_in_the_archive_is_found_before_anything_is_made(history: History, tmp_path: Path) -> None:
    """One flipped bit in a segment, a missing one, and an empty archive are each told apart."""
    wal = tmp_path / "wal"
    shutil.copytree(history.wal, wal)
    segments = sorted(file for file in wal.iterdir() if backups.SEGMENT.fullmatch(file.name))
    data = bytearray(segments[-2].read_bytes())
    data[len(data) // 2] ^= 1
    segments[-2].write_bytes(data)
    assert history.recover("flipped", Target(), wal)[0].state == "wal-damaged"
    segments[-2].unlink()
    found, _ = history.recover("gap", Target(), wal)
    assert (found.state, segments[-2].name in found.why) == ("wal-missing", True)
    for file in segments:
        file.unlink(missing_ok=True)
    assert history.recover("empty", Target(), wal)[0].state == "wal-missing"


def test_an_archived_segment_is_never_overwritten(history: History, tmp_path: Path) -> None:
    """The archive program accepts the same content twice and refuses other content under the same name."""
    script = history.live.folder / "archive.sh"
    source, target = tmp_path / "segment", tmp_path / "archive"
    target.mkdir()

    def archive() -> int:
        return subprocess.run(["/bin/sh", script, source, "000000010000000000000001", target], check=False, capture_output=True).returncode

    source.write_bytes(b"one")
    assert archive() == archive() == 0
    source.write_bytes(b"two")
    assert archive() != 0
    assert [(file.name, file.read_bytes()) for file in target.iterdir()] == [("000000010000000000000001", b"one")]


def test_replicas_follow_and_are_made_anew(yard: Yard) -> None:
    """A read replica has the primary's rows, refuses writes, and comes back when it is killed or its data is lost."""
    provisioned = yard.provision("followed", version="18", replicas=1)
    port = int(provisioned.replicas[0].split(":")[1])
    with connect(provisioned) as connection:
        connection.execute("CREATE TABLE followed AS SELECT generate_series(1, 100) AS n")
    until(lambda: rows(provisioned, port) == 100)
    with connect(provisioned, port=port) as replica, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        replica.execute("INSERT INTO followed VALUES (0)")
    place = yard.driver._place(provisioned.id)
    (_, server) = yard.driver._servers(place, place.get())
    running = server.running()
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    until(lambda: server.running() is None)
    remove_tree(place.folder / "replicas" / "0" / "data")
    assert provisioned.id in yard.driver.ensure()
    until(lambda: rows(provisioned, port) == 100)
    assert not yard.provision("followed", version="18", replicas=0).replicas
    yard.driver.destroy(provisioned.id)


def rows(provisioned: Provisioned, port: int) -> int:
    with connect(provisioned, port=port) as connection:
        try:
            row = connection.execute("SELECT count(*) FROM followed").fetchone()
        except psycopg.errors.UndefinedTable:
            return 0
    return int(str(row[0])) if row else 0


def test_a_major_upgrade_keeps_data_and_passwords(yard: Yard) -> None:
    """From 16 to 18 with vectors; a failure on the way ends with 16 running and everything in it."""
    old = yard.provision("upgraded", version="16")
    with connect(old) as connection:
        connection.execute("CREATE TABLE documents (n int, embedding vector(3))")
        connection.execute("INSERT INTO documents SELECT n, ARRAY[1, 2, n]::vector FROM generate_series(1, 500) n")
        connection.execute("CREATE INDEX ON documents USING hnsw (embedding vector_l2_ops)")

    def refuse(point: str) -> None:
        if point == "record":
            raise OSError("the disk said no")

    with pytest.raises(UpgradeFailed, match="runs again"):
        PostgresDriver(yard.home, yard.toolchains, system=[], at=refuse).upgrade(old.id, "18")
    assert yard.driver.inspect(old.id).version.startswith("16")
    nearest = "SELECT n FROM documents ORDER BY embedding <-> '[1,2,7]' LIMIT 1"
    with connect(old) as connection:
        assert connection.execute(nearest).fetchone() == (7,)
    assert "18.4" in yard.driver.upgrade(old.id, "18").engine
    new = yard.provision("upgraded", version="18")
    assert new.credentials == old.credentials
    with connect(new) as connection:
        assert connection.execute(nearest).fetchone() == (7,)
    yard.driver.destroy(old.id)


def test_killing_the_control_plane_while_the_cluster_is_made(yard: Yard) -> None:
    """What initdb left half done, and initdb itself, are swept away by the next provisioning."""
    id = yard.id("halfmade")
    script = (
        "import sys; from pathlib import Path; from homeport.drivers.addons.base import *; from homeport.model.addon import Postgres;"
        "from homeport.drivers.addons.postgres import PostgresDriver; from homeport.drivers.toolchains.toolchains import Toolchains;"
        "PostgresDriver(Path(sys.argv[1]), Toolchains(Path(sys.argv[2]), search=[]), system=[]).provision("
        "AddOnRequest(id=AddOnId.model_validate_json(sys.argv[3]), definition=Postgres(version='18')))"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(yard.home), str(ENGINES), id.model_dump_json()])
    part = yard.home / "addons" / id.slug / "data-18.part"
    until(lambda: (part / "base").exists())
    child.kill()
    child.wait()
    found = yard.provision("halfmade", version="18")
    with connect(found) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    yard.driver.destroy(id)


def test_no_tool_touches_data_while_the_server_runs(yard: Yard, history: History) -> None:
    """Tools that need the data for themselves are refused."""
    cluster = yard.driver.cluster(history.live.id)
    with pytest.raises(AddOnInUse):
        cluster.server.run(Command(argv=("/bin/true",), cwd=Path("/")), 5)


def test_settings_change_without_losing_the_address(yard: Yard) -> None:
    """A larger plan restarts the server with more memory, on the same address; a setting that needs no restart gives none."""
    first = yard.provision("settings", version="16")
    pid = yard.driver.inspect(first.id).pid
    second = yard.provision("settings", version="16", parameters={"work_mem": "7MB"})
    assert yard.driver.inspect(first.id).pid == pid
    with connect(second) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)
    third = yard.provision("settings", version="16", memory=512 << 20)
    assert (third.host, third.port) == (first.host, first.port)
    with connect(third) as connection:
        assert connection.execute("SHOW shared_buffers").fetchone() == ("64MB",)
    yard.driver.destroy(first.id)


def test_migrations_may_make_roles_and_databases(yard: Yard) -> None:
    """The owner makes tables with row-level security, roles and databases, and cannot leave its cluster."""
    found = yard.provision("migrated", version="16")
    with connect(found) as connection:
        for statement in (
            "CREATE EXTENSION IF NOT EXISTS vector",
            "CREATE ROLE reader NOLOGIN",
            "CREATE TABLE notes (id serial PRIMARY KEY, owner text)",
            "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY mine ON notes USING (owner = current_user)",
            "GRANT SELECT ON notes TO reader",
            "CREATE DATABASE scratch",
        ):
            connection.execute(statement.encode())
        for statement in ("COPY notes FROM PROGRAM 'id'", "SELECT pg_read_file('/etc/passwd')", "ALTER SYSTEM SET fsync = off"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
    yard.driver.destroy(found.id)


@pytest.mark.system
def test_the_systems_engine_serves_what_the_bundled_lacks(yard: Yard) -> None:
    """An extension of contrib leads to the system's PostgreSQL, which passes the same steps."""
    driver = PostgresDriver(yard.home, yard.toolchains)
    wanted = Postgres(database="shop", extensions_wanted=("pg_trgm",))
    choice = driver.engines.choose(wanted)
    if choice.engine is None:
        driver.close()
        pytest.skip("the system has no PostgreSQL with pg_trgm")
    id = yard.id("system")
    found = driver.provision(AddOnRequest(id=id, definition=wanted, passwords={"": "o" * 32, "web": "w" * 32}, consumers=("web",)))
    assert "system" in found.engine
    with connect(found) as connection:
        assert connection.execute("SELECT similarity('word', 'words') > 0.5").fetchone() == (True,)
    driver.destroy(id)
    driver.close()
