"""Exchange of disks: the new one lies beside the old one, complete, before the old one is buried."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from homeport.backups.room import Room
from homeport.drivers.files import sync_folder


def incoming(home: Path, name: str) -> Path:
    """Where the new content of a disk waits."""
    return home / "volumes" / f".{name}.incoming"


def exchange(room: Room, name: str) -> str:
    """Put what waits in the place of a disk; the tombstone of the former one, empty when there was none. Twice is once."""
    fresh, folder = incoming(room.home, name), room.home / "volumes" / name
    if not fresh.is_dir():
        return ""
    grave = ""
    if folder.exists():
        grave = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{name}"
        place = room.home / "tombstones" / grave
        place.parent.mkdir(mode=0o711, exist_ok=True)
        room.store.ledger.claim("tombstone", grave, name, folder=str(place))
        folder.rename(place)
    fresh.rename(folder)
    sync_folder(folder.parent)
    return grave
