"""Backups of PostgreSQL and Valkey against the real engines: going back to a moment, and proofs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis
from rooms import House, house_in, sql

from homeport.backups import wal
from homeport.backups.drills import drill
from homeport.backups.errors import BackupMissing, ForkRefused, TimeUnreachable
from homeport.backups.keeper import Due, Keeper
from homeport.backups.manifest import Moment
from homeport.backups.masking import mask
from homeport.backups.restoring import restore_in_place
from homeport.backups.room import Policy
from homeport.backups.taking import take_addon
from homeport.drivers.storage.keys import BackupKeyWrong

pytestmark = [pytest.mark.xdist_group("backups-in-time"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_in(tmp_path_factory.mktemp("time") / "home") as house:
        yield house


def test_a_backup_is_proven_and_goes_back_to_any_transaction(house: House) -> None:
    """Two moments between transactions: each restore holds exactly those that were committed before it, and takes writes."""
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
    for number in range(2):
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


def test_masking_hides_values_and_keeps_what_joins_need(house: House) -> None:
    """Each masker changes its column and no other; equal values stay equal; triggers do not run; a rule that fits nothing is refused."""
    place = house.add("people")
    sql(place, "CREATE TABLE people (id int PRIMARY KEY, email text UNIQUE, name varchar(40), phone text, iban text, note text, born date)")
    sql(place, "CREATE TABLE mails (address text)")
    sql(place, "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$")
    sql(place, "CREATE TRIGGER refuse BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION refuse()")
    for number in (1, 2):
        row = (number, f"ada{number}@example.com", "Ada L.", "+49 30 123", "DE89 3704", "likes tea", "1815-12-10")
        sql(place, "INSERT INTO people VALUES (%s, %s, %s, %s, %s, %s, %s)", *row)
        sql(place, "INSERT INTO mails VALUES (%s)", f"ada{number}@example.com")
    rules = {
        "people.email": "email", "mails.address": "email", "people.name": "name", "public.people.phone": "phone", "people.iban": "digits",
        "people.note": "text", "people.born": "null",
    }  # fmt: skip
    assert mask([house.postgres.cluster(place.id)], rules) == dict.fromkeys(rules, 2)
    found = sql(place, "SELECT email, name, phone, iban, note, born FROM people ORDER BY id")[0]
    assert found[0].endswith("@example.invalid")
    assert found[1].startswith("Person ")
    assert found[2].startswith("+1555")
    assert found[3:] == ("DE00 0000", "xxxxx xxx", None)
    assert sql(place, "SELECT count(*) FROM people JOIN mails ON email = address") == [(2,)]
    for wrong in ({"people.e-mail": "email"}, {"people.id": "email"}):
        with pytest.raises(ForkRefused):
            mask([house.postgres.cluster(place.id)], wrong)


def test_what_the_policy_does_not_keep_goes_with_its_wal(house: House) -> None:
    """After the older of two copies is forgotten, its objects and the WAL before the newer one are gone, and the newer one restores."""
    place = house.add("short")
    keeper = Keeper(house.room)
    house.store.backups.set_policy(Policy(keep_last=1, keep_daily=0, keep_weekly=0).model_dump(mode="json"))
    sql(place, "CREATE TABLE t (id int)")
    older = take_addon(house.room, place.id)
    for _ in range(3):
        sql(place, "INSERT INTO t VALUES (1)")
        wal.flush(house.room, place.id)
    newer = take_addon(house.room, place.id)
    repository = house.room.repositories()[0]
    before = repository.wal(newer.era)
    assert older.id in keeper.forget()
    house.store.backups.set_policy({})
    assert not repository.storage.list(f"backups/{older.id}")
    assert len(repository.wal(newer.era)) < len(before)
    assert house.store.backups.get(older.id) is None
    assert drill(house.room, newer).problem == ""
    due = next(due for due in keeper.schedule() if due.name == "short")
    assert due.next is not None
    assert due.next > datetime.now(UTC)
    restore_in_place(house.room, place.id, Moment(backup=newer.id))
    due = next(due for due in keeper.schedule() if due.name == "short")
    assert due.next is not None
    assert due.next <= datetime.now(UTC), "a restored database needs a copy that its new log continues"
    for moment in (Moment(), Moment(at=datetime.now(UTC))):
        with pytest.raises(TimeUnreachable, match="another history") as early:
            restore_in_place(house.room, place.id, moment)
        assert "homeport backup now short" in early.value.fix
    between = datetime.now(UTC)
    take_addon(house.room, place.id)
    with pytest.raises(TimeUnreachable, match="between two histories"):
        restore_in_place(house.room, place.id, Moment(at=between))


def test_a_policy_for_what_is_not_there_is_refused(house: House) -> None:
    """A name that fits nothing protects nothing, and neither does a recipient that is none; what was set before may stay."""
    house.add("there")
    keeper = Keeper(house.room)
    with pytest.raises(BackupMissing, match="shop/prod"):
        keeper.set_policy(Policy(rpo_for={"shop/prod": timedelta(seconds=5)}))
    with pytest.raises(BackupKeyWrong, match="no age recipient"):
        keeper.set_policy(Policy(recipients=("notakey",)))
    for place in ("shop", "shop/production", "shop/production/there"):
        assert place in keeper.set_policy(Policy(rpo_for={place: timedelta(seconds=60)})).rpo_for
    house.store.backups.set_policy(Policy(rpo_for={"was": timedelta(seconds=5)}).model_dump(mode="json"))
    assert keeper.set_policy(Policy(rpo_for={"was": timedelta(seconds=60)})).rpo_for
    house.store.backups.set_policy({})


def test_the_age_of_the_last_proof_is_known_and_told(house: House) -> None:
    """It counts from the proof, else from when the thing came, also when each day's copy is young; too old is told once."""
    place = house.add("unproven")
    keeper = Keeper(house.room)
    house.store.backups.set_policy(Policy(prove_every=timedelta(seconds=0.05)).model_dump(mode="json"))

    def due() -> Due:
        return next(due for due in keeper.schedule() if due.name == "unproven")

    manifest = take_addon(house.room, place.id)
    first = due()
    assert first.unproven is not None
    assert first.last is not None
    assert first.unproven >= (datetime.now(UTC) - first.last).total_seconds() - 1
    keeper._tell_stale()
    keeper._tell_stale()
    said = [text for kind, text in house.wired.events if kind == "backup.stale" and "unproven" in text]
    assert said == ["No backup of shop/production/unproven was proven ever."]
    house.store.backups.set_policy({})
    assert due().stale is False
    house.store.backups.change(manifest.id, proven_at=datetime.now(UTC) - timedelta(days=3))
    found = due()
    assert found.stale
    assert found.unproven is not None
    assert 3 * 86_400 <= found.unproven < 3 * 86_400 + 60


