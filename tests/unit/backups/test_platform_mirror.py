"""The platform's own store: seconds behind on every target, from either database, into either database."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest
from rooms import VAULT_KEY, House, house_in

from homeport.backups import mirror, recovering
from homeport.backups.drills import drill
from homeport.backups.errors import RecoveryRefused
from homeport.backups.mirror import PAGE, Mirror
from homeport.backups.repository import Repository
from homeport.backups.taking import take_platform
from homeport.drivers.reach import reachable
from homeport.drivers.storage.base import Target
from homeport.drivers.storage.keys import BackupKey
from homeport.drivers.storage.opening import open_target
from homeport.model.addon import Postgres
from homeport.store import Store
from homeport.store.database import Database
from homeport.store.portable import bring, empty

pytestmark = [pytest.mark.xdist_group("platform-mirror"), pytest.mark.timeout(200)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with house_in(tmp_path / "home") as house:
        house.targets = [Target(name="away", kind="folder", address=str(tmp_path / "away"))]
        yield house


def objects(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "away" / "store").rglob("*.pages"))


def texts(found: mirror.Mirrored | None, tmp_path: Path) -> list[str]:
    """Texts of the events in a mirrored store."""
    assert found is not None
    home = tmp_path / "seen"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    mirror.put_back(found, home)
    store = Store(f"sqlite:///{home / 'homeport.db'}")
    try:
        return [row.text for row in store.events.list(limit=10_000)]
    finally:
        store.close()


def test_what_is_written_is_sent_as_the_pages_that_changed(house: House, tmp_path: Path) -> None:
    """After each write one small object is added; what comes out is the store as it was; without a write nothing is sent."""
    watched = Mirror(house.room)
    for number in range(300):
        house.store.events.add("test", f"before {number}")
    assert watched.tick() == {}
    (first,) = objects(tmp_path)
    for number in range(3):
        house.store.events.add("test", f"after {number}")
        assert watched.tick() == {}
    assert watched.tick() == {}
    sizes = [file.stat().st_size for file in objects(tmp_path)]
    assert len(sizes) == 4
    assert max(sizes[1:]) < first.stat().st_size / 2
    (repository,) = house.room.repositories()
    found = mirror.newest(repository)
    assert texts(found, tmp_path) == [row.text for row in house.store.events.list(limit=10_000)]
    watched.close()


def test_a_target_that_was_away_gets_what_it_missed_at_once(house: House, tmp_path: Path) -> None:
    """While a target is away it is told of once, nothing piles up on the machine, and one object brings it up to date."""
    watched = Mirror(house.room)
    watched.tick()
    (tmp_path / "away").rename(tmp_path / "gone")
    (tmp_path / "away").write_text("a file is no folder")
    for number in range(5):
        house.store.events.add("test", f"meanwhile {number}")
        assert list(watched.tick()) == ["away"]
    assert [kind for kind, _ in house.wired.events].count("backup.store-waits") == 1
    assert not list((house.room.folder / "scratch").iterdir())
    (tmp_path / "away").unlink()
    (tmp_path / "gone").rename(tmp_path / "away")
    assert watched.tick() == {}
    assert len(objects(tmp_path)) == 2
    (repository,) = house.room.repositories()
    assert texts(mirror.newest(repository), tmp_path)[-1] == "meanwhile 4"
    watched.close()


def test_a_full_disk_holds_it_up_and_no_more(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no object can be made, what is on the target stays whole, and it is caught up with as soon as there is room."""
    watched = Mirror(house.room)
    watched.tick()
    house.store.events.add("test", "no room for this")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(mirror, "pack_file", full)
        assert "No space left" in watched.tick()["away"]
    (repository,) = house.room.repositories()
    assert "no room for this" not in texts(mirror.newest(repository), tmp_path)
    assert watched.tick() == {}
    assert texts(mirror.newest(repository), tmp_path)[-1] == "no room for this"
    watched.close()


