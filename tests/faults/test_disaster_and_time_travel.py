"""A machine is lost and comes back from its backups; and an environment is forked as it was at a minute."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from homes import Home, home_in, outside_tmp

pytestmark = [pytest.mark.xdist_group("disaster"), pytest.mark.timeout(600), pytest.mark.slow]

APP = """
import hashlib, json, os, sqlite3
from http.server import BaseHTTPRequestHandler, HTTPServer
import psycopg, redis

def rows():
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as c:
        c.execute("CREATE TABLE IF NOT EXISTS users (id serial PRIMARY KEY, email text, name text)")
        return c.execute("SELECT id, email, name FROM users ORDER BY id").fetchall()

def notes():
    with sqlite3.connect("/data/notes.db") as c:
        c.execute("CREATE TABLE IF NOT EXISTS notes (text)")
        return [r[0] for r in c.execute("SELECT text FROM notes")]

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/add/"):
            _, _, email, name = self.path.split("/")
            with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as c:
                rows()
                c.execute("INSERT INTO users (email, name) VALUES (%s, %s)", [email, name])
            with sqlite3.connect("/data/notes.db") as c:
                notes()
                c.execute("INSERT INTO notes VALUES (?)", [name])
            redis.Redis.from_url(os.environ["REDIS_URL"]).set(name, email)
        keys = sorted(k.decode() for k in redis.Redis.from_url(os.environ["REDIS_URL"]).keys("*"))
        body = {"users": rows(), "notes": notes(), "keys": keys, "secret": os.environ["TOKEN"], "version": "v1"}
        if self.path == "/health":
            body = {}
        data = json.dumps(body).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(data))); self.end_headers(); self.wfile.write(data)
    def log_message(self, *a): pass

HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The project's source, and a folder for the backups, outside of the home."""
    root = outside_tmp()
    source = root / "shop"
    source.mkdir()
    (source / "app.py").write_text(APP)
    (source / "requirements.txt").write_text("psycopg[binary]\nredis\n")
    document = {
        "name": "shop",
        "watch": {"window": 0},
        "mask": {"users.email": "email", "users.name": "null"},
        "addons": {"db": {"kind": "postgres", "memory": "64MB"}, "cache": {"kind": "redis", "memory": "32MB"}},
        "services": {
            "web": {
                "kind": "web",
                "command": "python app.py",
                "health": {"path": "/health", "deadline": 20},
                "disks": [{"name": "data", "mount_path": "/data"}],
                "env": {
                    "DATABASE_URL": {"kind": "addon", "addon": "db", "property": "url"},
                    "REDIS_URL": {"kind": "addon", "addon": "cache", "property": "url"},
                    "TOKEN": {"kind": "generated", "format": "hex", "bytes": 16},
                },
            }
        },
    }
    (source / "homeport.yaml").write_text(json.dumps(document))
    yield root
    shutil.rmtree(root)


def ask(home: Home, path: str, environment: str = "production", seconds: float = 60) -> Any:
    """The application's answer, waited for."""
    host = "web.shop.localhost" if environment == "production" else f"web.{environment}.shop.localhost"
    until = time.monotonic() + seconds
    answer: Any = None
    while True:
        with contextlib.suppress(OSError, ValueError):
            answer = home.get(host, path)
            if answer.status == 200:
                return json.loads(answer.body)
        assert time.monotonic() < until, f"{answer}\n{home.cli('logs', '--env', environment, '--tail', '30', code=None)}\n{home.log()}"
        time.sleep(0.1)


def test_a_wiped_machine_answers_again_with_the_same_data(folder: Path, tmp_path: Path) -> None:
    """Everything of the home is removed; `recover` brings back releases, secrets, both engines and the disk, and the answers are equal."""
    place = outside_tmp()
    try:
        with home_in(place / "home") as home:
            assert home.up(folder / "shop", timeout=240)["status"] == "live"
            for number in range(5):
                ask(home, f"/add/u{number}@example.com/name{number}")
            home.cli("backup", "add-target", "away", str(folder / "away"))
            made = home.json("backup", "now", timeout=200)
            assert {row["kind"] for row in made} == {"postgres", "redis", "disks", "platform"}
            for row in made:
                proof = home.json("backup", "verify", row["id"], timeout=200)
                assert proof["problem"] == "", proof
            assert all(row["good"] for row in home.json("backup", "list"))

            _fork(home)

            before = ask(home, "/")
            key = (home.path / "vault.key").read_bytes()
            home.cli("down", timeout=120)
            _gone(home)
            (tmp_path / "vault.key").write_bytes(key)
            found = home.json("recover", "--from", str(folder / "away"), "--vault-key-file", str(tmp_path / "vault.key"), timeout=200)
            assert found["notes"] == []
            after = ask(home, "/")
            assert after == before
            ask(home, "/add/later@example.com/later")
            assert ask(home, "/")["users"][-1][1] == "later@example.com"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _gone(home: Home) -> None:
    from homeport.drivers.files import remove_tree

    for entry in home.path.iterdir():
        remove_tree(entry)


def _fork(home: Home) -> None:
    """A fork holds what was there at the minute, masked, beside production that goes on."""
    time.sleep(0.05)
    at = datetime.now(UTC)
    time.sleep(0.05)
    ask(home, "/add/after@example.com/after")
    forked = home.json("fork", "production", "--at", at.isoformat(), "--as", "what-happened", timeout=200)
    assert forked["result"]["status"] == "live", forked
    assert forked["masked"] == {"users.email": 5, "users.name": 5}
    there = ask(home, "/", "what-happened")
    assert len(there["users"]) == 5
    assert all(email.endswith("@example.invalid") and name is None for _, email, name in there["users"])
    assert there["secret"] == ask(home, "/")["secret"]
    assert there["notes"] == [f"name{number}" for number in range(5)]
    assert len(ask(home, "/")["users"]) == 6
    restored = home.json("restore", "--to", at.isoformat(), timeout=200)
    assert [row["name"] for row in restored] == ["db"]
    assert len(ask(home, "/")["users"]) == 5
    assert len(home.json("backup", "now", timeout=200)) == 7
