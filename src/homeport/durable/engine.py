"""The durable engine behind one small front: register a workflow, start it, run journaled steps in it.

A step runs at least once: after a crash between its effect and the journal it runs again, so each is idempotent.
What a step returned or raised is journaled and replayed, never computed twice once it is written.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dbos import DBOS, DBOSConfig, SetWorkflowID, WorkflowHandle, _workflow_commands

from homeport.durable.faults import Faults
from homeport.model.errors import DiskFull, HomeportError, disk_full
from homeport.store.database import no_room, private

T = TypeVar("T")

WORKFLOW_VERSION = "1"
"""Changes when the steps of a workflow change. Only workflows of the same version are resumed, so it is not Homeport's version."""

MAX_THREADS = 16
RECOVERY_POLL = 0.1
"""Seconds between looks for interrupted workflows after a start."""
RECOVERY_TIME = 20.0
"""Seconds after a start in which all interrupted workflows have been picked up."""
IDLE_POLL = 60.0


def _no_queues(**_: Any) -> list[Any]:
    return []


class Durable:
    """One engine per process."""

    def __init__(self, home: Path, database_url: str = "", faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.make_room: Callable[[], object] = lambda: None
        """Called when the journal finds the disk full, before the step is told to have failed."""
        self._workflows: dict[str, Callable[[dict[str, Any]], Any]] = {}
        if database_url.startswith(("postgres://", "postgresql://")):
            url = "postgresql+psycopg://" + database_url.split("://", 1)[1]
        else:
            private(home / "journal.db")
            url = f"sqlite:///{home / 'journal.db'}"
        config: DBOSConfig = {
            "name": "homeport",
            "system_database_url": url,
            "application_version": WORKFLOW_VERSION,
            "executor_id": "local",
            "log_level": "CRITICAL",
            "console_log_level": "CRITICAL",
            "max_executor_threads": MAX_THREADS,
            "scheduler_polling_interval_sec": 3600,
            "notification_listener_polling_interval_sec": 2,
            "enable_otlp": False,
        }
        logging.getLogger("dbos").setLevel(logging.CRITICAL)
        self._engine = DBOS(config=config)

    def workflow(self, name: str, body: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Register a workflow before `launch`. Its argument and result are plain JSON data."""

        def run(argument: dict[str, Any]) -> dict[str, Any]:
            return body(argument)

        run.__name__ = run.__qualname__ = name
        self._workflows[name] = DBOS.workflow(name=name)(run)

    def launch(self) -> None:
        """Open the journal and resume what a crash interrupted, each in a thread of its own."""
        # The engine sweeps for delayed and timed-out workflows every second; Homeport has none, and idles.
        _workflow_commands._BACKGROUND_JOBS_INTERVAL_SEC = IDLE_POLL
        queue = self._engine._registry.get_internal_queue()
        # What a crash interrupted is resumed through this queue: looked at often at first, hardly ever afterwards.
        queue._polling_interval_sec = RECOVERY_POLL
        DBOS.launch()
        # The engine asks the journal every second for queues that were added; Homeport adds none, and idles.
        self._engine._sys_db.list_queues = _no_queues  # type: ignore[method-assign]
        calm = threading.Timer(RECOVERY_TIME, setattr, (queue, "_polling_interval_sec", IDLE_POLL))
        calm.daemon = True
        calm.start()

    def start(self, name: str, id: str, argument: dict[str, Any]) -> None:
        """Run a workflow in the background. The same id again is the same run."""
        with SetWorkflowID(id):
            DBOS.start_workflow(self._workflows[name], argument)

    def known(self, id: str) -> bool:
        """Whether the journal has this run."""
        return DBOS.get_workflow_status(id) is not None

    def wait(self, id: str) -> Any:
        """The result of a run; raises what it raised."""
        handle: WorkflowHandle[Any] = DBOS.retrieve_workflow(id)
        return handle.get_result(polling_interval_sec=0.05)

    def step(self, name: str, effect: Callable[[], T]) -> T:
        """Run one journaled step of the current workflow, with its three fault points."""

        def attempt() -> T:
            self.faults.reach(name, "before")
            result = effect()
            self.faults.reach(name, "after-effect")
            return result

        try:
            result = DBOS.run_step({"name": name}, attempt)
        except HomeportError as error:
            if isinstance(error, DiskFull):
                self.make_room()
            raise
        except Exception as error:
            if not no_room(error):
                raise
            self.make_room()
            raise disk_full() from error
        self.faults.reach(name, "after-commit")
        return result

    def close(self) -> None:
        """Stop taking work. Runs that are not done resume at the next launch."""
        DBOS.destroy(workflow_completion_timeout_sec=0)
