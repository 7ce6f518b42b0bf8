"""`homeport env`: variables of an environment."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from homeport.cli import show
from homeport.cli.client import Client, segment
from homeport.cli.errors import CliError, usage
from homeport.cli.options import Environment, Json, Project, Yes
from homeport.cli.variables import read_variables
from homeport.cli.where import find_project, path_of

SHOWN = 20
"""Names of changed variables that are listed."""

Service = Annotated[str, typer.Option("--service", "-s", help="Only for this service.")]


def register(app: typer.Typer) -> None:
    env = typer.Typer(help="Variables: where each comes from; set, unset, import.", invoke_without_command=True, rich_markup_mode=None)
    env.callback()(list_)
    env.command("get", help="Show one value; the look is written down.")(get)
    env.command("set", help="Set variables: KEY=VALUE, KEY (asks), KEY=- (stdin).")(set_)
    env.command("rotate", help="Make a new value; the former one works on for a while.")(rotate)
    env.command("unset", help="Take variables away.")(unset)
    env.command("import", help="Set all variables of a file of KEY=VALUE lines.")(import_)
    env.command("export", help="All values as KEY=VALUE lines; written down.")(export)
    env.command("diff", help="What differs from another environment or release.")(diff)
    env.command("restore", help="Bring back a version, or what was at a moment.")(restore)
    env.command("version", help="Enable, disable or destroy a version.")(version)
    env.command("history", help="Versions of the variables that were set.")(history)
    app.add_typer(env, name="env")


def list_(
    context: typer.Context,
    project: Project = None,
    environment: Environment = "production",
    every: Annotated[bool, typer.Option("--all", help="Also those that nobody names: of add-ons, other services, the platform.")] = False,
    json: Json = False,
) -> None:
    if context.invoked_subcommand is not None:
        return None
    client = Client()
    name, environment = find_project(client, project, environment, undeployed=True)
    found = client.get(f"{path_of(name, environment)}/env", told=every)
    if json:
        return show.as_json(found)
    rows = [
        (
            r["service"],
            r["key"],
            r["origin"],
            f"v{r['version']}" if r["version"] else "",
            r["set_by"],
            r["value"] if r["value"] is not None else "" if r["origin"] == "missing" else "••••••",
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
    name, environment = find_project(client, project, environment, undeployed=True)
    scope, _, key = key.rpartition("/")  # `web/KEY`, as other verbs print it
    found = client.get(f"{path_of(name, environment)}/env/{segment(key)}", service=service or scope)
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
        Path | None,
        typer.Option("--from-file", help="File whose content is the value of the one KEY given; one line without its end.", exists=True),
    ] = None,
    json: Json = False,
) -> None:
    values: dict[str, str] = {}
    if from_file is not None and (len(variables) != 1 or "=" in variables[0]):
        raise usage("With --from-file exactly one KEY is given, without a value.", "Write it like `homeport env set KEY --from-file FILE`.")
    if sum(text.endswith("=-") for text in variables) > 1:
        raise usage("Standard input can be the value of one KEY only.", "Set them one after the other, or use `homeport env import -`.")
    for text in variables:
        key, equals, value = text.partition("=")
        if from_file is not None:
            value = one_line(as_text(from_file.read_bytes(), str(from_file)))
        elif not equals:
            if not sys.stdin.isatty():
                raise usage(f"{key} has no value.", f"Write {key}=VALUE, or {key}=- and give the value on standard input.")
            from getpass import getpass

            value = getpass(f"{key}: ")
        elif value == "-":
            value = as_text(sys.stdin.buffer.read(), "standard input").removesuffix("\n")
        values[f"{service}/{key}" if service else key] = value
    _change(project, environment, {"set": values, "source": "cli"}, json=json)


def rotate(
    variable: Annotated[str, typer.Argument(help="KEY of a generated value, or KEY=- with the new one on stdin.", show_default=False)],
    overlap: Annotated[str, typer.Option("--overlap", help="How long the former value is given as KEY_PREVIOUS, too; 0s for not.")] = "24h",
    project: Project = None,
    environment: Environment = "production",
    service: Service = "",
    json: Json = False,
) -> None:
    key, equals, value = variable.partition("=")
    if equals and value == "-":
        value = as_text(sys.stdin.buffer.read(), "standard input").removesuffix("\n")
    if equals and not value:
        raise usage(f"The new value of {key} is empty.", f"Write {key}=- and give the value on standard input.")
    client = Client(start=True)
    name, environment = find_project(client, project, environment, undeployed=True)
    body = {"name": f"{service}/{key}" if service else key, "value": value, "overlap": overlap}
    found = client.post(f"{path_of(name, environment)}/env-rotate", body)
    if json:
        return show.as_json(found)
    show.line(f"{key} has a new value, version {found['version']}. It takes effect with the next deploy (`homeport up`).")
    if found["previous"]:
        show.note(f"The former one is {key}_PREVIOUS in deploys until {str(found['until'])[:16].replace('T', ' ')} UTC.")
    if found["dropped"]:
        show.note(f"The one before that, which had until {str(found['dropped'])[:16].replace('T', ' ')} UTC, is given no more.")
    return None


def unset(
    keys: Annotated[list[str], typer.Argument(help="KEY …", show_default=False)],
    project: Project = None,
    environment: Environment = "production",
    service: Service = "",
    json: Json = False,
) -> None:
    _change(project, environment, {"unset": [f"{service}/{key}" if service else key for key in keys]}, json=json)


def import_(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="File of KEY=VALUE lines, or - for standard input.", show_default=False)],
    project: Project = None,
    environment: Environment = "production",
    service: Service = "",
    json: Json = False,
) -> None:
    values = {f"{service}/{key}" if service else key: value for key, value in _read_variables(file).items()}
    _change(project, environment, {"set": values, "source": "file"}, json=json)


def history(
    key: Annotated[str, typer.Argument(help="Only this variable.", show_default=False)] = "",
    project: Project = None,
    environment: Environment = "production",
    json: Json = False,
) -> None:
    client = Client()
    name, environment = find_project(client, project, environment, undeployed=True)
    found = client.get(f"{path_of(name, environment)}/env-history", key=key)
    if json:
        return show.as_json(found)
    rows = [(r["name"], f"v{r['version']}", r["state"], r["source"], r["created_by"], show.ago(r["created_at"]), r["note"]) for r in found]
    return show.table(("VARIABLE", "VERSION", "STATE", "FROM", "BY", "WHEN", "NOTE"), rows)


def export(
    project: Project = None,
    environment: Environment = "production",
    service: Annotated[str, typer.Option("--service", "-s", help="What this service has, its own values over those of all.")] = "",
    file: Annotated[Path | None, typer.Option("--output", "-o", help="File to write, readable by you alone.")] = None,
    json: Json = False,
) -> None:
    client = Client(start=True)
    name, environment = find_project(client, project, environment, undeployed=True)
    found: dict[str, str] = client.post(f"{path_of(name, environment)}/env-export")["variables"]
    shared = {key: value for key, value in found.items() if "/" not in key}
    if service:
        own = {key.removeprefix(f"{service}/"): value for key, value in found.items() if key.startswith(f"{service}/")}
        found = shared | own
    elif not json and len(shared) < len(found):
        show.note(f"{len(found) - len(shared)} values belong to one service and are left out; use --service NAME, or --json for all.")
        found = shared
    text = jsonlib.dumps(found, indent=2, ensure_ascii=False) + "\n" if json else "".join(dotenv(k, v) for k, v in sorted(found.items()))
    if file is None:
        sys.stdout.write(text)
    else:
        write_private(file, text)
        show.note(f"{len(found)} values were written to {file}.")


def diff(
    other: Annotated[str, typer.Argument(help="Environment or release (r12); default what the next deploy would use.")] = "",
    project: Project = None,
    environment: Environment = "production",
    release: Annotated[str, typer.Option("--release", help="Release to compare, instead of what is live.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Also what is equal.")] = False,
    json: Json = False,
) -> None:
    client = Client(start=True)
    name, environment = find_project(client, project, environment, undeployed=True)
    numbered = other[:1] == "r" and other[1:].isdigit()
    query = {"with_release": other} if numbered else {"with_environment": other}
    found = client.get(f"{path_of(name, environment)}/env-diff", release=release, **query)
    if json:
        return show.as_json(found)
    rows = [(r["service"], r["key"], r["status"], r["left"], r["right"]) for r in found if everything or r["status"] != "same"]
    if not rows:
        return show.line(f"No difference in {len(found)} variables.")
    left = f"{environment} {release}".strip()
    return show.table(("SERVICE", "KEY", "", left.upper(), (other or "next deploy").upper()), rows)


def restore(
    what: Annotated[str, typer.Argument(help="KEY@VERSION, or a moment such as 2026-11-20T14:05Z.", show_default=False)],
    project: Project = None,
    environment: Environment = "production",
    service: Service = "",
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    json: Json = False,
) -> None:
    key, at, number = what.rpartition("@")
    if at and number.removeprefix("v").isdigit():
        body: dict[str, object] = {"name": f"{service}/{key}" if service else key, "version": int(number.removeprefix("v")), "dry": dry}
    elif is_moment(what):
        body = {"at": what, "dry": dry}
    else:
        raise usage(f"{what} is neither KEY@VERSION nor a moment.", "Write it like API_TOKEN@3, or 2026-11-20T14:05Z.")
    client = Client(start=True)
    name, environment = find_project(client, project, environment, undeployed=True)
    found = client.post(f"{path_of(name, environment)}/env-restore", body)
    if json:
        return show.as_json(found)
    for change in found:
        show.line(f"{change['name']}: " + (f"version {change['version']} again" if change["action"] == "set" else "no value"))
    after = "Nothing was changed." if dry else "It takes effect with the next deploy (`homeport up`)."
    return show.note(after if found else "Nothing differs from then.")


def version(
    what: Annotated[str, typer.Argument(help="KEY@VERSION", show_default=False)],
    state: Annotated[str, typer.Argument(help="enable, disable or destroy", show_default=False)],
    project: Project = None,
    environment: Environment = "production",
    service: Service = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    key, _, number = what.rpartition("@")
    states = {"enable": "enabled", "disable": "disabled", "destroy": "destroyed"}
    if not key or not number.removeprefix("v").isdigit() or state not in states:
        raise usage(f"{what} {state} is not understood.", "Write it like `homeport env version TOKEN@3 disable`.")
    client = Client(start=True)
    name, environment = find_project(client, project, environment, undeployed=True)
    wanted = {"name": f"{service}/{key}" if service else key, "version": int(number.removeprefix("v")), "state": states[state]}
    found = client.post(f"{path_of(name, environment)}/env-versions", {**wanted, "confirmed": yes})
    if json:
        return show.as_json(found)
    return show.line(f"{key} v{found['version']} is {found['state']}.")


def _read_variables(file: Path) -> dict[str, str]:
    """KEY=VALUE lines or a JSON object, from a file or standard input."""
    if str(file) != "-" and not file.is_file():
        raise usage(f"There is no file {file}.", "Name a file of KEY=VALUE lines, or - for standard input.")
    place = "standard input" if str(file) == "-" else str(file)
    text = as_text(sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes(), place)
    if text.lstrip().startswith("{"):
        try:
            found = jsonlib.loads(text)
        except ValueError as error:
            raise usage(f"{place} is not JSON.", "Write an object of names and texts, or KEY=VALUE lines.") from error
        if empty := [key for key, value in found.items() if value is None]:
            raise usage(f"{', '.join(empty[:5])} in {place} is null.", 'Give it a value, "" for an empty one, or take it out.')
        return {str(key): value if isinstance(value, str) else jsonlib.dumps(value) for key, value in found.items()}
    return read_variables(text, place)


def as_text(data: bytes, place: str) -> str:
    """Text of a file or of standard input. Raises CliError for what is binary; it is not repeated."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise usage(f"{place} is not text (UTF-8).", "Encode binary values (`base64`), or put them in a file on a disk.") from error


