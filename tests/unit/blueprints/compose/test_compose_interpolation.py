"""Variables in Compose values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.blueprints.compose.interpolation import InvalidTemplate, MissingVariable, interpolate, parse_template
from homeport.blueprints.compose.values import escape

NAMES = st.sampled_from(["A", "B", "C_1", "_x"])
VALUES = st.dictionaries(NAMES, st.text(alphabet="ab $", max_size=4), max_size=4)
WORDS = st.text(alphabet="xyz:/.- ", max_size=6)


@given(st.text(max_size=200), VALUES)
def test_any_text_is_interpolated_or_refused_with_a_typed_error(text: str, values: dict[str, str]) -> None:
    """No text makes interpolation fail in another way than its two errors."""
    try:
        interpolate(text, values)
    except (InvalidTemplate, MissingVariable):
        pass


@given(st.text(max_size=100), VALUES)
def test_escaped_text_comes_out_as_it_went_in(text: str, values: dict[str, str]) -> None:
    """Doubling each dollar makes any text literal."""
    assert interpolate(escape(text), values) == text


@given(NAMES, WORDS, VALUES)
def test_default_operators_differ_only_for_an_empty_value(name: str, word: str, values: dict[str, str]) -> None:
    """`:-` replaces unset and empty, `-` unset alone; `:+` and `+` are their mirrors."""
    value = values.get(name)
    assert interpolate(f"${{{name}:-{word}}}", values) == (value or word)
    assert interpolate(f"${{{name}-{word}}}", values) == (word if value is None else value)
    assert interpolate(f"${{{name}:+{word}}}", values) == (word if value else "")
    assert interpolate(f"${{{name}+{word}}}", values) == ("" if value is None else word)


@given(st.lists(NAMES, min_size=1, max_size=8), VALUES)
def test_nested_defaults_give_the_first_value_there_is(names: list[str], values: dict[str, str]) -> None:
    """`${A:-${B:-…}}` reads like a list of choices."""
    text = "end"
    for name in reversed(names):
        text = f"${{{name}:-{text}}}"
    assert interpolate(text, values) == next((values[name] for name in names if values.get(name)), "end")


def test_lenient_resolution_reports_required_variables_as_unset() -> None:
    """`${X:?msg}` counts as empty and is named when nobody can be asked yet."""
    heard: list[str] = []
    assert interpolate("a${X:?needed}b$Y", {}, heard.append, lenient=True) == "ab"
    assert heard == ["X", "Y"]


def test_deep_nesting_is_refused_at_once() -> None:
    """A thousand nested references are an error, not a full stack."""
    with pytest.raises(InvalidTemplate):
        parse_template("${A:-" * 1000 + "}" * 1000)
