"""Forks, and what changes a whole environment: one at a time, and finished or taken back after a crash."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from benchmarks.forks import file_system
from rooms import House, house_in, sql

from homeport.backups import masking, settling
from homeport.backups.drills import drill
from homeport.backups.errors import BudgetSpent, ForkRefused, TimeUnreachable
from homeport.backups.forks import Forked, fork, outward_of, seed
from homeport.backups.keeper import Keeper
from homeport.backups.manifest import Moment
from homeport.backups.operations import operating
from homeport.backups.restoring import restore_in_place
from homeport.backups.taking import take_addon
from homeport.drivers.addons.base import AddOnId, Provisioned
from homeport.drivers.addons.records import records
from homeport.drivers.files import copy_tree, shares_blocks
from homeport.model.env import PlainValue
from homeport.model.release import DeployStatus, Release, Revision
from homeport.model.service import CronService, WebService, WorkerService
from homeport.model.spec import Spec
from homeport.store import Store
from homeport.store.operations import EnvironmentBusy

pytestmark = [pytest.mark.xdist_group("postgres"), pytest.mark.timeout(120)]
PRODUCTION = ("shop", "production")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Provisioned]]:
    """A home whose production holds masked-to-be rows and one backup."""
    with house_in(tmp_path_factory.mktemp("forks") / "home") as house:
        place = house.add("db")
        sql(place, "CREATE TABLE users (id serial PRIMARY KEY, email text UNIQUE, name text, phone text, notes varchar(30), code uuid)")
        sql(place, "CREATE TABLE orders (id serial PRIMARY KEY, who text REFERENCES users (email) ON UPDATE CASCADE, buyer text)")
        sql(place, "CREATE TABLE teams (id int PRIMARY KEY)")
        sql(
            place,
            "INSERT INTO users (email, name, phone, notes, code) SELECT 'u' || n || '@example.com', 'Ada ' || n, '+4312345' || n, "
            "'Calls on Mondays ' || n, gen_random_uuid() FROM generate_series(1, 50) n",
        )
        sql(place, "INSERT INTO orders (who, buyer) SELECT email, email FROM users")
        sql(place, "CREATE MATERIALIZED VIEW names AS SELECT name FROM users")
        go_live(house)
        take_addon(house.room, place.id)
        yield house, place


def go_live(house: House, **mask: str) -> Release:
    """Record a release as live in production now."""
    services: dict[str, Any] = {
        "web": WebService(env={"SMTP_HOST": PlainValue(value="mail.example.com"), "COLOUR": PlainValue(value="red")}),
        "mails": WorkerService(command="python mails.py"),
        "nightly": CronService(schedule="0 3 * * *", command="python nightly.py"),
    }
    rules = {key.replace("__", "."): value for key, value in mask.items()}
    spec = Spec(name="shop", addons=dict(house.wired.addons), services=services, mask=rules)
    house.store.environments.ensure(*PRODUCTION)
    number = house.store.releases.reserve(*PRODUCTION)
    release = Release(
        id=f"r{number}", project="shop", environment="production", number=number, revision=Revision(digest="0" * 64), spec=spec,
        created_at=datetime.now(UTC),
    )  # fmt: skip
    house.store.releases.record(release)
    id = f"d{number}-{datetime.now(UTC).timestamp()}"
    house.store.deploys.queue(id=id, project="shop", environment="production", kind="deploy", request={}, actor="test")
    house.store.deploys.change(id, number=number)
    house.store.deploys.finish(id, DeployStatus.LIVE, {})
    return release


def forked(house: House, name: str, **options: Any) -> Forked:
    return fork(house.room, *PRODUCTION, name, Moment(), actor="test", **options)


def rows_of(house: House, name: str, query: str) -> list[Any]:
    with house.postgres.cluster(AddOnId(project="shop", environment=name, name="db")).admin("shop") as admin:
        return admin.execute(query.encode()).fetchall()


def gone(house: House, name: str) -> None:
    """Nothing of an environment is left."""
    assert house.store.environments.get("shop", name) is None
    assert house.store.ledger.list(owner=f"shop/{name}") == []
    assert not [record for record in records(house.home) if record.id.environment == name]


# --- one at a time --------------------------------------------------------------------------------------------------------


def test_operations_and_deploys_of_an_environment_exclude_each_other(tmp_path: Path) -> None:
    """A deploy waits for an operation; an operation is refused while a deploy or another one runs, and says which; others are free."""
    store = Store.open(tmp_path)
    try:
        began = store.operations.begin([("fork", "shop", "look"), ("forked-from", "shop", "production")])
        with pytest.raises(EnvironmentBusy, match=r"A fork of shop/production \(fork-[0-9a-f]+\) has been running since") as caught:
            store.operations.begin([("restore", "shop", "production")])
        assert caught.value.code == "environment-busy"
        store.deploys.queue(id="d1", project="shop", environment="production", kind="deploy", request={}, actor="")
        assert store.deploys.begin_next("shop", "production") is None
        assert store.operations.begin([("restore", "shop", "staging")])
        store.operations.end(began[0].id)
        assert store.deploys.begin_next("shop", "production") is not None
        with pytest.raises(EnvironmentBusy, match=r"A deploy of shop/production \(d1\)"):
            store.operations.begin([("fork", "shop", "again"), ("forked-from", "shop", "production")])
        assert store.operations.of("shop", "again") is None, "all or none"
        store.deploys.finish("d1", DeployStatus.LIVE, {})
        assert store.operations.begin([("destroy", "shop", "production")])
    finally:
        store.close()


def test_of_many_at_once_exactly_one_begins(tmp_path: Path) -> None:
    """Twenty threads ask for the same environment, half with deploys; one of them has it."""
    store = Store.open(tmp_path)
    store.deploys.queue(id="d1", project="shop", environment="production", kind="deploy", request={}, actor="")
    won: list[str] = []

    def ask(number: int) -> None:
        if number % 2:
            if store.deploys.begin_next("shop", "production") is not None:
                won.append("deploy")
            return
        try:
            store.operations.begin([("restore", "shop", "production")])
            won.append("restore")
        except EnvironmentBusy:
            pass

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert len(won) == 1


def test_what_waited_begins_when_it_is_over(home: tuple[House, Provisioned]) -> None:
    """The end of an operation lets go of every environment it took, also when it failed."""
    house, _ = home
    house.wired.let_go.clear()
    with pytest.raises(ValueError, match="broken"), operating(house.room, "fork", "shop", "b", ("forked-from", "shop", "a")):
        raise ValueError("broken")
    assert house.wired.let_go == ["shop/b", "shop/a"]
    assert house.store.operations.all() == []


# --- forks ----------------------------------------------------------------------------------------------------------------


def test_workers_and_jobs_of_a_fork_are_off_until_asked_for(home: tuple[House, Provisioned]) -> None:
    """Their numbers are 0, the answer names them and how to start them, and what may reach people outside."""
    house, _ = home
    go_live(house)
    quiet, loud = forked(house, "quiet"), forked(house, "loud", workers=True, crons=True)
    row = house.store.environments.get("shop", "quiet")
    assert row is not None
    assert row.scale == {"mails": 0, "nightly": 0}
    assert quiet.off == ("mails", "nightly")
    assert any("homeport scale mails=1 nightly=1 --env quiet" in note for note in quiet.notes)
    assert quiet.outward == ("SMTP_HOST",)
    assert any("SMTP_HOST" in note and "real" in note for note in quiet.notes)
    assert any("nothing was masked" in note for note in quiet.notes)
    row = house.store.environments.get("shop", "loud")
    assert row is not None
    assert (row.scale, loud.off) == ({}, ())
    assert house.wired.live[-2:] == [("shop", "quiet", 1), ("shop", "loud", 1)]
    assert {"reach", "look", "mask"} <= set(quiet.phases)


def test_a_fork_keeps_its_door_closed_until_it_is_provisioned(home: tuple[House, Provisioned]) -> None:
    """Production's password opens nothing of it, masked or not; once provisioned its own does."""
    house, place = home
    forked(house, "closed")
    record = next(record for record in records(house.home) if record.id.environment == "closed")
    url = place.credentials["web"].url.replace(f"{place.host}:{place.port}", f"{record.host}:{record.port}")
    with pytest.raises(psycopg.OperationalError, match="no pg_hba"):
        psycopg.connect(url, connect_timeout=5)
    assert sql(house.add("db", environment="closed"), "SELECT count(*) FROM users") == [(50,)]


