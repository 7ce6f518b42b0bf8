"""What is made of a port on which a program was seen to listen."""

from __future__ import annotations

from pathlib import Path

import pytest
from doors import fake_platform

from homeport.deploys.control import ControlPlane
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


def test_a_plan_tells_which_service_insists_on_its_port(tmp_path: Path) -> None:
    """What was seen at an earlier deploy is said before the next one, for services that would run."""
    folder, platform = tmp_path / "shop", fake_platform(tmp_path / "home")
    folder.mkdir()
    (folder / "Procfile").write_text("web: python app.py\n")
    (folder / "requirements.txt").touch()
    try:
        control = ControlPlane(platform)
        assert not any("whatever PORT says" in text for text in control.plan(str(folder), "production").warnings)
        for service in ("web", "gone"):
            platform.store.ledger.claim(KIND, f"shop/production/{service}", f"shop/production/{service}", port=3000)
        told = [text for text in control.plan(str(folder), "production").warnings if "whatever PORT says" in text]
        assert len(told) == 1 and told[0].startswith("web: it listens on port 3000 whatever PORT says")
    finally:
        platform.store.close()
