"""Verbs about deployment files: plan, blueprint check, convert, export, init. They read files and need no control plane."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeport.cli import show
from homeport.cli.client import Client, segment
from homeport.cli.errors import CliError, usage
from homeport.cli.options import Environment, Folder, Json, Prefer, Project, Strict, Yes
from homeport.cli.where import find_project, path_of

if TYPE_CHECKING:
    from homeport.model.reading import Written

Target = Annotated[Path | None, typer.Option("--output", "-o", help="File to write, the others of the dialect beside it; or a folder.")]
Dialect = Annotated[str, typer.Option("--to", help="Dialect to write: homeport, render, compose, …", show_default=False)]


def register(app: typer.Typer) -> None:
    app.command("plan", help="Show what a deploy would do, and what becomes of every key.")(plan)
    app.command("init", help="Write a commented homeport.yaml from what is there.")(init)
    app.command("convert", help="Write a project's files in another dialect.")(convert)
    app.command("export", help="Write what is live in a dialect.")(export)
    blueprint = typer.Typer(help="Deployment files: check them, see every key.", no_args_is_help=True, rich_markup_mode=None)
    blueprint.command("check", help="Say what becomes of every key of files.")(check)
    blueprint.command("schema", help="Print the JSON Schema of homeport.yaml.")(schema)
    blueprint.command("sample", help="Print a homeport.yaml that explains every key.")(sample)
    blueprint.command("dialects", help="List the dialects that are read and written.")(dialects)
    app.add_typer(blueprint, name="blueprint")


def plan(
    path: Folder = Path(),
    environment: Environment = "production",
    prefer: Prefer = "",
    strict: Strict = False,
    json: Json = False,
    keys: Annotated[bool, typer.Option("--keys", help="List every key, the honoured ones too.")] = False,
) -> None:
    from homeport.blueprints.discover import read_project
    from homeport.blueprints.source import FolderTree
    from homeport.blueprints.strict import require_known
    from homeport.cli.planning import as_data, show_plan

    folder, prefer = _folder_of(path, prefer)
    with _told(json=json):
        reading = read_project(FolderTree(folder), environment=environment, prefer=prefer)
        if strict:
            require_known(reading.readings)
    compared = _against_live(folder, environment, prefer)
    if json:
        show.as_json(as_data(reading, compared))
    else:
        show_plan(reading, compared, every_key=keys)


def _folder_of(path: Path, prefer: str) -> tuple[Path, str]:
    """The project's folder, and the file that decides when a file was named."""
    if path.is_file():
        return path.resolve().parent, prefer or path.name
    if not path.is_dir():
        raise usage(f"{path} does not exist.", "Name the project's folder, or one of its deployment files.")
    return path.resolve(), prefer


@contextlib.contextmanager
def _told(*, json: bool = False) -> Iterator[None]:
    """Errors of the floors below as this door shows them; with `json` also as a document."""
    from homeport.model.errors import HomeportError

    try:
        yield
    except HomeportError as error:
        from homeport.api.errors import body_of

        body = body_of(error)
        if json:
            show.as_json({"error": body})
        raise CliError(body) from error


def _against_live(folder: Path, environment: str, prefer: str) -> dict[str, Any] | None:
    """The plan against what is live, when a control plane runs; None without one."""
    try:
        client = Client()
    except CliError:
        return None
    found: dict[str, Any] = client.post("/api/v1/plan", {"folder": str(folder), "environment": environment, "prefer": prefer})
    return found


def check(
    paths: Annotated[list[Path], typer.Argument(help="Files, or folders to search for them.", show_default=False)],
    strict: Strict = False,
    json: Json = False,
    keys: Annotated[bool, typer.Option("--keys", help="List every key, the honoured ones too.")] = False,
) -> None:
    from homeport.blueprints.explain import check_paths
    from homeport.cli.planning import show_reports

    for path in paths:
        if not path.exists():
            raise usage(f"{path} does not exist.", "Name files or folders that are there.")
    reports = list(check_paths(paths))
    if json:
        show.as_json([report.as_json() for report in reports])
    elif not reports:
        show.line("No deployment file was found.")
    else:
        show_reports(reports, every_key=keys)
    if any(not report.ok for report in reports) or (strict and any(report.keys.unknown for report in reports)):
        raise typer.Exit(6)


