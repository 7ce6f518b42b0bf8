"""What visitors notice when the edge, an instance or the control plane dies, and how each comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench_apps import BenchApp
from homes import Home, home_in, until
from traffic import Tally, Traffic

pytestmark = pytest.mark.xdist_group("faults-deaths")

THREADS = 4


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with a running control plane."""
    with home_in(tmp_path_factory.mktemp("home") / "h") as home:
        home.serve()
        yield home


@pytest.fixture(scope="module")
def app(home: Home, tmp_path_factory: pytest.TempPathFactory) -> BenchApp:
    """The bench service, live."""
    app = BenchApp(tmp_path_factory.mktemp("apps") / "bench")
    home.up(app.folder)
    return app


@pytest.fixture(autouse=True)
def _steady(home: Home, app: BenchApp) -> None:
    """Each fault begins with everything well."""
    if not home.alive():
        home.serve()
    until(lambda: [i["state"] for i in home.instances(app.name) if i["role"] == "live"] == ["healthy"], "a quiet start", tell=home.log)
    home.serves(app.host, "/version", home.get(app.host, "/version").body)


def traffic(home: Home, app: BenchApp) -> Traffic:
    return Traffic(home.edge_port, app.host, threads=THREADS, rate=100, post="/body")


def told(record_property: Callable[[str, object], None], fault: str, tally: Tally, more: str = "") -> None:
    record_property("fault", fault)
    record_property("outcome", f"{tally.failed} of {tally.requests} requests failed{more}")


def live_pids(home: Home, app: BenchApp) -> list[int]:
    return [i["pid"] for i in home.instances(app.name) if i["role"] == "live" and i["pid"]]


def test_a_worker_of_the_edge_is_killed(home: Home, app: BenchApp, record_property: Callable[[str, object], None]) -> None:
    """Only what it was answering at that moment is lost; its master starts another at once."""
    with traffic(home, app) as visits:
        time.sleep(0.5)
        master, workers = home.edge_processes()
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: len(set(home.edge_processes()[1]) - {workers[0]}) >= len(workers), "another worker")
        time.sleep(0.5)
    assert home.edge_processes()[0] == master
    assert visits.tally.failed <= THREADS, visits.tally
    told(record_property, "kill -9 of a worker of nginx under load", visits.tally)


def test_the_master_of_the_edge_is_killed(home: Home, app: BenchApp, record_property: Callable[[str, object], None]) -> None:
    """Its workers go on answering until a new edge has taken their place; deploys work as before."""
    with traffic(home, app) as visits:
        time.sleep(0.5)
        master, _ = home.edge_processes()
        os.kill(master, signal.SIGKILL)
        began = time.monotonic()
        until(lambda: home.edge_processes()[0] not in (0, master) and home.edge_processes()[1], "a new master", 15, tell=home.log)
        took = time.monotonic() - began
        time.sleep(1)
    assert visits.tally.failed <= 100, visits.tally
    app.version(f"after-{master}")
    home.up(app.folder)
    assert home.get(app.host, "/version").body == f"after-{master}\n"
    told(record_property, "kill -9 of the master of nginx under load", visits.tally, f"; a new one after {took:.1f} s")


def test_all_of_the_edge_is_killed(home: Home, app: BenchApp, record_property: Callable[[str, object], None]) -> None:
    """The control plane sees it and starts it on its last good table."""
    master, workers = home.edge_processes()
    for pid in (master, *workers):
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    home.serves(app.host, "/health", home_health(home, app), 10)
    record_property("fault", "kill -9 of the whole of nginx")
    record_property("outcome", f"answers again after {time.monotonic() - began:.1f} s")


def home_health(home: Home, app: BenchApp) -> str:
    until(lambda: _answers(home, app), "the edge to be back", 10)
    return home.get(app.host, "/health").body


def _answers(home: Home, app: BenchApp) -> bool:
    try:
        return home.get(app.host, "/health").status == 200
    except OSError:
        return False


def test_one_of_two_instances_is_killed(home: Home, app: BenchApp, record_property: Callable[[str, object], None]) -> None:
    """At most what it was answering is lost: the edge asks the other; it comes back by itself."""
    home.cli("scale", "web=2", "-p", app.name)
    with traffic(home, app) as visits:
        time.sleep(0.5)
        victim = live_pids(home, app)[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(set(live_pids(home, app)) - {victim}) == 2, "another instance")
        until(lambda: [i["state"] for i in home.instances(app.name) if i["role"] == "live"] == ["healthy"] * 2, "both to be well")
        time.sleep(0.3)
    home.cli("scale", "web=1", "-p", app.name)
    assert visits.tally.failed <= THREADS, visits.tally
    told(record_property, "kill -9 of one of two instances under load", visits.tally)


def test_the_only_instance_is_killed(home: Home, app: BenchApp, record_property: Callable[[str, object], None]) -> None:
    """It is started again at once, and what happened is an event."""
    victim = live_pids(home, app)[0]
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    until(lambda: live_pids(home, app) not in ([], [victim]), "another process", 10)
    until(lambda: _answers(home, app), "it to answer", 10)
    took = time.monotonic() - began
    assert any(e["kind"] == "instance.ended" and "signal" in e["text"] for e in home.json("events", "-p", app.name))
    record_property("fault", "kill -9 of the only instance")
    record_property("outcome", f"answers again after {took:.1f} s")