def test_damaged_missing_and_planted_objects_are_never_applied(house: House, tmp_path: Path) -> None:
    """With one object damaged, missing, or made with another key, the store is the one before it; with the first gone, the one before."""
    watched = Mirror(house.room)
    for number in range(4):
        house.store.events.add("test", f"event {number}")
        watched.tick()
    (repository,) = house.room.repositories()
    file = objects(tmp_path)[2]
    whole = file.read_bytes()
    file.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    assert texts(mirror.newest(repository), tmp_path)[-1] == "event 1"
    file.unlink()
    assert texts(mirror.newest(repository), tmp_path)[-1] == "event 1"
    header, pages = mirror._fetch(repository, file.parent.name, 1)
    stranger = BackupKey.of(str(pyrage.x25519.Identity.generate()), (house.room.key.public,))
    mirror._put(Repository(repository.storage, stranger, repository.scratch), header.model_copy(update={"number": 2}), pages)
    assert texts(mirror.newest(repository), tmp_path)[-1] == "event 1"
    file.unlink()
    objects(tmp_path)[0].unlink()
    assert mirror.newest(repository) is None
    house.store.events.add("test", "again")
    Mirror(house.room).tick()
    assert texts(mirror.newest(repository), tmp_path)[-1] == "again"
    watched.close()


