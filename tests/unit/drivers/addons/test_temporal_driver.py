"""Temporal without a server: what is refused, and the address of a cluster that somebody else runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeport.drivers.addons.base import AddOnId, AddOnRequest
from homeport.drivers.addons.errors import AddOnFailed, BackupFailed
from homeport.drivers.addons.temporal import TemporalDriver
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import Temporal
from homeport.model.env import PlainValue

ID = AddOnId(project="shop", environment="production", name="flows")
PEM = PlainValue(value="-----BEGIN CERTIFICATE-----")


@pytest.fixture
def driver(tmp_path: Path) -> TemporalDriver:
    return TemporalDriver(tmp_path, Toolchains(tmp_path, search=[]))


@pytest.mark.parametrize(
    ("definition", "word"),
    [
        (Temporal(address="cluster.example.com"), "host:port"),
        (Temporal(address="--config:7233"), "host:port"),
        (Temporal(address="h:99999"), "host:port"),
        (Temporal(namespace="--headless"), "namespace"),
        (Temporal(address="h:7233", tls_certificate=PEM), "needs its key"),
    ],
)
def test_what_cannot_be_given_is_said(driver: TemporalDriver, definition: Temporal, word: str) -> None:
    """Addresses, namespaces and half a certificate are refused with one sentence."""
    problems = driver.check(definition)
    assert word in problems[0]


def test_an_outside_cluster_is_wired_and_not_run(driver: TemporalDriver, tmp_path: Path) -> None:
    """Its address, namespace and client certificate become variables; the certificate is not written down, nothing starts."""
    definition = Temporal(address="ns.tmprl.cloud:7233", namespace="ns.acct", tls_certificate=PEM, tls_key=PlainValue(value="k3y-material"))
    assert not driver.check(definition) and not driver.notes(definition)
    request = AddOnRequest(id=ID, definition=definition, consumers=("web",))
    made = driver.provision(request)
    assert driver.provision(request) == made
    web = made.credentials["web"]
    assert (web.host, web.port, web.database) == ("ns.tmprl.cloud", 7233, "ns.acct")
    assert web.env == {
        "TEMPORAL_ADDRESS": "ns.tmprl.cloud:7233",
        "TEMPORAL_NAMESPACE": "ns.acct",
        "TEMPORAL_TLS_CERT": PEM.value,
        "TEMPORAL_TLS_KEY": "k3y-material",
    }
    assert not any(b"k3y-material" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert driver.inspect(ID).running and not driver.ensure()
    driver.start(ID)
    driver.stop(ID)
    with pytest.raises(BackupFailed):
        driver.back_up(ID, tmp_path / "copies")
    with pytest.raises(AddOnFailed):
        driver.rotate(ID, "web")
    driver.close()
