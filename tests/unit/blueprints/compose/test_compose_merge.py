"""How Compose files are laid over each other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.blueprints.compose.merge import CannotMerge, canonical, merge
from homeport.blueprints.compose.ports import parse_port, split_volume
from homeport.blueprints.compose.tree import parse_compose

KEYS = st.sampled_from(["A", "B", "C"])
PAIRS = st.one_of(
    st.dictionaries(KEYS, st.text(alphabet="xy", max_size=2), max_size=3),
    st.lists(st.builds(lambda k, v: f"{k}={v}", KEYS, st.text(alphabet="xy", max_size=2)), max_size=3, unique=True),
)
SERVICES = st.fixed_dictionaries(
    {},
    optional={
        "image": st.sampled_from(["a", "b"]),
        "environment": PAIRS,
        "labels": PAIRS,
        "command": st.one_of(st.just("run"), st.lists(st.just("x"), max_size=2)),
        "profiles": st.lists(st.sampled_from(["p", "q"]), max_size=2, unique=True),
        "depends_on": st.lists(st.sampled_from(["db", "mq"]), max_size=2, unique=True),
        "networks": st.lists(st.sampled_from(["n", "m"]), max_size=2, unique=True),
        "dns": st.one_of(st.just("1.1.1.1"), st.lists(st.sampled_from(["8.8.8.8", "1.1.1.1"]), max_size=2, unique=True)),
        "volumes": st.lists(st.sampled_from(["a:/a", "b:/a", "c:/c:ro"]), max_size=2, unique_by=lambda v: v.split(":")[1]),
    },
)
MODELS = st.builds(
    lambda services: canonical({"services": services}), st.dictionaries(st.sampled_from(["web", "db"]), SERVICES, max_size=2)
)


@given(MODELS, MODELS, MODELS)
def test_merging_is_associative(first: dict[str, Any], second: dict[str, Any], third: dict[str, Any]) -> None:
    """Laying files over each other from the left or from the right gives one project."""
    assert merge(merge(first, second), third) == merge(first, merge(second, third))


@given(MODELS)
def test_a_file_over_itself_or_over_nothing_stays_as_it_is(model: dict[str, Any]) -> None:
    """Merging adds nothing that was there before."""
    assert merge(model, {}) == merge({}, model) == merge(model, model) == model


def test_tags_reset_and_replace() -> None:
    """`!reset` removes what an earlier file said, `!override` replaces it instead of appending; aliases carry the tags."""
    base = canonical(parse_compose("b", "services: {a: {ports: [80], dns: [1.1.1.1]}, b: {ports: [80]}}")[0].data)
    text = "x: &r !reset []\nservices:\n  a:\n    ports: *r\n    dns: !override [8.8.8.8]\n  b: {ports: *r}\n"
    override = parse_compose("o", text)[0]
    merged = merge(base, canonical(override.data), override.tags)
    assert merged["services"] == {"a": {"dns": ["8.8.8.8"]}, "b": {}}


def test_forms_that_do_not_go_together_are_refused_with_their_path() -> None:
    """A list cannot be laid over a mapping."""
    with pytest.raises(CannotMerge) as caught:
        merge({"services": {"a": {"deploy": {}}}}, {"services": {"a": {"deploy": []}}})
    assert caught.value.path == ("services", "a", "deploy")


def test_short_forms_are_taken_apart() -> None:
    """Ranges spread out; drives of Windows and defaults of variables keep their colons."""
    assert [(p.target, p.published) for p in parse_port("8000-8001:80-81/udp")] == [(80, "8000"), (81, "8001")]
    assert parse_port("[::1]:53:53")[0].host_ip == "::1"
    assert split_volume(r"C:\data:/data:ro") == [r"C:\data", "/data", "ro"]
    assert split_volume("${X:-./a}:/b") == ["${X:-./a}", "/b"]
