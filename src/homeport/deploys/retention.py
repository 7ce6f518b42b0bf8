"""What is kept and what goes: old releases, and the artifacts, sources and layers that no kept release needs.

Only what Homeport's own records name is ever removed, never what merely looks unused; data has tombstones, and those wait 7 days.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from homeport.deploys.platform import Platform
from homeport.drivers.addons.records import purge
from homeport.drivers.files import remove_tree
from homeport.drivers.sources.snapshot import SnapshotStore
from homeport.model.release import Release

log = logging.getLogger("homeport.retention")

KEEP_RELEASES = 10
"""Releases of an environment that can be rolled back to."""

YOUNG = timedelta(hours=24)
"""Nothing younger is removed: a deploy may be about to use it."""

KEEP_SOURCES = 5
LOGS = timedelta(days=14)
"""How long logs of instances and deploys that are over stay readable."""

UNDO = timedelta(days=7)
"""How long destroyed data is kept."""


def sweep(platform: Platform) -> list[str]:
    """Remove what is no longer needed; returns what was removed."""
    removed = _releases(platform)
    removed += platform.builder.prune(_artifacts_in_use(platform), YOUNG)
    removed += SnapshotStore(platform.home / "sources").prune(KEEP_SOURCES, YOUNG)
    known = {row.id for row in platform.store.instances.list()} | {seen.handle.id for seen in platform.runtime.observe()}
    removed += _aged(platform.home / "instances", known, LOGS)
    removed += _aged(platform.home / "deploys", set(), LOGS)
    removed += _aged(platform.home / "seeds", _seeds_in_use(platform), YOUNG)
    removed += _tombstones(platform)
    if removed:
        platform.event("retention.removed", f"{len(removed)} things that nothing needs any more were removed.", names=removed[:100])
    return removed


def _releases(platform: Platform) -> list[str]:
    """Forget releases beyond the newest ones; what is live or was live before stays."""
    removed = []
    for row in platform.store.environments.all():
        pinned = {row.live, row.previous}
        rows = platform.store.releases.list(row.project, row.environment, limit=10_000)
        for old in rows[KEEP_RELEASES:]:
            number = old.release.number
            if number not in pinned and not platform.store.instances.list(row.project, row.environment, number=number):
                forget_logs(platform, old.release)
                platform.store.releases.remove_one(row.project, row.environment, number)
                removed.append(f"release {row.project}/{row.environment}/r{number}")
    return removed


def forget_logs(platform: Platform, release: Release) -> None:
    """Remove what the instances and commands of a release wrote. Call it when none of them runs."""
    for service in release.spec.services:
        for folder in (platform.home / "instances").glob(f"{release.project}-{release.environment}-{service}-{release.id}-*"):
            remove_tree(folder)


def _seeds_in_use(platform: Platform) -> set[str]:
    """Content of files that some kept release would fill a new database from."""
    used: set[str] = set()
    for row in platform.store.environments.all():
        for release in platform.store.releases.list(row.project, row.environment, limit=10_000):
            used |= {seed.digest for addon in release.release.spec.addons.values() for seed in addon.seeds}
    return used


def _artifacts_in_use(platform: Platform) -> set[str]:
    used: set[str] = set()
    for row in platform.store.environments.all():
        for release in platform.store.releases.list(row.project, row.environment, limit=10_000):
            used |= {artifact.id for artifact in release.release.artifacts.values()}
    return used


def _aged(parent: Path, keep: set[str], age: timedelta) -> list[str]:
    """Remove entries of a folder that only Homeport writes to, when they were not touched for so long."""
    if not parent.is_dir():
        return []
    limit = time.time() - age.total_seconds()
    removed = []
    for entry in parent.iterdir():
        if entry.name not in keep and entry.lstat().st_mtime < limit:
            if entry.is_dir():
                remove_tree(entry)
            else:
                entry.unlink(missing_ok=True)
            removed.append(f"{parent.name}/{entry.name}")
    return removed


def _tombstones(platform: Platform) -> list[str]:
    removed = []
    for row in platform.store.ledger.list("tombstone"):
        if datetime.now(UTC) - row.created_at > UNDO:
            folder = Path(str(row.value["folder"]))
            if folder.parent.name == "tombstones" and folder.is_dir():
                purge(platform.home, folder)
            platform.store.ledger.release("tombstone", row.key)
            removed.append(f"tombstone {row.key}")
    return removed
