"""Routes of secrets: variables, the vault, the audit log, outside stores, and keys of the API."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import FastAPI, Query
from fastapi.responses import StreamingResponse
from pydantic import StringConstraints

from homeport.api.auth import Admin, Key, KeyInvalid, Reader, SecretKeeper
from homeport.api.bodies import (
    EnvBody,
    EnvResult,
    Exported,
    KeyBody,
    KeyView,
    NewKey,
    Removed,
    RestoreBody,
    RotateKeyBody,
    RotateValueBody,
    StoreBody,
    VersionBody,
)
from homeport.deploys.audit import Head
from homeport.deploys.control import ControlPlane
from homeport.deploys.renewal import renew
from homeport.deploys.secrets import check_name
from homeport.deploys.views import Views
from homeport.drivers.vault.stores.base import StoreConfig
from homeport.model.base import Name
from homeport.model.views import (
    AuditReport,
    AuditView,
    EnvChange,
    EnvDifference,
    LostValue,
    SecretVersion,
    StoreView,
    ValueRotation,
    VariableView,
    VaultRenewal,
    VaultView,
)
from homeport.store.keys import SCOPES, KeyRow

PREFIX = "/api/v1/projects/{project}/environments/{environment}"
SHOWN = 20
"""Names of changed variables that an event lists."""

Anchor = Annotated[str, StringConstraints(pattern=r"^\d{1,15}:[0-9a-f]{64}$")]

NO_STORE = {"Cache-Control": "no-store"}


def add_routes(app: FastAPI, control: ControlPlane) -> None:
    _variables(app, control)
    _versions(app, control)
    _vault(app, control)
    _stores(app, control)
    _keys(app, control)


def _variables(app: FastAPI, control: ControlPlane) -> None:
    views: Views = app.state.views

    @app.get(PREFIX + "/env", tags=["env"])
    def variables(project: str, environment: str, _key: Reader, told: bool = False) -> list[VariableView]:
        """Every variable and where it comes from; values of the vault are not shown. With `told` also those that nobody names: of
        add-ons, of other services, and those that the platform of the project's file gives."""
        return views.variables(project, environment) + (views.told(project, environment) if told else [])

    @app.post(PREFIX + "/env", tags=["env"])
    def set_variables(project: Name, environment: Name, body: EnvBody, key: SecretKeeper) -> EnvResult:
        """Set and unset variables, all or none. They take effect with the next deploy."""
        return _change(control, project, environment, body, key)

    @app.get(PREFIX + "/env/{key}", tags=["env"])
    def reveal(project: str, environment: str, key: str, caller: SecretKeeper, service: str = "") -> VariableView:
        """One value in the clear. The look is written down."""
        return views.reveal(project, environment, key, service, by=caller.caller)

    @app.post(PREFIX + "/env-export", tags=["env"])
    def export(project: str, environment: str, caller: SecretKeeper) -> Exported:
        """Every value that was set, generated or fetched, in the clear. The export is written down."""
        views.row(project, environment)
        return Exported(variables=control.platform.secrets.export(project, environment, by=caller.caller))

    @app.get(PREFIX + "/env-diff", tags=["env"])
    def diff(
        project: str,
        environment: str,
        key: Reader,
        with_environment: Annotated[str, Query(max_length=63)] = "",
        release: Annotated[str, Query(pattern=r"^(r?\d{1,9})?$")] = "",
        with_release: Annotated[str, Query(pattern=r"^(r?\d{1,9})?$")] = "",
    ) -> list[EnvDifference]:
        """Which variables two environments or releases have, and whether they are equal; no values. The comparison is written down.

        Without `release` what is set now is compared with the live release.
        """
        return views.env_diff(project, environment, with_environment, _number(release), _number(with_release), by=key.caller)


