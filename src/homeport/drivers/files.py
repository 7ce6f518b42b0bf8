"""Files on disk: durable writes, cheap copies, locks between processes, and trees made read-only."""

# ruff: noqa: PTH101, PTH102, PTH108, PTH115, PTH123, PTH211

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Container, Iterator
from datetime import timedelta
from pathlib import Path

FICLONE = 0x40049409
"""ioctl that shares the blocks of a file (linux/fs.h)."""

_no_clone: set[int] = set()
_thread_locks: dict[str, threading.Lock] = {}
_guard = threading.Lock()


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write, fsync, rename, fsync the folder: a reader sees the old bytes or the new ones, also after a power cut."""
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_changed(path: Path, text: str, owner: int | None) -> bool:
    """Have a file say this, for its owner's eyes alone; whether it said something else before, or was not there.

    The owner is looked at as well: whoever ended between writing and giving away left a file that its reader cannot open.
    """
    changed = not path.exists() or path.read_text() != text
    if changed:
        write_atomic(path, text.encode(), 0o600)
    if owner is not None and path.stat().st_uid != owner:
        os.chown(path, owner, owner)
    return changed


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy content only; blocks are shared where the file system can (reflink). `target` must not exist."""
    with open(source, "rb") as src, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb") as dst:
        device = os.fstat(dst.fileno()).st_dev
        if device not in _no_clone:
            try:
                fcntl.ioctl(dst.fileno(), FICLONE, src.fileno())
                return
            except OSError as error:
                if error.errno in {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL}:
                    _no_clone.add(device)
        shutil.copyfileobj(src, dst, 1 << 20)


def shares_blocks(folder: Path) -> bool:
    """Whether files copied within a folder share their blocks (reflink)."""
    one, other = folder / f".{os.getpid()}.one", folder / f".{os.getpid()}.other"
    try:
        one.write_bytes(b"homeport" * 1024)
        with one.open("rb") as src, other.open("wb") as dst:
            fcntl.ioctl(dst.fileno(), FICLONE, src.fileno())
        return True
    except OSError:
        return False
    finally:
        one.unlink(missing_ok=True)
        other.unlink(missing_ok=True)


def copy_tree(source: Path, target: Path, *, link: bool) -> None:
    """Copy folders, files with their modes, and symbolic links as they are; `target` must not exist.

    With `link`, files are hard links: only for trees that nobody writes to in place.
    """
    target.mkdir()
    stack = [(str(source), str(target))]
    while stack:
        here, there = stack.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                to = f"{there}/{entry.name}"
                if entry.is_symlink():
                    os.symlink(os.readlink(entry.path), to)
                elif entry.is_dir(follow_symlinks=False):
                    os.mkdir(to)
                    stack.append((entry.path, to))
                elif not (link and _try_link(entry.path, to)):
                    copy_file(entry.path, to)
                    os.chmod(to, stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) | 0o200)


def _try_link(source: str, target: str) -> bool:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno in {errno.EXDEV, errno.EMLINK, errno.EPERM}:
            return False
        raise
    return True


def link_or_copy(source: str | Path, target: str | Path, mode: int) -> None:
    """A hard link of a file that is never written again, else a copy with `mode`."""
    if not _try_link(str(source), str(target)):
        copy_file(source, target)
        os.chmod(target, mode)


def freeze(folder: Path, owner: tuple[int, int] | None = None) -> int:
    """Make every file of a tree read-only, folders world-readable, optionally owned by `owner`; returns bytes held.

    Set-uid bits are dropped. Symbolic links are left alone.
    """
    total = 0
    for here, folders, names in os.walk(folder):
        for name in names:
            path = f"{here}/{name}"
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                continue
            if not stat.S_ISREG(found.st_mode):
                os.unlink(path)
                continue
            total += found.st_size
            if owner and (found.st_uid, found.st_gid) != owner:
                os.chown(path, *owner, follow_symlinks=False)
            wanted = 0o555 if found.st_mode & 0o111 else 0o444
            if stat.S_IMODE(found.st_mode) != wanted:
                os.chmod(path, wanted)
        for path in [here, *(f"{here}/{name}" for name in folders)]:
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                continue
            if owner and (found.st_uid, found.st_gid) != owner:
                os.chown(path, *owner, follow_symlinks=False)
            if stat.S_IMODE(found.st_mode) != 0o755:
                os.chmod(path, 0o755)  # noqa: S103 - others read it; nobody else writes
    return total


