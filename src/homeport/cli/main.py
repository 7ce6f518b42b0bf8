"""The command line's front: every verb, and errors as people read them."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from homeport import __version__
from homeport.cli import addons, backups, blueprints, deploying, environment, operating, reading, vault
from homeport.cli.client import away
from homeport.cli.errors import CliError, Interrupted

app = typer.Typer(
    name="homeport",
    help="Run a repository with the deployment files it already has, on machines you own.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (deploying, reading, environment, addons, vault, backups, operating, blueprints):
    module.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"homeport {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.", is_eager=True, callback=_show_version)] = False,
) -> None: ...


def narrow(whole: typer.Typer, arguments: list[str]) -> None:
    """Leave only the verb that is asked for: making the parsers of all of them takes longer than most verbs do.

    Where it is not plain which one is meant (help, completion, a mistake), everything stays.
    """
    asked = arguments[0] if arguments else ""
    commands = [info for info in whole.registered_commands if info.name == asked]
    groups = [info for info in whole.registered_groups if info.name == asked]
    if commands or groups:
        whole.registered_commands, whole.registered_groups = commands, groups


def _interrupt(_number: int, _frame: object) -> None:
    raise Interrupted


def main() -> None:
    """Run the command line; an error ends with its own exit code (`cli/errors.py`)."""
    signal.signal(signal.SIGINT, _interrupt)
    narrow(app, sys.argv[1:])
    try:
        app()
    except CliError as error:
        sys.stdout.flush()
        sys.stderr.write(error.text() + "\n")
        sys.exit(error.exit_code)
    except (Interrupted, KeyboardInterrupt):
        sys.stderr.write("\nInterrupted. What was asked for goes on; see `homeport status`.\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except (ConnectionError, TimeoutError):
        gone = away()
        sys.stderr.write(gone.text() + "\n")
        sys.exit(gone.exit_code)