def _versions(app: FastAPI, control: ControlPlane) -> None:
    views: Views = app.state.views

    @app.get(PREFIX + "/env-history", tags=["env"])
    def env_history(project: str, environment: str, _key: Reader, key: str = "") -> list[SecretVersion]:
        """Every version of the variables that were set, without values."""
        return views.env_history(project, environment, key)

    @app.post(PREFIX + "/env-versions", tags=["env"])
    def change_version(project: str, environment: str, body: VersionBody, caller: SecretKeeper) -> SecretVersion:
        """Enable, disable or destroy one version. One that a release needs is only touched when confirmed; destroyed is for ever."""
        return views.change_version(project, environment, body.name, body.version, body.state, confirmed=body.confirmed, by=caller.caller)

    @app.post(PREFIX + "/env-restore", tags=["env"])
    def restore(project: str, environment: str, body: RestoreBody, caller: SecretKeeper) -> list[EnvChange]:
        """Bring a variable back to a version, or all of them back to a moment. It takes effect with the next deploy."""
        done = views.env_restore(project, environment, body.name, body.version, body.at, dry=body.dry, by=caller.caller)
        if done and not body.dry:
            text = f"Variables restored: {', '.join(change.name for change in done)}."
            control.platform.event("env.changed", text, (project, environment), actor=caller.name)
        return done

    @app.post(PREFIX + "/env-rotate", tags=["env"])
    def rotate_variable(project: str, environment: str, body: RotateValueBody, caller: SecretKeeper) -> ValueRotation:
        """Give a variable a new value; the former one is handed out beside it for a while."""
        done = views.rotate_value(project, environment, body.name, value=body.value, overlap=body.overlap, by=caller.caller)
        control.platform.event("env.changed", f"Variable rotated: {done.name}.", (project, environment), actor=caller.name)
        return done


def _vault(app: FastAPI, control: ControlPlane) -> None:
    care, audit = control.platform.vault, control.platform.secrets.audit

    @app.get("/api/v1/vault", tags=["vault"])
    def status(_key: Admin) -> VaultView:
        """The vault's keys by name, and how many values each data key has sealed."""
        return care.status()

    @app.post("/api/v1/vault/rekey", tags=["vault"])
    def rekey(key: Admin) -> VaultView:
        """Change the vault's key. Values can be opened all the time."""
        return care.rekey(by=key.caller)

    @app.post("/api/v1/vault/rotate", tags=["vault"])
    def rotate(key: Admin) -> VaultView:
        """Make a new data key and seal every value again with it."""
        return care.rotate(by=key.caller)

    @app.get("/api/v1/vault/lost", tags=["vault"])
    def lost(_key: Admin) -> list[LostValue]:
        """The values in use that do not open, and what gives each another one."""
        return care.lost()

    @app.post("/api/v1/vault/renew", tags=["vault"])
    def renew_lost(key: Admin) -> VaultRenewal:
        """Give add-ons whose passwords do not open new ones, and say what else does not open."""
        return renew(control, by=key.caller)

    @app.get("/api/v1/audit", tags=["audit"])
    def rows(
        _key: Admin,
        subject: Annotated[str, Query(max_length=500)] = "",
        action: Annotated[str, Query(max_length=32)] = "",
        actor: Annotated[str, Query(max_length=200)] = "",
        after: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> list[AuditView]:
        """Who read, wrote, revealed, exported or rotated what, and from where; the newest rows that fit, oldest first."""
        found = audit.rows.list(subject=subject, action=action, actor=actor, after=after, limit=limit)
        return [AuditView(**row.__dict__) for row in found]

    @app.get("/api/v1/audit/verify", tags=["audit"])
    def verify(_key: Admin, anchor: Annotated[list[Anchor] | None, Query(max_length=100)] = None) -> AuditReport:
        """Whether the audit log is whole: every digest, every number, its end, and each `anchor` that was kept elsewhere."""
        return audit.verify([Head.parse(text) for text in anchor or ()])

    @app.get("/api/v1/audit/export", tags=["audit"], response_class=StreamingResponse)
    def export(key: Admin) -> StreamingResponse:
        """The whole audit log as lines of JSON. The export itself is its last row."""
        audit.write(key.caller, "audit-export", "/audit")
        lines = (line + "\n" for line in audit.export())
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=NO_STORE)


def _stores(app: FastAPI, control: ControlPlane) -> None:
    stores = control.platform.outside

    @app.get("/api/v1/stores", tags=["stores"])
    def known(_key: Admin) -> list[StoreView]:
        """Outside secret stores, without their credentials, and what keeps each from working."""
        return stores.list()

    @app.post("/api/v1/stores", tags=["stores"])
    def put(body: StoreBody, key: Admin) -> StoreView:
        """Add an outside secret store, or change it. Its credential is sealed in the vault."""
        config = StoreConfig(name=body.name, kind=body.kind, address=body.address, options=body.options, credential=body.credential)
        return stores.put(config, projects=body.projects, by=key.caller)

    @app.delete("/api/v1/stores/{name}", tags=["stores"])
    def remove(name: str, key: Admin) -> Removed:
        """Forget an outside store. Values that releases pinned stay."""
        return Removed(removed=(name,) if stores.remove(name, by=key.caller) else ())