def test_generations_begin_anew_and_old_ones_go(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a number of objects, or a time, everything is sent anew; the last two generations stay on the target."""
    monkeypatch.setattr(mirror, "MOST", 3)
    watched = Mirror(house.room)
    for number in range(10):
        house.store.events.add("test", f"event {number}")
        watched.tick()
    shutil.rmtree(tmp_path / "away" / "store")
    monkeypatch.setattr(mirror, "RENEWED", 0.0)
    for number in (8, 9):
        house.store.events.add("test", f"event {number}")
        watched.tick()
    folders = {file.parent for file in objects(tmp_path)}
    assert len(folders) == mirror.KEPT
    (repository,) = house.room.repositories()
    assert texts(mirror.newest(repository), tmp_path)[-1] == "event 9"
    watched.close()


def recovered(tmp_path: Path, url: str = "") -> tuple[recovering.Recovered, Store]:
    """The wiped home, brought back."""
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").mkdir()
    home = reachable(tmp_path / "home")
    target = Target(name="away", kind="folder", address=str(tmp_path / "away"))
    found = recovering.recover(
        home, target, lambda target: open_target(target, tmp_path / "configs", None), [VAULT_KEY], dict, lambda: Store.open(home, url)  # type: ignore[arg-type]
    )  # fmt: skip
    return found, Store.open(home, url)


def test_a_wiped_machine_knows_what_was_written_seconds_before(tmp_path: Path) -> None:
    """What came after the copy of the platform is there, a deploy that was under way is given up, and the target is known."""
    with house_in(tmp_path / "home") as house:
        (house.home / "vault.json").write_text("{}")
        house.targets = [Target(name="away", kind="folder", address=str(tmp_path / "away"))]
        house.store.environments.ensure("shop", "production")
        take_platform(house.room)
        watched = Mirror(house.room)
        watched.tick()
        house.store.events.add("env.changed", "set just before the end")
        house.store.deploys.queue(id="d1", project="shop", environment="production", kind="deploy", request={}, actor="ada")
        assert watched.tick() == {}
        (house.home / "vault.json").write_text('{"changed": 1}')
        assert watched.tick() == {}
        watched.close()
    done, store = recovered(tmp_path)
    assert "set just before the end" in [row.text for row in store.events.list()]
    assert (tmp_path / "home" / "vault.json").read_text() == '{"changed": 1}'
    row = store.deploys.get("d1")
    assert row is not None
    assert row.status == "failed"
    assert any("deploy again" in note for note in done.notes)
    store.close()


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """URLs of empty PostgreSQL databases."""
    with house_in(tmp_path_factory.mktemp("pg") / "home") as house:
        yield [house.add(name, Postgres(database="store", memory=64 << 20)).credentials[""].url for name in ("one", "two")]


def test_a_store_in_postgresql_comes_back_into_either_database(databases: list[str], tmp_path: Path) -> None:
    """Mirrored from PostgreSQL, it is recovered into SQLite and into another PostgreSQL, and counts on there; a full one is refused."""
    with house_in(tmp_path / "home") as house:
        (house.home / "vault.json").write_text("{}")
        house.store.close()
        house.store = house.room.store = Store.open(house.home, databases[0])
        for name in ("homeport.db", "homeport.db-wal", "homeport.db-shm"):
            (house.home / name).unlink(missing_ok=True)
        house.targets = [Target(name="away", kind="folder", address=str(tmp_path / "away"))]
        house.store.environments.ensure("shop", "production", account=30_001)
        house.store.ledger.claim("volume", "shop-production-data", "shop/production", size=7)
        assert drill(house.room, take_platform(house.room)).problem == ""
        watched = Mirror(house.room)
        for number in range(3):
            house.store.events.add("test", f"event {number}", data={"n": [number, None]})
            watched.tick()
        house.store.ledger.release("volume", "shop-production-data")
        deadline = time.monotonic() + 20  # what PostgreSQL counts follows within a second
        while "event 2" not in texts(mirror.newest(house.room.repositories()[0]), tmp_path):
            assert time.monotonic() < deadline
            time.sleep(0.1)
            watched.tick()
        watched.close()
        events = [row.text for row in house.store.events.list(limit=1000)]
    _, store = recovered(tmp_path)
    assert [row.text for row in store.events.list(limit=1000)][: len(events)] == events
    environment = store.environments.get("shop", "production")
    assert environment is not None
    assert environment.account == 30_001
    store.close()
    _, store = recovered(tmp_path, databases[1])
    assert not (tmp_path / "home" / "homeport.db").exists()
    before = store.events.list(limit=1000)
    store.events.add("test", "and on")
    assert store.events.list(limit=1000)[-1].seq > before[-1].seq
    store.close()
    with pytest.raises(RecoveryRefused):
        recovered(tmp_path, databases[1])


def test_tables_are_made_equal_both_ways(tmp_path: Path) -> None:
    """Rows that were added, changed and removed are so in the other store; when nothing differs nothing is written."""
    one, two = Store.open(tmp_path / "one"), Database(f"sqlite:///{tmp_path / 'two.db'}")
    two.migrate()
    assert empty(two)
    one.environments.ensure("a", "b")
    one.events.add("test", "first")
    one.backups.set_policy({"keep_last": 4})
    assert bring(one.database, two) == 3
    assert bring(one.database, two) == 0
    one.environments.remove("a", "b")
    one.backups.set_policy({"keep_last": 5})
    assert bring(one.database, two) == 2
    assert Store(two.url).backups.policy() == {"keep_last": 5}
    assert PAGE == 4096
    one.close()
    two.close()


def test_two_may_fetch_the_same_object_at_once(house: House) -> None:
    """A drill in the background and one that was asked for do not stand in each other's way."""
    house.store.environments.ensure("shop", "production")
    manifest = take_platform(house.room)
    (repository,) = house.room.repositories()
    with repository.fetched(manifest.parts[0], "one") as one, repository.fetched(manifest.parts[0], "two") as two:
        assert one.path.read_bytes() == two.path.read_bytes()
    assert not list(repository.scratch.iterdir())


def test_a_release_whose_build_was_not_copied_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The release before it serves, and a note says so; with no build of either the note says to deploy again."""
    store = Store.open(tmp_path / "home")
    for environment, live, previous in (("production", 2, 1), ("staging", 1, None), ("review", 5, 4)):
        store.environments.ensure("shop", environment)
        store.environments.change("shop", environment, live=live, previous=previous)
    monkeypatch.setattr(recovering, "_whole", lambda _store, _project, _environment, number: number == 1)
    notes: list[str] = []
    recovering._settle(store, notes)
    assert {row.environment: row.live for row in store.environments.all()} == {"production": 1, "staging": 1, "review": 5}
    assert [note.split(":")[0] for note in notes] == ["shop/production", "shop/review"]
    assert "r1 serves instead" in notes[0]
    store.close()
