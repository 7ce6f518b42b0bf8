"""Programs that listen on a port of their own, whatever PORT says."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_apps import BenchApp
from homes import Home, free_ports
from traffic import Traffic

pytestmark = pytest.mark.xdist_group("e2e-own-ports")


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def app(home: Home, place: Path, port: int) -> BenchApp:
    """The bench service with its port in its code, live; its file tells nothing of it."""
    app = BenchApp(place / "stubborn", "stubborn")
    app.web["health"] |= {"deadline": 5, "interval": 0.2}
    app.web["command"] = f"sh -c 'PORT={port} exec {app.command}'"
    app.write()
    result = home.up(app.folder)
    assert result["status"] == "live"
    assert any(f"port {port} whatever PORT says" in text for text in result["warnings"]), result["warnings"]
    return app


def test_it_is_found_where_it_listens(home: Home, app: BenchApp, port: int) -> None:
    """Visitors reach it, `ps` shows the port, and it cannot be had twice."""
    assert home.get(app.host, "/version").body == "v1\n"
    assert [instance["address"] for instance in home.instances("stubborn")] == [f"127.0.0.1:{port}"]
    done = home.run("scale", "-p", "stubborn", "web=2")
    assert done.returncode != 0 and f"listens on port {port}" in done.stderr


def test_its_next_release_takes_its_turn(home: Home, app: BenchApp) -> None:
    """The port cannot be had twice: requests wait while the old instance ends and the new one starts, also on the way back."""
    with Traffic(home.edge_port, app.host, threads=4, rate=100, post="/body") as traffic:
        app.version("v2")
        result = home.up(app.folder)
        assert (result["status"], result["probe"]["failed"]) == ("live", 0)
        assert home.get(app.host, "/version").body == "v2\n"
        assert home.json("rollback", "-p", "stubborn")["status"] == "live"
    assert (traffic.tally.failed, traffic.tally.errors) == (0, {})
    assert home.get(app.host, "/version").body == "v1\n"


def test_a_broken_release_gives_it_back(home: Home, app: BenchApp, port: int) -> None:
    """A release that listens where it is told but is not well leaves the old one, on its port, with the requests that waited."""
    with Traffic(home.edge_port, app.host, threads=4, rate=50) as traffic:
        command, app.web["command"] = app.web["command"], app.command
        app.version("bad")
        app.unwell()
        app.write()
        assert home.up(app.folder, code=1)["status"] == "failed"
    app.web["command"] = command
    app.version("v1")
    app.write()
    assert (traffic.tally.failed, traffic.tally.errors) == (0, {})
    assert [instance["address"] for instance in home.instances("stubborn")] == [f"127.0.0.1:{port}"]
    assert [row["key"] for row in home.rows("SELECT key FROM ledger WHERE kind = 'own-port'")] == ["stubborn/production/web"]


def test_it_comes_back_on_its_port(home: Home, app: BenchApp, port: int) -> None:
    """After the control plane and the instance were killed it is found there again."""
    home.cli("down")
    home.serve()
    home.serves(app.host, "/version", "v1\n")
    assert [instance["address"] for instance in home.instances("stubborn")] == [f"127.0.0.1:{port}"]


def test_another_one_is_told_who_has_the_port(home: Home, app: BenchApp, port: int, place: Path) -> None:
    """A second program with the same port does not go live; the sentence names the first."""
    other = BenchApp(place / "second", "second")
    other.web["command"] = app.web["command"]
    other.write()
    result = home.up(other.folder, code=1)
    assert f"port {port} belongs to stubborn/production/web" in result["error"]["why"], result["error"]


def test_a_declared_port_is_taken_at_once(home: Home, place: Path) -> None:
    """A file that names the port of its program is enough: nobody waits to see whether it opens another."""
    declared = free_ports(1)[0]
    app = BenchApp(place / "declared", "declared")
    app.web |= {"port": declared, "command": f"sh -c 'PORT={declared} exec {app.command}'", "health": {"path": "/health", "deadline": 60}}
    app.write()
    assert home.up(app.folder)["seconds"] < 40
    assert home.get(app.host, "/version").body == "v1\n"


def test_one_that_learned_to_listen_to_port_overlaps_again(home: Home, app: BenchApp) -> None:
    """What was known of its port is forgotten with the first release that listens where it is told."""
    app.web["command"] = app.command
    app.version("v3")
    app.write()
    assert not any("whatever PORT says" in text for text in home.up(app.folder)["warnings"])
    assert home.get(app.host, "/version").body == "v3\n"
    home.cli("scale", "-p", "stubborn", "web=2")
