"""The doors of PostgreSQL add-ons, with the real pgbouncer: the pool that services use, and the gate for allowed networks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from homeport.drivers.addons.base import AddOnId, AddOnRequest, Credentials, Provisioned
from homeport.drivers.addons.postgres import PostgresDriver, doors
from homeport.drivers.reach import forget, reachable
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import IpRule, Pooling, Postgres
from homeport.settings import Settings

ENGINES = Path(tempfile.gettempdir()) / f"homeport-test-engines-{os.getuid()}"
pytestmark = [
    pytest.mark.xdist_group("addon-postgres-doors"),
    pytest.mark.system,
    pytest.mark.skipif(doors.find() is None, reason=doors.MISSING),
]
PASSWORDS = {"": "o" * 32, "web": "w" * 32}


class Yard:
    """A home with one add-on, provisioned again and again."""

    def __init__(self, home: Path) -> None:
        ENGINES.mkdir(mode=0o755, exist_ok=True)
        self.home = home
        self.driver = PostgresDriver(home, Toolchains(ENGINES, network=Settings.from_environment().network, search=[]), system=[])
        self.id = AddOnId(project="shop", environment="test", name="pooled")

    def provision(self, **definition: object) -> Provisioned:
        wanted = Postgres(version="18", database="shop", **definition)
        return self.driver.provision(AddOnRequest(id=self.id, definition=wanted, consumers=("web",), passwords=PASSWORDS))

    def processes(self, door: str) -> list[int]:
        place = self.driver._place(self.id)
        return next(server for server in self.driver._servers(place, place.get()) if server.name.endswith(door)).holders()


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    home = reachable(tmp_path_factory.mktemp("doors") / "home")
    found = Yard(home)
    yield found
    found.driver.stop(found.id)
    found.driver.close()
    forget(home)


def connect(found: Credentials) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(found.url, autocommit=True, connect_timeout=10, prepare_threshold=None)


def until(condition: Callable[[], object], timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        threading.Event().wait(0.02)


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pool_holds_few_connections_for_many_clients(yard: Yard, mode: str) -> None:
    """Thirty clients share three connections, each works as the owner, and commands that change schemas go past the pool."""
    found = yard.provision(pooling={"mode": mode, "size": 3})
    web = found.credentials["web"]
    assert found.pool == f"{web.host}:{web.port}"
    assert web.direct is not None
    assert web.env["DATABASE_URL"] == web.url
    assert web.env["DATABASE_URL_UNPOOLED"] == web.env["DIRECT_URL"] == web.direct.url == web.direct.env["DATABASE_URL"]
    assert found.credentials[""].port == web.direct.port == found.port != web.port

    def work(number: int) -> None:
        with connect(web) as connection:
            seen.append((number, connection.execute("SELECT current_user, session_user FROM pg_sleep(0.01)").fetchone()))

    seen: list[tuple[int, object]] = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {who for _, who in seen} == {("shop", "web_a")}
    assert len(seen) == 30
    assert 1 <= yard.driver.inspect(yard.id).metrics["pool_connections"] <= 3


def test_a_password_is_needed_and_none_is_on_disk(yard: Yard) -> None:
    """A wrong password is refused by the pool itself; its files hold verifiers alone, for its own account alone."""
    found = yard.provision(pooling=True)
    wrong = found.credentials["web"].model_copy(update={"url": found.credentials["web"].url.replace("w" * 32, "x" * 32)})
    with pytest.raises(psycopg.OperationalError, match="SASL"):
        connect(wrong)
    files = found.folder / "pool" / "files"
    for file in files.iterdir():
        if file.is_file():
            assert "w" * 32 not in file.read_text()
            assert file.stat().st_mode & 0o777 == 0o600
    if os.geteuid() == 0:
        assert files.stat().st_uid not in (0, yard.driver.cluster(yard.id).record.user)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(host=found.host, port=found.credentials["web"].port, user=doors.KEEPER, dbname="pgbouncer", password="")


def test_passwords_rotate_with_overlap_through_the_pool(yard: Yard) -> None:
    """Old and new password both open the pool until the old one is retired; a second rotation brings the first login back."""
    old = yard.provision(pooling=True).credentials["web"]
    new = yard.driver.rotate(yard.id, "web")
    assert (new.port, new.direct is not None) == (old.port, True)
    for credentials in (old, new):
        with connect(credentials) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("shop",)
    yard.driver.retire_old(yard.id, "web")
    with pytest.raises(psycopg.OperationalError):
        connect(old)
    again = yard.driver.rotate(yard.id, "web")
    for credentials in (new, again):
        with connect(credentials) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    yard.driver.retire_old(yard.id, "web")
    with pytest.raises(psycopg.OperationalError):
        connect(new)


def test_pool_and_server_come_back_after_sigkill(yard: Yard) -> None:
    """Both are brought back by themselves; clients that wait at the pool while the server is away are served afterwards."""
    web = yard.provision(pooling=True).credentials["web"]
    with connect(web) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 1 AS n")
    for pid in yard.processes("pool"):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not yard.processes("pool"))
    until(lambda: yard.id in yard.driver.ensure())  # until the kernel has told of the end, it counts as running
    server = yard.driver.inspect(yard.id).pid
    with connect(web) as connection:
        connection.execute("SELECT 1")
        os.kill(server, signal.SIGKILL)
        place = yard.driver._place(yard.id)
        until(lambda: yard.driver._server(place).running() is None)
        back = threading.Thread(target=yard.driver.ensure)
        back.start()
        until(lambda: _answers(connection))
        back.join()
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)


def _answers(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    try:
        return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.Error:
        return False


def test_a_pool_that_is_not_asked_for_any_more_goes(yard: Yard) -> None:
    """Without `pooling` services connect directly again; the pool serves on until those that use it are gone, and then nothing is left."""
    pooled = yard.provision(pooling=True).credentials["web"]
    assert not yard.driver.close_pool(yard.id)
    found = yard.provision()
    assert (found.credentials["web"].direct, found.credentials["web"].port) == (None, found.port)
    with connect(pooled) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert yard.driver.close_pool(yard.id)
    assert (yard.provision().pool, (found.folder / "pool").exists()) == ("", False)


def test_the_plan_says_what_is_missing(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pgbouncer a pool is refused with the command that installs it; an allow-list is only noted."""
    monkeypatch.setattr(doors, "find", lambda: None)
    (problem,) = yard.driver.check(Postgres(pooling=Pooling(size=5)))
    assert "apt-get install pgbouncer" in problem
    allowed = Postgres(ip_allow_list=(IpRule(source="203.0.113.0/24"),))
    assert not yard.driver.check(allowed)
    assert any("apt-get install pgbouncer" in note for note in yard.driver.notes(allowed))


