"""Verbs that change what is live: up, deploy, rollback, scale, run, destroy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from homeport.cli import show
from homeport.cli.client import Client, segment
from homeport.cli.errors import CliError, usage
from homeport.cli.follow import Follower, show_result
from homeport.cli.options import EdgePort, EnvFile, Environment, Folder, Json, Prefer, Profile, Project, Strict, Verbose, Yes
from homeport.cli.variables import read_env_file
from homeport.cli.where import find_project, path_of

DataFrom = Annotated[str, typer.Option("--data-from", help="Environment whose data, masked, the databases of a new one begin with.")]
Workers = Annotated[bool, typer.Option("--with-workers", help="With --data-from: run workers as well.")]
Crons = Annotated[bool, typer.Option("--with-crons", help="With --data-from: run scheduled jobs as well.")]


def register(app: typer.Typer) -> None:
    app.command("up", help="Deploy a folder and print its addresses; starts Homeport if need be.")(up)
    app.command("deploy", help="Deploy a folder, or a git repository with --repository.")(deploy)
    app.command("rollback", help="Put an earlier release live again.")(rollback)
    app.command("scale", help="Set how many instances run: scale web=3.")(scale)
    app.command("run", help="Run a one-off command in a service's surroundings.")(run)
    app.command("destroy", help="Remove a project; its data is kept 7 days.")(destroy)


def up(
    path: Folder = Path(),
    environment: Environment = "production",
    env_file: EnvFile = None,
    prefer: Prefer = "",
    profile: Profile = None,
    edge_port: EdgePort = None,
    data_from: DataFrom = "",
    workers: Workers = False,
    crons: Crons = False,
    yes: Yes = False,
    strict: Strict = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    client = Client(start=True, edge_port=edge_port)
    _port_agrees(client, edge_port)
    body = {
        "folder": str(path.resolve()),
        "environment": environment,
        "prefer": prefer,
        "profiles": profile or [],
        "confirmed": yes,
        "strict": strict,
        **_data(data_from, workers=workers, crons=crons),
    }
    _deploy(client, body, env_file, json=json, verbose=verbose)


def deploy(
    path: Folder = Path(),
    environment: Environment = "production",
    repository: Annotated[str, typer.Option("--repository", help="Git address to deploy instead of a folder.")] = "",
    reference: Annotated[str, typer.Option("--ref", help="Branch, tag or commit.")] = "",
    project: Project = None,
    env_file: EnvFile = None,
    prefer: Prefer = "",
    profile: Profile = None,
    data_from: DataFrom = "",
    workers: Workers = False,
    crons: Crons = False,
    yes: Yes = False,
    strict: Strict = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    client = Client(start=True)
    if repository and not project:
        project = repository.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git").lower()
    body: dict[str, Any] = {
        "environment": environment,
        "prefer": prefer,
        "profiles": profile or [],
        "confirmed": yes,
        "strict": strict,
        "reference": reference,
        **_data(data_from, workers=workers, crons=crons),
    }
    body |= {"repository": repository, "project": project} if repository else {"folder": str(path.resolve()), "project": project}
    _deploy(client, body, env_file, json=json, verbose=verbose)


def _data(source: str, *, workers: bool, crons: bool) -> dict[str, Any]:
    if (workers or crons) and not source:
        raise usage("--with-workers and --with-crons belong to --data-from.", "Every other deploy runs them anyway.")
    return {"data_from": source, "workers": workers, "crons": crons} if source else {}


def _port_agrees(client: Client, wanted: int | None) -> None:
    running = client.facts().get("edge_port")
    if wanted and running and wanted != running:
        raise usage(
            f"The control plane that runs serves on port {running}, not {wanted}.", "Leave --edge-port out, or `homeport down` first."
        )


def _deploy(client: Client, body: dict[str, Any], env_file: Path | None, *, json: bool, verbose: bool) -> None:
    if not body.get("project"):
        body["project"] = client.post("/api/v1/identify", body)["project"]
    if env_file is not None:
        _set(client, body, read_env_file(env_file), "file")
    while True:
        asked = client.post("/api/v1/deploys", body)
        result = Follower(json=json, verbose=verbose).run(client.follow(asked["id"]))
        result = result or client.get(f"/api/v1/deploys/{asked['id']}")["result"] or {"status": "superseded"}
        error = result.get("error") or {}
        interactive = sys.stdin.isatty() and sys.stderr.isatty() and not json
        if interactive and error.get("code") == "secrets-missing":
            _set(client, body, _ask(error["missing"]), "terminal")
        elif interactive and error.get("code") == "confirmation-needed" and typer.confirm(f"{error['why']} Go on?", err=True):
            body["confirmed"] = True
        else:
            return _finish(result, json=json)


def _finish(result: dict[str, Any], *, json: bool) -> None:
    tail = result.pop("tail", None)
    if json:
        show.as_json(result)
    elif result.get("status") == "live":
        show_result(result)
    if result.get("status") == "superseded":
        raise CliError(
            {"code": "superseded", "what": "This deploy gave way.", "why": "A newer one of the environment was asked for.", "fix": ""}
        )
    if result.get("status") != "live":
        error = CliError({**(result.get("error") or {}), "tail": tail})
        if json:
            sys.stderr.write(error.text() + "\n")
            raise typer.Exit(error.exit_code)
        raise error


def _ask(missing: dict[str, str]) -> dict[str, str]:
    from getpass import getpass

    show.note("These values are needed once; they are sealed in the vault:")
    return {key: getpass(f"  {key}{f' ({about})' if about else ''}: ") for key, about in missing.items()}


def _set(client: Client, body: dict[str, Any], values: dict[str, str], source: str) -> None:
    client.post(f"{path_of(body['project'], body['environment'])}/env", {"set": values, "source": source})


def rollback(
    release: Annotated[str, typer.Argument(help="Release to go back to; default the one before.", show_default=False)] = "",
    project: Project = None,
    environment: Environment = "production",
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")] = "",
    json: Json = False,
) -> None:
    client = Client()
    number = release.lower().removeprefix("r")
    if number and not number.isdigit():
        raise usage(f"{release!r} is not a release.", "Name one as `homeport releases` shows it, such as r12.")
    name, environment = find_project(client, project, environment)
    asked = client.post(f"{path_of(name, environment)}/rollback", {"release": int(number or 0), "reason": reason})
    result = Follower(json=json).run(client.follow(asked["id"]))
    _finish(result or client.get(f"/api/v1/deploys/{asked['id']}")["result"], json=json)


def scale(
    services: Annotated[list[str], typer.Argument(help="service=count", show_default=False)],
    project: Project = None,
    environment: Environment = "production",
    json: Json = False,
) -> None:
    wanted: dict[str, int] = {}
    for text in services:
        service, _, count = text.partition("=")
        if not count.isdigit():
            raise usage(f"{text!r} does not say how many.", "Write it like `homeport scale web=3`.")
        wanted[service] = int(count)
    client = Client()
    name, environment = find_project(client, project, environment)
    found = client.post(f"{path_of(name, environment)}/scale", {"services": wanted})
    if json:
        show.as_json(found)
    else:
        for row in found["services"]:
            if row["name"] in wanted:
                show.line(f"{row['name']}: {row['healthy']} of {row['wanted']} instances healthy")


def run(
    command: Annotated[list[str], typer.Argument(help="Command and its arguments, after `--`.", show_default=False)],
    service: Annotated[str, typer.Option("--service", "-s", help="Service whose surroundings it gets.")] = "",
    project: Project = None,
    environment: Environment = "production",
) -> None:
    client = Client()
    name, environment = find_project(client, project, environment)
    for _, line in client.stream("POST", f"{path_of(name, environment)}/run", {"service": service, "command": command}):
        if "exit" in line:
            raise typer.Exit(line["exit"])
        stream = sys.stdout if line["stream"] == "stdout" else sys.stderr
        stream.write(line["text"] + "\n")
        stream.flush()
    raise typer.Exit(1)


def destroy(
    project: Annotated[str, typer.Argument(help="Project to remove.", show_default=False)],
    environment: Annotated[str, typer.Option("--env", "-e", help="Only this environment.")] = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    if not yes:
        if not sys.stdin.isatty():
            raise usage("Removing a project needs a confirmation.", "Say `--yes`, or run it in a terminal.")
        if typer.prompt(f"Type {project} to remove it", err=True) != project:
            raise usage("The name was not confirmed.", "Nothing was removed.")
    found = Client().delete(f"/api/v1/projects/{segment(project)}", environment=environment)
    if json:
        show.as_json(found)
    else:
        show.line(f"Removed {', '.join(found['removed'])}. Its data is kept 7 days: see `homeport addons kept --project {project}`.")