def one_line(text: str) -> str:
    """A text of one line without the line's end, which editors and `echo` add and no token has; longer texts (keys) as they are."""
    line = text.removesuffix("\n").removesuffix("\r")
    return text if "\n" in line else line


def is_moment(text: str) -> bool:
    """Whether a text is a moment as ISO 8601 writes it."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def dotenv(key: str, value: str) -> str:
    """One line that every dotenv reader takes back to the same value (`import` does)."""
    if value and all(c.isalnum() or c in "_-./:@+,%" for c in value) and value.isascii():
        return f"{key}={value}\n"
    if "'" not in value and "\\" not in value:
        return f"{key}='{value}'\n"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("\n", "\\n").replace("\r", "\\r")
    return f'{key}="{escaped}"\n'


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)


def _change(project: str | None, environment: str, body: dict[str, object], *, json: bool) -> None:
    client = Client(start=True)
    name, environment = find_project(client, project, environment, undeployed=True)
    found = client.post(f"{path_of(name, environment)}/env", body)
    if json:
        return show.as_json(found)
    for note in found["notes"]:
        show.note(note)
    if found["changed"]:
        names = found["changed"]
        shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
        return show.line(f"Changed {shown}. It takes effect with the next deploy (`homeport up`).")
    return show.line("Nothing changed.")


__all__ = ["CliError", "register"]