def test_a_fork_of_a_time_to_come_is_refused(home: tuple[House, Provisioned]) -> None:
    """It says so before anything is made."""
    house, _ = home
    with pytest.raises(TimeUnreachable, match="future"):
        fork(house.room, *PRODUCTION, "later", Moment(at=datetime(2999, 1, 1, tzinfo=UTC)), actor="test")
    gone(house, "later")


def test_a_project_over_its_budget_forks_no_more(home: tuple[House, Provisioned]) -> None:
    """The refusal has the numbers; what runs goes on."""
    house, place = home
    house.store.backups.set_policy({"budget": 1 << 20})
    try:
        with pytest.raises(BudgetSpent, match=r"The data of shop takes [\d,]+ MiB of a budget of 1 MiB"):
            forked(house, "broke")
        with pytest.raises(BudgetSpent):
            take_addon(house.room, place.id)
    finally:
        house.store.backups.set_policy({})
    gone(house, "broke")
    assert sql(place, "SELECT count(*) FROM users") == [(50,)]


def test_a_fork_after_a_restore_holds_what_was_restored(tmp_path: Path) -> None:
    """The newest backup is of the time before, and would lead to the data that was taken back."""
    with house_in(tmp_path / "home") as house:
        place = house.add("db")
        sql(place, "CREATE TABLE kept AS SELECT generate_series(1, 50) AS n")
        taken = take_addon(house.room, place.id)
        sql(place, "INSERT INTO kept VALUES (51)")
        restore_in_place(house.room, place.id, Moment(backup=taken.id))
        go_live(house)
        forked(house, "after")
        assert rows_of(house, "after", "SELECT count(*) FROM kept") == [(50,)]