@pytest.mark.slow
def test_an_instance_that_always_ends_is_started_less_and_less_often(home: Home, place_for_loop: BenchApp) -> None:
    """Restarts back off; the neighbour projects do not notice."""
    app = place_for_loop
    home.up(app.folder)
    time.sleep(6)
    mine = [i for i in home.instances(app.name) if i["role"] == "live"]
    assert 2 <= mine[0]["crashes"] <= 6
    assert mine[0]["restarts"] <= 6
    home.cli("destroy", app.name, "--yes")


@pytest.fixture
def place_for_loop(tmp_path: Path) -> BenchApp:
    """A project that ends 300 ms after each start."""
    app = BenchApp(tmp_path / "loop", "loop")
    app.version("v1", defect=app.ends_after(0.3))
    return app


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_the_control_plane_is_away_while_visitors_come(
    home: Home, app: BenchApp, seconds: int, record_property: Callable[[str, object], None]
) -> None:
    """Nothing fails; the next control plane finds the same processes and goes on with them."""
    before = live_pids(home, app)
    home.kill()
    with traffic(home, app) as visits:
        time.sleep(seconds)
        home.serve()
        time.sleep(0.5)
    assert (visits.tally.failed, visits.tally.errors) == (0, {})
    assert live_pids(home, app) == before
    told(record_property, f"control plane away for {seconds} s under load", visits.tally)


def test_an_instance_dies_while_the_control_plane_is_away(home: Home, app: BenchApp) -> None:
    """The next control plane sees it at once and starts it again."""
    victim = live_pids(home, app)[0]
    home.kill()
    os.kill(victim, signal.SIGKILL)
    home.serve()
    until(lambda: _answers(home, app), "it to answer", 10)
    assert live_pids(home, app) not in ([], [victim])


def test_the_control_plane_dies_again_while_it_recovers(home: Home, app: BenchApp) -> None:
    """Three crashes in one deploy, at three points; the fourth control plane brings it to its end."""
    app.version("thrice")
    home.kill()
    armed = home.serve(fault="build:after-effect")
    id = home.ask(app.folder)
    with traffic(home, app) as visits:
        for fault in ("start:after-effect", "switch:after-effect", ""):
            until(lambda process=armed: process.poll() is not None, "the fault to fire", 20, tell=home.log)  # type: ignore[misc]
            armed = home.serve(fault=fault)
        assert home.settled(id, 15)["status"] == "live"
    assert (visits.tally.failed, visits.tally.errors) == (0, {})
    assert home.get(app.host, "/version").body == "thrice\n"
    assert len([i for i in home.instances(app.name) if i["role"] == "live"]) == 1


def test_a_second_control_plane_of_one_home_is_refused(home: Home, app: BenchApp) -> None:
    """It says why and leaves the first alone."""
    pid = home.pid()
    done = home.run("serve", timeout=30)
    assert done.returncode == 1
    assert "already-serving" in done.stderr
    assert (home.pid(), home.alive()) == (pid, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_control_plane_is_told_to_stop(home: Home, app: BenchApp, number: signal.Signals) -> None:
    """It goes; applications and edge stay; the next one goes on with them."""
    before, pid = live_pids(home, app), home.pid()
    with traffic(home, app) as visits:
        os.kill(pid, number)
        home.gone(pid, 15)
        home.serve()
    assert (visits.tally.failed, visits.tally.errors) == (0, {})
    assert live_pids(home, app) == before


def test_the_command_is_interrupted_in_the_middle_of_a_deploy(home: Home, app: BenchApp) -> None:
    """Ctrl-C ends the command only: what was asked for goes on."""
    app.version("interrupted")
    app.web["build"] = {"command": "sleep 1; true"}
    app.write()
    process = subprocess.Popen(
        [sys.executable, "-m", "homeport", "up", str(app.folder)], env=home.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(lambda: home.json("status", "-p", app.name)["deploying"], "the deploy to begin")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "goes on" in errors
    home.serves(app.host, "/version", "interrupted\n", 15)
    app.web.pop("build")
    app.write()


def _sleepers(home: Home, mark: str) -> list[str]:
    return [command for command in home.processes().values() if command == f"sleep {mark}"]


def test_the_control_plane_dies_in_the_middle_of_a_build(home: Home, app: BenchApp) -> None:
    """The build it left behind is ended before a new one begins, and the deploy goes live."""
    app.version("rebuilt")
    app.web["build"] = {"command": "test -e /run/nowhere || sleep 3.25; true"}
    app.write()
    id = home.ask(app.folder)
    until(lambda: _sleepers(home, "3.25"), "the build")
    home.kill()
    home.serve()
    until(lambda: _sleepers(home, "3.25"), "the second build")
    assert len(_sleepers(home, "3.25")) == 1
    assert home.settled(id)["status"] == "live"
    assert home.get(app.host, "/version").body == "rebuilt\n"
    app.web.pop("build")
    app.write()


@pytest.mark.parametrize(("command", "what"), [("sleep 98.5; true", "a build"), ("true", "a start")])
def test_down_in_the_middle_of_a_deploy(tmp_path: Path, command: str, what: str) -> None:
    """Nothing is left running, and the deploy goes on with the next control plane."""
    app = BenchApp(tmp_path / "shop", "shop")
    with home_in(tmp_path / "home") as home:
        home.up(app.folder)
        app.version("v2")
        app.web["build"] = {"command": command}
        app.write()
        id = home.ask(app.folder)
        if what == "a build":
            until(lambda: _sleepers(home, "98.5"), "the build")
        home.cli("down")
        until(lambda: not home.processes(), "everything to stop", 30, tell=lambda: str(home.processes()))
        home.serve()
        if what == "a build":
            until(lambda: _sleepers(home, "98.5"), "the build to begin again")
        else:
            assert home.settled(id)["status"] == "live"
            home.serves(app.host, "/version", "v2\n")
