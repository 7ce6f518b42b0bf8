"""What Homeport costs while nothing happens: memory and processor time of everything it runs with one deployed service. Prints JSON.

    PYTHONPATH=tests/support python benchmarks/idle.py [--seconds 60] [--quick]

The service's own process is not counted. `pss` shares pages between the processes that map them (proc_pid_smaps(5)) and is what removing
Homeport would free; `rss` counts shared pages in each process. `after_deploy` is the control plane that has just built and deployed,
`after_restart` a fresh one that found the service running.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from bench_apps import NODE, BenchApp
from homes import Home, home_in

from benchmarks.machine import facts

MAX_MEMORY_MB, MAX_CPU_PERCENT = 150.0, 0.5
"""From the project's own list of figures."""

QUIET_AFTER = 132.0
"""Seconds after a deploy or a start in which interrupted work is looked for, and the platform copies itself and proves the copy."""


def own_processes(home: Home) -> dict[int, str]:
    """Everything of the home but what runs in an instance's folder."""
    found = {}
    for pid, command in home.processes().items():
        with contextlib.suppress(OSError):
            if "instances" not in Path(f"/proc/{pid}/cwd").readlink().parts:
                found[pid] = command
    return found


def pss(pid: int) -> int:
    """Bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def cpu(pids: list[int]) -> float:
    """Processor seconds so far."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def look(home: Home, seconds: float) -> dict[str, Any]:
    """Wait until it is quiet, then look for so many seconds."""
    time.sleep(min(QUIET_AFTER, 2.2 * seconds))
    pids = list(own_processes(home))
    used, began = cpu(pids), time.monotonic()
    time.sleep(seconds)
    percent = 100 * (cpu(pids) - used) / (time.monotonic() - began)
    own = own_processes(home)
    kind = {pid: "control plane" if "homeport" in command else "edge" for pid, command in own.items()}
    parts = {f"{kind[pid]} {pid}": round(pss(pid) / 2**20, 1) for pid in sorted(own)}
    return {
        "pss_mb": round(sum(pss(pid) for pid in own) / 2**20, 1),
        "rss_mb": round(sum(psutil.Process(pid).memory_info().rss for pid in own) / 2**20, 1),
        "cpu_percent": round(percent, 2),
        "seconds": seconds,
        "pss_mb_by_process": parts,
    }


def run(seconds: float) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="homeport-bench-"))
    try:
        with home_in(folder / "home") as home:
            app = BenchApp(folder / "bench", language=NODE)
            home.serve()
            home.up(app.folder)
            deployed = look(home, seconds)
            home.kill()
            home.serve()
            return {"after_deploy": deployed, "after_restart": look(home, seconds)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--quick", action="store_true", help="look for 10 s")
    given = parser.parse_args()
    machine = facts()
    found = run(10 if given.quick else given.seconds)
    met = {
        f"{name} {what}": bool(value)
        for name, seen in found.items()
        for what, value in (("memory", seen["pss_mb"] <= MAX_MEMORY_MB), ("cpu", seen["cpu_percent"] <= MAX_CPU_PERCENT))
    }
    targets = {"pss_mb": MAX_MEMORY_MB, "cpu_percent": MAX_CPU_PERCENT}
    print(json.dumps({"benchmark": "idle", "machine": machine, **found, "targets": targets, "met": met}, indent=1))


if __name__ == "__main__":
    main()
