"""A machine is lost and comes back from its backups; and an environment is forked as it was at a minute."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from homes import Home, home_in, outside_tmp, until

from homeport.backups import mirror
from homeport.backups.repository import Repository
from homeport.drivers.storage.folder import FolderStorage
from homeport.drivers.storage.keys import home_key

pytestmark = [pytest.mark.xdist_group("disaster"), pytest.mark.timeout(600), pytest.mark.slow]

APP = """
import hashlib, json, os, sqlite3
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import unquote, urlsplit
import psycopg, pymysql, redis

def orders(*new):
    at = urlsplit(os.environ["MYSQL_URL"])
    user, password = unquote(at.username), unquote(at.password)
    c = pymysql.connect(host=at.hostname, port=at.port, user=user, password=password, database=at.path[1:], autocommit=True)
    with c, c.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS orders (id int AUTO_INCREMENT PRIMARY KEY, name varchar(50))")
        for name in new:
            cursor.execute("INSERT INTO orders (name) VALUES (%s)", [name])
        cursor.execute("SELECT id, name FROM orders ORDER BY id")
        return list(cursor.fetchall())

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
            orders(name)
        keys = sorted(k.decode() for k in redis.Redis.from_url(os.environ["REDIS_URL"]).keys("*"))
        body = {"users": rows(), "notes": notes(), "keys": keys, "orders": orders(), "secret": os.environ["TOKEN"], "version": "v1"}
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
    (source / "requirements.txt").write_text("psycopg[binary]\nredis\npymysql\n")
    document = {
        "name": "shop",
        "watch": {"window": 0},
        "mask": {"users.email": "email", "users.name": "null"},
        "addons": {
            "db": {"kind": "postgres", "memory": "64MB"},
            "cache": {"kind": "redis", "memory": "32MB"},
            "flows": {"kind": "temporal"},
            "sql": {"kind": "mariadb", "memory": "64MB"},
        },
        "services": {
            "web": {
                "kind": "web",
                "command": "python app.py",
                "health": {"path": "/health", "deadline": 20},
                "disks": [{"name": "data", "mount_path": "/data"}],
                "env": {
                    "DATABASE_URL": {"kind": "addon", "addon": "db", "property": "url"},
                    "REDIS_URL": {"kind": "addon", "addon": "cache", "property": "url"},
                    "MYSQL_URL": {"kind": "addon", "addon": "sql", "property": "url"},
                    "TEMPORAL_ADDRESS": {"kind": "addon", "addon": "flows", "property": "url"},
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


def flows(home: Home, *new: str) -> list[str]:
    """Starts workflows in the Temporal add-on of production; the names of all there are."""
    record = json.loads((home.path / "addons" / "shop-production-flows" / "addon.json").read_bytes())
    base = f"/api/v1/namespaces/{record['definition'].get('namespace', 'default')}"

    def call(method: str, path: str, body: Any = None) -> Any:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", record["extra_ports"][0], timeout=20)) as door:
            door.request(method, base + path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
            answer = door.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            return json.loads(text)

    for name in new:
        call("POST", f"/workflows/{name}", {"workflowType": {"name": "ship"}, "taskQueue": {"name": "q"}, "requestId": name})
    found: set[str] = set()

    def listed() -> bool:
        found.update(row["execution"]["workflowId"] for row in call("GET", "/workflows").get("executions", []))
        return set(new) <= found

    until(listed, "the workflows to be listed")
    return sorted(found)


def lost(home: Home, away: Path) -> float:
    """Sets a variable, and ends everything as soon as a target knows it; the seconds that took."""
    repository = Repository(FolderStorage("away", away), home_key(home.path / "backups" / "key"), outside_tmp())
    seen = repository.scratch / "seen"
    seen.mkdir()

    def knows() -> bool:
        found = mirror.newest(repository)
        assert found is not None
        mirror.put_back(found, seen)
        with contextlib.closing(sqlite3.connect(seen / "homeport.db")) as store:
            return bool(store.execute("SELECT count(*) FROM secrets WHERE name LIKE '%LATE%'").fetchone()[0])

    try:
        home.cli("env", "set", "LATE=seconds before the end", "-p", "shop")
        began = time.monotonic()
        until(knows, "the change to be on the target", 30)
        took = time.monotonic() - began
    finally:
        shutil.rmtree(repository.scratch)
    home.kill()
    for pid in home.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not home.processes(), "the last process to end")
    return took


def test_a_wiped_machine_answers_again_with_the_same_data(folder: Path, tmp_path: Path) -> None:
    """Killed and removed seconds after a change; `recover` brings back releases, secrets, four engines and the disk, with equal answers."""
    place = outside_tmp()
    try:
        with home_in(place / "home") as home:
            assert home.up(folder / "shop", timeout=240)["status"] == "live"
            for number in range(5):
                ask(home, f"/add/u{number}@example.com/name{number}")
            flows(home, "order-1", "order-2")
            home.cli("backup", "add-target", "away", str(folder / "away"))
            made = home.json("backup", "now", timeout=200)
            assert {row["kind"] for row in made} == {"postgres", "redis", "mariadb", "temporal", "disks", "platform"}
            for row in made:
                proof = home.json("backup", "verify", row["id"], timeout=200)
                assert proof["problem"] == "", proof
            assert {row["id"] for row in made} <= {row["id"] for row in home.json("backup", "list") if row["good"]}

            _fork(home)

            before, started = ask(home, "/"), flows(home)
            assert started == ["order-1", "order-2"]
            key = (home.path / "vault.key").read_bytes()
            assert lost(home, folder / "away") < 10
            _gone(home)
            (tmp_path / "vault.key").write_bytes(key)
            found = home.json("recover", "--from", str(folder / "away"), "--vault-key-file", str(tmp_path / "vault.key"), timeout=200)
            assert found["notes"] == []
            after = ask(home, "/")
            assert after == before
            assert flows(home) == started
            assert home.json("env", "get", "LATE", "-p", "shop")["value"] == "seconds before the end"
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
    assert {note.split()[0] for note in forked["notes"] if "keeps no log" in note} == {"cache", "flows", "sql"}
    assert forked["masked"] == {"users.email": 5, "users.name": 5}
    there = ask(home, "/", "what-happened")
    assert len(there["users"]) == 5
    assert all(email.endswith("@example.invalid") and name is None for _, email, name in there["users"])
    assert there["secret"] == ask(home, "/")["secret"]
    assert there["notes"] == [f"name{number}" for number in range(5)]
    assert len(ask(home, "/")["users"]) == 6
    restored = home.json("restore", "-p", "shop", "--to", at.isoformat(), timeout=200)
    assert [row["name"] for row in restored] == ["db"]
    assert len(ask(home, "/")["users"]) == 5
    assert len(home.json("backup", "now", timeout=200)) == 11
