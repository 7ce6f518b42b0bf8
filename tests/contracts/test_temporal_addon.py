"""Temporal add-ons side by side: each answers at the usual port of an address of its own, as a compose file's `temporal:7233` expects."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from homeport.drivers.addons import front
from homeport.drivers.addons.base import AddOnId, AddOnRequest, Provisioned
from homeport.drivers.addons.errors import AddOnFailed
from homeport.drivers.addons.records import Place
from homeport.drivers.addons.temporal import TemporalDriver
from homeport.drivers.addons.temporal.driver import HTTP_PORT, UI_PORT
from homeport.drivers.reach import forget, reachable
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import Temporal
from homeport.settings import Settings

pytestmark = pytest.mark.xdist_group("addon-temporal")
ENGINES = Path(tempfile.gettempdir()) / f"homeport-test-engines-{os.getuid()}"
NAMES = ("one", "two")


def id_of(name: str) -> AddOnId:
    return AddOnId(project="shop", environment="production", name=name)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalDriver]:
    ENGINES.mkdir(mode=0o755, exist_ok=True)
    home = reachable(tmp_path_factory.mktemp("temporal") / "home")
    if front.program(home) is None:
        pytest.skip("there is no bundled nginx for this machine")
    made = TemporalDriver(home, Toolchains(ENGINES, network=Settings.from_environment().network, search=[]))
    yield made
    for name in NAMES:
        made.stop(id_of(name))
    made.close()
    forget(home)


@pytest.fixture(scope="module")
def both(driver: TemporalDriver) -> dict[str, Provisioned]:
    ui = {"one": True, "two": False}
    return {
        name: driver.provision(AddOnRequest(id=id_of(name), definition=Temporal(namespace=f"shop-{name}", ui=ui[name]), consumers=("web",)))
        for name in NAMES
    }


def ask(host: str, port: int, path: str) -> tuple[int, Any]:
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=10)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if body.startswith(b"{") else body


def until(done: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_each_has_the_usual_port_on_an_address_of_its_own(both: dict[str, Provisioned]) -> None:
    """Both answer at 7233, and each knows its own namespace alone: a literal `temporal:7233` needs only a name for the address."""
    hosts = {made.host for made in both.values()}
    assert len(hosts) == 2 and "127.0.0.1" not in hosts
    assert {made.port for made in both.values()} == {7233}
    for name, made in both.items():
        other = "two" if name == "one" else "one"
        assert made.credentials["web"].env["TEMPORAL_ADDRESS"] == f"{made.host}:7233"
        assert front.listens(made.host, 7233)
        assert ask(made.host, HTTP_PORT, f"/api/v1/namespaces/shop-{name}")[0] == 200
        assert ask(made.host, HTTP_PORT, f"/api/v1/namespaces/shop-{other}")[0] == 404


def test_the_web_interface_is_there_on_request(driver: TemporalDriver, both: dict[str, Provisioned]) -> None:
    """On the same address, at the port of its image; not for the one that did not ask."""
    until(lambda: front.listens(both["one"].host, UI_PORT))
    status, page = ask(both["one"].host, UI_PORT, "/")
    assert status == 200 and b"<html" in page.lower()
    assert not front.listens(both["two"].host, UI_PORT)
    assert driver.inspect(id_of("one")).detail["ui"] == f"http://{both['one'].host}:{UI_PORT}"


class Stranger(BaseHTTPRequestHandler):
    """Says yes to everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.mark.parametrize("which", range(3), ids=("http", "ui", "clients"))
def test_a_port_that_a_stranger_took_meanwhile(driver: TemporalDriver, both: dict[str, Provisioned], which: int) -> None:
    """Its answer is not taken for the server's own: the server gets another port, and its clients notice nothing."""
    one = both["one"]
    place = Place(driver.home, id_of("one"))
    driver.stop(id_of("one"))
    taken = place.get().extra_ports[which]
    with ThreadingHTTPServer(("127.0.0.1", taken), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        try:
            driver.start(id_of("one"))
        finally:
            stranger.shutdown()
    assert taken not in place.get().extra_ports
    assert driver.inspect(id_of("one")).running
    assert ask(one.host, HTTP_PORT, "/api/v1/namespaces/shop-one")[1]["namespaceInfo"]["name"] == "shop-one"
    assert front.listens(one.host, 7233) and front.listens(one.host, UI_PORT)


def test_a_front_that_is_killed_comes_back(driver: TemporalDriver, both: dict[str, Provisioned]) -> None:
    """The server behind it is not restarted for it."""
    place = Place(driver.home, id_of("two"))
    server, before = driver.inspect(id_of("two")).pid, driver._front(place).running()
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: driver.ensure() or ((now := driver._front(place).running()) is not None and now.pid != before.pid))
    until(lambda: front.listens(both["two"].host, 7233))
    assert driver.inspect(id_of("two")).pid == server


def test_asking_again_changes_nothing(driver: TemporalDriver, both: dict[str, Provisioned]) -> None:
    """Same address, same processes."""
    pid = driver.inspect(id_of("two")).pid
    again = driver.provision(AddOnRequest(id=id_of("two"), definition=Temporal(namespace="shop-two"), consumers=("web",)))
    assert (again.host, again.port) == (both["two"].host, 7233)
    assert driver.inspect(id_of("two")).pid == pid


def test_search_attributes_are_made_and_never_changed(driver: TemporalDriver, both: dict[str, Provisioned]) -> None:
    """New ones are added while the server runs; the same again is success; another type is refused and says which it has."""

    def provision(**attributes: str) -> None:
        definition = Temporal.model_validate({"namespace": "shop-two", "search_attributes": attributes})
        driver.provision(AddOnRequest(id=id_of("two"), definition=definition, consumers=("web",)))

    provision(OrderId="Keyword")
    provision(OrderId="Keyword", Total="Double")
    found = ask(both["two"].host, HTTP_PORT, "/api/v1/namespaces/shop-two/search-attributes")[1]["customAttributes"]
    assert found == {"OrderId": "INDEXED_VALUE_TYPE_KEYWORD", "Total": "INDEXED_VALUE_TYPE_DOUBLE"}
    with pytest.raises(AddOnFailed, match="different type"):
        provision(OrderId="Int")


def test_a_front_s_configuration() -> None:
    """One listener for each port, nothing but numbers and addresses in it."""
    text = front.conf("127.78.1.2", {7233: ("127.0.0.1", 15001)})
    assert "listen 127.78.1.2:7233; proxy_pass 127.0.0.1:15001;" in text
    assert text.count("listen") == 1
