"""Random moments of a stretch of writes, each restored: `python -m benchmarks.moments [--seconds 3600] [--moments 50]` prints JSON.

A moment is exact when the copy holds just the transactions that were committed before it. The writer notes the time before and after each
commit; one that was under way at the moment may be in the copy or not, every other one has its place.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.backups import Bench
from homeport.backups import wal
from homeport.backups.keeper import SHIP_EVERY
from homeport.backups.manifest import Moment
from homeport.backups.restoring import choose, materialise
from homeport.backups.room import Room
from homeport.backups.taking import take_addon
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import Provisioned

SEED = 20261120
TABLE = "CREATE TABLE writes (id serial PRIMARY KEY, note text)"


class Writer:
    """Commits row after row, `pause` seconds apart, and knows of each the moments between which it was committed."""

    def __init__(self, place: Provisioned, pause: float) -> None:
        self.place, self.pause = place, pause
        self.commits: list[tuple[datetime, datetime]] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, name="writer")

    def run(self) -> None:
        with psycopg.connect(self.place.credentials["web"].url) as connection:
            while not self.stop.is_set():
                before = datetime.now(UTC)
                connection.execute("INSERT INTO writes (note) VALUES (repeat('x', 200))")
                connection.commit()
                self.commits.append((before, datetime.now(UTC)))
                self.stop.wait(self.pause)

    def bounds(self, at: datetime) -> tuple[int, int]:
        """Fewest and most rows there can have been at a moment: they differ by one while a commit was under way."""
        return sum(after <= at for _, after in self.commits), sum(before <= at for before, _ in self.commits)


def write(room: Room, place: Provisioned, seconds: float, bases: int, pause: float) -> Writer:
    """Write for `seconds` with `bases` base backups spread over them, shipping WAL as the keeper does."""
    with psycopg.connect(place.credentials["web"].url, autocommit=True) as connection:
        connection.execute(TABLE)
    take_addon(room, place.id)
    writer = Writer(place, pause)
    began = time.monotonic()
    writer.thread.start()
    try:
        for number in range(1, bases + 1):
            until = began + seconds * number / bases
            while (left := until - time.monotonic()) > 0:
                writer.stop.wait(min(left, SHIP_EVERY))
                wal.ship_all(room)
            if number < bases:
                take_addon(room, place.id)
    finally:
        writer.stop.set()
        writer.thread.join()
    wal.advance(room, place.id)
    return writer


def recover(room: Room, place: Provisioned, writer: Writer, moments: int) -> dict[str, Any]:
    """Bring random moments back, one after the other, and compare each with what was committed before it."""
    chance = random.Random(SEED)
    first, last = writer.commits[0][1], writer.commits[-1][1]
    exact, wrong = 0, []
    began = time.monotonic()
    for _ in range(moments):
        at = first + (last - first) * chance.random()
        scratch = room.scratch_id(place.id)
        materialise(room, choose(room, place.id, Moment(at=at)), Moment(at=at), scratch)
        with room.postgres.cluster(scratch).admin(place.credentials["web"].database) as admin:
            rows, highest = admin.execute("SELECT count(*), coalesce(max(id), 0) FROM writes").fetchone() or (0, 0)
        fewest, most = writer.bounds(at)
        if fewest <= rows <= most and rows == highest:
            exact += 1
        else:
            wrong.append({"at": at.isoformat(), "rows": rows, "wanted": [fewest, most]})
        switching.discard(room.postgres, scratch)
    return {
        "moments": moments, "exact": exact, "wrong": wrong, "transactions": len(writer.commits),
        "seconds_of_writes": round((last - first).total_seconds(), 1),
        "seconds_each": round((time.monotonic() - began) / max(1, moments), 2), "seed": SEED,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=3600, help="how long is written: 3600 for the figure that the documentation quotes"
    )
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--bases", type=int, default=4, help="base backups, the first before the first write")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between commits")
    chosen = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="homeport-bench-"))
    folder.chmod(0o755)
    bench = Bench(folder / "home")
    try:
        place = bench.provision()
        writer = write(bench.room, place, chosen.seconds, chosen.bases, chosen.pause)
        return {"moments": recover(bench.room, place, writer, chosen.moments)}
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    json.dump(main(), sys.stdout, indent=1)
    sys.stdout.write("\n")
