"""Services go through the pool of a database; what changes its schema goes past it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doors import Door, go_live, open_door
from engines import PaperEngine

from homeport.deploys import commands
from homeport.drivers.addons.base import AddOnRequest, Credentials, Provisioned
from homeport.drivers.addons.postgres.credentials import credentials_for
from homeport.drivers.addons.postgres.roles import Layout
from homeport.drivers.addons.records import Record
from homeport.model.addon import Postgres
from homeport.model.release import Release

SPEC: dict[str, Any] = {"services": {"web": {"kind": "web", "command": "run"}}, "addons": {"db": {"kind": "postgres", "pooling": True}}}
LAYOUT = Layout(database="shop", owner="shop")


class PooledEngine(PaperEngine):
    """Paper, with a pool in front of it."""

    def provision(self, request: AddOnRequest) -> Provisioned:
        made = super().provision(request)
        pooled = {name: self._pooled(request, name) for name in made.credentials}
        return made.model_copy(update={"credentials": pooled})

    def _pooled(self, request: AddOnRequest, consumer: str) -> Credentials:
        record = Record(id=request.id, kind="postgres", definition=request.definition, host="127.78.0.1", port=5432, pool_port=6432)
        return credentials_for(record, LAYOUT, consumer, "a", "secret")


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with open_door(tmp_path / "home") as door:
        door.platform.addons.drivers = {"postgres": PooledEngine(door.platform.home)}
        yield door


def test_a_service_gets_the_pool_and_a_migration_the_database(door: Door) -> None:
    """The usual variables and properties lead to the pool; the same of a release command lead past it, and both can be named."""
    release, book = go_live(door.platform, SPEC), door.platform.addons
    pooled, direct = (f"postgresql://web_a:secret@127.78.0.1:{port}/shop" for port in (6432, 5432))
    mine, past = book.variables(release, "web"), book.variables(release, "web", direct=True)
    assert (mine["DATABASE_URL"], mine["PGPORT"], mine["DIRECT_URL"], mine["DATABASE_URL_UNPOOLED"]) == (pooled, "6432", direct, direct)
    assert (past["DATABASE_URL"], past["PGPORT"], past["DIRECT_URL"]) == (direct, "5432", direct)
    assert [book.property(release, "web", "db", name) for name in ("url", "pooled-url", "direct-url", "port")] == [
        pooled,
        pooled,
        direct,
        "6432",
    ]
    assert book.property(release, "web", "db", "port", direct=True) == "5432"
    assert book.property(release, "nobody", "db", "url") == "postgresql://shop:secret@127.78.0.1:5432/shop"


def test_an_extension_that_the_engine_lacks_is_told_with_what_to_do(door: Door) -> None:
    """Both wordings of PostgreSQL lead to the same advice; another end has the usual one."""
    release: Release = go_live(door.platform, SPEC)
    for line in (
        'ERROR:  extension "pg_trgm" is not available',
        'could not open extension control file "/x/extension/pg_trgm.control": No',
    ):
        error = commands._failed(release, "web", "it ended with exit code 1", ["…", line])
        assert "`homeport addons upgrade db` moves the data to a PostgreSQL of this machine that has pg_trgm" in error.fix
    assert "upgrade" not in commands._failed(release, "web", "it ended with exit code 1", ["no"]).fix
    alone = release.model_copy(update={"spec": release.spec.model_copy(update={"addons": {}})})
    assert "upgrade" not in commands._failed(alone, "web", "it ended", ['extension "pg_trgm" is not available']).fix


def test_without_the_wish_a_pool_that_is_still_there_is_not_handed_out() -> None:
    """A pool stays for what is live; new credentials no longer lead to it."""
    id = AddOnRequest.model_validate({"id": {"project": "a", "environment": "b", "name": "c"}, "definition": {"kind": "postgres"}}).id
    record = Record(id=id, kind="postgres", definition=Postgres(), host="127.78.0.1", port=5432, pool_port=6432)
    assert credentials_for(record, LAYOUT, "web", "b", "x").port == 5432
