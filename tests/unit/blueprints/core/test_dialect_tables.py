"""The generated table of dialects: complete, current, and true."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[4]
sys.path.insert(0, str(REPOSITORY))

from tools.dialects import PAGE, SPECIMENS, general, notes_of, page, rows  # noqa: E402

from homeport.blueprints.registry import DIALECTS  # noqa: E402

SCHEMAS = {
    "render": "render.yaml.json",
    "railway": "railway.derived.json",
    "fly": "fly.schemastore.json",
    "compose": "compose-spec.json",
    "cloudbuild": "cloudbuild.json",
}
NOT_KEYS = {"railway": {"$schema"}, "fly": {"experimental"}}


def test_the_page_is_current() -> None:
    """docs/reference/dialects.md is what the readers say today."""
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


@pytest.mark.parametrize("dialect", sorted(path.name for path in SPECIMENS.iterdir()))
def test_no_key_of_a_specimen_is_unknown(dialect: str) -> None:
    """Readers know every key that their table lists."""
    assert [note.path for note in notes_of(dialect) if note.fate == "unknown"] == []
    assert all(remark for _, fate, remark in rows(dialect) if fate != "honoured")


def test_every_dialect_that_is_read_has_a_table() -> None:
    """Each reader has a specimen, but for homeport.yaml, whose keys are the model's, and detection, which reads no file."""
    read = {name for name, entry in DIALECTS.items() if entry.reader}
    assert read - {path.name for path in SPECIMENS.iterdir()} <= {"homeport", "detect", "kubernetes", "cloudrun"}


@pytest.mark.parametrize("dialect", SCHEMAS)
def test_every_key_of_the_schema_is_in_the_table(dialect: str, shared: Path) -> None:
    """Each property that the platform's schema names occurs in the table."""
    listed = {part for key, _, _ in rows(dialect) for part in re.findall(r"[^.\[\]]+", key)}
    wanted = set(_properties(json.loads((shared / "schemas" / SCHEMAS[dialect]).read_text())))
    assert wanted - listed - NOT_KEYS.get(dialect, set()) == set()


def _properties(node: Any) -> list[str]:
    found: list[str] = []
    if isinstance(node, dict):
        properties = node.get("properties")
        if isinstance(properties, dict):
            found += properties
        for value in node.values():
            found += _properties(value)
    elif isinstance(node, list):
        for value in node:
            found += _properties(value)
    return found


def test_paths_are_generalised() -> None:
    """List positions and names of the user's choice are no part of a key."""
    assert general("compose", "services.built.ports[3].target") == "services.*.ports[].target"
    assert general("appjson", "env.SECRET.value") == "env.*.value"
    assert general("netlify", "context.any.command") == "context.*.command"
    assert general("procfile", "clock") == "*" and general("procfile", "web") == "web"
