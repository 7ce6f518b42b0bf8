"""Scheduled jobs. A slot is claimed in the store before it runs, so no slot runs twice, whatever happens to the clock."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter

from homeport.deploys.platform import Platform, active_services
from homeport.drivers.runtimes.base import Exit
from homeport.model.errors import HomeportError
from homeport.model.release import Release
from homeport.model.service import CronService
from homeport.store.crons import CronRun
from homeport.store.environments import EnvironmentRow

log = logging.getLogger("homeport.cron")

LATE = timedelta(minutes=5)
"""A slot missed by more than this (the control plane was away) is not made up for: a nightly job at noon helps nobody."""

JOB_TIME = timedelta(hours=12)
"""How long a run may take when its file does not say: Render's limit."""


class NoSuchCron(HomeportError):
    """There is no scheduled job of that name."""

    code = "cron-not-found"


class Cron:
    """The scheduler. Start it once per control plane."""

    def __init__(self, platform: Platform, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.platform, self.now = platform, now
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cron", daemon=True)

    def start(self) -> None:
        for run in self.platform.store.crons.list(status="running", limit=1000):
            self._follow(run)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.wait(self._until_next_minute()):
            try:
                self.tick()
            except Exception:
                log.exception("the scheduler goes on after this")

    def _until_next_minute(self) -> float:
        now = self.now()
        return 60.05 - now.second - now.microsecond / 1e6

    def tick(self) -> None:
        """Start what is due at this moment."""
        for row in self.platform.store.environments.all():
            release = None if row.stopped else self.platform.live_release(row.project, row.environment)
            if release is not None:
                self._tick_release(row, release)

    def _tick_release(self, row: EnvironmentRow, release: Release) -> None:
        for name in active_services(release):
            service = release.spec.services[name]
            if isinstance(service, CronService) and service.schedule and row.scale.get(name) != 0:
                slot = last_slot(service, self.now())
                if slot is not None and slot > max(row.created_at, self.now() - LATE) and slot > release.created_at:
                    self.run(release, name, scheduled_for=slot)

    def run(self, release: Release, service: str, *, scheduled_for: datetime | None = None) -> CronRun | None:
        """Run a job now. None when its slot is taken, or when it must not run beside an earlier run."""
        definition = release.spec.services.get(service)
        if not isinstance(definition, CronService):
            raise NoSuchCron(
                what="Nothing was run.",
                why=f"{release.project} has no scheduled job {service!r} in {release.environment}.",
                fix="List them with `homeport cron`.",
            )
        now = self.now()
        slot = scheduled_for.strftime("%Y%m%dt%H%M") if scheduled_for else "now" + now.strftime("%Y%m%dt%H%M%S%f")
        id = f"{release.project}-{release.environment}-{service}-{slot}"
        trigger = "schedule" if scheduled_for else "manual"
        earlier = self.platform.store.crons.list(release.project, release.environment, service, status="running")
        skip = bool(earlier) and definition.concurrency == "forbid"
        run = CronRun(
            id,
            release.project,
            release.environment,
            service,
            release.number,
            scheduled_for,
            trigger,
            "skipped" if skip else "running",
            None,
            "an earlier run has not ended" if skip else "",
            now,
            now if skip else None,
        )
        if not self.platform.store.crons.begin(run) or skip:
            return None if not skip else run
        if definition.concurrency == "replace":
            for old in earlier:
                self.platform.runtime.stop(old.id)
        env = self.platform.environment_of(release, service)
        self.platform.start(
            self.platform.place(release, service, id, env, command=definition.command, once="job").model_copy(update={"once": True})
        )
        self._follow(run, definition.timeout or JOB_TIME)
        return run

    def _follow(self, run: CronRun, limit: timedelta = JOB_TIME) -> None:
        threading.Thread(target=self._wait, args=(run, limit), name=f"cron-{run.id}", daemon=True).start()

    def _wait(self, run: CronRun, limit: timedelta) -> None:
        ended = self.platform.runtime.wait(run.id, limit)
        detail = ""
        if ended is None:
            ended = self.platform.runtime.stop(run.id) or Exit(at=self.now())
            detail = f"it did not end within {limit.total_seconds():.0f} s and was stopped"
        status = "succeeded" if ended.code == 0 else "lost" if ended.code is None and ended.signal is None and not detail else "failed"
        detail = detail or ("" if status == "succeeded" else ended.sentence())
        self.platform.store.crons.change(run.id, status=status, code=ended.code, detail=detail, finished_at=self.now())
        self.platform.runtime.forget(run.id)
        if status != "succeeded":
            where = (run.project, run.environment)
            self.platform.event("cron.failed", f"{run.service}: {detail}.", where, subject=run.id)


def last_slot(service: CronService, now: datetime) -> datetime | None:
    """The latest moment at or before `now` that the schedule names; None when the schedule cannot be read."""
    try:
        zone = ZoneInfo(service.timezone or "UTC")
        found: datetime = croniter(service.schedule, now.astimezone(zone) + timedelta(microseconds=1)).get_prev(datetime)
    except (ValueError, KeyError, ZoneInfoNotFoundError):
        return None
    return found.astimezone(UTC)


def next_slot(service: CronService, now: datetime) -> datetime | None:
    """The next moment after `now` that the schedule names."""
    try:
        found: datetime = croniter(service.schedule, now.astimezone(ZoneInfo(service.timezone or "UTC"))).get_next(datetime)
    except (ValueError, KeyError, ZoneInfoNotFoundError):
        return None
    return found.astimezone(UTC)
