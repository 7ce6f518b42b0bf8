"""Programs that listen on a port of their own, whatever `PORT` says.

Where such a program listens is seen when it starts, and remembered for its service: it can run only once on a machine, so its next
release starts when the old instance has ended, while requests wait. It is forgotten once a release is live that listens where it is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from homeport.drivers.runtimes.health import Verdict
from homeport.model.release import Release
from homeport.model.service import HealthCheck, Listening, Service
from homeport.store.instances import InstanceRow
from homeport.store.ledger import Ledger

KIND = "own-port"
"""Rows of the ledger: the key is `project/environment/service`."""

_IN_USE = re.compile(r"EADDRINUSE|address (?:is )?already in use", re.IGNORECASE)


class OwnPorts:
    """What is known of them. Thread-safe."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def of(self, project: str, environment: str) -> dict[str, int]:
        """Port by service."""
        rows = self._ledger.list(KIND, f"{project}/{environment}")
        return {row.key.rpartition("/")[2]: int(row.value["port"]) for row in rows}

    def learn(self, release: Release, service: str, port: int) -> None:
        """Remember where a service was seen to listen."""
        if self.of(release.project, release.environment).get(service) != port:
            owner = _owner(release, service)
            self._ledger.release(KIND, owner)
            self._ledger.claim(KIND, owner, owner, port=port)

    def keep_to(self, live: Release, rows: Iterable[InstanceRow]) -> None:
        """Forget what the instances of the live release do not show: services that listen where they are told, or are gone."""
        seen = {(row.service, row.port) for row in rows}
        for service, port in self.of(live.project, live.environment).items():
            if (service, port) not in seen:
                self._ledger.release(KIND, _owner(live, service))

    def notes(self, project: str, environment: str, services: Iterable[str]) -> list[str]:
        """One sentence for each of these services that insists on its port."""
        known = self.of(project, environment)
        return [
            f"{name}: it listens on port {known[name]} whatever PORT says, so its old instance ends before the new one starts (requests "
            "wait meanwhile) and it runs once on this machine; let it listen on $PORT to change that"
            for name in services
            if name in known
        ]

    def collision(self, lines: Iterable[str]) -> str:
        """Who has the port that a program complained about in its last lines; empty when that is not known."""
        text = "\n".join(line for line in lines if _IN_USE.search(line))
        for row in self._ledger.list(KIND) if text else ():
            if re.search(rf"(?<!\d){row.value['port']}(?!\d)", text):
                return f"port {row.value['port']} belongs to {row.owner}, which listens there whatever PORT says"
        return ""


def seen_port(verdict: Verdict, check: HealthCheck, service: Service) -> int:
    """The port on which an instance that does not listen on `PORT` can be reached; 0 when there is none, or more than one may be meant."""
    declared = service.port if isinstance(service, Listening) else None
    if verdict.cause != "wrong-port" or check.port.isdigit():
        return 0
    if declared in verdict.ports:
        return declared or 0
    return verdict.ports[0] if len(verdict.ports) == 1 else 0


def _owner(release: Release, service: str) -> str:
    return f"{release.project}/{release.environment}/{service}"
