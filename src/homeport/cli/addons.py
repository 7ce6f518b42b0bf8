"""Verbs about add-ons: `homeport addons`, the clients `psql`, `valkey-cli` and `mysql`, and `port-forward`."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated, Any

import typer

from homeport.cli import show
from homeport.cli.client import Client, segment
from homeport.cli.errors import CliError, Interrupted, usage
from homeport.cli.follow import Follower
from homeport.cli.options import Environment, Json, Project
from homeport.cli.where import find_project, path_of

Name = Annotated[str, typer.Argument(help="Add-on, by any name the project's file gives it.", show_default=False)]
Maybe = Annotated[str, typer.Argument(help="Add-on; default the only one of its kind.", show_default=False)]
Sql = Annotated[list[str] | None, typer.Option("--command", "-c", help="SQL to run; may be given several times.")]


def register(app: typer.Typer) -> None:
    addons = typer.Typer(help="Add-ons: databases and other engines.", invoke_without_command=True, rich_markup_mode=None)
    addons.callback()(list_addons)
    addons.command("info", help="Everything about one add-on.")(info)
    addons.command("logs", help="What an add-on's server wrote.")(logs)
    addons.command("rotate", help="Change its passwords and hand them out with a deploy; old ones end when unused.")(rotate)
    addons.command("restart", help="Stop its server and start it again.")(restart)
    addons.command("upgrade", help="Move it to another major version.")(upgrade)
    addons.command("kept", help="Data that a removal or a restore has put aside.")(kept)
    addons.command("undo", help="Give it such data back; what it has now is put aside instead.")(undo)
    app.add_typer(addons, name="addons")
    app.command("psql", help="Open a PostgreSQL add-on, or run SQL in it with -c.")(psql)
    app.command("mysql", help="Open a MariaDB add-on, or run SQL in it with -c.")(mysql)
    app.command(
        "valkey-cli", help="Open a Valkey (Redis) add-on, or run one command in it.", context_settings={"ignore_unknown_options": True}
    )(valkey)
    app.command("port-forward", help="Make an add-on reachable on a port of 127.0.0.1, until interrupted.")(port_forward)


# --- looking ------------------------------------------------------------------------------------------------------


def list_addons(context: typer.Context, project: Project = None, environment: Environment = "production", json: Json = False) -> None:
    if context.invoked_subcommand is not None:
        return None
    client, path = _at(project, environment)
    found = client.get(path)
    if json:
        return show.as_json(found)
    if not found:
        return show.line("What is live has no add-ons.")
    rows = [(*_row(r), show.size(r["size"]) if r["size"] else "", show.size(r["memory"]) if r["memory"] else "", _count(r)) for r in found]
    return show.table(("ADD-ON", "ENGINE", "STATE", "ADDRESS", "DETAIL", "SIZE", "MEMORY", "CONNECTIONS"), rows)


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    engine = found["engine"] if found["engine"] not in ("", "external") else f"{found['kind']} {found['engine']}".strip()
    return found["name"], engine, found["state"], _address(found), found["detail"]


def _address(found: dict[str, Any]) -> str:
    return f"{found['host']}:{found['port']}" if found["port"] else found["host"]


def _count(found: dict[str, Any]) -> str:
    return str(found["connections"]) if found["state"] == "running" and found["kind"] != "temporal" else ""


def info(name: Name, project: Project = None, environment: Environment = "production", json: Json = False) -> None:
    client, path = _at(project, environment)
    _shown(client.get(f"{path}/{segment(name)}"), json=json)


def _shown(found: dict[str, Any], *, json: bool) -> None:
    if json:
        return show.as_json(found)
    rows: list[tuple[str, Any]] = [
        ("add-on", found["name"]),
        ("also known as", ", ".join(found["aliases"])),
        ("kind", found["kind"]),
        ("engine", found["engine"]),
        ("state", found["state"]),
        ("detail", found["detail"]),
        ("address", _address(found)),
        ("web interface", found["facts"].get("ui", "")),
        ("namespace", found["facts"].get("namespace", "")),
        ("replicas", ", ".join(found["replicas"])),
        ("pool", found["pool"]),
        ("from outside", f"port {found['gate']} of this machine, with sslmode=require" if found["gate"] else ""),
        ("used by", ", ".join(found["consumers"])),
        ("size", show.size(found["size"]) if found["size"] else ""),
        ("memory", show.size(found["memory"]) if found["memory"] else ""),
        *(_metric(key, value) for key, value in found["metrics"].items()),
        *(("slow", f"{query['count']} times, longest {query['longest_ms'] / 1000:.1f} s: {query['statement']}") for query in found["slow"]),
        *(("note", note) for note in found["notes"]),
    ]
    return show.table(("WHAT", ""), [row for row in rows if row[1] not in ("", None)])


LABELS = {
    "memory_bytes": "data in memory bytes",
    "memory_limit_bytes": "most data in memory bytes",
    "archive_bytes": "log to be backed up bytes",
    "replica_lag_bytes": "lag bytes",
}
"""Figures of engines whose names would be taken for something else."""


def _metric(key: str, value: float) -> tuple[str, str]:
    about, _, whose = key.partition(".")
    words = f"{whose} {LABELS.get(about, about)}".strip().replace("_", " ")
    if words.endswith(" ratio"):
        return words, f"{value:.1%}"
    return (words.removesuffix(" bytes"), show.size(value)) if words.endswith(" bytes") else (words, f"{value:.12g}")


def logs(
    name: Name,
    tail: Annotated[int, typer.Option("--tail", "-n", help="How many lines.", min=1, max=10_000)] = 100,
    project: Project = None,
    environment: Environment = "production",
    json: Json = False,
) -> None:
    client, path = _at(project, environment)
    found = client.get(f"{path}/{segment(name)}/logs", tail=tail)
    if json:
        return show.as_json(found)
    for text in found:
        show.line("".join(c if c.isprintable() or c == "\t" else "�" for c in text))
    return None


# --- changing -----------------------------------------------------------------------------------------------------


def rotate(
    name: Name,
    no_deploy: Annotated[bool, typer.Option("--no-deploy", help="Let the next deploy hand the new passwords out.")] = False,
    project: Project = None,
    environment: Environment = "production",
    json: Json = False,
) -> None:
    client, path = _at(project, environment, only_here=True)
    found = client.post(f"{path}/{segment(name)}/rotate", {"deploy": not no_deploy})
    result: dict[str, Any] = {}
    if found["deploy"]:
        result = Follower(json=json, verbose=False).run(client.follow(found["deploy"])) or {}
    if json:
        show.as_json(found | {"status": result.get("status", "")})
    elif result.get("status", "live") == "live":
        who = ", ".join(consumer or "the owner" for consumer in found["consumers"])
        show.line(f"{found['addon']} has new passwords for {who}.")
        waits = "until the next deploy has replaced what uses them" if no_deploy else "until the former instances are gone"
        show.line(f"The old ones work {waits}.")
    if result.get("status", "live") != "live":
        error = result.get("error") or {"code": "release-unwell", "why": "The deploy did not go live."}
        raise CliError({**error, "what": "The new passwords were not handed out; the old ones still work, and what served still serves."})


def restart(name: Name, project: Project = None, environment: Environment = "production", json: Json = False) -> None:
    client, path = _at(project, environment, only_here=True)
    _working(f"Restarting {name} …", json=json)
    found = client.call("POST", f"{path}/{segment(name)}/restart", {}, timeout=300)
    if json:
        return show.as_json(found)
    return show.line(f"{found['name']} is {found['state']}.")


def upgrade(
    name: Name,
    version: Annotated[str, typer.Option("--to", help="Major version; default the newest there is.")] = "",
    project: Project = None,
    environment: Environment = "production",
    json: Json = False,
) -> None:
    client, path = _at(project, environment, only_here=True)
    _working(f"Upgrading {name}; this takes as long as its data is large …", json=json)
    found = client.call("POST", f"{path}/{segment(name)}/upgrade", {"version": version}, timeout=3600)
    if json:
        return show.as_json(found)
    return show.line(f"{found['name']} runs as {found['engine']}.")


def kept(project: Project = None, environment: Environment = "production", json: Json = False) -> None:
    client = Client(start=True)
    name, environment = find_project(client, project, environment)
    found = client.get(f"{path_of(name, environment)}/kept")
    if json:
        return show.as_json(found)
    if not found:
        return show.line(f"Nothing of {name}/{environment} is kept.")
    rows = [
        (row["addon"], row["kind"], show.ago(row["since"]), f"{row['until'][:16].replace('T', ' ')} UTC", row["tombstone"]) for row in found
    ]
    return show.table(("ADD-ON", "KIND", "SINCE", "UNTIL", "TOMBSTONE"), rows)


def undo(
    name: Name,
    tombstone: Annotated[str, typer.Option("--from", help="Tombstone, as `addons kept` lists it; default the newest.")] = "",
    project: Project = None,
    environment: Environment = "production",
    json: Json = False,
) -> None:
    client, path = _at(project, environment, only_here=True)
    _working(f"Bringing the data of {name} back …", json=json)
    found = client.call("POST", f"{path}/{segment(name)}/undo", {"tombstone": tombstone}, timeout=300)
    if json:
        return show.as_json(found)
    show.line(f"{found['addon']} has its data of {found['tombstone']} again.")
    if found["former"]:
        show.line(f"What it had until now is kept 7 days as {found['former']}.")
    return None


# --- clients ------------------------------------------------------------------------------------------------------


def psql(
    name: Maybe = "",
    command: Sql = None,
    project: Project = None,
    environment: Environment = "production",
    json: Annotated[bool, typer.Option("--json", help="Rows as one JSON document; needs -c.")] = False,
) -> None:
    from homeport.cli import sql

    found = _connection(name, "postgres", project, environment)
    if json:
        return show.as_json(sql.postgres(found, _needed(command)))
    env = {"PGHOST": found["host"], "PGPORT": str(found["port"]), "PGUSER": found["user"], "PGDATABASE": found["database"]}
    arguments = [word for text in command or () for word in ("-c", text)]
    program = found["client"] or _installed("psql")
    return _become(program, ["-v", "ON_ERROR_STOP=1", *arguments], {**env, "PGPASSWORD": found["password"], "PGAPPNAME": "homeport psql"})


def mysql(
    name: Maybe = "",
    command: Sql = None,
    project: Project = None,
    environment: Environment = "production",
    json: Annotated[bool, typer.Option("--json", help="Rows as one JSON document; needs -c.")] = False,
) -> None:
    from homeport.cli import sql

    found = _connection(name, "mariadb", project, environment)
    if json:
        return show.as_json(sql.mariadb(found, _needed(command)))
    program = found["client"] or _installed("mariadb", "mysql")
    where = ["--no-defaults", f"--host={found['host']}", f"--port={found['port']}", f"--user={found['user']}", "--protocol=tcp"]
    env = {"MYSQL_PWD": found["password"]}
    arguments = [f"--execute={';'.join(command)}", "--table"] if command else []
    return _become(program, [*where, *arguments, "--", found["database"]], env)


def valkey(
    words: Annotated[list[str] | None, typer.Argument(help="Command with its arguments, such as GET key.", show_default=False)] = None,
    name: Annotated[str, typer.Option("--addon", "-a", help="Add-on; default the only one of its kind.")] = "",
    project: Project = None,
    environment: Environment = "production",
    json: Annotated[bool, typer.Option("--json", help="The answer as one JSON document; needs a command.")] = False,
) -> None:
    from homeport.cli import keyvalue

    found = _connection(name, "redis", project, environment)
    if json and not words:
        raise usage("There is no command to run.", "Write it behind: `homeport valkey-cli --json GET key`.")
    if words:
        return keyvalue.run(found, words, json=json)
    if found["client"] and sys.stdin.isatty():
        arguments = ["-h", found["host"], "-p", str(found["port"]), "--user", found["user"] or "default"]
        return _become(found["client"], arguments, {"REDISCLI_AUTH": found["password"], "VALKEYCLI_AUTH": found["password"]})
    return keyvalue.converse(found, sys.stdin)


def port_forward(
    name: Name,
    port: Annotated[int, typer.Argument(help="Port of 127.0.0.1; default a free one.", min=0, max=65535, show_default=False)] = 0,
    show_password: Annotated[bool, typer.Option("--show-password", help="Print the password too; it is written down who saw it.")] = False,
    project: Project = None,
    environment: Environment = "production",
    json: Json = False,
) -> None:
    from homeport.cli.forward import Relay

    client, path = _at(project, environment, only_here=True)
    found = client.post(path, {"name": name, "reveal": show_password})
    with Relay((found["host"], found["port"]), port) as relay:
        url = found["url"].replace(f"{found['host']}:{found['port']}", f"127.0.0.1:{relay.port}")
        if json:
            show.as_json({"host": "127.0.0.1", "port": relay.port, "user": found["user"], "database": found["database"], "url": url})
        else:
            show.line(url or f"127.0.0.1:{relay.port}")
            show.note(f"{name} is on 127.0.0.1:{relay.port}. Interrupt (Ctrl-C) to end.")
        sys.stdout.flush()
        with contextlib.suppress(Interrupted):  # the way to end it
            relay.serve()


# --- what they share ----------------------------------------------------------------------------------------------


def _working(text: str, *, json: bool) -> None:
    """Say what is waited for, beside the answer."""
    if not json:
        show.note(text)


def _at(project: str | None, environment: str, *, only_here: bool = False) -> tuple[Client, str]:
    client = Client(start=True)
    name, environment = find_project(client, project, environment, only_here=only_here)
    return client, f"{path_of(name, environment)}/addons"


def _connection(name: str, kind: str, project: str | None, environment: str) -> dict[str, Any]:
    client, path = _at(project, environment, only_here=True)
    found: dict[str, Any] = client.post(path, {"name": name, "kind": kind})
    return found


def _needed(command: list[str] | None) -> list[str]:
    if not command:
        raise usage("There is no SQL to run.", 'Give it with -c: `-c "select 1"`.')
    return command


def _installed(*names: str) -> str:
    import shutil

    for name in names:
        if found := shutil.which(name):
            return found
    raise usage(f"{names[0]} is not installed here.", f"Install it, or run SQL with --json, which needs no {names[0]}.")


def _become(program: str, arguments: list[str], env: dict[str, str]) -> None:
    """Run a client in this process's place: it gets the terminal, its exit code is ours. Passwords go by its environment alone."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "MYSQL", "HOMEPORT_"))}
    sys.stdout.flush()
    os.execve(program, [program, *arguments], {**kept, **env})  # noqa: S606 (no shell; the program is the engine's own client)
