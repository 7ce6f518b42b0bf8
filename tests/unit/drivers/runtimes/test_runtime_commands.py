"""From command lines to argument lists."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.drivers.runtimes.base import StartRefused
from homeport.drivers.runtimes.commands import argv, needs_shell, search_path

ENV = {"PORT": "8000", "EMPTY": "", "TWO": "a b", "PATH": "/x/bin:/usr/bin"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("node server.js", ["node", "server.js"]),
        ("gunicorn app:app -b 0.0.0.0:$PORT", ["gunicorn", "app:app", "-b", "0.0.0.0:8000"]),
        ("uvicorn a:b --port ${PORT}", ["uvicorn", "a:b", "--port", "8000"]),
        ("echo 'one two' \"three $PORT\"", ["echo", "one two", "three 8000"]),
        ("echo '$PORT'", ["echo", "$PORT"]),
        ("echo \\$PORT", ["echo", "$PORT"]),
        ("echo $EMPTY x", ["echo", "x"]),
        ('echo "$EMPTY" x', ["echo", "", "x"]),
        ("echo $TWO", ["echo", "a", "b"]),
        ('echo "$TWO"', ["echo", "a b"]),
        ("echo pre$TWO", ["echo", "prea", "b"]),
        ("echo $UNSET x", ["echo", "x"]),
        ("echo a'b c'd", ["echo", "ab cd"]),
        ("echo 100% a=b c:d e@f g,h {x}", ["echo", "100%", "a=b", "c:d", "e@f", "g,h", "{x}"]),
        ("echo a#b", ["echo", "a#b"]),
        ("  node   x ", ["node", "x"]),
    ],
)
def test_a_plain_line_is_split_without_a_shell(line: str, words: list[str]) -> None:
    """Quotes, escapes and variables mean what they mean to a shell, and no shell runs."""
    assert not needs_shell(line)
    assert argv(line, ENV) == words
    shell = subprocess.run(["/bin/sh", "-c", f"set -f; printf '%s\\0' {line}"], env=ENV, capture_output=True, text=True, check=True)
    assert shell.stdout.split("\0")[:-1] == words


@pytest.mark.parametrize(
    "line",
    [
        "npm run build && npm start",
        "a | b",
        "a; b",
        "a > file",
        "echo $(date)",
        "echo `date`",
        'echo "`date`"',
        'echo "$(date)"',
        "echo ${PORT:-8000}",
        "echo $1",
        "ls *.py",
        "ls a?",
        "ls [ab]",
        "cd web && node .",
        "cd web",
        "export A=1",
        "A=1 node .",
        "ls ~/x",
        "node . # start",
        "node . &",
        "a\nb",
        "if true; then x; fi",
    ],
)
def test_a_line_with_shell_syntax_is_run_by_a_shell(line: str) -> None:
    """Operators, substitutions, patterns, assignments and words of the shell need one."""
    assert needs_shell(line)
    assert argv(line, ENV)[:2] == ["/bin/sh", "-c"]


def test_no_shell_stays_in_front_of_a_simple_command() -> None:
    """A single command that needs a shell for an expansion replaces it; a list of commands cannot."""
    assert argv("gunicorn -b :${PORT:-80}", ENV)[2] == "exec gunicorn -b :${PORT:-80}"
    assert argv("a && b", ENV)[2] == "a && b"
    assert argv("A=1 b", ENV)[2] == "A=1 b"


def test_a_list_is_taken_as_it_is() -> None:
    """An argv list is never interpreted."""
    assert argv(("echo", "$PORT", "a b; rm"), ENV) == ["echo", "$PORT", "a b; rm"]


@pytest.mark.parametrize(
    ("command", "why"), [("", "no start command"), ((), "no start command"), ("echo 'a", "not closed"), (("a\0b",), "NUL")]
)
def test_what_cannot_be_a_command_is_refused(command: str | tuple[str, ...], why: str) -> None:
    """Empty commands, open quotes and NUL bytes are refused with the reason."""
    with pytest.raises(StartRefused, match=why):
        argv(command, ENV)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12), min_size=1, max_size=4))
def test_quoted_words_come_back_unchanged(words: list[str]) -> None:
    """Any words, quoted as shlex does, come back as they were."""
    line = "run " + shlex.join(words)
    assert not needs_shell(line)
    assert argv(line, ENV) == ["run", *words]


def test_programs_are_searched_on_the_path_of_the_environment() -> None:
    """PATH of the environment wins; relative folders in it are left out."""
    assert search_path(("/a/bin",), {"PATH": "/x:.:/y"}) == ["/x", "/y"]
    assert search_path(("/a/bin",), {}) == ["/a/bin", "/usr/local/bin", "/usr/bin", "/bin"]
