"""Health checks against small servers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from homeport.drivers.runtimes import health
from homeport.drivers.runtimes.base import Executed, Exit, Handle
from homeport.drivers.runtimes.health import HealthProber
from homeport.model.service import HealthCheck

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@contextmanager
def _server(answer: Callable[[bytes], bytes], *, hold: bool = False) -> Iterator[int]:
    """A server that answers each connection with what `answer` makes of the request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                kept.append(connection)
                try:
                    connection.sendall(answer(connection.recv(65_536)))
                except OSError:
                    pass
                if not hold:
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in kept:
                connection.close()


def _handle(port: int) -> Handle:
    return Handle(id="i", pid=os.getpid(), start_time=0, started_at=datetime.now(UTC), host="127.0.0.1", port=port)


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_an_answer_in_the_expected_range_is_well() -> None:
    """2xx and 3xx are well by default; a redirect is not followed."""
    asked: list[bytes] = []
    for status in (b"200 OK", b"204 No Content", b"301 Moved\r\nLocation: http://127.0.0.1:1/"):

        def answer(request: bytes, status: bytes = status) -> bytes:
            asked.append(request)
            return b"HTTP/1.1 " + status + b"\r\n\r\n"

        with _server(answer) as port:
            check = HealthCheck(path="/up", headers={"X-Token": "a\r\nX-Evil: b"})
            verdict = HealthProber().check(check, _handle(port), host_header="shop.test")
            assert verdict.ok and verdict.status == int(status[:3]) and 0 < verdict.seconds < 5
    first = asked[0].decode()
    assert first.startswith("GET /up HTTP/1.1\r\nHost: shop.test\r\n") and "\r\nX-Evil" not in first


def test_a_server_that_keeps_the_connection_open_is_seen_at_once() -> None:
    """The check does not wait for the end of the connection."""
    with _server(lambda _: OK, hold=True) as port:
        assert HealthProber().check(HealthCheck(timeout=timedelta(seconds=20)), _handle(port)).seconds < 10
        assert HealthProber().check(HealthCheck(expect_body="hell"), _handle(port)).ok


@pytest.mark.parametrize(
    ("answer", "cause", "words"),
    [
        (b"HTTP/1.1 500 Oh\r\n\r\n", "status", "answered 500"),
        (b"HTTP/1.1 404 No\r\n\r\n", "status", "answered 404"),
        (b"garbage\r\n\r\n", "broken", "broke off"),
        (b"", "broken", "broke off"),
        (OK, "body", "without 'ready'"),
    ],
)
def test_a_bad_answer_is_named(answer: bytes, cause: str, words: str) -> None:
    """Status, broken answers and missing text are told apart."""
    check = HealthCheck(path="/up", expect_body="ready" if cause == "body" else "")
    with _server(lambda _: answer) as port:
        verdict = HealthProber().check(check, _handle(port))
    assert not verdict.ok and verdict.cause == cause and words in verdict.detail


def test_a_server_that_never_answers_ends_on_time() -> None:
    """The timeout holds for the whole check, also when bytes drip in."""
    check = HealthCheck(timeout=timedelta(milliseconds=200))
    with _server(lambda _: b"HTTP/1.1 200", hold=True) as port:
        verdict = HealthProber().check(check, _handle(port))
    assert verdict.cause == "timeout" and verdict.seconds < 10


def test_an_endless_answer_is_cut() -> None:
    """No more than 64 KiB are read."""
    with _server(lambda _: OK[:-5].replace(b"5", b"9999999") + b"x" * 1_000_000, hold=True) as port:
        assert HealthProber().check(HealthCheck(expect_body="never"), _handle(port)).cause == "body"


def test_a_port_check_asks_only_for_a_connection() -> None:
    """tcp is well when the port accepts; nothing listening is named."""
    with _server(lambda _: b"", hold=True) as port:
        assert HealthProber().check(HealthCheck(kind="tcp"), _handle(port)).ok
    assert HealthProber().check(HealthCheck(kind="tcp"), _handle(port)).cause == "not-listening"


class _Executes:
    def __init__(self, code: int | None) -> None:
        self.code = code

    def execute(self, id: str, command: tuple[str, ...] | str, *, timeout: timedelta) -> Executed:
        return Executed(code=self.code, output="line\nlast words\n")


