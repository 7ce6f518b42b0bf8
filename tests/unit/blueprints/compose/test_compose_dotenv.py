"""Dotenv files as Compose reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.blueprints.compose.dotenv import DotenvInvalid, parse_dotenv, parse_raw


@pytest.mark.parametrize(
    ("text", "line"),
    [('KEY="', 1), ("A=1\nKEY='value\\'", 2), ("lol$wut", 1), ('# note\nfoo="\n a\n"\nINVALID LINE\nzot=qix', 5), ("A=${", 1)],
)
def test_a_broken_file_names_its_line(text: str, line: int) -> None:
    """What is no dotenv is refused with the line it stands in."""
    with pytest.raises(DotenvInvalid) as caught:
        parse_dotenv(text)
    assert caught.value.line == line


def test_quotes_decide_whether_variables_count() -> None:
    """Single quotes are literal, double quotes and bare values are interpolated, and outer values win."""
    text = "A=1\nB='$A'\nC=\"<$A>\"\nD=$A # note\nE=$OUT"
    assert parse_dotenv(text, {"OUT": "o"}) == {"A": "1", "B": "$A", "C": "<1>", "D": "1", "E": "o"}


def test_raw_files_are_taken_as_they_stand() -> None:
    """`format: raw` knows neither quotes nor variables."""
    assert parse_raw("A='x' # y\n# c\n\nB=$A") == {"A": "'x' # y", "B": "$A"}


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_with_a_typed_error(text: str) -> None:
    """No text crashes the parser."""
    try:
        parse_dotenv(text)
    except DotenvInvalid as error:
        assert error.line >= 1


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True), st.text(max_size=20).filter(lambda t: "\0" not in t), max_size=6
    )
)
def test_single_quoted_values_come_back(values: dict[str, str]) -> None:
    """Whatever holds no quote, backslash or carriage return survives between single quotes."""
    values = {key: value for key, value in values.items() if not set(value) & set("'\\\r")}
    assert parse_dotenv("\n".join(f"{key}='{value}'" for key, value in values.items())) == values


@pytest.mark.parametrize("text", ["A='canary", 'A="canary\nmore', "A=x\ncanary+line/of=\n", "A=x\ncanary/key", "A=${canary", "A=x$canary"])
def test_an_error_does_not_repeat_a_value(text: str) -> None:
    """What is wrong is told by its line; the text there may be a secret."""
    with pytest.raises(DotenvInvalid) as caught:
        parse_dotenv(text, strict=True)
    assert "canary" not in str(caught.value) and caught.value.line >= 1


def test_a_dollar_in_a_password_is_not_cut_when_strict() -> None:
    """Compose reads `p$word` as `p`; where a secret is set, that is an error, and quotes or `$$` keep it."""
    assert parse_dotenv("A=p$word") == {"A": "p"}
    with pytest.raises(DotenvInvalid):
        parse_dotenv("A=p$word", strict=True)
    assert parse_dotenv("A='p$word'\nB=p$$word\nC=1\nD=x$C", strict=True) == {"A": "p$word", "B": "p$word", "C": "1", "D": "x1"}
