"""Whatever is wrong with a backup is found before the running add-on is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest
from rooms import House, house_in, sql

from homeport.backups import wal
from homeport.backups.drills import drill
from homeport.backups.errors import NoRoom, TimeUnreachable, WalBroken
from homeport.backups.manifest import Manifest, Moment
from homeport.backups.repository import Repository, found_key
from homeport.backups.restoring import materialise, restore_in_place
from homeport.backups.room import Policy
from homeport.backups.taking import resume, take_addon
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import AddOnId, Provisioned
from homeport.drivers.addons.errors import BackupFailed
from homeport.drivers.storage.base import StorageFailed, Target
from homeport.drivers.storage.keys import BackupKey, BackupKeyWrong
from homeport.drivers.storage.parcels import ParcelDamaged
from homeport.model.errors import HomeportError

pytestmark = [pytest.mark.xdist_group("backups-damage"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_in(tmp_path_factory.mktemp("damage") / "home") as house:
        yield house


@pytest.fixture(scope="module")
def place(house: House) -> Provisioned:
    return house.add("db")


@pytest.fixture
def taken(house: House, place: Provisioned, tmp_path: Path) -> Iterator[tuple[Manifest, Path, datetime]]:
    """A backup in a folder of its own, with WAL behind it, and a moment in that."""
    house.targets[:] = [Target(name="shelf", kind="folder", address=str(tmp_path / "shelf"))]
    sql(place, "CREATE TABLE IF NOT EXISTS t (id int)")
    manifest = take_addon(house.room, place.id)
    at = datetime.now(UTC)
    for _ in range(3):
        sql(place, "INSERT INTO t VALUES (1)")
        at = sql(place, "SELECT clock_timestamp()")[0][0]
        wal.advance(house.room, place.id)
    yield manifest, tmp_path / "shelf", at
    house.store.backups.remove(manifest.id)
    house.targets.clear()
    (house.postgres.cluster(place.id).place.folder / "era.json").unlink(missing_ok=True)


class Untouched:
    """Holds the running add-on's process and rows against what comes after."""

    def __init__(self, house: House, place: Provisioned) -> None:
        self.house, self.place = house, place

    def __enter__(self) -> None:
        self.pid = self.house.postgres.inspect(self.place.id).pid
        self.rows = sql(self.place, "SELECT count(*) FROM t")

    def __exit__(self, *_: object) -> None:
        assert self.house.postgres.inspect(self.place.id).pid == self.pid
        assert sql(self.place, "SELECT count(*) FROM t") == self.rows
        assert {f.name for f in (self.house.home / "addons").iterdir() if f.is_dir()} == {self.place.id.slug}


def flip(file: Path) -> None:
    """Change one bit in the middle."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def segments(shelf: Path) -> list[Path]:
    return sorted(f for f in (shelf / "wal").rglob("*.parcel") if ".history" not in f.name)


def test_a_flipped_bit_in_the_base_is_found(house: House, place: Provisioned, taken: tuple[Manifest, Path, datetime]) -> None:
    """One changed bit in an object of the base backup: refused, and the drill says so too."""
    manifest, shelf, at = taken
    flip(next((shelf / "backups" / manifest.id).glob("*.parcel")))
    with Untouched(house, place), pytest.raises(ParcelDamaged):
        restore_in_place(house.room, place.id, Moment(at=at))
    assert drill(house.room, manifest).problem
    row = house.store.backups.get(manifest.id)
    assert row is not None
    assert row.proven_at is None


def test_a_missing_and_a_flipped_segment_are_found(house: House, place: Provisioned, taken: tuple[Manifest, Path, datetime]) -> None:
    """One changed bit in a WAL segment is refused; a segment missing in the middle is named."""
    _, shelf, at = taken
    middle = segments(shelf)[-2]
    kept = middle.read_bytes()
    flip(middle)
    with Untouched(house, place), pytest.raises(ParcelDamaged):
        restore_in_place(house.room, place.id, Moment(at=at))
    middle.write_bytes(kept)
    middle.rename(shelf / "elsewhere")
    with Untouched(house, place), pytest.raises(WalBroken, match="not in the archive") as found:
        restore_in_place(house.room, place.id, Moment(at=at))
    assert middle.name[:24] in found.value.why
    assert found.value.fix.startswith("The latest possible time before the gap is ")


def test_a_moment_before_a_gap_needs_nothing_behind_it(house: House, place: Provisioned, taken: tuple[Manifest, Path, datetime]) -> None:
    """With a damaged segment behind it, a backup's own point is reached; with a missing one, the latest ends there when that will do."""
    manifest, shelf, _ = taken
    middle = segments(shelf)[-2]
    scratch = AddOnId(project="shop", environment="production", name="scratch")
    flip(middle)
    with Untouched(house, place):
        assert drill(house.room, manifest).problem == ""
        middle.unlink()
        with pytest.raises(WalBroken):
            materialise(house.room, manifest, Moment(), scratch)
        assert materialise(house.room, manifest, Moment(broken=True), scratch).state == "recovered"
        switching.discard(house.postgres, scratch)


def test_wal_of_another_timeline_is_not_taken_for_the_own(house: House, place: Provisioned, taken: tuple[Manifest, Path, datetime]) -> None:
    """Segments that claim to be of another timeline do not carry the base forward: the answer names the latest time, or the gap."""
    _, shelf, at = taken
    wrong = segments(shelf)
    for file in wrong[1:]:
        file.rename(file.with_name("00000007" + file.name[8:]))
    with Untouched(house, place), pytest.raises((WalBroken, TimeUnreachable, ParcelDamaged)):
        restore_in_place(house.room, place.id, Moment(at=at))


