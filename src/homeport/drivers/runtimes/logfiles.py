"""The two log files of an instance: tail, follow, and bound them.

The instance writes straight to `stdout.log` and `stderr.log`, opened for appending, so that it needs nobody to go on. A line carries no
time of its own. `mark` notes now and then how long the files are; a line then has the time of the first mark after it, to about a second.
Offsets count from the first byte ever written: `<stream>.base` says how many bytes rotation has taken off the front.
"""

from __future__ import annotations

import bisect
import ctypes
import errno
import gzip
import io
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

from homeport.drivers.runtimes.base import LogLine, Output

Stream = Literal["stdout", "stderr"]
STREAMS: tuple[Stream, ...] = ("stdout", "stderr")

SIZE = 10 << 20
"""Bytes at which a file is rotated."""
KEPT = 5
"""Rotated files per stream, compressed."""
LONGEST = 64 << 10
"""Bytes after which a line is cut into two."""
_WORD = 8 << 10
"""Bytes at the end of such a line in which a blank is looked for."""
_MARKS = 256 << 10
_FASTEST, _SLOWEST = 0.02, 0.25
_COLLAPSE = 0x08  # FALLOC_FL_COLLAPSE_RANGE, <linux/falloc.h>


class InstanceLog:
    """The log folder of one instance."""

    def __init__(self, id: str, folder: Path) -> None:
        self.id, self.folder = id, folder
        self._writing = threading.Lock()
        self._sizes: list[int] | None = None

    def path(self, stream: Stream) -> Path:
        return self.folder / f"{stream}.log"

    def base(self, stream: Stream) -> int:
        try:
            return int((self.folder / f"{stream}.base").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def end(self, stream: Stream) -> int:
        """Bytes ever written."""
        return self.base(stream) + self._size(stream)

    def _size(self, stream: Stream) -> int:
        try:
            return self.path(stream).stat().st_size
        except FileNotFoundError:
            return 0

    # -- reading ---------------------------------------------------------------------------------------------------

    def tail(self, count: int, *, whole: bool = False) -> tuple[list[LogLine], dict[Stream, int]]:
        """The last `count` lines of both streams in order of time, and the offsets up to which they reach.

        With `whole` a line that has not ended yet is left for later: half a secret would not be known as one.
        """
        marks = self._marks()
        found: list[tuple[datetime, LogLine]] = []
        ends: dict[Stream, int] = {}
        for stream in STREAMS:
            lines, ends[stream] = self._last_lines(stream, count, whole)
            latest = self._changed(stream)
            for offset, text in lines:
                at = _time_of(marks, STREAMS.index(stream), offset) or latest
                found.append((at, LogLine(instance=self.id, stream=stream, at=at, text=text)))
        found.sort(key=lambda pair: pair[0])
        return [line for _, line in found][-count:] if count else [], ends

    def _last_lines(self, stream: Stream, count: int, whole: bool) -> tuple[list[tuple[int, str]], int]:
        """Lines with the offset behind each, and the offset behind them all."""
        base = self.base(stream)
        try:
            with self.path(stream).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                data, start = b"", size
                while start > 0 and data.count(b"\n") <= count:
                    step = min(start, 64 << 10)
                    start -= step
                    file.seek(start)
                    data = file.read(step) + data
        except FileNotFoundError:
            return [], 0
        if start == 0 and data.count(b"\n") < count:
            older = self._rotated(stream, count - data.count(b"\n"))
            data, start = older + data, -len(older)
        begun = len(data) - data.rfind(b"\n") - 1
        if whole and 0 < begun < LONGEST:
            data, size = data[:-begun], size - begun
        offset = base + start
        lines: list[tuple[int, str]] = []
        for line in io.BytesIO(data):
            offset += len(line)
            lines.append((offset, line.decode("utf-8", "replace").rstrip("\r\n")))
        return lines[-count:] if count else [], base + size

    def _rotated(self, stream: Stream, lines: int) -> bytes:
        """The newest rotated bytes that hold so many lines."""
        data = b""
        for number in range(1, KEPT + 1):
            try:
                data = gzip.decompress((self.folder / f"{stream}.log.{number}.gz").read_bytes()) + data
            except (FileNotFoundError, EOFError, gzip.BadGzipFile):
                break
            if data.count(b"\n") >= lines:
                break
        return data

    def output(self, starts: dict[Stream, int], ended: Callable[[], bool], stopped: Callable[[], bool]) -> Iterator[Output]:
        """What is written after these offsets, as it comes, until the instance has ended or the caller is `stopped`.

        Files give no event that a plain read could wait for: it looks every 20 ms while something comes, and ever more seldom, down to
        four times a second, while nothing does.
        """
        at = dict(starts)
        pause = _FASTEST
        while not stopped():
            last_round = ended()
            some = False
            for stream in STREAMS:
                for data in self._after(stream, at):
                    some = True
                    yield Output(stream=stream, data=data)
            if last_round and not some:
                return
            if not last_round:
                pause = _FASTEST if some else min(pause * 1.5, _SLOWEST)
                time.sleep(pause)

    def _after(self, stream: Stream, at: dict[Stream, int]) -> Iterator[bytes]:
        offset = at.get(stream, 0)
        if self.end(stream) <= offset:
            return
        with self.path(stream).open("rb") as file:
            file.seek(max(0, offset - self.base(stream)))
            while data := file.read(64 << 10):
                offset += len(data)
                at[stream] = offset
                yield data

    def follow(self, starts: dict[Stream, int], ended: Callable[[], bool], stopped: Callable[[], bool]) -> Iterator[LogLine]:
        """Lines written after these offsets; their time is when they were found."""
        pending: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
        for piece in self.output(starts, ended, stopped):
            *lines, rest = (pending[piece.stream] + piece.data).split(b"\n")
            if len(rest) >= LONGEST:
                cut = rest.rfind(b" ", len(rest) - _WORD) + 1 or len(rest)  # a word is left whole: a secret is known only as a whole
                lines, rest = [*lines, rest[:cut]], rest[cut:]
            pending[piece.stream] = rest
            for line in lines:
                yield self._line(piece.stream, line)
        for stream, rest in pending.items():
            if rest:
                yield self._line(stream, rest)

    def _line(self, stream: Stream, data: bytes) -> LogLine:
        return LogLine(instance=self.id, stream=stream, at=datetime.now(UTC), text=data.decode("utf-8", "replace").rstrip("\r"))

    def _changed(self, stream: Stream) -> datetime:
        try:
            return datetime.fromtimestamp(self.path(stream).stat().st_mtime, UTC)
        except FileNotFoundError:
            return datetime.fromtimestamp(0, UTC)

    # -- time and size ---------------------------------------------------------------------------------------------

    def mark(self) -> None:
        """Note the time and how much has been written, when it is more than at the last mark."""
        sizes = [self._size(stream) for stream in STREAMS]
        if sizes == self._sizes:
            return
        self._sizes = sizes
        with self._writing:
            lengths = [self.end(stream) for stream in STREAMS]
            marks = self._marks()
            if not any(lengths) or (marks and list(marks[-1][1:]) == lengths):
                return
            path = self.folder / "times"
            if path.exists() and path.stat().st_size > _MARKS:
                _replace(path, "".join(f"{a} {b} {c}\n" for a, b, c in marks[len(marks) // 2 :]))
            with path.open("a") as file:
                file.write(f"{time.time_ns() // 1_000_000} {lengths[0]} {lengths[1]}\n")

    def _marks(self) -> list[tuple[int, int, int]]:
        try:
            lines = (self.folder / "times").read_text().splitlines()
        except FileNotFoundError:
            return []
        split = [line.split() for line in lines]
        return [
            (int(parts[0]), int(parts[1]), int(parts[2])) for parts in split if len(parts) == 3 and all(part.isdigit() for part in parts)
        ]

    def rotate(self, size: int = SIZE) -> None:
        """Compress away what is over `size`; the instance notices nothing and, where the file system can cut, no byte is lost."""
        for stream in STREAMS:
            path = self.path(stream)
            try:
                if path.stat().st_size > size:
                    with self._writing:
                        self._rotate(stream, path)
            except FileNotFoundError:
                continue

    def _rotate(self, stream: Stream, path: Path) -> None:
        part = self.folder / f"{stream}.log.new.gz"
        with path.open("r+b") as file:
            status = os.fstat(file.fileno())
            length = (status.st_size - 1) // status.st_blksize * status.st_blksize
            with gzip.open(part, "wb", compresslevel=1) as target:
                _copy(file, target, length)
                if not _cut_front(file.fileno(), length):
                    shutil.copyfileobj(file, target)
                    length = file.tell()
                    os.ftruncate(file.fileno(), 0)
        _replace(self.folder / f"{stream}.base", str(self.base(stream) + length))
        for number in range(KEPT - 1, 0, -1):
            older = self.folder / f"{stream}.log.{number}.gz"
            if older.exists():
                older.replace(self.folder / f"{stream}.log.{number + 1}.gz")
        part.replace(self.folder / f"{stream}.log.1.gz")


def _time_of(marks: list[tuple[int, int, int]], column: int, offset: int) -> datetime | None:
    place = bisect.bisect_left(marks, offset, key=lambda mark: mark[column + 1])
    return datetime.fromtimestamp(marks[place][0] / 1000, UTC) if place < len(marks) else None


def _copy(source: IO[bytes], target: IO[bytes] | gzip.GzipFile, length: int) -> None:
    while length > 0:
        data = source.read(min(length, 1 << 20))
        if not data:
            return
        target.write(data)
        length -= len(data)


def _cut_front(file: int, length: int) -> bool:
    """Take bytes off the front in one step of the file system (ext4, XFS); writers that append go on at the new end."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(file, _COLLAPSE, ctypes.c_long(0), ctypes.c_long(length)) == 0:
        return True
    if ctypes.get_errno() not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
        raise OSError(ctypes.get_errno(), "the log could not be cut")
    return False


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".new")
    part.write_text(text)
    part.replace(path)
