"""Parcels: a tar stream, compressed and encrypted into one file. `age -d | zstd -d | tar x` opens one without Homeport."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyrage
import zstandard

from homeport.drivers.storage.keys import BackupKey
from homeport.model.base import Frozen
from homeport.model.errors import HomeportError

LEVEL = 1
"""Of Zstandard: the network or the disk is slower than this."""
BLOCK = 1 << 20
MAX_ENTRIES = 2_000_000
"""Entries one parcel may hold."""


class ParcelDamaged(HomeportError):
    """A parcel is not what was packed."""

    code = "backup-damaged"

    def __init__(self, *, backup: str, why: str) -> None:
        super().__init__(
            what=f"Nothing was restored from {backup}; what runs was not touched.",
            why=why,
            fix="Restore from another backup or target: `homeport backup list`. Check the disk that held this one.",
        )


class Packed(Frozen):
    """A file as it lies on a target."""

    size: int
    sha256: str


def pack_tree(root: Path, names: Sequence[str], target: Path, key: BackupKey) -> Packed:
    """Pack files, folders and links of a tree, by their names relative to `root`; folders without what they hold. Raises OSError."""

    def write(out: BinaryIO) -> None:
        with tarfile.open(fileobj=out, mode="w|", bufsize=BLOCK, format=tarfile.PAX_FORMAT) as archive:
            archive.copybufsize = BLOCK  # type: ignore[attr-defined]  # an argument of `open` that type stubs do not know
            for name in names:
                archive.add(root / name, arcname=name, recursive=False)

    return _pack(write, target, key)


def pack_file(source: Path, target: Path, key: BackupKey) -> Packed:
    """Pack one file's content, without a tar around it. Raises OSError."""

    def write(out: BinaryIO) -> None:
        with source.open("rb") as file:
            shutil.copyfileobj(file, out, BLOCK)

    return _pack(write, target, key)


def _pack(write: Callable[[BinaryIO], None], target: Path, key: BackupKey) -> Packed:
    """Feed what `write` writes through zstd and age into `target`, synced."""
    failures: list[BaseException] = []
    reader, writer = _pipe()

    def feed() -> None:
        try:
            with os.fdopen(writer, "wb", BLOCK) as out:
                write(out)
        except BrokenPipeError:
            pass  # the other side failed, and says why
        except BaseException as error:  # noqa: BLE001 (raised again by the caller's thread)
            failures.append(error)

    target.unlink(missing_ok=True)  # one that a crash left may be an object by now
    feeder = threading.Thread(target=feed, name="pack", daemon=True)
    with os.fdopen(reader, "rb", BLOCK) as plain, target.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        hashing = _Hashing(file)
        feeder.start()
        try:
            with zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).stream_reader(plain, read_size=BLOCK) as squeezed:
                pyrage.encrypt_io(squeezed, hashing, list(key.recipients))
        finally:
            plain.close()
            feeder.join()
        file.flush()
        os.fsync(file.fileno())
    if failures:
        raise failures[0]
    return Packed(size=hashing.size, sha256=hashing.digest.hexdigest())


def _pipe() -> tuple[int, int]:
    """A pipe that takes a whole block: at the usual 64 KiB two threads spend a third of their time on waking each other."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # the account has many already (pipe(7), pipe-user-pages-soft)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, BLOCK)
    return reader, writer


class _Hashing:
    """A writer that knows what went through it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def check(file: Path, wanted: Packed, *, backup: str, name: str) -> None:
    """Raises ParcelDamaged unless the file is the one that was packed."""
    with file.open("rb") as source:
        if file.stat().st_size != wanted.size or hashlib.file_digest(source, "sha256").hexdigest() != wanted.sha256:
            raise ParcelDamaged(backup=backup, why=f"{name} is not what was written.")


@contextlib.contextmanager
def opened(parcel: Path, key: BackupKey, *, backup: str) -> Iterator[BinaryIO]:
    """What was packed, as a stream. Raises ParcelDamaged, also while it is read."""
    failures: list[BaseException] = []
    reader, writer = _pipe()

    def feed() -> None:
        try:
            with os.fdopen(writer, "wb", BLOCK) as out, parcel.open("rb") as sealed:
                pyrage.decrypt_io(sealed, out, [key.identity])
        except BrokenPipeError:
            pass
        except BaseException as error:  # noqa: BLE001 (raised again by the caller's thread)
            failures.append(error)

    feeder = threading.Thread(target=feed, name="unpack", daemon=True)
    try:
        with os.fdopen(reader, "rb", BLOCK) as squeezed:
            feeder.start()
            with zstandard.ZstdDecompressor().stream_reader(squeezed, read_size=BLOCK) as plain:
                yield plain
                while plain.read(BLOCK):
                    pass
    except (zstandard.ZstdError, tarfile.TarError, EOFError) as error:
        feeder.join()
        raise ParcelDamaged(backup=backup, why=f"{parcel.name} cannot be read: {failures[0] if failures else error}.") from error
    feeder.join()
    if failures:
        raise ParcelDamaged(backup=backup, why=f"{parcel.name} does not open: {failures[0]}.") from failures[0]


def unpack_tree(parcel: Path, into: Path, key: BackupKey, *, backup: str) -> None:
    """Unpack into a folder; nothing gets outside of it. Raises ParcelDamaged, OSError."""
    with opened(parcel, key, backup=backup) as stream, tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK) as archive:
        for count, member in enumerate(archive):
            if count > MAX_ENTRIES:
                raise ParcelDamaged(backup=backup, why=f"{parcel.name} holds more than {MAX_ENTRIES} entries.")
            _place(archive, member, into, backup)


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, into: Path, backup: str) -> None:
    target = into / member.name
    inside = not member.name.startswith("/") and ".." not in Path(member.name).parts
    if not inside or not target.parent.resolve().is_relative_to(into.resolve()) or not (member.isreg() or member.isdir() or member.issym()):
        raise ParcelDamaged(backup=backup, why=f"It holds {member.name[:200]!r}, which no backup of Homeport holds.")
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        target.unlink(missing_ok=True)
        target.symlink_to(member.linkname)
    elif member.isdir():
        target.mkdir(exist_ok=True)
        target.chmod(stat.S_IMODE(member.mode) | 0o700)
    else:
        source = archive.extractfile(member)
        assert source is not None  # noqa: S101 (a regular file)
        with source, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:  # noqa: PTH123
            shutil.copyfileobj(source, file, BLOCK)
            os.fchmod(file.fileno(), stat.S_IMODE(member.mode) & 0o777)
        os.utime(target, (member.mtime, member.mtime))
    if os.geteuid() == 0:
        os.chown(target, member.uid, member.gid, follow_symlinks=False)


def unpack_file(parcel: Path, target: Path, key: BackupKey, *, backup: str) -> None:
    """Unpack one file's content. Raises ParcelDamaged, OSError."""
    with opened(parcel, key, backup=backup) as stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file, BLOCK)
