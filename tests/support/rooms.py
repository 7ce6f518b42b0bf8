"""A backup room over real engines, without a control plane around it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from homeport.backups.room import Room
from homeport.drivers.addons.base import AddOnId, AddOnRequest, Provisioned
from homeport.drivers.addons.keeping import ServerDriver
from homeport.drivers.addons.mariadb import MariaDBDriver
from homeport.drivers.addons.postgres import PostgresDriver
from homeport.drivers.addons.records import records
from homeport.drivers.addons.temporal import TemporalDriver
from homeport.drivers.addons.valkey import ValkeyDriver
from homeport.drivers.reach import forget, reachable
from homeport.drivers.storage.base import Target
from homeport.drivers.storage.opening import open_target
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import AddOn, Postgres, Redis
from homeport.model.release import Release, Revision
from homeport.model.spec import Spec
from homeport.settings import Settings
from homeport.store import Store

ENGINES = Path(tempfile.gettempdir()) / f"homeport-test-engines-{os.getuid()}"
"""Engines are installed once for all runs of the tests."""
VAULT_KEY = bytes(range(32))
PASSWORD = "p" * 32


def toolchains() -> Toolchains:
    ENGINES.mkdir(mode=0o755, exist_ok=True)
    return Toolchains(ENGINES, network=Settings.from_environment().network, search=[])


class Wired:
    """What a platform would do, written down."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.events: list[tuple[str, str]] = []
        self.addons: dict[str, AddOn] = {}
        self.live: list[tuple[str, str, int]] = []
        self.let_go: list[str] = []
        self.forgotten: list[str] = []
        self.abandoned: list[tuple[str, str]] = []

    def live_release(self, project: str, environment: str) -> Release | None:
        spec = Spec(name="shop", addons=self.addons)
        return Release(
            id="r1",
            project=project,
            environment=environment,
            number=1,
            revision=Revision(digest="0" * 64),
            spec=spec,
            created_at=datetime.now(UTC),
        )

    def provision(self, release: Release) -> None:
        for name, definition in release.spec.addons.items():
            if self.house.store.ledger.list("addon", f"{release.project}/{release.environment}"):
                self.house.add(name, definition, release.environment)

    def account(self, project: str, environment: str) -> int | None:
        return None

    def tell(self, kind: str, text: str, project: str = "", environment: str = "", **data: object) -> None:
        self.events.append((kind, text))

    def reveal(self, project: str, environment: str, name: str, version: int) -> str:
        return f"{name}@{version}"

    def keep(self, project: str, environment: str, name: str, value: str, actor: str) -> int:
        return 1

    def go_live(self, project: str, environment: str, number: int, actor: str) -> str:
        self.live.append((project, environment, number))
        return "d1"

    def released(self, project: str, environment: str) -> None:
        self.let_go.append(f"{project}/{environment}")

    def abandon(self, project: str, environment: str, why: str) -> None:
        self.abandoned.append((f"{project}/{environment}", why))

    def forget(self, project: str, environment: str) -> None:
        self.forgotten.append(f"{project}/{environment}")

    def vault_keys(self) -> Sequence[bytes]:
        return [VAULT_KEY]


class House:
    """A home with a room. `targets` may be changed."""

    def __init__(self, home: Path) -> None:
        self.home = reachable(home)
        self.store = Store.open(self.home)
        tools = toolchains()
        self.postgres, self.valkey = PostgresDriver(self.home, tools, system=[]), ValkeyDriver(self.home, tools)
        self.mariadb, self.temporal = MariaDBDriver(self.home), TemporalDriver(self.home, tools)
        self.drivers: dict[str, ServerDriver] = {
            "postgres": self.postgres, "redis": self.valkey, "mariadb": self.mariadb, "temporal": self.temporal,
        }  # fmt: skip
        self.targets: list[Target] = []
        self.wired = Wired(self)
        self.room = Room(
            self.home,
            self.store,
            self.drivers,  # type: ignore[arg-type]
            self.wired,
            lambda target: open_target(target, self.room.made("targets"), tools),
            lambda: self.targets,
        )

    def add(self, name: str, definition: AddOn | None = None, environment: str = "production") -> Provisioned:
        """Provision an add-on and claim it as a release would."""
        definition = definition or Postgres(database="shop", memory=64 << 20)
        id = AddOnId(project="shop", environment=environment, name=name)
        self.wired.addons[name] = definition
        found = self.drivers[definition.kind].provision(  # type: ignore[attr-defined]
            AddOnRequest(id=id, definition=definition, consumers=("web",), passwords={"": PASSWORD, "web": PASSWORD})
        )
        self.store.ledger.claim("addon", id.slug, f"shop/{environment}", addon=name, engine=definition.kind)
        return found  # type: ignore[no-any-return]

    def add_valkey(self, name: str) -> Provisioned:
        return self.add(name, Redis(memory=32 << 20))

    def close(self) -> None:
        for record in list(records(self.home)):
            self.drivers[record.kind].stop(record.id)
        for driver in self.drivers.values():
            driver.close()
        self.store.close()
        forget(self.home)


@contextlib.contextmanager
def house_in(folder: Path) -> Iterator[House]:
    house = House(folder)
    try:
        yield house
    finally:
        house.close()


def sql(place: Provisioned, query: str, *values: Any) -> list[Any]:
    """Run one statement as the service `web`."""
    with psycopg.connect(place.credentials["web"].url, connect_timeout=10, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else []
