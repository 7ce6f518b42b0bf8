"""A program that is not Homeport's and got hold of an instance's port while that one was down."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from bench_apps import BenchApp
from homes import Home, until

pytestmark = pytest.mark.xdist_group("e2e-exclusive")

STRANGER = """
import http.server, sys

class Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "9")
        self.end_headers()
        self.wfile.write(b"stranger\\n")

    def log_message(self, *_):
        pass

with http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Stranger) as server:
    print("listens", flush=True)
    server.serve_forever()
"""


def test_visitors_are_not_sent_to_a_stranger(home: Home, place: Path) -> None:
    """The instance is started on another port, and the edge asks it there."""
    app = BenchApp(place / "taken", "taken")
    home.up(app.folder)
    (instance,) = home.instances("taken")
    port = int(instance["address"].rpartition(":")[2])
    home.kill()
    os.kill(instance["pid"], signal.SIGKILL)
    until(lambda: not _listened(port), "the instance to be gone")
    with subprocess.Popen([sys.executable, "-c", STRANGER, str(port)], stdout=subprocess.PIPE) as stranger:
        try:
            assert stranger.stdout is not None and stranger.stdout.readline() == b"listens\n"
            assert home.get(app.host, "/version").body == "stranger\n"
            home.serve()
            home.serves(app.host, "/version", "v1\n", 60)
            until(lambda: [one["state"] for one in home.instances("taken")] == ["healthy"], "its state to be noted")
            (now,) = home.instances("taken")
            assert now["release"] == "r1" and not now["address"].endswith(f":{port}")
        finally:
            stranger.kill()


def _listened(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
