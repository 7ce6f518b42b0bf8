"""homeport.yaml: canonical, lossless, with located faults; merge patches per environment."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.blueprints.homeport import HomeportReader, HomeportWriter, homeport_schema
from homeport.blueprints.overrides import for_environment, merge_diff, merge_patch
from homeport.blueprints.sample import sample
from homeport.blueprints.source import MemoryTree
from homeport.model.addon import Postgres
from homeport.model.env import GeneratedValue, PlainValue, SecretValue
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading
from homeport.model.service import CronService, HealthCheck, WebService
from homeport.model.spec import Spec


def read(text: str) -> Reading:
    return HomeportReader().read(MemoryTree({"homeport.yaml": dedent(text)}, "shop"), "homeport.yaml")


def test_what_is_written_reads_back_equal() -> None:
    """Writing and reading gives the same spec; texts of several lines are readable blocks."""
    web = WebService(
        command="run",
        health=HealthCheck(path="/up"),
        env={
            "A": PlainValue(value="1"),
            "S": SecretValue(),
            "G": GeneratedValue(),
            "TEXT": PlainValue(value="a\nb\n"),
            "OFF": PlainValue(value="off"),
        },
    )
    spec = Spec(name="shop", services={"web": web}, environments={"staging": {"services": {"web": {"scale": {"instances": 2}}}}})
    text = HomeportWriter().write(spec).files["homeport.yaml"]
    assert read(text).spec == spec
    assert "TEXT: |" in text and text.index("name:") < text.index("services:") < text.index("environments:")


def test_the_name_of_the_folder_is_the_default_name() -> None:
    """`name` and `version` may be left out."""
    assert read("services: {web: {kind: web}}").spec.name == "shop"


def test_faults_name_path_line_and_column() -> None:
    """Every fault of the model is a located problem, all found in one go."""
    with pytest.raises(BlueprintInvalid) as caught:
        read("""\
            services:
              web:
                kind: web
                health: {timeout: soon}
                port: 99999
              job:
                command: x
              odd: {kind: wob}
        """)
    found = {(problem.path, problem.line) for problem in caught.value.problems}
    assert found == {("services.web.health.timeout", 4), ("services.web.port", 5), ("services.job", 6), ("services.odd", 8)}
    assert "`kind` is missing here" in caught.value.render()


def test_unknown_keys_are_named_and_left_out() -> None:
    """A key nobody knows is reported with a suggestion, also inside an environment, and never fails the file."""
    reading = read("""
        services: {web: {kind: web, helth: {path: /}}}
        environments: {staging: {services: {web: {sclae: {instances: 2}, port: 80}}}}
    """)
    assert {note.path: note.did_you_mean for note in reading.by_fate(Fate.UNKNOWN)} == {
        "services.web.helth.path": "health",
        "environments.staging.services.web.sclae.instances": "scale",
    }
    staging = for_environment(reading.spec, "staging").services["web"]
    assert isinstance(staging, WebService) and staging.port == 80


def test_a_faulty_environment_is_found_when_the_file_is_read() -> None:
    """An override that makes no valid spec is a located problem, not a surprise at the deploy."""
    with pytest.raises(BlueprintInvalid) as caught:
        read("services: {web: {kind: web}}\nenvironments:\n  staging:\n    services: {web: {port: 99999}}\n")
    assert [(p.path, p.line) for p in caught.value.problems] == [("environments.staging.services.web.port", 4)]


@pytest.mark.parametrize("text", ["", "[]", "text", "services: []", "services: {web: 3}", "name: Not A Name", "environments: {a: []}"])
def test_wrong_shapes_are_refused(text: str) -> None:
    """What is no mapping of the right shape is refused with a problem."""
    with pytest.raises(BlueprintInvalid):
        read(text)


def test_environments_patch_the_base() -> None:
    """A patch merges mappings, replaces the rest, and removes with null; previews share one patch."""
    spec = read("""
        services:
          web: {kind: web, env: {A: "1", B: "2"}, scale: {instances: 3}}
          worker: {kind: worker}
        environments:
          preview: {services: {worker: null, web: {env: {A: {kind: secret}, B: null}}}}
    """).spec
    preview = for_environment(spec, "preview-7")
    assert preview.services["web"].env == {"A": SecretValue()} and preview.services["web"].scale.instances == 3
    assert set(preview.services) == {"web"} and preview.environments == {}
    assert for_environment(spec, "production").services == spec.services
    assert for_environment(spec, "preview") == preview


_JSON = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
_DOCUMENTS = st.dictionaries(st.text(max_size=3), _JSON, max_size=4)


@settings(max_examples=200, deadline=None)
@given(before=_DOCUMENTS, after=_DOCUMENTS)
def test_a_diff_is_a_patch(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Applying the diff of two documents to the first gives the second; equal documents need no patch."""
    assert merge_patch(before, merge_diff(before, after)) == after
    assert merge_diff(before, before) == {}


def test_merge_patch_follows_rfc_7386() -> None:
    """The examples of RFC 7386, appendix A."""
    cases: list[tuple[Any, Any, Any]] = [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ]
    for document, patch, result in cases:
        assert merge_patch(document, patch) == result


def test_the_schema_accepts_what_the_reader_accepts() -> None:
    """The published JSON Schema is valid, takes the shorthand of variables, and refuses unknown keys."""
    schema = homeport_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    good = {"services": {"web": {"kind": "web", "env": {"A": 1, "B": True, "C": {"kind": "secret"}}, "health": {"timeout": "5s"}}}}
    assert not list(validator.iter_errors(good))
    assert list(validator.iter_errors({"services": {"web": {"kind": "web", "helth": {}}}}))


def test_the_sample_explains_every_key_and_is_valid() -> None:
    """The commented sample is a valid homeport.yaml and names every key of the model."""
    text = sample()
    assert read(text).spec.services
    schema = jsonschema.Draft202012Validator(homeport_schema())
    assert not list(schema.iter_errors(yaml.safe_load(text)))
    shown = set(re.findall(r"^[ #]*(\w+):", text, re.MULTILINE))
    assert {name for model in (Spec, WebService, HealthCheck, CronService, Postgres) for name in model.model_fields} <= shown
