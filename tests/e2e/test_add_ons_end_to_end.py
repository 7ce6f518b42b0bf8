"""Add-ons of a live project: they outlive everything, and their passwords change without a lost request."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from homes import Home, until

APP = """\
import http.server, os

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ["DATABASE_URL"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Page).serve_forever()
"""
SPEC = """\
name: ledger
services:
  web: {kind: web, command: python app.py}
addons:
  db: {kind: postgres}
  cache: {kind: redis}
"""
HOST = "web.ledger.localhost"


@pytest.fixture(scope="module")
def folder(home: Home, place: Path) -> Path:
    folder = place / "ledger"
    folder.mkdir()
    for name, text in (("app.py", APP), ("homeport.yaml", SPEC), ("requirements.txt", "")):
        (folder / name).write_text(text)
    assert home.up(folder)["status"] == "live"
    home.cli("psql", "-c", "create table kept (n int)", "-c", "insert into kept values (1)", cwd=folder)
    return folder


def rows(home: Home, folder: Path) -> int:
    found = json.loads(home.cli("psql", "-c", "select count(*) as n from kept", "--json", cwd=folder))
    return int(found[0]["rows"][0]["n"])


def pid_of(home: Home, name: str) -> int:
    record = home.path / "addons" / f"ledger-production-{name}" / "server" / "process.json"
    return int(json.loads(record.read_bytes())["pid"])


def states(home: Home, folder: Path) -> dict[str, str]:
    return {row["name"]: row["state"] for row in json.loads(home.cli("addons", "--json", cwd=folder))}


def answers(home: Home) -> bool:
    try:
        return home.get(HOST).status == 200
    except OSError:
        return False


def test_sql_runs_in_the_project_s_folder(home: Home, folder: Path) -> None:
    """`psql -c` in the project's folder, and with the add-on and the environment named."""
    assert "1 row" in home.cli("psql", "-c", "select 1", cwd=folder)
    assert "1 row" in home.cli("psql", "db", "-c", "select 1", "--env", "production", cwd=folder)
    assert home.cli("valkey-cli", "PING", cwd=folder) == "PONG\n"
    assert states(home, folder) == {"db": "running", "cache": "running"}


def test_an_add_on_that_is_killed_comes_back(home: Home, folder: Path) -> None:
    """Without any command, with its data, and an event says so."""
    for name in ("db", "cache"):
        old = pid_of(home, name)
        os.kill(old, signal.SIGKILL)
        until(lambda name=name, old=old: pid_of(home, name) != old, f"{name} to come back")  # type: ignore[misc]
    until(lambda: states(home, folder) == {"db": "running", "cache": "running"}, "both to answer")
    assert rows(home, folder) == 1
    assert "addon.restarted" in {row["kind"] for row in json.loads(home.cli("events", "--json", cwd=folder))}


def test_it_comes_back_when_the_control_plane_was_away(home: Home, folder: Path) -> None:
    """Both are killed; the next start of the control plane brings the add-on up before it looks at instances."""
    home.kill()
    os.kill(pid_of(home, "db"), signal.SIGKILL)
    home.serve()
    until(lambda: states(home, folder)["db"] == "running", "the database to run")
    assert rows(home, folder) == 1


def test_passwords_rotate_without_a_lost_request(home: Home, folder: Path) -> None:
    """Every request is answered while new instances with new passwords replace the old ones; the old password ends with them."""
    before = home.get(HOST).body
    failed: list[int] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.005):
            if home.get(HOST).status != 200:
                failed.append(1)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        home.cli("addons", "rotate", "db", cwd=folder)
        until(lambda: home.get(HOST).body != before, "the new password to be in use")
    finally:
        done.set()
        thread.join(20)
    assert failed == []
    assert rows(home, folder) == 1
    assert [row["id"] for row in json.loads(home.cli("releases", "--json", cwd=folder))][:2] == ["r2", "r1"]


def test_down_and_serve_bring_the_data_back(home: Home, folder: Path) -> None:
    """After `down` no server is left; the next start brings add-ons and instances up by itself."""
    home.cli("down")
    assert not [text for text in home.processes().values() if "postgres" in text or "valkey" in text]
    home.serve()
    until(lambda: states(home, folder) == {"db": "running", "cache": "running"}, "the add-ons to run")
    until(lambda: answers(home), "the service to answer")
    assert rows(home, folder) == 1
