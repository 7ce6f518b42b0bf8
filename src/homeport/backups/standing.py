"""Standing copies: where the file system shares blocks, the newest base backup of a database stays unpacked and checked on this machine.

A fork then begins with a copy that takes no time and, until somebody writes, no room. Drills and restores never use one: they have to
prove what lies on the target. Each is in the ledger, and goes when a newer one comes, when its backup is forgotten, or its add-on.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from homeport.backups.manifest import Manifest
from homeport.backups.room import Room
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.files import copy_tree, remove_tree, shares_blocks

log = logging.getLogger("homeport.backups")

KIND = "standing"
"""Ledger kind; the key is the backup's id."""


def take(room: Room, manifest: Manifest, into: Path) -> bool:
    """Put the standing copy of a backup there; False when there is none. Raises OSError."""
    folder = _folder(room) / manifest.id
    if not any(row.key == manifest.id for row in room.store.ledger.list(KIND)) or not folder.is_dir():
        return False
    copy_tree(folder, into, link=False)
    return True


def keep(room: Room, manifest: Manifest, base: Path) -> None:
    """Keep a checked, unpacked base backup, when blocks are shared here, it is its add-on's newest, and there is room. Never fails."""
    try:
        newest = room.manifests(manifest.project, manifest.environment, manifest.name)[:1]
        if not newest or newest[0].id != manifest.id or not shares_blocks(_folder(room)):
            return
        if shutil.disk_usage(room.folder).free - 2 * manifest.plain < room.policy.reserve:
            return
        part, folder = _folder(room) / f".{manifest.id}.part", _folder(room) / manifest.id
        if folder.is_dir():
            return
        remove_tree(part)
        copy_tree(base, part, link=False)
        room.store.ledger.claim(KIND, manifest.id, manifest.addon.slug)
        part.rename(folder)
        prune(room)
    except OSError as error:
        log.warning("no copy of %s is kept for forks: %s", manifest.id, error)


def prune(room: Room) -> list[str]:
    """Remove copies that are not their add-on's newest, or whose backup or add-on is gone; ids of those removed."""
    known = {id.slug: id for id in room.addons()}
    removed = []
    rows = room.store.ledger.list(KIND)
    for row in rows:
        id: AddOnId | None = known.get(row.owner)
        others = [one.key for one in rows if one.owner == row.owner and (_folder(room) / one.key).is_dir()]
        kept = {manifest.id for manifest in room.manifests(id.project, id.environment, id.name)} if id is not None else set()
        if row.key not in kept or row.key != max([key for key in others if key in kept], default=row.key):
            remove_tree(_folder(room) / row.key)
            room.store.ledger.release(KIND, row.key)
            removed.append(row.key)
    return removed


def _folder(room: Room) -> Path:
    return room.made("standing")
