"""Copies of a MariaDB server's databases: a dump of one moment, a look at that very moment, and loading it into an empty server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from homeport.drivers.addons.errors import AddOnFailed, BackupFailed
from homeport.drivers.addons.keeping import socket_host
from homeport.drivers.addons.mariadb.config import ADMIN, SOCKET
from homeport.drivers.addons.mariadb.engine import Engine
from homeport.drivers.addons.servers import PATH

if TYPE_CHECKING:
    from pymysql.connections import Connection
    from pymysql.cursors import Cursor

Admin: TypeAlias = "Connection[Cursor]"
TIMEOUT = 24 * 3600.0
"""Seconds a dump or its loading may take."""
DUMP = (
    "--single-transaction", "--quick", "--routines", "--events", "--triggers", "--hex-blob", "--default-character-set=utf8mb4",
    "--skip-comments", "--add-drop-database", "--max-allowed-packet=1G",
)  # fmt: skip
HELD_FOR = 3.0
"""Seconds that commits are held at most, until the dump and the look have both begun."""
_POLL = 0.01


def take(
    engine: Engine, run: Path, password: str, databases: Sequence[object], target: Path, slug: str,
    begun: Callable[[Callable[[], bool]], None] = lambda _: None,
) -> None:  # fmt: skip
    """Write every database as of one moment to a file.

    `begun` is called once the program runs, before anything of it is read, with what tells whether it has ended.

    Raises BackupFailed; OSError when the disk refuses.
    """
    names = [str(name) for name in databases]
    with tool(engine.dump, run, *DUMP, "--databases", "--", *names) as argv, target.open("xb") as file, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            argv, env=environment(password), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        assert process.stdout is not None  # noqa: S101
        try:
            begun(lambda: process.poll() is not None)
            while data := process.stdout.read(1 << 20):
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
            code = process.wait(60)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if code != 0:
            raise BackupFailed(slug=slug, why="mariadb-dump did not come to its end.", fix="Read its last lines.", tail=_tail(errors))


class SameMoment:
    """Lets a transaction of ours and the dump begin at one moment: commits are held from before the one until after the other.

    `BACKUP STAGE BLOCK_COMMIT` waits for no query that runs, and holds nothing but the end of transactions that write
    (mariadb.com/kb, BACKUP STAGE). `holder` and `reader` are two connections; what `reader` reads afterwards is of that moment.
    """

    def __init__(self, holder: Admin, reader: Admin) -> None:
        self.holder, self.reader = holder, reader
        self.exact = False
        """Whether nothing was committed between the two."""
        self._held = False

    def begin(self) -> None:
        """Hold commits and begin the transaction of `reader`. Raises pymysql.err.Error."""
        import pymysql

        rows_of(self.holder, f"SET SESSION lock_wait_timeout = {HELD_FOR:.0f}")
        with contextlib.suppress(pymysql.err.Error):  # when it cannot be had in time, the look is of a moment of its own
            rows_of(self.holder, "BACKUP STAGE START")
            rows_of(self.holder, "BACKUP STAGE BLOCK_COMMIT")
            self._held = True
        rows_of(self.reader, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        rows_of(self.reader, "START TRANSACTION WITH CONSISTENT SNAPSHOT")

    def join(self, ended: Callable[[], bool]) -> None:
        """Wait until the dump has begun its transaction, or `ended` with it, and let commits go on. Raises pymysql.err.Error."""
        # The dump's first statement that reads a table. Not innodb_trx: it shows nothing new to who asks more often than every 0.1 s.
        query = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = %s AND info LIKE %s"
        deadline = time.monotonic() + HELD_FOR
        while self._held and not self.exact and time.monotonic() < deadline:
            self.exact = ended() or bool(rows_of(self.holder, query, ADMIN, "SELECT /*!40001 SQL_NO_CACHE%")[0][0])
            if not self.exact:
                time.sleep(_POLL)  # the server tells nobody when a transaction begins
        self.release()

    def release(self) -> None:
        """Let commits go on. Twice is once."""
        if self._held:
            self._held = False
            rows_of(self.holder, "BACKUP STAGE END")


def rows_of(admin: Admin, query: str, *values: object) -> list[tuple[Any, ...]]:
    """One statement. Raises pymysql.err.Error."""
    with admin.cursor() as cursor:
        cursor.execute(query, values or None)
        return list(cursor.fetchall())


def load(engine: Engine, run: Path, password: str, source: Path, name: str) -> None:
    """Run a dump in a server. Raises AddOnFailed."""
    options = ("--batch", "--max-allowed-packet=1G", "--default-character-set=utf8mb4")
    with tool(engine.client, run, *options) as argv, source.open("rb") as file, tempfile.TemporaryFile() as errors:
        done = subprocess.run(
            argv, env=environment(password), stdin=file, stdout=subprocess.DEVNULL, stderr=errors, timeout=TIMEOUT, check=False
        )
        if done.returncode != 0:
            raise AddOnFailed(
                name=name, what="Nothing was restored; what runs was not touched.", why="The dump could not be loaded.",
                fix="Read the last lines, and restore from another backup.", tail=_tail(errors),
            )  # fmt: skip


@contextlib.contextmanager
def tool(program: Path, run: Path, *options: str) -> Iterator[list[str]]:
    """The argument list of a tool that comes in over the server's socket; its password goes by `environment`."""
    with socket_host(run) as host:
        ours = host.replace("/self/", f"/{os.getpid()}/")  # /proc/self would be the tool's own, and the open folder is ours
        yield [str(program), "--no-defaults", f"--socket={ours}/{SOCKET}", f"--user={ADMIN}", *options]


def environment(password: str) -> dict[str, str]:
    """A tool's variables."""
    return {"PATH": PATH, "LANG": "C.UTF-8", "TZ": "UTC", "MYSQL_PWD": password}


def _tail(errors: IO[bytes]) -> list[str]:
    errors.seek(0)
    return errors.read(64 * 1024).decode(errors="replace").splitlines()[-20:]
