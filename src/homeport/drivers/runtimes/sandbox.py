"""What an instance sees of the file system, as a list of mount operations, and a probe of what this machine allows.

Everything of the Homeport home is hidden (vault, store, other instances); only the instance's own work folder, its artifact
and the toolchains are let through, the last two read-only. `/tmp`, `/var/tmp` and `/dev/shm` are its own. Disks appear at their mount path
without a folder being made on the host: the nearest existing parent is rebuilt from views of its entries (as bubblewrap does).
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path, PurePosixPath

from homeport.drivers.runtimes.base import Mount, Placement, StartRefused
from homeport.drivers.runtimes.launching import try_view
from homeport.model.base import Frozen

Operation = tuple[str, str, str, str]
"""Kind (`spread`, `bind`, `tmpfs`, `proc`, `seal`), source, target as the instance sees it, option."""

FORBIDDEN = ("/proc", "/sys", "/dev")
"""Folders in which, as at `/` itself, a disk would take the ground from under the instance."""
APP_ROOTS = ("/opt/render/project/src", "/app", "/workspace", "/usr/src/app")
"""Where other platforms put the source. A disk below one of them also appears at the same place of the work folder."""
_PRIVATE = ("/tmp", "/var/tmp")  # noqa: S108 (these are replaced, not written to)
_MANY = 2000


class Isolation(Frozen):
    """What the launcher can do here."""

    namespaces: bool
    reason: str = ""
    """Why not, one sentence."""


@cache
def isolation(python: str = sys.executable) -> Isolation:
    """Try a mount namespace once, with everything an instance's view is made of."""
    failure = try_view(python, (("spread", "/", "/", "proc/tmp"), ("proc", "/proc", "/proc", "hidepid=2")))
    if not failure:
        return Isolation(namespaces=True)
    who = "this container does not let root" if os.geteuid() == 0 else "this machine does not let an ordinary user"
    return Isolation(namespaces=False, reason=f"{who} make a mount namespace ({failure})")


def check_mounts(placement: Placement) -> None:
    """Raises StartRefused for a disk that cannot be mounted where it asks."""
    for mount in placement.mounts:
        path = mount_path(mount)
        pure = PurePosixPath(path)
        if path in {"/", "."} or ".." in pure.parts or any(pure.is_relative_to(folder) for folder in FORBIDDEN):
            raise StartRefused(
                what=f"{placement.service} was not started; what ran before still runs.",
                why=f"The disk {mount.disk.name or mount.disk.source!r} asks for the mount path {path}, which the system itself needs.",
                fix="Choose a mount path of its own, such as /data.",
            )


def mount_path(mount: Mount) -> str:
    """Where the disk appears, without doubled or closing slashes; relative paths are relative to the source."""
    return str(PurePosixPath(re.sub(r"/+", "/", mount.disk.mount_path)))


def links(placement: Placement, *, mounted: bool) -> dict[str, str]:
    """Paths in the work folder that lead to disks: relative mount paths, and those below another platform's source folder."""
    found: dict[str, str] = {}
    for mount in placement.mounts:
        path = PurePosixPath(mount_path(mount))
        for file in mount.disk.files:
            found[file] = str((mount.folder if not (path.is_absolute() and mounted) else Path(path)) / PurePosixPath(file).name)
        if not path.is_absolute():
            found[str(path)] = str(mount.folder)
            continue
        for root in APP_ROOTS:
            if path.is_relative_to(root) and str(path) != root:
                found[str(path.relative_to(root))] = str(path) if mounted else str(mount.folder)
                break
    return found


def point_at_folders(env: Mapping[str, str], placement: Placement) -> dict[str, str]:
    """The environment where disks cannot be mounted: values that begin with a mount path name the real folder instead.

    A scheme may come before the path: `sqlite:////data/app.db`.
    """
    changed = dict(env)
    for mount in sorted(placement.mounts, key=lambda mount: len(mount_path(mount))):
        path, folder = mount_path(mount), str(mount.folder / mount.disk.subpath)
        pattern = re.compile(rf"^([A-Za-z][A-Za-z0-9+.-]*:/{{0,3}})?{re.escape(path)}(?=/|$)")
        for name, value in env.items():
            found = pattern.match(value) if path.startswith("/") else None
            if found:
                changed[name] = (found[1] or "") + folder + value[found.end() :]
    return changed


