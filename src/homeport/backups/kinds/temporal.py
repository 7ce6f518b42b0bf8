"""Temporal: copies of its SQLite database, compared before a server works on them.

A Temporal server changes its database from its first second on: it writes down that it lives, timers go off, histories past their
retention go. So what was fetched is compared to the last row before the server gets it, and afterwards that it can be read to its end.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from homeport.backups.errors import NotProven
from homeport.backups.kinds.base import Copier, CopyByCopy, Taken, compare
from homeport.backups.manifest import Fingerprint, Manifest, TablePrint
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.records import Place
from homeport.drivers.addons.temporal.database import DATABASE
from homeport.drivers.storage.parcels import ParcelDamaged

if TYPE_CHECKING:
    from homeport.backups.room import Room

NAME = "temporal"


class TemporalCopier(CopyByCopy):
    """Copies of Temporal add-ons that run here."""

    kind: ClassVar[str] = "temporal"
    errors: ClassVar[tuple[type[Exception], ...]] = (sqlite3.Error, OSError)

    def here(self, room: Room, id: AddOnId) -> bool:
        record = Place(room.home, id).read()
        return record is not None and record.source != "outside"

    def take(self, room: Room, id: AddOnId, folder: Path) -> Taken:
        ref = room.drivers[self.kind].back_up(id, folder)
        return Taken(ref=ref, fingerprint=Fingerprint(databases={NAME: tables(Path(ref.folder) / DATABASE)}))

    def look_at(self, manifest: Manifest, base: Path) -> None:
        try:
            found = Fingerprint(databases={NAME: tables(base / DATABASE)})
        except sqlite3.Error as error:
            raise ParcelDamaged(backup=manifest.id, why=f"Its database cannot be read: {error}.") from error
        if manifest.fingerprint and (problem := compare(manifest.fingerprint, found)):
            raise NotProven(backup=manifest.id, why=problem)

    def read(self, room: Room, id: AddOnId) -> Fingerprint:
        place = Place(room.home, id)
        return Fingerprint(databases={NAME: tables(place.folder / "data" / DATABASE)})

    def difference(self, wanted: Fingerprint, found: Fingerprint) -> str:
        """Contents were compared before the server began; here every table has to be there still."""
        return compare(_named(wanted), _named(found))

    def counted(self, found: Fingerprint) -> dict[str, int]:
        rows = found.databases.get(NAME, {})
        known = {"workflows": "executions", "events": "history_node"}
        return {
            "tables": found.tables, "rows": found.rows, **{word: rows[table].rows for word, table in known.items() if table in rows},
        }  # fmt: skip


def _named(print_: Fingerprint) -> Fingerprint:
    """The tables without what is in them."""
    databases = {name: dict.fromkeys(tables, TablePrint(rows=0)) for name, tables in print_.databases.items()}
    return print_.model_copy(update={"databases": databases})


def tables(file: Path) -> dict[str, TablePrint]:
    """Rows and a sum over a digest of each row, as of one moment; the file may be in use. Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, isolation_level=None, timeout=60)) as database:
        database.execute("BEGIN")
        verdict = database.execute("PRAGMA integrity_check").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(str(verdict))
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")]
        return {name: _table(database, name) for name in sorted(names)}


def _table(database: sqlite3.Connection, name: str) -> TablePrint:
    quoted = name.replace('"', '""')
    count = total = 0
    for row in database.execute(f'SELECT * FROM "{quoted}"'):  # noqa: S608 (quoted)
        digest = hashlib.blake2b(digest_size=16)
        for value in row:
            data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
            digest.update(b"b" if isinstance(value, bytes) else b"r")
            digest.update(len(data).to_bytes(8))
            digest.update(data)
        count, total = count + 1, (total + int.from_bytes(digest.digest())) % (1 << 128)
    return TablePrint(rows=count, total=f"{total:032x}")


if TYPE_CHECKING:
    _: type[Copier] = TemporalCopier
