"""Backups of PostgreSQL and Valkey against the real engines: going back to a moment, and proofs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis
from rooms import House, house_in, sql

from homeport.backups import wal
from homeport.backups.drills import drill
from homeport.backups.errors import TimeUnreachable
from homeport.backups.restoring import Moment, restore_in_place
from homeport.backups.taking import take_addon

pytestmark = pytest.mark.xdist_group("backups-in-time")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_in(tmp_path_factory.mktemp("time") / "home") as house:
        yield house


def test_a_backup_is_proven_and_goes_back_to_any_transaction(house: House) -> None:
    """Five moments between transactions: each restore holds exactly those that were committed before it."""
    place = house.add("db")
    sql(place, "CREATE TABLE entries (id serial PRIMARY KEY, note text, at timestamptz DEFAULT clock_timestamp())")
    sql(place, "INSERT INTO entries (note) SELECT 'before ' || g FROM generate_series(1, 1000) g")
    manifest = take_addon(house.room, place.id)
    proof = drill(house.room, manifest)
    assert proof.problem == ""
    assert proof.compared["rows"] == 1000
    row = house.store.backups.get(manifest.id)
    assert row is not None
    assert row.proven_at is not None
    moments: list[tuple[int, datetime]] = []
    for number in range(5):
        sql(place, "INSERT INTO entries (note) VALUES (%s)", f"after {number}")
        moments.append((1001 + number, sql(place, "SELECT clock_timestamp()")[0][0]))
    for rows, at in reversed(moments):
        done = restore_in_place(house.room, place.id, Moment(at=at))
        assert done.rows == rows
        assert sql(place, "SELECT count(*), max(id) FROM entries")[0][0] == rows
        assert done.tombstone
    sql(place, "INSERT INTO entries (note) VALUES ('the restored one takes writes')")


def test_times_out_of_reach_are_told_with_the_nearest_that_is_not(house: House) -> None:
    """Before the first backup the answer names the earliest time, past the archive the latest; what runs goes on."""
    place = house.add("reach")
    sql(place, "CREATE TABLE t (id int)")
    take_addon(house.room, place.id)
    with pytest.raises(TimeUnreachable) as early:
        restore_in_place(house.room, place.id, Moment(at=datetime.now(UTC) - timedelta(days=1)))
    assert early.value.earliest is not None
    with pytest.raises(TimeUnreachable) as future:
        restore_in_place(house.room, place.id, Moment(at=datetime.now(UTC) + timedelta(days=1)))
    assert future.value.latest is not None
    sql(place, "INSERT INTO t VALUES (1)")
    wal.flush(house.room, place.id)
    house.postgres.stop(place.id)
    with pytest.raises(TimeUnreachable) as late:
        restore_in_place(house.room, place.id, Moment(at=datetime.now(UTC)))
    assert late.value.latest is not None
    assert "latest possible" in late.value.fix
    house.postgres.start(place.id)
    assert sql(place, "SELECT count(*) FROM t") == [(1,)]


def test_valkey_goes_back_to_its_copy(house: House) -> None:
    """Keys written after the copy are gone, those of the copy are there, and the password stays."""
    place = house.add_valkey("cache")
    with redis.Redis.from_url(place.credentials["web"].url) as client:
        for number in range(100):
            client.set(f"k{number}", number)
        manifest = take_addon(house.room, place.id)
        assert drill(house.room, manifest).compared == {"keys": 100}
        client.set("later", 1)
    restore_in_place(house.room, place.id, Moment(backup=manifest.id))
