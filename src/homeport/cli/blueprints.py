"""Verbs about deployment files: plan, blueprint check, convert, export, init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from homeport.cli import show
from homeport.cli.client import Client
from homeport.cli.errors import CliError, usage
from homeport.cli.options import Environment, Folder, Json, Prefer, Project
from homeport.cli.where import find_project, path_of


def register(app: typer.Typer) -> None:
    app.command("plan", help="What a deploy would do, and what becomes of every key of the files.")(plan)


def plan(
    path: Folder = Path(),
    environment: Environment = "production",
    prefer: Prefer = "",
    json: Json = False,
    keys: Annotated[bool, typer.Option("--keys", help="List every key, the honoured ones too.")] = False,
) -> None:
    from homeport.blueprints.discover import read_project
    from homeport.blueprints.source import FolderTree
    from homeport.cli.planning import as_data, show_plan
    from homeport.model.errors import HomeportError

    if not path.is_dir():
        raise usage(f"{path} is not a folder.", "Name the project's folder.")
    try:
        reading = read_project(FolderTree(path.resolve()), environment=environment, prefer=prefer)
    except HomeportError as error:
        from homeport.api.errors import body_of

        raise CliError(body_of(error)) from error
    compared = _against_live(path, environment, prefer)
    if json:
        show.as_json(as_data(reading, compared))
    else:
        show_plan(reading, compared, every_key=keys)


def _against_live(path: Path, environment: str, prefer: str) -> dict[str, Any] | None:
    """The plan against what is live, when a control plane runs; None without one."""
    try:
        client = Client()
    except CliError:
        return None
    found: dict[str, Any] = client.post("/api/v1/plan", {"folder": str(path.resolve()), "environment": environment, "prefer": prefer})
    return found


__all__ = ["Project", "find_project", "path_of", "register"]
