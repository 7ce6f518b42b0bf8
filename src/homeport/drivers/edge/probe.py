"""A steady visitor: requests through the edge during a switch, and what became of them."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter

from homeport.drivers.edge.control import RELEASE_HEADER, TOKEN_HEADER
from homeport.model.release import ProbeResult

VISITORS = 4
"""Threads: half keep their connection, half open a new one for every request."""
MADE_BY_EDGE = frozenset({502, 503, 504})
LARGEST_READ = 256 * 1024
"""Bytes of an answer that are read; the connection of a longer one is closed."""


class Probe:
    """Sends `GET path` for `host` at a steady rate until it is stopped.

    A request failed when no whole answer came (refused, reset, timed out) or when the edge itself answered 502, 503 or 504 in place of
    an instance. What an instance answers, 5xx too, is its own affair and not a loss of the switch.
    """

    def __init__(
        self,
        *,
        address: str,
        port: int,
        host: str,
        path: str = "/",
        token: str = "",
        rate: float = 100,
        timeout: float = 10.0,
        release: str = "",
    ) -> None:
        """`rate`: requests a second in all. `timeout`: seconds. `release`: the new one, whose first answer is noted.

        `token`: what `NginxEdge.token()` gives; without it the edge does not say which release answers.
        """
        self._to = ("127.0.0.1" if address == "0.0.0.0" else "::1" if address == "::" else address, port)  # noqa: S104
        self._headers = {"Host": host if port in (80, 443) else f"{host}:{port}", TOKEN_HEADER: token, "User-Agent": "homeport-probe"}
        self._path, self._timeout, self._release = path, timeout, release
        self._pause = VISITORS / rate
        self._stop, self._new = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._requests = self._failed = 0
        self._errors: Counter[str] = Counter()
        self._first = 0.0
        self._began = 0.0
        self._threads: list[threading.Thread] = []

    def start(self, began: float | None = None) -> Probe:
        """Begin. `began`: `time.monotonic()` at the start of the deploy, from which `first_new` counts; default now."""
        self._began = time.monotonic() if began is None else began
        for number in range(VISITORS):
            thread = threading.Thread(target=self._visit, args=(number,), name=f"probe-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def stop(self) -> ProbeResult:
        """End after the requests that are open, and say what was seen."""
        self._stop.set()
        for thread in self._threads:
            thread.join(self._timeout + 5)
        return self.result()

    def result(self) -> ProbeResult:
        """What was seen until now; `errors` counts each kind, most frequent first."""
        with self._lock:
            errors = tuple(f"{count} × {kind}" for kind, count in self._errors.most_common(10))
            return ProbeResult(requests=self._requests, failed=self._failed, first_new=self._first, errors=errors)

    def wait_new(self, timeout: float) -> bool:
        """Wait until the new release has answered; whether it did within `timeout` seconds."""
        return self._new.wait(timeout)

    def _visit(self, number: int) -> None:
        keeps = number % 2 == 0
        connection: http.client.HTTPConnection | None = None
        due = time.monotonic() + number * self._pause / VISITORS
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._pause, time.monotonic())  # what was missed while an answer took long is not sent in a burst
            connection = connection or http.client.HTTPConnection(*self._to, timeout=self._timeout)
            error, closing = self._ask(connection, keeps)
            self._note(error)
            if error or closing or not keeps:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, keeps: bool) -> tuple[str, bool]:
        """One request: what went wrong, and whether the connection is used up."""
        try:
            connection.request("GET", self._path, headers=self._headers if keeps else {**self._headers, "Connection": "close"})
            answer = connection.getresponse()
            answer.read(LARGEST_READ)
            release = answer.getheader(RELEASE_HEADER)
            if answer.status in MADE_BY_EDGE and release is None:
                return f"{answer.status} from the edge", True
            if release is not None and release == self._release and not self._new.is_set():
                with self._lock:
                    if not self._new.is_set():
                        self._first = time.monotonic() - self._began
                        self._new.set()
            return "", answer.will_close or not answer.isclosed()
        except TimeoutError:
            return "no answer in time", True
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__, True

    def _note(self, error: str) -> None:
        with self._lock:
            self._requests += 1
            if error:
                self._failed += 1
                self._errors[error] += 1
