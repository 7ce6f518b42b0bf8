"""Source trees of hosted platforms and what is read from them, written down whole: specs, fates, errors.

Run this file as a program to write the expectations anew; read the difference before you keep it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from homeport.blueprints.discover import dialect_of
from homeport.blueprints.registry import reader
from homeport.blueprints.source import FolderTree
from homeport.model.errors import BlueprintInvalid

HERE = Path(__file__).parent
CASES = {
    "vercel-next-and-functions": "vercel.json",
    "vercel-legacy-builds": "vercel.json",
    "netlify-site": "netlify.toml",
    "wrangler-worker": "wrangler.jsonc",
    "cloudflared-tunnel": "config.yml",
    "cloudflared-broken": "config.yml",
    "workflow-broken": ".github/workflows/ci.yml",
}


def outcome(case: str) -> str:
    """What is read from a case's file, or the error as a person sees it."""
    path = CASES[case]
    tree = FolderTree(HERE / case / "source", "golden")
    dialect = dialect_of(path, tree.text(path) or "")
    assert dialect is not None, f"nobody recognises {path}"
    found = reader(dialect)
    assert found is not None
    try:
        reading = found.read(tree, path)
    except BlueprintInvalid as error:
        return error.render() + "\n"
    keys = [f"{note.fate}: {note.path}" + (f" ({note.reason})" if note.reason else "") for note in reading.keys]
    hints = {note.path: note.did_you_mean for note in reading.keys if note.did_you_mean}
    said = {"dialect": reading.dialect, "spec": reading.spec.canonical(), "keys": keys, "did_you_mean": hints, "warnings": reading.warnings}
    return json.dumps(said, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("case", list(CASES))
def test_reading_is_as_written_down(case: str) -> None:
    """The reading of the source tree is the one that was reviewed and kept."""
    assert outcome(case) == (HERE / case / "expected.txt").read_text(encoding="utf-8")


if __name__ == "__main__":
    for name in CASES:
        (HERE / name / "expected.txt").write_text(outcome(name), encoding="utf-8")
