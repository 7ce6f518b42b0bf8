"""The application: every route with its policy."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform as machine
import sqlite3
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse

from homeport import __version__
from homeport.api import addons, backups, vault
from homeport.api.auth import Admin, Attempts, Deployer, Reader, Unauthorised, peer_of, require
from homeport.api.backing import keeper_of
from homeport.api.bodies import (
    Accepted,
    DeployBody,
    Health,
    Identified,
    NewKey,
    Removed,
    RollbackBody,
    RunBody,
    ScaleBody,
    TokenBody,
    Version,
)
from homeport.api.errors import body_of, refused, status_of
from homeport.backups.keeper import Keeper
from homeport.blueprints.convert import convert
from homeport.deploys.audit import Caller
from homeport.deploys.control import ControlPlane
from homeport.deploys.logs import follow_logs
from homeport.deploys.oneoff import run_command
from homeport.deploys.provided import not_carried
from homeport.deploys.views import Views, deploy_view
from homeport.drivers.files import write_atomic
from homeport.model.errors import HomeportError, disk_full
from homeport.model.plan import Plan
from homeport.model.reading import Written
from homeport.model.views import (
    CronRunView,
    CronView,
    DeployView,
    EnvironmentView,
    EventView,
    InstanceView,
    ReleaseView,
)

PUBLIC = frozenset({"/api/health", "/version", "/api/v1/first-run"})
"""Routes that need no key; a test lists every other and its scope."""

MAX_BODY = 4 << 20
"""Bytes of a request: a thousand variables of a few kilobytes."""

log = logging.getLogger("homeport.api")

STOPPED = "stopped"
"""A file in the home that stands there after `down`, until the next start."""

PREFIX = "/api/v1/projects/{project}/environments/{environment}"


def make_app(control: ControlPlane, shut_down: Callable[[], None] = lambda: None, keeper: Keeper | None = None) -> FastAPI:
    """The API of one control plane. `shut_down` is called after `down` has stopped everything; `keeper` is the one that runs."""
    app = FastAPI(
        title="Homeport",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        separate_input_output_schemas=False,
    )
    app.state.control, app.state.views, app.state.shut_down = control, Views(control.platform), shut_down
    app.state.attempts = Attempts()
    app.state.keeper = keeper or keeper_of(control)

    @app.exception_handler(HomeportError)
    def told(_request: Request, error: HomeportError) -> JSONResponse:
        status = status_of(error)
        return JSONResponse(body_of(error), status_code=status, headers={"Retry-After": "60"} if status == 429 else None)

    @app.exception_handler(RequestValidationError)
    def not_understood(_request: Request, error: RequestValidationError) -> JSONResponse:
        """What was sent is not repeated: it may be a secret."""
        return JSONResponse(refused(error), 422)

    @app.exception_handler(OSError)
    def no_room_left(request: Request, error: OSError) -> JSONResponse:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise error
        return told(request, disk_full())

    @app.exception_handler(Exception)
    def own_fault(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s", request.method, request.url.path, exc_info=error)
        return JSONResponse(
            {
                "code": "internal-error",
                "what": "The request was not answered; what serves still serves.",
                "why": f"The control plane met a fault of its own: {type(error).__name__}.",
                "fix": "Read the end of `serve.log` in the home, and report it.",
            },
            500,
        )

    @app.middleware("http")
    async def bounded(request: Request, call_next: Any) -> Any:
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY or "chunked" in request.headers.get("transfer-encoding", ""):
            return JSONResponse({"code": "too-large", "what": "The request was not read.", "why": "It is too large.", "fix": ""}, 413)
        return await call_next(request)

    _general(app, control)
    _deploys(app, control)
    _environment(app, control)
    _running(app, control)
    vault.add_routes(app, control)
    addons.add_routes(app, control)
    backups.add_routes(app, control, app.state.keeper)
    return app


def _general(app: FastAPI, control: ControlPlane) -> None:
    store, views = control.platform.store, app.state.views

    @app.get("/api/health", tags=["general"])
    def health() -> Health:
        """Whether the control plane answers."""
        return Health(status="ok", version=__version__, pid=os.getpid(), edge=control.platform.edge.status().running)

    @app.get("/version", tags=["general"])
    def version() -> Version:
        """What runs here."""
        return Version(version=__version__, python=machine.python_version(), sqlite=sqlite3.sqlite_version)

    @app.post("/api/v1/first-run", tags=["general"])
    def first_run(body: TokenBody, request: Request) -> NewKey:
        """Turn the one-time token that the first start printed into an admin key."""
        peer = peer_of(request)
        app.state.attempts.check(peer, body.token)
        if not store.keys.redeem(body.token):
            app.state.attempts.failed(peer)
            raise Unauthorised(
                what="No key was made.", why="The token is wrong or was used.", fix="Make a key with `homeport keys create`."
            )
        control.platform.secrets.audit.write(Caller("first run", peer), "key-create", "/keys/first run (admin)")
        row, text = store.keys.create("first run", ["admin"])
        return NewKey(key=text, id=row.id)

    @app.get("/api/v1/environments", tags=["reading"])
    def environments(_key: Reader) -> list[EnvironmentView]:
        """Every environment of every project."""
        found: list[EnvironmentView] = views.environments()
        return found

    @app.get("/api/v1/events", tags=["reading"])
    def all_events(_key: Reader, after: int = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[EventView]:
        """What happened, oldest first."""
        found: list[EventView] = views.events(after=after, limit=limit)
        return found

    @app.post("/api/v1/down", tags=["general"])
    def down(_key: Admin) -> Accepted:
        """Stop everything this home runs, and then the control plane."""
        app.state.keeper.stop()
        control.stop_everything()
        write_atomic(control.platform.home / STOPPED, b"")
        app.state.shut_down()
        return Accepted()


def _deploys(app: FastAPI, control: ControlPlane) -> None:
    views: Views = app.state.views

    @app.post("/api/v1/identify", tags=["deploys"])
    def identify(body: DeployBody, _key: Deployer) -> Identified:
        """The project's name as its files say it."""
        return Identified(project=control.identify(body.folder, body.prefer))

    @app.post("/api/v1/deploys", tags=["deploys"], status_code=202)
    def deploy(body: DeployBody, key: Deployer) -> DeployView:
        """Ask for a deploy; follow it with its events."""
        project = body.project or control.identify(body.folder, body.prefer)
        wanted = {**body.model_dump(exclude={"project", "data_from"}), "data_from": body.data_from or ""}
        if body.data_from:
            origin = control.platform.live_release(project, body.data_from)
            if origin is None or origin.spec.previews.data != body.data_from:
                require(key, "admin")
        return deploy_view(control.request_deploy(actor=key.name, project=project, **wanted))

    @app.post("/api/v1/plan", tags=["deploys"])
    def plan(body: DeployBody, _key: Deployer) -> Plan:
        """What a deploy of a folder would do, compared with what is live. Changes nothing."""
        return control.plan(body.folder, body.environment, body.prefer, body.profiles)

    @app.get("/api/v1/deploys/{id}", tags=["deploys"])
    def get_deploy(id: str, _key: Reader) -> DeployView:
        """One deploy and how it ended."""
        return views.deploy(id)

    @app.get("/api/v1/deploys/{id}/events", tags=["deploys"], response_class=StreamingResponse)
    def follow_deploy(id: str, _key: Reader, offset: Annotated[int, Query(ge=0)] = 0) -> StreamingResponse:
        """The deploy's progress as server-sent events; `id` of each is the offset to go on from."""
        views.deploy(id)
        finished = lambda: views.deploy(id).status not in ("queued", "running")  # noqa: E731

        def stream() -> Iterator[str]:
            for end, line in control.platform.progress.follow(id, offset=offset, finished=finished):
                yield f"id: {end}\ndata: {line}\n\n" if line else ": still here\n\n"

        return _events(stream())

    @app.post(PREFIX + "/rollback", tags=["deploys"], status_code=202)
    def rollback(project: str, environment: str, body: RollbackBody, key: Deployer) -> DeployView:
        """Put an earlier release live again: no fetch, no build."""
        views.row(project, environment)
        number = body.release or control.previous_release(project, environment)
        row = control.request_deploy(
            actor=key.name, project=project, environment=environment, release=number, reason=body.reason, confirmed=True
        )
        return deploy_view(row)

    @app.delete("/api/v1/projects/{project}", tags=["deploys"])
    def destroy(project: str, key: Admin, environment: str = "") -> Removed:
        """Remove a project, or one environment of it. Data is kept 7 days."""
        return Removed(removed=tuple(control.destroy(project, environment, actor=key.name)))


