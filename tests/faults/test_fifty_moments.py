"""Fifty moments out of a stretch of writes: each recovery holds exactly the transactions that were committed before it."""

from __future__ import annotations

import json
import random
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from rooms import House, house_in, sql

from homeport.backups import wal
from homeport.backups.restoring import Moment, choose, materialise
from homeport.backups.taking import take_addon
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import Provisioned

SEED = 20261120


class Writer:
    """Commits row after row, and knows of each the moments between which it was committed."""

    def __init__(self, place: Provisioned) -> None:
        self.place = place
        self.commits: list[tuple[datetime, datetime]] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        with psycopg.connect(self.place.credentials["web"].url) as connection:
            while not self.stop.is_set():
                before = datetime.now(UTC)
                connection.execute("INSERT INTO writes (note) VALUES (repeat('x', 200))")
                connection.commit()
                self.commits.append((before, datetime.now(UTC)))
                time.sleep(0.002)

    def bounds(self, at: datetime) -> tuple[int, int]:
        """Fewest and most rows there can have been at a moment: they differ by one while a commit was under way."""
        return sum(after <= at for _, after in self.commits), sum(before <= at for before, _ in self.commits)


def write_and_recover(house: House, seconds: float, moments: int) -> dict[str, object]:
    """Write for a while with two base backups in it, and recover to random moments."""
    place = house.add("pitr")
    sql(place, "CREATE TABLE writes (id serial PRIMARY KEY, note text)")
    take_addon(house.room, place.id)
    writer = Writer(place)
    writer.thread.start()
    time.sleep(seconds / 2)
    take_addon(house.room, place.id)
    time.sleep(seconds / 2)
    writer.stop.set()
    writer.thread.join()
    wal.advance(house.room, place.id)
    chance = random.Random(SEED)
    first, last = writer.commits[0][1], writer.commits[-1][1]
    exact, wrong = 0, []
    began = time.monotonic()
    for _ in range(moments):
        at = first + (last - first) * chance.random()
        scratch = house.room.scratch_id(place.id)
        materialise(house.room, choose(house.room, place.id, Moment(at=at)), Moment(at=at), scratch)
        with house.postgres.cluster(scratch).admin("shop") as admin:
            rows, highest = admin.execute("SELECT count(*), coalesce(max(id), 0) FROM writes").fetchone() or (0, 0)
        fewest, most = writer.bounds(at)
        if fewest <= rows <= most and rows == highest:
            exact += 1
        else:
            wrong.append({"at": at.isoformat(), "rows": rows, "wanted": [fewest, most]})
        switching.discard(house.postgres, scratch)
    took = (time.monotonic() - began) / moments
    return {
        "moments": moments,
        "exact": exact,
        "wrong": wrong,
        "transactions": len(writer.commits),
        "seconds_each": round(took, 2),
        "seed": SEED,
    }


@pytest.mark.xdist_group("backups-in-time")
@pytest.mark.timeout(300)
def test_random_moments_are_exact_to_the_transaction(tmp_path: Path) -> None:
    """Five moments in a few seconds of writes: all exact."""
    with house_in(tmp_path / "home") as house:
        found = write_and_recover(house, 3, 5)
    assert found["exact"] == 5, found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_random_moments_are_exact_to_the_transaction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fifty moments in a minute of writes: 50 of 50 exact; the figures are printed as JSON."""
    with house_in(tmp_path / "home") as house:
        found = write_and_recover(house, 60, 50)
    with capsys.disabled():
        print(json.dumps({"pitr": found}))
    assert found["exact"] == 50, found
