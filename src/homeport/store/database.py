"""One database: connections, pragmas, migrations."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import OperationalError

from homeport.model.errors import HomeportError, disk_full

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0003"
"""The newest migration; a test compares it with the folder."""
SCHEMA = MIGRATIONS / "schema.sql"
"""What the migrations make of an empty SQLite database; a test compares them. An empty store is made from it: Alembic, once loaded, takes
8 MB as long as the process lives."""


class StoreUnavailable(HomeportError):
    """The control plane's own database cannot be used."""

    code = "store-unavailable"


def private(path: Path) -> None:
    """Make a database's file, if need be, and let nobody else read it. SQLite gives the files beside it the same mode."""
    path.touch(mode=0o600)
    for file in (path, *(path.with_name(path.name + ending) for ending in ("-wal", "-shm"))):
        if file.exists():
            file.chmod(0o600)


def no_room(error: BaseException) -> bool:
    """Whether a database (SQLite's SQLITE_FULL, PostgreSQL's 53100) or the system found no room on the disk."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    found = getattr(error, "orig", error)
    return "database or disk is full" in str(found) or getattr(found, "sqlstate", "") == "53100"


class Database:
    """A pool of connections to SQLite (WAL, FULL sync) or PostgreSQL."""

    def __init__(self, url: str) -> None:
        self.url = url
        if url.startswith(("postgres://", "postgresql://")):
            url = "postgresql+psycopg://" + url.split("://", 1)[1]
        self.sqlite = url.startswith("sqlite")
        arguments: dict[str, Any] = (
            {"connect_args": {"timeout": 30, "check_same_thread": False}} if self.sqlite else {"pool_pre_ping": True}
        )
        self.engine: Engine = create_engine(url, pool_size=8, max_overflow=8, **arguments)
        if self.sqlite:
            event.listen(self.engine, "connect", _sqlite_pragmas)
            event.listen(self.engine, "begin", _sqlite_begin)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction, durable when the block ends. Nothing is written when it raises. Raises DiskFull."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except OperationalError as error:
            if no_room(error):
                raise disk_full() from error
            raise

    def migrate(self) -> None:
        """Bring the schema to `HEAD`. Already there: one query. Raises StoreUnavailable."""
        try:
            if self.sqlite and self.engine.url.database:
                private(Path(self.engine.url.database))
            with self.engine.connect() as connection:
                known = inspect(connection).has_table("alembic_version")
                current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if known else None
            if self.sqlite and not known:
                self._make()
            elif current != HEAD:
                self.upgrade()
        except Exception as error:
            raise StoreUnavailable(
                what="The control plane did not start; applications that run keep running.",
                why=f"Its database cannot be opened or brought to schema {HEAD}: {type(error).__name__}.",
                fix="Check that the disk has space and the home folder is writable, or that HOMEPORT_DATABASE_URL is right.",
            ) from error

    def _make(self) -> None:
        """Make an empty store, unless another process did meanwhile."""
        with self.engine.begin() as connection:
            if not inspect(connection).has_table("alembic_version"):
                for statement in SCHEMA.read_text(encoding="utf-8").split("\n\n")[1:]:
                    connection.exec_driver_sql(statement)

    def upgrade(self) -> None:
        """Run the migrations that the database does not have."""
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        self.engine.dispose()


def _sqlite_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=30000",
        "temp_store=MEMORY",
        "cache_size=-2000",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _sqlite_begin(connection: Connection) -> None:
    # IMMEDIATE takes the write lock at once, so two transactions never deadlock when both upgrade from a read.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