def _environment(app: FastAPI, control: ControlPlane) -> None:
    views: Views = app.state.views

    @app.get(PREFIX, tags=["reading"])
    def environment(project: str, environment: str, _key: Reader) -> EnvironmentView:
        """What is live in an environment."""
        return views.environment(views.row(project, environment))

    @app.get(PREFIX + "/instances", tags=["reading"])
    def instances(project: str, environment: str, _key: Reader) -> list[InstanceView]:
        """Every instance."""
        return views.instances(project, environment)

    @app.get(PREFIX + "/releases", tags=["reading"])
    def releases(project: str, environment: str, _key: Reader, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> list[ReleaseView]:
        """Releases, newest first."""
        return views.releases(project, environment, limit)

    @app.get(PREFIX + "/events", tags=["reading"])
    def events(
        project: str, environment: str, _key: Reader, after: int = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> list[EventView]:
        """What happened in an environment, oldest first."""
        views.row(project, environment)
        return views.events(project, environment, after, limit)

    @app.get(PREFIX + "/blueprints/{dialect}", tags=["reading"])
    def blueprint(project: str, environment: str, dialect: str, _key: Reader) -> Written:
        """The live release written in a dialect, with a list of what that cannot say. Values of the vault are not in it."""
        release = views.live(project, environment)
        written = convert(release.spec, dialect)
        return written.model_copy(update={"losses": (*written.losses, *not_carried(release.spec, release.dialects, dialect))})

    @app.get(PREFIX + "/crons", tags=["cron"])
    def crons(project: str, environment: str, _key: Reader) -> list[CronView]:
        """Scheduled jobs with their next and last run."""
        return views.crons(project, environment)

    @app.get(PREFIX + "/crons/runs", tags=["cron"])
    def cron_runs(
        project: str, environment: str, _key: Reader, service: str = "", limit: Annotated[int, Query(ge=1, le=500)] = 50
    ) -> list[CronRunView]:
        """Runs of scheduled jobs, newest first."""
        return views.cron_runs(project, environment, service, limit)

    @app.post(PREFIX + "/crons/{service}/run", tags=["cron"], status_code=202)
    def run_cron(project: str, environment: str, service: str, _key: Deployer) -> list[CronRunView]:
        """Run a scheduled job now."""
        control.cron.run(views.live(project, environment), service)
        return views.cron_runs(project, environment, service, 1)


def _running(app: FastAPI, control: ControlPlane) -> None:
    views: Views = app.state.views

    @app.post(PREFIX + "/scale", tags=["running"])
    def scale(project: str, environment: str, body: ScaleBody, key: Deployer) -> EnvironmentView:
        """Set how many instances of services run, until changed again."""
        control.scale(project, environment, body.services, actor=key.name)
        return views.environment(views.row(project, environment))

    @app.get(PREFIX + "/logs", tags=["running"], response_class=StreamingResponse)
    def logs(
        project: str,
        environment: str,
        _key: Reader,
        service: str = "",
        release: str = "",
        follow: bool = False,
        tail: Annotated[int, Query(ge=0, le=100_000)] = 100,
    ) -> StreamingResponse:
        """What instances wrote, as server-sent events; secrets are masked."""
        views.row(project, environment)
        lines = follow_logs(control.platform, project, environment, service=service, release=release, follow=follow, tail=tail)
        return _events(f"data: {json.dumps(line, ensure_ascii=False)}\n\n" if line else ": still here\n\n" for line in lines)

    @app.post(PREFIX + "/run", tags=["running"], response_class=StreamingResponse)
    def run(project: str, environment: str, body: RunBody, key: Admin) -> StreamingResponse:
        """Run a one-off command with a service's source and variables; its output as server-sent events, last its exit code."""
        release = views.live(project, environment)
        control.platform.secrets.audit.write(
            key.caller, "run", f"{project}/{environment} {release.id}: {body.service or 'the first service'}"
        )
        lines = run_command(control.platform, release, body.service, body.command, actor=key.name)
        return _events(f"data: {json.dumps(line, ensure_ascii=False)}\n\n" for line in lines)


def _events(lines: Iterator[str]) -> StreamingResponse:
    return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