# --- masking --------------------------------------------------------------------------------------------------------------


def test_masked_values_join_stay_unique_and_leave_no_trace(home: tuple[House, Provisioned]) -> None:
    """Keys masked on both sides still join, unique stays unique, views and statistics hold nothing of before, and two forks differ."""
    house, _ = home
    go_live(
        house, users__email="email", orders__who="email", orders__buyer="email", users__name="name", users__phone="phone",
        users__notes="lorem", users__code="uuid",
    )  # fmt: skip
    one, _two = forked(house, "m-one"), forked(house, "m-two")
    assert one.masked == {
        "users.email": 50, "orders.who": 50, "orders.buyer": 50, "users.name": 50, "users.phone": 50, "users.notes": 50, "users.code": 50,
    }  # fmt: skip
    assert rows_of(house, "m-one", "SELECT count(*) FROM orders JOIN users ON who = email AND buyer = email") == [(50,)]
    assert rows_of(house, "m-one", "SELECT count(DISTINCT email), count(DISTINCT phone), count(DISTINCT code) FROM users") == [(50, 50, 50)]
    assert rows_of(house, "m-one", "SELECT count(*) FROM users WHERE email LIKE '%@example.invalid' AND name LIKE 'Person %'") == [(50,)]
    assert rows_of(house, "m-one", "SELECT count(*) FROM users WHERE notes LIKE 'Lorem ipsum%' AND phone ~ '^[+]1555[0-9]{10}$'") == [(50,)]
    assert rows_of(house, "m-one", "SELECT count(*) FROM names WHERE name LIKE 'Ada%'") == [(0,)]
    quoting = "SELECT schemaname, tablename, attname FROM pg_stats WHERE concat(most_common_vals, histogram_bounds) LIKE '%Ada %'"
    assert rows_of(house, "m-one", quoting) == []
    emails = {name: rows_of(house, name, "SELECT email FROM users ORDER BY id LIMIT 1") for name in ("m-one", "m-two")}
    assert emails["m-one"] != emails["m-two"]


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ({"users__emial": "email"}, "fits no column"),
        ({"users__name": "emial"}, "is not one of email"),
        ({"users__email": "email"}, "would tear public.users.email from public.orders.who"),
        ({"users__email": "fixed:x@example.com", "orders__who": "fixed:x@example.com"}, "is unique"),
        pytest.param({"users__id": "email"}, "cannot mask public.users.id", marks=pytest.mark.slow),
        pytest.param({"users__code": "name"}, "cannot mask public.users.code", marks=pytest.mark.slow),
    ],
)
def test_a_rule_that_cannot_hold_ends_the_fork_before_its_door_opens(
    home: tuple[House, Provisioned], rules: dict[str, str], why: str
) -> None:
    """Wrong columns, wrong maskers, torn keys, lost uniqueness and wrong types are each told, and nothing of the fork is left."""
    house, _ = home
    go_live(house, **rules)
    with pytest.raises(ForkRefused, match=why):
        forked(house, "wrong")
    gone(house, "wrong")
    assert "shop/wrong" in house.wired.forgotten or why == "is not one of email"


