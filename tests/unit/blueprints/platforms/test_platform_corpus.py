"""Real files of hosted platforms: each is read or refused for a reason, and enough of each is acted upon."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from homeport.blueprints.registry import reader
from homeport.blueprints.source import FolderTree
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate

SHARE = {"vercel": 0.9, "netlify": 0.9, "wrangler": 0.9, "cloudflared": 0.9, "cloudbuild": 0.99, "ghworkflow": 0.99}
"""Least share of leaves honoured or approximated, over files that are no test fixtures."""


@pytest.mark.parametrize("dialect", list(SHARE))
def test_real_files(dialect: str, shared: Path) -> None:
    """Every file is recognised and read, or refused with a located problem; the share of keys acted upon is as promised."""
    found = reader(dialect)
    assert found is not None
    tree = FolderTree(shared / "corpus" / dialect)
    fates: Counter[Fate] = Counter()
    refused: list[str] = []
    rows = [json.loads(line) for line in (shared / "corpus/index.jsonl").read_text().splitlines()]
    for row in (row for row in rows if row["dialect"] == dialect):
        name = row["file"].partition("/")[2]
        assert found.recognises(name, tree.text(name) or ""), name
        try:
            reading = found.read(tree, name)
        except BlueprintInvalid as error:
            assert error.problems[0].line, name
            refused += [] if row["fixture"] else [name]
            continue
        if not row["fixture"]:
            fates.update(note.fate for note in reading.keys)
    assert (fates[Fate.HONOURED] + fates[Fate.APPROXIMATED]) / fates.total() >= SHARE[dialect]
    assert len(refused) <= 2, refused
