"""The report on a file: its shape, its completeness, and real files of every dialect."""

from __future__ import annotations

import collections
import json
from pathlib import Path

import pytest

from homeport.blueprints.document import parse_json, parse_toml, parse_yaml
from homeport.blueprints.explain import check_file, check_paths, recognise
from homeport.blueprints.registry import DIALECTS, reader, writer, writers
from homeport.blueprints.source import MemoryTree, decode
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import leaves, show_path
from homeport.model.spec import Spec

PARSERS = {".yaml": parse_yaml, ".yml": parse_yaml, ".json": parse_json, ".jsonc": parse_json, ".toml": parse_toml}
WANTED = {
    "render": 97,
    "railway": 97,
    "procfile": 97,
    "fly": 97,
    "compose": 95,
    "appjson": 95,
    "vercel": 90,
    "netlify": 90,
    "wrangler": 90,
    "cloudflared": 90,
}
"""Percent of leaves that must be honoured or approximated over real files."""


def test_the_report_has_the_promised_shape() -> None:
    """Keys, classes and names of the JSON report."""
    text = (
        "services: [{type: web, name: a, runtime: node, region: ohio, nam: x, envVars: [{key: PORT, value: 1}]}]\ndatabases: [{name: d}]\n"
    )
    report = check_file("render.yaml", text).as_json()
    assert (report["file"], report["dialect"], report["ok"], report["error"]) == ("render.yaml", "render", True, None)
    assert (report["services"], report["addons"]) == (["a"], ["d"])
    keys = report["keys"]
    assert set(keys) == {"honoured", "approximated", "ignored", "unknown"}
    assert "services[0].type" in keys["honoured"]
    assert {key["path"] for key in keys["approximated"]} == {"services[0].envVars[0].key", "services[0].envVars[0].value"}
    assert keys["ignored"][0]["path"] == "services[0].region" and keys["ignored"][0]["reason"]
    assert keys["unknown"] == [{"path": "services[0].nam", "did_you_mean": "name"}]
    json.dumps(report)


def test_a_file_that_cannot_be_read_is_reported_with_its_place() -> None:
    """The error names file, line and column, and shows a caret."""
    report = check_file("render.yaml", "services:\n  - {type: web\n")
    assert not report.ok and report.error.startswith("render.yaml:") and "^" in report.error
    assert not check_file("what.txt", "x").ok
    assert check_file("docker-compose.yml", "services: {}", dialect="kubernetes").error


@pytest.mark.parametrize(
    ("path", "text", "dialect"),
    [
        ("render.yaml", "", "render"),
        ("owner__repo__render@8c63.yaml", "", "render"),
        ("a/b/Procfile", "", "procfile"),
        ("corpus/ghworkflow/owner__repo__render.yaml", "", "ghworkflow"),
        ("compose/x.yml", "", "compose"),
        ("render/docker-compose.yml", "services: {}", "compose"),
        ("homeport.yaml", "", "homeport"),
        ("notes.txt", "", ""),
    ],
)
def test_dialects_are_recognised(path: str, text: str, dialect: str) -> None:
    """A name decides, then the text, and a folder only for collected or nameless files."""
    assert recognise(path, text) == dialect


def test_folders_are_walked_and_named_files_always_reported(tmp_path: Path) -> None:
    """A folder yields the files that a dialect knows; a file given by name is reported even when nobody knows it."""
    (tmp_path / "node_modules").mkdir()
    for name in ("render.yaml", "notes.txt", "Procfile", "node_modules/render.yaml"):
        (tmp_path / name).write_text("web: x\n")
    found = list(check_paths([tmp_path]))
    assert [Path(report.file).name for report in found] == ["Procfile", "render.yaml"]
    assert [report.ok for report in check_paths([tmp_path / "notes.txt", tmp_path / "missing"])] == [False, False]
    assert found[1].error.startswith(str(tmp_path / "render.yaml"))


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_of_the_table_has_what_the_table_says(name: str) -> None:
    """Each reader and writer of the table loads, and carries the name the table gives it."""
    entry = DIALECTS[name]
    if entry.reader:
        found = reader(name)
        assert found is not None and found.dialect == name
    if entry.writer:
        made = writer(name)
        assert made is not None and made.dialect == name and made in writers()


def _leaves(path: Path, text: str) -> list[str] | None:
    """The leaves of a file by our own parser; None for formats that the readers parse otherwise."""
    parse = PARSERS.get(Path(path.name.rsplit("__", 1)[-1]).suffix)
    return None if parse is None else [show_path(leaf) for leaf in leaves(parse(path.name, text).data)]


@pytest.mark.parametrize("dialect", [*WANTED, "cloudbuild", "ghworkflow"])
def test_every_leaf_of_every_real_file_is_in_exactly_one_class(dialect: str, shared: Path) -> None:
    """No real file crashes a reader; a file that is read accounts for each leaf once; a refusal names a place; shares are as promised."""
    counts: collections.Counter[str] = collections.Counter()
    index = [json.loads(line) for line in (shared / "corpus/index.jsonl").read_text().splitlines()]
    fixtures = {entry["file"] for entry in index if entry["fixture"]}
    one = reader(dialect)
    assert one is not None
    for path in sorted((shared / "corpus" / dialect).iterdir()):
        text = decode(path.read_bytes())
        try:
            reading = one.read(MemoryTree({path.name: text}, "app"), path.name)
        except BlueprintInvalid as error:
            assert [problem.message for problem in error.problems if problem.message], path.name
            counts["refused"] += 1
            continue
        paths = [note.path for note in reading.keys]
        expected = _leaves(path, text) if dialect not in ("compose", "procfile") else None
        if expected is not None:
            assert collections.Counter(paths) == collections.Counter(expected), path.name
        assert len(paths) == len(set(paths)), path.name
        assert all(note.reason for note in reading.keys if note.fate != "honoured"), path.name
        assert Spec.model_validate(reading.spec.canonical()) == reading.spec, path.name
        counts["read"] += 1
        if f"{dialect}/{path.name}" not in fixtures:
            counts.update(note.fate.value for note in reading.keys)
    total = sum(counts[fate] for fate in ("honoured", "approximated", "ignored", "unknown"))
    assert counts["read"] > 9 * counts["refused"]
    assert 100 * (counts["honoured"] + counts["approximated"]) >= WANTED.get(dialect, 0) * total


def test_reports_count_every_leaf() -> None:
    """The total of a report is the number of leaves."""
    report = check_file("Procfile", "web: a\nworker: b\n")
    assert report.keys.total == 2
