"""A target that is a folder: of this machine, or mounted from another."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from homeport.drivers.files import link_or_copy, sync_folder
from homeport.drivers.storage.base import ObjectMissing, Storage, StorageFailed, check_key

_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EACCES, errno.EOPNOTSUPP, errno.EROFS}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FolderStorage:
    """Each object is a file: written beside its name, synced, then renamed."""

    kind: ClassVar[str] = "folder"

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder

    def put(self, key: str, source: Path) -> None:
        target = self.folder / check_key(key)
        part = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part.unlink(missing_ok=True)
            _take(source, part)
            part.replace(target)
            part.unlink(missing_ok=True)  # it stays when it is the target already (rename(2))
            sync_folder(target.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise self._failed(error) from error

    def fetch(self, key: str, target: Path) -> None:
        """A hard link where that can be: objects are replaced, never written to."""
        source = self.folder / check_key(key)
        try:
            link_or_copy(source, target, 0o600)
        except FileNotFoundError as error:
            raise ObjectMissing(target=self.name, why=f"{key} is not there.") from error
        except OSError as error:
            raise self._failed(error) from error

    def list(self, prefix: str = "") -> Mapping[str, int]:
        root = self.folder / check_key(prefix) if prefix else self.folder
        try:
            if not self.folder.is_dir():
                return {}
            return {
                str(file.relative_to(self.folder)): file.stat().st_size
                for file in sorted(root.rglob("*"))
                if file.is_file() and not file.name.endswith(".part")
            }
        except OSError as error:
            raise self._failed(error) from error

    def remove(self, key: str) -> None:
        try:
            (self.folder / check_key(key)).unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StorageFailed:
        why = "it has no room left." if error.errno in _NO_ROOM else f"{error.filename or self.folder}: {error.strerror}."
        return StorageFailed(target=self.name, why=why)


def _take(source: Path, part: Path) -> None:
    """Make `part` the content of `source`, synced: the same file where both lie on one disk, since nobody writes to it again.

    One that is an object of another target already is copied: two targets hold two.
    """
    with source.open("rb") as src:
        if os.fstat(src.fileno()).st_nlink == 1:
            try:
                os.fchmod(src.fileno(), 0o600)
                os.fsync(src.fileno())
                os.link(source, part)
                return
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
        with part.open("xb") as dst:
            os.fchmod(dst.fileno(), 0o600)
            shutil.copyfileobj(src, dst, 1 << 20)
            dst.flush()
            os.fsync(dst.fileno())


if TYPE_CHECKING:
    _: type[Storage] = FolderStorage