@pytest.mark.parametrize(
    ("code", "ok", "words"), [(0, True, "succeeded"), (2, False, "exit code 2: last words"), (None, False, "did not end")]
)
def test_a_command_check_is_its_exit_code(code: int | None, ok: bool, words: str) -> None:
    """0 is well; otherwise the last line says why."""
    verdict = HealthProber(execute=_Executes(code)).check(HealthCheck(kind="command", command="x"), _handle(1))
    assert verdict.ok is ok and words in verdict.detail


def test_a_program_that_comes_up_is_seen_at_once() -> None:
    """What listens after 60 ms is found well before 130 ms have passed: the best of some tries, since other programs run here too."""
    waits: list[float] = []
    while len(waits) < 20 and min(waits, default=1.0) >= 0.13:
        waits.append(_wait_for_one_that_comes_up())
    assert 0.05 < min(waits) < 0.13


def _wait_for_one_that_comes_up() -> float:
    port = _free()
    servers: list[socket.socket] = []

    def come_up() -> None:
        time.sleep(0.06)
        listener = socket.create_server(("127.0.0.1", port))
        servers.append(listener)
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.sendall(OK)
        connection.close()

    thread = threading.Thread(target=come_up)
    thread.start()
    verdict = HealthProber().wait_until_healthy(HealthCheck(), _handle(port), exited=lambda: None)
    thread.join()
    servers[0].close()
    assert verdict.ok
    return verdict.seconds


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_a_stranger_on_its_port_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch, kind: Literal["http", "tcp"]) -> None:
    """A program that got the port first answers in vain; once the instance itself does, it is well."""
    monkeypatch.setattr(health, "ELSEWHERE", 0.1)
    check = HealthCheck(kind=kind)
    with _server(lambda _: OK) as port, subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        pids = [other.pid]
        prober = HealthProber(pids=lambda _: pids)
        verdict = prober.wait_until_healthy(check, _handle(port), exited=lambda: None, deadline=timedelta(seconds=30))
        assert (verdict.ok, verdict.cause) == (False, "taken") and f"another program answers on port {port}" in verdict.detail
        pids.append(os.getpid())
        assert prober.wait_until_healthy(check, _handle(port), exited=lambda: None, deadline=timedelta(seconds=30)).ok


def test_an_instance_that_ends_is_not_waited_for() -> None:
    """The verdict says how it ended and carries its last lines."""
    ended = Exit(code=1, at=datetime.now(UTC))
    verdict = HealthProber().wait_until_healthy(
        HealthCheck(), _handle(_free()), exited=lambda: ended, tail=lambda: ["Traceback", "KeyError"]
    )
    assert (
        verdict.cause == "exited" and "exit code 1" in verdict.detail and verdict.tail == ("Traceback", "KeyError") and verdict.seconds < 10
    )


def test_listening_on_another_port_is_named() -> None:
    """When a process of the instance listens elsewhere, the verdict says where."""
    wanted = _free()
    with socket.create_server(("127.0.0.1", 0)) as other:
        prober = HealthProber(pids=lambda _: [os.getpid()])
        verdict = prober.wait_until_healthy(HealthCheck(), _handle(wanted), exited=lambda: None, deadline=timedelta(milliseconds=150))
        assert verdict.cause == "wrong-port"
        assert str(other.getsockname()[1]) in verdict.detail and f"not on $PORT ({wanted})" in verdict.detail


def test_listening_on_another_address_is_named() -> None:
    """The right port on an address that the edge does not use is told."""
    with socket.create_server(("127.0.0.2", 0)) as other:
        port = other.getsockname()[1]
        verdict = HealthProber(pids=lambda _: [os.getpid()]).wait_until_healthy(
            HealthCheck(), _handle(port), exited=lambda: None, deadline=timedelta(milliseconds=100)
        )
    assert f"port {port} of 127.0.0.2 only" in verdict.detail


def test_the_deadline_ends_the_wait_with_the_last_finding() -> None:
    """An instance that answers 500 until the deadline is told as such."""
    with _server(lambda _: b"HTTP/1.1 503 Busy\r\n\r\n") as port:
        verdict = HealthProber().wait_until_healthy(
            HealthCheck(path="/up"), _handle(port), exited=lambda: None, deadline=timedelta(milliseconds=150), tail=lambda: ["x"]
        )
    assert verdict.cause == "status" and "/up answered 503" in verdict.detail and verdict.tail == ("x",) and 0.1 < verdict.seconds < 10


def test_a_cancelled_wait_returns() -> None:
    """A deploy that was superseded does not wait for the deadline."""
    verdict = HealthProber().wait_until_healthy(HealthCheck(), _handle(_free()), exited=lambda: None, cancelled=lambda: True)
    assert not verdict.ok and verdict.seconds < 10
