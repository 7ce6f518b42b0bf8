"""Routes of add-ons: what there is, how it does, and what is done with it."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query
from fastapi.responses import JSONResponse
from pydantic import Field

from homeport.api.auth import Admin, Deployer, Reader, SecretKeeper
from homeport.deploys.addon_care import AddOnCare
from homeport.deploys.addon_undo import AddOnUndo
from homeport.deploys.control import ControlPlane
from homeport.model.base import Frozen
from homeport.model.views import AddOnView, ConnectionView, KeptView, RotationView, UndoneView

PREFIX = "/api/v1/projects/{project}/environments/{environment}/addons"
KEPT = "/api/v1/projects/{project}/environments/{environment}/kept"


class RotateBody(Frozen):
    """How new passwords of an add-on are handed out."""

    deploy: bool = True
    """Put the live release live once more, so that its services get them at once."""


class UpgradeBody(Frozen):
    """Where an add-on is moved to."""

    version: str = Field(default="", max_length=40)
    """Major version; empty is the newest that there is."""


class UndoBody(Frozen):
    """Which of its former data an add-on gets back."""

    tombstone: str = Field(default="", max_length=200)
    """Where it is kept; empty is the newest."""


class ConnectBody(Frozen):
    """Which add-on to connect to."""

    name: str = Field(default="", max_length=100)
    """Empty: the only one (of the kind)."""
    kind: str = Field(default="", max_length=40)
    """It must be of this kind."""
    reveal: bool = True
    """With its password."""


def add_routes(app: FastAPI, control: ControlPlane) -> None:
    care, taking = AddOnCare(control), AddOnUndo(control)

    @app.get(PREFIX, tags=["addons"])
    def addons(project: str, environment: str, _key: Reader) -> list[AddOnView]:
        """Every add-on of what is live, with its state, size, memory and connections."""
        return care.all(project, environment)

    @app.post(PREFIX, tags=["addons"], response_model=ConnectionView)
    def connect(project: str, environment: str, body: ConnectBody, key: SecretKeeper) -> JSONResponse:
        """How to connect to an add-on as its owner. Who asked is written down, in the audit log when it was with the password."""
        found = care.connect(project, environment, body.name, body.kind, reveal=body.reveal, by=key.caller)
        return JSONResponse(found.model_dump(mode="json"), headers={"Cache-Control": "no-store"})

    @app.get(PREFIX + "/{name}", tags=["addons"])
    def info(project: str, environment: str, name: str, _key: Reader) -> AddOnView:
        """One add-on with all its figures."""
        return care.info(project, environment, name)

    @app.get(PREFIX + "/{name}/logs", tags=["addons"])
    def logs(project: str, environment: str, name: str, _key: Reader, tail: Annotated[int, Query(ge=1, le=10_000)] = 100) -> list[str]:
        """The last lines its server wrote; secrets are masked."""
        return care.logs(project, environment, name, tail)

    @app.post(PREFIX + "/{name}/rotate", tags=["addons"], status_code=202)
    def rotate(project: str, environment: str, name: str, body: RotateBody, key: SecretKeeper) -> RotationView:
        """Change every password of an add-on. The old ones work until nothing that was started with them is left."""
        return care.rotate(project, environment, name, deploy=body.deploy, by=key.caller)

    @app.post(PREFIX + "/{name}/restart", tags=["addons"])
    def restart(project: str, environment: str, name: str, key: Deployer) -> AddOnView:
        """Stop an add-on's server and start it again. Connections break off."""
        return care.restart(project, environment, name, by=key.caller)

    @app.post(PREFIX + "/{name}/upgrade", tags=["addons"])
    def upgrade(project: str, environment: str, name: str, body: UpgradeBody, key: Deployer) -> AddOnView:
        """Move an add-on to another version. When that fails the old one runs again with all its data."""
        return care.upgrade(project, environment, name, body.version, by=key.caller)

    @app.get(KEPT, tags=["addons"])
    def kept(project: str, environment: str, _key: Reader) -> list[KeptView]:
        """Data of add-ons that a removal or a restore has put aside, the newest first; the environment may be gone."""
        return taking.kept(project, environment)

    @app.post(PREFIX + "/{name}/undo", tags=["addons"])
    def undo(project: str, environment: str, name: str, body: UndoBody, key: Admin) -> UndoneView:
        """Give an add-on data back that was put aside. What it has now is put aside instead."""
        return taking.undo(project, environment, name, body.tombstone, by=key.caller)
