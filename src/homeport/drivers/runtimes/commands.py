"""From a command to an argument list. A shell is used only for lines that need one: see docs/adr on command lines."""

from __future__ import annotations

import re
from collections.abc import Mapping

from homeport.drivers.runtimes.base import StartRefused

STANDARD_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
"""Folders searched after the artifact's own."""

SHELL = "/bin/sh"

_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_WORDS_OF_THE_SHELL = frozenset(
    re.split(
        " ",
        "! . : alias bg break case cd command continue do done elif else esac eval exec exit export fg fi for function getopts if in local "
        "read readonly return set shift source test then time times trap type ulimit umask unalias unset until wait while { [ [[",
    )
)
_SYNTAX = frozenset("|&;<>()`\n*?[")


def argv(command: tuple[str, ...] | str, env: Mapping[str, str], *, subject: str = "The service") -> list[str]:
    """The argument list of a command. A tuple is taken as it is; a line is split, and only run by a shell if it needs one.

    Raises StartRefused when it is empty or a quote is not closed.
    """
    if not isinstance(command, str):
        words = list(command)
    elif needs_shell(command):
        words = [SHELL, "-c", _simple(command)]
    else:
        words = _split(command, env, subject)
    if not words or not words[0]:
        raise _refused(subject, "It has no start command.")
    if any("\0" in word for word in words):
        raise _refused(subject, "Its start command contains a NUL byte.")
    return words


def needs_shell(line: str) -> bool:
    """Whether the line means something else to a shell than to a plain split with `$NAME` and `${NAME}` filled in."""
    first = line.split(maxsplit=1)[0] if line.strip() else ""
    if first in _WORDS_OF_THE_SHELL or re.match(r"[A-Za-z_][A-Za-z0-9_]*=", first):
        return True
    return _unquoted_syntax(line.strip())


def _unquoted_syntax(line: str) -> bool:
    quote = ""
    position = 0
    while position < len(line):
        char = line[position]
        if char == "\\" and quote != "'":
            position += 2
            continue
        if char in "'\"" and quote in ("", char):
            quote = "" if quote else char
        elif quote != "'" and char == "$":
            match = _VARIABLE.match(line, position)
            if match is None:
                if position + 1 < len(line) and line[position + 1] in "({$?!@*#-0123456789'\"":
                    return True
            else:
                position = match.end()
                continue
        elif _is_syntax(char, quote, line[position - 1 : position]):
            return True
        position += 1
    return False


class _Words:
    """Words being put together from the characters of a line."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.word: str | None = None

    def add(self, text: str) -> None:
        self.word = (self.word or "") + text

    def end(self) -> None:
        if self.word is not None:
            self.done.append(self.word)
        self.word = None

    def add_split(self, value: str) -> None:
        """A variable outside quotes: its value is split at white space, and an empty one leaves no word."""
        for number, part in enumerate(re.split(r"\s+", value)):
            if number:
                self.end()
            if part:
                self.add(part)


def _is_syntax(char: str, quote: str, before: str) -> bool:
    if quote:
        return quote == '"' and char == "`"
    return char in _SYNTAX or (char in "~#" and before in ("", " ", "\t", "="))


def _split(line: str, env: Mapping[str, str], subject: str) -> list[str]:
    """Split as a POSIX shell does (XCU 2.2 quoting, 2.6.5 field splitting), with variables filled in from the environment."""
    words = _Words()
    quote = ""
    position = 0
    while position < len(line):
        char = line[position]
        following = line[position + 1 : position + 2]
        variable = _VARIABLE.match(line, position) if char == "$" and quote != "'" else None
        if variable is not None:
            value = env.get(variable[1] or variable[2], "")
            words.add(value) if quote else words.add_split(value)
            position = variable.end()
            continue
        if char in "'\"" and quote in ("", char):
            quote = "" if quote else char
            words.add("")
        elif char == "\\" and following and (not quote or (quote == '"' and following in '"\\$`')):
            words.add(following)
            position += 1
        elif char.isspace() and not quote:
            words.end()
        else:
            words.add(char)
        position += 1
    if quote:
        raise _refused(subject, "A quote in its start command is not closed.")
    words.end()
    return words.done


def _simple(line: str) -> str:
    """With `exec` in front where the line is one simple command, so that no shell stays between Homeport and the program."""
    stripped = line.strip()
    first = stripped.split(maxsplit=1)[0] if stripped else ""
    if first in _WORDS_OF_THE_SHELL or re.match(r"[A-Za-z_][A-Za-z0-9_]*=", first) or re.search(r"[|&;()<>`\n]|\$\(", stripped):
        return line
    return f"exec {stripped}"


def search_path(folders: tuple[str, ...], env: Mapping[str, str]) -> list[str]:
    """Folders in which a program is looked for: PATH of the environment when it has one, else the artifact's and the system's."""
    if env.get("PATH"):
        return [folder for folder in env["PATH"].split(":") if folder.startswith("/")]
    return [*folders, *STANDARD_PATH]


def _refused(subject: str, why: str) -> StartRefused:
    return StartRefused(
        what=f"{subject} was not started; what ran before still runs.",
        why=why,
        fix="Correct the start command in your deployment file and deploy again.",
    )
