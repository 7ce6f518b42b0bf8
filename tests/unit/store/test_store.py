"""The store keeps what it is told, once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from homeport.model.release import DeployStatus, Release, Revision
from homeport.model.spec import Spec
from homeport.store import Store
from homeport.store.database import HEAD, MIGRATIONS, Database, StoreUnavailable
from homeport.store.instances import InstanceRow, put_roles
from homeport.store.tables import metadata


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "home")
    store.environments.ensure("shop", "production")
    yield store
    store.close()


def release(number: int) -> Release:
    spec = Spec.model_validate({"name": "shop", "services": {"web": {"kind": "web", "env": {"A": "1"}}}})
    revision = Revision(digest="d" * 64)
    return Release(
        id=f"r{number}", project="shop", environment="production", number=number, revision=revision, spec=spec, created_at=datetime.now(UTC)
    )


def instance(number: int, role: str, service: str = "web") -> InstanceRow:
    id = f"shop-production-{service}-r{number}-0"
    return InstanceRow(id, "shop", "production", service, number, 0, role, "127.0.0.1", 20000 + number, "healthy", 0, 0, "", None, None)


def test_migrations_make_the_schema_that_the_code_uses(store: Store) -> None:
    """After migrating, the database has exactly the tables and columns that `tables.py` declares."""
    with store.database.engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": False}), metadata)
    assert [change for change in difference if "alembic_version" not in str(change)] == []


def test_head_is_the_newest_migration() -> None:
    """The shortcut that skips Alembic at start names the newest migration file."""
    revisions = [re.match(r"(\d+)_", path.name) for path in (MIGRATIONS / "versions").glob("*.py")]
    assert max(match[1] for match in revisions if match) == HEAD


def test_an_empty_store_is_made_as_the_migrations_make_it(tmp_path: Path) -> None:
    """`schema.sql` gives the same tables, indexes, triggers and version as every migration in turn (`make docs` writes it)."""
    made, migrated = Database(f"sqlite:///{tmp_path / 'made.db'}"), Database(f"sqlite:///{tmp_path / 'migrated.db'}")
    made.migrate()
    migrated.upgrade()
    assert _shape(made) == _shape(migrated)


def _shape(database: Database) -> list[tuple[str, ...]]:
    with database.transaction() as db:
        found = db.execute(text("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")).all()
        version = db.execute(text("SELECT version_num FROM alembic_version")).scalar()
    database.close()
    return [(str(version),), *(tuple(" ".join(str(part).split()) for part in row) for row in found)]


def test_a_store_is_made_once(tmp_path: Path) -> None:
    """Two that find no store at the same moment make one; what the second finds then stays as it is."""
    first, second = Database(f"sqlite:///{tmp_path / 'store.db'}"), Database(f"sqlite:///{tmp_path / 'store.db'}")
    first.migrate()
    with first.transaction() as db:
        db.execute(text("INSERT INTO settings VALUES ('a', '1')"))
    second._make()
    with second.transaction() as db:
        assert db.execute(text("SELECT value FROM settings")).scalars().all() == [1]
    first.close()
    second.close()


def test_a_database_that_cannot_be_opened_is_a_clear_error(tmp_path: Path) -> None:
    """A store whose file is no database says so and leaves the file alone."""
    (tmp_path / "homeport.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreUnavailable) as caught:
        Store.open(tmp_path)
    assert caught.value.code == "store-unavailable"
    assert (tmp_path / "homeport.db").read_bytes().startswith(b"not a database")


def test_a_release_is_recorded_once_and_read_back_equal(store: Store) -> None:
    """Recording a release twice keeps the first, and reading gives the same value."""
    first = release(1)
    store.releases.record(first)
    store.releases.record(release(1))
    row = store.releases.get("shop", "production", 1)
    assert row is not None and row.release == first and row.state == "recorded"


def test_going_live_retires_the_former_release(store: Store) -> None:
    """Exactly one release of an environment is live, however often the step is repeated."""
    for number in (1, 2):
        store.releases.record(release(number))
        store.releases.go_live("shop", "production", number)
        store.releases.go_live("shop", "production", number)
    rows = {row.release.number: row.state for row in store.releases.list("shop", "production")}
    environment = store.environments.get("shop", "production")
    assert rows == {2: "live", 1: "retired"} and environment is not None and (environment.live, environment.previous) == (2, 1)


def test_release_numbers_are_never_given_twice(store: Store) -> None:
    """Reserving counts up."""
    assert [store.releases.reserve("shop", "production") for _ in range(3)] == [1, 2, 3]


def test_a_newer_deploy_supersedes_the_one_that_waits(store: Store) -> None:
    """Of several waiting deploys the newest runs; the others end as superseded; a running one is left alone."""
    for id in ("a", "b", "c"):
        store.deploys.queue(id=id, project="shop", environment="production", kind="deploy", request={}, actor="me")
    first = store.deploys.begin_next("shop", "production")
    assert first is not None and first.id == "c" and store.deploys.begin_next("shop", "production") is None
    _, superseded = store.deploys.queue(id="d", project="shop", environment="production", kind="deploy", request={}, actor="me")
    assert superseded == []
    store.deploys.finish("c", DeployStatus.LIVE, {"status": "live"})
    following = store.deploys.begin_next("shop", "production")
    assert following is not None and following.id == "d"
    states = {row.id: row.status for row in store.deploys.recent("shop", "production")}
    assert states == {"a": "superseded", "b": "superseded", "c": "live", "d": "running"}


def test_roles_switch_in_one_transaction(store: Store) -> None:
    """At a switch candidates become live, the former web instances stay warm, former workers and older warm ones retire."""
    rows = [instance(1, "warm"), *(instance(n, role, s) for n, role in ((2, "live"), (3, "candidate")) for s in ("web", "worker"))]
    store.instances.add(rows)
    store.instances.add(rows)
    with store.database.transaction() as db:
        put_roles(db, "shop", "production", 3, retire_at=datetime.now(UTC) + timedelta(seconds=30), keep_warm=["web"])
    roles = {row.id.removeprefix("shop-production-"): row.role for row in store.instances.list("shop", "production")}
    assert roles == {"web-r1-0": "retiring", "web-r2-0": "warm", "worker-r2-0": "retiring", "web-r3-0": "live", "worker-r3-0": "live"}


def test_the_ledger_gives_a_thing_to_one_owner(store: Store) -> None:
    """A claimed thing is refused to others, and an assignment is stable."""
    assert store.ledger.claim("volume", "data", "shop/production") and store.ledger.claim("volume", "data", "shop/production")
    assert not store.ledger.claim("volume", "data", "other/production")
    assert store.ledger.assign("port", "shop/production/web", lambda taken: "20001") == "20001"
    assert store.ledger.assign("port", "shop/production/web", lambda taken: "20002") == "20001"
    assert [row.key for row in store.ledger.list(owner="shop/production")] == ["20001", "data"]


def test_api_keys_are_found_only_by_their_text(store: Store) -> None:
    """A key works until revoked or expired, and the database holds no text of it."""
    row, text = store.keys.create("ci", ["deploy"])
    found = store.keys.find(text)
    assert found is not None and found.id == row.id and found.allows("deploy") and not found.allows("read")
    _, expired = store.keys.create("old", ["admin"], expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert store.keys.find(expired) is None and store.keys.find("hp_wrong") is None
    assert store.keys.revoke(row.id) and not store.keys.revoke(row.id) and store.keys.find(text) is None


def test_the_first_run_token_works_once(store: Store) -> None:
    """The token is made once, redeemed once, and a wrong one does not use it up."""
    token = store.keys.first_run_token()
    assert token and store.keys.first_run_token() is None
    assert not store.keys.redeem("wrong") and store.keys.redeem(token) and not store.keys.redeem(token)


def test_events_come_back_in_order(store: Store) -> None:
    """The newest events are listed oldest first, after a sequence number."""
    for number in range(5):
        store.events.add("test", f"event {number}", project="shop", number=number)
    rows = store.events.list("shop", limit=3)
    assert [row.data["number"] for row in rows] == [2, 3, 4]
    assert [row.data["number"] for row in store.events.list("shop", after=rows[-2].seq)] == [4]
