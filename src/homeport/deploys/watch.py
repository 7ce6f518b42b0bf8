"""After a switch: the new release is watched, and goes back by itself when it does worse than the one before."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from homeport.deploys.platform import Platform
from homeport.model.release import Release
from homeport.store.deploys import DeployRow
from homeport.store.instances import InstanceRow

log = logging.getLogger("homeport.watch")

EVERY = 1.0
"""Seconds between looks while something is watched."""

MAX_ERROR_RATIO = 0.05
"""5xx answers over all, above the former release's, from which a release counts as worse."""

MAX_CRASHES = 2
MIN_REQUESTS = 20
"""Fewer requests prove nothing."""

BASELINE = timedelta(minutes=10)
"""How far back the former release's answers are counted."""


@dataclass(frozen=True)
class Verdict:
    """What a watched release did so far."""

    worse: bool
    reason: str = ""


class Watch:
    """Looks at watched releases. Start it once per control plane."""

    def __init__(
        self,
        platform: Platform,
        counts: Callable[[str, datetime, str], tuple[int, int]],
        roll_back: Callable[[DeployRow, int, str], None],
    ) -> None:
        """`counts(site, since, release)` gives requests and 5xx answers; `roll_back(deploy, number, reason)` asks for it."""
        self.platform, self.counts, self.roll_back = platform, counts, roll_back
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=10)

    def wake(self) -> None:
        """Something is watched from now on."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                watching = self.tick()
            except Exception:
                log.exception("the watch goes on after this")
                watching = True
            self._wake.wait(EVERY if watching else 30.0)
            self._wake.clear()

    def tick(self) -> bool:
        """Look at every watched deploy once; whether any is left."""
        left = False
        for row in self.platform.store.deploys.watched():
            now = datetime.now(UTC)
            verdict = self.judge(row, now)
            if verdict.worse:
                self._go_back(row, verdict.reason)
            elif row.watch_until is None or row.watch_until <= now:
                self.platform.store.deploys.change(row.id, watch_until=None)
            else:
                left = True
        return left

    def judge(self, row: DeployRow, now: datetime) -> Verdict:
        """Compare the release with the one before: crashes first, then answers."""
        release = self.platform.live_release(row.project, row.environment)
        if release is None or release.number != row.number or row.finished_at is None:
            return Verdict(False)
        limit = release.spec.watch.max_crashes if release.spec.watch.max_crashes is not None else MAX_CRASHES
        for instance in self.platform.store.instances.list(row.project, row.environment, number=release.number):
            if instance.crashes > limit:
                times = "once" if instance.crashes == 1 else f"{instance.crashes} times"
                return Verdict(True, f"{instance.service} ended {times}: {instance.detail or self._last_end(instance)}".rstrip(": ."))
        return self._judge_answers(row, release, now)

    def _last_end(self, instance: InstanceRow) -> str:
        """How an instance ended last; its row forgets that once it is well again."""
        events = self.platform.store.events.list(instance.project, instance.environment, limit=200)
        texts = [event.text for event in events if event.kind == "instance.ended" and event.subject == instance.id]
        return texts[-1].removeprefix(f"{instance.id}: ") if texts else ""

    def _judge_answers(self, row: DeployRow, release: Release, now: datetime) -> Verdict:
        allowed = release.spec.watch.max_error_ratio if release.spec.watch.max_error_ratio is not None else MAX_ERROR_RATIO
        switched = row.finished_at or now
        environment = self.platform.store.environments.get(row.project, row.environment)
        previous = f"r{environment.previous}" if environment is not None and environment.previous else ""
        for name, service in release.spec.services.items():
            if service.kind != "web":
                continue
            site = f"{row.project}-{row.environment}-{name}"
            total, errors = self.counts(site, switched, release.id)
            if total < MIN_REQUESTS or not errors:
                continue
            before_total, before_errors = self.counts(site, row.requested_at - BASELINE, previous)
            before = before_errors / before_total if before_total else 0.0
            if errors / total > before + allowed:
                return Verdict(True, f"{errors} of {total} answers of {name} were server errors, {before:.1%} before")
        return Verdict(False)

    def _go_back(self, row: DeployRow, reason: str) -> None:
        self.platform.store.deploys.change(row.id, watch_until=None)
        environment = self.platform.store.environments.get(row.project, row.environment)
        previous = environment.previous if environment else None
        where = (row.project, row.environment)
        if previous is None:
            self.platform.event(
                "release.worse", f"r{row.number} does badly ({reason}); there is no earlier release.", where, subject=f"r{row.number}"
            )
            return
        self.platform.store.releases.mark(row.project, row.environment, row.number or 0, "live", reason)
        self.platform.event(
            "release.rolled-back", f"r{row.number} went back to r{previous} by itself: {reason}.", where, subject=f"r{row.number}"
        )
        self.roll_back(row, previous, reason)