def _keys(app: FastAPI, control: ControlPlane) -> None:
    store, audit = control.platform.store, control.platform.secrets.audit

    @app.get("/api/v1/keys", tags=["keys"])
    def keys(_key: Admin) -> list[KeyView]:
        """Every API key, without its text."""
        return [_key_view(row) for row in store.keys.list()]

    @app.post("/api/v1/keys", tags=["keys"], status_code=201)
    def create_key(body: KeyBody, key: Admin) -> NewKey:
        """Make an API key; its text is shown this once."""
        wrong = [scope for scope in body.scopes if scope not in SCOPES]
        if wrong:
            raise KeyInvalid(what="No key was made.", why=f"There is no scope {wrong[0]!r}.", fix=f"Scopes are {', '.join(SCOPES)}.")
        audit.write(key.caller, "key-create", f"/keys/{body.name} ({', '.join(body.scopes)})")
        row, text = store.keys.create(body.name, list(body.scopes), expires_at=_utc(body.expires_at))
        return NewKey(key=text, id=row.id)

    @app.post("/api/v1/keys/{id}/rotate", tags=["keys"], status_code=201)
    def rotate_key(id: str, body: RotateKeyBody, key: Admin) -> NewKey:
        """Make a key that takes another's place; the old one works until the overlap is over."""
        audit.write(key.caller, "key-rotate", f"/keys/{id[:64]}")
        done = store.keys.rotate(id, datetime.now(UTC) + body.overlap)
        if done is None:
            raise KeyInvalid(what="No key was made.", why="There is no such key that still works.", fix="See `homeport keys`.")
        return NewKey(key=done[1], id=done[0].id)

    @app.delete("/api/v1/keys/{id}", tags=["keys"])
    def revoke_key(id: str, key: Admin) -> Removed:
        """Revoke a key."""
        audit.write(key.caller, "key-revoke", f"/keys/{id[:64]}")
        return Removed(removed=(id,) if store.keys.revoke(id) else ())


def _change(control: ControlPlane, project: str, environment: str, body: EnvBody, key: Key) -> EnvResult:
    """Set and unset, and say what changed."""
    book, by = control.platform.secrets, key.caller
    for name in body.set:
        check_name(name)
    done = book.set_all(project, environment, body.set, by=by.name, origin=by.origin, source=body.source, unset=body.unset)
    changed = [change.name for change in done if change.changed]
    if changed:
        text = f"Variables changed: {_few(sorted(changed))}."
        control.platform.event("env.changed", text, (project, environment), actor=key.name)
    unchanged = tuple(name for name in (*body.set, *body.unset) if name not in set(changed))
    return EnvResult(changed=tuple(changed), unchanged=unchanged, notes=_slips(control, project, environment, body.set) if body.set else ())


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= SHOWN else f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"


def _slips(control: ControlPlane, project: str, environment: str, names: Iterable[str]) -> tuple[str, ...]:
    """What was set for something that is not there, which may be meant and may be a slip."""
    platform = control.platform
    release = platform.live_release(project, environment)
    if release is None:
        known = sorted(row.environment for row in platform.store.environments.all() if row.project == project)
        if not known:
            return (f"Nothing called {project} has been deployed here yet; its first deploy gets this.",)
        missing = f"{project} has no environment {environment} (it has {', '.join(known)}); its first deploy gets this."
        return () if environment in known else (missing,)
    scopes = dict.fromkeys(name.rpartition("/")[0] for name in names)
    return tuple(
        f"{project} has no service {s} in {environment}; one of that name gets this."
        for s in scopes
        if s and s not in release.spec.services
    )


def _number(release: str) -> int:
    return int(release.removeprefix("r") or 0)


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _key_view(row: KeyRow) -> KeyView:
    return KeyView(**{k: v for k, v in row.__dict__.items() if k != "digest"})
