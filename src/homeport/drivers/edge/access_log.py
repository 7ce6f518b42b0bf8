"""The edge's access log, read as it grows: how many requests a site got and how many of them failed."""

from __future__ import annotations

import io
import json
import os
import threading
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

SKEW = 5.0
"""Seconds lines may be out of order: each worker writes its buffer at most a second late."""
TICK = 0.1
"""Seconds of one counting bucket."""
HORIZON = 3600.0
"""Seconds that counts are kept."""
MOST_AT_ONCE = 256 * 1024 * 1024
"""Bytes read in one call; the next call goes on."""


@dataclass(frozen=True)
class Traffic:
    """Requests of a site in a time."""

    requests: int = 0
    errors: int = 0
    """Answers with a status of 500 or more."""
    seconds: float = 0
    """Sum of the times they took."""


class AccessLog:
    """Counts requests in `edge/log/access.jsonl`. Reads only what was added since the last call; safe to share between threads."""

    def __init__(self, home: Path) -> None:
        self._path = home / "edge/log/access.jsonl"
        self._lock = threading.Lock()
        self._file: io.BufferedReader | None = None
        self._rest = b""
        self._counts: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(dict)

    def counts(self, site: str, since: datetime, release: str = "") -> tuple[int, int]:
        """Requests and errors (5xx) of a site since then, of one release when it is named. `since` must know its time zone."""
        traffic = self.traffic(site, since, release)
        return traffic.requests, traffic.errors

    def traffic(self, site: str, since: datetime, release: str = "") -> Traffic:
        """The same with the time the requests took. The first call finds the place of `since` in the file by bisection."""
        with self._lock:
            self._read(since.timestamp())
            first = int(since.timestamp() / TICK)
            requests = errors = seconds = 0.0
            for (name, made_by), buckets in self._counts.items():
                if name == site and release in ("", made_by):
                    for tick, (count, failed, took) in buckets.items():
                        if tick >= first:
                            requests, errors, seconds = requests + count, errors + failed, seconds + took
            return Traffic(int(requests), int(errors), seconds)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _read(self, since: float) -> None:
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except FileNotFoundError:
                return
            _seek(self._file, since - SKEW)
        budget = MOST_AT_ONCE
        while budget > 0:
            data = self._file.read(min(budget, 1 << 20))
            budget -= len(data)
            if data:
                self._take(data)
            elif not self._turned():
                break
        self._forget()

    def _turned(self) -> bool:
        """Go on with the new file after a rotation, or from the start after a truncation; whether there was one."""
        file = self._file
        assert file is not None  # noqa: S101
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(file.fileno())
        if (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino):
            late = file.read()  # written between the last read and the rotation
            self._take(late)
            file.close()
            self._file, self._rest = self._path.open("rb"), b""
            return True
        if mine.st_size < file.tell():
            file.seek(0)
            self._rest = b""
            return True
        return False

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                entry = json.loads(line)
                tick = int(float(entry["time"]) / TICK)
                status, seconds, key = int(entry["status"]), float(entry["seconds"]), (str(entry["site"]), str(entry["release"]))
            except (ValueError, KeyError, TypeError):
                continue
            bucket = self._counts[key].setdefault(tick, [0, 0, 0.0])
            bucket[0] += 1
            bucket[1] += status >= 500
            bucket[2] += seconds

    def _forget(self) -> None:
        newest = max((max(buckets) for buckets in self._counts.values() if buckets), default=0)
        limit = newest - int(HORIZON / TICK)
        for key in list(self._counts):
            old = [tick for tick in self._counts[key] if tick < limit]
            for tick in old:
                del self._counts[key][tick]
            if not self._counts[key]:
                del self._counts[key]


def _seek(file: io.BufferedReader, since: float) -> None:
    """Go to the first line that is not older, in a file whose lines are in order."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while low < high:
        middle = (low + high) // 2
        file.seek(middle)
        if middle:
            file.readline()
        time = _time(file)
        if time is None or time >= since:
            high = middle
        else:
            low = middle + 1
    file.seek(low)
    if low:
        file.readline()


def _time(file: io.BufferedReader) -> float | None:
    """Time of the next line that has one; None at the end."""
    for line in iter(file.readline, b""):
        try:
            return float(json.loads(line)["time"])
        except (ValueError, KeyError, TypeError):
            continue
    return None
