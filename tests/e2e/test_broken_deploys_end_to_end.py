"""Whatever is wrong with a release: the one before goes on serving, and one sentence says why."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench_apps import AS_ROOT, BenchApp
from homes import Home, home_in, until
from traffic import Traffic

pytestmark = pytest.mark.xdist_group("e2e-broken")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose builds may take 10 s."""
    with home_in(tmp_path_factory.mktemp("home") / "h", {"HOMEPORT_BUILD_TIME": "10s"}) as home:
        home.serve()
        yield home


@pytest.fixture(scope="module")
def app(home: Home, place: Path) -> BenchApp:
    """The bench service, live and well."""
    app = BenchApp(place / "bench")
    app.web["health"] |= {"deadline": 60}
    app.write()
    assert home.up(app.folder)["status"] == "live"
    app.web["health"] |= {"deadline": 3, "interval": 0.2}
    return app


@contextlib.contextmanager
def untouched(home: Home, app: BenchApp) -> Iterator[None]:
    """Inside, a deploy fails: visitors notice nothing, and nothing of it is left."""
    before = home.json("status", "-p", app.name)["release"]
    ports = {row["key"] for row in home.rows("SELECT key FROM ledger WHERE kind = 'port'")}
    command = app.web["command"]
    with Traffic(home.edge_port, app.host, rate=100, post="/body") as traffic:
        yield
    app.version("v1")
    app.web["command"] = command
    app.web.pop("build", None)
    app.write()
    assert (traffic.tally.failed, traffic.tally.errors) == (0, {})
    assert home.json("status", "-p", app.name)["release"] == before
    assert {i["release"] for i in home.instances(app.name)} == {before}
    assert {row["key"] for row in home.rows("SELECT key FROM ledger WHERE kind = 'port'")} <= ports


def failed(home: Home, app: BenchApp, code: str) -> dict[str, Any]:
    """A deploy that must fail with this code."""
    app.write()
    result = home.up(app.folder, code=1)
    assert result["status"] == "failed"
    assert result["error"]["code"] == code, result["error"]
    return dict(result["error"])


def test_a_service_that_never_binds(home: Home, app: BenchApp) -> None:
    """It is given up after its deadline, and the sentence says that nothing listens."""
    with untouched(home, app):
        app.web["command"] = "sleep 1000"
        error = failed(home, app, "release-unwell")
        assert "listen" in error["why"] or "refused" in error["why"] or "port" in error["why"], error


def test_a_service_on_wrong_ports(home: Home, app: BenchApp) -> None:
    """When it listens on two ports, none of them the one it was given, the sentence names them."""
    with untouched(home, app):
        app.web["command"] = f"sh -c 'PORT=19998 {app.command} & PORT=19999 exec {app.command}'"
        why = failed(home, app, "release-unwell")["why"]
        assert "19998" in why and "19999" in why and "$PORT" in why


def test_a_service_that_answers_500(home: Home, app: BenchApp) -> None:
    """The sentence names the status."""
    with untouched(home, app):
        app.version("bad")
        app.unwell()
        assert "500" in failed(home, app, "release-unwell")["why"]


def test_a_service_that_ends_after_its_start(home: Home, app: BenchApp) -> None:
    """It fails at once, without waiting for the deadline, and the program's own last lines are shown."""
    with untouched(home, app):
        app.web["command"] = "sh -c 'echo cannot find my hat >&2; exit 3'"
        app.write()
        began = time.monotonic()
        done = home.run("up", app.folder)
        assert done.returncode == 1
        assert "cannot find my hat" in done.stderr
        assert "3" in done.stderr
        assert time.monotonic() - began < 40


def test_a_build_that_fails(home: Home, app: BenchApp) -> None:
    """Its last lines are shown, and no release is made of it."""
    with untouched(home, app):
        app.web["build"] = {"command": "echo no such compiler; exit 4"}
        app.write()
        done = home.run("up", app.folder)
        assert done.returncode == 1
        assert "no such compiler" in done.stderr


def test_a_build_that_never_ends(home: Home, app: BenchApp) -> None:
    """It is ended with all its children when its time is over."""
    with untouched(home, app):
        app.web["build"] = {"command": "sleep 998877 & sleep 998877; true"}
        error = failed(home, app, "build-timed-out")
        assert "10" in error["why"]
        assert not any("998877" in command for command in home.processes().values())


@pytest.mark.skipif(not AS_ROOT, reason="memory is limited by control groups, which need root")
def test_a_service_that_takes_all_memory(home: Home, place: Path) -> None:
    """The kernel ends it at its limit; the watch goes back to the release before and says why."""
    app = BenchApp(place / "hungry", "hungry")
    app.more = {"watch": {"window": 30, "max_crashes": 0}}
    app.web["resources"] = {"memory": "150MiB"}
    app.write()
    home.up(app.folder)
    app.version("v2", defect=app.hungry(0.5))
    _goes_back(home, app, "memory")


def test_a_service_that_crashes_later_goes_back_by_itself(home: Home, place: Path) -> None:
    """Well at first, then ended: the watch puts the former release back, and the reason is written down."""
    app = BenchApp(place / "later", "later")
    app.more = {"watch": {"window": 30, "max_crashes": 0}}
    app.write()
    home.up(app.folder)
    app.version("v2", defect=app.ends_after(1.5))
    _goes_back(home, app, "7")


def test_a_service_that_answers_errors_later_goes_back_by_itself(home: Home, place: Path) -> None:
    """Server errors above what the former release had put the former release back."""
    app = BenchApp(place / "errors", "errors")
    app.more = {"watch": {"window": 30}}
    app.write()
    home.up(app.folder)
    with Traffic(home.edge_port, app.host, rate=100, post="/body"):
        text = app.original
        assert "{ return send(res, 200, `${VERSION}" not in text
        app.version("v2")
        source = app.source.read_text().replace("send(res, 200, `${VERSION}\\n`)", "send(res, 500, `${VERSION}\\n`)")
        app.source.write_text(source.replace('self.reply(200, f"{VERSION}\\n")', 'self.reply(500, f"{VERSION}\\n")'))
        _goes_back(home, app, "server errors")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_service_that_crashes_after_ten_seconds_again_and_again(home: Home, place: Path) -> None:
    """With the default settings the third crash within the watch window puts the former release back."""
    app = BenchApp(place / "tens", "tens")
    app.more = {}
    app.write()
    home.up(app.folder)
    app.version("v2", defect=app.ends_after(10))
    _goes_back(home, app, "7", seconds=90)


def _goes_back(home: Home, app: BenchApp, reason: str, seconds: float = 30) -> None:
    assert home.up(app.folder)["status"] == "live"
    live: Callable[[], str] = lambda: home.json("status", "-p", app.name)["release"]  # noqa: E731
    until(lambda: live() == "r1", "the former release to be back", seconds, tell=home.log)
    home.serves(app.host, "/version", "v1\n")
    events = [e for e in home.json("events", "-p", app.name) if e["kind"] == "release.rolled-back"]
    assert len(events) == 1
    assert reason in events[0]["text"]
    assert reason in next(r for r in home.json("releases", "-p", app.name) if r["id"] == "r2")["reason"]
    until(lambda: home.json("status", "-p", app.name)["deploying"] == "", "the rollback to end")
    home.cli("destroy", app.name, "--yes")
