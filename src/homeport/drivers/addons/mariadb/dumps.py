"""Copies of a MariaDB server's databases: a dump of one moment, and loading it into an empty server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from homeport.drivers.addons.errors import AddOnFailed, BackupFailed
from homeport.drivers.addons.keeping import socket_host
from homeport.drivers.addons.mariadb.config import ADMIN, SOCKET
from homeport.drivers.addons.mariadb.engine import Engine
from homeport.drivers.addons.servers import PATH

TIMEOUT = 24 * 3600.0
"""Seconds a dump or its loading may take."""
DUMP = (
    "--single-transaction", "--quick", "--routines", "--events", "--triggers", "--hex-blob", "--default-character-set=utf8mb4",
    "--skip-comments", "--add-drop-database", "--max-allowed-packet=1G",
)  # fmt: skip


def take(engine: Engine, run: Path, password: str, databases: Sequence[object], target: Path, slug: str) -> None:
    """Write every database as of one moment to a file. Raises BackupFailed; OSError when the disk refuses."""
    names = [str(name) for name in databases]
    with tool(engine.dump, run, *DUMP, "--databases", "--", *names) as argv, target.open("xb") as file, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            argv, env=environment(password), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        assert process.stdout is not None  # noqa: S101
        try:
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
