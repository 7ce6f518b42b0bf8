"""Holding requests while a service that may not overlap (it owns a disk) is stopped and started.

The edge sends its requests to a relay that accepts and keeps them; once the new instance is well they are passed on.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from homeport.deploys.candidates import start_rows, wait_until_well
from homeport.deploys.plan import strategy_of
from homeport.deploys.platform import Platform, active_services, needs_process
from homeport.deploys.routes import DRAIN
from homeport.drivers.edge.base import Target
from homeport.drivers.edge.hold import Holder
from homeport.drivers.runtimes.addresses import is_free
from homeport.model.release import Release
from homeport.store.instances import InstanceRow

DEAF_WITHIN = 2.0
"""Seconds that an instance which was told to end has until it listens no more, before old connections' requests may go on."""
LOOK = 0.005
"""Seconds between looks at what nobody announces."""


class Holding:
    """What one deploy holds. The relays belong to the platform: each keeps its port, which every worker of the edge knows."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.holding: dict[str, Holder] = {}

    def services(self, release: Release) -> list[str]:
        """Services of the live release that must end before the new ones start."""
        live = self.platform.live_release(release.project, release.environment)
        if live is None or live.number == release.number:
            return []
        once = self.platform.own_ports.of(release.project, release.environment)
        return [
            n
            for n in active_services(release)
            if n in live.spec.services and needs_process(live.spec.services[n]) and self._holds(live, release, n, once)
        ]

    @staticmethod
    def _holds(live: Release, release: Release, name: str, once: Collection[str]) -> bool:
        old, new = live.spec.services[name], release.spec.services[name]
        return needs_process(new) and (name in once or "hold" in (strategy_of(old), strategy_of(new)))

    def begin(self, release: Release, services: list[str]) -> None:
        """Send requests to relays, let those in flight finish, stop the old instances."""
        self._relay(release, services)
        rows = self._old_rows(release, services)
        targets = [Target(host=row.host, port=row.port) for row in rows if row.port]
        for target in targets:
            self.platform.edge.drain(target, DRAIN)
        self._let_finish()
        with ThreadPoolExecutor(1, thread_name_prefix="hold") as pool, self.platform.edge.still(targets):
            stopping = pool.submit(self.platform.stop_instances, rows)
            end = time.monotonic() + DEAF_WITHIN
            while not stopping.done() and time.monotonic() < end and not all(is_free(one.host, one.port) for one in targets):
                time.sleep(LOOK)
        stopping.result()

    def _let_finish(self) -> None:
        """Wait for what the relays still carry to the old instances since the deploy before."""
        end = time.monotonic() + DRAIN.total_seconds()
        while any(holder.carried() for holder in self.holding.values()) and time.monotonic() < end:
            time.sleep(LOOK)

    def again(self, release: Release) -> None:
        """After a restart of the control plane: the relays are gone while the old instances may be too."""
        services = [name for name in self.services(release) if not self._old_rows(release, [name])]
        if services and not self.holding:
            self._relay(release, services)

    def _relay(self, release: Release, services: list[str]) -> None:
        live = self.platform.live_release(release.project, release.environment)
        places = {**(self.platform.relays(live) if live else {}), **self.platform.relays(release)}
        for name in services:
            if name in places and name not in self.holding:
                key = _key(release, name)
                holder = self.platform.holders.get(key)
                if holder is None:
                    holder = self.platform.holders[key] = Holder(host=places[name].host, port=places[name].port)
                    holder.start()
                holder.hold()
                self.holding[name] = holder
                self.platform.held[key] = holder.target
        if self.holding:
            self.platform.refresh_edge()

    def _old_rows(self, release: Release, services: list[str]) -> list[InstanceRow]:
        rows = self.platform.store.instances.list(release.project, release.environment)
        return [row for row in rows if row.number != release.number and row.service in services]

    @contextmanager
    def bypassed(self, release: Release) -> Iterator[None]:
        """Inside, the edge's table passes the relays by; they still hold what they have. Put back when the block fails."""
        before = dict(self.platform.held)
        for name in self.holding:
            self.platform.held.pop(_key(release, name), None)
        try:
            yield
        except BaseException:
            self.platform.held.update(before)
            raise

    def release(self, release: Release) -> None:
        """Pass what was held on to the instances of a release; old workers of the edge may send more for a while."""
        targets = self.platform.targets(release)
        for name, holder in self.holding.items():
            if targets.get(name):
                holder.release(targets[name][0])
        self.holding.clear()

    def undo(self, release: Release) -> None:
        """Start the live release's instances again, then give it back its requests."""
        live = self.platform.live_release(release.project, release.environment)
        if live is None:
            return
        services = self.services(release)
        present = {row.service for row in self.platform.store.instances.list(live.project, live.environment, number=live.number)}
        missing = [name for name in services if name not in present]
        if missing:
            environment = self.platform.store.environments.get(live.project, live.environment)
            wanted = self.platform.wanted(live, environment)
            rows = [self.platform.new_row(live, name, ordinal, "live") for name in missing for ordinal in range(wanted.get(name, 0))]
            self.platform.store.instances.add(rows)
            start_rows(self.platform, live, rows)
            wait_until_well(self.platform, live)
        if self.holding or missing:
            with self.bypassed(release):
                self.platform.refresh_edge()
            self.release(live)


def _key(release: Release, name: str) -> str:
    return f"{release.project}/{release.environment}/{name}"