def test_wrong_keys_open_nothing(house: House, place: Provisioned, taken: tuple[Manifest, Path, datetime], tmp_path: Path) -> None:
    """A backup key that was replaced, and a vault key that is not the home's, are told as such."""
    manifest, shelf, at = taken
    file = house.home / "backups" / "key"
    kept = file.read_text()
    file.write_text(str(pyrage.x25519.Identity.generate()))
    with Untouched(house, place), pytest.raises(BackupKeyWrong):
        restore_in_place(house.room, place.id, Moment(at=at))
    file.write_text(kept)
    storage = house.room.open_storage(house.room.targets()[0])
    house.room.repositories()[0].publish_key(b"v" * 32)
    with pytest.raises(BackupKeyWrong):
        found_key(storage, [b"w" * 32], tmp_path)
    assert found_key(storage, [b"w" * 32, b"v" * 32], tmp_path).public == house.room.key.public
    assert (shelf / "backups" / manifest.id / "manifest.age").exists()


def test_a_planted_backup_is_not_taken_for_one(house: House, place: Provisioned, taken: tuple[Manifest, Path, datetime]) -> None:
    """Who can write to a target and knows the recipient, but not the key, cannot make a manifest that counts."""
    manifest, _, _ = taken
    repository = house.room.repositories()[0]
    recipient = repository.key

    class Forger(BackupKey):
        def sign(self, data: bytes) -> str:
            return "0" * 64

    forged = Repository(repository.storage, Forger(recipient.identity, recipient.recipients), repository.scratch)
    forged.store(manifest.model_copy(update={"parts": ()}), Path("/nonexistent"))
    with Untouched(house, place), pytest.raises(ParcelDamaged, match="not made by this home"):
        restore_in_place(house.room, place.id, Moment(backup=manifest.id))
    assert manifest.id not in {found.id for found in repository.manifests()}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_disk_that_fills_up_half_way_is_found(house: House, place: Provisioned, taken: tuple[Manifest, Path, datetime]) -> None:
    """With room for half of the copy, restore and backup stop with the reason, and leave nothing behind."""
    _, _, at = taken
    scratch = house.room.made("scratch")
    house.store.backups.set_policy(Policy(reserve=0).model_dump(mode="json"))
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(scratch)], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with Untouched(house, place), pytest.raises(NoRoom):
            restore_in_place(house.room, place.id, Moment(at=at))
        with Untouched(house, place), pytest.raises(BackupFailed, match="no room"):
            take_addon(house.room, place.id)
        assert list(scratch.iterdir()) == []
    finally:
        subprocess.run(["umount", str(scratch)], check=True)
        house.store.backups.set_policy({})


def test_too_little_room_is_refused_before_anything_is_fetched(
    house: House, place: Provisioned, taken: tuple[Manifest, Path, datetime]
) -> None:
    """Below the reserve nothing is begun."""
    house.store.backups.set_policy(Policy(reserve=1 << 60).model_dump(mode="json"))
    try:
        with Untouched(house, place), pytest.raises(NoRoom):
            restore_in_place(house.room, place.id, Moment(at=taken[2]))
    finally:
        house.store.backups.set_policy({})


def test_an_upload_that_broke_off_goes_on(house: House, place: Provisioned, tmp_path: Path) -> None:
    """With one of two targets away, the backup lies on the other and waits; when it is back, the rest is sent, not taken again."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    bad.write_text("a file where a folder should be")
    house.targets[:] = [Target(name="good", kind="folder", address=str(good)), Target(name="bad", kind="folder", address=str(bad))]
    try:
        sql(place, "CREATE TABLE IF NOT EXISTS t (id int)")
        with pytest.raises(StorageFailed):
            take_addon(house.room, place.id)
        bad.unlink()
        row = house.store.backups.list("shop", "production", "db")[0]
        assert row.targets == ["good"]
        assert resume(house.room) == [row.id]
        wal.ship(house.room, place.id)
        again = house.store.backups.get(row.id)
        assert again is not None
        assert again.targets == ["good", "bad"]
        shutil.rmtree(good)
        assert drill(house.room, Manifest.model_validate_json(row.body)).problem == "", "the other target alone must do"
    finally:
        house.targets.clear()


def test_a_crash_between_the_two_renames_is_finished(house: House) -> None:
    """The journal of a switch leads to one add-on under the name, with the restored data."""
    place = house.add("crash")
    sql(place, "CREATE TABLE c (id int)")
    fresh = AddOnId(project="shop", environment="production", name="crash.new")
    manifest = take_addon(house.room, place.id)
    sql(place, "INSERT INTO c VALUES (1)")
    materialise(house.room, manifest, Moment(backup=manifest.id), fresh)
    house.postgres.stop(fresh)
    house.postgres.stop(place.id)
    journal = house.home / "addons" / f".{place.id.slug}.switch.json"
    journal.write_text(json.dumps({"fresh": fresh.model_dump(), "into": place.id.model_dump()}))
    assert switching.finish(house.home) == [place.id]
    assert not journal.exists()
    house.add("crash")
    assert sql(place, "SELECT count(*) FROM c") == [(0,)]
    assert not (house.home / "addons" / fresh.slug).exists()


def test_errors_of_the_room_say_that_nothing_was_touched() -> None:
    """Each error of a restore begins with what became of the user's data."""
    for error in (WalBroken("x"), TimeUnreachable(why="x"), ParcelDamaged(backup="b", why="x"), BackupKeyWrong("x")):
        assert isinstance(error, HomeportError)
        assert "not touched" in error.what
