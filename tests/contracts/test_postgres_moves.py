"""Moving a PostgreSQL add-on to another engine: by pg_upgrade, by dump and restore, over crashes, and to the system's programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from homeport.drivers.addons.base import AddOnId, AddOnRequest, Provisioned
from homeport.drivers.addons.errors import AddOnFailed, UpgradeFailed
from homeport.drivers.addons.postgres import PostgresDriver
from homeport.drivers.addons.postgres.engines import BUNDLED, Engine
from homeport.drivers.reach import forget, reachable
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import Postgres
from homeport.settings import Settings

pytestmark = pytest.mark.xdist_group("addon-postgres-moves")

ENGINES = Path(tempfile.gettempdir()) / f"homeport-test-engines-{os.getuid()}"
NEAREST = "SELECT n FROM documents ORDER BY embedding <-> '[1,2,7]' LIMIT 1"


class Yard:
    """A home, and drivers for it that see other engines or stop at a step."""

    def __init__(self, home: Path) -> None:
        ENGINES.mkdir(mode=0o755, exist_ok=True)
        self.home = home
        self.toolchains = Toolchains(ENGINES, network=Settings.from_environment().network, search=[])
        self.drivers: list[PostgresDriver] = []
        self.driver = self.seeing()
        self.made: list[AddOnId] = []

    def seeing(self, *system: Path, at: Callable[[str], None] | None = None) -> PostgresDriver:
        self.drivers.append(PostgresDriver(self.home, self.toolchains, system=system, at=at))
        return self.drivers[-1]

    def provision(self, name: str, driver: PostgresDriver | None = None, **definition: object) -> Provisioned:
        id = AddOnId(project="shop", environment="test", name=name)
        self.made.append(id)
        wanted = Postgres(database="postgres", user="postgres", **definition)
        return (driver or self.driver).provision(
            AddOnRequest(id=id, definition=wanted, passwords={"": "o" * 32, "web": "w" * 32}, consumers=("web",))
        )

    def filled(self, name: str, **definition: object) -> Provisioned:
        """An add-on with vectors, and with a column that pg_upgrade does not carry over."""
        found = self.provision(name, None, **definition)
        with connect(found) as connection:
            connection.execute("CREATE TABLE documents (n int PRIMARY KEY, embedding vector(3), handler regproc)")
            connection.execute("INSERT INTO documents SELECT n, ARRAY[1, 2, n]::vector, 'now' FROM generate_series(1, 300) n")
            connection.execute("CREATE INDEX ON documents USING hnsw (embedding vector_l2_ops)")
        return found

    def close(self) -> None:
        for id in self.made:
            self.driver.stop(id)
        for driver in self.drivers:
            driver.close()


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    home = reachable(tmp_path_factory.mktemp("moves") / "home")
    found = Yard(home)
    yield found
    found.close()
    forget(home)


def connect(found: Provisioned) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(found.credentials["web"].url, autocommit=True, connect_timeout=5)


def whole(found: Provisioned) -> bool:
    with connect(found) as connection:
        count = connection.execute("SELECT count(*) FROM documents").fetchone()
        return (count, connection.execute(NEAREST).fetchone()) == ((300,), (7,))


def folders(found: Provisioned) -> list[str]:
    return sorted(path.name for path in found.folder.iterdir() if path.name.startswith(("data", "upgrade")))


def test_what_pg_upgrade_refuses_is_dumped_and_restored(yard: Yard) -> None:
    """A column of a type that cannot be carried over as it is leads to a dump: same data, logins and password, on the new version."""
    old = yard.filled("dumped", version="16")
    steps: list[str] = []
    assert "18." in yard.seeing(at=steps.append).upgrade(old.id, "18").engine
    assert steps[:6] == ["stop", "initialise", "upgrade", "dump", "record", "start"]
    assert yard.provision("dumped", version="18").credentials == old.credentials
    assert whole(old)
    with connect(old) as connection:
        assert connection.execute("SELECT handler::text FROM documents LIMIT 1").fetchone() == ("now",)
    assert folders(old) == ["data-16", "data-18"]


def test_when_both_ways_fail_the_old_version_runs_untouched(yard: Yard) -> None:
    """A refusal of pg_upgrade and a failing restore leave the old engine with its data, and nothing of the new one."""
    old = yard.filled("refused", version="16")
    with yard.driver.cluster(old.id).admin("postgres") as admin:  # what no dump can say
        admin.execute("CREATE TABLE damaged (n int)")
        admin.execute("UPDATE pg_attribute SET atttypid = 0 WHERE attrelid = 'damaged'::regclass AND attname = 'n'")
    with pytest.raises(UpgradeFailed, match="runs again") as failed:
        yard.driver.upgrade(old.id, "18")
    assert "Nor could it be dumped" in failed.value.why
    assert yard.driver.inspect(old.id).version.startswith("16")
    assert whole(old)
    assert folders(old) == ["data-16"]


CHILD = """
import os, signal, sys, threading
from pathlib import Path
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.postgres import PostgresDriver
from homeport.drivers.toolchains.toolchains import Toolchains
home, engines, id, point, inside = sys.argv[1:]
id = AddOnId.model_validate_json(id)
def die(): os.kill(os.getpid(), signal.SIGKILL)
def watch():
    while not (home / "addons" / id.slug / inside).exists(): threading.Event().wait(0.005)
    die()
