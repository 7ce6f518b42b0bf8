"""Which project a command is about: named, or the one whose folder this is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from homeport.cli.client import Client, segment
from homeport.cli.errors import CliError

FEW = 5
"""Projects that a refusal names."""


def find_project(
    client: Client, project: str | None, environment: str, *, undeployed: bool = False, only_here: bool = False
) -> tuple[str, str]:
    """The project and environment; with `undeployed` also the one this folder would be. Raises CliError when it is not clear which.

    In a folder that was never deployed the home's only project is meant. A verb that touches data says `only_here`: then that
    project has to be named, since whoever stands in the folder of another one may mean that.
    """
    if project:
        return project, environment
    known: list[dict[str, Any]] = client.get("/api/v1/environments")
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if found := _from(folder, known, environment):
            if len(found) > 1 and only_here:
                why = f"{folder} was deployed as {', '.join(found[:FEW])}, and this command touches data of one of them."
                fix = f"Name the project, as in `--project {found[0]}`."
                raise CliError({"code": "not-found", "what": "Nothing was done.", "why": why, "fix": fix})
            return found[0], environment
    if undeployed and (name := _described(client, here)):
        return name, environment
    names = sorted({str(row["project"]) for row in known})
    if names and only_here:
        more = f"{', '.join(names[:FEW])}{', …' if len(names) > FEW else ''}"
        why = f"{here} was never deployed, and this command touches data, so it goes to no other project by itself (there is: {more})."
        fix = f"Name the project, as in `--project {names[0]}`, or go to its folder; `homeport up` deploys this one."
        raise CliError({"code": "not-found", "what": "Nothing was done.", "why": why, "fix": fix})
    if len(names) == 1:
        return names[0], environment
    why = f"There are several projects: {', '.join(names)}." if names else "Nothing has been deployed here yet."
    fix = "Name one with `--project`, or go to its folder." if names else "Deploy a folder with `homeport up PATH`."
    raise CliError({"code": "not-found", "what": "Nothing was done.", "why": why, "fix": fix})


def _from(folder: Path, known: list[dict[str, Any]], environment: str) -> list[str]:
    """Projects that a folder was deployed as: those with the environment, else all."""
    rows = [row for row in known if row["origin"] == str(folder)]
    rows = [row for row in rows if row["environment"] == environment] or rows
    return list(dict.fromkeys(str(row["project"]) for row in rows))


def _described(client: Client, folder: Path) -> str:
    """The project that the deployment files of a folder describe; empty when it has none."""
    from homeport.blueprints.discover import find_files
    from homeport.blueprints.source import FolderTree

    try:
        return str(client.post("/api/v1/identify", {"folder": str(folder)})["project"]) if find_files(FolderTree(folder)) else ""
    except (CliError, OSError):
        return ""


def path_of(project: str, environment: str) -> str:
    """The API path of an environment."""
    return f"/api/v1/projects/{segment(project)}/environments/{segment(environment)}"
