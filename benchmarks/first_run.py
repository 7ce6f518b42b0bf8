"""From `git clone` to the live example, every second accounted for. Prints JSON.

    PYTHONPATH=tests/support python benchmarks/first_run.py [--app examples/heady-manager]

Nothing is cached from before: a fresh clone, a fresh virtual environment, an empty uv cache, an empty npm cache and an empty home. The
phases of the deploy come from its own progress log; `unaccounted` is what no phase covers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from homes import Home

from benchmarks.machine import REPOSITORY, facts


class Clock:
    """Seconds by phase, in order."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, float]] = []
        self.began = self.last = time.time()

    def note(self, name: str, until: float | None = None) -> None:
        now = time.time() if until is None else until
        self.phases.append((name, round(now - self.last, 2)))
        self.last = now


def run(app: str) -> dict[str, Any]:
    """The whole way."""
    folder = Path(tempfile.mkdtemp(prefix="homeport-bench-"))
    home = Home(folder / "home")
    tree = folder / "homeport"
    env = {
        **home.env,
        "UV_CACHE_DIR": str(folder / "uv-cache"),
        "npm_config_cache": str(folder / "npm-cache"),
        "HOME": str(folder / "user"),
    }
    env = {name: value for name, value in env.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    (folder / "user").mkdir()

    def do(*argv: str, cwd: Path = tree) -> None:
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(argv)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}\n{home.log()}")

    clock = Clock()
    try:
        do("git", "clone", "-q", str(REPOSITORY), str(tree), cwd=folder)
        clock.note("git clone")
        do("make", ".venv/bin/uv")
        clock.note("virtual environment with uv")
        do("make", "install")
        clock.note("Homeport and what it needs, from the lock file")
        started = clock.last
        do("make", "up", f"APP={app}")
        ended = time.time()
        _deploy(clock, home, started)
        clock.note("summary, and the command's own end", ended)
        total = ended - clock.began
        covered = sum(seconds for _, seconds in clock.phases)
        answer = home.get(_first_host(home), "/")
        return {
            "total_s": round(total, 2),
            "phases": [{"phase": name, "seconds": seconds} for name, seconds in clock.phases],
            "unaccounted_s": round(total - covered, 2),
            "first_page": answer.status,
            "bytes": {"virtual_environment": _size(tree / ".venv"), "home": _size(home.path)},
        }
    finally:
        home.close()
        shutil.rmtree(folder, ignore_errors=True)


def _deploy(clock: Clock, home: Home, started: float) -> None:
    """The phases of `make up`, read from the first deploy's progress log."""
    log = next((home.path / "deploys").glob("*.jsonl"))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [(line["text"], _moment(line["at"])) for line in lines if line["kind"] == "step"]
    assert started <= steps[0][1]
    clock.note("the command and the control plane start", steps[0][1])
    for (text, _), (_, following) in itertools.pairwise(steps):
        clock.note(f"deploy: {text.lower()}", following)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _first_host(home: Home) -> str:
    rows = home.json("status", "--all")
    urls = [s["url"] for row in (rows if isinstance(rows, list) else [rows]) for s in row["services"] if s["url"]]
    return str(urls[0]).removeprefix("http://").rsplit(":", 1)[0]


def _size(folder: Path) -> int:
    return sum(os.lstat(Path(here, name)).st_size for here, _, names in os.walk(folder) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--app", default="examples/heady-manager")
    given = parser.parse_args()
    machine = facts()
    print(json.dumps({"benchmark": "first-run", "machine": machine, "app": given.app, **run(given.app)}, indent=1))


if __name__ == "__main__":
    main()
