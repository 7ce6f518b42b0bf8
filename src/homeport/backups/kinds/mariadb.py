"""MariaDB: dumps, compared with what a transaction of the same moment read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from homeport.backups.kinds.base import Copier, CopyByCopy, Taken, compare
from homeport.backups.manifest import Fingerprint, TablePrint
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.mariadb import MariaDBDriver, config
from homeport.drivers.addons.mariadb.dumps import Admin, rows_of
from homeport.drivers.addons.records import Place

if TYPE_CHECKING:
    from homeport.backups.room import Room

SETTINGS = "SET SESSION time_zone = '+00:00', sql_mode = '', max_statement_time = 0"
"""What decides how a value reads as text."""
SNAPSHOTS = frozenset({"InnoDB"})
"""Engines whose tables a transaction sees as of one moment; a table of another may be written while it is copied."""


class MariaDBCopier(CopyByCopy):
    """Copies of MariaDB add-ons."""

    kind: ClassVar[str] = "mariadb"

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        import pymysql

        return (pymysql.err.Error, OSError)

    def take(self, room: Room, id: AddOnId, folder: Path) -> Taken:
        ref, databases, exact = _driver(room).back_up_reading(id, folder, contents)
        return Taken(ref=ref, fingerprint=Fingerprint(exact=exact, databases=databases))

    def read(self, room: Room, id: AddOnId) -> Fingerprint:
        with _driver(room).admin(Place(room.home, id)) as admin:
            return Fingerprint(databases=contents(admin))

    def difference(self, wanted: Fingerprint, found: Fingerprint) -> str:
        return compare(wanted, found)

    def counted(self, found: Fingerprint) -> dict[str, int]:
        return {"tables": found.tables, "rows": found.rows}


def _driver(room: Room) -> MariaDBDriver:
    driver = room.drivers["mariadb"]
    assert isinstance(driver, MariaDBDriver)  # noqa: S101 (wired so)
    return driver


def contents(admin: Admin) -> dict[str, dict[str, TablePrint]]:
    """By database, by table: rows, and a sum over a hash of each with the columns it has. Raises pymysql.err.Error."""
    rows_of(admin, SETTINGS)
    names = [str(name) for (name,) in rows_of(admin, "SHOW DATABASES") if str(name) not in config.SYSTEM_DATABASES]
    return {name: _tables(admin, name) for name in sorted(names)}


def _tables(admin: Admin, database: str) -> dict[str, TablePrint]:
    query = "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = %s AND table_type = 'BASE TABLE' ORDER BY 1"
    return {str(name): _table(admin, database, str(name), str(engine)) for name, engine in rows_of(admin, query, database)}


def _table(admin: Admin, database: str, table: str, engine: str) -> TablePrint:
    query = (
        "SELECT column_name, column_type, is_nullable, collation_name FROM information_schema.columns "
        "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position"
    )
    columns = rows_of(admin, query, database, table)
    hashes = ", ".join(f"IFNULL(MD5({config.name(str(column[0]))}), '-')" for column in columns)
    whole = f"CAST(CONV(LEFT(MD5(CONCAT_WS(',', {hashes})), 16), 16, 10) AS DECIMAL(20))"
    # Names come quoted, and from the server itself.
    count = f"SELECT COUNT(*), COALESCE(SUM({whole}), 0) FROM {config.name(database)}.{config.name(table)}"  # noqa: S608
    ((rows, total),) = rows_of(admin, count)
    shape = hashlib.blake2b(repr(columns).encode(), digest_size=8).hexdigest()
    return TablePrint(rows=int(rows), total=f"{total}-{shape}" if engine in SNAPSHOTS else "")


if TYPE_CHECKING:
    _: type[Copier] = MariaDBCopier
