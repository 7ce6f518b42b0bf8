"""`homeport env`: variables of an environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from homeport.cli import show
from homeport.cli.client import Client, segment
from homeport.cli.deploying import _read_env_file
from homeport.cli.errors import CliError, usage
from homeport.cli.options import Environment, Json, Project
from homeport.cli.where import find_project, path_of

Service = Annotated[str, typer.Option("--service", "-s", help="Only for this service.")]


def register(app: typer.Typer) -> None:
    env = typer.Typer(help="Variables: where each comes from; set, unset, import.", invoke_without_command=True, rich_markup_mode=None)
    env.callback()(list_)
    env.command("get", help="Show one value; the look is written down.")(get)
    env.command("set", help="Set variables: KEY=VALUE, KEY (asks), KEY=- (stdin).")(set_)
    env.command("unset", help="Take variables away.")(unset)
    env.command("import", help="Set all variables of a file of KEY=VALUE lines.")(import_)
    env.command("history", help="Versions of the variables that were set.")(history)
    app.add_typer(env, name="env")


def list_(context: typer.Context, project: Project = None, environment: Environment = "production", json: Json = False) -> None:
    if context.invoked_subcommand is not None:
        return None
    client = Client()
    name, environment = find_project(client, project, environment)
    found = client.get(f"{path_of(name, environment)}/env")
    if json:
        return show.as_json(found)
    rows = [
        (
            r["service"],
            r["key"],
            r["origin"],
            f"v{r['version']}" if r["version"] else "",
            r["set_by"],
            "••••••" if r["value"] is None else r["value"],
        )
        for r in found
    ]
    return show.table(("SERVICE", "KEY", "FROM", "VERSION", "BY", "VALUE"), rows)


def get(
    key: Annotated[str, typer.Argument(help="Variable.", show_default=False)],
    project: Project = None,
    environment: Environment = "production",
    service: Service = "",
    json: Json = False,
) -> None:
    client = Client()
    name, environment = find_project(client, project, environment)
    found = client.get(f"{path_of(name, environment)}/env/{segment(key)}", service=service)
    if json:
        show.as_json(found)
    else:
        show.line(found["value"])


def set_(
    variables: Annotated[list[str], typer.Argument(help="KEY=VALUE, KEY or KEY=-", show_default=False)],
    project: Project = None,
    environment: Environment = "production",
    service: Service = "",
    from_file: Annotated[
        Path | None, typer.Option("--from-file", help="File whose content is the value of the one KEY given.", exists=True)
    ] = None,
    json: Json = False,
) -> None:
    values: dict[str, str] = {}
    for text in variables:
        key, equals, value = text.partition("=")
        if from_file is not None:
            value = from_file.read_text(encoding="utf-8")
        elif not equals:
            if not sys.stdin.isatty():
                raise usage(f"{key} has no value.", f"Write {key}=VALUE, or {key}=- and give the value on standard input.")
            from getpass import getpass

            value = getpass(f"{key}: ")
        elif value == "-":
            value = sys.stdin.read().removesuffix("\n")
        values[f"{service}/{key}" if service else key] = value
    _change(project, environment, {"set": values, "source": "cli"}, json=json)


def unset(
    keys: Annotated[list[str], typer.Argument(help="KEY …", show_default=False)],
    project: Project = None,
    environment: Environment = "production",
    service: Service = "",
    json: Json = False,
) -> None:
    _change(project, environment, {"unset": [f"{service}/{key}" if service else key for key in keys]}, json=json)


def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="File of KEY=VALUE lines.", show_default=False)],
    project: Project = None,
    environment: Environment = "production",
    service: Service = "",
    json: Json = False,
) -> None:
    values = {f"{service}/{key}" if service else key: value for key, value in _read_env_file(file).items()}
    _change(project, environment, {"set": values, "source": "file"}, json=json)


def history(
    key: Annotated[str, typer.Argument(help="Only this variable.", show_default=False)] = "",
    project: Project = None,
    environment: Environment = "production",
    json: Json = False,
) -> None:
    client = Client()
    name, environment = find_project(client, project, environment)
    found = client.get(f"{path_of(name, environment)}/env-history", key=key)
    if json:
        return show.as_json(found)
    rows = [(r["name"], f"v{r['version']}", r["state"], r["source"], r["created_by"], show.ago(r["created_at"])) for r in found]
    return show.table(("VARIABLE", "VERSION", "STATE", "FROM", "BY", "WHEN"), rows)


def _change(project: str | None, environment: str, body: dict[str, object], *, json: bool) -> None:
    client = Client(start=True)
    name, environment = find_project(client, project, environment)
    found = client.post(f"{path_of(name, environment)}/env", body)
    if json:
        return show.as_json(found)
    if found["changed"]:
        return show.line(f"Changed {', '.join(found['changed'])}. It takes effect with the next deploy (`homeport up`).")
    return show.line("Nothing changed.")


__all__ = ["CliError", "register"]
