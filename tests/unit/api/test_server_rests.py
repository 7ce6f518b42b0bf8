"""The API's server waits for an event and not for its own clock."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import pytest
import uvicorn

from homeport.api import server as control_plane
from homeport.api.server import Server

PATIENCE = 30.0
"""Seconds: far less than the tick that the test sets, far more than a slow machine needs."""


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive, send


def test_a_signal_ends_the_server_between_two_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM ends the server although its next tick is an hour away."""
    monkeypatch.setattr(control_plane, "TICK", 3600.0)
    server = Server(uvicorn.Config(_nothing, port=0, log_level="critical", lifespan="off"))
    late = threading.Event()

    def give_up() -> None:
        late.set()
        server.should_exit = True
        server._told.set()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        rescue = loop.call_later(PATIENCE, give_up)
        loop.call_later(0.2, os.kill, os.getpid(), signal.SIGTERM)
        await server.serve()
        rescue.cancel()

    before = signal.signal(signal.SIGTERM, lambda *_: None)  # the server raises what it caught again when it has ended
    try:
        asyncio.run(run())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert server.started and not late.is_set()


def test_the_date_of_answers_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tick writes the `Date` header anew."""
    monkeypatch.setattr(control_plane, "TICK", 0.01)
    server, ticks = Server(uvicorn.Config(_nothing)), []

    async def tick(counter: int) -> bool:
        ended = await uvicorn.Server.on_tick(server, counter)
        ticks.append(dict(server.server_state.default_headers)[b"date"])
        server.server_state.default_headers = []
        server.should_exit = len(ticks) == 3
        return ended

    monkeypatch.setattr(server, "on_tick", tick)
    asyncio.run(server.main_loop())
    assert len(ticks) == 4 and all(ticks)