def test_other_maskers_fit_what_they_are_for(home: tuple[House, Provisioned]) -> None:
    """Fixed text, hashes, empty and null; a collision of a salt is tried again with another."""
    house, _ = home
    go_live(house, users__name="fixed:somebody", users__phone="null", users__notes="hash", orders__buyer="empty")
    forked(house, "kinds")
    found = rows_of(house, "kinds", "SELECT DISTINCT name, phone, length(notes), (SELECT max(buyer) FROM orders) FROM users")
    assert found == [("somebody", None, 30, "")]
    assert masking.problems({"a.b": "fixed:", "x.y.z": "ip"}) == []


# --- data for new environments -----------------------------------------------------------------------------------------------


def test_a_new_environment_begins_with_masked_data_once(home: tuple[House, Provisioned]) -> None:
    """The rules are those of the source's release, not of the branch; the second time there is data and nothing is done."""
    house, _ = home
    live = go_live(house, users__name="name")
    house.wired.live_release = lambda project, environment: live  # type: ignore[method-assign]
    branch = go_live(house).model_copy(update={"environment": "pr-12", "number": 1})
    done = seed(house.room, branch, "production")
    assert done is not None
    assert done.masked == {"users.name": 50}
    assert done.off == ("mails", "nightly")
    assert rows_of(house, "pr-12", "SELECT count(*) FROM users WHERE name LIKE 'Person %'") == [(50,)]
    assert seed(house.room, branch, "production") is None


def test_what_leads_outside_is_found_by_its_name() -> None:
    """Mail, money and hooks of services and groups; nothing else."""
    env = {name: PlainValue(value="x") for name in ("SMTP_URL", "STRIPE_API_KEY", "SLACK_WEBHOOK", "PORT", "COLOUR")}
    spec = Spec(name="shop", services={"web": WebService(env=env)})
    release = Release(
        id="r1", project="shop", environment="production", number=1, revision=Revision(digest="0" * 64), spec=spec,
        created_at=datetime.now(UTC),
    )  # fmt: skip
    assert outward_of(release) == ("SLACK_WEBHOOK", "SMTP_URL", "STRIPE_API_KEY")


# --- speed and its price -----------------------------------------------------------------------------------------------------


def test_a_fork_is_made_durable_after_it_serves(home: tuple[House, Provisioned]) -> None:
    """It recovers with `fsync` off, which is in the ledger until it is on again and everything before is written down."""
    house, _ = home
    go_live(house)
    with settling._one:  # the background waits
        forked(house, "settled")
        assert [row.key for row in house.store.ledger.list("unsettled")] == ["shop-settled-db"]
        assert rows_of(house, "settled", "SHOW fsync") == [("off",)]
    settling.settle(house.room)
    assert rows_of(house, "settled", "SHOW fsync") == [("on",)]
    assert house.store.ledger.list("unsettled") == []


