"""The main path through the doors that people use: the command line and the edge."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_apps import BenchApp, variables_of
from homes import Home, home_in, outside_tmp, until
from traffic import Traffic

pytestmark = pytest.mark.xdist_group("e2e-deploys")


@pytest.fixture(scope="module")
def once() -> Iterator[Path]:
    """The file in which each `POST /once` leaves a line."""
    folder = outside_tmp()
    yield folder / "once.txt"
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def app(home: Home, place: Path, once: Path) -> BenchApp:
    """The bench service, live as its first release."""
    app = BenchApp(place / "bench")
    app.web["env"] = {"ONCE_FILE": str(once)}
    app.write()
    assert home.up(app.folder)["status"] == "live"
    return app


def test_the_first_up_starts_everything_and_prints_the_result_object(tmp_path: Path) -> None:
    """`up --json` on a machine where nothing runs ends with one object of the documented shape, and the service answers."""
    app = BenchApp(tmp_path / "shop", "shop")
    with home_in(tmp_path / "home") as home:
        result = home.up(app.folder)
        assert {"project", "environment", "release", "status", "seconds", "services", "probe"} <= result.keys()
        assert (result["project"], result["environment"], result["release"], result["status"]) == ("shop", "production", "r1", "live")
        url = f"http://{app.host}:{home.edge_port}"
        assert result["services"] == [{"name": "web", "kind": "web", "url": url, "instances": 1}]
        assert result["seconds"] > 0
        assert {"requests", "failed"} <= result["probe"].keys()
        assert home.get(app.host, "/version") == (200, home.get(app.host, "/version").headers, "v1\n")


def test_redeploys_and_rollbacks_under_load_lose_no_request(home: Home, app: BenchApp, once: Path) -> None:
    """Changed source goes live and back again while kept and fresh connections read and post: none fails, no post runs twice."""
    with Traffic(home.edge_port, app.host, threads=8, rate=300, streams=True, slow_ms=2000) as traffic:
        for version in ("v2", "v3"):
            app.version(version)
            result = home.up(app.folder)
            assert result["probe"]["requests"] > 0
            assert result["probe"]["failed"] == 0
        assert home.get(app.host, "/version").body == "v3\n"
        assert home.json("rollback")["status"] == "live"
        assert home.get(app.host, "/version").body == "v2\n"
    tally, streams = traffic.tally, traffic.streams
    assert (tally.failed, tally.errors) == (0, {})
    assert tally.requests > 100
    assert {"v2", "v3"} <= tally.versions.keys()
    assert (streams.slow_failed, streams.sse_refused, streams.ws_refused, streams.sse_broken, streams.ws_broken) == (0, 0, 0, 0, 0)
    ran = once.read_text().split()
    assert len(ran) == len(set(ran))
    assert set(ran) == traffic.tally.posted


def test_a_rollback_needs_neither_source_nor_toolchain(home: Home, place: Path) -> None:
    """With the source folder deleted and every toolchain of the home gone, the release before goes live again."""
    app = BenchApp(place / "gone", "gone")
    home.up(app.folder)
    app.version("v2")
    home.up(app.folder)
    shutil.rmtree(app.folder)
    hidden = home.path / "toolchains-hidden"
    sources = home.path / "sources"
    (home.path / "toolchains").rename(hidden)
    try:
        shutil.rmtree(sources, ignore_errors=True)
        result = home.json("rollback", "-p", "gone")
        assert (result["release"], result["status"]) == ("r1", "live")
        assert home.get(app.host, "/version").body == "v1\n"
    finally:
        shutil.rmtree(home.path / "toolchains", ignore_errors=True)
        hidden.rename(home.path / "toolchains")
    home.cli("destroy", "gone", "--yes")


def test_a_clone_with_a_remote_is_known_by_its_folder(home: Home, app: BenchApp, place: Path) -> None:
    """Commands in the folder of a work tree are about what was deployed from it, also with another project at home."""
    assert home.json("status", "-p", app.name)["project"] == app.name
    cloned = BenchApp(place / "cloned", "cloned")
    for line in ("init -q", "remote add origin https://example.com/acme/cloned.git", "add .", "commit -q -m First"):
        argv = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *line.split()]
        subprocess.run(argv, cwd=cloned.folder, check=True, timeout=60)
    home.up(cloned.folder)
    assert json.loads(home.cli("status", "--json", cwd=cloned.folder))["project"] == "cloned"
    home.cli("destroy", "cloned", "--yes")


def test_a_variable_takes_effect_with_the_next_deploy_and_a_rollback_takes_it_back(home: Home, place: Path) -> None:
    """`env set` changes nothing that runs; the next release has the value; going back brings the former value."""
    app = BenchApp(place / "vars", "vars")
    home.up(app.folder)

    def seen() -> str | None:
        live = next(i for i in home.instances("vars") if i["role"] == "live")
        return variables_of(live["pid"]).get("GREETING")

    home.cli("env", "set", "GREETING=hello", "-p", "vars")
    assert seen() is None
    home.up(app.folder)
    assert seen() == "hello"
    home.cli("env", "set", "GREETING=good\nday 'quoted' \"twice\" $(id)", "-p", "vars")
    home.up(app.folder)
    assert seen() == "good\nday 'quoted' \"twice\" $(id)"
    home.json("rollback", "-p", "vars")
    assert seen() == "hello"
    assert "hello" not in home.cli("env", "-p", "vars")
    home.cli("destroy", "vars", "--yes")


def test_a_one_off_command_has_the_service_s_surroundings(home: Home, app: BenchApp) -> None:
    """`run -- cmd` prints the command's output and ends with its exit code; nothing of Homeport's own is in its environment."""
    done = home.run("run", "-p", app.name, "--", "sh", "-c", "echo out; echo err >&2; env; exit 5")
    assert done.returncode == 5
    assert "out" in done.stdout
    assert "err" in done.stderr
    assert "HOMEPORT" not in done.stdout


def test_scaling_adds_and_removes_instances_without_losing_requests(home: Home, app: BenchApp) -> None:
    """`scale web=3` brings two more; `scale web=1` takes them away; visitors notice neither."""
    with Traffic(home.edge_port, app.host, threads=4, rate=200) as traffic:
        home.cli("scale", "web=3", "-p", app.name)
        live = [i for i in home.instances(app.name) if i["role"] == "live"]
        assert [i["state"] for i in live] == ["healthy"] * 3, live
        time.sleep(0.3)
        home.cli("scale", "web=1", "-p", app.name)
    assert (traffic.tally.failed, traffic.tally.errors) == (0, {})
    until(lambda: len([i for i in home.instances(app.name) if i["role"] == "live"]) == 1, "two instances to go")


def test_unknown_hosts_get_404_and_errors_are_never_kept(home: Home, app: BenchApp) -> None:
    """A host nobody has gets 404 and not another site; maintenance answers 503 that no cache may keep."""
    assert home.get("nobody.example").status == 404
    app.web["maintenance"] = {"enabled": True}
    app.write()
    try:
        home.up(app.folder)
        answer = home.get(app.host)
        assert answer.status == 503
        assert "no-store" in answer.headers["cache-control"]
    finally:
        app.web.pop("maintenance")
        app.write()
    home.up(app.folder)
    assert home.get(app.host).status == 200


def test_missing_secrets_are_listed_and_nothing_is_deployed(home: Home, place: Path) -> None:
    """Without a terminal, required values that nobody has set are an error that names all of them; an env file brings them."""
    app = BenchApp(place / "needy", "needy")
    app.web["env"] = {"FIRST_KEY": {"kind": "secret", "description": "of the first kind"}, "SECOND_KEY": {"kind": "secret"}}
    app.write()
    result = home.up(app.folder, code=4)
    assert result["status"] == "failed"
    assert result["error"]["code"] == "secrets-missing"
    assert result["error"]["missing"] == {"FIRST_KEY": "of the first kind", "SECOND_KEY": ""}
    assert home.get(app.host).status == 404
    (place / "values.env").write_text("FIRST_KEY=one\nSECOND_KEY='two words'\n")
    assert home.up(app.folder, "--env-file", place / "values.env")["status"] == "live"
    live = next(i for i in home.instances("needy") if i["role"] == "live")
    assert variables_of(live["pid"])["SECOND_KEY"] == "two words"
    home.cli("destroy", "needy", "--yes")


def test_a_vanished_key_stops_the_deploy_until_it_is_confirmed(home: Home, place: Path) -> None:
    """A variable that the live release has and the new file has not is asked about; `--yes` lets it go."""
    app = BenchApp(place / "keys", "keys")
    app.web["env"] = {"KEPT": "1", "LOST": "1"}
    app.write()
    home.up(app.folder)
    app.web["env"] = {"KEPT": "1"}
    app.write()
    result = home.up(app.folder, code=3)
    assert result["error"]["code"] == "confirmation-needed"
    assert "LOST" in result["error"]["why"]
    assert home.up(app.folder, "--yes")["status"] == "live"
    home.cli("destroy", "keys", "--yes")


def test_every_kind_of_service_runs(home: Home, place: Path) -> None:
    """A static site, a private service reached by name, a worker and a scheduled job live beside the web service."""
    app = BenchApp(place / "all", "all")
    (app.folder / "site").mkdir()
    (app.folder / "site" / "index.html").write_text("<p>static page</p>")
    app.services |= {
        "backend": {"kind": "private", "command": app.command, "health": {"path": "/health"}},
        "worker": {"kind": "worker", "command": "sh -c 'echo at work; exec sleep 1000'"},
        "site": {"kind": "static", "publish": "site", "build": {"builder": "none"}},
        "nightly": {"kind": "cron", "schedule": "0 3 * * *", "command": "sh -c 'echo swept $SWEEP; exit 0'", "env": {"SWEEP": "floor"}},
        "failing": {"kind": "cron", "schedule": "0 4 * * *", "command": "sh -c 'exit 9'"},
    }
    app.write()
    result = home.up(app.folder)
    kinds = {s["name"]: s["kind"] for s in result["services"]}
    assert kinds == {"web": "web", "backend": "private", "worker": "worker", "site": "static", "nightly": "cron", "failing": "cron"}
    assert "static page" in home.get("site.all.localhost").body
    assert home.get("backend.all.localhost").status == 404
    script = "import os, urllib.request; print(urllib.request.urlopen(os.environ['BACKEND_URL'] + '/version').read().decode())"
    assert "v1" in home.cli("run", "-p", "all", "--", "python3", "-c", script)
    assert "at work" in home.cli("logs", "worker", "-p", "all")
    _scheduled_jobs(home)
    home.cli("destroy", "all", "--yes")


def _scheduled_jobs(home: Home) -> None:
    assert {c["service"] for c in home.json("cron", "-p", "all")} == {"nightly", "failing"}
    for job in ("nightly", "failing"):
        home.run("cron", "run", job, "-p", "all")

    def runs() -> dict[str, tuple[str, int | None]]:
        return {r["service"]: (r["status"], r["code"]) for r in home.json("cron", "runs", "-p", "all")}

    until(lambda: "running" not in {status for status, _ in runs().values()}, "the jobs to end")
    assert runs() == {"nightly": ("succeeded", 0), "failing": ("failed", 9)}


def test_down_and_up_bring_everything_back(tmp_path: Path) -> None:
    """`down` stops all processes of a home; the next `serve` brings the same release back on the same address."""
    app = BenchApp(tmp_path / "shop", "shop")
    with home_in(tmp_path / "home") as home:
        home.up(app.folder)
        app.version("v2")
        home.up(app.folder)
        home.cli("down")
        until(lambda: not home.processes(), "everything to stop", 10)
        home.serve()
        home.serves(app.host, "/version", "v2\n")
        assert home.json("status", "-p", "shop")["release"] == "r2"


def test_a_destroyed_project_leaves_only_its_tombstone(home: Home, place: Path) -> None:
    """`destroy` takes away processes, routes and releases; the data of its disk is kept aside."""
    app = BenchApp(place / "doomed", "doomed")
    app.web["disks"] = [{"name": "data", "mount_path": "/data"}]
    app.web["env"] = {"ONCE_FILE": "/data/once.txt"}
    app.write()
    home.up(app.folder)
    assert home.get(app.host, "/once?id=kept", "POST").status == 200
    home.cli("destroy", "doomed", "--yes")
    assert home.get(app.host).status == 404
    assert not [row for row in home.rows("SELECT kind, owner FROM ledger") if "doomed" in row["owner"] and row["kind"] != "tombstone"]
    assert not [name for name in home.folders() if name.startswith("doomed-")]
    graves = list((home.path / "tombstones").glob("*doomed*"))
    assert len(graves) == 1
    assert (graves[0] / "once.txt").read_text() == "kept\n"
