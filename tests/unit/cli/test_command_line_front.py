"""The front of the command line: its version, and the parsers it makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from homeport import __version__
from homeport.cli import deploying, environment, reading
from homeport.cli.main import app, narrow


def test_the_version_needs_no_verb() -> None:
    """`homeport --version` prints it and ends well."""
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"homeport {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "verbs", "groups"),
    [
        (["ps", "--json"], {"ps"}, set()),
        (["env", "get", "X"], set(), {"env"}),
        (["pss"], None, None),
        (["--help"], None, None),
        ([], None, None),
    ],
)
def test_only_the_parser_of_the_verb_is_made(arguments: list[str], verbs: set[str] | None, groups: set[str] | None) -> None:
    """Where it is not plain which verb is meant, all stay, so that help and mistakes name them."""
    whole = typer.Typer()
    for module in (deploying, reading, environment):
        module.register(whole)
    all_verbs, all_groups = {info.name for info in whole.registered_commands}, {info.name for info in whole.registered_groups}
    assert None not in all_verbs | all_groups
    narrow(whole, arguments)
    assert {info.name for info in whole.registered_commands} == (all_verbs if verbs is None else verbs)
    assert {info.name for info in whole.registered_groups} == (all_groups if groups is None else groups)


def _ended(*arguments: str, output: int | None = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "homeport", *arguments]
    return subprocess.run(argv, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60, check=False)


def test_what_was_printed_is_there_when_the_process_ends_at_once(tmp_path: Path) -> None:
    """A verb's whole output arrives in a pipe and in a file, with the exit code of the verb."""
    done = _ended("blueprint", "check", str(tmp_path), "--help")
    assert done.returncode == 0 and done.stdout.rstrip().endswith("Show this message and exit.")
    done = _ended("ps", "--no-such-option")
    assert done.returncode == 2 and "--no-such-option" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that takes nothing is needed")
def test_output_that_cannot_be_written_is_told() -> None:
    """A full disk behind the output is an exit code of its own and a sentence."""
    with Path("/dev/full").open("wb") as full:
        done = _ended("--version", output=full.fileno())
    assert done.returncode != 0 and "No space left" in done.stderr


def test_nobody_who_reads_is_no_fault() -> None:
    """When whoever read the output is gone, the process ends quietly, as a command does that SIGPIPE ends."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = _ended("--version", output=writer)
    finally:
        os.close(writer)
    assert done.returncode in (1, 141) and done.stderr == ""
