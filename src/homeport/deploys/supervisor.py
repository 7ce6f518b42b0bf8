"""The supervisor keeps instances as their rows say: restarts what ended, retires what is done, stops what nobody owns.

One thread, woken by exits and by a slow tick. It holds no state that matters: after a restart of the control plane it
looks at the rows and at the processes, and goes on.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from datetime import UTC, datetime, timedelta

from homeport.deploys.addon_keeper import AddOnKeeper
from homeport.deploys.candidates import at_its_port, handle_of, health_of, prober, start_rows, wait_for_instance
from homeport.deploys.platform import Platform, needs_process
from homeport.deploys.retention import sweep
from homeport.deploys.routes import DRAIN
from homeport.drivers.edge.base import Target
from homeport.drivers.runtimes import processes
from homeport.drivers.runtimes.base import Exit
from homeport.model.release import Release
from homeport.model.service import Restart
from homeport.store.environments import EnvironmentRow
from homeport.store.instances import InstanceRow

log = logging.getLogger("homeport.supervisor")

TICK = 2.0
"""Seconds between looks when nothing happens."""

BACKOFF = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Seconds before the n-th restart in a row: the first at once would hide a crash loop, more than a minute would hide a recovery."""

STEADY = timedelta(seconds=60)
"""An instance that ran this long starts its row of restarts anew."""

MAX_ACCESS_LOG = 50 << 20
"""Bytes of the edge's access log before it is turned over; four are kept."""

SWEEP_EVERY = 600.0
"""Seconds between looks for what can be removed."""

CHECK_EVERY = timedelta(seconds=10)
UNWELL_AFTER = 3


