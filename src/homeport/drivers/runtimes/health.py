"""Whether an instance is well: one check, and the wait until a new instance is.

A check asks the instance itself, not the edge. It follows no redirects, uses no proxy, reads at most 64 KiB, and ends on time
whatever the instance does.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from http.client import HTTPException, HTTPResponse
from typing import Literal

from homeport.drivers.runtimes import processes
from homeport.drivers.runtimes.base import CanExecute, Exit, Handle, StartRefused
from homeport.drivers.runtimes.watcher import wait_for_any
from homeport.model.base import Frozen
from homeport.model.service import HealthCheck

TIMEOUT = 5.0
"""Seconds one check may take, when it names none (Render's figure)."""
DEADLINE = timedelta(seconds=60)
"""How long a new instance may take to become well, when its check names no deadline."""
INTERVAL = 1.0
"""Seconds between checks while an instance starts, at most."""
FIRST_PAUSE = 0.02
GROWTH = 1.3
"""Each pause is so much longer than the one before: a program that is up in 60 ms is seen at about 80 ms."""
ELSEWHERE = 10.0
"""Seconds after which a program that listens on another port than its own is not waited for any longer."""
REACHABLE = frozenset({"0.0.0.0", "::", "127.0.0.1"})  # noqa: S104 (compared with, not bound to)
"""Addresses of a listener that 127.0.0.1 reaches; what binds to `::` takes IPv4 too, unless it asks not to."""
BODY = 64 << 10

Cause = Literal["", "exited", "not-listening", "wrong-port", "status", "body", "timeout", "broken", "command", "taken"]


class Verdict(Frozen):
    """What a check found."""

    ok: bool
    detail: str
    """One sentence for the user."""
    cause: Cause = ""
    status: int = 0
    """HTTP status, when there was one."""
    seconds: float = 0
    """Time the check took, or the wait."""
    ports: tuple[int, ...] = ()
    """For `wrong-port`: other ports on which it can be reached from this machine."""
    exit: Exit | None = None
    tail: tuple[str, ...] = ()
    """The instance's last log lines, when it ended or did not become well."""


class HealthProber:
    """Checks instances. Thread-safe; keeps nothing between checks."""

    def __init__(self, *, pids: Callable[[str], Sequence[int]] = lambda _: (), execute: CanExecute | None = None) -> None:
        """`pids` tells the processes of an instance (`ProcessRuntime.pids`); `execute` runs command checks."""
        self._pids = pids
        self._execute = execute

    def check(self, check: HealthCheck, handle: Handle, *, host_header: str = "", timeout: float | None = None) -> Verdict:
        """Check once. Never raises for what the instance does; ends after the check's timeout, or `timeout` seconds if that is less."""
        allowed = TIMEOUT if check.timeout is None else check.timeout.total_seconds()
        seconds = allowed if timeout is None else max(0.01, min(allowed, timeout))
        begun = time.monotonic()
        verdict = self._check(check, handle, host_header, seconds)
        return verdict.model_copy(update={"seconds": time.monotonic() - begun})

    def _check(self, check: HealthCheck, handle: Handle, host_header: str, seconds: float) -> Verdict:
        if check.kind == "none":
            return Verdict(ok=True, detail="it runs; no health check is set")
        if check.kind == "command":
            return self._run(check, handle, seconds)
        port = int(check.port) if check.port.isdigit() else handle.port
        if not port:
            return Verdict(ok=True, detail="it runs; it has no port to check")
        try:
            return _ask(check, handle.host or "127.0.0.1", port, host_header, seconds)
        except TimeoutError:
            return Verdict(ok=False, cause="timeout", detail=f"{_target(check, port)} did not answer within {seconds:g} s")
        except ConnectionRefusedError:
            return Verdict(ok=False, cause="not-listening", detail=f"nothing listens on port {port}")
        except (OSError, HTTPException) as error:
            reason = str(error) or type(error).__name__
            return Verdict(ok=False, cause="broken", detail=f"{_target(check, port)} broke off the answer: {reason[:200]}")

    def _run(self, check: HealthCheck, handle: Handle, seconds: float) -> Verdict:
        if self._execute is None:
            return Verdict(ok=False, cause="command", detail="this runtime cannot run a command inside an instance")
        try:
            done = self._execute.execute(handle.id, check.command, timeout=timedelta(seconds=seconds))
        except StartRefused as error:
            return Verdict(ok=False, cause="command", detail=f"the health command could not be run: {error.why}")
        last = done.output.strip().splitlines()[-1:] or [""]
        if done.code is None:
            return Verdict(ok=False, cause="timeout", detail=f"the health command did not end within {seconds:g} s")
        if done.code:
            return Verdict(
                ok=False, cause="command", detail=f"the health command ended with exit code {done.code}: {last[0][:200]}".rstrip(": ")
            )
        return Verdict(ok=True, detail="the health command succeeded")

    def wait_until_healthy(
        self,
        check: HealthCheck,
        handle: Handle,
        *,
        exited: Callable[[], Exit | None],
        deadline: timedelta | None = None,
        tail: Callable[[], Sequence[str]] = lambda: (),
        host_header: str = "",
        cancelled: Callable[[], bool] = lambda: False,
        expected: Collection[int] = (),
    ) -> Verdict:
        """Check until it is well, it has ended, it listens elsewhere, or the deadline (its own, or 60 s) has passed.

        The detail tells these apart. `tail` gives the log lines that a verdict which is not well carries. A program that listens on
        one of the `expected` other ports is not waited for at all.
        """
        allowed = (deadline or check.deadline or DEADLINE).total_seconds()
        longest = min([INTERVAL, *(pause.total_seconds() for pause in (check.interval, check.start_interval) if pause)])
        begun = time.monotonic()
        pause = FIRST_PAUSE
        verdict: Verdict | None = None
        while True:
            passed = time.monotonic() - begun
            before, verdict = verdict, self.check(check, handle, host_header=host_header, timeout=allowed - passed)
            if verdict.cause == "timeout" and before is not None and allowed - passed < 1:
                verdict = before  # cut short by the deadline, it says less than the one before
            ended = exited()
            if ended is not None:
                verdict = Verdict(ok=False, cause="exited", detail=f"it ended before it was well: {ended.sentence()}", exit=ended)
            elif verdict.cause == "not-listening":
                verdict = self._elsewhere(verdict, handle, check)
            elif self._taken(handle, check):
                verdict = Verdict(ok=False, cause="taken", detail=f"another program answers on port {handle.port}, which it was given")
            passed = time.monotonic() - begun
            elsewhere = verdict.cause == "wrong-port" and (passed >= ELSEWHERE or any(port in expected for port in verdict.ports))
            elsewhere = elsewhere or (verdict.cause == "taken" and passed >= ELSEWHERE)
            given_up = passed >= allowed or cancelled() or elsewhere
            if verdict.ok or ended is not None or given_up:
                return self._final(verdict, passed, tail)
            wait_for_any([handle.pid], min(pause, allowed - passed))
            pause = min(pause * GROWTH, longest)

    def _final(self, verdict: Verdict, seconds: float, tail: Callable[[], Sequence[str]]) -> Verdict:
        if verdict.ok:
            return verdict.model_copy(update={"seconds": seconds})
        detail = verdict.detail if verdict.cause == "exited" else f"after {seconds:.0f} s {verdict.detail}"
        return verdict.model_copy(update={"seconds": seconds, "detail": detail, "tail": tuple(tail())})

    def _taken(self, handle: Handle, check: HealthCheck) -> bool:
        """Whether somebody else answers in its place: a program that got its port first. Nobody can be told apart where nothing is seen."""
        mine = set(self._pids(handle.id)) if check.kind in ("http", "tcp") and not check.port and handle.port else set()
        if not mine or any(number == handle.port for _, number in processes.listening(mine)):
            return False
        found = set(processes.listeners(handle.host or "127.0.0.1", handle.port))
        return bool(found) and not found & set(self._pids(handle.id))

    def _elsewhere(self, verdict: Verdict, handle: Handle, check: HealthCheck) -> Verdict:
        port = int(check.port) if check.port.isdigit() else handle.port
        found = processes.listening(self._pids(handle.id))
        if not found:
            return verdict
        same = [address for address, number in found if number == port]
        if same:
            detail = f"it listens on port {port} of {same[0]} only; it must listen on {handle.host or '127.0.0.1'} or 0.0.0.0"
        else:
            ports = " and ".join(str(number) for number in sorted({number for _, number in found}))
            detail = f"it listens on port {ports}, not on $PORT ({port})"
        reachable = {number for address, number in found if address in REACHABLE and number != port}
        return Verdict(ok=False, cause="wrong-port", detail=detail, ports=tuple(sorted(reachable)))


def _target(check: HealthCheck, port: int) -> str:
    return f"{check.path} on port {port}" if check.kind == "http" else f"port {port}"


def _ask(check: HealthCheck, host: str, port: int, host_header: str, seconds: float) -> Verdict:
    deadline = time.monotonic() + seconds
    with socket.create_connection((host, port), timeout=seconds) as plain:
        if check.kind == "tcp":
            return Verdict(ok=True, detail=f"port {port} accepts connections")
        connection = _secured(plain, check, host) if check.tls else plain
        connection.sendall(_request(check, host_header or f"{host}:{port}"))
        data = _receive(connection, deadline, until=b"" if check.expect_body else b"\r\n\r\n", text=check.expect_body.encode())
    response = HTTPResponse(_Received(data), method=check.method)  # type: ignore[arg-type]
    response.begin()
    low, high = check.expect_status
    if not low <= response.status <= high:
        return Verdict(ok=False, cause="status", status=response.status, detail=f"{check.path} answered {response.status}")
    if check.expect_body and check.expect_body.encode() not in _body(response):
        return Verdict(ok=False, cause="body", status=response.status, detail=f"{check.path} answered without {check.expect_body[:80]!r}")
    return Verdict(ok=True, status=response.status, detail=f"{check.path} answered {response.status}")


def _request(check: HealthCheck, host_header: str) -> bytes:
    """The request as bytes. Line ends inside header values or the path would let a file write more than it may: they are removed."""
    headers = {"Host": host_header, "User-Agent": "Homeport-Health/1", "Accept": "*/*", **check.headers, "Connection": "close"}
    body = check.body.encode()
    if body:
        headers["Content-Length"] = str(len(body))
    path = check.path if check.path.startswith("/") else f"/{check.path}"
    lines = [f"{check.method} {path.replace(' ', '%20')} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    clean = (line.replace("\r", "").replace("\n", "") for line in lines)
    return "\r\n".join([*clean, "", ""]).encode("utf-8") + body


def _secured(plain: socket.socket, check: HealthCheck, host: str) -> socket.socket:
    context = ssl.create_default_context()
    if check.tls_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=check.tls_server_name or host)


def _receive(connection: socket.socket, deadline: float, *, until: bytes, text: bytes) -> bytes:
    """Read up to `until`, or until `text` has come, the peer closes, or 64 KiB; the deadline is for all of it together."""
    data = bytearray()
    while len(data) < BODY:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(min(16_384, BODY - len(data)))
        data += piece
        if not piece or (until and until in data) or (text and text in data.partition(b"\r\n\r\n")[2]):
            break
    return bytes(data)


def _body(response: HTTPResponse) -> bytes:
    try:
        return response.read(BODY)
    except HTTPException as error:
        return getattr(error, "partial", b"") or b""


class _Received:
    """Bytes already read, in the shape `http.client` takes them."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)