def test_a_fork_that_a_power_cut_may_have_torn_is_given_up(home: tuple[House, Provisioned], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another boot of the machine: nobody knows what of it was written, so it is removed, and said to be."""
    house, _ = home
    go_live(house)
    with settling._one:
        forked(house, "torn")
        monkeypatch.setattr(settling, "boot_id", lambda: "another")
    settling.settle(house.room)
    assert [where for where, _ in house.wired.abandoned] == ["shop/torn"]
    assert house.store.ledger.list("unsettled") == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_where_blocks_are_shared_a_fork_begins_from_a_standing_copy(tmp_path: Path, kind: str) -> None:
    """The first restore of the newest backup leaves one, forks take it, a newer one takes its place, and drills never use it."""
    if os.geteuid() != 0 or shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"needs root and mkfs.{kind}")
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(file_system(kind, 3 << 30, tmp_path))
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"this machine mounts no {kind}: {error}")
        house = stack.enter_context(house_in(place / "home"))
        db = house.add("db")
        sql(db, "CREATE TABLE kept AS SELECT generate_series(1, 50) AS n")
        go_live(house)
        first = take_addon(house.room, db.id)
        assert drill(house.room, first).problem == ""
        assert [row.key for row in house.store.ledger.list("standing")] == [first.id]
        sql(db, "INSERT INTO kept VALUES (51)")
        parcels = next((house.room.folder / "local" / "backups" / first.id).glob("0000.parcel"))
        parcels.write_bytes(b"not used")
        forked(house, "quick")
        assert rows_of(house, "quick", "SELECT count(*) FROM kept") == [(51,)]
        assert drill(house.room, first).problem != "", "a drill has to prove what lies on the target"
        second = take_addon(house.room, db.id)
        forked(house, "again")
        assert [row.key for row in house.store.ledger.list("standing")] == [second.id]
        assert [folder.name for folder in house.room.made("standing").iterdir()] == [second.id]


def test_blocks_are_copied_where_they_cannot_be_shared() -> None:
    """The same copy, without sharing: nothing stands, nothing fails."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        source = Path(folder) / "source"
        source.mkdir()
        (source / "file").write_bytes(b"x" * 100_000)
        assert not shares_blocks(Path(folder))
        copy_tree(source, Path(folder) / "copy", link=False)
        assert (Path(folder) / "copy" / "file").read_bytes() == b"x" * 100_000
        assert sorted(path.name for path in Path(folder).iterdir()) == ["copy", "source"]


# --- crashes --------------------------------------------------------------------------------------------------------------


def stopped_at(house: House, point: str, work: Callable[[], object]) -> None:
    """Run until a point and never go on: what a `kill -9` there leaves on the disk and in the store."""
    reached, for_ever = threading.Event(), threading.Event()

    def stop(step: str, at: str) -> None:
        if f"{step}:{at}" == point:
            reached.set()
            for_ever.wait()

    house.room.reach = stop
    threading.Thread(target=work, daemon=True).start()
    assert reached.wait(60), point
    house.room.reach = lambda _step, _point: None
    house.room.busy = threading.RLock()


@pytest.mark.parametrize("point", [pytest.param("fork:copied", marks=pytest.mark.slow), "fork:masked"])
def test_a_fork_that_died_before_it_was_recorded_leaves_nothing(home: tuple[House, Provisioned], point: str) -> None:
    """Unmasked data above all; the source is free again."""
    house, _ = home
    go_live(house, users__name="name")
    stopped_at(house, point, lambda: forked(house, "dead"))
    assert [record for record in records(house.home) if record.id.environment == "dead"]
    Keeper.before_start(house.room)
    gone(house, "dead")
    assert house.store.operations.all() == []
    assert ("shop", "dead", 1) not in house.wired.live


def test_a_fork_that_died_when_it_was_complete_goes_live(home: tuple[House, Provisioned]) -> None:
    """Its release is recorded and its data masked, so the next start of the control plane deploys it."""
    house, _ = home
    go_live(house, users__name="name")
    stopped_at(house, "fork:recorded", lambda: forked(house, "complete"))
    keeper = Keeper(house.room)
    Keeper.before_start(house.room)
    assert house.store.operations.of("shop", "complete") is not None, "nothing deploys it before the control plane stands"
    keeper.start()
    try:
        assert ("shop", "complete", 1) in house.wired.live
        assert house.store.operations.all() == []
        assert rows_of(house, "complete", "SELECT count(*) FROM users WHERE name LIKE 'Ada%'") == [(0,)]
    finally:
        keeper.stop()


@pytest.mark.slow  # the fault suite kills a whole control plane at the first and last of these
@pytest.mark.parametrize(("point", "rows"), [("restore:begun", 51), ("restore:proven", 51), ("restore:switched", 50)])
def test_a_restore_that_died_is_old_or_new_and_never_half(tmp_path: Path, point: str, rows: int) -> None:
    """Before the exchange the old data serves on, after it the new; what it had made beside is gone, and the environment is free."""
    with house_in(tmp_path / "home") as house:
        place = house.add("db")
        sql(place, "CREATE TABLE kept AS SELECT generate_series(1, 50) AS n")
        taken = take_addon(house.room, place.id)
        sql(place, "INSERT INTO kept VALUES (51)")
        stopped_at(house, point, lambda: restore_in_place(house.room, place.id, Moment(backup=taken.id)))
        assert Keeper.before_start(house.room) == []
        again = house.add("db")
        assert sql(again, "SELECT count(*) FROM kept") == [(rows,)]
        assert [record.id.name for record in records(house.home)] == ["db"]
        assert house.store.operations.all() == []
        assert ("operation.interrupted" in [kind for kind, _ in house.wired.events]) is True
