"""The store on every target, seconds behind: pages that changed are sealed and sent soon after they were written.

store/<generation>/<number>.pages   number 0 holds every page, each later one those that changed since the one before

Each object is a header, an authentication code over both parts, and pages of 4096 bytes; it is packed as all objects are (zstd, age). The
header says what all pages together are then, so that a missing or changed object is known. What each target has is remembered per
target: one that was away gets everything it missed in one object. A store in PostgreSQL is followed by an SQLite file of the same tables.
Why this and not Litestream: docs/adr/0023-store-mirror.md.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from homeport.backups.repository import Repository
from homeport.backups.room import Room
from homeport.backups.snapshot import FILES
from homeport.drivers.files import write_atomic
from homeport.drivers.storage.base import ObjectMissing, StorageFailed
from homeport.drivers.storage.keys import BackupKey, BackupKeyWrong
from homeport.drivers.storage.parcels import ParcelDamaged, pack_file, unpack_file
from homeport.model.base import Frozen
from homeport.store.database import Database
from homeport.store.portable import Changes, bring

log = logging.getLogger("homeport.backups")

EVERY = 2.0
"""Seconds between looks whether the store was written to."""
LONGEST = 8.0
"""Seconds between looks at most, for targets that take long: a busy store does not keep one busy for good."""
LOST_AT_MOST = EVERY + LONGEST
"""Seconds of what the platform knows that may be lost with the machine, while targets answer."""
PAGE = 4096
MOST = 200
"""Objects of a generation; then everything is sent anew and the generation before the last is removed."""
RENEWED = 6 * 3600.0
"""Seconds after which a generation ends at the next write: what was removed or damaged on a target meanwhile is there again then."""
KEPT = 2
"""Generations kept on a target."""
PREFIX = "store"
FAILURES = (StorageFailed, OSError, sqlite3.Error, SQLAlchemyError)


class Header(Frozen):
    """What an object says of itself."""

    generation: str
    number: int
    at: datetime
    """When the store was as it says."""
    home: str
    pages: int
    """Pages of the whole store."""
    changed: tuple[int, ...]
    """Which of them follow, in this order."""
    whole: str
    """Digest over the digests of all pages."""
    files: dict[str, str] = {}
    """Small files of the home beside the store, in base64: sealed themselves, or keys for keys."""


@dataclass
class _Sent:
    """What a target has."""

    generation: str = ""
    number: int = -1
    digests: list[bytes] = field(default_factory=list)
    bytes: int = 0
    began: float = 0.0
    """`time.monotonic()` of its first object."""
    files: dict[str, str] = field(default_factory=dict)
    mark: str = ""


class Mirror:
    """Keeps targets up to date, in a thread of its own."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self._changes = Changes(room.store.database)
        self._sent: dict[str, _Sent] = {}
        self._said: set[str] = set()
        self._rested: tuple[object, ...] = ()
        self.sent = 0
        """Objects sent since the start."""
        self._lock = threading.Lock()

    def run(self, stopping: threading.Event, moved: Callable[[], None] = lambda: None) -> None:
        """Until `stopping`, and once more then: what was written last is sent too. `moved` is called after something was sent."""
        wait, seen = EVERY, 0
        while not stopping.wait(wait):
            began = time.monotonic()
            self.tick()
            if self.sent != seen:
                seen = self.sent
                moved()
            wait = min(LONGEST, max(EVERY, 4 * (time.monotonic() - began)))
        self.tick()
        self.close()

    def close(self) -> None:
        self._changes.close()

    def tick(self) -> dict[str, str]:
        """Send what is new to every target; by target what did not work, each told once."""
        with self._lock:
            try:
                problems = self._tick()
            except FAILURES as error:
                problems = {"the store": getattr(error, "why", None) or str(error)}
        for name, why in problems.items():
            if name not in self._said:
                log.warning("the store is not copied to %s: %s", name, why)
                self._said.add(name)
                with contextlib.suppress(*FAILURES):
                    self.room.wiring.tell("backup.store-waits", f"What changes is not copied to {name} now: {why}", subject=name)
        self._said &= set(problems)
        return problems

    def _tick(self) -> dict[str, str]:
        mark = self._changes.mark()
        seen = (mark, *_stats(self.room.home))
        if seen == self._rested:
            return {}  # nothing was written since every target had everything; targets themselves are in the store
        files, targets = _files(self.room.home), self.room.targets()
        behind = [target for target in targets if (sent := self._of(target)).mark != mark or sent.files != files]
        if not behind:
            self._rested = seen
            return {}
        image = self._image()
        digests = [hashlib.blake2b(image[start : start + PAGE], digest_size=16).digest() for start in range(0, len(image), PAGE)]
        problems: dict[str, str] = {}
        for target, repository in zip(targets, self.room.repositories(), strict=True):
            if target in behind:
                try:
                    self._send(self._of(target), repository, image, digests, files)
                    self._of(target).mark = mark
                    self.sent += 1
                except (StorageFailed, OSError) as error:
                    problems[target.name] = getattr(error, "why", None) or str(error)
        self._rested = () if problems else seen
        return problems

    def _of(self, target: Any) -> _Sent:
        return self._sent.setdefault(f"{target.kind} {target.address}", _Sent())

    def _image(self) -> bytes:
        database = self.room.store.database
        if database.sqlite:
            return self._changes.image()
        file = self.room.made("scratch").parent / "store.image"
        copied = Database(f"sqlite:///{file}")
        try:
            copied.migrate()
            bring(database, copied)
        finally:
            copied.close()
        return file.read_bytes()

    def _send(self, sent: _Sent, repository: Repository, image: bytes, digests: list[bytes], files: dict[str, str]) -> None:
        old = sent.number + 1 >= MOST or sent.bytes > 2 * len(image) + (1 << 20) or time.monotonic() - sent.began > RENEWED
        new = sent.number < 0 or old
        generation, number = (_next(repository), 0) if new else (sent.generation, sent.number + 1)
        had = [] if new else sent.digests
        changed = [index for index, digest in enumerate(digests) if index >= len(had) or had[index] != digest]
        header = Header(
            generation=generation, number=number, at=datetime.now(UTC), home=str(self.room.home), pages=len(digests),
            changed=tuple(changed), whole=_whole(digests), files=files,
        )  # fmt: skip
        pages = b"".join(image[index * PAGE : (index + 1) * PAGE] for index in changed)
        _put(repository, header, pages)
        sent.generation, sent.number, sent.digests, sent.files = generation, number, digests, files
        sent.bytes = len(pages) if new else sent.bytes + len(pages)
        if new:
            sent.began = time.monotonic()
            _tidy(repository)


