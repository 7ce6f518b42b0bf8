"""The keeper of add-ons: brings them up before the applications, back after any end, and finishes what rotations leave open.

It works on a thread of its own, since a database may take a while to recover, and holds no state that matters: what should run is
written beside each add-on's data, and which old passwords are left is in the ledger.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from datetime import UTC, datetime

from homeport.deploys.asking import ask_by_command
from homeport.deploys.external import Health
from homeport.deploys.platform import Platform
from homeport.drivers.addons.base import AddOnId, HasPool
from homeport.model.addon import External, Postgres
from homeport.model.errors import HomeportError
from homeport.model.release import Release
from homeport.store.environments import EnvironmentRow
from homeport.store.ledger import LedgerRow

log = logging.getLogger("homeport.addons")

LOOK_EVERY = 10.0
"""Seconds between looks when nothing happens; an end is heard of at once."""
CHECK_EVERY = 60.0
"""Seconds between health checks of external add-ons that name no interval."""
ROTATION = "rotation"
"""Ledger kind of a password whose predecessor still works."""


class AddOnKeeper:
    """Keeps the add-ons of a home. The supervisor calls `recover` once and `look` at every tick."""

    def __init__(self, platform: Platform) -> None:
        self.platform, self.book = platform, platform.addons
        self.book.ask = lambda release, name: ask_by_command(platform, release, name)
        self._due, self._stopping = threading.Event(), threading.Event()
        self._looked = 0.0
        self._thread: threading.Thread | None = None
        self._checked: dict[tuple[str, str, str], float] = {}
        self._told: dict[tuple[str, str, str], str] = {}
        self._failed: set[tuple[str, str]] = set()
        self._back: list[EnvironmentRow] = []

    def start(self) -> None:
        """Hear of every end."""
        for driver in {id(driver): driver for driver in self.book.drivers.values()}.values():
            driver.on_exit(self._ended)

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=60)

    def _ended(self, _id: AddOnId) -> None:
        self._due.set()
        self.platform.wake()

    def recover(self) -> None:
        """Bring up the add-ons of everything that is live, so that applications find them."""
        for row in self.platform.store.environments.all():
            if row.live is not None and not row.stopped and not self._stopping.is_set():
                self._bring_up(row)

    def _bring_up(self, row: EnvironmentRow) -> bool:
        release = self.platform.live_release(row.project, row.environment)
        where = (row.project, row.environment)
        if release is None or not release.spec.addons:
            self._failed.discard(where)
            return True
        try:
            self.book.provision(release)
        except (HomeportError, OSError) as error:
            if where not in self._failed:
                self.platform.event("addon.failed", f"The add-ons of {row.project}/{row.environment} did not come up: {error}", release)
            self._failed.add(where)
            return False
        self._failed.discard(where)
        return True

    def look(self) -> None:
        """Begin a look when one is due and none is under way."""
        due = self._due.is_set() or time.monotonic() - self._looked > LOOK_EVERY
        if not due or self._stopping.is_set() or (self._thread is not None and self._thread.is_alive()):
            return
        self._due.clear()
        self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._look, name="add-ons", daemon=True)
        self._thread.start()

    def come_back(self) -> list[EnvironmentRow]:
        """Environments whose add-ons came up late: their instances can be started now."""
        found, self._back = self._back, []
        return found

    def _look(self) -> None:
        for work in (self._revive, self._retry, self._retire, self._close_pools, self._check):
            try:
                work()
            except Exception:
                log.exception("add-ons are looked at again after this")

    def _revive(self) -> None:
        for driver in {id(driver): driver for driver in self.book.drivers.values()}.values():
            for id_ in driver.ensure():
                self.platform.event(
                    "addon.restarted", f"{id_.name} had ended and runs again.", (id_.project, id_.environment), subject=id_.name
                )

    def _retry(self) -> None:
        for project, environment in list(self._failed):
            row = self.platform.store.environments.get(project, environment)
            if row is None or row.live is None:
                self._failed.discard((project, environment))
            elif self._bring_up(row):
                self._back.append(row)
                self.platform.wake()

    # --- rotations --------------------------------------------------------------------------------------------

    def _retire(self) -> None:
        """Take old passwords away once nothing that was started with them is left."""
        for row in self.platform.store.ledger.list(ROTATION):
            if self._outlived(row):
                id_ = AddOnId(project=row.value["project"], environment=row.value["environment"], name=row.value["addon"])
                self.book.drivers[row.value["engine"]].retire_old(id_, row.value["consumer"])
                self.platform.store.ledger.release(ROTATION, row.key)

    def _outlived(self, row: LedgerRow) -> bool:
        store, value = self.platform.store, row.value
        rotated, where = datetime.fromisoformat(value["at"]), (value["project"], value["environment"])
        runs = [run for run in store.crons.list(*where, value["consumer"], status="running") if value["consumer"]]
        instances = [seen for seen in store.instances.list(*where) if seen.service == value["consumer"]]
        return not runs and all(seen.started_at is not None and _utc(seen.started_at) > rotated for seen in instances)

    # --- pools ------------------------------------------------------------------------------------------------

    def _close_pools(self) -> None:
        """Take down the pools that the live release does not ask for, once no instance of another release is left."""
        pools = [driver for driver in self.book.drivers.values() if isinstance(driver, HasPool)]
        for row in self.platform.store.environments.all():
            release = self.platform.live_release(row.project, row.environment) if row.live is not None else None
            if release is None:
                continue
            unpooled = [name for name, addon in release.spec.addons.items() if isinstance(addon, Postgres) and not addon.pooling]
            seen = self.platform.store.instances.list(row.project, row.environment) if unpooled else []
            if any(instance.number != release.number for instance in seen):
                continue
            for driver, name in itertools.product(pools, unpooled):
                with contextlib.suppress(InterruptedError):
                    driver.close_pool(AddOnId(project=row.project, environment=row.environment, name=name))

    # --- external add-ons -------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Ask the external add-ons of what is live, each at its own interval, and tell of changes."""
        for row in self.platform.store.environments.all():
            release = self.platform.live_release(row.project, row.environment) if row.live is not None else None
            for name, addon in release.spec.addons.items() if release is not None else ():
                if isinstance(addon, External) and not self._stopping.is_set():
                    assert release is not None  # noqa: S101
                    every = addon.health_interval.total_seconds() if addon.health_interval else CHECK_EVERY
                    key = (row.project, row.environment, name)
                    if time.monotonic() - self._checked.get(key, -every) >= every:
                        self._checked[key] = time.monotonic()
                        self._tell(release, name, self._told.get(key, ""), self.book.check(release, name))

    def _tell(self, release: Release, name: str, before: str, now: Health) -> None:
        """Tell of a change since the keeper last looked: others ask too, and tell nobody."""
        self._told[(release.project, release.environment, name)] = now.state
        if now.state == "unwell" and before != "unwell":
            self.platform.event("addon.unwell", f"{name} does not answer: {now.detail}.", release, subject=name)
        if now.state == "well" and before == "unwell":
            self.platform.event("addon.well", f"{name} answers again.", release, subject=name)


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
