"""The Compose reader and writer over third-party suites and real files."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import sys
import time
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml

from homeport.blueprints.compose import ComposeReader, ComposeWriter
from homeport.blueprints.compose.keys import key_table
from homeport.blueprints.compose.tree import parse_compose
from homeport.blueprints.compose.writer import dump
from homeport.blueprints.source import MemoryTree, decode
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading, leaves, show_path
from homeport.model.reading import Path as KeyPath


def _suites() -> ModuleType:
    file = Path(__file__).resolve().parents[3] / "conformance/compose_go.py"
    spec = importlib.util.spec_from_file_location("conformance_compose_go", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SUITES = _suites()
Corpus = list[tuple[str, str, Reading]]


@cache
def _load(folder: Path) -> tuple[Corpus, list[tuple[str, BlueprintInvalid]]]:
    good: Corpus = []
    refused = []
    for file in sorted(folder.iterdir()):
        text = decode(file.read_bytes())
        try:
            good.append((file.name, text, ComposeReader().read(MemoryTree({file.name: text}), file.name)))
        except BlueprintInvalid as error:
            refused.append((file.name, error))
    return good, refused


@pytest.fixture(scope="module")
def corpus(shared: Path) -> Corpus:
    return _load(shared / "corpus/compose")[0]


@pytest.mark.parametrize("runner", SUITES.SUITES, ids=lambda runner: str(runner.__name__))
def test_third_party_suites_pass(runner: Any, shared: Path) -> None:
    """compose-go's tables and docker compose's fixtures: at least 99 %, each failure named."""
    score = runner(shared)
    assert score.total
    assert score.percent >= 99, score.failures


def test_every_refusal_of_a_real_file_says_where(shared: Path) -> None:
    """Few real files are refused, and each with the line of its cause."""
    good, refused = _load(shared / "corpus/compose")
    assert len(refused) <= 0.05 * len(good)
    assert all(problem.line for _, error in refused for problem in error.problems)


def test_every_leaf_of_every_file_is_accounted_for(corpus: Corpus) -> None:
    """The account has exactly the leaves of the parsed file, in its order."""
    for name, text, reading in corpus:
        data = parse_compose(name, text)[0].data
        assert [note.path for note in reading.keys] == [show_path(leaf) for leaf in leaves(data)], name
        assert all(note.reason for note in reading.keys if note.fate is not Fate.HONOURED)


def test_nearly_all_leaves_of_real_files_are_honoured_or_approximated(corpus: Corpus, shared: Path) -> None:
    """At least 95 % over the files that are no fixtures."""
    rows = map(json.loads, (shared / "corpus/index.jsonl").read_text().splitlines())
    fixtures = {row["file"].split("/")[-1] for row in rows if row["fixture"]}
    notes = [note for name, _, reading in corpus if name not in fixtures for note in reading.keys]
    acted = sum(note.fate in (Fate.HONOURED, Fate.APPROXIMATED) for note in notes)
    assert acted >= 0.95 * len(notes)


def test_real_files_are_recognised(corpus: Corpus) -> None:
    """Name or content tells each for what it is."""
    assert all(ComposeReader().recognises(name, text) for name, text, _ in corpus)


def test_real_files_are_written_validly_and_read_back_unchanged(corpus: Corpus, shared: Path) -> None:
    """The written file follows the official schema and gives the same spec."""
    schema = jsonschema.Draft202012Validator(json.loads((shared / "schemas/compose-spec.json").read_text()))
    for name, _, reading in corpus:
        text = ComposeWriter().write(reading.spec).files["docker-compose.yaml"]
        assert ComposeReader().read(MemoryTree({"docker-compose.yaml": text}, name="x"), "docker-compose.yaml").spec == reading.spec, name
    for name, _, reading in corpus[::4]:
        document = yaml.safe_load(ComposeWriter().write(reading.spec).files["docker-compose.yaml"])
        assert not [error.message for error in schema.iter_errors(document)], name


_SAME_AS_DEFAULT = re.compile(
    r"^volumes\.[^.]+$|\.(?:restart|build\.context|build\.dockerfile|condition|user|required)$|\.(?:expose|environment|command|ports)\[\d+\]$"
    r"|environment\.\w+$|^name$|^networks\.default"
)


def _value(data: Any, path: KeyPath) -> Any:
    for key in path:
        data = data[key]
    return data


def _without(data: Any, path: KeyPath) -> Any:
    result = copy.deepcopy(data)
    inner = result
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return result


def test_what_is_called_honoured_changes_the_spec(corpus: Corpus) -> None:
    """Taking an honoured leaf out of a file gives another spec, unless it only says what holds anyway."""
    reader = ComposeReader()
    for name, text, reading in corpus[::23]:
        data = parse_compose(name, text)[0].data
        whole = reader.read(MemoryTree({name: dump(data)}), name).spec
        for note, leaf in list(zip(reading.keys, leaves(data), strict=True))[:60]:
            if note.fate not in (Fate.HONOURED, Fate.APPROXIMATED) or _SAME_AS_DEFAULT.search(note.path) or not _value(data, leaf):
                continue
            try:
                less = reader.read(MemoryTree({name: dump(_without(data, leaf))}), name).spec
            except BlueprintInvalid:
                continue
            assert less != whole, f"{name}: {note.path} is called {note.fate} and changes nothing"


def test_reading_and_explaining_is_quick(corpus: Corpus) -> None:
    """Hundreds of files a second; the bound leaves room for a busy machine."""
    some = corpus[::4]
    started = time.perf_counter()
    for name, text, _ in some:
        ComposeReader().read(MemoryTree({name: text}), name)
    assert len(some) / (time.perf_counter() - started) > 100


def test_the_key_table_names_every_key_of_the_official_schema(shared: Path) -> None:
    """Each property of a service in compose-spec.json has a fate."""
    schema = json.loads((shared / "schemas/compose-spec.json").read_text())["$defs"]
    known = {path.split(".")[2].removesuffix("[]") for path, _, _ in key_table() if path.startswith("services.*.")}
    wanted = {key for group in ("service", "workload_spec", "container_spec") for key in schema[group]["properties"]}
    assert wanted <= known