def _stats(home: Path) -> list[tuple[int, int, int]]:
    """What changes when one of the small files is written."""
    found = []
    for name in FILES:
        with contextlib.suppress(FileNotFoundError):
            seen = (home / name).stat()
            found.append((seen.st_ino, seen.st_size, seen.st_mtime_ns))
    return found


def _files(home: Path) -> dict[str, str]:
    found = {}
    for name in FILES:
        with contextlib.suppress(FileNotFoundError):
            found[name] = base64.b64encode((home / name).read_bytes()).decode()
    return found


def _whole(digests: Sequence[bytes]) -> str:
    return hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()


def _put(repository: Repository, header: Header, pages: bytes) -> None:
    """Seal and upload one object. Raises StorageFailed, OSError."""
    head = header.model_dump_json().encode()
    plain = repository.scratch / f"{repository.name}-store.plain"
    sealed = repository.scratch / f"{repository.name}-store.pages"
    try:
        plain.write_bytes(len(head).to_bytes(8) + head + _code(repository.key, head, pages) + pages)
        pack_file(plain, sealed, repository.key)
        repository.storage.put(_key(header.generation, header.number), sealed)
    finally:
        plain.unlink(missing_ok=True)
        sealed.unlink(missing_ok=True)


def _code(key: BackupKey, head: bytes, pages: bytes) -> bytes:
    return hashlib.sha256(key.sign(head + hashlib.sha256(pages).digest()).encode()).digest()


def _key(generation: str, number: int) -> str:
    return f"{PREFIX}/{generation}/{number:06}.pages"


def _next(repository: Repository) -> str:
    """A name that sorts after every other generation's, also when the clock was put back."""
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z-{secrets.token_hex(3)}"
    last = max(_generations(repository), default="")
    return now if now > last else f"{last}+"


