"""Putting a restored add-on in the place of the one that runs: two renames, with the old one kept.

A journal beside the folders says what is under way, so that a crash between the renames is finished at the next start.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.errors import AddOnFailed
from homeport.drivers.addons.keeping import ServerDriver
from homeport.drivers.addons.records import Place, Record, bury, forget_account
from homeport.drivers.files import give, locked, remove_tree, sync_folder, write_atomic


def switch(driver: ServerDriver, fresh: AddOnId, into: AddOnId) -> Path | None:
    """Stop both, bury what `into` was, and let `fresh` be it, with its address; the tombstone's folder, None when there was nothing.

    Nothing is started: provision it afterwards. Raises AddOnMissing, AddOnFailed.
    """
    new, old = Place(driver.home, fresh), Place(driver.home, into)
    driver.stop(fresh)
    driver.stop(into)
    with locked(old.lock), locked(new.lock):
        known = old.read()
        record = new.get()
        journal = _journal(driver.home, into)
        write_atomic(journal, json.dumps({"fresh": fresh.model_dump(), "into": into.model_dump()}).encode())
        grave = bury(driver.home, old) if known is not None else None
        _take_place(new, old, _as(record, into, known))
        journal.unlink()
        sync_folder(old.addons)
    if os.geteuid() == 0:
        forget_account(driver.home, fresh.slug)
    return grave


def switch_back(driver: ServerDriver, into: AddOnId, grave: Path) -> None:
    """Throw away what is there and take the tombstone back. Raises AddOnFailed."""
    driver.stop(into)
    place = Place(driver.home, into)
    with locked(place.lock):
        if not grave.is_dir():
            raise AddOnFailed(name=into.name, why=f"Its former data {grave.name} is not there any more.")
        remove_tree(place.folder)
        grave.rename(place.folder)
        sync_folder(place.addons)
    driver.start(into)


def discard(driver: ServerDriver, id: AddOnId) -> None:
    """Remove a scratch add-on without a tombstone. Already gone is success."""
    place = Place(driver.home, id)
    driver.stop(id)
    with locked(place.lock):
        remove_tree(place.folder)
    place.lock.unlink(missing_ok=True)
    if os.geteuid() == 0:
        forget_account(driver.home, id.slug)


def finish(home: Path) -> list[AddOnId]:
    """Finish switches that a crash interrupted; which. Call it before any add-on is started."""
    found = []
    for journal in sorted((home / "addons").glob(".*.switch.json")) if (home / "addons").is_dir() else ():
        said: dict[str, Any] = json.loads(journal.read_bytes())
        fresh, into = AddOnId.model_validate(said["fresh"]), AddOnId.model_validate(said["into"])
        new, old = Place(home, fresh), Place(home, into)
        record = new.read()
        if record is not None:
            known = old.read()
            if known is not None and known.id == into:
                bury(home, old)
            _take_place(new, old, _as(record, into, known))
        journal.unlink()
        found.append(into)
    return found


def _as(record: Record, into: AddOnId, known: Record | None) -> Record:
    """The restored add-on's record under the name, address and account of the one it replaces."""
    kept = {"host": known.host, "port": known.port, "user": known.user, "consumers": known.consumers,
            "pool_port": known.pool_port, "gate_port": known.gate_port} if known else {}  # fmt: skip
    return record.model_copy(update={"id": into, "wanted": "stopped", **kept})


def _take_place(new: Place, old: Place, record: Record) -> None:
    if os.geteuid() == 0 and record.user is not None and (found := new.read()) is not None and found.user not in (None, record.user):
        for entry in sorted(new.folder.iterdir()):
            if entry.lstat().st_uid == found.user:
                give(entry, record.user)
    new.write(record)
    new.folder.rename(old.folder)
    sync_folder(old.addons)


def _journal(home: Path, into: AddOnId) -> Path:
    return home / "addons" / f".{into.slug}.switch.json"
