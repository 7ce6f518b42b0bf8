"""Instances of a release: started side by side, and well before anybody is sent to them."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from homeport.deploys.masking import Masker
from homeport.deploys.own_ports import seen_port
from homeport.deploys.platform import Platform, needs_process
from homeport.deploys.progress import ProgressLog
from homeport.drivers.runtimes.addresses import is_free
from homeport.drivers.runtimes.base import Handle
from homeport.drivers.runtimes.health import HealthProber, Verdict
from homeport.model.errors import HomeportError
from homeport.model.release import PinnedSecret, Release
from homeport.model.service import HealthCheck, Listening, Service
from homeport.store.instances import InstanceRow

START_DEADLINE = timedelta(seconds=60)
"""How long a new instance may take to become well when its file does not say."""

GONE_WITHIN = 60.0
"""Seconds an instance that is being stopped may still take."""

OTHER_PORT = timedelta(seconds=5)
"""How long an instance has at least to become well on a port of its own, once it was seen to listen there."""

MOVES = 2
"""How often an instance gets another port, when other programs got hold of its own first."""

SETTLE = timedelta(milliseconds=500)
"""A worker that is still there after this counts as started."""

TAIL = 20


class ReleaseUnwell(HomeportError):
    """A new instance did not become well; the former release still serves."""

    code = "release-unwell"


def start_candidates(platform: Platform, release: Release) -> list[str]:
    """Write the rows down, then start what they name. Returns the ids."""
    environment = platform.store.environments.get(release.project, release.environment)
    rows = [
        platform.new_row(release, service, ordinal, "candidate")
        for service, count in platform.wanted(release, environment).items()
        if needs_process(release.spec.services[service])
        for ordinal in range(count)
    ]
    ids = [row.id for row in rows]
    platform.store.instances.revive(ids)
    _wait_for_the_gone(platform, release, ids)
    platform.store.instances.add(rows)
    current = {row.id: row for row in platform.store.instances.list(release.project, release.environment, number=release.number)}
    start_rows(platform, release, [current[row.id] for row in rows])
    return [row.id for row in rows]


def _wait_for_the_gone(platform: Platform, release: Release, ids: list[str]) -> None:
    """Instances of an earlier life of this release that are being stopped right now must be gone before they start again."""
    until = time.monotonic() + GONE_WITHIN
    while time.monotonic() < until:
        rows = platform.store.instances.list(release.project, release.environment, number=release.number, role="retiring")
        leaving = [row for row in rows if row.id in ids]
        if not leaving:
            return
        for row in leaving:
            platform.runtime.stop(row.id)
        time.sleep(0.05)


def start_rows(platform: Platform, release: Release, rows: Sequence[InstanceRow]) -> None:
    """Start instances; those that run already stay as they are."""
    for row in rows:
        if row.state != "healthy":
            platform.store.instances.change(row.id, state="starting", started_at=datetime.now(UTC))
        platform.start(platform.placement(release, row))


def wait_until_well(platform: Platform, release: Release, progress: ProgressLog | None = None) -> None:
    """Wait for every instance of the release. Raises ReleaseUnwell for the first that fails, with its last lines."""
    rows = [r for r in platform.store.instances.list(release.project, release.environment, number=release.number) if r.role != "retiring"]
    if not rows:
        return
    with ThreadPoolExecutor(max_workers=min(16, len(rows)), thread_name_prefix="health") as pool:
        verdicts = list(pool.map(lambda row: wait_for_instance(platform, release, row), rows))
    for row, verdict in zip(rows, verdicts, strict=True):
        if verdict.ok:
            platform.store.instances.change(row.id, state="healthy", detail="")
            if progress is not None:
                progress.write("healthy", service=row.service, instance=row.id, seconds=round(verdict.seconds, 3))
        else:
            platform.store.instances.change(row.id, state="failed", detail=verdict.detail)
    for row, verdict in zip(rows, verdicts, strict=True):
        if not verdict.ok:
            raise unwell(platform, release, row, verdict)


def wait_for_instance(platform: Platform, release: Release, row: InstanceRow) -> Verdict:
    """Wait until one instance is well, has ended, or its time is over."""
    service = release.spec.services[row.service]
    check = health_of(service)
    if check.kind == "none" or (check.kind in ("http", "tcp") and not row.port):
        seen = platform.runtime.wait(row.id, SETTLE)
        text = "it runs" if seen is None else f"it ended at once: {seen.sentence()}"
        return Verdict(ok=seen is None, detail=text, seconds=SETTLE.total_seconds(), exit=seen)
    known = platform.own_ports.of(release.project, release.environment).get(row.service)
    expected = {port for port in (known, service.port if isinstance(service, Listening) else None) if port}
    deadline = deadline_of(service)
    verdict = _wait(platform, row, service, deadline, expected)
    for _ in range(MOVES):
        other = platform.another_port(row) if _taken(row, verdict) else None
        if other is None:
            break
        platform.runtime.stop(row.id, grace=OTHER_PORT)
        row = other
        start_rows(platform, release, [row])
        verdict = _wait(platform, row, service, deadline, expected)
    port = seen_port(verdict, check, service)
    if port:
        platform.store.instances.change(row.id, port=port)
        platform.own_ports.learn(release, row.service, port)
        left = max(OTHER_PORT, deadline - timedelta(seconds=verdict.seconds))
        verdict = _wait(platform, replace(row, port=port), service, left)
    return verdict


def _taken(row: InstanceRow, verdict: Verdict) -> bool:
    """Whether another program has the instance's port: a port is chosen first and bound later, and all programs of a machine choose."""
    return verdict.cause == "taken" or (verdict.cause == "exited" and bool(row.port) and not is_free(row.host, row.port))


