"""An edge in a temporary home, applications behind it, and plain HTTP clients."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from homeport.drivers.edge.base import EdgeAction, EdgeRoute, RouteTable, Site, Target, Upstream
from homeport.drivers.edge.nginx import NginxEdge


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may go away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        app: App = self.server.app  # type: ignore[attr-defined]
        path = self.path.partition("?")[0]
        with app.lock:
            app.requests += 1
            if self.command == "POST":
                app.posts.append(self.headers.get("X-Id", ""))
        if path == "/ws":
            self._echo()
        elif path == "/sse":
            self._stream(app)
        elif path == "/slow":
            time.sleep(1)
            self._json({"app": app.name})
        elif path == "/down":
            self._json({"app": app.name}, status=503)
        else:
            self._json({"app": app.name, "method": self.command, "path": self.path, "headers": self._headers(), **self._body()})

    do_POST = do_PUT = do_HEAD = do_GET

    def _headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _body(self) -> dict[str, object]:
        digest, size = hashlib.sha256(), 0
        for piece in self._pieces():
            digest.update(piece)
            size += len(piece)
        return {"size": size, "sha256": digest.hexdigest()}

    def _pieces(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while length := int(self.rfile.readline(), 16):
                yield self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read(min(left, 1 << 20))
            left -= len(piece)
            yield piece

    def _json(self, value: object, status: int = 200) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Powered-By", "tests")
        self.send_header("X-Frame-Options", "SAMEORIGIN")
        self.send_header("X-Homeport-Release", "forged")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _stream(self, app: App) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        for number in range(200):
            self.wfile.write(f"data: {app.name} {number}\n\n".encode())
            self.wfile.flush()
            if app.stopped.wait(0.02):
                return

    def _echo(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.close_connection = True
        while data := self.connection.recv(4096):  # frames are echoed as they are
            self.connection.sendall(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@dataclass
class App:
    """An application that tells what it was asked."""

    name: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)
    requests: int = 0
    posts: list[str] = field(default_factory=list)
    port: int = 0

    def start(self) -> App:
        self.server = _Server(("127.0.0.1", self.port), _Handler)
        self.server.app = self  # type: ignore[attr-defined]
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    @property
    def target(self) -> Target:
        return Target(host="127.0.0.1", port=self.port)

    def upstream(self, **more: Any) -> Upstream:
        return Upstream.model_validate({"name": self.name, "targets": (self.target,), "release": self.name, **more})

    def stop(self) -> None:
        """Accept no more; what is open goes on."""
        if not self.stopped.is_set():
            self.stopped.set()
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()


@pytest.fixture
def app() -> Iterator[Callable[[str], App]]:
    """Starts applications."""
    apps: list[App] = []

    def start(name: str = "one") -> App:
        apps.append(App(name).start())
        return apps[-1]

    yield start
    for each in apps:
        each.stop()


@pytest.fixture
def port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[NginxEdge]:
    """A real edge; stopped in the end."""
    made = NginxEdge(tmp_path / "home")
    yield made
    made.stop()


@pytest.fixture
def table(port: int) -> Callable[..., RouteTable]:
    """Makes tables of one site, `web.localhost`, on the free port."""

    def make(*routes: EdgeRoute | EdgeAction, host: str = "web.localhost", drain: float = 30, **site: Any) -> RouteTable:
        made = tuple(route if isinstance(route, EdgeRoute) else EdgeRoute(action=route) for route in routes)
        return RouteTable(
            port=port, drain=timedelta(seconds=drain), sites=(Site(name="shop-production-web", hosts=(host,), routes=made, **site),)
        )

    return make


@dataclass
class Reply:
    """An answer, read whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@pytest.fixture
def ask(port: int) -> Callable[..., Reply]:
    """Asks the edge; the path goes out as it is written."""

    def send(
        path: str = "/", *, method: str = "GET", headers: dict[str, str] | None = None, body: Any = None, host: str = "web.localhost"
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection._validate_path = lambda _path: None  # type: ignore[attr-defined]
        try:
            connection.request(method, path, body=body, headers={"Host": host, **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    return send
