"""Tombstones of add-ons: where data that was put aside lies until nobody can want it back, and the way back.

Every add-on that is destroyed, and every one that a restore replaced, lies in `tombstones/` for 7 days. Taking one back is an exchange:
what is there now becomes a tombstone itself, so that this can be taken back too. After a crash it is gone through to its end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from homeport.deploys.platform import Platform
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.records import Place, Record, buried
from homeport.model.errors import HomeportError
from homeport.store.operations import Operation

log = logging.getLogger("homeport.addons")

TOMBSTONE = "tombstone"
"""Kind of the ledger's rows."""


def exchange(platform: Platform, id: AddOnId, kind: str, tombstone: str) -> None:
    """Put a tombstone in the place of what is there, which becomes one, and start it. Twice is once."""
    driver, ledger = platform.addons.drivers[kind], platform.store.ledger
    grave = platform.home / "tombstones" / tombstone
    if grave.is_dir():
        there = Place(platform.home, id).read()
        if there is not None:
            platform.addons.drivers[there.kind].destroy(id)
        driver.undo_destroy(id, grave)
    driver.start(id)
    for path, record in graves(platform.home):
        if record.id == id:
            ledger.claim(TOMBSTONE, path.name, id.slug, folder=str(path))
    ledger.release(TOMBSTONE, tombstone)
    ledger.claim("addon", id.slug, f"{id.project}/{id.environment}", addon=id.name, engine=kind)


def finish(platform: Platform, operation: Operation) -> None:
    """Go through an exchange that a crash interrupted. What fails is told in the log: all data is whole, here or as a tombstone."""
    id = AddOnId(project=operation.project, environment=operation.environment, name=str(operation.detail["addon"]))
    try:
        exchange(platform, id, str(operation.detail["engine"]), str(operation.detail["tombstone"]))
    except (HomeportError, OSError) as error:
        log.warning("%s was not taken back: %s", id.slug, error)


def graves(home: Path) -> Iterator[tuple[Path, Record]]:
    """Every tombstone of an add-on, with what is written down about it."""
    folder = home / "tombstones"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        record = buried(path)
        if record is not None:
            yield path, record


def since(platform: Platform, grave: Path) -> datetime:
    """When it was put aside: as the ledger says, else as its name does."""
    for row in platform.store.ledger.list(TOMBSTONE):
        if row.key == grave.name:
            return row.created_at if row.created_at.tzinfo else row.created_at.replace(tzinfo=UTC)
    try:
        return datetime.strptime(grave.name.rpartition(".20")[2], "%y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return datetime.fromtimestamp(grave.stat().st_mtime, UTC)
