"""What is lost of a streamed database with its machine: `python -m benchmarks.streaming [--moments 5]` prints one JSON document.

A writer commits without a pause and knows when each row was acknowledged, while the log is streamed for an allowed loss of 5 s. At random
moments everything that lies on the target is kept aside. From each of these alone the database is brought back, and the loss is the age, at
that moment, of the oldest acknowledged row that is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.backups import Bench
from homeport.backups.manifest import Manifest, Moment
from homeport.backups.restoring import materialise
from homeport.backups.room import Policy
from homeport.backups.streaming import Streams
from homeport.backups.taking import take_addon
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import Provisioned
from homeport.drivers.storage.base import Target

RPO = 5.0
SEED = 20261121


class Acknowledged:
    """Rows with the moment at which each was acknowledged."""

    def __init__(self, place: Provisioned) -> None:
        self.place, self.rows = place, dict[int, float]()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, name="writer")

    def _run(self) -> None:
        with psycopg.connect(self.place.credentials["web"].url, autocommit=True) as connection:
            while not self.stop.is_set():
                row = connection.execute("INSERT INTO streamed (note) VALUES (repeat('x', 200)) RETURNING id").fetchone()
                assert row is not None
                self.rows[row[0]] = time.monotonic()


def keep_aside(shelf: Path, aside: Path) -> float:
    """Link all that lies on a target at one moment; that moment. An object that is replaced meanwhile has the next listing."""
    while True:
        at = time.monotonic()
        shutil.rmtree(aside, ignore_errors=True)
        try:
            shutil.copytree(shelf, aside, copy_function=os.link, ignore=shutil.ignore_patterns(".*"))
            return at
        except (shutil.Error, FileNotFoundError):
            continue


def lost(bench: Bench, manifest: Manifest, writer: Acknowledged, aside: Path, at: float) -> float:
    """Seconds of changes that are missing in what a target gives back."""
    bench.targets[:] = [Target(name="local", kind="folder", address=str(aside))]
    scratch = bench.room.scratch_id(manifest.addon)
    materialise(bench.room, manifest, Moment(), scratch)
    try:
        with bench.room.postgres.cluster(scratch).admin("bench") as admin:
            back = {int(row[0]) for row in admin.execute("SELECT id FROM streamed").fetchall()}
    finally:
        switching.discard(bench.room.postgres, scratch)
    return max((at - moment for row, moment in writer.rows.items() if moment <= at and row not in back), default=0.0)


def measure(moments: int) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="homeport-bench-"))
    folder.chmod(0o755)
    bench = Bench(folder / "home")
    try:
        place = bench.provision()
        with psycopg.connect(place.credentials["web"].url, autocommit=True) as connection:
            connection.execute("CREATE TABLE streamed (id bigserial PRIMARY KEY, note text)")
        manifest = take_addon(bench.room, place.id)
        bench.store.backups.set_policy(Policy(rpo=timedelta(seconds=RPO)).model_dump(mode="json"))
        streams, writer = Streams(bench.room), Acknowledged(place)
        streams.look()
        streams.start()
        writer.thread.start()
        chance, found = random.Random(SEED), []
        try:
            for number in range(moments):
                threading.Event().wait(chance.uniform(3, 6))
                found.append((folder / f"aside-{number}", keep_aside(bench.home / "backups" / "local", folder / f"aside-{number}")))
        finally:
            streams.stop()
            writer.stop.set()
            writer.thread.join()
        losses = [lost(bench, manifest, writer, aside, at) for aside, at in found]
        return {
            "rpo_streaming_seconds": round(max(losses), 2), "rpo_streaming_each": [round(loss, 2) for loss in losses],
            "rpo_streaming_allowed": RPO, "rpo_streaming_rows": len(writer.rows), "rpo_streaming_seed": SEED,
        }  # fmt: skip
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=5)
    return {"streaming": measure(parser.parse_args(arguments).moments)}


if __name__ == "__main__":
    json.dump(main(), sys.stdout, indent=1)
    sys.stdout.write("\n")
