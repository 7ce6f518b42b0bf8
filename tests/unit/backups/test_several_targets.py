"""Several targets: what one of them lacks or has damaged comes from another, and a new one gets everything at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rooms import House, house_in, sql

from homeport.backups import wal
from homeport.backups.drills import drill
from homeport.backups.errors import BackupMissing
from homeport.backups.keeper import Keeper
from homeport.backups.manifest import Moment
from homeport.backups.restoring import restore_in_place
from homeport.backups.room import LOCAL, Policy
from homeport.backups.taking import take_addon
from homeport.drivers.storage.base import StorageFailed, Target
from homeport.drivers.storage.parcels import ParcelDamaged

pytestmark = [pytest.mark.xdist_group("backups-targets"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_in(tmp_path_factory.mktemp("targets") / "home") as house:
        yield house


def folder(path: Path) -> Target:
    return Target(name=path.name, kind="folder", address=str(path))


def flip(file: Path) -> None:
    """Change one bit in the middle."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()  # it may be one with a copy that lies elsewhere
    file.write_bytes(data)


def test_what_lies_in_the_home_is_not_lost_when_a_target_is_added(house: House, tmp_path: Path) -> None:
    """A moment before the new target and one after it are reached: the base is in the home, its log half there and half on the target."""
    house.targets.clear()
    place = house.add("db")
    sql(place, "CREATE TABLE t (id serial PRIMARY KEY)")
    base = take_addon(house.room, place.id)
    sql(place, "INSERT INTO t DEFAULT VALUES")
    before = sql(place, "SELECT clock_timestamp()")[0][0]
    wal.advance(house.room, place.id)
    with pytest.raises(StorageFailed, match="not added"):
        Keeper(house.room).try_target(folder(tmp_path / LOCAL))
    Keeper(house.room).try_target(folder(house.room.folder / LOCAL))
    house.targets[:] = [folder(tmp_path / "away")]
    sql(place, "INSERT INTO t DEFAULT VALUES")
    after = sql(place, "SELECT clock_timestamp()")[0][0]
    done = restore_in_place(house.room, place.id, Moment(at=after))
    assert (done.backup, done.rows) == (base.id, 2)
    assert restore_in_place(house.room, place.id, Moment(at=before)).rows == 1
    house.targets.clear()


def test_a_new_target_gets_everything_at_the_next_look(house: House, tmp_path: Path) -> None:
    """What has no copy on a target in use is due now, unless one is on its way there; in the home it goes as the policy says."""
    house.targets.clear()
    place = house.add("new")
    keeper = Keeper(house.room)

    def due() -> bool:
        found = next(due for due in keeper.schedule() if due.name == "new")
        return found.next is not None and found.next <= datetime.now(UTC)

    first = take_addon(house.room, place.id)
    assert not due()
    away = folder(tmp_path / "away")
    house.targets[:] = [away]
    keeper.added(away)
    assert due()
    staged = house.room.made("staging") / first.id
    staged.mkdir()
    assert not due()
    staged.rmdir()
    second = take_addon(house.room, place.id)
    assert not due()
    house.room.store.backups.set_policy(Policy(keep_last=1, keep_daily=0, keep_weekly=0).model_dump(mode="json"))
    assert first.id in keeper.forget()
    assert not list((house.room.folder / LOCAL / "backups" / first.id).glob("*"))
    house.room.store.backups.set_policy({})
    row = house.store.backups.get(second.id)
    assert row is not None
    assert row.targets == ["away"]
    house.targets.clear()


def test_a_target_that_is_added_again_is_known_by_what_lies_on_it(house: House, tmp_path: Path) -> None:
    """The same name at another place holds nothing; the old place added again holds what it held."""
    old, new = tmp_path / "one" / "shelf", tmp_path / "two" / "shelf"
    house.targets[:] = [folder(old)]
    place = house.add("again")
    manifest = take_addon(house.room, place.id)
    keeper = Keeper(house.room)

    def targets() -> list[str]:
        row = house.store.backups.get(manifest.id)
        return row.targets if row is not None else []

    house.targets[:] = [folder(new)]
    keeper.added(folder(new))
    assert targets() == []
    with pytest.raises(BackupMissing):
        restore_in_place(house.room, place.id, Moment(backup=manifest.id))
    house.targets[:] = [folder(old)]
    keeper.added(folder(old))
    assert targets() == ["shelf"]
    assert restore_in_place(house.room, place.id, Moment(backup=manifest.id)).backup == manifest.id
    house.targets.clear()


def test_damage_on_one_target_is_made_good_by_another(house: House, tmp_path: Path) -> None:
    """A base damaged on the first target comes from the second, a segment missing there from the first; a drill still tells the damage."""
    one, two = tmp_path / "one", tmp_path / "two"
    house.targets[:] = [folder(one), folder(two)]
    place = house.add("twice")
    sql(place, "CREATE TABLE t (id serial PRIMARY KEY)")
    manifest = take_addon(house.room, place.id)
    for _ in range(3):
        sql(place, "INSERT INTO t DEFAULT VALUES")
        wal.advance(house.room, place.id)
    at = datetime.now(UTC) - timedelta(microseconds=1)
    wal.advance(house.room, place.id)
    flip(next((one / "backups" / manifest.id).glob("*.parcel")))
    sorted((two / "wal").rglob("*.parcel"))[-3].unlink()
    assert drill(house.room, manifest).problem
    assert restore_in_place(house.room, place.id, Moment(at=at)).rows == 3
    assert (one / "backups" / manifest.id / "proof.age").is_file()


def test_damage_on_every_target_is_told(house: House, tmp_path: Path) -> None:
    """Where no target has a whole copy the first problem is told, and what runs is not touched."""
    one, two = tmp_path / "one", tmp_path / "two"
    house.targets[:] = [folder(one), folder(two)]
    place = house.add("neither")
    manifest = take_addon(house.room, place.id)
    pid = house.postgres.inspect(place.id).pid
    for shelf in (one, two):
        flip(next((shelf / "backups" / manifest.id).glob("*.parcel")))
    with pytest.raises(ParcelDamaged):
        restore_in_place(house.room, place.id, Moment(backup=manifest.id))
    assert house.postgres.inspect(place.id).pid == pid
    house.targets.clear()