def _tidy(repository: Repository) -> None:
    """Remove generations before the last ones. What cannot be removed now is removed with the next."""
    kept = _generations(repository)
    for generation in sorted(kept)[:-KEPT]:
        for number in sorted(kept[generation], reverse=True):
            with contextlib.suppress(StorageFailed):
                repository.storage.remove(_key(generation, number))


def _generations(repository: Repository) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for key in repository.storage.list(PREFIX):
        parts = key.split("/")
        if len(parts) == 3 and parts[2].endswith(".pages") and parts[2][:6].isdigit():
            found.setdefault(parts[1], []).append(int(parts[2][:6]))
    return found


# --- bringing it back -------------------------------------------------------------------------------------------------


@dataclass
class Mirrored:
    """The store as a target has it."""

    at: datetime
    home: str
    image: bytes
    files: dict[str, str]


def newest(repository: Repository) -> Mirrored | None:
    """The newest whole state that a target holds; None when it holds none. Objects after one that is missing or damaged are left out.

    Raises StorageFailed.
    """
    generations = _generations(repository)
    for generation in sorted(generations, reverse=True):
        found = _replay(repository, generation, sorted(generations[generation]))
        if found is not None:
            return found
    return None


def _replay(repository: Repository, generation: str, numbers: list[int]) -> Mirrored | None:
    image, digests, last = bytearray(), [b""] * 0, None
    for wanted, number in enumerate(numbers):
        try:
            if number != wanted:
                break
            header, pages = _fetch(repository, generation, number)
        except (ParcelDamaged, BackupKeyWrong, ObjectMissing) as error:
            log.warning("the store's copy %s ends before %s: %s", generation, number, error.why)
            break
        fresh = image[: header.pages * PAGE].ljust(header.pages * PAGE, b"\0")
        marks = [*digests[: header.pages], *[b""] * (header.pages - len(digests))]
        for place, index in enumerate(header.changed):
            page = pages[place * PAGE : (place + 1) * PAGE]
            fresh[index * PAGE : (index + 1) * PAGE] = page
            marks[index] = hashlib.blake2b(page, digest_size=16).digest()
        if _whole(marks) != header.whole:
            break
        image, digests, last = fresh, marks, header
    if last is None:
        return None
    return Mirrored(at=last.at, home=last.home, image=bytes(image), files=last.files)


def _fetch(repository: Repository, generation: str, number: int) -> tuple[Header, bytes]:
    """One object, checked. Raises ParcelDamaged, BackupKeyWrong, StorageFailed."""
    sealed, plain = repository.scratch / f"{generation}.in", repository.scratch / f"{generation}.out"
    try:
        repository.storage.fetch(_key(generation, number), sealed)
        unpack_file(sealed, plain, repository.key, backup=generation)
        data = plain.read_bytes()
        length = int.from_bytes(data[:8])
        head, code, pages = data[8 : 8 + length], data[8 + length : 40 + length], data[40 + length :]
        if code != _code(repository.key, head, pages):
            raise ParcelDamaged(backup=generation, why=f"Number {number} was not made by this home.")
        header = Header.model_validate(json.loads(head))
        if (header.generation, header.number) != (generation, number) or len(pages) != len(header.changed) * PAGE:
            raise ParcelDamaged(backup=generation, why=f"Number {number} is another than its name says.")
        return header, pages
    except ValueError as error:
        raise ParcelDamaged(backup=generation, why=f"Number {number} cannot be read.") from error
    finally:
        sealed.unlink(missing_ok=True)
        plain.unlink(missing_ok=True)


def put_back(found: Mirrored, home: Path) -> None:
    """Write the store and its small files into a home. Raises ParcelDamaged, OSError."""
    file = home / "homeport.db"
    write_atomic(file, found.image, 0o600)
    with contextlib.closing(sqlite3.connect(file)) as database:
        verdict = database.execute("PRAGMA integrity_check").fetchone()[0]
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if verdict != "ok":
        raise ParcelDamaged(backup=PREFIX, why=f"The copy of the store is damaged: {verdict}.")
    for name, text in found.files.items():
        if name in FILES:
            write_atomic(home / name, base64.b64decode(text), 0o600)
