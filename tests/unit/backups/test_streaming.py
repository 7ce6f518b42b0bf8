"""Streaming of the log to the targets, with real engines: what is lost with a machine, and what happens when a part of the way is away."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from rooms import House, house_in, sql

from homeport.backups import wal
from homeport.backups.errors import TimeUnreachable, WalBroken
from homeport.backups.manifest import Manifest, Moment
from homeport.backups.repository import Repository
from homeport.backups.restoring import materialise
from homeport.backups.room import Policy
from homeport.backups.streaming import Streams, unfinished
from homeport.backups.taking import take_addon
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import Provisioned
from homeport.drivers.addons.postgres.receiving import content
from homeport.drivers.storage.base import Target
from homeport.drivers.storage.parcels import ParcelDamaged
from homeport.model.addon import Postgres

pytestmark = [pytest.mark.xdist_group("backups-streaming"), pytest.mark.timeout(300)]

RPO = 5.0
SEED = 20261121


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_in(tmp_path_factory.mktemp("stream") / "home") as house:
        house.store.backups.set_policy(Policy(rpo=timedelta(seconds=RPO)).model_dump(mode="json"))
        yield house


@pytest.fixture
def shelf(house: House, tmp_path: Path) -> Iterator[Path]:
    """A target of the test's own."""
    house.targets[:] = [Target(name="shelf", kind="folder", address=str(tmp_path / "shelf"))]
    yield tmp_path / "shelf"
    house.targets.clear()


