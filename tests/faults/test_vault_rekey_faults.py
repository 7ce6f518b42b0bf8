"""The control plane is killed at every step of a change of the vault's key, and every value is still there."""

from __future__ import annotations

import contextlib
import http.client
import shutil
from collections.abc import Iterator

import pytest
from homes import APPS, Home, home_in

from homeport.drivers.vault.seal import REKEY_STEPS

pytestmark = pytest.mark.xdist_group("vault-faults")

VALUES = {f"K{number}": f"value {number} of many" for number in range(10)}
ENV = "/api/v1/projects/plain-static/environments/production/env"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("app") / "plain-static"
    shutil.copytree(APPS / "plain-static", folder)
    with home_in(tmp_path_factory.mktemp("home") / "h") as home:
        home.serve()
        assert home.up(folder)["status"] == "live"
        assert home.api("POST", ENV, {"set": VALUES})[0] == 200
        yield home


@pytest.mark.parametrize("step", [step if step == "ring-written" else pytest.param(step, marks=pytest.mark.slow) for step in REKEY_STEPS])
def test_killed_while_the_key_changes(home: Home, step: str) -> None:
    """kill -9 at this step: after the restart every value opens, the site was served all the time, and the key can be changed."""
    site = host(home)
    home.kill()
    process = home.serve(fault=f"rekey:{step}")
    with contextlib.suppress(OSError, http.client.HTTPException):
        home.api("POST", "/api/v1/vault/rekey", {})
    assert process.wait(10) == -9, "the fault did not fire"
    assert home.get(site, "/").status == 200
    home.serve()
    for key, value in VALUES.items():
        status, found = home.api("GET", f"{ENV}/{key}")
        assert (status, found["value"]) == (200, value)
    status, found = home.api("POST", "/api/v1/vault/rekey", {})
    assert status == 200 and not (home.path / "vault.key.next").exists()
    assert home.api("GET", "/api/v1/audit/verify")[1]["ok"]
    assert not list(home.path.glob(".vault*"))


def host(home: Home) -> str:
    """Where the site is."""
    url = home.json("status", "-p", "plain-static")["services"][0]["url"]
    return str(url).removeprefix("http://").split(":", maxsplit=1)[0]
