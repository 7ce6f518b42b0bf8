"""Backups through the command line and the API: disks go back, targets and policies are checked, keys without the scope are refused."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from homes import Home, outside_tmp

pytestmark = [pytest.mark.xdist_group("e2e-backups"), pytest.mark.timeout(240)]

HOST = "web.shelf.localhost"


@pytest.fixture(scope="module")
def away() -> Iterator[Path]:
    folder = outside_tmp()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def volume(home: Home, place: Path, away: Path) -> Path:
    """A live service that shows its disk; the disk's folder. Backups go to a folder outside of the home."""
    source = place / "shelf"
    source.mkdir()
    document = {
        "name": "shelf",
        "watch": {"window": 0},
        "services": {
            "web": {
                "kind": "web",
                "command": "python -m http.server $PORT --directory /data",
                "disks": [{"name": "data", "mount_path": "/data"}],
            }
        },
    }
    (source / "homeport.yaml").write_text(json.dumps(document))
    (source / "requirements.txt").write_text("")
    assert home.up(source)["status"] == "live"
    home.cli("backup", "add-target", "away", away)
    return home.path / "volumes" / "shelf-production-data"


def put(volume: Path, name: str, text: str) -> None:
    (volume / name).write_text(text)
    (volume / name).chmod(0o644)


def test_disks_go_back_to_a_copy(home: Home, volume: Path) -> None:
    """After a restore the service shows what the copy held; the former disk is kept as a tombstone, and the service runs."""
    put(volume, "kept.txt", "as it was")
    made = home.json("backup", "now", "disks")
    assert [row["kind"] for row in made] == ["disks"]
    assert made[0]["targets"] == ["away"]
    assert not made[0]["good"], "not before a drill"
    assert home.json("backup", "verify", made[0]["id"])["compared"] == {"files": 1}
    assert home.json("backup", "list", "--addon", "disks")[0]["good"]
    put(volume, "kept.txt", "ruined")
    put(volume, "later.txt", "later")
    done = home.json("restore", made[0]["id"][:20])
    assert done[0]["name"] == "disks"
    try:
        home.serves(HOST, "/kept.txt", "as it was", 10)
    except AssertionError:
        print(home.cli("ps"), home.cli("events"), home.cli("logs", "--tail", "50"))
        raise
    assert home.get(HOST, "/later.txt").status == 404
    assert (home.path / "tombstones" / done[0]["tombstone"] / "later.txt").read_text() == "later"


def test_a_fork_has_the_disk_and_leaves_with_it(home: Home, volume: Path) -> None:
    """A fork answers with the copied disk on its own host, and is gone after destroy."""
    put(volume, "fork.txt", "forked")
    home.json("backup", "now", "disks")
    assert home.json("fork", "production", "--as", "look", "--project", "shelf")["result"]["status"] == "live"
    home.serves("web.look.shelf.localhost", "/fork.txt", "forked")
    taken = home.run("fork", "production", "--as", "look", "--project", "shelf")
    assert taken.returncode != 0
    assert "fork-refused" in taken.stderr
    home.cli("destroy", "shelf", "--env", "look", "--yes")
    assert home.get("web.look.shelf.localhost", "/fork.txt").status == 404


def test_what_cannot_be_is_told(home: Home, volume: Path, away: Path) -> None:
    """Unknown backups, times before the first one, targets that do not answer, and policies that make no sense."""
    home.json("backup", "now", "disks")
    for arguments, code in (
        (("restore", "20200101T000000Z-aaaaaa"), "backup-missing"),
        (("restore", "-p", "shelf", "--addon", "disks", "--to", "2020-01-01T00:00:00Z"), "time-unreachable"),
        (("backup", "verify", "nothing"), "backup-missing"),
        (("backup", "now", "nothing"), "backup-missing"),
        (("backup", "add-target", "bad", str(away / "file" / "folder")), "backup-target-failed"),
        (("backup", "add-target", "bad", "relative"), "usage"),
        (("backup", "schedule", "--recipient", "age1nonsense"), "backup-key-wrong"),
        (("restore",), "usage"),
    ):
        (away / "file").write_text("")
        done = home.run(*arguments)
        assert done.returncode != 0, arguments
        assert f"error[{code}]" in done.stderr, (arguments, done.stderr)
    assert [row["name"] for row in home.json("backup", "targets")] == ["away"]


def test_the_schedule_and_the_disk_are_told(home: Home, volume: Path) -> None:
    """The policy can be changed, everything has a next time, and the disk's report counts the project."""
    found = home.json("backup", "schedule", "--every", "6h", "--keep-daily", "14")
    assert found["policy"]["keep_daily"] == 14
    assert {row["name"] for row in found["schedule"]} == {"disks", "platform"}
    assert {row["name"]: row["rpo"] for row in found["schedule"]}["disks"] is None, "a disk comes back as it was copied"
    found = home.json("backup", "schedule", "--rpo", "5s", "--for", "shelf/production/db")
    assert found["policy"]["rpo_for"] == {"shelf/production/db": "PT5S"}
    assert found["policy"]["rpo"] == "PT1M", "of everything else nothing has changed"
    assert "error[" in home.run("backup", "schedule", "--rpo", "2m").stderr
    status, disk = home.api("GET", "/api/v1/disk")
    assert status == 200
    assert [usage["project"] for usage in disk["projects"]] == ["shelf"]


def test_a_reader_cannot_restore(home: Home, volume: Path) -> None:
    """A key with the scope `read` lists backups and changes nothing."""
    status, made = home.api("POST", "/api/v1/keys", {"name": "reader", "scopes": ["read"]})
    assert status == 201
    for method, path, wanted in (
        ("GET", "/api/v1/backups", 200),
        ("POST", "/api/v1/backups", 403),
        ("POST", "/api/v1/projects/shelf/environments/production/restore", 403),
        ("POST", "/api/v1/projects/shelf/environments/production/fork", 403),
        ("POST", "/api/v1/backup-targets", 403),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", home.api_port, timeout=30)
        headers = {"Authorization": f"Bearer {made['key']}", "Content-Type": "application/json"}
        connection.request(method, path, None if method == "GET" else json.dumps({"name": "x", "kind": "folder", "address": "/x"}), headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        assert answer.status == wanted, path
