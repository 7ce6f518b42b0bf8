"""A control plane that is there and does not answer at once is waited for: another one beside it would only be refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from homeport.cli import client
from homeport.cli.client import Client
from homeport.cli.errors import CliError

BUSY = """
import http.server, json, os, sys, time

class Busy(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        Busy.asked += 1
        if Busy.asked == 1:
            time.sleep(1)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"pid": os.getpid()}).encode())

    def log_message(self, *_):
        pass

with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
"""


def test_one_that_is_busy_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first answer comes too late; nothing is started, and what it wrote down about itself stays."""
    monkeypatch.setenv("HOMEPORT_HOME", str(tmp_path))
    monkeypatch.setattr(client, "HEALTH_WITHIN", 0.3)
    process = subprocess.Popen([sys.executable, "-c", BUSY, "homeport"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        facts = {"pid": process.pid, "api": f"http://127.0.0.1:{process.stdout.readline().strip()}"}
        (tmp_path / "serve.json").write_text(json.dumps(facts))
        assert Client(start=True).facts() == facts
        assert not (tmp_path / "serve.log").exists()
        assert Client().facts() == facts
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("pid", [0, 1 << 22])
def test_one_that_is_gone_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: int) -> None:
    """What it left behind names no process."""
    monkeypatch.setenv("HOMEPORT_HOME", str(tmp_path))
    (tmp_path / "serve.json").write_text(json.dumps({"pid": pid, "api": "http://127.0.0.1:9"}))
    with pytest.raises(CliError) as raised:
        Client()
    assert raised.value.code == "control-plane-away"


GOES = """
import http.server, json, os, sys

class Goes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"pid": os.getpid()}).encode())

    def do_POST(self):
        os._exit(9)

    def log_message(self, *_):
        pass

with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Goes) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
"""


def test_one_that_goes_away_in_the_middle_is_not_said_to_have_done_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked for a change hears that it is not known how far it came; who asks again hears that nothing was done."""
    monkeypatch.setenv("HOMEPORT_HOME", str(tmp_path))
    (tmp_path / "cli.key").write_text("key")
    process = subprocess.Popen([sys.executable, "-c", GOES, "homeport"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        facts = {"pid": process.pid, "api": f"http://127.0.0.1:{process.stdout.readline().strip()}"}
        (tmp_path / "serve.json").write_text(json.dumps(facts))
        asking = Client()
        with pytest.raises(CliError, match="not known how far") as raised:
            asking.post("/api/v1/anything")
        assert raised.value.code == "control-plane-away"
        with pytest.raises(ConnectionRefusedError):
            asking.post("/api/v1/anything")
    finally:
        process.kill()
        process.communicate()
