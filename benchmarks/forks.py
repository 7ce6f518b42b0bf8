"""Forks of a PostgreSQL add-on, second by second: `python -m benchmarks.forks [--size 1GB] [--file-system xfs|btrfs]` prints JSON.

With `--file-system` the home lies on a new file system in a file, where blocks are shared between copies (needs root, and mkfs of that
kind); without, on the one of the temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.backups import Bench, fill, timed
from homeport.backups import settling, wal
from homeport.backups.drills import drill
from homeport.backups.forks import Forked, fork
from homeport.backups.manifest import Moment
from homeport.backups.taking import take_addon
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.files import shares_blocks
from homeport.model.addon import Postgres
from homeport.model.base import parse_size
from homeport.model.release import DeployStatus, Release, Revision
from homeport.model.spec import Spec

TRIES = 3
MKFS = {"xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"], "btrfs": ["mkfs.btrfs", "-q"]}


@contextlib.contextmanager
def file_system(kind: str, size: int, folder: Path) -> Iterator[Path]:
    """A new file system in a file, mounted."""
    image, place = folder / "image", folder / "mounted"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*MKFS[kind], str(image)], check=True, timeout=120, stdout=subprocess.DEVNULL)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, timeout=120)
    try:
        place.chmod(0o755)
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=120)


def live(bench: Bench) -> None:
    """A release that serves, so that there is something to fork."""
    store, where = bench.store, ("bench", "production")
    store.environments.ensure(*where)
    spec = Spec(name="bench", addons={"db": Postgres(database="bench", memory=512 << 20)})
    number = store.releases.reserve(*where)
    release = Release(
        id=f"r{number}", project="bench", environment="production", number=number, revision=Revision(digest="0" * 64), spec=spec,
        created_at=datetime.now(UTC),
    )  # fmt: skip
    store.releases.record(release)
    store.deploys.queue(id="d1", project="bench", environment="production", kind="deploy", request={}, actor="")
    store.deploys.change("d1", number=number)
    store.deploys.finish("d1", DeployStatus.LIVE, {})


def one(bench: Bench, number: int, moment: Moment) -> tuple[Forked, float]:
    """A fork, and the seconds until it is on the disk; gone afterwards."""
    name = f"fork{number}"
    found = fork(bench.room, "bench", "production", name, moment, actor="benchmark")
    seconds, _ = timed(lambda: settling.settle(bench.room))
    switching.discard(bench.driver, AddOnId(project="bench", environment=name, name="db"))
    bench.store.ledger.release("addon", f"bench-{name}-db")
    return found, seconds


def run(size: int, folder: Path) -> dict[str, Any]:
    bench = Bench(folder / "home")
    try:
        place = bench.provision()
        live(bench)
        fill(place, size)
        manifest = take_addon(bench.room, bench.id)
        proof = drill(bench.room, manifest)
        with psycopg.connect(place.credentials["web"].url, autocommit=True) as connection:
            connection.execute("INSERT INTO filling (text) VALUES ('after')")
        at = datetime.now(UTC)
        wal.advance(bench.room, bench.id)
        found = [one(bench, number, Moment(at=at) if number % 2 else Moment()) for number in range(TRIES)]
        best = min(found, key=lambda pair: pair[0].seconds)
        return {
            "bytes": size, "shared_blocks": shares_blocks(bench.room.made("standing")), "drill_problem": proof.problem,
            "fork_seconds": [forked.seconds for forked, _ in found], "best_seconds": best[0].seconds, "best_phases": best[0].phases,
            "settle_seconds": [round(seconds, 2) for _, seconds in found],
        }  # fmt: skip
    finally:
        bench.close()


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="1GB", help="bytes of rows")
    parser.add_argument("--file-system", choices=sorted(MKFS), help="make one of this kind for the home; needs root")
    chosen = parser.parse_args(arguments)
    size, folder = int(parse_size(chosen.size)), Path(tempfile.mkdtemp(prefix="homeport-bench-"))
    folder.chmod(0o755)
    try:
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(file_system(chosen.file_system, 8 * size + (4 << 30), folder)) if chosen.file_system else folder
            return {"forks": {"file_system": chosen.file_system or "", **run(size, place)}}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    json.dump(main(), sys.stdout, indent=1)
    sys.stdout.write("\n")
