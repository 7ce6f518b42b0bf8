"""Reading secrets while the vault's keys change, and what audit costs. Prints JSON.

    python benchmarks/vault.py [--seconds 10] [--values 200] [--many 10000]

One hundred reads a second are asked for at fixed moments (an open loop: a slow read does not make the next one later), half of them with a
look that is audited, while the vault key is changed again and again and the data key every two seconds. A read that fails, or gives another
value than was set, counts as failed. `open_all_ms` is what a deploy waits for to open all values for an instance.
`many` is what `homeport logs` waits for in an environment of very many variables: opening them all and making the masker (as CPU time, so
that a busy machine gives the same figure), and masking 1,000 lines.
`rekey_ms` is one change of the vault key; `audited_look_ms` includes two durable writes.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.machine import facts, percentile
from homeport.deploys.audit import AuditLog, Caller
from homeport.deploys.masking import Masker
from homeport.deploys.secrets import SecretBook
from homeport.deploys.vault import VaultCare
from homeport.drivers.vault.seal import Sealer
from homeport.model.release import PinnedSecret
from homeport.store import Store

RATE = 100
WHERE = ("shop", "production")
ME = Caller("bench", "this machine")
LINE = "2026-11-21 02:19:10 INFO app request GET /api/v1/things?x=1 200 in 12 ms user=42"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--values", type=int, default=200)
    parser.add_argument("--many", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as name:
        home = Path(name)
        store = Store.open(home)
        book = SecretBook(store, Sealer(home), AuditLog(store.audit, home))
        book.set_all(*WHERE, {f"K{number}": f"value {number}" for number in range(given.values)}, by="bench")
        many = at_once(book, given.values)
        result = {"benchmark": "vault", "machine": facts(), "values": given.values, **run(book, given.seconds, given.values), **many}
        result["many"] = masking(book, given.many)
        report = book.audit.verify()
        result["audit"] = {"rows": report.rows, "whole": report.ok}
        store.close()
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


def at_once(book: SecretBook, values: int) -> dict[str, float]:
    """What a deploy does with all values: pin them, open them for an instance, mask a line of its log; and set them all."""
    pins = [PinnedSecret(name=f"K{number}", version=1) for number in range(values)]

    def milliseconds(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        return round((time.perf_counter() - began) * 1000, 3)

    def opened() -> list[str]:
        reader = book.opener(*WHERE, pins)
        return [reader(pin) for pin in pins]

    mask = Masker(opened())
    fresh = {f"N{number}": f"value {number}" for number in range(values)}
    return {
        "open_all_ms": percentile([milliseconds(opened) for _ in range(20)], 50),
        "mask_1000_lines_ms": percentile([milliseconds(lambda: [mask(LINE) for _ in range(1000)]) for _ in range(5)], 50),
        "set_all_ms": milliseconds(lambda: book.set_all(*WHERE, fresh, by="bench")),
    }


def masking(book: SecretBook, values: int) -> dict[str, float]:
    """What reading a log costs where a release has very many values."""
    where = ("shop", "many")
    book.set_all(*where, {f"K{number}": secrets.token_urlsafe(24) for number in range(values)}, by="bench")
    pins = [PinnedSecret(name=f"K{number}", version=1) for number in range(values)]

    def cpu(work: Callable[[], object]) -> float:
        began = time.process_time()
        work()
        return (time.process_time() - began) * 1000

    opened = book.shown(*where, pins)
    mask = Masker(opened)
    return {
        "values": values,
        "open_cpu_ms": percentile([cpu(lambda: book.shown(*where, pins)) for _ in range(5)], 50),
        "masker_cpu_ms": percentile([cpu(lambda: Masker(opened)) for _ in range(5)], 50),
        "mask_1000_lines_cpu_ms": percentile([cpu(lambda: [mask(LINE) for _ in range(1000)]) for _ in range(5)], 50),
    }


def run(book: SecretBook, seconds: float, values: int) -> dict[str, object]:
    care, stop = VaultCare(book), threading.Event()
    plain: list[float] = []
    looks: list[float] = []
    failed: list[str] = []

    def read(number: int) -> None:
        began = time.perf_counter()
        key = f"K{number % values}"
        try:
            found = book.disclose(*WHERE, key, by=ME) if number % 2 else book.reveal(*WHERE, key)
        except Exception as error:
            failed.append(type(error).__name__)
            return
        if found != f"value {number % values}":
            failed.append("another value")
        (looks if number % 2 else plain).append((time.perf_counter() - began) * 1000)

    rekeys: list[float] = []
    rotations: list[float] = []

    def change() -> None:
        last = time.monotonic()
        while not stop.wait(0.02):
            began = time.perf_counter()
            care.book.sealer.rekey()
            rekeys.append((time.perf_counter() - began) * 1000)
            if time.monotonic() - last > 2:
                last, began = time.monotonic(), time.perf_counter()
                care.rotate(by=ME)
                rotations.append((time.perf_counter() - began) * 1000)

    thread = threading.Thread(target=change)
    thread.start()
    start = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        for number in range(int(seconds * RATE)):
            time.sleep(max(0.0, start + number / RATE - time.monotonic()))
            pool.submit(read, number)
    took = time.monotonic() - start
    stop.set()
    thread.join()
    return {
        "reads": len(plain) + len(looks) + len(failed),
        "reads_per_second": round((len(plain) + len(looks)) / took, 1),
        "failed": len(failed),
        "failures": sorted(set(failed)),
        "rekeys": len(rekeys),
        "data_key_rotations": len(rotations),
        "rekey_ms": {"p50": percentile(rekeys, 50), "p99": percentile(rekeys, 99)},
        "rotation_ms": {"p50": percentile(rotations, 50)},
        "read_ms": {"p50": percentile(plain, 50), "p99": percentile(plain, 99)},
        "audited_look_ms": {"p50": percentile(looks, 50), "p99": percentile(looks, 99)},
    }


if __name__ == "__main__":
    main()
