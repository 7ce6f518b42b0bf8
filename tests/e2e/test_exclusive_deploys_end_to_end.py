"""Services that may not overlap, and deploys that come at the same time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from bench_apps import BenchApp
from homes import Home, home_in, until
from traffic import Traffic

pytestmark = pytest.mark.xdist_group("e2e-exclusive")


def test_a_service_with_a_disk_is_replaced_while_its_requests_wait(home: Home, place: Path) -> None:
    """Two releases never run beside each other on one disk; visitors wait a moment and lose nothing, no post runs twice."""
    app = BenchApp(place / "disk", "disk")
    app.web |= {"disks": [{"name": "data", "mount_path": "/data"}], "env": {"ONCE_FILE": "/data/once.txt"}}
    app.write()
    home.up(app.folder)
    most = 0
    with Traffic(home.edge_port, app.host, threads=8, rate=200) as traffic:
        watching = threading.Event()

        def count() -> None:
            nonlocal most
            while not watching.wait(0.01):
                running = [c for c in home.processes().values() if c.startswith((app.command, f"/{app.command}")) or app.source.name in c]
                most = max(most, len(running))

        thread = threading.Thread(target=count)
        thread.start()
        for version in ("v2", "v3"):
            app.version(version)
            assert home.up(app.folder)["probe"]["failed"] == 0
        assert home.json("rollback", "-p", "disk")["status"] == "live"
        watching.set()
        thread.join()
    assert (traffic.tally.failed, traffic.tally.errors) == (0, {})
    assert most == 1
    ran = next((home.path / "volumes").glob("disk-*/once.txt")).read_text().split()
    assert len(ran) == len(set(ran))
    assert set(ran) == traffic.tally.posted
    assert home.get(app.host, "/version").body == "v2\n"


def test_a_broken_release_of_a_service_with_a_disk_gives_the_old_one_back(home: Home, place: Path) -> None:
    """The old instance was stopped for it; it is started again and gets the requests that waited."""
    app = BenchApp(place / "disk2", "disk2")
    app.web |= {"disks": [{"name": "data", "mount_path": "/data"}], "env": {"ONCE_FILE": "/data/once.txt"}}
    app.write()
    home.up(app.folder)
    with Traffic(home.edge_port, app.host, threads=8, rate=200) as traffic:
        app.web["command"] = "sh -c 'exit 3'"
        app.write()
        assert home.up(app.folder, code=1)["status"] == "failed"
        assert home.get(app.host, "/version").body == "v1\n"
    assert (traffic.tally.failed, traffic.tally.errors) == (0, {})
    assert traffic.tally.slowest < 25
    assert [(i["release"], i["state"]) for i in home.instances("disk2")] == [("r1", "healthy")]


def test_of_deploys_that_wait_the_newest_wins(home: Home, place: Path) -> None:
    """While one deploy runs, two more are asked for: the first of them is superseded, the last goes live."""
    app = BenchApp(place / "queue", "queue")
    home.up(app.folder)
    app.version("v2", defect="")
    app.web["build"] = {"command": "sleep 1; true"}
    app.write()
    first = home.ask(app.folder)
    app.version("v3")
    second = home.ask(app.folder)
    app.version("v4")
    third = home.ask(app.folder)
    ends = {name: home.settled(id)["status"] for name, id in (("first", first), ("second", second), ("third", third))}
    assert ends["second"] == "superseded"
    assert ends["third"] == "live"
    assert home.get(app.host, "/version").body == "v4\n"
    assert len([r for r in home.json("releases", "-p", "queue") if r["state"] == "live"]) == 1


def test_two_commands_at_once_both_end_with_the_truth(home: Home, place: Path) -> None:
    """Of several `up` at the same time each prints an object: live, or superseded with its own exit code."""
    app = BenchApp(place / "both", "both")
    home.up(app.folder)
    found: list[Any] = []

    def go() -> None:
        found.append(home.run("up", app.folder, "--json"))

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    codes = sorted(done.returncode for done in found)
    assert codes[0] == 0
    assert set(codes) <= {0, 1}
    assert all('"status"' in done.stdout for done in found), [done.stdout + done.stderr for done in found]
    until(lambda: home.json("status", "-p", "both")["deploying"] == "", "the last deploy to end")
    assert [i["role"] for i in home.instances("both")].count("live") == 1


def test_two_commands_that_both_start_the_control_plane_share_it(tmp_path: Path) -> None:
    """The one that comes second is refused; both commands are answered by the first."""
    with home_in(tmp_path / "h") as home:
        home.path.mkdir()
        site = tmp_path / "site"
        site.mkdir()
        (site / "index.html").write_text("hello")
        done: list[Any] = []
        threads = [threading.Thread(target=lambda: done.append(home.run("up", site, "--json"))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all('"status"' in one.stdout for one in done), [one.stdout + one.stderr for one in done]


def test_two_projects_deploy_beside_each_other(home: Home, place: Path) -> None:
    """Deploys of different projects do not wait for each other."""
    apps = [BenchApp(place / name, name) for name in ("left", "right")]
    for app in apps:
        app.web["build"] = {"command": "sleep 1.5; true"}
        app.write()
    ids = [home.ask(app.folder) for app in apps]
    rows = [home.settled(id) for id in ids]
    assert [row["status"] for row in rows] == ["live", "live"]
    began = [row["requested_at"] for row in rows]
    assert max(began) < min(row["finished_at"] for row in rows)
