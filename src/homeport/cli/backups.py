"""Verbs about data that is kept: backup, restore, fork, recover."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from homeport.cli import show
from homeport.cli.client import Client, segment
from homeport.cli.errors import CliError, Interrupted, usage
from homeport.cli.follow import Follower
from homeport.cli.options import Environment, Json, Project
from homeport.cli.times import given
from homeport.cli.where import find_project, path_of

LONG = 24 * 3600.0
"""Seconds a copy may take."""


def register(app: typer.Typer) -> None:
    backup = typer.Typer(help="Backups: take, list, prove, schedule, and where they go.", rich_markup_mode=None, no_args_is_help=True)
    backup.command("now", help="Back up now: everything, or ADDON, disks or platform.")(now)
    backup.command("list", help="Backups, newest first; `good` once a restore of it was tried.")(list_backups)
    backup.command("verify", help="Restore a backup into a scratch instance, compare, and throw it away.")(verify)
    backup.command("schedule", help="What is backed up and when next; options change the policy.")(schedule)
    backup.command("targets", help="Where backups go.")(targets)
    backup.command("add-target", help="Send backups to a folder or to any rclone remote as well.")(add_target)
    backup.command("remove-target", help="Stop using a target; what lies on it stays.")(remove_target)
    app.add_typer(backup, name="backup")
    app.command("disk", help="The disk: what is free, what each project takes, and when it will be full.")(disk)
    app.command("restore", help="Bring data back to a minute or a backup; the former data is kept 7 days.")(restore)
    app.command("fork", help="A new environment with the data, release and secrets of a moment.")(fork)
    app.command("recover", help="Bring a whole home back on an empty machine.")(recover)


def now(
    what: Annotated[str, typer.Argument(help="Add-on, `disks` or `platform`; default everything.", show_default=False)] = "",
    project: Project = None,
    environment: Annotated[str, typer.Option("--env", "-e", help="Environment; default every one.")] = "",
    json: Json = False,
) -> None:
    body = {"name": what, **({"project": project} if project else {}), **({"environment": environment} if environment else {})}
    found = Client().call("POST", "/api/v1/backups", body, timeout=LONG)
    if json:
        return show.as_json(found)
    for row in found:
        show.line(f"{row['id']}  {_subject(row)}  {_size(row['size'])} on {', '.join(row['targets'])}")
    return show.note("They are called good once a drill has restored them: `homeport backup verify ID`, or wait for the daily one.")


def list_backups(
    project: Annotated[str, typer.Option("--project", "-p", help="Project; default every one.")] = "",
    environment: Annotated[str, typer.Option("--env", "-e", help="Environment; default every one.")] = "",
    name: Annotated[str, typer.Option("--addon", help="Add-on, `disks` or `platform`.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many.")] = 50,
    json: Json = False,
) -> None:
    found = Client().get("/api/v1/backups", project=project, environment=environment, name=name, limit=limit)
    if json:
        return show.as_json(found)
    rows = [(r["id"], _subject(r), show.ago(r["taken_at"]), _size(r["size"]), ",".join(r["targets"]), _state(r)) for r in found]
    return show.table(("ID", "OF", "TAKEN", "SIZE", "ON", ""), rows)


def verify(id: Annotated[str, typer.Argument(help="Backup.", show_default=False)], json: Json = False) -> None:
    found = Client().call("POST", f"/api/v1/backups/{segment(id)}/verify", {}, timeout=LONG)
    if json:
        show.as_json(found)
    elif not found["problem"]:
        compared = ", ".join(f"{count} {name}" for name, count in found["compared"].items())
        show.line(f"Proven in {found['seconds']:.1f} s: {compared or 'all of it'} as they were.")
    else:
        show.line(f"Not proven: {found['problem']}")
    if found["problem"]:
        raise typer.Exit(1)


def schedule(
    every: Annotated[str, typer.Option("--every", help="Time between backups: 6h, 1d.")] = "",
    prove: Annotated[str, typer.Option("--prove-every", help="Time between drills.")] = "",
    last: Annotated[int | None, typer.Option("--keep-last", min=1, help="Newest backups that are always kept.")] = None,
    daily: Annotated[int | None, typer.Option("--keep-daily", min=0, help="Days of which one is kept.")] = None,
    weekly: Annotated[int | None, typer.Option("--keep-weekly", min=0, help="Weeks of which one is kept.")] = None,
    gone: Annotated[str, typer.Option("--keep-gone", help="How long backups of what was destroyed are kept: 30d.")] = "",
    budget: Annotated[str, typer.Option("--budget", help="Bytes a project's data may take before more is refused: 10GB; 0 for none.")] = "",
    reserve: Annotated[str, typer.Option("--reserve", help="Bytes of the disk that backups leave free.")] = "",
    recipient: Annotated[list[str] | None, typer.Option("--recipient", help="age recipient that can open every backup as well.")] = None,
    rpo: Annotated[str, typer.Option("--rpo", help="Most a PostgreSQL add-on may lose with the machine: 5s streams its log; 60s.")] = "",
    rpo_for: Annotated[str, typer.Option("--for", help="Of which: PROJECT[/ENV[/ADDON]]; default all without one of their own.")] = "",
    json: Json = False,
) -> None:
    from homeport.model.base import parse_duration, parse_size

    client = Client()
    try:
        changed: dict[str, Any] = {
            "every_seconds": int(parse_duration(every).total_seconds()) if every else None,
            "prove_every_seconds": int(parse_duration(prove).total_seconds()) if prove else None,
            "keep_gone_seconds": int(parse_duration(gone).total_seconds()) if gone else None,
            "keep_last": last,
            "keep_daily": daily,
            "keep_weekly": weekly,
            "budget": int(parse_size(budget)) if budget else None,
            "reserve": int(parse_size(reserve)) if reserve else None,
            "recipients": recipient or None,
            "rpo_seconds": parse_duration(rpo).total_seconds() if rpo else None,
            "rpo_for": rpo_for or None,
        }
    except ValueError as error:
        raise usage(str(error), "Write durations like 6h and sizes like 10GB.") from error
    changed = {name: value for name, value in changed.items() if value is not None}
    policy = client.post("/api/v1/backup-policy", changed) if changed else client.get("/api/v1/backup-policy")
    found = client.get("/api/v1/backup-schedule")
    if json:
        return show.as_json({"policy": policy, "schedule": found})
    rows = [(_subject(r), show.ago(r["last"]), show.ago(r["proven"]), _when(r["next"]), _loss(r), _remark(r)) for r in found]
    return show.table(("WHAT", "LAST", "PROVEN", "NEXT", "MAY LOSE", ""), rows)


def disk(json: Json = False) -> None:
    found = Client().get("/api/v1/disk")
    if json:
        return show.as_json(found)
    low = "; builds, forks and backups are refused until there is more" if found["free"] < found["reserve"] else ""
    show.line(f"{_size(found['free'])} free of {_size(found['total'])}; {_size(found['reserve'])} are kept free{low}.")
    show.line(_outlook(found))
    rows = []
    for row in found["projects"]:
        over = "over its budget" if 0 < row["budget"] < row["bytes"] else ""
        rows.append((row["project"], _size(row["bytes"]), _size(row["budget"]) if row["budget"] else "", over))
    return show.table(("PROJECT", "DATA", "BUDGET", ""), rows)


def _outlook(found: dict[str, Any]) -> str:
    """`Full in 12 days at the present rate (3.1 MiB a day).`"""
    if found["rate"] is None:
        return "When it will be full is not known yet: it was watched for less than ten minutes."
    if found["full_at"] is None:
        return "It does not fill up at the present rate."
    days = (datetime.fromisoformat(found["full_at"]) - datetime.now(UTC)).total_seconds() / 86_400
    left = f"{days:.0f} days" if days >= 2 else f"{max(days, 0) * 24:.0f} hours"
    return f"Full in {left} at the present rate ({_size(found['rate'])} a day)."


def _remark(row: dict[str, Any]) -> str:
    return _ends(row) or row["problem"] or ("not proven for too long" if row["stale"] else "")


def _loss(row: dict[str, Any]) -> str:
    """What may be lost, and what would be now: `5s (now 2.1s)`."""
    if row["rpo"] is None:
        return ""
    return f"{row['rpo']:g}s" + (f" (now {row['behind']:.1f}s)" if row["behind"] is not None else "")


def targets(json: Json = False) -> None:
    found = Client().get("/api/v1/backup-targets")
    if json:
        return show.as_json(found)
    show.table(("NAME", "KIND", "ADDRESS"), [(r["name"], r["kind"], r["address"]) for r in found])
    if not any(r["added"] for r in found):
        show.note("They lie on the same disk as what they are of. `homeport backup add-target` sends them elsewhere.")
    return None


def add_target(
    name: Annotated[str, typer.Argument(help="Name to give it.", show_default=False)],
    address: Annotated[str, typer.Argument(help="Absolute folder, or REMOTE:PATH of rclone.", show_default=False)],
    config: Annotated[Path | None, typer.Option("--rclone-config", help="rclone configuration file.", exists=True, dir_okay=False)] = None,
    json: Json = False,
) -> None:
    body = _target(name, address, config)
    found = Client().call("POST", "/api/v1/backup-targets", body, timeout=600)
    if json:
        show.as_json(found)
    else:
        show.line(f"Backups go to {name} from now on; it answers.")


def _target(name: str, address: str, config: Path | None) -> dict[str, str]:
    if address.startswith("/"):
        return {"name": name, "kind": "folder", "address": address}
    if ":" not in address:
        raise usage(f"{address!r} is neither an absolute folder nor a remote.", "Write /mnt/backups, or remote:path as rclone names it.")
    return {"name": name, "kind": "rclone", "address": address, "config": config.read_text() if config else ""}


def remove_target(name: Annotated[str, typer.Argument(help="Target.", show_default=False)], json: Json = False) -> None:
    found = Client().delete(f"/api/v1/backup-targets/{segment(name)}")
    if json:
        show.as_json(found)
    else:
        show.line(f"{name} is used no longer. Backups go to {', '.join(r['name'] for r in found)}.")


def restore(
    backup: Annotated[str, typer.Argument(help="Backup to bring back, instead of a time.", show_default=False)] = "",
    to: Annotated[str, typer.Option("--to", help='Time such as "2026-11-20T14:05:07.5Z", "yesterday 14:05", "10m" ago, or "latest".')] = "",
    addon: Annotated[str, typer.Option("--addon", help="Add-on or `disks`; default every PostgreSQL add-on.")] = "",
    beside: Annotated[str, typer.Option("--as", help="Make a new environment of it instead.")] = "",
    project: Project = None,
    environment: Environment = "production",
    json: Json = False,
) -> None:
    if bool(backup) == bool(to):
        raise usage("Neither a time nor a backup was named, or both were.", "Write `--to TIME`, or a backup from `homeport backup list`.")
    client = Client()
    name, environment = find_project(client, project, environment, only_here=bool(to) and not beside)
    if beside:
        if addon:
            raise usage(
                "`--as` makes a whole environment.", "Leave `--addon` out, or leave `--as` out to bring that add-on back in its place."
            )
        if backup:
            row = _backup(client, backup)
            if (row["project"], row["environment"]) != (name, environment):
                raise usage(f"{row['id']} is of {_subject(row)}.", f"Name a backup of {name}/{environment}: `homeport backup list`.")
            to = str(row["taken_at"])
        return fork(environment, at=to, name=beside, project=name, json=json)
    body = {"addon": addon, "backup": backup, **given("to", to)}
    if not json:
        what = f"{addon or 'the data'} of {name}/{environment}"
        show.note(f"Bringing {what} back to {_meant(body, backup)}; what runs is not touched until the copy is proven.")
    found = client.call("POST", f"{path_of(name, environment)}/restore", body, timeout=LONG)
    if json:
        return show.as_json(found)
    for row in found:
        show.line(f"{row['name']} is back as of {row['at']} after {row['seconds']:.1f} s ({row['rows']} rows read).")
        for text in row["notes"]:
            show.note(text)
        if row["tombstone"]:
            show.note(f"The former data is kept 7 days as {row['tombstone']}.")
    return None


def _meant(body: dict[str, Any], backup: str) -> str:
    """The moment as it was understood: `2026-11-20 14:05:00 UTC (15 h ago)`."""
    if at := body.get("to"):
        return f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({show.ago(at)})"
    return f"the backup {backup}" if backup else "the latest there is"


def _backup(client: Client, id: str) -> dict[str, Any]:
    found = [row for row in client.get("/api/v1/backups", limit=10_000) if row["id"].startswith(id)]
    if len(found) != 1:
        raise usage(f"{id!r} is no backup.", "See `homeport backup list`.")
    return dict(found[0])


def fork(
    source: Annotated[str, typer.Argument(help="Environment to fork.", show_default=False)],
    at: Annotated[str, typer.Option("--at", help='"14:05", "yesterday 14:05", "2026-11-20T14:05:07Z", "10m" ago; now if left out.')] = "",
    name: Annotated[str, typer.Option("--as", help="The new environment.", show_default=False)] = "",
    project: Project = None,
    unmasked: Annotated[bool, typer.Option("--unmasked", help="Do not apply the rules of `mask:`.")] = False,
    workers: Annotated[bool, typer.Option("--with-workers", help="Run its workers as well.")] = False,
    crons: Annotated[bool, typer.Option("--with-crons", help="Run its scheduled jobs as well.")] = False,
    json: Json = False,
) -> None:
    if not name:
        raise usage("The new environment has no name.", "Name it with `--as NAME`.")
    client = Client()
    found_project, source = find_project(client, project, source)
    body = {"name": name, "masked": not unmasked, "workers": workers, "crons": crons, **given("at", at)}
    found = client.call("POST", f"{path_of(found_project, source)}/fork", body, timeout=LONG)
    result = Follower(json=json).run(client.follow(found["deploy"])) or client.get(f"/api/v1/deploys/{found['deploy']}")["result"]
    if json:
        show.as_json({**found, "result": result})
    else:
        masked = f", {sum(found['masked'].values())} values masked" if found["masked"] else ""
        show.line(f"{name} holds the data of {found['at']} ({found['seconds']:.1f} s{masked}) and runs release {found['release']}.")
        for text in found["notes"]:
            show.note(text)
    if result and result["status"] != "live":
        raise typer.Exit(1)


def recover(
    source: Annotated[str, typer.Option("--from", help="Absolute folder, or REMOTE:PATH of rclone.", show_default=False)],
    vault_key_file: Annotated[
        Path | None, typer.Option("--vault-key-file", help="File with the vault key; `-` reads it from standard input.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--rclone-config", help="rclone configuration file.", exists=True, dir_okay=False)] = None,
    name: Annotated[str, typer.Option("--target", help="Name the target has.")] = "recovered",
    json: Json = False,
) -> None:
    import os

    from homeport.api.backing import recover_home
    from homeport.api.errors import body_of
    from homeport.api.server import only_one
    from homeport.drivers.storage.base import Target
    from homeport.drivers.vault.keys import parse_key
    from homeport.model.errors import HomeportError
    from homeport.settings import Settings

    try:
        key = None
        if vault_key_file is not None:
            text = (
                sys.stdin.read(4096) if str(vault_key_file) == "-" else vault_key_file.read_text(encoding="ascii", errors="replace")[:4096]
            )
            key = parse_key(text, "the vault key")
        target = Target.model_validate(_target(name, source, config))
        settings = Settings.from_environment(os.environ)
        with only_one(settings.home):  # a control plane that starts meanwhile, or a second recovery, is refused
            found = recover_home(settings, target, key, lambda text: None if json else show.note(text))
    except Interrupted:
        show.note("Interrupted. Nothing of it is left on this machine, and the backups are as they were: ask for it again.")
        raise typer.Exit(130) from None
    except OSError as error:
        raise usage(f"{error.filename}: {error.strerror}.", "Name a file that this account can read.") from error
    except HomeportError as error:
        raise CliError(body_of(error)) from error
    Client(start=True)
    if json:
        return show.as_json(found.model_dump(mode="json"))
    count = f"{len(found.environments)} environment{'' if len(found.environments) == 1 else 's'}"
    show.line(f"Recovered {count} as of {found.taken_at.isoformat()} in {found.seconds:.1f} s.")
    for slug, until in found.addons.items():
        show.line(f"  {slug}: up to {until}")
    for text in (*(f"disks of {one}" for one in found.disks), *found.notes):
        show.line(f"  {text}")
    return show.note("The control plane runs; `homeport status --all` shows what comes back.")


# --- reading and showing ------------------------------------------------------------------------------------------------


def _subject(row: dict[str, Any]) -> str:
    return f"{row['project']}/{row['environment']}/{row['name']}" if row["project"] else str(row["name"])


def _size(size: float) -> str:
    return show.size(size) if abs(size) < 2**40 else f"{size / 2**40:,.1f} TiB"


def _state(row: dict[str, Any]) -> str:
    end = f"; {_ends(row)}" if row["ends"] else ""
    if row["good"]:
        return f"good (proven {show.ago(row['proven_at'])}){end}"
    return f"not proven: {row['proof']['problem']}{end}" if row["proof"] else f"not proven yet{end}"


def _ends(row: dict[str, Any]) -> str:
    return f"gone: kept until {datetime.fromisoformat(row['ends']).astimezone():%Y-%m-%d}" if row["ends"] else ""


def _when(text: str | None) -> str:
    if text is None:
        return ""
    return "now" if datetime.fromisoformat(text) <= datetime.now(UTC) else f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M}"
