"""The gate that `down` closes: after it nothing of the home is started any more, and what is on its way stands still.

Work that was interrupted must neither fail nor go on: it is not journaled, and goes on at the next start. So its threads are kept
where they are until the process ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Open until `close`; many may be inside at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self.closed = False

    @contextmanager
    def inside(self) -> Iterator[None]:
        """For as long as something is being started. Stands still for ever when the gate is closed."""
        with self._changed:
            while self.closed:
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def stand_still(self) -> None:
        """Return at once while the gate is open; never once it is closed."""
        with self._changed:
            while self.closed:
                self._changed.wait()

    def close(self, timeout: float = 10.0) -> None:
        """Let nobody in any more, and wait until nobody is inside."""
        with self._changed:
            self.closed = True
            self._changed.wait_for(lambda: self._inside == 0, timeout)
