"""Reads every real file of ../shared/corpus and runs the third-party suites; prints a table and writes it as JSON.

    python -m benchmarks.conformance [--shared ../shared] [--json FILE] [--convert]

Shares are over files that are not test fixtures of other projects. A file counts as refused when the reader names a located problem;
`crashed` counts anything else, and any crash makes the exit status 1, as does a share below the promise. Suites count skips as failures.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from homeport.blueprints.convert import convert
from homeport.blueprints.explain import check_file, keys_of
from homeport.blueprints.registry import DIALECTS, reader, writer
from homeport.blueprints.source import MemoryTree, decode
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Reading
from homeport.model.spec import Spec

REPOSITORY = Path(__file__).resolve().parents[1]
PROMISED = {
    "render": 97.0,
    "railway": 97.0,
    "procfile": 97.0,
    "fly": 97.0,
    "compose": 95.0,
    "appjson": 95.0,
    "vercel": 90.0,
    "netlify": 90.0,
    "wrangler": 90.0,
    "cloudflared": 90.0,
}
"""Percent of leaves honoured or approximated."""
SUITE_PROMISE = 99.0


@dataclass
class Row:
    """One dialect."""

    dialect: str
    files: int = 0
    real: int = 0
    """Files that are no fixtures: what the shares are about."""
    read: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    """File to reason."""
    crashed: dict[str, str] = field(default_factory=dict)
    honoured: int = 0
    approximated: int = 0
    ignored: int = 0
    unknown: int = 0
    seconds: float = 0

    @property
    def leaves(self) -> int:
        return self.honoured + self.approximated + self.ignored + self.unknown

    @property
    def share(self) -> float:
        """Percent of leaves honoured or approximated."""
        return 100.0 * (self.honoured + self.approximated) / self.leaves if self.leaves else 100.0

    def as_json(self) -> dict[str, Any]:
        per_second = round(self.files / self.seconds) if self.seconds else 0
        promised = PROMISED.get(self.dialect)
        return {**asdict(self), "leaves": self.leaves, "share": round(self.share, 2), "promised": promised, "files_per_second": per_second}


def measure(shared: Path, dialect: str, fixtures: set[str]) -> tuple[Row, list[tuple[str, Spec]]]:
    """Read and explain every file of a dialect; also the specs of real files, for converting."""
    row, specs = Row(dialect), []
    one = reader(dialect)
    if one is None:
        raise LookupError(f"the dialect {dialect} has no reader")
    files = [(path, decode(path.read_bytes())) for path in sorted((shared / "corpus" / dialect).iterdir())]
    begun = time.perf_counter()
    for path, text in files:
        row.files += 1
        real = f"{dialect}/{path.name}" not in fixtures
        row.real += real
        try:
            reading: Reading = one.read(MemoryTree({path.name: text}, "app"), path.name)
        except BlueprintInvalid as error:
            row.refused[path.name] = error.why
            continue
        except Exception as error:
            row.crashed[path.name] = f"{type(error).__name__}: {error}"[:300]
            continue
        row.read += 1
        keys = keys_of(reading)
        if real:
            row.honoured += len(keys.honoured)
            row.approximated += len(keys.approximated)
            row.ignored += len(keys.ignored)
            row.unknown += len(keys.unknown)
            specs.append((path.name, reading.spec))
    row.seconds = time.perf_counter() - begun
    return row, specs


def suites(shared: Path) -> list[dict[str, Any]]:
    """The third-party suites, run by the test folder's own runners."""
    path = REPOSITORY / "tests" / "conformance" / "compose_go.py"
    if not path.is_file():
        return []
    spec = importlib.util.spec_from_file_location("compose_go", path)
    if spec is None or spec.loader is None:
        return []
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    scores = [run(shared) for run in module.SUITES]
    return [
        {"suite": s.suite, "total": s.total, "passed": s.passed, "percent": round(s.percent, 2), "failures": s.failures} for s in scores
    ]