def _wait(platform: Platform, row: InstanceRow, service: Service, deadline: timedelta, expected: Collection[int] = ()) -> Verdict:
    return prober(platform).wait_until_healthy(
        at_its_port(health_of(service), service, row.port),
        handle_of(platform, row),
        exited=lambda: platform.runtime.wait(row.id, timedelta(0)),
        deadline=deadline,
        expected=expected,
    )


def prober(platform: Platform) -> HealthProber:
    """The prober with what the runtime can add: the processes of an instance, and commands inside it."""
    runtime = platform.runtime
    pids = getattr(runtime, "pids", lambda _: ())
    return HealthProber(pids=pids, execute=runtime if hasattr(runtime, "execute") else None)  # type: ignore[arg-type]


def handle_of(platform: Platform, row: InstanceRow) -> Handle:
    """The running process of a row, with the row's port; a handle without one when it is gone."""
    for seen in platform.runtime.observe():
        if seen.handle.id == row.id:
            return seen.handle.model_copy(update={"port": row.port})
    return Handle(id=row.id, pid=0, start_time=0, started_at=datetime.now(UTC), host=row.host, port=row.port)


def health_of(service: Service) -> HealthCheck:
    """The check that decides: the file's, else 'answers on its port', else 'still runs'."""
    check = service.health
    if check is not None:
        own = isinstance(service, Listening) and check.port in (str(service.port), "http", "web")
        return check.model_copy(update={"port": ""}) if own else check
    return HealthCheck(kind="tcp") if isinstance(service, Listening) else HealthCheck(kind="none")


def at_its_port(check: HealthCheck, service: Service, port: int) -> HealthCheck:
    """A health command of a container file asks the container's port on its own loopback; here the instance has another one."""
    if check.kind != "command" or not isinstance(service, Listening) or not service.port or not port:
        return check
    words = (check.command,) if isinstance(check.command, str) else check.command
    moved = tuple(_at_port(word, service.port, port) for word in words)
    return check.model_copy(update={"command": moved[0] if isinstance(check.command, str) else moved})


def _at_port(text: str, old: int, new: int) -> str:
    return re.sub(rf"(127\.0\.0\.1|localhost|0\.0\.0\.0)(:| ){old}\b", rf"\g<1>\g<2>{new}", text)


def deadline_of(service: Service) -> timedelta:
    """How long a new instance of the service may take."""
    check = health_of(service)
    if check.deadline is not None:
        return check.deadline
    start = check.start_period or timedelta(0)
    if check.interval is not None and check.retries is not None:
        return max(START_DEADLINE, start + check.interval * check.retries)
    return max(START_DEADLINE, start)


def unwell(platform: Platform, release: Release, row: InstanceRow, verdict: Verdict) -> ReleaseUnwell:
    """The error for an instance that did not become well: one sentence of cause, and its own last lines, masked."""
    tail = last_lines(platform, release, row.id)
    taken = platform.own_ports.collision(tail)
    return ReleaseUnwell(
        what=f"Release {release.id} was not put live; what served before still serves.",
        why=f"{row.service}: {verdict.detail.rstrip('.')}{f'; {taken}' if taken else ''}.",
        fix=f"Read the last lines below, or `homeport logs {row.service} --release {release.id}`; then correct it and deploy again.",
        tail=tail,
    )


def last_lines(platform: Platform, release: Release, id: str) -> list[str]:
    """What an instance said last, without secrets."""
    masker = masker_of(platform, release)
    return [masker(line.text) for line in platform.runtime.logs(id, tail=TAIL)]


def masker_of(platform: Platform, release: Release) -> Masker:
    """Hides every vault value of a release, since services refer to each other's, and the passwords of the environment's add-ons."""
    pins = [pinned for mine in release.secrets.values() for pinned in mine.values()]
    return masker_for(platform, release.project, release.environment, pins)


def masker_for(platform: Platform, project: str, environment: str, pins: Iterable[PinnedSecret], *more: str) -> Masker:
    """Hides pinned values, `more`, and the passwords of add-ons, former ones too. What was destroyed since cannot be opened any more."""
    book = platform.secrets
    values = [*more, *book.shown(project, environment, pins), *book.own_values(project, environment)]
    return Masker(value for value in values if value)
