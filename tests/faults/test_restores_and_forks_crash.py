"""`kill -9` of the control plane in the middle of restores, forks, removals, and environments that begin with another one's data.

Afterwards there is the old or the new, never half of it: no server, folder, row or secret of what did not come to be, no copied value that
nobody masked behind an open door, and an environment that is free for the next deploy.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from homes import Home, home_in, until

pytestmark = [pytest.mark.xdist_group("faults-data"), pytest.mark.timeout(240)]

DOCUMENT: dict[str, Any] = {
    "name": "shop",
    "watch": {"window": 0},
    "mask": {"users.email": "email"},
    "previews": {"data": "production"},
    "addons": {"db": {"kind": "postgres", "memory": "64MB"}},
    "services": {
        "web": {
            "kind": "web",
            "command": "python -m http.server $PORT",
            "disks": [{"name": "data", "mount_path": "/data"}],
            "env": {"TOKEN": {"kind": "generated", "format": "hex", "bytes": 16}},
        },
        "mails": {"kind": "worker", "command": "python -c 'import time; time.sleep(1e6)'"},
        "nightly": {"kind": "cron", "schedule": "0 3 * * *", "command": "python -V"},
    },
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "shop"
    folder.mkdir()
    (folder / "homeport.yaml").write_text(json.dumps(DOCUMENT))
    (folder / "requirements.txt").touch()
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Iterator[Home]:
    """Production with three users and a backup of everything."""
    with home_in(tmp_path_factory.mktemp("home") / "h") as found:
        assert found.up(source, timeout=200)["status"] == "live"
        sql(found, "CREATE TABLE users (id serial PRIMARY KEY, email text UNIQUE)")
        sql(found, "INSERT INTO users (email) VALUES ('ada@example.com'), ('grace@example.com'), ('joan@example.com')")
        found.json("backup", "now", timeout=200)
        yield found


def sql(home: Home, query: str, environment: str = "production") -> str:
    return home.cli("psql", "--project", "shop", "--env", environment, "-c", query)


def count(home: Home, environment: str = "production", where: str = "true") -> int:
    return int(sql(home, f"COPY (SELECT count(*) FROM users WHERE {where}) TO STDOUT", environment))


def dies(home: Home, fault: str, work: Callable[[], object]) -> None:
    """Do something with a control plane that dies at a point of it; then a new one is started."""
    home.kill()
    process = home.serve(fault=fault)
    with contextlib.suppress(AssertionError, json.JSONDecodeError):
        work()
    until(lambda: process.poll() is not None, f"the control plane to die at {fault}")
    home.serve()


def environments(home: Home) -> set[str]:
    return {row["environment"] for row in home.rows("SELECT environment FROM environments")}


def held(home: Home) -> list[str]:
    return [row["key"] for row in home.rows("SELECT key FROM ledger WHERE kind = 'operation'")]


def traces(home: Home, environment: str) -> list[str]:
    """What is left of an environment: rows, folders, secrets that open."""
    found = [f"{row['kind']} {row['key']}" for row in home.rows("SELECT kind, key FROM ledger WHERE owner = ?", f"shop/{environment}")]
    found += [str(path) for kind in ("addons", "volumes") for path in (home.path / kind).glob(f"shop-{environment}-*")]
    secrets = home.rows("SELECT name FROM secrets WHERE environment = ? AND state = 'enabled' AND source = 'fork'", environment)
    return found + [row["name"] for row in secrets]


@pytest.mark.parametrize("point", ["fork:copied", pytest.param("fork:masked", marks=pytest.mark.slow)])
def test_a_fork_dies_before_it_is_complete(home: Home, point: str) -> None:
    """Nothing of it is left, its source is free, and the same fork works at once."""
    dies(home, point, lambda: home.cli("fork", "production", "--as", "look", "--project", "shop", code=None))
    assert "look" not in environments(home)
    assert traces(home, "look") == []
    assert held(home) == []
    forked = home.json("fork", "production", "--as", "look", "--project", "shop")
    assert forked["result"]["status"] == "live"
    assert forked["off"] == ["mails", "nightly"]
    assert (count(home, "look"), count(home, "look", "email LIKE '%@example.invalid'")) == (3, 3)
    home.cli("destroy", "shop", "--env", "look", "--yes")


@pytest.mark.slow
def test_a_fork_dies_when_it_is_complete(home: Home) -> None:
    """It goes live by itself at the next start, masked, and without its workers."""
    dies(home, "fork:recorded", lambda: home.cli("fork", "production", "--as", "late", "--project", "shop", code=None))
    until(lambda: any(row["live"] for row in home.rows("SELECT live FROM environments WHERE environment = 'late'")), "the fork to be live")
    until(lambda: held(home) == [], "the environment to be free")
    assert count(home, "late", "email LIKE '%@example.invalid'") == 3
    services = {row["name"]: row for row in home.json("status", "--project", "shop", "--env", "late")["services"]}
    assert (services["mails"]["wanted"], services["nightly"]["state"]) == (0, "off")
    home.cli("scale", "nightly=1", "mails=1", "--project", "shop", "--env", "late")
    services = {row["name"]: row for row in home.json("status", "--project", "shop", "--env", "late")["services"]}
    assert (services["mails"]["wanted"], services["nightly"]["state"]) == (1, "scheduled")
    home.cli("destroy", "shop", "--env", "late", "--yes")


@pytest.mark.parametrize(
    ("point", "rows"),
    [("restore:begun", 4), pytest.param("restore:proven", 4, marks=pytest.mark.slow), pytest.param("restore:switched", 3)],
)
def test_a_restore_dies(home: Home, point: str, rows: int) -> None:
    """Before the exchange the old data serves, after it the new; a deploy works at once, and nothing of the other is left running."""
    backup = home.json("backup", "list", "--addon", "db")[-1]["id"]
    sql(home, "DELETE FROM users WHERE email = 'more@example.com'")
    sql(home, "INSERT INTO users (email) VALUES ('more@example.com')")
    dies(home, point, lambda: home.cli("restore", backup, "--project", "shop", code=None))
    until(lambda: home.run("psql", "--project", "shop", "-c", "SELECT 1").returncode == 0, "the database to answer")
    assert count(home) == rows
    assert [path.name for path in (home.path / "addons").iterdir() if not path.name.startswith(".") and path.is_dir()] == [
        "shop-production-db"
    ]
    assert held(home) == []


@pytest.mark.parametrize("point", [pytest.param("restore:proven", marks=pytest.mark.slow), "restore:switched"])
def test_a_restore_of_disks_dies(home: Home, point: str) -> None:
    """The disk is there, whole, before and after; the services that were stopped for it run again."""
    file = home.path / "volumes" / "shop-production-data" / "kept.txt"
    file.write_text("as it was")
    home.json("backup", "now", "disks", "--project", "shop")
    file.write_text("changed since")
    dies(home, point, lambda: home.cli("restore", "--to", "latest", "--addon", "disks", "--project", "shop", code=None))
    assert file.read_text() == ("as it was" if point == "restore:switched" else "changed since")
    assert not list((home.path / "volumes").glob(".*.incoming"))
    until(lambda: home.get("web.shop.localhost", "/").status == 200, "the service to run again")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["data:before", "data:after-effect", "data:after-commit"])
def test_an_environment_that_begins_with_data_dies(home: Home, source: Path, point: str) -> None:
    """The deploy goes on at the next start, and its databases hold masked data, once."""
    asked: list[str] = []
    dies(home, point, lambda: asked.append(home.ask(source, environment="pr-7")))
    assert home.settled(asked[0], 90)["status"] == "live"
    assert (count(home, "pr-7"), count(home, "pr-7", "email LIKE '%@example.invalid'")) == (count(home), count(home))
    home.cli("destroy", "shop", "--env", "pr-7", "--yes")


def test_a_preview_begins_with_masked_data_and_keeps_its_own(home: Home, source: Path) -> None:
    """As `previews.data` says; workers and jobs are off, the second deploy changes no data, and another environment begins empty."""
    first = home.up(source, "--env", "pr-8")
    assert any("off, so that production's work is not done twice: mails, nightly" in text for text in first["warnings"])
    assert count(home, "pr-8", "email LIKE '%@example.invalid'") == count(home)
    sql(home, "DELETE FROM users", "pr-8")
    again = home.up(source, "--env", "pr-8", "--data-from", "production")
    assert any("has data already" in text for text in again["warnings"])
    assert count(home, "pr-8") == 0
    home.cli("destroy", "shop", "--env", "pr-8", "--yes")


@pytest.mark.slow
def test_a_removal_dies_half_way(home: Home) -> None:
    """The next start goes through it again, to its end."""
    assert home.json("fork", "production", "--as", "old", "--project", "shop")["result"]["status"] == "live"
    dies(home, "destroy:half", lambda: home.cli("destroy", "shop", "--env", "old", "--yes", code=None))
    until(lambda: "old" not in environments(home), "the environment to be gone")
    assert held(home) == []


def test_a_project_over_its_budget_builds_no_more(home: Home, source: Path) -> None:
    """The deploy ends with the numbers and what was live serves on; with more room it goes through."""
    (source / "more.py").write_text("more = True")
    home.cli("backup", "schedule", "--budget", "1MB")
    try:
        refused = home.run("up", source)
        assert "error[disk-budget-spent]" in refused.stderr
        assert "of a budget of 1 MiB" in refused.stderr
        assert home.get("web.shop.localhost", "/").status == 200
        assert home.json("disk")["projects"][0]["budget"] == 1 << 20
        assert "over its budget" in home.cli("disk")
    finally:
        home.cli("backup", "schedule", "--budget", "0")
    assert home.up(source)["status"] == "live"


def test_a_home_is_recovered_by_one_at_a_time(home: Home, tmp_path: Path) -> None:
    """While a control plane holds it, nothing is recovered into it."""
    (tmp_path / "key").write_bytes((home.path / "vault.key").read_bytes())
    done = home.run("recover", "--from", str(home.path / "backups" / "local"), "--vault-key-file", str(tmp_path / "key"))
    assert "error[already-serving]" in done.stderr


def test_a_deploy_waits_for_a_restore(home: Home, source: Path) -> None:
    """It is accepted, says what it waits for, and goes live afterwards; a second restore is refused with what runs."""
    backup = home.json("backup", "list", "--addon", "db")[-1]["id"]
    restoring = threading.Thread(target=lambda: home.cli("restore", backup, "--project", "shop"))
    restoring.start()
    until(lambda: held(home) != [], "the restore to begin")
    deploy = home.ask(source)
    second = home.run("restore", backup, "--project", "shop")
    restoring.join()
    assert "error[environment-busy]" in second.stderr
    assert "A restore of shop/production" in second.stderr
    assert home.settled(deploy)["status"] == "live"
    log = (home.path / "deploys" / f"{deploy}.jsonl").read_text()
    assert "Waiting: a restore of this environment is under way" in log
