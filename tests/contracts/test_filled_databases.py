"""Databases that are filled from a project's own files, once, with the real engines."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pymysql
import pytest

from homeport.drivers.addons.base import AddOnId, AddOnRequest, Provisioned, Seed
from homeport.drivers.addons.errors import FillingFailed
from homeport.drivers.addons.mariadb import MariaDBDriver
from homeport.drivers.addons.mariadb.engine import MISSING, find
from homeport.drivers.addons.postgres import PostgresDriver
from homeport.drivers.reach import forget, reachable
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import AddOn, MariaDB, Postgres
from homeport.settings import Settings

pytestmark = pytest.mark.xdist_group("addon-filled")
ENGINES = Path(tempfile.gettempdir()) / f"homeport-test-engines-{os.getuid()}"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    found = reachable(tmp_path / "home")
    yield found
    forget(found)


def request(name: str, definition: AddOn, folder: Path, **files: str | bytes) -> AddOnRequest:
    """A request with seeds: `a_sql="…"` is a file `init/a.sql`; bytes are packed."""
    seeds = []
    for key, text in files.items():
        file = folder / key
        file.write_bytes(text.encode() if isinstance(text, str) else gzip.compress(text))
        seeds.append(Seed(path=f"init/{key.replace('_', '.')}" + ("" if isinstance(text, str) else ".gz"), file=file))
    id = AddOnId(project="shop", environment="test", name=name)
    passwords = {"": "o" * 32, "web": "w" * 32}
    return AddOnRequest(id=id, definition=definition, seeds=tuple(seeds), passwords=passwords, consumers=("web",))


def rows(found: Provisioned, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(found.credentials["web"].url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def test_a_new_postgresql_database_is_filled_once(home: Path, tmp_path: Path) -> None:
    """Files run in order as an owner who may do everything; the tables are the owner's, and later nobody may do everything any more."""
    ENGINES.mkdir(mode=0o755, exist_ok=True)
    driver = PostgresDriver(home, Toolchains(ENGINES, network=Settings.from_environment().network, search=[]), system=[])
    wanted = Postgres(version="18", database="shop")
    id = request("db", wanted, tmp_path).id
    try:
        with pytest.raises(FillingFailed) as failed:
            driver.provision(
                request("db", wanted, tmp_path, a_sql="CREATE TABLE kept (n int);", b_sql="SELECT 1;\n\nSELECT nothing_such;\n")
            )
        assert 'init/b.sql:3: ERROR:  column "nothing_such" does not exist' in failed.value.why
        whole = request(
            "db", wanted, tmp_path, a_sql="CREATE TABLE kept (n int);\nCOPY kept FROM stdin;\n1\n2\n\\.\nCREATE ROLE chief SUPERUSER;\n",
            b_sql=b"INSERT INTO kept VALUES (3);\n",
        )  # fmt: skip
        found = driver.provision(whole)
        assert rows(found, "SELECT count(*) FROM kept") == [(3,)]
        assert rows(found, "SELECT tableowner FROM pg_tables WHERE tablename = 'kept'") == [("shop",)]
        assert rows(found, "SELECT rolname FROM pg_roles WHERE rolsuper") == [("homeport_admin",)]
        assert rows(driver.provision(whole), "SELECT count(*) FROM kept") == [(3,)]
        torn = request("torn", wanted, tmp_path, a_sql=b"SELECT 1;" * 9)
        torn.seeds[0].file.write_bytes(torn.seeds[0].file.read_bytes()[:-6])
        with pytest.raises(FillingFailed, match="gzip"):
            driver.provision(torn)
    finally:
        driver.stop(id)
        driver.stop(id.model_copy(update={"name": "torn"}))
        driver.close()


def test_a_database_that_has_data_is_not_filled(home: Path, tmp_path: Path) -> None:
    """Files that come to a project later run nowhere."""
    driver = PostgresDriver(home, Toolchains(ENGINES, network=Settings.from_environment().network, search=[]), system=[])
    wanted = Postgres(version="18", database="shop")
    first = driver.provision(request("db", wanted, tmp_path))
    try:
        driver.provision(request("db", wanted, tmp_path, a_sql="CREATE TABLE late (n int);"))
        assert rows(first, "SELECT count(*) FROM pg_tables WHERE tablename = 'late'") == [(0,)]
    finally:
        driver.stop(first.id)
        driver.close()


@pytest.mark.system
@pytest.mark.skipif(find() is None, reason=MISSING)
def test_a_new_mariadb_database_is_filled_once(home: Path, tmp_path: Path) -> None:
    """The same for MariaDB: a mistake is told with file and line, and the next try begins with an empty database."""
    driver = MariaDBDriver(home)
    wanted = MariaDB(database="shop")
    id = request("db", wanted, tmp_path).id
    try:
        with pytest.raises(FillingFailed, match=r"init/b\.sql:3: ERROR"):
            driver.provision(
                request("db", wanted, tmp_path, a_sql="CREATE TABLE kept (n int);", b_sql="SELECT 1;\n\nSELECT nothing_such;\n")
            )
        found = driver.provision(
            request(
                "db", wanted, tmp_path, a_sql="CREATE TABLE kept (n int);\nCREATE DATABASE other;", b_sql=b"INSERT INTO kept VALUES (1);"
            )
        ).credentials[""]
        with pymysql.connect(host=found.host, port=found.port, user=found.user, password=found.password, database="shop") as connection:
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM kept")
                assert cursor.fetchone() == (1,)
            with connection.cursor() as cursor, pytest.raises(pymysql.err.OperationalError):
                cursor.execute("CREATE DATABASE another")
    finally:
        driver.stop(id)
        driver.close()
