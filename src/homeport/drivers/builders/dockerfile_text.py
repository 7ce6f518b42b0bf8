"""Reads the text of a Dockerfile into stages of instructions. Format: the Dockerfile reference of Docker's documentation."""

from __future__ import annotations

import json
import re
import shlex

from homeport.model.base import Frozen

MAX_INSTRUCTIONS = 2000
_NAMES = {
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "RUN", "SHELL",
    "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
}  # fmt: skip


class Instruction(Frozen):
    """One instruction: flags (`--from=…`) apart from its text."""

    name: str
    text: str
    flags: dict[str, str] = {}
    line: int = 0


class Stage(Frozen):
    """From one FROM to the next."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]


def parse(text: str) -> list[Stage]:
    """The stages of a Dockerfile, global ARGs at the front of the first. Raises ValueError naming the line."""
    stages: list[Stage] = []
    current: list[Instruction] = []
    globals_: list[Instruction] = []
    base, name = "", ""
    for one in _instructions(text):
        if one.name == "FROM":
            if base:
                stages.append(Stage(base=base, name=name, instructions=tuple(current)))
            current = list(globals_)
            words = one.text.split()
            if not words:
                raise ValueError(f"line {one.line}: FROM names no image")
            base = substitute(words[0], {a.text.partition("=")[0]: a.text.partition("=")[2].strip("\"'") for a in globals_})
            name = words[2].lower() if len(words) >= 3 and words[1].lower() == "as" else str(len(stages))
        elif not base and one.name == "ARG":
            globals_.append(one)
        else:
            current.append(one)
    if not base:
        raise ValueError("it has no FROM")
    stages.append(Stage(base=base, name=name, instructions=tuple(current)))
    return stages


def _instructions(text: str) -> list[Instruction]:
    lines = text.splitlines()
    found: list[Instruction] = []
    position = 0
    while position < len(lines):
        start = position
        raw = lines[position].strip()
        position += 1
        if not raw or raw.startswith("#"):
            continue
        while raw.endswith("\\") and position < len(lines):
            following = lines[position].strip()
            position += 1
            if not following.startswith("#"):
                raw = raw[:-1].rstrip() + " " + following
        raw = raw.rstrip("\\").strip()
        name, _, rest = raw.partition(" ")
        if name.upper() not in _NAMES:
            raise ValueError(f"line {start + 1}: {name[:40]!r} is not an instruction")
        heredoc = re.search(r"<<-?\s*[\"']?(\w+)[\"']?", rest) if name.upper() in {"RUN", "COPY"} else None
        if heredoc:
            body: list[str] = []
            while position < len(lines) and lines[position].strip() != heredoc[1]:
                body.append(lines[position])
                position += 1
            position += 1
            rest = "\n".join(body) if name.upper() == "RUN" else rest
        flags, rest = _flags(rest.strip())
        found.append(Instruction(name=name.upper(), text=rest, flags=flags, line=start + 1))
        if len(found) > MAX_INSTRUCTIONS:
            raise ValueError(f"it has more than {MAX_INSTRUCTIONS} instructions")
    return found


def _flags(text: str) -> tuple[dict[str, str], str]:
    flags: dict[str, str] = {}
    while match := re.match(r"--([a-z-]+)(?:=(\S+))?\s+", text):
        flags[match[1]] = match[2] or ""
        text = text[match.end() :]
    return flags, text


def substitute(text: str, values: dict[str, str]) -> str:
    """`$NAME`, `${NAME}` and `${NAME:-default}` of known names; others stay as they are."""

    def put(match: re.Match[str]) -> str:
        name = match[1] or match[3]
        return values.get(name) or match[2] if match[2] is not None else values.get(name, match[0])

    return re.sub(r"\$\{(\w+)(?::?-([^}]*))?\}|\$(\w+)", put, text)


def words_of(text: str) -> list[str]:
    if text.startswith("["):
        try:
            return [str(word) for word in json.loads(text)]
        except ValueError:
            pass
    return text.split()


def pairs_of(text: str) -> dict[str, str]:
    """`ENV A=1 B="two words"` and the old form `ENV A one two`."""
    if "=" not in text.partition(" ")[0]:
        name, _, value = text.partition(" ")
        return {name: value.strip()}
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return {name: value for name, sep, value in (word.partition("=") for word in words) if sep}
