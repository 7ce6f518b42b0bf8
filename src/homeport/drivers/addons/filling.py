"""Filling an empty database from files of the project, once: what container images do with `docker-entrypoint-initdb.d`.

Each file goes to the engine's own client on its standard input, under an account that is nobody's: such files may hold commands for a
shell. An add-on whose filling did not come to its end is made anew, so files are written for an empty database and always meet one.
"""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from homeport.drivers.addons.base import Seed
from homeport.drivers.addons.errors import FillingFailed
from homeport.drivers.addons.servers import PATH

TIMEOUT = 3600.0
"""Seconds one file may take."""
MOST = 64 << 30
"""Bytes a packed file may unpack to."""
CHUNK = 1 << 20
TOLD = 64 << 10
"""Bytes of what the client said that are kept: the end."""
_PLACE = re.compile(r"(?:<stdin>|stdin):(\d+):|at line (\d+)")


def fill(name: str, seeds: Sequence[Seed], argv: Sequence[str], env: Mapping[str, str], user: int | None) -> None:
    """Run files one after another. Raises FillingFailed with the file and line of what the engine refused."""
    for seed in seeds:
        _one(name, seed, argv, env, user)


def _one(name: str, seed: Seed, argv: Sequence[str], env: Mapping[str, str], user: int | None) -> None:
    account = {"user": user, "group": user, "extra_groups": []} if user is not None and os.geteuid() == 0 else {}
    surroundings = {"PATH": PATH, "LANG": "C.UTF-8", **env}
    with tempfile.TemporaryFile() as said, seed.file.open("rb") as raw:
        client = subprocess.Popen(  # type: ignore[call-overload]
            list(argv), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, cwd="/", env=surroundings, start_new_session=True,
            **account,
        )  # fmt: skip
        late = threading.Timer(TIMEOUT, client.kill)
        late.start()
        try:
            broken = _feed(raw, client.stdin, packed=seed.path.endswith(".gz"))
            code = client.wait()
        finally:
            late.cancel()
            client.kill()
            client.wait()
        said.seek(max(0, said.tell() - TOLD))
        lines = said.read().decode("utf-8", "replace").splitlines()
    if broken:
        raise FillingFailed(name=name, where=seed.path, why=broken, tail=lines[-10:])
    if code != 0:
        raise _refused(name, seed, lines, code)


def _feed(raw: BinaryIO, into: BinaryIO, *, packed: bool) -> str:
    """Copy a file to the client, unpacked; what is wrong with the file. A client that reads no further says why itself."""
    source = gzip.GzipFile(fileobj=raw) if packed else raw
    total = 0
    try:
        with into:
            while data := source.read(CHUNK):
                total += len(data)
                if total > MOST:
                    return f"it unpacks to more than {MOST >> 30} GiB"
                into.write(data)
    except BrokenPipeError:
        return ""
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        return f"it is no whole gzip file: {error}"
    return ""


def _refused(name: str, seed: Seed, lines: Sequence[str], code: int) -> FillingFailed:
    """The first error that the client tells, with the line of the file it is in."""
    for line in lines:
        place = _PLACE.search(line)
        if place and "ERROR" in line.upper():
            number = place[1] or place[2]
            return FillingFailed(name=name, where=f"{seed.path}:{number}", why=line[line.upper().find("ERROR") :], tail=lines[-10:])
    return FillingFailed(name=name, where=seed.path, why=lines[-1] if lines else f"the client ended with code {code}", tail=lines[-10:])


def is_seed(path: str) -> bool:
    """Whether an engine is filled from a file of this name."""
    return path.endswith((".sql", ".sql.gz"))