class Supervisor:
    """The reconciler of instances. Start it once per control plane."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self._inbox: queue.Queue[tuple[str, Exit] | None] = queue.Queue(maxsize=10_000)
        self._due: dict[str, float] = {}
        self._misses: dict[str, int] = {}
        self._checked: dict[str, float] = {}
        self._stopping = threading.Event()
        self._busy: set[str] = set()
        self._swept = time.monotonic()
        self._edge: processes.Process | None = None
        self.addons = AddOnKeeper(platform)
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        platform.wake = self.wake

    def start(self) -> None:
        """Bring everything to what the rows say, then keep it so."""
        self.platform.runtime.on_exit(self._on_exit)
        self.addons.start()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self.wake()
        self._thread.join(timeout=10)
        self.addons.stop()

    def wake(self) -> None:
        """Look now."""
        if not self._inbox.full():
            self._inbox.put(None)

    def _on_exit(self, id: str, exit: Exit) -> None:
        self._inbox.put((id, exit))

    def _run(self) -> None:
        self._guarded(self.recover)
        while not self._stopping.is_set():
            try:
                item = self._inbox.get(timeout=self._patience())
            except queue.Empty:
                item = None
            if self._stopping.is_set():
                return
            if item is not None:
                self._guarded(lambda item=item: self._ended(*item))
            self._guarded(self.tick)

    def _guarded(self, work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except Exception:
            log.exception("the supervisor goes on after this")

    def _patience(self) -> float:
        if not self._due:
            return TICK
        return max(0.0, min(TICK, min(self._due.values()) - time.monotonic()))

    def rouse(self) -> None:
        """Before interrupted deploys go on: start what served while they ran and does not run any more. Its health is looked at later."""
        running = {seen.handle.id for seen in self.platform.runtime.observe() if seen.state == "running"}
        for project, environment in {(row.project, row.environment) for row in self.platform.store.deploys.open()}:
            release = self.platform.live_release(project, environment)
            row = self.platform.store.environments.get(project, environment)
            if release is not None and row is not None and not row.stopped:
                for instance in self._live_rows(release):
                    if instance.id not in running and instance.state != "failed":
                        self._guarded(lambda instance=instance, release=release: start_rows(self.platform, release, [instance]))
                        self.platform.store.instances.change(instance.id, state="unwell")

    # --- after a start ----------------------------------------------------------------------------------------

    def recover(self) -> None:
        """What should run, runs; what nobody owns, does not; the edge shows what is live."""
        store = self.platform.store
        open_deploys = {(row.project, row.environment) for row in store.deploys.open()}
        rows = {row.id: row for row in store.instances.list()}
        runs = {run.id for run in store.crons.list(status="running", limit=1000)}
        for seen in self.platform.runtime.observe():
            if seen.handle.id not in rows and seen.handle.id not in runs and not self._belongs_to_open_deploy(seen.handle.id, open_deploys):
                self.platform.event("instance.orphan", f"{seen.handle.id} belonged to nothing and was stopped.", subject=seen.handle.id)
                self.platform.runtime.stop(seen.handle.id)
                self.platform.runtime.forget(seen.handle.id)
        self._guarded(self.addons.recover)
        for environment in store.environments.all():
            if (environment.project, environment.environment) not in open_deploys and not environment.stopped:
                self._guarded(lambda environment=environment: self.ensure(environment))
        if any(environment.live is not None for environment in store.environments.all()):
            self.platform.refresh_edge()

    @staticmethod
    def _belongs_to_open_deploy(id: str, open_deploys: set[tuple[str, str]]) -> bool:
        return any(id.startswith(f"{project}-{environment}-") for project, environment in open_deploys)

    def ensure(self, environment: EnvironmentRow) -> None:
        """Every instance of the live release has a row and a process; nothing of the environment runs beside them."""
        where = (environment.project, environment.environment)
        rows = self.platform.store.instances.list(*where)  # before the deploys: the candidates of one that begins now are not among them
        deploying = any((row.project, row.environment) == where for row in self.platform.store.deploys.open())
        release = self.platform.live_release(*where)
        if release is None:
            return
        if not deploying:
            self.platform.stop_instances([row for row in rows if row.role == "candidate" and row.number != release.number])
        self.scale(release, environment)
        running = {seen.handle.id for seen in self.platform.runtime.observe() if seen.state == "running"}
        down = [r for r in self._live_rows(release) if r.id not in running and r.state != "failed"]
        for row in down:
            self.platform.event("instance.started", f"{row.id} was not running and is started.", release, subject=row.id)
        self._bring_up(release, down)

    def scale(self, release: Release, environment: EnvironmentRow) -> None:
        """Add or take away instances until each service has as many as wanted. New ones are well before they get requests."""
        wanted = self.platform.wanted(release, environment)
        rows = self._live_rows(release)
        added: list[InstanceRow] = []
        surplus: list[InstanceRow] = []
        for service, count in wanted.items():
            if not needs_process(release.spec.services[service]):
                continue
            mine = {row.ordinal: row for row in rows if row.service == service}
            added += [self.platform.new_row(release, service, ordinal, "live") for ordinal in range(count) if ordinal not in mine]
            surplus += [row for ordinal, row in mine.items() if ordinal >= count]
        if added:
            self.platform.store.instances.add(added)
            self._bring_up(release, added)
        if surplus:
            for row in surplus:
                self.platform.store.instances.change(row.id, role="retiring", retire_at=None)
            self.platform.refresh_edge()
            self.wake()

    def _live_rows(self, release: Release) -> list[InstanceRow]:
        rows = self.platform.store.instances.list(release.project, release.environment, number=release.number)
        return [row for row in rows if row.role == "live"]

    def _bring_up(self, release: Release, rows: list[InstanceRow]) -> None:
        if not rows:
            return
        start_rows(
            self.platform,
            release,
            [row for row in rows if row.state != "healthy"] + [self._again(row) for row in rows if row.state == "healthy"],
        )
        for row in rows:
            self._settle(release, row)
        self.platform.refresh_edge()

    def _again(self, row: InstanceRow) -> InstanceRow:
        self.platform.store.instances.change(row.id, restarts=row.restarts + 1, state="starting")
        return self.platform.store.instances.get(row.id) or row

    def _settle(self, release: Release, row: InstanceRow) -> bool:
        verdict = wait_for_instance(self.platform, release, row)
        self.platform.store.instances.change(
            row.id, state="healthy" if verdict.ok else "unwell", detail="" if verdict.ok else verdict.detail
        )
        return verdict.ok

    # --- while running ----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One look at everything that may be due."""
        self.platform.reserve.keep()
        now = datetime.now(UTC)
        rows = self.platform.store.instances.list()
        for row in rows:
            late = row.role == "warm" and (row.retire_at is None or row.retire_at <= now)
            if late:
                self.platform.store.instances.change(row.id, role="retiring")
            if (late or row.role == "retiring") and row.id not in self._busy:
                self._busy.add(row.id)
                threading.Thread(target=self._retire, args=(row,), name=f"retire-{row.id}", daemon=True).start()
        for id, due in list(self._due.items()):
            if due <= time.monotonic():
                self._due.pop(id)
                self._restart(id)
        self.addons.look()
        for environment in self.addons.come_back():
            self._guarded(lambda environment=environment: self.ensure(environment))
        self._check_health(rows)
        self._check_edge()
        self._rotate()
        self._sweep()

    def _sweep(self) -> None:
        """Now and then, beside the loop: removing large folders takes a while."""
        if time.monotonic() - self._swept > SWEEP_EVERY and not self.platform.store.deploys.open():
            self._swept = time.monotonic()
            threading.Thread(target=self._guarded, args=(lambda: sweep(self.platform),), name="retention", daemon=True).start()

    def _rotate(self) -> None:
        """Keep logs within their bounds."""
        self.platform.runtime.rotate()
        log_file = self.platform.home / "edge" / "log" / "access.jsonl"
        if log_file.is_file() and log_file.stat().st_size > MAX_ACCESS_LOG:
            self.platform.edge.rotate()

    def _check_edge(self) -> None:
        """An edge that was killed comes back on its last good table. While its process lives, one look at /proc is all this costs."""
        if self._edge is not None and processes.is_running(self._edge.pid, self._edge.start_time, processes.boot_id()):
            return
        with self.platform.edge_lock:
            status = self.platform.edge.status()
            if not status.running and self.platform.edge.table() is not None:
                self.platform.event("edge.restarted", "The edge was not running and is started again.")
                status = self.platform.edge.ensure_running()
            self._edge = processes.process(status.pid) if status.running else None

    def _retire(self, row: InstanceRow) -> None:
        """Let requests in flight end, then stop."""
        try:
            if row.port:
                self.platform.edge.drain(Target(host=row.host, port=row.port), self._patience_for(row))
            self.platform.stop_instances([row])
        except Exception:
            log.exception("retiring %s is tried again", row.id)
        finally:
            self._busy.discard(row.id)

    @staticmethod
    def _patience_for(row: InstanceRow) -> timedelta:
        """How long its requests may still take: the drain time counts from the switch, and is over for one that was kept warm."""
        if row.retire_at is None:
            return DRAIN
        return max(timedelta(0), row.retire_at - datetime.now(UTC))

    def _ended(self, id: str, exit: Exit) -> None:
        """An instance is gone: restart it by its policy, or write down that it failed."""
        row = self.platform.store.instances.get(id)
        if row is None or row.role in ("candidate", "retiring"):
            return
        if row.role == "warm":
            self.platform.store.instances.change(id, role="retiring")
            return
        release = self.platform.store.releases.get(row.project, row.environment, row.number)
        if release is None:
            return
        steady = row.started_at is not None and datetime.now(UTC) - row.started_at > STEADY
        crashes = 1 if steady else row.crashes + 1
        policy = release.release.spec.services[row.service].restart
        where = (row.project, row.environment)
        self.platform.event("instance.ended", f"{row.id}: {exit.sentence()}.", where, subject=id, crashes=crashes, number=row.number)
        if self._final(policy, exit, crashes):
            self.platform.store.instances.change(
                id, state="stopped" if exit.code == 0 else "failed", crashes=crashes, detail=exit.sentence()
            )
        else:
            delay = policy.delay.total_seconds() if policy.delay else BACKOFF[min(crashes, len(BACKOFF)) - 1] if crashes > 1 else 0.0
            self.platform.store.instances.change(id, state="backoff", crashes=crashes, detail=exit.sentence())
            self._due[id] = time.monotonic() + delay
        if len(self._live_rows(release.release)) > 1:
            self.platform.refresh_edge()

    @staticmethod
    def _final(policy: Restart, exit: Exit, crashes: int) -> bool:
        if policy.policy == "never" or (policy.policy == "on-failure" and exit.code == 0):
            return True
        return policy.max_retries is not None and crashes > policy.max_retries

    def _restart(self, id: str) -> None:
        row = self.platform.store.instances.get(id)
        if row is None or row.role != "live":
            return
        found = self.platform.store.releases.get(row.project, row.environment, row.number)
        if found is None:
            return
        self.platform.store.instances.change(id, restarts=row.restarts + 1, state="starting", started_at=datetime.now(UTC))
        again = self.platform.store.instances.get(id)
        if again is None:
            return
        self.platform.start(self.platform.placement(found.release, again))
        self._busy.add(id)
        threading.Thread(target=self._watch_start, args=(found.release, again), name=f"settle-{id}", daemon=True).start()

    def _watch_start(self, release: Release, row: InstanceRow) -> None:
        """Health of a restarted instance, beside the loop: one slow start must not keep others waiting."""
        try:
            well = self._settle(release, row)
            now = self.platform.store.instances.get(row.id)
            moved = now is not None and now.port != row.port
            if well and (moved or len(self._live_rows(release)) > 1):
                self.platform.refresh_edge()
        except Exception:
            log.exception("waiting for %s", row.id)
        finally:
            self._busy.discard(row.id)

    def _check_health(self, rows: list[InstanceRow]) -> None:
        """Go on checking after the switch: an instance that stops answering is restarted."""
        now = time.monotonic()
        self._checked = {row.id: self._checked.get(row.id, 0.0) for row in rows}
        for row in rows:
            due = now - self._checked[row.id] >= CHECK_EVERY.total_seconds()
            if row.role == "live" and row.state in ("healthy", "unwell") and row.port and due and row.id not in self._busy:
                self._checked[row.id] = now
                found = self.platform.store.releases.get(row.project, row.environment, row.number)
                if found is not None:
                    self._check_one(found.release, row)

    def _check_one(self, release: Release, row: InstanceRow) -> None:
        service = release.spec.services[row.service]
        check = health_of(service)
        if check.kind == "none":
            return
        verdict = prober(self.platform).check(at_its_port(check, service, row.port), handle_of(self.platform, row))
        if verdict.ok:
            self._misses.pop(row.id, None)
            if row.state == "unwell":
                self.platform.store.instances.change(row.id, state="healthy", detail="")
                self.platform.refresh_edge()
            return
        misses = self._misses[row.id] = self._misses.get(row.id, 0) + 1
        if misses == (check.retries or UNWELL_AFTER):
            self.platform.store.instances.change(row.id, state="unwell", detail=verdict.detail)
            self.platform.event("instance.unwell", f"{row.id}: {verdict.detail}.", release, subject=row.id)
            if len(self._live_rows(release)) > 1:
                self.platform.refresh_edge()
        if misses >= (check.restart_after or 2 * (check.retries or UNWELL_AFTER)):
            self._misses.pop(row.id, None)
            self.platform.event("instance.restarted", f"{row.id} did not get well and is restarted.", release, subject=row.id)
            self.platform.runtime.stop(row.id, grace=service.shutdown_grace)
