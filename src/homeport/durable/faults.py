"""Fault points: named places where the control plane can be made to die, so that recovery is proven and not hoped for.

Every journaled step has three: `before` its effect, `after-effect` (done, not yet journaled) and `after-commit`.
A change of the vault's key has points of its own (`drivers/vault/seal.py`), reached as `rekey:<point>`.
An operator arms one by `HOMEPORT_FAULT=<step>:<point>`; the process then kills itself there, as a power cut would.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

POINTS = ("before", "after-effect", "after-commit")


def kill_self() -> None:
    """Die at once: no handlers, no flushes."""
    os.kill(os.getpid(), signal.SIGKILL)


class Faults:
    """At most one armed point. Reaching any other costs a comparison."""

    def __init__(self, armed: str = "", action: Callable[[], None] = kill_self) -> None:
        self.armed, self.action = armed, action

    def reach(self, step: str, point: str) -> None:
        """Called by the engine at every point of every step."""
        if self.armed and self.armed == f"{step}:{point}":
            self.action()