home = Path(home)
def at(step):
    if step == point: threading.Thread(target=watch, daemon=True).start() if inside else die()
PostgresDriver(home, Toolchains(Path(engines), search=[]), system=[], at=at).upgrade(id, "18")
"""


@pytest.mark.parametrize(
    ("point", "inside"),
    [
        *(pytest.param(point, inside, marks=pytest.mark.slow) for point, inside in
          [("stop", ""), ("initialise", "data-18.part/base"), ("upgrade", ""), ("upgrade", "upgrade/server-5001.log"), ("dump", ""),
           ("start", ""), ("done", "")]),
        ("dump", "upgrade/dump"), ("record", ""),
    ],
)  # fmt: skip
def test_a_crash_at_any_step_of_a_move_loses_nothing(yard: Yard, point: str, inside: str) -> None:
    """When the control plane is killed, the next look finds the old or the new version with all its data, and an upgrade then succeeds."""
    name = f"crash-{point}-{len(inside)}"
    old = yard.filled(name, version="16")
    argv = [sys.executable, "-c", CHILD, str(yard.home), str(ENGINES), old.id.model_dump_json(), point, inside]
    assert subprocess.run(argv, check=False, timeout=60, capture_output=True).returncode == -signal.SIGKILL
    yard.driver.ensure()
    assert whole(yard.provision(name, version="16"))
    yard.driver.upgrade(old.id, "18")
    assert yard.driver.inspect(old.id).version.startswith("18")
    assert whole(old)
    yard.driver.purge(yard.driver.destroy(old.id))


def test_data_moves_to_another_engine_of_the_same_version(yard: Yard) -> None:
    """An extension that the bundled engine lacks is told with what to do; the move keeps data, address and logins, and archives anew."""
    found = yard.filled("moved", version="18")
    with pytest.raises(AddOnFailed, match="pg_fancy") as failed:
        yard.provision("moved", version="18", extensions_wanted=("pg_fancy",))
    assert "homeport addons upgrade moved" in failed.value.fix
    bundled = next(engine for engine in yard.driver.engines.all if engine.major == 18)
    richer = yard.seeing(bundled.bin)
    system = Engine(major=18, source="system", bin=bundled.bin, extensions=bundled.extensions | {"pg_fancy"})
    richer.engines.__dict__["all"] = (*yard.driver.engines.all, system)
    assert "(system)" in richer.upgrade(found.id, "").engine
    assert folders(found) == ["data-18", "data-18-system"]
    assert whole(found)
    cluster = richer.cluster(found.id)
    assert (cluster.archive.name, cluster.archive.is_dir()) == ("archive-18-system", True)
    richer.stop(found.id)


@pytest.mark.system
def test_an_older_version_of_the_system_moves_to_the_bundled_one(yard: Yard) -> None:
    """Data of the system's PostgreSQL, with its contrib extensions, moves where they are, and stays where they are not."""
    driver = yard.seeing(*Path("/").glob("usr/lib/postgresql/*/bin"))
    choice = driver.engines.choose(Postgres(extensions_wanted=("pg_trgm",)))
    if choice.engine is None or choice.engine.major >= max(BUNDLED):
        pytest.skip("the system has no older PostgreSQL with pg_trgm")
    names = ("pg_trgm", "uuid-ossp", "citext", "hstore")
    found = yard.provision("contrib", driver, extensions_made=names)
    assert f"{choice.engine.major}" in found.engine
    assert "system" in found.engine
    with connect(found) as connection:
        for name in names:
            connection.execute(f'CREATE EXTENSION IF NOT EXISTS "{name}"'.encode())
        connection.execute("CREATE TABLE words (id uuid DEFAULT uuid_generate_v4(), word citext, more hstore)")
        connection.execute("CREATE INDEX ON words USING gin (word gin_trgm_ops)")
        connection.execute("INSERT INTO words (word, more) VALUES ('Homeport', 'a=>1')")
        assert connection.execute("SELECT word FROM words WHERE word = 'HOMEPORT' AND word % 'homepor'").fetchone() == ("Homeport",)
    with pytest.raises(AddOnFailed, match="citext, hstore, pg_trgm, uuid-ossp"):
        driver.upgrade(found.id, "18")
    with connect(found) as connection:
        connection.execute("DROP TABLE words")
        for name in names:
            connection.execute(f'DROP EXTENSION "{name}"'.encode())
        connection.execute("CREATE TABLE plain AS SELECT 1 AS n")
    again = yard.provision("contrib", driver)
    assert "18." in driver.upgrade(again.id, "18").engine
    with connect(again) as connection:
        assert connection.execute("SELECT n FROM plain").fetchone() == (1,)
