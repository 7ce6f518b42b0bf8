"""Copies of Valkey, MariaDB and Temporal against the real engines: proven by content, and brought back."""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymysql
import pytest
import redis
from rooms import House, house_in

from homeport.backups.drills import drill
from homeport.backups.errors import NotProven
from homeport.backups.kinds import COPIERS, copier_of
from homeport.backups.kinds.valkey import lasting
from homeport.backups.manifest import Fingerprint, Manifest, Moment, TablePrint
from homeport.backups.repository import Repository
from homeport.backups.restoring import look, materialise, restore_in_place
from homeport.backups.taking import take_addon
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import AddOnId, Credentials, Provisioned
from homeport.drivers.addons.mariadb import engine as mariadb_engine
from homeport.drivers.addons.records import Place
from homeport.model.addon import MariaDB, Temporal

pytestmark = [pytest.mark.xdist_group("backups-of-every-kind"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_in(tmp_path_factory.mktemp("kinds") / "home") as house:
        yield house


@contextlib.contextmanager
def restored(house: House, manifest: Manifest) -> Iterator[AddOnId]:
    """A scratch add-on with a backup's data, before it is looked at."""
    scratch = house.room.scratch_id(manifest.addon)
    try:
        materialise(house.room, manifest, Moment(backup=manifest.id), scratch)
        yield scratch
    finally:
        switching.discard(house.room.server(manifest.kind), scratch)


def client(place: Provisioned) -> redis.Redis:
    return redis.Redis.from_url(place.credentials["web"].url)


def ask(credentials: Credentials, query: str, *values: object) -> list[Any]:
    with (
        contextlib.closing(
            pymysql.connect(
                host=credentials.host, port=credentials.port, user=credentials.user, password=credentials.password,
                database=credentials.database, autocommit=True,
            )
        ) as connection,
        connection.cursor() as cursor,
    ):  # fmt: skip
        cursor.execute(query, values or None)
        return list(cursor.fetchall())


def workflows(house: House, id: AddOnId, *, start: str = "") -> int:
    """Starts a workflow when one is named; how many there are."""
    record = Place(house.home, id).get()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", record.extra_ports[0], timeout=20)) as door:
        if start:
            body = {"workflowType": {"name": "greet"}, "taskQueue": {"name": "q"}, "requestId": start}
            door.request("POST", f"/api/v1/namespaces/default/workflows/{start}", json.dumps(body), {"Content-Type": "application/json"})
            answer = door.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()
        door.request("GET", "/api/v1/namespaces/default/workflow-count")
        return int(json.loads(door.getresponse().read()).get("count", 0))


def until_workflows(house: House, id: AddOnId, wanted: int) -> None:
    """Counts come from an index that follows."""
    deadline = time.monotonic() + 20
    while workflows(house, id) != wanted:
        assert time.monotonic() < deadline, f"{workflows(house, id)} workflows instead of {wanted}"
        time.sleep(0.05)


def test_every_driver_of_a_home_has_a_copier(house: House) -> None:
    """No kind of add-on that runs here is left without backups."""
    assert set(COPIERS) == set(house.drivers)


# --- Valkey -----------------------------------------------------------------------------------------------------------


def fill(server: redis.Redis) -> None:
    """Every type, small and large, with a life and without."""
    server.mset({f"k{number}": f"value {number}" for number in range(1200)})
    server.set("large", bytes(range(256)) * 8192)
    server.set("gone-soon", 1, px=1)
    for number in range(20):
        server.set(f"session{number}", number, ex=3 * 3600 + number)
    server.hset("hash", mapping={str(number): number for number in range(1300)})
    server.sadd("set", *range(1300))
    server.sadd("numbers", 1, 2, 3)
    server.rpush("list", *range(1300))
    server.zadd("scores", {f"m{number}": number / 3 for number in range(600)})
    for number in range(5):
        server.xadd("stream", {"n": number})
    server.xgroup_create("stream", "readers", 0)


def test_each_key_of_valkey_is_compared(house: House) -> None:
    """A copy with every type proves; one changed value, member, score, order or end does not, whichever it is."""
    place = house.add_valkey("keys")
    with client(place) as server:
        fill(server)
    with redis.Redis.from_url(place.credentials["web"].url.removesuffix("/0") + "/3") as server:
        server.set("elsewhere", "1")
    manifest = take_addon(house.room, place.id)
    assert manifest.fingerprint is not None
    assert manifest.fingerprint.exact
    proof = drill(house.room, manifest)
    assert proof.problem == ""
    assert proof.compared == {"keys": 1200 + 1 + 20 + 7}
    changes: list[tuple[str, ...]] = [
        ("SET", "k7", "value 8"), ("SETRANGE", "large", "1500000", "x"), ("HSET", "hash", "1299", "0"), ("SREM", "set", "17"),
        ("LSET", "list", "1299", "0"), ("ZADD", "scores", "0.5", "m599"), ("XDEL", "stream", "0-0"), ("DEL", "k3"), ("SET", "new", "1"),
        ("EXPIRE", "session3", "90000"), ("PERSIST", "session4"), ("XGROUP", "SETID", "stream", "readers", "$"),
    ]  # fmt: skip
    with restored(house, manifest) as scratch, house.valkey.admin(Place(house.home, scratch)) as admin:
        inside: Any = admin
        entry = inside.xrange("stream")[0][0]
        for change in changes:
            command = [entry if part == "0-0" else part for part in change]
            before = look(house.room, manifest.model_copy(update={"fingerprint": None}), scratch, compare=False)
            inside.execute_command(*command)
            with pytest.raises(NotProven):
                look(house.room, manifest.model_copy(update={"fingerprint": before}), scratch, compare=True)


def test_keys_that_rightly_ended_are_not_missed() -> None:
    """Groups of keys whose hour has begun are left out on both sides; later ones, and those without an end, are compared."""
    now = datetime(2026, 11, 21, 3, 30, tzinfo=UTC)
    groups = {f"keys that end from {now + timedelta(hours=h):%Y-%m-%dT%HZ}": TablePrint(rows=1, total="a") for h in (-1, 0, 1)}
    wanted = Fingerprint(databases={"0": {"string": TablePrint(rows=1, total="b"), **groups}, "1": dict([next(iter(groups.items()))])})
    kept = lasting(wanted, now).databases
    assert kept == {"0": {"string": TablePrint(rows=1, total="b"), "keys that end from 2026-11-21T04Z": TablePrint(rows=1, total="a")}}


def test_a_busy_valkey_is_copied_and_said_not_to_be_exact(house: House) -> None:
    """While writes never pause, the copy is taken, called not exact, and still proven to be readable to its end."""
    place = house.add_valkey("busy")
    done = threading.Event()

    def write() -> None:
        with client(place) as server:
            while not done.is_set():
                server.incr("counter")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        manifest = take_addon(house.room, place.id)
    finally:
        done.set()
        writer.join()
    assert manifest.fingerprint is not None
    assert not manifest.fingerprint.exact
    proof = drill(house.room, manifest)
    assert (proof.problem, proof.exact) == ("", False)


# --- MariaDB ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(mariadb_engine.find() is None, reason=mariadb_engine.MISSING)
def test_mariadb_is_copied_exactly_while_it_is_written_to(house: House) -> None:
    """Under writes the dump and the sums are of one moment; one changed value, column or row does not prove; a restore goes back."""
    place = house.add("sql", MariaDB(database="shop"))
    web = place.credentials["web"]
    ask(web, "CREATE TABLE items (id int AUTO_INCREMENT PRIMARY KEY, name varchar(60), price decimal(8,2), data blob, at timestamp)")
    ask(web, "INSERT INTO items (name, price, data) SELECT CONCAT('näme ', seq), seq / 7, UNHEX(MD5(seq)) FROM seq_1_to_20000")
    ask(web, "CREATE TABLE old (n int) ENGINE=MyISAM")
    done = threading.Event()
    slowest = [0.0]

    def write() -> None:
        with contextlib.closing(
            pymysql.connect(host=web.host, port=web.port, user=web.user, password=web.password, database="shop", autocommit=True)
        ) as connection:
            while not done.is_set():
                began = time.monotonic()
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO items (name) VALUES ('written meanwhile')")
                slowest[0] = max(slowest[0], time.monotonic() - began)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        manifest = take_addon(house.room, place.id)
    finally:
        done.set()
        writer.join()
    assert manifest.fingerprint is not None
    assert manifest.fingerprint.exact
    assert slowest[0] < 2.5, "commits were held until the limit"
    assert drill(house.room, manifest).problem == ""
    with restored(house, manifest) as scratch, house.mariadb.admin(Place(house.home, scratch)) as admin, admin.cursor() as cursor:
        for change in ("UPDATE shop.items SET price = price + 0.01 WHERE id = 77", "ALTER TABLE shop.items MODIFY name varchar(61)",
                       "DELETE FROM shop.items WHERE id = 5", "DROP TABLE shop.old", "CREATE TABLE shop.more (n int)"):  # fmt: skip
            before = look(house.room, manifest, scratch, compare=False)
            cursor.execute(change)
            with pytest.raises(NotProven):
                look(house.room, manifest.model_copy(update={"fingerprint": before}), scratch, compare=True)
    ask(web, "DELETE FROM items")
    restored_rows = restore_in_place(house.room, place.id, Moment(backup=manifest.id))
    assert restored_rows.rows == manifest.fingerprint.rows
    assert restored_rows.tombstone
    assert ask(web, "SELECT COUNT(*) FROM items WHERE name LIKE 'näme%%'") == [(20_000,)]


# --- Temporal ---------------------------------------------------------------------------------------------------------


def test_temporal_goes_back_to_its_copy(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workflows of the copy are there, later ones are not; a copy in which one value was changed is found before a server gets it."""
    place = house.add("flows", Temporal())
    for number in range(3):
        workflows(house, place.id, start=f"before{number}")
    until_workflows(house, place.id, 3)
    manifest = take_addon(house.room, place.id)
    proof = drill(house.room, manifest)
    assert proof.problem == ""
    assert proof.compared["events"] >= 3
    workflows(house, place.id, start="after")
    until_workflows(house, place.id, 4)
    done = restore_in_place(house.room, place.id, Moment(at=datetime.now(UTC)))
    until_workflows(house, place.id, 3)
    assert "keeps no log of changes" in done.notes[0]

    fetch = Repository.fetch

    def flipped(self: Repository, manifest: Manifest, into: Path, parts: Any = None) -> None:
        fetch(self, manifest, into, parts)
        with contextlib.closing(sqlite3.connect(into / "temporal.db", isolation_level=None)) as database:
            database.execute("UPDATE history_node SET data = CAST(zeroblob(length(data)) AS BLOB) WHERE rowid = 1")

    monkeypatch.setattr(Repository, "fetch", flipped)
    assert "history_node" in drill(house.room, manifest).problem


def test_a_cluster_of_somebody_else_is_not_copied(house: House) -> None:
    """An outside Temporal has no data here: nothing is due for it."""
    from homeport.backups.keeper import Keeper

    house.add("outside", Temporal(address="temporal.example.com:7233"))
    id = AddOnId(project="shop", environment="production", name="outside")
    assert not copier_of("temporal").here(house.room, id)
    assert "outside" not in {due.name for due in Keeper(house.room).schedule()}
