"""A relay that makes callers wait instead of failing, for services whose releases may not overlap (they share a disk).

Every table names the holder's address in the service's `backups`, so that nginx asks it when the instance accepts no connection.
A change of release: start the holder; apply a table whose target *is* the holder; drain the old instance and stop it; start the new one;
`release` to it; apply a table with the new instance; drain and stop the holder.

Requests that come in between are connections that nobody reads yet. Nothing of them is consumed before an instance has accepted them,
so none, not even a POST, can be lost or sent twice.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta

from homeport.drivers.edge.base import Target
from homeport.drivers.edge.pages import RETRY_AFTER, page

CHUNK = 64 * 1024
"""Bytes buffered per direction of a connection."""
AGAIN = 0.05
"""Seconds until an instance that refused a connection is asked again."""
LINGER = 2.0
"""Seconds a refused connection is still read, so that its answer is not lost in a reset."""


@dataclass(eq=False)
class _Side:
    """One socket of a pair and the bytes on their way to it."""

    socket: socket.socket
    pair: _Pair
    out: bytearray = field(default_factory=bytearray)
    ended: bool = False
    """It will send no more."""
    shut: bool = False
    """It was told that no more comes."""


@dataclass(eq=False)
class _Pair:
    """A caller, held or connected to an instance."""

    until: float
    """When waiting ends (monotonic seconds)."""
    caller: _Side = field(init=False)
    instance: _Side | None = None
    connecting: bool = False
    refused: bool = False
    again: float = 0.0


class Holder:
    """Listens on a loopback port, holds connections until `release`, then carries them. One thread; every method is thread-safe."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, limit: int = 10_000, deadline: timedelta = timedelta(seconds=60)) -> None:
        """`limit`: connections at a time; more wait in the kernel's backlog. `deadline`: how long a caller waits before it is told 503."""
        self._listener = socket.create_server((host, port), backlog=4096)
        self._listener.setblocking(False)
        self._limit, self._deadline = limit, deadline.total_seconds()
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._pairs: set[_Pair] = set()
        self._waiting: set[_Pair] = set()
        """Those that a time matters to: not connected yet, or refused and not gone."""
        self._target: Target | None = None
        self._stopping = self._accepting = False
        self._thread = threading.Thread(target=self._run, name="edge-holder", daemon=True)
        self.target = Target(host=host, port=self._listener.getsockname()[1])

    def start(self) -> Target:
        """Begin to hold; returns the address to route to."""
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._accept(True)
        self._thread.start()
        return self.target

    def release(self, target: Target) -> None:
        """Carry what is held, and what comes, to this instance."""
        self._target = target
        self._nudge()

    def hold(self) -> None:
        """From now on callers wait again; what is carried goes on."""
        self._target = None

    def active(self) -> int:
        """Connections that are held or carried."""
        return len(self._pairs)

    def carried(self) -> int:
        """Connections that an instance has, or is about to get."""
        return sum(pair.instance is not None for pair in list(self._pairs))

    def held(self) -> int:
        """Connections that wait for an instance."""
        return len(self._waiting)

    def stop(self) -> None:
        """Close everything. Already stopped is success."""
        self._stopping = True
        self._nudge()
        if self._thread.is_alive():
            self._thread.join(10)

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):
            self._wake.send(b"x")

    # -- the thread -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            for key, mask in self._selector.select(self._pause()):
                if key.fileobj is self._listener:
                    self._take()
                elif key.fileobj is self._woken:
                    self._woken.recv(4096)
                elif key.data.pair in self._pairs:
                    self._move(key.data, mask)
            self._advance()
        for pair in list(self._pairs):
            self._close(pair)
        for end in (self._listener, self._wake, self._woken):
            end.close()
        self._selector.close()

    def _pause(self) -> float | None:
        """Seconds until a deadline or another try is due."""
        due = [min(pair.again or pair.until, pair.until) for pair in self._waiting]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _accept(self, on: bool) -> None:
        if on != self._accepting:
            self._accepting = on
            if on:
                self._selector.register(self._listener, selectors.EVENT_READ)
            else:
                self._selector.unregister(self._listener)

    def _take(self) -> None:
        while len(self._pairs) < self._limit:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and self._pairs:
                    break  # go on when a connection has ended
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = _Pair(time.monotonic() + self._deadline)
            pair.caller = _Side(connection, pair)
            self._pairs.add(pair)
            self._waiting.add(pair)
        self._accept(False)

    def _advance(self) -> None:
        """Connect what may be connected; tell 503 to who waited too long."""
        now, target = time.monotonic(), self._target
        for pair in list(self._waiting):
            if pair.refused:
                if now >= pair.until:
                    self._close(pair)
            elif now >= pair.until:
                self._refuse(pair)
            elif pair.instance is None and target is not None and now >= pair.again:
                self._connect(pair, target)

    def _connect(self, pair: _Pair, target: Target) -> None:
        connection = socket.socket(socket.AF_INET6 if ":" in target.host else socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = connection.connect_ex((target.host, target.port))
        if code not in (0, errno.EINPROGRESS):
            connection.close()
            pair.again = time.monotonic() + AGAIN
            return
        pair.instance, pair.connecting, pair.again = _Side(connection, pair), True, 0.0
        self._selector.register(connection, selectors.EVENT_WRITE, pair.instance)

    def _move(self, side: _Side, mask: int) -> None:
        pair = side.pair
        try:
            if pair.connecting:
                self._connected(pair)
            else:
                if mask & selectors.EVENT_READ:
                    self._receive(side)
                if mask & selectors.EVENT_WRITE:
                    self._send(side)
        except BlockingIOError:
            pass
        except OSError:
            self._close(pair)
            return
        if pair.refused and pair.caller.ended:
            self._close(pair)
        elif pair in self._pairs and not pair.connecting:
            self._settle(pair)

    def _connected(self, pair: _Pair) -> None:
        instance = pair.instance
        assert instance is not None  # noqa: S101
        if instance.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._selector.unregister(instance.socket)
            instance.socket.close()
            pair.instance, pair.connecting, pair.again = None, False, time.monotonic() + AGAIN
        else:
            pair.connecting = False
            self._waiting.discard(pair)

    def _receive(self, side: _Side) -> None:
        other = self._other(side)
        data = side.socket.recv(CHUNK)
        if not data:
            side.ended = True
        elif other is not None:
            other.out += data
            self._send(other)

    def _send(self, side: _Side) -> None:
        if side.out:
            with contextlib.suppress(BlockingIOError):
                sent = side.socket.send(side.out)
                del side.out[:sent]
        other = self._other(side)
        if not side.out and other is not None and other.ended and not side.shut:
            side.shut = True
            side.socket.shutdown(socket.SHUT_WR)

    def _other(self, side: _Side) -> _Side | None:
        pair = side.pair
        return pair.instance if side is pair.caller else pair.caller if not pair.refused else None

    def _settle(self, pair: _Pair) -> None:
        """Watch each socket for what it can do next; close the pair when both directions ended."""
        sides = [side for side in (pair.caller, pair.instance) if side is not None]
        if pair.instance is not None and all(side.ended for side in sides) and not any(side.out for side in sides):
            self._close(pair)
            return
        try:
            for side in sides:
                other = self._other(side)
                if other is not None and other.ended and not side.out and not side.shut:
                    self._send(side)
                wanted = selectors.EVENT_WRITE if side.out else 0
                if not side.ended and (pair.refused or (other is not None and len(other.out) < CHUNK)):
                    wanted |= selectors.EVENT_READ
                self._watch(side, wanted)
        except OSError:
            self._close(pair)

    def _watch(self, side: _Side, wanted: int) -> None:
        known = self._selector.get_map().get(side.socket)
        if known is None and wanted:
            self._selector.register(side.socket, wanted, side)
        elif known is not None and not wanted:
            self._selector.unregister(side.socket)
        elif known is not None and known.events != wanted:
            self._selector.modify(side.socket, wanted, side)

    def _refuse(self, pair: _Pair) -> None:
        if pair.instance is not None:
            self._watch(pair.instance, 0)
            pair.instance.socket.close()
        body = page(503).encode()
        head = (
            f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
            f"Cache-Control: no-store\r\nRetry-After: {RETRY_AFTER}\r\nConnection: close\r\n\r\n"
        )
        pair.instance, pair.connecting, pair.refused, pair.until, pair.again = None, False, True, time.monotonic() + LINGER, 0.0
        with contextlib.suppress(OSError):
            pair.caller.socket.send(head.encode() + body)
            pair.caller.socket.shutdown(socket.SHUT_WR)
        self._settle(pair)

    def _close(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        self._waiting.discard(pair)
        for side in (pair.caller, pair.instance):
            if side is not None and side.socket.fileno() >= 0:
                self._watch(side, 0)
                side.socket.close()
        if not self._stopping and len(self._pairs) < self._limit:
            self._accept(True)