@contextmanager
def network(name: str, ours: str, theirs: str) -> Iterator[None]:
    """A network of this machine and one other, which is a namespace of the kernel's."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", f"{name}-a", "type", "veth", "peer", "name", f"{name}-b", "netns", name)
        ip("addr", "add", f"{ours}/24", "dev", f"{name}-a")
        ip("link", "set", f"{name}-a", "up")
        ip("-n", name, "addr", "add", f"{theirs}/24", "dev", f"{name}-b")
        ip("-n", name, "link", "set", f"{name}-b", "up")
        yield
    finally:
        ip("netns", "del", name)


@pytest.mark.root
def test_only_allowed_networks_get_in_and_only_with_tls(yard: Yard) -> None:
    """psql with `sslmode=require` gets in from an allowed address; another address, no TLS, and this machine itself are refused."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    found = yard.provision(ip_allow_list=(IpRule(source="10.203.1.2/32"),))
    assert found.gate
    psql = yard.driver.client(yard.id)

    def ask(space: str, host: str, mode: str = "require") -> subprocess.CompletedProcess[str]:
        url = f"postgresql://web_a@{host}:{found.gate}/shop?sslmode={mode}"
        argv = ["ip", "netns", "exec", space, psql, url, "-Atc", "SELECT current_user"]
        return subprocess.run(
            argv,
            env={"PATH": "/usr/sbin:/usr/bin:/bin", "PGPASSWORD": PASSWORDS["web"]},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    number = os.getpid() % 10_000
    try:
        with network(f"hp{number}a", "10.203.1.1", "10.203.1.2"), network(f"hp{number}b", "10.203.2.1", "10.203.2.2"):
            if "SSL" in (said := ask(f"hp{number}a", "10.203.1.1")).stderr and "not compiled" in said.stderr:
                psql = "/usr/bin/psql"
            assert ask(f"hp{number}a", "10.203.1.1").stdout.strip() == "shop"
            plain = ask(f"hp{number}a", "10.203.1.1", mode="disable")
            assert (plain.returncode, "SSL required" in plain.stderr) == (2, True)
            other = ask(f"hp{number}b", "10.203.2.1")
            assert (other.returncode, "rejected" in other.stderr or "no authentication" in other.stderr) == (2, True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine makes no network namespaces: {error.stderr}")
    port = found.gate
    assert yard.provision(ip_allow_list=(IpRule(source="10.0.0.0/8"),)).gate == port
    assert not yard.provision(ip_allow_list=()).gate
    assert not (found.folder / "gate").exists()


def test_a_gate_that_cannot_open_holds_nothing_up(yard: Yard) -> None:
    """When a stranger has the port, the database serves this machine, nobody is told of a restart, and the gate opens once it can."""
    found = yard.provision(ip_allow_list=(IpRule(source="10.0.0.0/8"),))
    yard.driver.stop(yard.id)
    with socket.create_server(("0.0.0.0", found.gate)):
        yard.driver.start(yard.id)
        with connect(found.credentials["web"]) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert yard.driver.ensure() == []
    until(lambda: yard.id in yard.driver.ensure())  # until the kernel has told of the end, it counts as running
    assert yard.processes("gate")
    yard.provision()
