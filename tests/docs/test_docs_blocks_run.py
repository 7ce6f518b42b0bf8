"""Every command of the docs runs, page by page, in a home of its own.

A block of commands begins with ```console. Lines that begin with `$ ` are run in order, by one shell for the page, in an empty folder;
lines between them are what a person would see, or the rest of a here-document. After the word `console` may stand:

- `skip: reason`, for what needs the internet, another machine or a person;
- `exit: N`, when the last command of the block ends with N.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from homes import Home, home_in

from homeport.blueprints.homeport import HomeportReader
from homeport.blueprints.source import MemoryTree

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```([a-z]*)(.*)$")
HERE = re.compile(r"<<-?'?([A-Z]+)'?")
PAGE_TIME = 110
"""Seconds that all blocks of a page may take together."""


class Block(NamedTuple):
    """One fenced block: the line of its fence, its language, what stands behind that, and its lines."""

    line: int
    language: str
    info: str
    lines: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    inside: list[str] | None = None
    start, language, info = 0, "", ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        match = FENCE.match(line)
        if inside is None and match:
            inside, start, language, info = [], number, match[1], match[2].strip()
        elif inside is not None and line.startswith("```"):
            found.append(Block(start, language, info, tuple(inside)))
            inside = None
        elif inside is not None:
            inside.append(line)
    assert inside is None, f"{page}: a block that begins in line {start} has no end"
    return found


def commands(block: Block) -> list[tuple[int, str]]:
    """Each command with the number of its line."""
    found: list[tuple[int, str]] = []
    until = ""
    for number, line in enumerate(block.lines, block.line + 1):
        if until:
            at, text = found[-1]
            found[-1] = (at, f"{text}\n{line}")
            until = "" if line.strip() == until else until
        elif line.startswith("$ "):
            found.append((number, line[2:]))
            here = HERE.search(line)
            until = here[1] if here else ""
    return found


def script(page: Path) -> str:
    """All blocks of a page as one program for bash."""
    lines = ["set -eu -o pipefail", "at=0", "trap '[ $? = 0 ] || echo \"line $at of the page failed\" >&2' EXIT"]
    for block in blocks(page):
        if block.language != "console" or block.info.startswith("skip:"):
            continue
        wanted = block.info.removeprefix("exit:").strip() if block.info.startswith("exit:") else ""
        found = commands(block)
        for position, (number, text) in enumerate(found):
            lines.append(f"at={number}")
            if wanted and position == len(found) - 1:
                lines += ["set +e", text, f"[ $? = {wanted} ] || exit 99", "set -e"]
            else:
                lines.append(text)
    return "\n".join(lines) + "\n"


RUNNING = [page for page in PAGES if any(b.language == "console" and not b.info.startswith("skip:") for b in blocks(page))]


def in_shell(page: Path, home: Home, folder: Path) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    env = {**home.env, "PATH": f"{Path(sys.executable).parent}:{home.env['PATH']}"}
    return subprocess.run(
        ["bash", "-c", script(page)],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PAGE_TIME,
        check=False,
    )


@pytest.mark.parametrize("page", RUNNING, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_command_of_the_page_runs(page: Path, tmp_path: Path) -> None:
    """A reader who types what the page says gets no error."""
    with home_in(tmp_path / "home") as home:
        done = in_shell(page, home, tmp_path / "reader")
        assert done.returncode == 0, f"{page}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_blocks_say_what_they_are(page: Path) -> None:
    """Each block names its language; a block of commands that is not run says why."""
    for block in blocks(page):
        where = f"{page.relative_to(REPOSITORY)}:{block.line}"
        assert block.language, f"{where} names no language"
        assert block.language not in ("bash", "sh", "shell"), f"{where}: commands go into ```console, so that they are run"
        if block.language == "console":
            assert commands(block), f"{where} has no line that begins with `$ `"
            if block.info.startswith("skip"):
                assert len(block.info.removeprefix("skip:").strip()) > 8, f"{where} does not say why it is not run"
            else:
                assert not block.info or re.fullmatch(r"exit: \d+", block.info), f"{where}: nobody knows {block.info!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_examples_of_homeport_yaml_can_be_read(page: Path) -> None:
    """A block of YAML that shows homeport.yaml is one, or a part of one, without unknown keys."""
    for block in blocks(page):
        text = "\n".join(block.lines)
        if block.language == "yaml":
            data = yaml.safe_load(text)
            if isinstance(data, dict) and ("services" in data or "addons" in data) and "x-other-dialect" not in block.info:
                reading = HomeportReader().read(MemoryTree({"homeport.yaml": text}, name="shop"), "homeport.yaml")
                unknown = [note.path for note in reading.keys if note.fate == "unknown"]
                assert not unknown, f"{page.relative_to(REPOSITORY)}:{block.line}: {unknown}"
