"""The front of the command line: its version, and the parsers it makes."""

from __future__ import annotations

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
