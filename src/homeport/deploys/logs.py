"""What instances wrote, gathered over services, with secrets masked."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from homeport.deploys.candidates import masker_of
from homeport.deploys.masking import Masker
from homeport.deploys.platform import Platform
from homeport.drivers.vault.seal import SecretDoesNotOpen
from homeport.store.instances import InstanceRow

WAITING = 5.0
"""Seconds of silence after which a follower is told that the line still stands, and new instances are looked for."""


def follow_logs(
    platform: Platform, project: str, environment: str, *, service: str = "", release: str = "", follow: bool = False, tail: int = 100
) -> Iterator[dict[str, Any] | None]:
    """Lines of every instance that fits; None after a silence while following. Instances that start later are joined.

    Of a release whose values do not open nothing is shown, since nothing could be masked: a line says so in place of its own. Raises
    SecretDoesNotOpen, before the first line, when that is so of all.
    """
    maskers = Maskers(platform)
    rows = _rows(platform, project, environment, service, release)
    for row in rows:
        maskers.of(row)
    if rows and len(maskers.closed) == len({row.number for row in rows}):
        raise next(iter(maskers.closed.values()))
    if follow:
        return _follow(platform, rows, maskers, lambda: _rows(platform, project, environment, service, release), tail)
    return (line for row in rows for line in _lines(platform, row, maskers, tail=tail))


class Maskers:
    """One for each release, made when first needed."""

    def __init__(self, platform: Platform) -> None:
        self.platform, self.known = platform, dict[int, Masker]()
        self.closed: dict[int, SecretDoesNotOpen] = {}
        """By release, the first value of those that have none."""

    def of(self, row: InstanceRow) -> Masker | None:
        """The masker of an instance's release, for all its services, since they refer to each other's values; None when there is none."""
        number = row.number
        if number not in self.known and number not in self.closed:
            found = self.platform.store.releases.get(row.project, row.environment, number)
            try:
                self.known[number] = masker_of(self.platform, found.release) if found else Masker(())
            except SecretDoesNotOpen as error:
                self.closed[number] = error
        return self.known.get(number)


def _lines(
    platform: Platform, row: InstanceRow, maskers: Maskers, *, tail: int, follow: bool = False, stopped: Callable[[], bool] = lambda: False
) -> Iterator[dict[str, Any]]:
    """What one instance wrote, masked."""
    mask = maskers.of(row)
    if mask is None:
        why = maskers.closed[row.number].why
        yield _shown(row, f"(lines of r{row.number} are not shown, since nothing could be masked in them. {why})", "homeport")
        return
    for line in platform.runtime.logs(row.id, tail=tail, follow=follow, stopped=stopped):
        yield _shown(row, mask(line.text), line.stream)


def _follow(
    platform: Platform, first: list[InstanceRow], maskers: Maskers, rows: Callable[[], list[InstanceRow]], tail: int
) -> Iterator[dict[str, Any] | None]:
    lines: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=10_000)
    stopped = threading.Event()
    joined: set[str] = set()
    began = {row.id for row in first}
    try:
        while True:
            for row in rows():
                if row.id not in joined:
                    joined.add(row.id)
                    maskers.of(row)
                    each = _lines(platform, row, maskers, tail=tail if row.id in began else 10_000, follow=True, stopped=stopped.is_set)
                    threading.Thread(target=_pump, args=(each, lines, stopped), name=f"logs-{row.id}", daemon=True).start()
            try:
                yield lines.get(timeout=WAITING)
            except queue.Empty:
                yield None
    finally:
        stopped.set()


def _pump(each: Iterator[dict[str, Any]], lines: queue.Queue[dict[str, Any]], stopped: threading.Event) -> None:
    for line in each:
        while not stopped.is_set():
            try:
                lines.put(line, timeout=1)
                break
            except queue.Full:
                continue
        if stopped.is_set():
            return


def _rows(platform: Platform, project: str, environment: str, service: str, release: str) -> list[InstanceRow]:
    rows = platform.store.instances.list(project, environment, service=service)
    return [row for row in rows if not release or f"r{row.number}" == release]


def _shown(row: InstanceRow, text: str, stream: str) -> dict[str, Any]:
    return {"service": row.service, "instance": row.id, "release": f"r{row.number}", "stream": stream, "text": text}
