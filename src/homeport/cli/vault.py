"""Verbs about secrets: `homeport vault`, `homeport audit`, `homeport stores`."""

from __future__ import annotations

import contextlib
import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from homeport.cli import show
from homeport.cli.client import Client, segment
from homeport.cli.errors import CliError, usage
from homeport.cli.options import Json

SHOWN = 50
"""Values that are listed."""


def register(app: typer.Typer) -> None:
    vault = typer.Typer(help="The vault's keys.", no_args_is_help=True, rich_markup_mode=None)
    vault.command("status", help="Which keys the vault has, by name.")(status)
    vault.command("rekey", help="Change the vault's key; values stay readable.")(rekey)
    vault.command("rotate", help="Seal every value with a new data key.")(rotate)
    vault.command("lost", help="Values that do not open, and what to do about each.")(lost)
    vault.command("reset", help="Begin with a new vault when its key is lost for good.")(reset)
    app.add_typer(vault, name="vault")
    log = typer.Typer(help="Who read, wrote or rotated which secret, and from where.", invoke_without_command=True, rich_markup_mode=None)
    log.callback()(audit)
    log.command("verify", help="Check that nothing was changed, taken out or cut off.")(verify_audit)
    log.command("export", help="Write the whole log to a file, one JSON object a line.")(export_audit)
    app.add_typer(log, name="audit")
    stores = typer.Typer(help="Outside secret stores.", invoke_without_command=True, rich_markup_mode=None)
    stores.callback()(list_stores)
    stores.command("add", help="Add or change a store; its credential comes from standard input.")(add_store)
    stores.command("remove", help="Forget a store; values that releases pinned stay.")(remove_store)
    app.add_typer(stores, name="stores")


def status(json: Json = False) -> None:
    _shown(Client(start=True).get("/api/v1/vault"), json=json)


def rekey(json: Json = False) -> None:
    found = Client(start=True).post("/api/v1/vault/rekey")
    _shown(found, json=json)
    if not json:
        show.note("The vault has a new key. Keep a copy of it apart from your backups; the old one opens nothing any more.")


def rotate(json: Json = False) -> None:
    _shown(Client(start=True).call("POST", "/api/v1/vault/rotate", {}, timeout=600), json=json)


def lost(json: Json = False) -> None:
    found = Client(start=True).get("/api/v1/vault/lost")
    if json:
        return show.as_json(found)
    return _lost(found)


def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Give up what only the lost key opens.")] = False, json: Json = False
) -> None:
    aside = _set_aside(yes=yes)
    found = Client(start=True).call("POST", "/api/v1/vault/renew", {}, timeout=600)
    if json:
        return show.as_json({"new": aside is not None, "aside": aside or [], **found})
    if aside is not None:
        kept = f" The former one is kept as {' and '.join(aside)}, for a key that is found later." if aside else ""
        show.line(f"The vault is new.{kept}")
    for one in found["addons"]:
        title = f"{one['addon']} of {one['project']}/{one['environment']}"
        show.line(f"{title} has no new passwords: {one['error']}" if one["error"] else f"{title} has new passwords; the old ones work on.")
    _lost(found["values"])
    if found["addons"] or found["values"]:
        show.note("Then deploy each project: `homeport up`. Applications that run keep the values they were started with.")
    return None


