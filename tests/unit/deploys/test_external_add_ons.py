"""External add-ons: how they are asked, and whether a deploy waits for them."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doors import fake_platform, go_live

from homeport.deploys import external
from homeport.deploys.addon_keeper import AddOnKeeper
from homeport.deploys.addons import AddOnUnwell
from homeport.deploys.platform import Platform
from homeport.model.addon import External
from homeport.model.release import Release


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    made = fake_platform(tmp_path / "home")
    yield made
    made.store.close()


class Guarded(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def guarded() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    with contextlib.closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"bolt://me:s3cret@127.0.0.1:{closed.getsockname()[1]}"


def live(platform: Platform, **addon: Any) -> Release:
    spec = {"services": {"web": {"kind": "web", "command": "run"}}, "addons": {"graph": {"kind": "external", "type": "neo4j", **addon}}}
    return go_live(platform, spec)


@pytest.mark.parametrize(
    ("definition", "way"),
    [
        ({}, "tcp"),
        ({"health_path": "/ready"}, "http"),
        ({"health_command": "python check.py"}, "command"),
        ({"health_path": "/ready", "health": "tcp"}, "tcp"),
        ({"health": "none"}, "none"),
    ],
)
def test_how_it_is_asked_follows_from_what_is_named(definition: dict[str, Any], way: str) -> None:
    """By a command, a path, a connection, or not at all; what the file says in so many words wins."""
    assert external.way_of(External(type="neo4j", **definition)) == way


def test_a_status_of_its_own_counts_as_well(guarded: str) -> None:
    """A service that wants to know who asks is there all the same."""
    assert external.check(guarded, "/rest/v1/").state == "unwell"
    assert external.check(guarded, "/rest/v1/", status=401).state == "well"
    assert external.check(guarded, "/rest/v1/", way="tcp").state == "well"
    assert external.check(guarded, way="none").state == "unknown"


def test_a_command_decides(platform: Platform) -> None:
    """What the keeper's command says is the health that is shown, whatever the address; nobody to run it is no verdict."""
    release = live(platform, health_command="python check.py")
    assert platform.addons.check(release, "graph").state == "unknown"
    platform.addons.ask = lambda _release, name: external.Health(state="unwell", detail=f"{name} is behind")
    assert platform.addons.check(release, "graph").detail == "graph is behind"
    assert platform.addons.unwell(release) == {"graph": "graph is behind"}


def test_only_what_is_required_stops_a_deploy(platform: Platform) -> None:
    """Down and not required is shown; down and required is an error that names it and no part of its address."""
    with nobody() as url:
        platform.addons.demand(live(platform, url=url))
        with pytest.raises(AddOnUnwell) as raised:
            platform.addons.demand(live(platform, url=url, required=True))
    assert "graph" in raised.value.why and "s3cret" not in str(raised.value)


def test_required_and_well_goes_on(platform: Platform, guarded: str) -> None:
    """An answer is enough."""
    platform.addons.demand(live(platform, url=guarded, required=True))


def test_a_look_by_hand_takes_no_event_away(platform: Platform) -> None:
    """Somebody who lists the add-ons while one is down does not keep the keeper from telling of it."""
    with nobody() as url:
        release = live(platform, url=url, health_interval="1ms")
        assert platform.addons.check(release, "graph").state == "unwell"
        keeper = AddOnKeeper(platform)
        keeper._check()
        keeper._check()
    assert [row.kind for row in platform.store.events.list("shop", "production")] == ["addon.unwell"]
