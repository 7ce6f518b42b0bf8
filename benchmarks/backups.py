"""Backups, restores and forks of a PostgreSQL add-on: `python -m benchmarks.backups [--size 1GB]` prints one JSON document."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from homeport.backups import recovering, wal
from homeport.backups.drills import drill
from homeport.backups.keeper import SHIP_EVERY
from homeport.backups.manifest import Moment
from homeport.backups.restoring import choose, materialise, restore_in_place
from homeport.backups.room import Room
from homeport.backups.taking import take_addon
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import AddOnId, AddOnRequest, Provisioned
from homeport.drivers.addons.postgres import PostgresDriver
from homeport.drivers.addons.postgres.settings import Tuning
from homeport.drivers.addons.records import records
from homeport.drivers.reach import forget, reachable
from homeport.drivers.storage.base import Target
from homeport.drivers.storage.opening import open_target
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import Postgres
from homeport.model.base import parse_size
from homeport.settings import Settings
from homeport.store import Store

ROW = 1000
"""Bytes of a row; half of them compress, as text and numbers do."""
ENGINES = Path(tempfile.gettempdir()) / f"homeport-bench-engines-{os.getuid()}"


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.monotonic()
    found = work()
    return round(time.monotonic() - began, 2), found


class Bench:
    """A home with one database."""

    def __init__(self, folder: Path) -> None:
        self.home = reachable(folder)
        ENGINES.mkdir(mode=0o755, exist_ok=True)
        tools = Toolchains(ENGINES, network=Settings.from_environment().network)
        self.store = Store.open(self.home)
        self.driver = PostgresDriver(self.home, tools)
        self.room = Room(
            self.home, self.store, {"postgres": self.driver}, recovering.Alone([secrets.token_bytes(32)]),
            lambda target: open_target(target, self.room.made("targets"), tools), lambda: self.targets,
        )  # fmt: skip
        self.targets: list[Target] = []
        self.id = AddOnId(project="bench", environment="production", name="db")

    def provision(self) -> Provisioned:
        definition = Postgres(database="bench", memory=512 << 20)
        found = self.driver.provision(
            AddOnRequest(id=self.id, definition=definition, consumers=("web",), passwords={"": "b" * 32, "web": "b" * 32})
        )
        self.store.ledger.claim("addon", self.id.slug, "bench/production", addon="db", engine="postgres")
        return found

    def close(self) -> None:
        for record in list(records(self.home)):
            self.driver.stop(record.id)
        self.driver.close()
        self.store.close()
        forget(self.home)


def fill(place: Provisioned, size: int) -> None:
    """Rows of which half is random and half repeats."""
    with psycopg.connect(place.credentials["web"].url) as connection:
        connection.execute("CREATE TABLE filling (id bigserial PRIMARY KEY, noise bytea, text text)")
        connection.execute(
            "INSERT INTO filling (noise, text) SELECT (SELECT decode(string_agg(md5(random()::text || i || g), ''), 'hex') "
            "FROM generate_series(1, 30) i), repeat('homeport ', 50) FROM generate_series(1, %s) g",
            [max(1, size // ROW)],
        )
    with psycopg.connect(place.credentials["web"].url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE filling")  # as autovacuum does within a minute: else the first reader writes it all once more


def loss_window(bench: Bench, place: Provisioned, tries: int) -> float:
    """Longest time from a commit to its segment on the target, when segments are finished at once: what shipping adds."""
    worst = 0.0
    for _ in range(tries):
        with psycopg.connect(place.credentials["web"].url, autocommit=True) as connection:
            connection.execute("INSERT INTO filling (text) VALUES ('late')")
        seconds, _ = timed(lambda: wal.flush(bench.room, bench.id))
        worst = max(worst, seconds)
    return worst


def run(size: int) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="homeport-bench-"))
    folder.chmod(0o755)
    bench = Bench(folder / "home")
    try:
        place = bench.provision()
        fill(place, size)
        taken, manifest = timed(lambda: take_addon(bench.room, bench.id))
        proof = drill(bench.room, manifest)
        with psycopg.connect(place.credentials["web"].url, autocommit=True) as connection:
            connection.execute("INSERT INTO filling (text) VALUES ('after')")
        at = datetime.now(UTC)
        wal.advance(bench.room, bench.id)
        fork = AddOnId(project="bench", environment="fork", name="db")
        forked, _ = timed(lambda: materialise(bench.room, choose(bench.room, bench.id, Moment(at=at)), Moment(at=at), fork))
        switching.discard(bench.driver, fork)
        restored, done = timed(lambda: restore_in_place(bench.room, bench.id, Moment(at=at)))
        take_addon(bench.room, bench.id)
        shipped = loss_window(bench, place, 5)
        waits = Tuning.model_fields["archive_timeout"].default
        return {
            "bytes": size, "backup_seconds": taken, "backup_bytes": manifest.size, "plain_bytes": manifest.plain,
            "drill_seconds": proof.seconds, "drill_problem": proof.problem, "restore_seconds": restored, "restore_rows": done.rows,
            "fork_seconds": forked, "ship_seconds_worst": shipped, "rpo_seconds": round(waits + SHIP_EVERY + shipped, 1),
        }  # fmt: skip
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="1GB", help="bytes of rows")
    parser.add_argument("--moments", type=int, default=5, help="moments at which a streamed database is lost")
    chosen = parser.parse_args(arguments)
    from benchmarks import streaming

    return {"backups": {**run(int(parse_size(chosen.size))), **streaming.measure(chosen.moments)}}


if __name__ == "__main__":
    json.dump(main(), sys.stdout, indent=1)
    sys.stdout.write("\n")
