"""The MariaDB of this machine: none comes with Homeport, so it is Debian's or another system package's."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from homeport.model.base import Frozen

PLACES = "/usr/sbin:/usr/libexec:/usr/bin:/usr/local/sbin:/usr/local/bin"
MISSING = "MariaDB is not installed on this machine: apt-get install mariadb-server"
OLDEST = (10, 4)
"""Version from which an account can have several passwords (`IDENTIFIED VIA … OR …`)."""


class Engine(Frozen):
    """The programs. `version` as the server tells it: `10.11.18`."""

    server: Path
    install: Path
    client: Path
    dump: Path
    upgrade: Path
    version: str

    @property
    def series(self) -> str:
        """`10.11`: what decides whether system tables have to be upgraded."""
        return ".".join(self.version.split(".")[:2])


@cache
def find(places: str = PLACES) -> Engine | None:
    """The installed MariaDB; None when there is none that can be used."""
    names = {
        "server": ("mariadbd", "mysqld"),
        "install": ("mariadb-install-db", "mysql_install_db"),
        "client": ("mariadb", "mysql"),
        "dump": ("mariadb-dump", "mysqldump"),
        "upgrade": ("mariadb-upgrade", "mysql_upgrade"),
    }
    found = {part: path for part, words in names.items() if (path := _which(words, places)) is not None}
    version = version_of(found["server"]) if len(found) == len(names) else ""
    if not version or tuple(map(int, version.split(".")[:2])) < OLDEST:
        return None
    return Engine(version=version, **found)


def _which(names: tuple[str, ...], places: str) -> Path | None:
    return next((Path(path) for name in names if (path := shutil.which(name, path=places))), None)


def version_of(program: Path) -> str:
    """`10.11.18`; empty when the program does not run or is Oracle's MySQL."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False, env={}).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"Ver (\d+\.\d+\.\d+)-MariaDB", said)
    return found[1] if found else ""
