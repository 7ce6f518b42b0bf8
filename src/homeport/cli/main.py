"""The command line's front: every verb, and errors as people read them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from homeport import __version__
from homeport.cli import addons, backups, blueprints, deploying, environment, operating, reading, vault
from homeport.cli.client import away
from homeport.cli.errors import CliError, Interrupted

BROKEN_PIPE = 141
"""Exit code when nobody reads on: 128 and the number of SIGPIPE, as shells say it."""
NOT_WRITTEN = 120
"""Exit code when what a verb printed could not be written; Python's own."""

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


def main() -> NoReturn:
    """Run the command line and end the process; an error ends with its own exit code (`cli/errors.py`)."""
    signal.signal(signal.SIGINT, _interrupt)
    narrow(app, sys.argv[1:])
    try:
        app()
    except SystemExit as ended:
        leave(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
    except CliError as error:
        sys.stdout.flush()
        sys.stderr.write(error.text() + "\n")
        leave(error.exit_code)
    except (Interrupted, KeyboardInterrupt):
        sys.stderr.write("\nInterrupted. What was asked for goes on; see `homeport status`.\n")
        leave(130)
    except BrokenPipeError:
        leave(BROKEN_PIPE)
    except (ConnectionError, TimeoutError):
        gone = away()
        sys.stderr.write(gone.text() + "\n")
        leave(gone.exit_code)
    leave(0)


def leave(code: int) -> NoReturn:
    """End the process at once: taking the interpreter apart would be a fifth of what a short verb takes."""
    try:
        if sys.stdout is not None:  # it is None where the caller closed it
            sys.stdout.flush()
    except BrokenPipeError:
        code = BROKEN_PIPE
    except OSError as error:
        code = code or NOT_WRITTEN
        if sys.stderr is not None:
            sys.stderr.write(f"The output could not be written: {error.strerror}.\n")
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
    os._exit(code)
