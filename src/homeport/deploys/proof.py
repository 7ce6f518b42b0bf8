"""Proof of a switch: requests sent through the edge while it happens, and a look at the new release before anybody else."""

from __future__ import annotations

from homeport.deploys.candidates import health_of, last_lines
from homeport.deploys.platform import Platform, active_services
from homeport.deploys.routes import hosts_of
from homeport.drivers.edge.base import Target
from homeport.drivers.edge.probe import Probe
from homeport.model.errors import HomeportError
from homeport.model.release import ProbeResult, Release
from homeport.model.service import WebService

RATE = 100.0
"""Requests a second, over all sites of the release."""

ANSWER_WITHIN = 2.0
"""Seconds after the switch in which the probe should meet the new release."""


class SmokeFailed(HomeportError):
    """A new instance answers its health check and not the edge."""

    code = "smoke-check-failed"


class Proof:
    """The probe of one deploy."""

    def __init__(self, platform: Platform, began: float) -> None:
        """`began`: `time.monotonic()` at the start of the deploy."""
        self.platform, self.began = platform, began
        self.probes: dict[str, Probe] = {}
        self.result = ProbeResult()

    def begin(self, release: Release, *, had_live: bool) -> None:
        """Start sending requests when something is live that could be disturbed."""
        hosts = {name: hosts_of(release, name) for name in active_services(release)}
        sites = {name: found[0] for name, found in hosts.items() if found}
        if had_live and not self.probes:
            self.probes = {n: self._probe(release, n, host, RATE / len(sites)).start(self.began) for n, host in sites.items()}

    def _probe(self, release: Release, name: str, host: str, rate: float) -> Probe:
        settings, service = self.platform.settings, release.spec.services[name]
        path = health_of(service).path if isinstance(service, WebService) and health_of(service).kind == "http" else "/"
        token = self.platform.edge.token()
        return Probe(
            address=settings.edge_address, port=settings.edge_port, host=host, path=path, token=token, rate=rate, release=release.id
        )

    def smoke(self, release: Release) -> None:
        """Ask each new web instance through the edge. Raises SmokeFailed."""
        rows = self.platform.store.instances.list(release.project, release.environment, number=release.number, role="candidate")
        if not self.platform.edge.status().running:
            return
        for row in rows:
            service = release.spec.services[row.service]
            if isinstance(service, WebService) and row.port and health_of(service).kind == "http":
                check = health_of(service)
                host = next(iter(hosts_of(release, row.service)), row.service)
                seen = self.platform.edge.check(Target(host=row.host, port=row.port), host=host, path=check.path)
                low, high = check.expect_status
                if not low <= seen.status <= high:
                    got = f"{check.path} answered {seen.status}" if seen.status else f"{check.path} gave no answer: {seen.reason}"
                    raise SmokeFailed(
                        what=f"Release {release.id} was not put live; what served before still serves.",
                        why=f"{row.service} is well by itself, but through the edge {got}.",
                        fix="Does the application refuse the host name or the forwarded headers? See `homeport logs`.",
                        tail=last_lines(self.platform, release, row.id),
                    )

    def end(self, release: Release) -> ProbeResult:
        """Let the new release answer at least once, stop sending, and say what was seen."""
        if self.probes:
            for name, probe in self.probes.items():
                if isinstance(release.spec.services[name], WebService):  # files are the same whoever serves them
                    probe.wait_new(ANSWER_WITHIN)
            self.result = _sum([probe.stop() for probe in self.probes.values()])
            self.probes = {}
        return self.result

    def abandon(self) -> None:
        """Stop sending; nothing was switched."""
        for probe in self.probes.values():
            probe.stop()
        self.probes = {}


def _sum(results: list[ProbeResult]) -> ProbeResult:
    return ProbeResult(
        requests=sum(r.requests for r in results),
        failed=sum(r.failed for r in results),
        first_new=max((r.first_new for r in results), default=0),
        errors=tuple(error for r in results for error in r.errors)[:10],
    )
