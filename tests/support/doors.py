"""The API over a platform without processes, on a real socket: for tests of the door itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from homeport.api.app import make_app
from homeport.deploys.addons import AddOnBook
from homeport.deploys.control import ControlPlane
from homeport.deploys.platform import Platform, open_platform
from homeport.drivers.builders.fake import FakeBuilder
from homeport.drivers.edge.fake import FakeEdge
from homeport.drivers.runtimes.fake import FakeRuntime
from homeport.model.release import Artifact, Release, Revision
from homeport.model.spec import Spec
from homeport.settings import Settings


class Reply(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]


class Door:
    """One API with its platform."""

    def __init__(self, control: ControlPlane, port: int) -> None:
        self.control, self.platform, self.port = control, control.platform, port
        self.admin = self.key("admin")

    def key(self, *scopes: str, expires_at: datetime | None = None) -> str:
        """The text of a new key."""
        return self.platform.store.keys.create("/".join(scopes), list(scopes), expires_at=expires_at)[1]

    def ask(self, method: str, path: str, body: Any = None, *, key: str | None = "admin", source: str = "127.0.0.1") -> Reply:
        """One request; `key` "admin" is an admin's, None is none. `source` is the loopback address it comes from."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20, source_address=(source, 0))
        try:
            headers = {"Content-Type": "application/json"}
            if key is not None:
                headers["Authorization"] = f"Bearer {self.admin if key == 'admin' else key}"
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            data = answer.read()
            kind = answer.headers.get("content-type", "")
            found = json.loads(data or b"null") if kind.startswith("application/json") else data.decode()
            return Reply(answer.status, found, {k.lower(): v for k, v in answer.getheaders()})
        finally:
            connection.close()


def fake_platform(home: Path) -> Platform:
    """A platform whose engines are fakes; store and vault are real."""
    settings = Settings.from_environment({"HOMEPORT_HOME": str(home)})
    return open_platform(settings, FakeRuntime(), FakeEdge(home), FakeBuilder(home), lambda store, secrets: AddOnBook(store, secrets, {}))


def go_live(
    platform: Platform, spec: dict[str, Any], *, project: str = "shop", environment: str = "production", origin: str = "/nonexistent"
) -> Release:
    """Record a release with the values that are set, and call it live; nothing is started. `origin`: folder that it came from."""
    from homeport.deploys.config import pin

    made = Spec.model_validate({"name": project, **spec})
    platform.store.environments.ensure(project, environment, origin=origin)
    number = platform.store.releases.reserve(project, environment)
    release = Release(
        id=f"r{number}",
        project=project,
        environment=environment,
        number=number,
        revision=Revision(digest="d"),
        spec=made,
        artifacts={name: Artifact(id="a", folder="/nonexistent") for name in made.services},
        secrets=pin(made, made.services, platform.secrets, project, environment).by_service,
        created_at=datetime.now(UTC),
    )
    platform.store.releases.record(release)
    platform.store.releases.go_live(project, environment, number)
    return release


@contextlib.contextmanager
def open_door(home: Path) -> Iterator[Door]:
    """The API for the length of a block."""
    platform = fake_platform(home)
    control = ControlPlane(platform)
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        config = uvicorn.Config(make_app(control), log_level="critical", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="door")
        thread.start()
        try:
            yield Door(control, listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()
            platform.store.close()


__all__ = ["Door", "Reply", "fake_platform", "go_live", "open_door"]