def convert(to: Dialect, path: Folder = Path(), output: Target = None, json: Json = False) -> None:
    from homeport.blueprints.convert import convert as write
    from homeport.blueprints.discover import read_project
    from homeport.blueprints.explain import read_alone
    from homeport.blueprints.source import FolderTree
    from homeport.deploys.provided import not_carried

    if not path.exists():
        raise usage(f"{path} does not exist.", "Name the project's folder, or one of its deployment files.")
    with _told():
        if path.is_file():
            reading = read_alone(path)
            spec, dialects = reading.spec, dict.fromkeys(reading.spec.services, reading.dialect)
        else:
            found = read_project(FolderTree(path.resolve()))
            spec, dialects = found.document, found.dialects
        written = write(spec, to)
        written = written.model_copy(update={"losses": (*written.losses, *not_carried(spec, dialects, to))})
    _deliver(written, output, json=json)


def export(
    dialect: Annotated[str, typer.Argument(help="Dialect to write.", show_default=False)] = "homeport",
    output: Target = None,
    project: Project = None,
    environment: Environment = "production",
    json: Json = False,
) -> None:
    from homeport.model.reading import Written

    client = Client()
    name, environment = find_project(client, project, environment)
    found = client.get(f"{path_of(name, environment)}/blueprints/{segment(dialect)}")
    _deliver(Written.model_validate(found), output, json=json)


def _deliver(written: Written, output: Path | None, *, json: bool) -> None:
    """To a file, a folder or standard output; what the dialect cannot say goes beside."""
    if output is not None:
        for file, text in _places(written, output).items():
            _write(file, text)
    if json:
        show.as_json(written.model_dump(mode="json"))
        return
    if output is None:
        for name, text in written.files.items():
            show.line((f"# {name}\n" if len(written.files) > 1 else "") + text.rstrip("\n"))
    else:
        show.note("Wrote " + ", ".join(str(file) for file in _places(written, output)) + ".")
    if written.losses:
        show.note(f"What {written.dialect} cannot say:")
    for loss in written.losses:
        show.note(f"  {loss.path}: {loss.reason}")


def _places(written: Written, output: Path) -> dict[Path, str]:
    if len(written.files) == 1 and not output.is_dir():
        return {output: next(iter(written.files.values()))}
    if output.name in written.files and not output.is_dir():
        return {output.parent / name: text for name, text in written.files.items()}
    if output.is_file():
        raise usage(f"{written.dialect} is written as {len(written.files)} files, and {output} is one.", "Name a folder with --output.")
    return {output / name: text for name, text in written.files.items()}


def _write(file: Path, text: str) -> None:
    from homeport.drivers.files import write_atomic

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, text.encode(), mode=0o644)
    except OSError as error:
        raise usage(f"{file} cannot be written: {error.strerror or error}.", "Name another place with --output.") from error


def init(path: Folder = Path(), yes: Yes = False, json: Json = False) -> None:
    from homeport.blueprints.convert import without_assumed
    from homeport.blueprints.discover import read_project
    from homeport.blueprints.source import FolderTree
    from homeport.blueprints.starter import starter
    from homeport.deploys.provided import not_carried

    if not path.is_dir():
        raise usage(f"{path} is not a folder.", "Name the project's folder.")
    file = path / "homeport.yaml"
    if file.exists() and not yes:
        raise usage(f"{file} is there already.", "Say `--yes` to replace it.")
    with _told():
        reading = read_project(FolderTree(path.resolve()))
        origin = ", ".join(one.file for one in reading.readings if one.dialect != "detect") or "the source itself"
        text = starter(without_assumed(reading.document), origin)
    _write(file, text)
    losses = not_carried(reading.document, reading.dialects, "homeport")
    if json:
        named = {"services": list(reading.document.services), "addons": list(reading.document.addons)}
        return show.as_json({"file": str(file), "from": origin, **named, "losses": [loss.model_dump() for loss in losses]})
    show.line(f"Wrote {file} from {origin}. It comes before other files from now on; see `homeport plan`.")
    for loss in losses:
        show.note(f"  {loss.path}: {loss.reason}")
    return None


def schema() -> None:
    from homeport.blueprints.homeport import homeport_schema

    show.as_json(homeport_schema())


def sample() -> None:
    from homeport.blueprints.sample import sample as text

    show.line(text().rstrip("\n"))


def dialects(json: Json = False) -> None:
    from homeport.blueprints.registry import DIALECTS

    rows = [
        {"dialect": n, "title": e.title, "read": bool(e.reader), "written": bool(e.writer)} for n, e in DIALECTS.items() if n != "detect"
    ]
    if json:
        return show.as_json(rows)
    marks = {True: "yes", False: "no"}
    return show.table(
        ("DIALECT", "WHAT IT IS", "READ", "WRITTEN"),
        [(r["dialect"], r["title"], *(marks[bool(r[k])] for k in ("read", "written"))) for r in rows],
    )
