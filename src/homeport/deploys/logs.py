"""What instances wrote, gathered over services, with secrets masked."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

from homeport.deploys.candidates import masker_of
from homeport.deploys.masking import Masker
from homeport.deploys.platform import Platform
from homeport.store.instances import InstanceRow

WAITING = 5.0
"""Seconds of silence after which a follower is told that the line still stands, and new instances are looked for."""


def follow_logs(
    platform: Platform, project: str, environment: str, *, service: str = "", release: str = "", follow: bool = False, tail: int = 100
) -> Iterator[dict[str, Any] | None]:
    """Lines of every instance that fits; None after a silence while following. Instances that start later are joined."""
    maskers: dict[int, Masker] = {}
    rows = _rows(platform, project, environment, service, release)
    if not follow:
        for row in rows:
            mask = _masker(platform, maskers, row)
            for line in platform.runtime.logs(row.id, tail=tail):
                yield _shown(row, mask(line.text), line.stream)
        return
    lines: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=10_000)
    stopped = threading.Event()
    joined: set[str] = set()
    try:
        while True:
            for row in _rows(platform, project, environment, service, release):
                if row.id not in joined:
                    joined.add(row.id)
                    mask = _masker(platform, maskers, row)
                    args = (platform, row, mask, lines, stopped, tail if row in rows else 10_000)
                    threading.Thread(target=_pump, args=args, name=f"logs-{row.id}", daemon=True).start()
            try:
                yield lines.get(timeout=WAITING)
            except queue.Empty:
                yield None
    finally:
        stopped.set()


def _pump(
    platform: Platform, row: InstanceRow, mask: Masker, lines: queue.Queue[dict[str, Any]], stopped: threading.Event, tail: int
) -> None:
    for line in platform.runtime.logs(row.id, tail=tail, follow=True, stopped=stopped.is_set):
        while not stopped.is_set():
            try:
                lines.put(_shown(row, mask(line.text), line.stream), timeout=1)
                break
            except queue.Full:
                continue
        if stopped.is_set():
            return


def _rows(platform: Platform, project: str, environment: str, service: str, release: str) -> list[InstanceRow]:
    rows = platform.store.instances.list(project, environment, service=service)
    return [row for row in rows if not release or f"r{row.number}" == release]


def _masker(platform: Platform, maskers: dict[int, Masker], row: InstanceRow) -> Masker:
    """The masker of an instance's release: one for all its services, since they refer to each other's values."""
    if row.number not in maskers:
        found = platform.store.releases.get(row.project, row.environment, row.number)
        maskers[row.number] = masker_of(platform, found.release) if found else Masker(())
    return maskers[row.number]


def _shown(row: InstanceRow, text: str, stream: str) -> dict[str, Any]:
    return {"service": row.service, "instance": row.id, "release": f"r{row.number}", "stream": stream, "text": text}