def until(ready: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def repository(house: House) -> Repository:
    return house.room.repositories()[0]


def position(place: Provisioned) -> int:
    return int(sql(place, "SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")[0][0])


def received(house: House, place: Provisioned) -> None:
    """Return when everything that is committed now was received."""
    here = position(place)

    def there() -> bool:
        house.postgres.ensure()
        receiver = house.postgres.receiver(place.id)
        seen = receiver.look() if receiver is not None else None
        return seen is not None and seen.received is not None and seen.received >= here

    until(there)


def rows_of(house: House, place: Provisioned, manifest: Manifest, moment: Moment | None = None) -> list[int]:
    """Rows of the copy that the target alone gives."""
    scratch = house.room.scratch_id(place.id)
    materialise(house.room, manifest, moment or Moment(), scratch)
    try:
        with house.postgres.cluster(scratch).admin("shop") as admin:
            return [int(row[0]) for row in admin.execute("SELECT id FROM t ORDER BY id").fetchall()]
    finally:
        switching.discard(house.postgres, scratch)


@contextmanager
def streaming(house: House, place: Provisioned) -> Iterator[tuple[Streams, Manifest]]:
    """A base backup, and one look: from now on every look ships what is new."""
    sql(place, "CREATE TABLE t (id serial PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())")
    manifest = take_addon(house.room, place.id)
    streams = Streams(house.room)
    assert streams.look() == {}
    yield streams, manifest
    house.postgres.stop(place.id)
    house.store.ledger.release("addon", place.id.slug)


class Writer:
    """Commits row after row and knows when each was acknowledged."""

    def __init__(self, place: Provisioned) -> None:
        self.place, self.acknowledged = place, dict[int, float]()
        self.thread = threading.Thread(target=self._run, name="writer")
        self.thread.start()

    def _run(self) -> None:
        try:
            with psycopg.connect(self.place.credentials["web"].url, autocommit=True) as connection:
                while True:
                    row = connection.execute("INSERT INTO t DEFAULT VALUES RETURNING id").fetchone()
                    assert row is not None
                    self.acknowledged[row[0]] = time.monotonic()
        except psycopg.Error:
            pass  # its server was killed


@pytest.mark.parametrize("version", [pytest.param("16", marks=pytest.mark.slow), "18"])
def test_what_was_acknowledged_before_the_window_survives_the_machine(house: House, shelf: Path, tmp_path: Path, version: str) -> None:
    """Under constant writes everything is killed and wiped: from the target alone, all but the last seconds comes back."""
    place = house.add(f"lost{version}", Postgres(version=version, database="shop", memory=64 << 20))
    with streaming(house, place) as (streams, manifest):
        streams.start()
        writer = Writer(place)
        until(lambda: place.id.slug in house.postgres.covered and len(writer.acknowledged) > 100)
        last = house.postgres.covered[place.id.slug]
        until(lambda: house.postgres.covered[place.id.slug] > last + 0.5)
        moment = random.Random(f"{SEED} {version}").uniform(0, streams.pace())
        threading.Event().wait(moment)  # any moment between two looks
        receiver = house.postgres.receiver(place.id)
        assert receiver is not None
        shelf.rename(tmp_path / "saved")  # nothing reaches it from now on
        gone = time.monotonic()
        for pid in [*house.postgres.cluster(place.id).server.holders(), *receiver.server.holders()]:
            os.kill(pid, signal.SIGKILL)
        streams.stop()
        writer.thread.join()
        house.postgres.stop(place.id)
        shutil.rmtree(house.postgres.cluster(place.id).place.folder)
        house.targets[:] = [Target(name="shelf", kind="folder", address=str(tmp_path / "saved"))]
        back = set(rows_of(house, place, manifest))
        wanted = {row for row, at in writer.acknowledged.items() if at <= gone - RPO}
        assert wanted <= back
        assert back <= {*writer.acknowledged, max(writer.acknowledged) + 1}


def test_beginnings_take_each_others_place(house: House, shelf: Path) -> None:
    """One beginning lies on the target and grows; it goes when the segment is there whole, and what was left of others is pruned."""
    place = house.add("grow")
    with streaming(house, place) as (streams, manifest):
        lengths = []
        for _ in range(3):
            sql(place, "INSERT INTO t SELECT FROM generate_series(1, 100)")
            received(house, place)
            streams.look()
            (segment, keys), *others = repository(house).tails(manifest.era).items()
            assert not others
            assert len(keys) == 1
            lengths.append(int(keys[0].split(".")[1].split("-")[0], 16))
        assert lengths == sorted(set(lengths))
        assert rows_of(house, place, manifest) == list(range(1, 301))
        before = repository(house).storage.list()
        streams.look()
        assert repository(house).storage.list() == before, "nothing changed, so nothing is shipped"
        left = shelf / keys[0]
        kept = left.read_bytes()
        wal.flush(house.room, place.id)
        assert segment in repository(house).wal(manifest.era)
        assert segment not in repository(house).tails(manifest.era)
        left.write_bytes(kept)  # as a crash between the two would leave it
        assert rows_of(house, place, manifest) == list(range(1, 301))
        assert wal.prune(house.room.repositories(), {manifest.era: "0" * 24}) == 1
        assert not left.exists()


def test_a_moment_in_the_unfinished_segment_is_reached_exactly(house: House, shelf: Path) -> None:
    """A moment between two transactions of the unfinished segment; one after its end is answered with the latest that can be reached."""
    place = house.add("exact")
    with streaming(house, place) as (streams, manifest):
        sql(place, "INSERT INTO t DEFAULT VALUES")
        at = sql(place, "SELECT clock_timestamp()")[0][0]
        last = sql(place, "INSERT INTO t DEFAULT VALUES RETURNING at")[0][0]
        received(house, place)
        streams.look()
        assert rows_of(house, place, manifest, Moment(at=at)) == [1]
        with pytest.raises(TimeUnreachable) as late:
            rows_of(house, place, manifest, Moment(at=last + timedelta(seconds=30)))
        assert late.value.latest is not None
        assert abs(late.value.latest - last) < timedelta(seconds=1)
        assert rows_of(house, place, manifest) == [1, 2]


def test_damage_to_the_beginning_and_before_it_is_found(house: House, shelf: Path) -> None:
    """A changed bit in it, another timeline, and a finished segment that is missing before it are found before anything is touched."""
    place = house.add("harm")
    with streaming(house, place) as (streams, manifest):
        for _ in range(3):
            sql(place, "INSERT INTO t DEFAULT VALUES")
            wal.flush(house.room, place.id)
        sql(place, "INSERT INTO t DEFAULT VALUES")
        received(house, place)
        streams.look()
        ((segment, (key,)),) = repository(house).tails(manifest.era).items()
        whole = sorted(repository(house).wal(manifest.era).items())
        assert whole[-1][0] < segment
        data = bytearray((shelf / key).read_bytes())
        data[len(data) // 2] ^= 1
        kept = (shelf / key).read_bytes()
        (shelf / key).write_bytes(data)
        with pytest.raises(ParcelDamaged):
            rows_of(house, place, manifest)
        (shelf / key).write_bytes(kept)
        (shelf / key).rename(strange := (shelf / key).with_name(f"00000007{Path(key).name[8:]}"))
        with pytest.raises(WalBroken, match="timeline 00000007"):
            rows_of(house, place, manifest)
        strange.rename(shelf / key)
        (shelf / whole[-1][1]).rename(shelf / "elsewhere")
        with pytest.raises(WalBroken, match=whole[-1][0]):
            rows_of(house, place, manifest)
        assert sql(place, "SELECT count(*) FROM t") == [(4,)]


def test_a_target_that_was_away_gets_everything(house: House, shelf: Path, tmp_path: Path) -> None:
    """While one of two targets is away the other has everything in time; being late is told once, and being on time again once."""
    bad = tmp_path / "bad"
    bad.mkdir()
    house.targets.append(Target(name="bad", kind="folder", address=str(bad)))
    place = house.add("away")
    house.wired.events.clear()
    house.store.backups.set_policy(Policy(rpo=timedelta(seconds=1)).model_dump(mode="json"))
    with streaming(house, place) as (streams, manifest):
        bad.rename(tmp_path / "out")
        bad.write_text("a file where a folder should be")
        for number in range(3):
            sql(place, "INSERT INTO t DEFAULT VALUES")
            received(house, place)
            assert "away" in next(iter(streams.look()), "")
            if number == 1:
                wal_switch(house, place)
        until(lambda: streams.look() and [kind for kind, _ in house.wired.events if kind == "backup.wal-late"])
        assert [kind for kind, _ in house.wired.events].count("backup.wal-late") == 1
        bad.unlink()
        (tmp_path / "out").rename(bad)
        until(lambda: streams.look() == {} and [kind for kind, _ in house.wired.events if kind == "backup.wal-on-time"])
        for name in ("shelf", "bad"):
            house.targets[:] = [Target(name=name, kind="folder", address=str(tmp_path / name))]
            assert rows_of(house, place, manifest) == [1, 2, 3]
    house.store.backups.set_policy(Policy(rpo=timedelta(seconds=RPO)).model_dump(mode="json"))


def wal_switch(house: House, place: Provisioned) -> None:
    """Finish the current segment."""
    with house.postgres.cluster(place.id).admin() as admin:
        admin.execute("SELECT pg_switch_wal()")


def test_the_receiver_comes_back_after_any_end(house: House, shelf: Path) -> None:
    """Killed alone, it is started again and the database does not notice; killed with its server, both are; turned off, no trace stays."""
    place = house.add("back")
    with streaming(house, place) as (streams, manifest):
        cluster, receiver = house.postgres.cluster(place.id), house.postgres.receiver(place.id)
        assert receiver is not None
        first, serves = receiver.server.running(), house.postgres.inspect(place.id).pid
        assert first is not None
        kill(receiver.server.holders())
        until(lambda: house.postgres.ensure() == [] and receiver.server.running() is not None)
        assert house.postgres.inspect(place.id).pid == serves
        kill([*cluster.server.holders(), *receiver.server.holders()])
        until(lambda: place.id in house.postgres.ensure())
        until(lambda: house.postgres.ensure() == [] and receiver.server.running() is not None)
        sql(place, "INSERT INTO t DEFAULT VALUES")
        received(house, place)
        until(lambda: streams.look() == {} and place.id.slug in house.postgres.covered)
        metrics = house.postgres.inspect(place.id).metrics
        assert metrics["stream_running"] == 1
        assert metrics["backup_lag_seconds"] < RPO
        assert metrics["replicas"] == 0
        assert rows_of(house, place, manifest) == [1]
        house.store.backups.set_policy({})
        streams.look()
        assert house.postgres.receiver(place.id) is None
        assert receiver.look() is None
        assert not cluster.stream.exists()
        assert receiver.server.holders() == []
        wal.flush(house.room, place.id)
        assert repository(house).tails(manifest.era) == {}
    house.store.backups.set_policy(Policy(rpo=timedelta(seconds=RPO)).model_dump(mode="json"))


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_receiver_that_was_away_too_long_begins_anew(house: House, shelf: Path) -> None:
    """The slot keeps no more than its share of the disk; what lies between comes from the archive, and an event says so."""
    place = house.add("cut", Postgres(database="shop", memory=64 << 20, parameters={"max_slot_wal_keep_size": "16MB"}))
    house.wired.events.clear()
    with streaming(house, place) as (streams, manifest):
        receiver = house.postgres.receiver(place.id)
        assert receiver is not None
        kill(receiver.server.holders())
        for _ in range(6):
            sql(place, "INSERT INTO t DEFAULT VALUES")
            wal_switch(house, place)
        with house.postgres.cluster(place.id).admin() as admin:
            admin.execute("CHECKPOINT")

        def lost() -> bool:
            seen = receiver.look()
            return seen is not None and seen.lost

        until(lost)
        assert receiver.server.running() is None
        streams.look()
        assert [kind for kind, _ in house.wired.events] == ["backup.stream-cut"]
        sql(place, "INSERT INTO t DEFAULT VALUES")
        until(lambda: streams.look() == {} and receiver.server.running() is not None and not lost())
        received(house, place)
        wal.ship(house.room, place.id)
        assert rows_of(house, place, manifest) == list(range(1, 8))


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_disk_without_room_for_the_receiver_is_waited_for(house: House, shelf: Path) -> None:
    """With no room for another segment the database serves on; with room again everything arrives."""
    place = house.add("full", Postgres(database="shop", memory=512 << 20))  # the small file system counts as its memory
    with streaming(house, place) as (streams, manifest):
        cluster, receiver = house.postgres.cluster(place.id), house.postgres.receiver(place.id)
        assert receiver is not None
        receiver.stop()
        cluster.stream.rename(cluster.stream.with_name("aside"))
        cluster.place.make(cluster.stream.name, cluster.record.user)
        options = f"size=20m,mode=0700,uid={cluster.record.user},gid={cluster.record.user}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(cluster.stream)], check=False, capture_output=True)
        if done.returncode:
            pytest.skip("mounting is not allowed here")
        try:
            for _ in range(3):
                sql(place, "INSERT INTO t DEFAULT VALUES")
                wal_switch(house, place)
            until(lambda: (streams.look(), "No space left" in "".join(receiver.server.tail(20)))[1])
            sql(place, "INSERT INTO t DEFAULT VALUES")
            subprocess.run(["mount", "-o", "remount,size=200m", str(cluster.stream)], check=True)
            until(lambda: (streams.look(), receiver.server.running())[1])
            received(house, place)
            until(lambda: streams.look() == {})
            assert rows_of(house, place, manifest) == [1, 2, 3, 4]
            assert unfinished(cluster.stream) is not None
        finally:
            house.postgres.stop(place.id)
            subprocess.run(["umount", str(cluster.stream)], check=True)


def test_the_end_is_found_behind_any_number_of_zeros(tmp_path: Path) -> None:
    """Zeros inside stay, those behind the last byte go; an empty segment has nothing."""
    for data in (b"", b"\1", b"\1\0\2", b"\0" * (3 << 20) + b"\1", b"\1" * (2 << 20)):
        (tmp_path / "s").write_bytes(data + b"\0" * (5 << 20))
        assert content(tmp_path / "s") == data


def test_the_most_exact_wish_counts() -> None:
    """Of a home, a project, an environment and an add-on, the last that says something."""
    policy = Policy.model_validate({"rpo": 10, "rpo_for": {"shop": 60, "shop/production/db": 5}})
    assert policy.loss("other", "production", "db") == timedelta(seconds=10)
    assert policy.loss("shop", "staging", "db") == timedelta(seconds=60)
    assert policy.loss("shop", "production", "db") == timedelta(seconds=5)
