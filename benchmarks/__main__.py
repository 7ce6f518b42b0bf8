"""Every benchmark, or those named, as one JSON document: `python -m benchmarks [--quick] [NAME …]`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
QUICK: dict[str, list[str]] = {
    "deploys": ["--quick"],
    "idle": ["--quick"],
    "first_run": [],
    "edge": ["--rounds", "5"],
    "addons": ["--rounds", "2", "--seconds", "1"],
    "vault": ["--seconds", "3"],
    "backups": ["--size", "10MB", "--moments", "2"],
    "forks": ["--size", "10MB"],
    "moments": ["--seconds", "10", "--moments", "5"],
}
"""What each benchmark is told when it should be short."""


def measure(name: str, quick: bool) -> dict[str, Any]:
    """Run one benchmark in a process of its own; what it printed, or why it gave nothing."""
    began = time.monotonic()
    sys.stderr.write(f"{name} …\n")
    argv = [sys.executable, "-m", f"benchmarks.{name}", *(QUICK[name] if quick else [])]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support'}"}
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=False, text=True, env=env)
    took = round(time.monotonic() - began, 1)
    if done.returncode:
        return {"failed": f"ended with exit code {done.returncode}", "took_s": took}
    return {**json.loads(done.stdout), "took_s": took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(QUICK))
    parser.add_argument("--quick", action="store_true", help="short runs: enough to see that nothing is lost, not to quote")
    given = parser.parse_args()
    wrong = [name for name in given.names if name not in QUICK]
    if wrong:
        parser.error(f"there is no benchmark {wrong[0]!r}; there are {', '.join(QUICK)}")
    found = {name: measure(name, given.quick) for name in given.names or QUICK}
    print(json.dumps({"quick": given.quick, "results": found}, indent=1))
    if any("failed" in result and isinstance(result["failed"], str) for result in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
