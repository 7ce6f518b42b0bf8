"""A relay from a port of 127.0.0.1 to an add-on's own address."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from types import TracebackType

from homeport.cli.errors import CliError

MOST = 256
"""Connections at once."""
CHUNK = 64 * 1024


class Relay:
    """Listens from the moment it is made; `serve` relays until it is interrupted or `close` is called."""

    def __init__(self, target: tuple[str, int], port: int = 0) -> None:
        """Raises CliError when the port is taken."""
        self._target, self._room = target, threading.BoundedSemaphore(MOST)
        try:
            self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        except OSError as error:
            raise CliError(
                {"code": "usage", "what": "Nothing is forwarded.",
                 "why": f"Port {port} of 127.0.0.1 cannot be used: {os.strerror(error.errno or 0)}.", "fix": "Name another port, or none."}
            ) from error  # fmt: skip
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def serve(self) -> None:
        """Relay every connection on a thread of its own."""
        while True:
            self._room.acquire()
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def _relay(self, near: socket.socket) -> None:
        try:
            with near, socket.create_connection(self._target, timeout=10) as far:
                far.settimeout(None)
                _both_ways(near, far)
        except OSError:
            pass
        finally:
            self._room.release()


def _both_ways(near: socket.socket, far: socket.socket) -> None:
    """Copy until both sides have said their last."""
    other = {near: far, far: near}
    with selectors.DefaultSelector() as watch:
        for side in other:
            watch.register(side, selectors.EVENT_READ, side)
        while watch.get_map():
            for key, _ in watch.select():
                side = key.data
                data = side.recv(CHUNK)
                if data:
                    other[side].sendall(data)
                else:
                    watch.unregister(side)
                    with contextlib.suppress(OSError):
                        other[side].shutdown(socket.SHUT_WR)