def _set_aside(*, yes: bool) -> list[str] | None:
    """Give up the vault of this home; the names of its files now. None for one that opens, or is served. Raises CliError."""
    from pydantic import ValidationError

    from homeport.api.errors import body_of
    from homeport.api.server import AlreadyServing, only_one
    from homeport.deploys.vault import give_up, opens
    from homeport.drivers.vault.keys import KeySource
    from homeport.model.errors import HomeportError
    from homeport.settings import Settings
    from homeport.store import Store

    try:
        settings = Settings.from_environment()
    except ValidationError as error:
        wrong = "; ".join(f"HOMEPORT_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise usage(f"{wrong}.", "Correct the variable.") from error
    home, command = settings.home, settings.vault_key_command
    source = KeySource(home, given=settings.vault_key, command=command, environment=settings.vault_key_environment)
    try:
        with only_one(home), contextlib.closing(Store.open(home, settings.database_url)) as store:
            if opens(home, source, store):
                return None
            why = "Nothing opens this home's vault. A new one is begun on purpose only: what is sealed in the old one is given up."
            if not yes and not (sys.stdin.isatty() and typer.confirm(f"{why} Go on?", err=True)):
                fix = "Put the key back if it is to be found; else confirm with `--yes`."
                raise CliError({"code": "confirmation-needed", "what": "Nothing was changed.", "why": why, "fix": fix})
            return give_up(home, source)
    except AlreadyServing:
        return None  # what serves has opened its vault
    except HomeportError as error:
        raise CliError(body_of(error)) from error


def audit(
    context: typer.Context,
    verify: Annotated[bool, typer.Option("--verify", help="Check that nothing was changed, taken out or cut off.")] = False,
    export: Annotated[Path | None, typer.Option("--export", help="Write the whole log to a file, one JSON object a line.")] = None,
    subject: Annotated[str, typer.Option("--subject", help="Only what begins so, such as shop/production/.")] = "",
    action: Annotated[str, typer.Option("--action", help="Only this: set, reveal, export, use, rekey, …")] = "",
    actor: Annotated[str, typer.Option("--actor", help="Only this key's name.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, the newest.")] = 50,
    json: Json = False,
) -> None:
    if context.invoked_subcommand is not None:
        return None
    if export is not None:
        return export_audit(export, json=json)
    if verify:
        return verify_audit(json=json)
    client = Client(start=True)
    found = client.get("/api/v1/audit", subject=subject, action=action, actor=actor, limit=limit)
    if json:
        return show.as_json(found)
    rows = [(r["seq"], r["at"][:19], r["actor"], r["action"], r["subject"], r["origin"]) for r in found]
    return show.table(("ROW", "WHEN (UTC)", "WHO", "DID", "WHAT", "FROM"), rows)


def verify_audit(
    anchor: Annotated[list[str] | None, typer.Option("--anchor", help="NUMBER:DIGEST that was kept elsewhere; may be repeated.")] = None,
    json: Json = False,
) -> None:
    from urllib.parse import urlencode

    query = urlencode([("anchor", text.strip()) for text in anchor or ()])
    found = Client(start=True).call("GET", "/api/v1/audit/verify" + (f"?{query}" if query else ""), timeout=600)
    _verified(found, json=json)


def export_audit(
    file: Annotated[Path, typer.Argument(help="File to write, readable by you alone.", show_default=False)], json: Json = False
) -> None:
    lines = Client(start=True).download("/api/v1/audit/export", file)
    if json:
        return show.as_json({"rows": lines, "file": str(file)})
    return show.line(f"{lines} rows were written to {file}.")


def list_stores(context: typer.Context, json: Json = False) -> None:
    if context.invoked_subcommand is not None:
        return None
    found = Client(start=True).get("/api/v1/stores")
    if json:
        return show.as_json(found)
    rows = [(r["name"], r["kind"], r["address"], ", ".join(r["projects"]) or "all", "; ".join(r["problems"]) or "ready") for r in found]
    return show.table(("STORE", "KIND", "ADDRESS", "PROJECTS", "STATE"), rows)


def add_store(
    name: Annotated[str, typer.Argument(help="What references call it.", show_default=False)],
    kind: Annotated[str, typer.Option("--kind", help="vault, gcp, aws, onepassword, infisical, doppler, sops or age.")],
    address: Annotated[str, typer.Option("--address", help="Web address, for those that have one.")] = "",
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="name=value; may be given several times.")] = None,
    project: Annotated[list[str] | None, typer.Option("--project", "-p", help="Only for this project; default all.")] = None,
    json: Json = False,
) -> None:
    options = dict(text.split("=", 1) for text in option or () if "=" in text)
    if len(options) != len(option or ()):
        raise usage("An option has no value.", "Write it like `--option mount=secret`.")
    if sys.stdin.isatty():
        from getpass import getpass

        credential = getpass("credential: ")
    else:
        credential = sys.stdin.read().strip()
    body = {"name": name, "kind": kind, "address": address, "options": options, "credential": credential, "projects": project or []}
    found = Client(start=True).post("/api/v1/stores", body)
    if json:
        return show.as_json(found)
    return show.line(f"{name} is known." + (f" It does not work yet: {'; '.join(found['problems'])}." if found["problems"] else ""))


def remove_store(name: Annotated[str, typer.Argument(help="Store.", show_default=False)], json: Json = False) -> None:
    found = Client(start=True).delete(f"/api/v1/stores/{segment(name)}")
    if json:
        return show.as_json(found)
    return show.line("Forgotten." if found["removed"] else "There was no such store.")


def _shown(found: dict[str, object], *, json: bool) -> None:
    if json:
        return show.as_json(found)
    data_keys: dict[str, int] = found["data_keys"]  # type: ignore[assignment]
    sealed = ", ".join(f"{number} ({count} values)" for number, count in data_keys.items())
    rows = [
        ("vault key", f"{found['key']} in {found['place']}"),
        ("changed", str(found["rekeyed"])[:19] or "never"),
        ("data keys", f"{sealed}; new values use {found['data_key']}"),
        ("generation", found["generation"]),
    ]
    show.table(("WHAT", ""), rows)
    if found["unreadable"]:
        show.note(f"{found['unreadable']} values do not open; `homeport vault lost` names those in use.")
    return None


def _lost(values: list[dict[str, object]]) -> None:
    """The values in use that do not open, and the way out of each."""
    if not values:
        return show.line("Every value in use opens.")
    rows = [(f"{v['project']}/{v['environment']}", v["name"], f"v{v['version']}", v["fix"]) for v in values[:SHOWN]]
    show.table(("WHERE", "VALUE", "VERSION", "WHAT TO DO"), rows)
    if len(values) > SHOWN:
        show.note(f"And {len(values) - SHOWN} more; `homeport vault lost --json` names all.")
    return None


def _verified(found: dict[str, object], *, json: bool) -> None:
    if json:
        sys.stdout.write(jsonlib.dumps(found, indent=2) + "\n")
    elif found["ok"]:
        show.line(f"{found['rows']} rows are as they were written. Anchor: {found['rows']}:{found['head']}")
    if not found["ok"]:
        what = "The audit log is not whole." if json else f"The audit log is not whole; {found['rows']} rows before are good."
        raise CliError({"code": "audit-broken", "what": what, "why": f"{found['why']}.", "fix": "Compare it with an exported copy."})
