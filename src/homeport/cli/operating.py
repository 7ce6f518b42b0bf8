"""Verbs about Homeport itself: serve, down, doctor, keys."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from homeport.cli import show
from homeport.cli.client import Client, home, segment
from homeport.cli.errors import CliError
from homeport.cli.options import EdgePort, Json


def register(app: typer.Typer) -> None:
    app.command("serve", help="Run the control plane here; brings back what is live.")(serve)
    app.command("down", help="Stop everything this home runs; `up` or `serve` brings it back.")(down)
    app.command("doctor", help="What this machine offers Homeport, and what it lacks.")(doctor)
    keys = typer.Typer(help="API keys.", invoke_without_command=True, rich_markup_mode=None)
    keys.callback()(list_keys)
    keys.command("create", help="Make a key; it is shown once.")(create_key)
    keys.command("revoke", help="Revoke a key.")(revoke_key)
    keys.command("rotate", help="Make a key in another's place; both work for a while.")(rotate_key)
    app.add_typer(keys, name="keys")


def serve(edge_port: EdgePort = None) -> None:
    import os

    from pydantic import ValidationError

    from homeport.api.errors import body_of
    from homeport.api.server import serve as run
    from homeport.model.errors import HomeportError
    from homeport.settings import Settings

    try:
        settings = Settings.from_environment({**os.environ, **({"HOMEPORT_EDGE_PORT": str(edge_port)} if edge_port else {})})
        run(settings, out=sys.stdout)
    except ValidationError as error:
        wrong = "; ".join(f"HOMEPORT_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise CliError(
            {"code": "usage", "what": "The control plane did not start.", "why": wrong, "fix": "Correct the variable."}
        ) from error
    except HomeportError as error:
        raise CliError(body_of(error)) from error


def down(json: Json = False) -> None:
    place = home()
    if (place / "stopped").exists() or not (place / "vault.json").exists():
        return show.as_json({"accepted": True}) if json else show.line(f"Nothing runs for {place}.")
    # A control plane that was killed left applications behind: only another one knows them all.
    client = Client(start=True)
    found = client.call("POST", "/api/v1/down", {}, timeout=300)
    client.wait_until_gone()
    if json:
        return show.as_json(found)
    return show.line("Everything this home runs was stopped. `homeport up` or `homeport serve` brings it back.")


def doctor(json: Json = False) -> None:
    from homeport.cli.diagnosis import diagnose

    findings = diagnose()
    if json:
        show.as_json([f.__dict__ for f in findings])
    else:
        show.table(("", "CHECK", "FOUND", "WHAT FOLLOWS"), [(f.verdict, f.check, f.found, f.follows) for f in findings])
    if any(f.verdict == "bad" for f in findings):
        raise typer.Exit(1)


def list_keys(context: typer.Context, json: Json = False) -> None:
    if context.invoked_subcommand is not None:
        return None
    found = Client().get("/api/v1/keys")
    if json:
        return show.as_json(found)
    rows = [
        (
            r["id"],
            r["name"],
            ",".join(r["scopes"]),
            show.ago(r["created_at"]),
            show.ago(r["last_used_at"]),
            "revoked" if r["revoked_at"] else f"ends {r['expires_at'][:16]}" if r["expires_at"] else "",
        )
        for r in found
    ]
    return show.table(("ID", "NAME", "SCOPES", "CREATED", "LAST USED", ""), rows)


def create_key(
    name: Annotated[str, typer.Argument(help="What it is for.", show_default=False)],
    scope: Annotated[list[str] | None, typer.Option("--scope", help="read, deploy, secrets or admin; may be given several times.")] = None,
    expires: Annotated[str, typer.Option("--expires", help="Moment it ends, such as 2027-01-31T00:00Z; default never.")] = "",
    json: Json = False,
) -> None:
    found = Client().post("/api/v1/keys", {"name": name, "scopes": scope or ["read"], "expires_at": expires or None})
    if json:
        show.as_json(found)
    else:
        show.line(found["key"])
        show.note("This key is shown once. Send it as `Authorization: Bearer …` or in HOMEPORT_API_KEY.")


def rotate_key(
    id: Annotated[str, typer.Argument(help="Key.", show_default=False)],
    overlap: Annotated[str, typer.Option("--overlap", help="How long the old one still works: 0s to 30d.")] = "1h",
    json: Json = False,
) -> None:
    found = Client().post(f"/api/v1/keys/{segment(id)}/rotate", {"overlap": overlap})
    if json:
        show.as_json(found)
    else:
        show.line(found["key"])
        show.note(f"This key is shown once. The old one works for another {overlap}.")


def revoke_key(id: Annotated[str, typer.Argument(help="Key.", show_default=False)], json: Json = False) -> None:
    found = Client().delete(f"/api/v1/keys/{segment(id)}")
    if json:
        show.as_json(found)
    else:
        show.line("Revoked." if found["removed"] else "There was no such key.")
