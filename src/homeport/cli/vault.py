"""Verbs about secrets: `homeport vault`, `homeport audit`, `homeport stores`."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from homeport.cli import show
from homeport.cli.client import Client, segment
from homeport.cli.errors import CliError, usage
from homeport.cli.options import Json


def register(app: typer.Typer) -> None:
    vault = typer.Typer(help="The vault's keys.", no_args_is_help=True, rich_markup_mode=None)
    vault.command("status", help="Which keys the vault has, by name.")(status)
    vault.command("rekey", help="Change the vault's key; values stay readable.")(rekey)
    vault.command("rotate", help="Seal every value with a new data key.")(rotate)
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
    return show.table(("WHAT", ""), rows)


def _verified(found: dict[str, object], *, json: bool) -> None:
    if json:
        sys.stdout.write(jsonlib.dumps(found, indent=2) + "\n")
    elif found["ok"]:
        show.line(f"{found['rows']} rows are as they were written. Anchor: {found['rows']}:{found['head']}")
    if not found["ok"]:
        what = "The audit log is not whole." if json else f"The audit log is not whole; {found['rows']} rows before are good."
        raise CliError({"code": "audit-broken", "what": what, "why": f"{found['why']}.", "fix": "Compare it with an exported copy."})
