"""The instance's work folder: a private, writable copy of the artifact in which dependencies are links."""

# ruff: noqa: PTH101, PTH211, PTH115, PTH102 (thousands of files: plain paths are several times faster)

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from homeport.drivers.files import copy_file, remove_tree
from homeport.drivers.runtimes.base import InstanceDiskFull, Placement
from homeport.model.release import Artifact

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def prepare_work(placement: Placement, work: Path, links: Mapping[str, str], user: int | None) -> None:
    """Make `work` complete, or find it complete. A copy that was interrupted is begun again.

    A restart finds what the instance wrote. Raises InstanceDiskFull, after removing what was copied; OSError.
    """
    if work.is_dir():
        return
    part = work.with_name("work.part")
    remove_tree(part)
    try:
        _copy(Path(placement.artifact.folder), part, frozenset(placement.artifact.linked), user)
        for place, target in links.items():
            _link(part, place, target, user)
        part.rename(work)
    except OSError as error:
        remove_tree(part)
        if error.errno not in NO_ROOM:
            raise
        raise disk_full(placement, f"{work.parent.parent}: {os.strerror(error.errno or 0)}") from error


def disk_full(placement: Placement, cause: str) -> InstanceDiskFull:
    return InstanceDiskFull(
        what=f"{placement.service} was not started; what ran before still runs.",
        why=f"There is no room for its files: {cause}.",
        fix="Free space in the Homeport home, then deploy again.",
    )


def working_directory(artifact: Artifact, work: Path) -> Path:
    """Where the command runs."""
    return work / artifact.root if artifact.root else work


def _copy(source: Path, target: Path, linked: frozenset[str], user: int | None) -> None:
    os.mkdir(target, 0o700)
    _give(str(target), user)
    stack = [(str(source), str(target), "")]
    while stack:
        here, there, inside = stack.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                to, path = f"{there}/{entry.name}", f"{inside}{entry.name}"
                if path in linked:
                    os.symlink(entry.path, to)
                elif entry.is_symlink():
                    os.symlink(os.readlink(entry.path), to)
                elif entry.is_dir(follow_symlinks=False):
                    os.mkdir(to, 0o755)
                    stack.append((entry.path, to, f"{path}/"))
                elif entry.is_file(follow_symlinks=False):
                    copy_file(entry.path, to)
                    os.chmod(to, stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) & 0o777 | 0o600)
                else:
                    continue
                _give(to, user)


def _link(work: Path, place: str, target: str, user: int | None) -> None:
    """Put a link where the source may have a folder of its own: as with any mount, that is then not seen."""
    path = work / place
    if path.is_file() and not path.is_symlink() and Path(target).parent.is_dir() and not Path(target).exists():
        copy_file(path, target)
        _give(target, user)
    remove_tree(path)
    folder = work
    for part in Path(place).parts[:-1]:
        folder /= part
        if folder.is_symlink():
            folder.unlink()
        if not folder.exists():
            folder.mkdir()
            _give(str(folder), user)
    path.symlink_to(target)


def _give(path: str, user: int | None) -> None:
    if user is not None:
        os.chown(path, user, user, follow_symlinks=False)
