"""The configuration writer and reader."""

from __future__ import annotations

import tempfile
from pathlib import Path

import crossplane
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.drivers.edge.base import EdgeRefused
from homeport.drivers.edge.syntax import Directive, block, emit, line, parse, quote, verify

TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="".join(map(chr, [*range(9), 11, 12, *range(14, 32), 127]))), max_size=60
)


@given(st.lists(st.lists(TEXT, max_size=4), max_size=5))
def test_reading_gives_back_what_was_written(arguments: list[list[str]]) -> None:
    """Any text survives as the leaf it was, and no directive appears or disappears."""
    tree = [block("http", [], [line("set", *args) for args in arguments])]
    assert parse(emit(tree)) == tuple(tree)


@given(TEXT)
def test_crossplane_reads_the_same(text: str) -> None:
    """NGINX's own parser library sees the same three directives, whatever the text."""
    tree = [block("server", [], [line("set", "$a", text), line("listen", 80)])]
    path = Path(tempfile.mkstemp(suffix=".conf")[1])
    try:
        path.write_text(emit(tree), encoding="utf-8")
        read = crossplane.parse(str(path), single=True, check_ctx=False, check_args=False)["config"][0]["parsed"]
    finally:
        path.unlink()
    assert [entry["directive"] for entry in read[0]["block"]] == ["set", "listen"]
    assert read[0]["block"][1]["args"] == ["80"]


@pytest.mark.parametrize("text", ["a\0b", "\x01", "\x7f", "\x1b[0m"])
def test_control_characters_are_refused(text: str) -> None:
    """A control character never reaches the file."""
    with pytest.raises(EdgeRefused):
        quote(text)


def test_a_token_nginx_could_not_hold_is_refused() -> None:
    """Text too long for nginx's buffer is refused here, in our words."""
    with pytest.raises(EdgeRefused, match="not changed"):
        quote("é" * 3000)


@pytest.mark.parametrize("name", ["alias", "include", "ssi", "load_module", "js_import", "perl_modules", "proxy_cache", "x; user root"])
def test_only_known_directives_are_written(name: str) -> None:
    """A directive outside the list stops the emitter."""
    with pytest.raises(EdgeRefused):
        emit([Directive(name)])


@pytest.mark.parametrize("text", ["a {", "a; }", "; a", 'a "b"c;', 'a "b', "a"])
def test_broken_files_do_not_read(text: str) -> None:
    """What nginx would refuse, the reader refuses."""
    with pytest.raises(ValueError, match=r".+"):
        parse(text)


def test_comments_quotes_and_variables_read_as_nginx_reads_them() -> None:
    """The reader knows comments, both quotes, escapes and ${name}."""
    read = parse("# first\nset $a 'it\\'s' ; return 200 ${b}c\\ d; # last\n")
    assert read == (line("set", "$a", "it's"), line("return", "200", "${b}c\\ d"))


def test_a_file_that_says_something_else_is_refused() -> None:
    """Verification compares trees, not text."""
    verify("a 1;", [line("a", "1")])
    with pytest.raises(EdgeRefused):
        verify("a 1; b;", [line("a", "1")])
