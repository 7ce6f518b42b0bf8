"""Verbs that only look: status, ps, logs, releases, events, cron, open."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from homeport.cli import show
from homeport.cli.client import Client, segment
from homeport.cli.errors import CliError
from homeport.cli.options import Environment, Json, Project
from homeport.cli.where import find_project, path_of

Limit = Annotated[int, typer.Option("--limit", "-n", help="How many.", min=1, max=500)]


def register(app: typer.Typer) -> None:
    app.command("status", help="What is live, and how it is.")(status)
    app.command("ps", help="Every instance.")(ps)
    app.command("logs", help="What the application wrote.")(logs)
    app.command("releases", help="Releases, newest first.")(releases)
    app.command("events", help="What happened, and by whom.")(events)
    app.command("open", help="Print (and open) the address of a service.")(open_)
    crons = typer.Typer(help="Scheduled jobs.", invoke_without_command=True, rich_markup_mode=None)
    crons.callback()(cron)
    crons.command("run", help="Run a scheduled job now.")(cron_run)
    crons.command("runs", help="Runs of scheduled jobs, newest first.")(cron_runs)
    app.add_typer(crons, name="cron")


def status(
    project: Project = None,
    environment: Environment = "production",
    everything: Annotated[bool, typer.Option("--all", "-a", help="Every project.")] = False,
    json: Json = False,
) -> None:
    client = Client()
    if everything:
        found = client.get("/api/v1/environments")
    else:
        name, environment = find_project(client, project, environment)
        found = [client.get(path_of(name, environment))]
    if json:
        return show.as_json(found if everything else found[0])
    for number, row in enumerate(found):
        if number:
            show.line()
        _environment(row)
    if not found:
        show.line("Nothing has been deployed yet. Deploy a folder with `homeport up PATH`.")
    return None


def _environment(row: dict[str, Any]) -> None:
    commit = f", commit {row['commit'][:9]}" if row["commit"] else ""
    live = f"{row['release']} live for {show.ago(row['live_since']).removesuffix(' ago')}{commit}" if row["release"] else "nothing live"
    show.line(f"{row['project']}/{row['environment']}: {live}")
    if row["deploying"]:
        show.line("  a deploy is on its way")
    if row["watched_until"]:
        show.line("  the release is being watched and goes back by itself if it does badly")
    for name, why in row["unwell_addons"].items():
        show.line(f"  the add-on {name} does not answer: {why}")
    rows = [(s["name"], s["kind"], s["state"], _count(s), s["url"] or s["detail"] or "") for s in row["services"]]
    show.table(("SERVICE", "KIND", "STATE", "INSTANCES", "WHERE"), rows)


def _count(service: dict[str, Any]) -> str:
    return f"{service['healthy']}/{service['wanted']}" if service["wanted"] else ""


def ps(project: Project = None, environment: Environment = "production", json: Json = False) -> None:
    client = Client()
    name, environment = find_project(client, project, environment)
    found = client.get(f"{path_of(name, environment)}/instances")
    if json:
        return show.as_json(found)
    rows = [
        (
            r["service"],
            r["release"],
            r["role"],
            r["state"],
            r["address"],
            r["pid"] or "",
            show.size(r["memory"]) if r["pid"] else "",
            r["restarts"],
            show.ago(r["started_at"]),
            r["detail"],
        )
        for r in found
    ]
    return show.table(("SERVICE", "RELEASE", "ROLE", "STATE", "ADDRESS", "PID", "MEMORY", "RESTARTS", "STARTED", "DETAIL"), rows)


def logs(
    service: Annotated[str, typer.Argument(help="Service; default all.", show_default=False)] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing new lines.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", help="Lines of each instance to begin with.", min=0, max=100_000)] = 100,
    release: Annotated[str, typer.Option("--release", help="Only this release, such as r12.")] = "",
    project: Project = None,
    environment: Environment = "production",
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    client = Client()
    name, environment = find_project(client, project, environment)
    query = f"?tail={tail}&service={segment(service)}&release={segment(release)}" + ("&follow=true" if follow else "")
    import json as codec

    said = False
    for _, entry in client.stream("GET", f"{path_of(name, environment)}/logs{query}"):
        said = True
        if json:
            sys.stdout.write(codec.dumps(entry, ensure_ascii=False) + "\n")
        else:
            prefix = "" if service else f"{entry['service']} | "
            sys.stdout.write(f"{prefix}{_plain(entry['text'])}\n")
        sys.stdout.flush()
    if service and not said and service not in {s["name"] for s in client.get(path_of(name, environment))["services"]}:
        why = f"{name} has no service {service!r} in {environment}."
        raise CliError({"code": "not-found", "what": "There is nothing to show.", "why": why, "fix": "See `homeport status`."})


def _plain(text: str) -> str:
    """Without control characters, which could act on the reader's terminal; colours stay out as well."""
    return "".join(c if c.isprintable() or c == "\t" else "�" for c in text)


