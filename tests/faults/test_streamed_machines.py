"""A machine with a streamed database is lost: first its control plane alone, then all of it with its disk."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest
from rooms import house_in

from homeport.backups.manifest import Moment
from homeport.backups.restoring import materialise
from homeport.backups.room import Policy
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.reach import forget
from homeport.drivers.storage.base import Target

RPO = 5.0
SEED = 20261121
ROOT = Path(__file__).resolve().parents[2]
CONTROL = f"""
import json, sys, threading, time
from datetime import timedelta
from pathlib import Path
from rooms import House, sql
from homeport.backups.room import Policy
from homeport.backups.streaming import Streams
from homeport.backups.taking import take_addon
from homeport.drivers.storage.base import Target

house = House(Path(sys.argv[1]))
house.targets[:] = [Target(name="away", kind="folder", address=sys.argv[2])]
house.postgres.ensure()
place = house.add("db")
if not house.room.policy.rpo_for:
    house.store.backups.set_policy(Policy(rpo_for={{"shop": timedelta(seconds={RPO})}}).model_dump(mode="json"))
    sql(place, "CREATE TABLE t (id serial PRIMARY KEY)")
    take_addon(house.room, place.id)
streams = Streams(house.room)
began = time.monotonic()
streams.start()
while house.postgres.covered.get(place.id.slug, 0.0) <= began:
    time.sleep(0.05)
receiver = house.postgres.receiver(place.id)
pids = [*house.postgres.cluster(place.id).server.holders(), *receiver.server.holders()]
print(json.dumps({{"url": place.credentials["web"].url, "pids": pids}}), flush=True)
threading.Event().wait()
"""


class Writer:
    """Commits row after row and knows when each was acknowledged."""

    def __init__(self, url: str) -> None:
        self.url, self.rows = url, dict[int, float]()
        self.thread = threading.Thread(target=self._run, name="writer")
        self.thread.start()

    def _run(self) -> None:
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                while True:
                    row = connection.execute("INSERT INTO t DEFAULT VALUES RETURNING id").fetchone()
                    assert row is not None
                    self.rows[row[0]] = time.monotonic()
        except psycopg.Error:
            pass  # its server was killed


def control(home: Path, away: Path) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """A control plane in a process of its own, once everything until now is on the target."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "support"), str(ROOT)])}
    process = subprocess.Popen(
        [sys.executable, "-c", CONTROL, str(home), str(away)], env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    out: IO[str] | None = process.stdout
    assert out is not None
    return process, json.loads(out.readline())


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.slow
@pytest.mark.xdist_group("backups-streaming")
@pytest.mark.timeout(180)
def test_a_lost_machine_loses_no_more_than_was_allowed(tmp_path: Path) -> None:
    """Control plane killed and started again under writes, then all killed and wiped: everything older than 5 s comes back."""
    home, away = tmp_path / "home", tmp_path / "away"
    process, said = control(home, away)
    writer = Writer(said["url"])
    process.kill()
    process.communicate()
    process, said = control(home, away)
    threading.Event().wait(random.Random(SEED).uniform(0, 2))
    gone = time.monotonic()
    kill([process.pid, *said["pids"]])
    process.communicate()
    writer.thread.join()
    key = (home / "backups" / "key").read_text()
    forget(home)
    shutil.rmtree(home)

    (tmp_path / "fresh" / "backups").mkdir(parents=True)
    (tmp_path / "fresh" / "backups" / "key").write_text(key)
    with house_in(tmp_path / "fresh") as house:
        house.store.backups.set_policy(Policy(every=timedelta(days=1)).model_dump(mode="json"))
        house.targets[:] = [Target(name="away", kind="folder", address=str(away))]
        (manifest,) = house.room.repositories()[0].manifests()
        house.room.index(manifest, ["away"])
        back = AddOnId(project="shop", environment="back", name="db")
        materialise(house.room, manifest, Moment(), back)
        with house.postgres.cluster(back).admin("shop") as admin:
            rows = {int(row[0]) for row in admin.execute("SELECT id FROM t").fetchall()}
        switching.discard(house.postgres, back)
    wanted = {row for row, at in writer.rows.items() if at <= gone - RPO}
    assert wanted <= rows
    assert rows <= {*writer.rows, max(writer.rows) + 1}, "nothing comes back that was not written"