def test_backups_of_what_was_destroyed_have_an_end(house: House) -> None:
    """They are kept for the policy's time and say until when; then they go with their log. What comes back before keeps them."""
    place = house.add("doomed")
    keeper = Keeper(house.room)
    manifest = take_addon(house.room, place.id)
    house.store.ledger.release("addon", place.id.slug)
    assert keeper.forget() == []
    (due,) = keeper.gone()
    assert (due.name, due.next) == ("doomed", None)
    assert due.ends is not None
    assert timedelta(days=29) < due.ends - datetime.now(UTC) <= timedelta(days=30)
    assert "doomed" not in {due.name for due in keeper.schedule()}
    house.store.ledger.claim("addon", place.id.slug, "shop/production", addon="doomed", engine="postgres")
    assert keeper.forget() == []
    assert keeper.gone() == []
    house.store.ledger.release("addon", place.id.slug)
    house.store.backups.set_policy(Policy(keep_gone=timedelta(0)).model_dump(mode="json"))
    repository = house.room.repositories()[0]
    assert repository.storage.list(f"wal/{manifest.era}")
    assert keeper.forget() == [manifest.id]
    house.store.backups.set_policy({})
    assert not repository.storage.list(f"wal/{manifest.era}")
    assert not repository.storage.list(f"backups/{manifest.id}")
    assert keeper.gone() == []
    assert "backup.ended" in {kind for kind, _ in house.wired.events}
