"""Visitors: steady requests over kept and fresh connections, slow answers, server-sent events and WebSockets, strictly counted.

Every request that did not get a whole 2xx answer counts as failed; nothing is retried. A kept connection that the server ends between
two answers is no failure only when its last answer said `Connection: close`.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass
class Tally:
    """What visitors saw."""

    requests: int = 0
    failed: int = 0
    posts: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    posted: set[str] = field(default_factory=set)
    slowest: float = 0.0
    """Seconds."""


@dataclass
class Streams:
    """What clients of long answers saw."""

    slow: int = 0
    slow_failed: int = 0
    sse_opened: int = 0
    sse_clean: int = 0
    """Ended by the end of the answer."""
    sse_broken: int = 0
    """Ended by a reset, or in the middle of a chunk."""
    sse_refused: int = 0
    ws_opened: int = 0
    ws_clean: int = 0
    """Ended by a close frame."""
    ws_broken: int = 0
    ws_refused: int = 0
    errors: Counter[str] = field(default_factory=Counter)


class Traffic:
    """Load on one site until the block ends. `rate` is over all threads, a second."""

    def __init__(
        self,
        port: int,
        host: str,
        *,
        threads: int = 4,
        rate: float = 200.0,
        path: str = "/version",
        post: str = "/once",
        streams: bool = False,
        slow_ms: int = 5000,
    ) -> None:
        self.port, self.host, self.path, self.post = port, host, path, post
        self.tally, self.streams = Tally(), Streams()
        self._name = secrets.token_hex(4)
        self._pause = threads / rate
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._visit, args=(number,), daemon=True) for number in range(threads)]
        if streams:
            self._threads += [
                threading.Thread(target=self._slow, args=(slow_ms,), daemon=True),
                threading.Thread(target=self._sse, daemon=True),
                threading.Thread(target=self._ws, daemon=True),
            ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End the visits; those in flight finish."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    # --- plain requests: even threads keep their connection, odd ones do not; every second one posts ---------------

    def _visit(self, number: int) -> None:
        keep, posts = number % 2 == 0, number // 2 % 2 == 1
        connection: _Connection | None = None
        count, due = 0, time.monotonic() + number * self._pause / len(self._threads)
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._pause, time.monotonic() - 1.0)
            count += 1
            id = f"{self._name}-{number}-{count}"
            began = time.monotonic()
            try:
                connection = connection or _Connection(self.port)
                method, path = ("POST", f"{self.post}?id={id}") if posts else ("GET", self.path)
                status, body, stays = connection.ask(method, path, self.host, keep=keep)
                self._count(time.monotonic() - began, "" if 200 <= status < 300 else f"status {status}", posts, id, body)
            except OSError as error:
                self._count(time.monotonic() - began, f"{type(error).__name__}: {error}", posts, id, "")
                stays = False
            if not (keep and stays) and connection is not None:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _count(self, seconds: float, problem: str, posted: bool, id: str, body: str) -> None:
        with self._lock:
            tally = self.tally
            tally.requests += 1
            tally.posts += posted
            tally.slowest = max(tally.slowest, seconds)
            if problem:
                tally.failed += 1
                tally.errors[f"{'POST' if posted else 'GET'} {problem}"] += 1
            elif posted:
                tally.posted.add(id)
            else:
                tally.versions[body.strip()[:40]] += 1

    # --- long ones ------------------------------------------------------------------------------------------------

    def _slow(self, milliseconds: int) -> None:
        while not self._stop.is_set():
            connection = None
            try:
                connection = _Connection(self.port)
                status, _, _ = connection.ask("GET", f"/slow?ms={milliseconds}", self.host, keep=False)
                problem = "" if status == 200 else f"status {status}"
            except OSError as error:
                problem = f"{type(error).__name__}: {error}"
            if connection is not None:
                connection.close()
            self.streams.slow += 1
            if problem:
                self.streams.slow_failed += 1
                self.streams.errors[f"slow {problem}"] += 1
                self._stop.wait(0.1)

    def _sse(self) -> None:
        seen = self.streams
        while not self._stop.is_set():
            try:
                with contextlib.closing(_Connection(self.port)) as connection:
                    connection.send("GET", "/sse", self.host, keep=True)
                    if connection.head()[0] != 200:
                        raise ConnectionRefusedError("no stream")
                    seen.sse_opened += 1
                    try:
                        if self._chunks(connection):
                            seen.sse_clean += 1
                    except OSError as error:
                        seen.sse_broken += 1
                        seen.errors[f"sse {type(error).__name__}: {error}"] += 1
            except OSError as error:
                seen.sse_refused += 1
                seen.errors[f"sse refused {type(error).__name__}: {error}"] += 1
            self._stop.wait(0.1)

    def _chunks(self, connection: _Connection) -> bool:
        """Read until the stream ends (True) or the visit does (False)."""
        while True:
            if self._stop.is_set():
                return False
            size = int(connection.line(stop=self._stop) or b"0", 16)
            connection.exactly(size + 2)
            if size == 0:
                return not self._stop.is_set()

    def _ws(self) -> None:
        seen = self.streams
        while not self._stop.is_set():
            try:
                with contextlib.closing(_Connection(self.port)) as connection:
                    key = base64.b64encode(os.urandom(16)).decode()
                    more = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
                    connection.socket.sendall(f"GET /ws HTTP/1.1\r\nHost: {self.host}\r\n{more}\r\n".encode())
                    if connection.head()[0] != 101:
                        raise ConnectionRefusedError("no upgrade")
                    seen.ws_opened += 1
                    try:
                        if self._frames(connection):
                            seen.ws_clean += 1
                    except OSError as error:
                        seen.ws_broken += 1
                        seen.errors[f"ws {type(error).__name__}: {error}"] += 1
            except OSError as error:
                seen.ws_refused += 1
                seen.errors[f"ws refused {type(error).__name__}: {error}"] += 1
            self._stop.wait(0.1)

    def _frames(self, connection: _Connection) -> bool:
        """Send a message five times a second and read its echo, until a close frame (True) or the visit ends (False)."""
        while not self._stop.is_set():
            connection.socket.sendall(bytes([0x81, 0x84, 0, 0, 0, 0]) + b"ping")
            first, length = connection.exactly(2)
            connection.exactly(length & 127)
            if first & 15 == 8:
                return True
            self._stop.wait(0.2)
        return False


class _Connection:
    """HTTP/1.1 by hand: fast, and blind to nothing."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def close(self) -> None:
        self.socket.close()

    def send(self, method: str, path: str, host: str, *, keep: bool) -> None:
        close = "" if keep else "Connection: close\r\n"
        length = "Content-Length: 0\r\n" if method == "POST" else ""
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{close}{length}\r\n".encode())

    def ask(self, method: str, path: str, host: str, *, keep: bool) -> tuple[int, str, bool]:
        """One request and its whole answer: status, body, whether the connection stays."""
        self.send(method, path, host, keep=keep)
        status, headers = self.head()
        if "chunked" in headers.get("transfer-encoding", ""):
            body = b""
            while size := int(self.line(), 16):
                body += self.exactly(size + 2)[:-2]
            self.exactly(2)
        else:
            body = self.exactly(int(headers.get("content-length", "0")))
        return status, body.decode(errors="replace"), headers.get("connection", "").lower() != "close"

    def head(self) -> tuple[int, dict[str, str]]:
        status = int(self.line().split(b" ", 2)[1])
        headers: dict[str, str] = {}
        while line := self.line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def line(self, stop: threading.Event | None = None) -> bytes:
        while b"\r\n" not in self._buffer:
            if stop is not None and stop.is_set():
                return b""
            self._more()
        found, _, self._buffer = self._buffer.partition(b"\r\n")
        return found

    def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError("the connection ended before the answer did")
        self._buffer += data
