"""What is made of a port on which a program was seen to listen."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeport.deploys.own_ports import KIND, OwnPorts, seen_port
from homeport.drivers.runtimes.health import Verdict
from homeport.model.service import HealthCheck, Service, WebService, WorkerService
from homeport.store import Store


@pytest.mark.parametrize(
    ("ports", "service", "check", "found"),
    [
        ((3000,), WebService(), HealthCheck(), 3000),
        ((3000, 9229), WebService(), HealthCheck(), 0),
        ((3000, 9229), WebService(port=3000), HealthCheck(), 3000),
        ((3000,), WebService(port=8080), HealthCheck(), 3000),
        ((), WebService(), HealthCheck(), 0),
        ((3000,), WebService(), HealthCheck(port="9000"), 0),
        ((3000,), WorkerService(), HealthCheck(), 3000),
    ],
)
def test_one_port_or_the_declared_one_is_meant(ports: tuple[int, ...], service: Service, check: HealthCheck, found: int) -> None:
    """Of several ports only the one that the file declares; none for a check that names its own."""
    verdict = Verdict(ok=False, detail="", cause="wrong-port", ports=ports)
    assert seen_port(verdict, check, service) == found
    assert seen_port(verdict.model_copy(update={"cause": "status"}), check, service) == 0


def test_who_has_a_port_is_told_from_the_last_lines(tmp_path: Path) -> None:
    """Only a line that complains counts, and only the whole number."""
    store = Store.open(tmp_path)
    try:
        store.ledger.claim(KIND, "shop/production/web", "shop/production/web", port=3000)
        ports = OwnPorts(store.ledger)
        assert ports.of("shop", "production") == {"web": 3000}
        assert "port 3000 belongs to shop/production/web" in ports.collision(["Error: listen EADDRINUSE: address already in use :::3000"])
        assert ports.collision(["listening on 3000", "EADDRINUSE :::30001"]) == ""
        assert ports.notes("shop", "production", ["api"]) == []
    finally:
        store.close()
