"""An edge without nginx: the same rules and refusals, nothing listens. For tests of everything above the driver."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from homeport.drivers.edge.base import Edge, EdgeStatus, RouteTable, Target
from homeport.drivers.edge.control import Checked
from homeport.drivers.edge.render import render
from homeport.drivers.edge.syntax import emit, verify


class FakeEdge:
    """Keeps tables in memory. `fail_next` makes the next `apply` raise; `open` says what is in flight; `answer` plays the instances."""

    def __init__(self, home: Path = Path("/nonexistent")) -> None:
        self._home, self._lock = home, threading.RLock()
        self._table: RouteTable | None = None
        self._running = False
        self.generation = 0
        self.applied: list[RouteTable] = []
        self.open: dict[Target, int] = {}
        self.fail_next: Exception | None = None
        self.answer: Callable[[Target, str, str], Checked] = lambda _target, _host, _path: Checked(ok=True, status=200)

    def apply(self, table: RouteTable) -> int:
        """Keep this table and return its generation. Raises EdgeRefused for what nginx's driver would refuse too."""
        with self._lock:
            if self._running and table == self._table:
                return self.generation
            tree = render(table, generation=self.generation + 1, home=self._home, token="fake")  # noqa: S106
            verify(emit(tree), tree)
            if self.fail_next is not None:
                error, self.fail_next = self.fail_next, None
                raise error
            self.generation += 1
            self._table, self._running = table, True
            self.applied.append(table)
            return self.generation

    def status(self) -> EdgeStatus:
        """What was applied last."""
        with self._lock:
            port = self._table.port if self._table else 0
            if not self._running:
                return EdgeStatus(running=False, port=port)
            return EdgeStatus(running=True, generation=self.generation, pid=1, port=port, workers=1)

    def table(self) -> RouteTable | None:
        """The table that was applied last."""
        return self._table

    def in_flight(self, target: Target) -> int:
        """What the test put into `open`."""
        return self.open.get(target, 0)

    def drain(self, target: Target, deadline: timedelta) -> int:  # noqa: ARG002
        """At once: what the test put into `open`."""
        return self.open.get(target, 0)

    def still(self, wanted: Collection[Target]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Nothing moves here."""
        return contextlib.nullcontext()

    def stop(self) -> None:
        """Stop serving; the table stays."""
        self._running = False

    def ensure_running(self) -> EdgeStatus:
        """Serve the last table again."""
        with self._lock:
            self._running = self._table is not None
        return self.status()

    def rotate(self) -> None:
        """There are no log files."""

    def token(self) -> str:
        """A fixed probe token."""
        return "fake"

    def check(
        self,
        target: Target,
        *,
        host: str,
        path: str = "/",
        timeout: timedelta = timedelta(seconds=5),  # noqa: ARG002
        headers: dict[str, str] | None = None,  # noqa: ARG002
    ) -> Checked:
        """What `answer` says."""
        return self.answer(target, host, path)


if TYPE_CHECKING:
    _: type[Edge] = FakeEdge