def give(folder: Path, uid: int) -> None:
    """Make `uid` the owner of a tree, links not followed."""
    os.chown(folder, uid, uid, follow_symlinks=False)
    for here, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            os.chown(f"{here}/{name}", uid, uid, follow_symlinks=False)


def remove_tree(folder: Path) -> None:
    """Remove a tree that may hold read-only folders; already gone is success. The folder that holds it keeps its mode."""

    def unlock(function: Callable[..., object], path: str, _error: object) -> None:
        with contextlib.suppress(FileNotFoundError):  # somebody else removes it at the same moment
            if Path(path) != folder:
                os.chmod(Path(path).parent, 0o700)
            if function in {os.scandir, os.open, os.rmdir} and Path(path).is_dir() and not Path(path).is_symlink():
                os.chmod(path, 0o700)
                shutil.rmtree(path)
            else:
                os.unlink(path)

    if folder.is_symlink() or folder.is_file():
        folder.unlink(missing_ok=True)
    elif folder.exists():
        shutil.rmtree(folder, onerror=unlock)


def is_digest(name: str) -> bool:
    """Whether a folder's name is a sha256: what content-addressed stores call their own."""
    return len(name) == 64 and not set(name) - set("0123456789abcdef")


def prune_digests(folder: Path, keep: Container[str], young: timedelta) -> list[str]:
    """Remove content-addressed folders that are not kept and were not used for `young`; returns their names."""
    limit = time.time() - young.total_seconds()
    removed = []
    for entry in folder.iterdir() if folder.is_dir() else ():
        if not is_digest(entry.name) or entry.name in keep or entry.lstat().st_mtime >= limit:
            continue
        lock = folder / f".{entry.name}.lock"
        with locked(lock):
            if entry.lstat().st_mtime < limit:
                remove_tree(entry)
                removed.append(entry.name)
                lock.unlink(missing_ok=True)  # held: who waits for it sees that it is gone and takes the next one
    return removed


@contextlib.contextmanager
def locked(path: Path, cancelled: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Hold a lock that excludes other threads and other processes; the kernel frees it when the holder dies.

    Yields whether it was free at once. Raises InterruptedError when `cancelled()` while waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _guard:
        mine = _thread_locks.setdefault(str(path), threading.Lock())
    at_once = mine.acquire(blocking=False)
    while not at_once and not mine.acquire(timeout=0.2):
        if cancelled():
            raise InterruptedError
    try:
        handle, free = _flock(path, cancelled)
        try:
            yield at_once and free
        finally:
            os.close(handle)
    finally:
        mine.release()


def _flock(path: Path, cancelled: Callable[[], bool]) -> tuple[int, bool]:
    """An open, locked handle on the file that has this name now, and whether it was free.

    flock has no timeout: it is tried again at a slow pace so that a cancelled caller gets away.
    """
    free = True
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.fstat(handle).st_ino == path.stat().st_ino:
                return handle, free
        except BlockingIOError:
            free = False
        except FileNotFoundError:
            pass  # removed by its last holder between two looks
        os.close(handle)
        if cancelled():
            raise InterruptedError
        if not free:
            time.sleep(0.02)


def world_reachable(path: Path) -> bool:
    """Whether an account without rights of its own can get to `path`: every folder above it lets others pass."""
    try:
        resolved = path.resolve(strict=True)
        found = resolved.stat()
        if not found.st_mode & (0o001 if resolved.is_dir() else 0o004):
            return False
        return all(folder.stat().st_mode & 0o001 for folder in resolved.parents)
    except OSError:
        return False
