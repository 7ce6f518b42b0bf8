"""A namespace of a Temporal server: made once, given its search attributes, asked how many workflows it has.

Most of it goes over the server's HTTP interface, which needs no library of ours. Search attributes cannot be made there: for those its
own command-line program is run.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from homeport.drivers.addons.errors import AddOnFailed
from homeport.drivers.addons.keeping import LOOK_TIMEOUT
from homeport.drivers.addons.records import Record
from homeport.drivers.addons.servers import run_outside

LOOPBACK = "127.0.0.1"
"""The server's parts find each other at this address alone, whatever address it is told to listen on (temporal 1.9, start-dev).

Its own ports there are any that are free: clients come to the front (see `addons/front.py`), on an address of the add-on's own.
"""
RETENTION = "259200s"
"""How long the histories of closed workflows are kept: three days, the server's own default."""
TIMEOUT = 10.0
TROUBLE = (OSError, http.client.HTTPException, ValueError)
"""What asking raises when the server does not answer, or not as it should."""


class Namespace:
    """One namespace of the server that a record is of."""

    def __init__(self, record: Record, name: str) -> None:
        self._record, self.name = record, name
        self._path = f"/api/v1/namespaces/{name}"

    def ensure(self) -> None:
        """Make it when it is not there. Raises AddOnFailed, and TROUBLE."""
        if self._ask("GET", self._path)[0] == 404:
            status, said = self._ask("POST", "/api/v1/namespaces", {"namespace": self.name, "workflowExecutionRetentionPeriod": RETENTION})
            if status not in (200, 409):
                why = f"The namespace {self.name} could not be made: {said.get('message', status)}."
                raise AddOnFailed(name=self._record.id.name, why=why)

    def ensure_attributes(self, wanted: Mapping[str, str], program: Path, folder: Path) -> None:
        """Make the search attributes that are not there yet, by name with their types; `program` is run in `folder`.

        Raises AddOnFailed when one is there with another type, and TROUBLE.
        """
        known = self._ask("GET", f"{self._path}/search-attributes")[1].get("customAttributes", {}) if wanted else {}
        for name, type in wanted.items():
            if str(known.get(name, "")).removeprefix("INDEXED_VALUE_TYPE_").replace("_", "") != type.upper():
                self._make_attribute(name, type, program, folder)

    def _make_attribute(self, name: str, type: str, program: Path, folder: Path) -> None:
        argv = (str(program), "operator", "search-attribute", "create", f"--address={LOOPBACK}:{self._record.extra_ports[2]}",
                f"--namespace={self.name}", f"--name={name}", f"--type={type}")  # fmt: skip
        try:
            done = run_outside(argv, cwd=folder, timeout=TIMEOUT * 3)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AddOnFailed(name=self._record.id.name, why=f"The search attribute {name} could not be made: {error}.") from error
        if done.code != 0:
            said = done.output.strip().removeprefix("Error: ").rpartition("\n")[2][:300]
            raise AddOnFailed(
                name=self._record.id.name, why=f"The search attribute {name} could not be made: {said}.",
                fix="Give it the type it has, or another name: attributes that are there are never changed.",
            )  # fmt: skip

    def answers(self) -> bool:
        """Whether the server serves it by now."""
        try:
            return self._ask("GET", f"{self._path}/workflow-count")[0] == 200
        except TROUBLE:
            return False

    def workflows(self, query: str = "") -> float:
        """How many workflows there are, of those that a query names. Raises TROUBLE."""
        return float(self._ask("GET", f"{self._path}/workflow-count?query={quote(query)}", timeout=LOOK_TIMEOUT)[1].get("count", 0))

    def _ask(self, method: str, path: str, body: dict[str, str] | None = None, timeout: float = TIMEOUT) -> tuple[int, dict[str, Any]]:
        """One request to the server's HTTP interface: status and answer. Raises TROUBLE."""
        connection = http.client.HTTPConnection(LOOPBACK, self._record.extra_ports[0], timeout=timeout)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            found = json.loads(answer.read(1 << 20) or b"{}")
            return answer.status, found if isinstance(found, dict) else {}
