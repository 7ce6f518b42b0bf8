"""Moving a store between databases: row by row through its own tables, so that either kind can become the other."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, text, tuple_

from homeport.store.database import Database
from homeport.store.tables import metadata

BATCH = 500
"""Rows written by one statement."""


def bring(source: Database, target: Database) -> int:
    """Make the target's tables equal to the source's; rows that were written or removed. Both have the newest schema.

    What is equal already is left as it is, so a file that is brought up to date again changes in few places. Tables that only grow (their
    key is a number that counts up) are read from their end. Raises what the databases raise.
    """
    changed = 0
    with source.engine.connect() as here, target.transaction() as there:
        for table in metadata.sorted_tables:
            changed += _grown(table, here, there) if _counts_up(table) else _compared(table, here, there)
        if not target.sqlite:
            _count_on(there)
    return changed


def empty(database: Database) -> bool:
    """Whether no table has a row."""
    with database.transaction() as db:
        return all(db.execute(select(text("1")).select_from(table).limit(1)).first() is None for table in metadata.sorted_tables)


def clear(database: Database) -> None:
    """Remove every row."""
    with database.transaction() as db:
        for table in reversed(metadata.sorted_tables):
            db.execute(delete(table))


def _counts_up(table: Table) -> bool:
    return [column.name for column in table.primary_key] == ["seq"]


def _grown(table: Table, here: Connection, there: Connection) -> int:
    """Add what is later than the last row, and remove what is earlier than the first."""
    seq = table.c.seq
    last = there.execute(select(func.max(seq))).scalar() or 0
    first = here.execute(select(func.min(seq))).scalar()
    stale = select(func.count()).select_from(table) if first is None else select(func.count()).where(seq < first)
    removed = there.execute(stale).scalar() or 0
    if removed:  # asked first: the audit log refuses to be told to forget
        there.execute(delete(table) if first is None else delete(table).where(seq < first))
    added = 0
    while rows := here.execute(select(table).where(seq > last).order_by(seq).limit(BATCH)).mappings().all():
        there.execute(insert(table), [dict(row) for row in rows])
        last, added = rows[-1]["seq"], added + len(rows)
    return added + removed


def _compared(table: Table, here: Connection, there: Connection) -> int:
    keys = [column.name for column in table.primary_key]
    wanted = {tuple(row[key] for key in keys): dict(row) for row in here.execute(select(table)).mappings()}
    known = {tuple(row[key] for key in keys): dict(row) for row in there.execute(select(table)).mappings()}
    stale = [key for key, row in known.items() if wanted.get(key) != row]
    for start in range(0, len(stale), BATCH):
        _remove(table, keys, stale[start : start + BATCH], there)
    fresh = [row for key, row in wanted.items() if known.get(key) != row]
    for start in range(0, len(fresh), BATCH):
        there.execute(insert(table), fresh[start : start + BATCH])
    return len(fresh) + sum(key not in wanted for key in stale)


def _remove(table: Table, keys: list[str], which: list[tuple[Any, ...]], there: Connection) -> None:
    there.execute(delete(table).where(tuple_(*(table.c[key] for key in keys)).in_(which)))


def _count_on(there: Connection) -> None:
    """Have PostgreSQL count on where the rows end: given numbers do not move its sequences."""
    for table in metadata.sorted_tables:
        if _counts_up(table):
            last = there.execute(select(func.max(table.c.seq))).scalar()
            if last:
                there.execute(text("SELECT setval(pg_get_serial_sequence(:name, 'seq'), :last)"), {"name": table.name, "last": last})


class Changes:
    """Tells cheaply whether a store was written to. SQLite is asked over a connection that stays open and is never written through."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None

    def mark(self) -> str:
        """Something that differs after a commit. Raises what the database raises."""
        if not self.database.sqlite:
            # What each table counted: PostgreSQL manual, The Cumulative Statistics System. It follows within a second.
            query = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_user_tables WHERE relname = ANY(:names)"
            with self.database.engine.connect() as db:
                return str(db.execute(text(query), {"names": [table.name for table in metadata.sorted_tables]}).scalar())
        with self._lock:
            if self._open is None:
                file = Path(str(self.database.engine.url.database))
                self._open = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=30, check_same_thread=False)
            return str(self._open.execute("PRAGMA data_version").fetchone()[0])

    def image(self) -> bytes:
        """The SQLite database as of one moment: what its file would be, were it at rest. Raises sqlite3.Error."""
        self.mark()
        with self._lock:
            assert self._open is not None  # noqa: S101 (a store in PostgreSQL has no file)
            return self._open.serialize()

    def close(self) -> None:
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None
