"""Consecutive deploys and rollbacks of a small web service under steady load: what visitors lost, and how long each took. Prints JSON.

    PYTHONPATH=tests/support python benchmarks/deploys.py [--deploys 100] [--rollbacks 30] [--rate 600] [--quick]

Visitors read and post over kept and fresh connections at a fixed rate; one slow request of 5 s, one stream of server-sent events and one
WebSocket are in flight all the time. Nothing is retried: every request without a whole 2xx answer counts as failed. `live` is the time
from starting the command to the first answer of the new version through the edge, asked for every 5 ms; `command` is the time until the
command ended. Rollbacks happen with the source folder, the stored sources and the build cache removed and the toolchains renamed; `warm`
goes to the release before, whose instance still runs, `cold` to an older one.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench_apps import NODE, BenchApp
from homes import Home, home_in, outside_tmp
from traffic import Traffic

from benchmarks.machine import facts, spread

TARGETS = {"live_p50": 1.5, "live_p99": 4.0, "rollback_p50": 0.7, "rollback_p99": 2.0}
"""Seconds, from the project's own list of figures."""


def first_answer(home: Home, host: str, version: str, found: list[float], stop: threading.Event) -> None:
    """Ask for the version every 5 ms until the new one answers, and note when."""
    while not stop.wait(0.005):
        connection = http.client.HTTPConnection("127.0.0.1", home.edge_port, timeout=10)
        try:
            connection.request("GET", "/version", headers={"Host": host, "Connection": "close"})
            if connection.getresponse().read().decode().strip() == version:
                found.append(time.monotonic())
                return
        except OSError:
            continue
        finally:
            connection.close()


def timed(home: Home, host: str, version: str, *arguments: str) -> tuple[float, float, dict[str, Any]]:
    """Run a command; seconds until the version answers, until the command ended, and what it printed."""
    found: list[float] = []
    stop = threading.Event()
    asking = threading.Thread(target=first_answer, args=(home, host, version, found, stop))
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "homeport", *arguments, "--json"], env=home.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    asking.start()
    out, errors = process.communicate(timeout=120)
    ended = time.monotonic()
    asking.join(5)
    stop.set()
    if process.returncode or not found:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}\n{out}\n{errors}\n{home.log()}")
    return found[0] - began, ended - began, json.loads(out)


def deploys(home: Home, app: BenchApp, count: int, pause: float) -> dict[str, Any]:
    live, command, own, probes = [], [], [], []
    for number in range(2, count + 2):
        due = time.monotonic() + pause
        app.version(f"v{number}")
        seconds, whole, result = timed(home, app.host, f"v{number}", "up", str(app.folder))
        live.append(seconds)
        command.append(whole)
        own.append(result["seconds"])
        probes.append(result["probe"])
        time.sleep(max(0.0, due - time.monotonic()))
    probe = {"requests": sum(p["requests"] for p in probes), "failed": sum(p["failed"] for p in probes)}
    return {"live": spread(live), "command": spread(command), "as_reported": spread(own), "probe": probe}


def rollbacks(home: Home, app: BenchApp, count: int) -> dict[str, Any]:
    shutil.rmtree(app.folder)
    for name in ("sources", "layers", "cache"):
        shutil.rmtree(home.path / name, ignore_errors=True)
    (home.path / "toolchains").rename(home.path / "toolchains.gone")
    releases = sorted(r["id"] for r in home.json("releases", "-p", app.name) if r["live_at"])
    numbers = sorted(int(id[1:]) for id in releases)[-8:]
    cold: list[float] = []
    warm: list[float] = []
    wall: list[float] = []
    before = at = numbers[-1]
    for turn in range(count):
        if turn % 2:
            target, kind = before, warm
        else:
            older = [n for n in numbers if n != at]
            target, kind = older[turn // 2 % len(older)], cold
        seconds, whole, _ = timed(home, app.host, f"v{target}", "rollback", f"r{target}", "-p", app.name)
        kind.append(seconds)
        wall.append(whole)
        before, at = at, target
    return {"live": spread(cold + warm), "warm": spread(warm), "cold": spread(cold), "command": spread(wall)}


def run(count: int, back: int, rate: float, pause: float) -> dict[str, Any]:
    """The whole measurement."""
    once = outside_tmp()
    folder = Path(tempfile.mkdtemp(prefix="homeport-bench-"))
    try:
        with home_in(folder / "home") as home:
            app = BenchApp(folder / "bench", language=NODE, watch=60)
            app.web["env"] = {"ONCE_FILE": str(once / "once.txt")}
            app.write()
            home.serve()
            home.up(app.folder)
            with Traffic(home.edge_port, app.host, threads=8, rate=rate, streams=True) as traffic:
                time.sleep(1)
                measured = deploys(home, app, count, pause)
                back_measured = rollbacks(home, app, back)
                time.sleep(1)
            ran = (once / "once.txt").read_text().split()
        tally, streams = traffic.tally, traffic.streams
        lost = len(tally.posted - set(ran))
        return {
            "deploys": measured,
            "rollbacks": back_measured,
            "visitors": {
                "requests": tally.requests,
                "failed": tally.failed,
                "errors": dict(tally.errors),
                "posts": tally.posts,
                "posts_executed_twice": len(ran) - len(set(ran)),
                "posts_answered_and_not_executed": lost,
                "slowest_s": round(tally.slowest, 3),
                "streams": {**asdict(streams), "errors": dict(streams.errors)},
            },
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(once, ignore_errors=True)


def verdicts(found: dict[str, Any]) -> dict[str, bool]:
    """Each figure against its target."""
    visitors = found["visitors"]
    return {
        "no request failed": visitors["failed"] == 0 and visitors["streams"]["slow_failed"] == 0,
        "no POST executed twice": visitors["posts_executed_twice"] == 0,
        "live p50": found["deploys"]["live"]["p50"] <= TARGETS["live_p50"],
        "live p99": found["deploys"]["live"]["p99"] <= TARGETS["live_p99"],
        "rollback p50": found["rollbacks"]["live"]["p50"] <= TARGETS["rollback_p50"],
        "rollback p99": found["rollbacks"]["live"]["p99"] <= TARGETS["rollback_p99"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--deploys", type=int, default=100)
    parser.add_argument("--rollbacks", type=int, default=30)
    parser.add_argument("--rate", type=float, default=600.0, help="requests a second")
    parser.add_argument("--pause", type=float, default=1.8, help="seconds a deploy takes at least, so that enough requests meet each")
    parser.add_argument("--quick", action="store_true", help="10 deploys, 6 rollbacks")
    given = parser.parse_args()
    machine = facts()
    count, back = (10, 6) if given.quick else (given.deploys, given.rollbacks)
    found = run(count, back, given.rate, given.pause)
    print(json.dumps({"benchmark": "deploys", "machine": machine, **found, "targets": TARGETS, "met": verdicts(found)}, indent=1))


if __name__ == "__main__":
    main()
