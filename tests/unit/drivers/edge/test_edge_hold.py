"""Callers who wait."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from homeport.drivers.edge.base import Target
from homeport.drivers.edge.connections import established
from homeport.drivers.edge.hold import Holder

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def caller(holder: Holder, data: bytes = REQUEST) -> bytes:
    with socket.create_connection((holder.target.host, holder.target.port), timeout=10) as client:
        client.sendall(data)
        return b"".join(iter(lambda: client.recv(65536), b""))


def until(what: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert what()


def test_callers_wait_and_are_answered_after_the_release(app: Callable[..., Any]) -> None:
    """Nothing is read before the instance accepts; then each gets its answer, large bodies whole."""
    holder = Holder()
    holder.start()
    body = b"x" * 3_000_000
    post = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3000000\r\n\r\n" + body
    with ThreadPoolExecutor(21) as pool:
        waiting = [pool.submit(caller, holder) for _ in range(20)]
        large = pool.submit(caller, holder, post)
        until(lambda: holder.held() == 21)
        holder.release(app().target)
        assert all(answer.result().startswith(b"HTTP/1.1 200") for answer in waiting)
        assert b'"size": 3000000' in large.result()
    until(lambda: holder.active() == 0)
    assert caller(holder).startswith(b"HTTP/1.1 200")
    holder.stop()


def test_an_instance_that_is_not_there_yet_is_asked_again(app: Callable[..., Any]) -> None:
    """A release to a port that refuses is not a failure until the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        target = Target(host="127.0.0.1", port=taken.getsockname()[1])
    holder = Holder()
    holder.start()
    holder.release(target)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(caller, holder)
        time.sleep(0.2)
        late = app("late")
        holder.release(late.target)
        assert b'"late"' in waiting.result()
    holder.stop()


def test_who_waits_too_long_is_told_503() -> None:
    """At the deadline: 503, no-store, Retry-After."""
    holder = Holder(deadline=timedelta(seconds=0.2))
    holder.start()
    answer = caller(holder, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Cache-Control: no-store" in answer
    assert b"Retry-After: 5" in answer
    until(lambda: holder.active() == 0)
    holder.stop()


def test_held_connections_are_bounded(app: Callable[..., Any]) -> None:
    """Beyond the limit callers wait in the backlog, and come next."""
    holder = Holder(limit=3)
    holder.start()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(caller, holder) for _ in range(8)]
        until(lambda: holder.held() == 3)
        time.sleep(0.1)
        assert holder.active() == 3
        holder.release(app().target)
        assert all(answer.result().startswith(b"HTTP/1.1 200") for answer in waiting)
    holder.stop()


def test_a_stopped_holder_lets_go(app: Callable[..., Any]) -> None:
    """Stopping closes what is held and frees the port; stopping again is fine."""
    holder = Holder()
    holder.start()
    with socket.create_connection((holder.target.host, holder.target.port), timeout=30) as client:
        client.sendall(REQUEST)
        until(lambda: holder.held() == 1)
        holder.stop()
        holder.stop()
        with pytest.raises(ConnectionResetError):
            if client.recv(10) == b"":
                raise ConnectionResetError
    with socket.create_server((holder.target.host, holder.target.port)):
        pass


def test_open_connections_of_a_process_are_counted() -> None:
    """IPv4, mapped and IPv6 addresses are found in /proc; others' connections are not counted."""
    import os

    for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        try:
            server = socket.create_server((host, 0), family=family)
        except OSError:
            continue
        with server, socket.create_connection(server.getsockname()[:2], timeout=30):
            accepted, _ = server.accept()
            with accepted:
                assert established([os.getpid()], host, server.getsockname()[1]) == 1
                assert established([1], host, server.getsockname()[1]) == 0
                assert established([os.getpid()], host, 1) == 0