def releases(project: Project = None, environment: Environment = "production", limit: Limit = 20, json: Json = False) -> None:
    client = Client()
    name, environment = find_project(client, project, environment)
    found = client.get(f"{path_of(name, environment)}/releases", limit=limit)
    if json:
        return show.as_json(found)
    rows = [
        (
            r["id"],
            r["state"],
            show.ago(r["created_at"]),
            (r["commit"][:9] + ("+" if r["dirty"] else "")) if r["commit"] else "",
            r["message"][:50],
            r["created_by"],
            r["reason"],
        )
        for r in found
    ]
    return show.table(("RELEASE", "STATE", "CREATED", "COMMIT", "MESSAGE", "BY", "REASON"), rows)


def events(
    project: Project = None,
    environment: Environment = "production",
    everything: Annotated[bool, typer.Option("--all", "-a", help="Of every project.")] = False,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    client = Client()
    if everything:
        found = client.get("/api/v1/events", limit=limit)
    else:
        name, environment = find_project(client, project, environment)
        found = client.get(f"{path_of(name, environment)}/events", limit=limit)
    if json:
        return show.as_json(found)
    return show.table(("WHEN", "WHAT", "BY", ""), [(show.ago(r["at"]), r["kind"], r["actor"], r["text"]) for r in found])


def open_(
    service: Annotated[str, typer.Argument(help="Service; default the first with an address.", show_default=False)] = "",
    project: Project = None,
    environment: Environment = "production",
    json: Json = False,
) -> None:
    client = Client()
    name, environment = find_project(client, project, environment)
    found = [s for s in client.get(path_of(name, environment))["services"] if s["url"] and service in ("", s["name"])]
    if not found:
        why = f"{name} has no service {service!r} with an address." if service else f"{name} has no service with an address."
        raise CliError({"code": "not-found", "what": "Nothing was opened.", "why": why, "fix": "See `homeport status`."})
    if json:
        return show.as_json({"url": found[0]["url"]})
    show.line(found[0]["url"])
    if sys.stdout.isatty():
        typer.launch(found[0]["url"])
    return None


def cron(context: typer.Context, project: Project = None, environment: Environment = "production", json: Json = False) -> None:
    if context.invoked_subcommand is not None:
        return None
    client = Client()
    name, environment = find_project(client, project, environment)
    found = client.get(f"{path_of(name, environment)}/crons")
    if json:
        return show.as_json(found)
    rows = [(r["service"], r["schedule"], r["next"] or "", show.ago(r["last"]), r["status"], r["detail"]) for r in found]
    return show.table(("JOB", "SCHEDULE", "NEXT", "LAST", "STATUS", "DETAIL"), rows)


def cron_run(
    service: Annotated[str, typer.Argument(help="Job to run.", show_default=False)],
    project: Project = None,
    environment: Environment = "production",
    json: Json = False,
) -> None:
    client = Client()
    name, environment = find_project(client, project, environment)
    found = client.post(f"{path_of(name, environment)}/crons/{segment(service)}/run")
    if json:
        return show.as_json(found[0])
    return show.line(f"{service}: {found[0]['status']}" + (f" ({found[0]['detail']})" if found[0]["detail"] else ""))


def cron_runs(
    service: Annotated[str, typer.Argument(help="Only this job.", show_default=False)] = "",
    project: Project = None,
    environment: Environment = "production",
    limit: Limit = 20,
    json: Json = False,
) -> None:
    client = Client()
    name, environment = find_project(client, project, environment)
    found = client.get(f"{path_of(name, environment)}/crons/runs", service=service, limit=limit)
    if json:
        return show.as_json(found)
    rows = [
        (r["service"], r["trigger"], show.ago(r["started_at"]), r["status"], "" if r["code"] is None else r["code"], r["detail"])
        for r in found
    ]
    return show.table(("JOB", "BY", "STARTED", "STATUS", "CODE", "DETAIL"), rows)