def view(placement: Placement, *, home: Path, instance: Path, needed: Iterable[Path], user: int | None) -> tuple[Operation, ...]:
    """The operations that compose this instance's file system, in order."""
    needed = tuple(needed)
    covers = _covers(home, needed, user)
    operations: list[Operation] = [("spread", "/", "/", "proc/tmp"), ("proc", "/proc", "/proc", "hidepid=2")]
    disks = [(mount_path(mount), mount) for mount in placement.mounts if mount_path(mount).startswith("/")]
    operations += [("spread", folder, folder, "") for folder in _spreads([path for path, _ in disks], covers)]
    for folder in _PRIVATE:
        if Path(folder).is_dir() and not Path(folder).is_symlink():
            operations.append(("bind", str(instance / "tmp"), folder, ""))
    operations.append(("tmpfs", "", "/dev/shm", "mode=1777,size=256m"))  # noqa: S108
    operations += [("tmpfs", "", str(cover), "mode=755,size=1m") for cover in covers]
    operations += [("bind", str(path), str(path), "ro") for path in _shown(needed, covers)]
    operations.append(("bind", str(instance / "work"), str(instance / "work"), ""))
    operations += [
        ("bind", str(mount.folder), str(mount.folder), "") for mount in placement.mounts if not mount_path(mount).startswith("/")
    ]
    operations += [_disk(path, mount) for path, mount in sorted(disks, key=lambda disk: disk[0])]
    operations.append(("bind", str(instance / "run" / "hosts"), "/etc/hosts", "ro"))
    operations += [("seal", "", str(cover), "") for cover in covers]
    return tuple(operations)


def _disk(path: str, mount: Mount) -> Operation:
    if mount.disk.kind == "tmpfs":
        return ("tmpfs", "", path, f"mode=1777,size={mount.disk.size or 64 << 20}")
    return ("bind", str(mount.folder / mount.disk.subpath), path, "ro" if mount.disk.read_only else "")


def hosts_file(placement: Placement, existing: str) -> str:
    """`/etc/hosts` as the instance sees it: its own names first, because the first match wins."""
    lines = [f"{address}\t{name}" for name, address in sorted(placement.hosts.items())]
    return "\n".join(["127.0.0.1\tlocalhost", "::1\tlocalhost", *lines, existing.rstrip("\n"), ""])


def toolchains(folders: Iterable[str]) -> set[Path]:
    """The installations behind the links in these folders of PATH: a virtual environment's Python lies elsewhere."""
    found: set[Path] = set()
    for folder in folders:
        for name in ("python", "python3", "node"):
            link = Path(folder, name)
            if link.is_symlink():
                real = link.resolve()
                if real.is_file() and real.parent.name == "bin":
                    found.add(real.parent.parent)
    return {path for path in found if str(path) not in {"/", "/usr", "/usr/local"}}


def traversable(folder: Path, user: int | None) -> bool:
    """Whether this user may pass through the folder."""
    if user is None:
        return True
    status = folder.stat()
    wanted = stat.S_IXUSR if status.st_uid == user else stat.S_IXGRP if status.st_gid == user else stat.S_IXOTH
    return bool(status.st_mode & wanted)


def _covers(home: Path, needed: tuple[Path, ...], user: int | None) -> list[Path]:
    """Folders replaced by empty ones: the home, and any parent of a needed path that the user could not pass through."""
    chosen: set[Path] = set()
    for path in (home, *needed):
        parents = [parent for parent in (*reversed(path.parents), path) if len(parent.parts) > 1 and not _private(parent)]
        closed = next((parent for parent in parents if parent.is_dir() and not traversable(parent, user)), None)
        if closed is not None and closed != path:
            chosen.add(closed)
    if not any(home.is_relative_to(cover) for cover in chosen):
        chosen.add(home)
    return sorted(cover for cover in chosen if not any(cover != other and cover.is_relative_to(other) for other in chosen))


def _private(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in _PRIVATE)


def _shown(needed: tuple[Path, ...], covers: list[Path]) -> list[Path]:
    """Needed paths that a cover or a private folder would hide, without those inside another."""
    hidden = {path for path in needed if path.exists() and (_private(path) or any(path.is_relative_to(cover) for cover in covers))}
    return sorted(path for path in hidden if not any(path != other and path.is_relative_to(other) for other in hidden))


def _spreads(paths: list[str], covers: list[Path]) -> list[str]:
    """Existing folders that must be rebuilt so that these mount points can be made in them, parents first."""
    chosen: set[str] = set()
    for path in paths:
        place = Path(path)
        if place.exists() or _private(place) or any(place.is_relative_to(cover) for cover in covers):
            continue
        parent = next(folder for folder in place.parents if folder.exists())
        if str(parent) == "/":
            continue
        entries = sum(1 for _ in os.scandir(parent))
        if not parent.is_dir() or entries > _MANY:
            raise StartRefused(
                what="The instance was not started; what ran before still runs.",
                why=f"A disk asks for the mount path {path}, inside {parent}, which has {entries} entries.",
                fix="Choose a mount path of its own, such as /data.",
            )
        chosen.add(str(parent))
    return sorted(chosen)