def conversions(specs: dict[str, list[tuple[str, Spec]]]) -> list[dict[str, Any]]:
    """Every real file written in every dialect that is written: how many, with how many losses, and what failed."""
    found = []
    for source, items in specs.items():
        for target in [name for name, entry in DIALECTS.items() if entry.writer and writer(name) is not None]:
            losses, failed = 0, {}
            for name, spec in items:
                try:
                    losses += len(convert(spec, target).losses)
                except Exception as error:
                    failed[name] = f"{type(error).__name__}: {error}"[:300]
            found.append({"from": source, "to": target, "files": len(items), "losses": losses, "failed": failed})
    return found


def corpus(shared: Path) -> tuple[list[Row], dict[str, list[tuple[str, Spec]]]]:
    """Every dialect of the corpus."""
    index = [json.loads(line) for line in (shared / "corpus/index.jsonl").read_text().splitlines() if line.strip()]
    fixtures = {entry["file"] for entry in index if entry.get("fixture")}
    rows, specs = [], {}
    for dialect in [name for name, entry in DIALECTS.items() if entry.reader and (shared / "corpus" / name).is_dir()]:
        row, specs[dialect] = measure(shared, dialect, fixtures)
        rows.append(row)
    return rows, specs


def table(rows: list[Row], scores: list[dict[str, Any]]) -> str:
    """The rows as text."""
    head = (
        "dialect",
        "files",
        "read",
        "refused",
        "crashed",
        "leaves",
        "honoured",
        "approx.",
        "ignored",
        "unknown",
        "share",
        "promised",
        "files/s",
    )
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        data = row.as_json()
        promised = f"{PROMISED[row.dialect]:.0f} %" if row.dialect in PROMISED else "-"
        counts = (
            row.files,
            row.read,
            len(row.refused),
            len(row.crashed),
            row.leaves,
            row.honoured,
            row.approximated,
            row.ignored,
            row.unknown,
        )
        lines.append((row.dialect, *map(str, counts), f"{row.share:.2f} %", promised, str(data["files_per_second"])))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )
    for score in scores:
        text += f"\n{score['suite']}: {score['passed']} of {score['total']} ({score['percent']:.2f} %)"
    return text


def refusals(rows: list[Row]) -> str:
    """Each refused or crashed file with its reason."""
    lines = [f"{row.dialect}/{name}: {reason.splitlines()[0]}" for row in rows for name, reason in {**row.refused, **row.crashed}.items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "build" / "conformance.json")
    parser.add_argument("--convert", action="store_true", help="also write every real file in every dialect")
    given = parser.parse_args()
    if not (given.shared / "corpus").is_dir():
        print(f"no corpus at {given.shared}: real files and third-party suites are not part of this repository", file=sys.stderr)
        return 2
    check_file("Procfile", "web: x\n")  # imports are no part of the speed
    rows, specs = corpus(given.shared)
    scores = suites(given.shared)
    pairs = conversions(specs) if given.convert else []
    print(table(rows, scores))
    print("\nRefused, with the reason:\n" + refusals(rows))
    if pairs:
        failed = {f"{pair['from']} -> {pair['to']}": pair["failed"] for pair in pairs if pair["failed"]}
        files = sum(pair["files"] for pair in pairs)
        print(f"\nConverted: {files} files in {len(pairs)} pairs, {sum(map(len, failed.values()))} failed")
        print("\n".join(f"{pair}: {name}: {reason}" for pair, faults in failed.items() for name, reason in faults.items()))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    result = {"dialects": [row.as_json() for row in rows], "suites": scores, "conversions": pairs}
    given.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\nWritten to {given.json}")
    below = [row.dialect for row in rows if row.crashed or row.share < PROMISED.get(row.dialect, 0)]
    below += [score["suite"] for score in scores if score["percent"] < SUITE_PROMISE]
    below += [f"{pair['from']} -> {pair['to']}" for pair in pairs if pair["failed"]]
    if below:
        print(f"Below what is promised: {', '.join(below)}", file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    raise SystemExit(main())
