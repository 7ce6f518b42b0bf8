"""The control plane as a process: one per home, foreground, quiet, gone without harm at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TextIO

import uvicorn

from homeport import __version__
from homeport.api.app import STOPPED, make_app
from homeport.api.backing import keeper_of
from homeport.backups.attempt import refuse_unfinished
from homeport.backups.keeper import Keeper
from homeport.deploys.control import ControlPlane
from homeport.deploys.engines import open_home
from homeport.drivers import reach
from homeport.drivers.files import write_atomic
from homeport.drivers.memory import Thrift
from homeport.model.errors import HomeportError
from homeport.settings import Settings

log = logging.getLogger("homeport")

TICK = 1.0
"""Seconds: the `Date` of an answer says no finer."""


class AlreadyServing(HomeportError):
    """Another control plane serves this home."""

    code = "already-serving"


class PortTaken(HomeportError):
    """Somebody else listens on the API's port."""

    code = "api-port-taken"


@contextlib.contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold the home. Raises AlreadyServing. The kernel lets go when the process dies, however it dies."""
    home.mkdir(parents=True, exist_ok=True, mode=0o755)
    with (home / "serve.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AlreadyServing(
                what="This control plane did not start; the one that runs goes on.",
                why=f"Another one holds {home.name or home}.",
                fix="Use it (`homeport status`), stop it (`homeport down`), or set HOMEPORT_HOME to another folder.",
            ) from error
        yield


def serve(settings: Settings, *, out: TextIO) -> None:
    """Run the control plane until it is told to stop. SIGTERM and SIGINT leave applications and edge running.

    Raises AlreadyServing, PortTaken, StoreUnavailable, VaultKeyMissing, RecoveryRefused.
    """
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold opened values
    thrift = Thrift()
    with only_one(settings.home):
        refuse_unfinished(settings.home)
        (settings.home / STOPPED).unlink(missing_ok=True)
        platform = open_home(settings)
        token = platform.store.keys.first_run_token()
        _local_key(platform.store.keys.create, settings.home)
        control = ControlPlane(platform)
        keeper = keeper_of(control)
        Keeper.before_start(keeper.room)
        server = _server(control, settings, keeper)
        server.config.app.state.attempts.worked((settings.home / "cli.key").read_text().strip())  # type: ignore[union-attr]
        try:
            server.config.load()
            sockets = [server.config.bind_socket()]
        except SystemExit as error:
            raise PortTaken(
                what="The control plane did not start; applications that run keep running.",
                why=f"Port {settings.api_port} of {settings.api_address} is in use.",
                fix="Set HOMEPORT_API_PORT to a free port.",
            ) from error
        control.start()
        keeper.start()
        thrift.start()
        _announce(settings)
        print(f"Homeport {__version__} serves {settings.home} on http://{settings.api_address}:{settings.api_port}", file=out, flush=True)
        if token:
            print(f"First start: this one-time token makes an admin key: {token}", file=out, flush=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            # The server answers signals itself while it runs, and then raises them again: that must not cut the closing short.
            signal.signal(number, lambda *_: None)
        server.run(sockets=sockets)
        thrift.stop()
        keeper.stop()
        control.close()
        if control.stopped:
            reach.forget(control.platform.home)
        (settings.home / "serve.json").unlink(missing_ok=True)
    # Threads that wait for applications must not keep the process: what they do is journaled and goes on at the next start.
    os._exit(0)


class Server(uvicorn.Server):
    """Rests until a signal comes; uvicorn's own loop looks for one ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    async def main_loop(self) -> None:
        """Until it is told to end. Each tick writes the `Date` of answers anew."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await self._told.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        asyncio.get_running_loop().call_soon_threadsafe(self._told.set)  # signals are caught only while the loop runs


def _server(control: ControlPlane, settings: Settings, keeper: Keeper) -> uvicorn.Server:
    stop = threading.Event()
    app = make_app(control, stop.set, keeper)
    config = uvicorn.Config(
        app,
        host=settings.api_address,
        port=settings.api_port,
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=2,
        server_header=False,
        limit_concurrency=256,
        h11_max_incomplete_event_size=64 * 1024,
        ws="none",  # no route speaks WebSocket
    )
    server = Server(config)

    def shut_down() -> None:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()

    app.state.shut_down = shut_down
    return server


def _local_key(create: object, home: Path) -> None:
    """A key for the command line of this machine's user, in a file only that user reads."""
    path = home / "cli.key"
    if not path.is_file():
        _, text = create("this machine", ["admin"])  # type: ignore[operator]
        write_atomic(path, text.encode() + b"\n", mode=0o600)


def _announce(settings: Settings) -> None:
    facts = {
        "pid": os.getpid(),
        "api": f"http://{settings.api_address}:{settings.api_port}",
        "edge_port": settings.edge_port,
        "version": __version__,
    }
    write_atomic(settings.home / "serve.json", json.dumps(facts).encode())
