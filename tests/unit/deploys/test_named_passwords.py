"""Passwords of add-ons that a file names by a variable: the add-on has what the services' variables say, or nobody gets in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doors import Door, go_live, open_door
from engines import PaperEngine

from homeport.deploys.secrets import SecretsMissing
from homeport.drivers.addons.temporal import TemporalDriver
from homeport.drivers.toolchains.toolchains import Toolchains

SLUG = "shop-production-db"


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with open_door(tmp_path / "home") as door:
        door.platform.addons.drivers = {"postgres": PaperEngine(door.platform.home)}
        yield door


def spec(**password: Any) -> dict[str, Any]:
    """As a compose file is read: one variable in the address of the service and in the database's own settings."""
    parts = ["postgresql://shop:", password, "@db/shop"]
    web = {"kind": "web", "command": "run", "env": {"DATABASE_URL": {"kind": "template", "parts": parts}}}
    return {"services": {"web": web}, "addons": {"db": {"kind": "postgres", "user": "shop", "password": password}}}


def newest(door: Door, consumer: str = "") -> str:
    driver = door.platform.addons.drivers["postgres"]
    assert isinstance(driver, PaperEngine)
    return driver.passwords[SLUG, consumer][-1]


@pytest.mark.parametrize(
    "password",
    [
        {"kind": "secret", "required": False, "name": "DB_PASSWORD", "default": "from-the-file"},
        {"kind": "host", "name": "DB_PASSWORD", "default": "from-the-file"},
    ],
)
def test_a_default_is_the_password(door: Door, password: dict[str, Any]) -> None:
    """`${DB_PASSWORD:-from-the-file}` is one password on both sides; set by a person it is another one on both sides."""
    release = go_live(door.platform, spec(**password))
    door.platform.addons.provision(release)
    assert newest(door) == newest(door, "web") == "from-the-file"
    assert "shop:from-the-file@" in door.platform.environment_of(release, "web")["DATABASE_URL"]
    door.platform.secrets.set("shop", "production", "DB_PASSWORD", "s3t-by-hand", by="me")
    later = go_live(door.platform, spec(**password))
    door.platform.addons.provision(later)
    assert newest(door) == "s3t-by-hand"
    assert "shop:s3t-by-hand@" in door.platform.environment_of(later, "web")["DATABASE_URL"]


def test_a_release_keeps_the_version_it_pins(door: Door) -> None:
    """Going back to a release of before brings back the password that its services have."""
    named = {"kind": "secret", "name": "DB_PASSWORD"}
    door.platform.secrets.set("shop", "production", "DB_PASSWORD", "first-one", by="me")
    first = go_live(door.platform, spec(**named))
    door.platform.secrets.set("shop", "production", "DB_PASSWORD", "second-one", by="me")
    door.platform.addons.provision(go_live(door.platform, spec(**named)))
    assert newest(door) == "second-one"
    door.platform.addons.provision(first)
    assert "shop:first-one@" in door.platform.environment_of(first, "web")["DATABASE_URL"]
    driver = door.platform.addons.drivers["postgres"]
    assert isinstance(driver, PaperEngine) and "first-one" in driver.passwords[SLUG, ""]


def test_one_that_nobody_says_is_made(door: Door) -> None:
    """Without a value and a default Homeport makes one, and may change it."""
    release = go_live(door.platform, {**spec(kind="value", value=""), "addons": {"db": {"kind": "postgres"}}})
    door.platform.addons.provision(release)
    assert len(newest(door)) >= 32 and door.platform.addons.fixed_password(release, "db") == ""


def test_one_that_a_variable_says_is_changed_there(door: Door) -> None:
    """Rotating it would leave the services with the old one, so it is refused, and says which variable it is."""
    named = {"kind": "secret", "required": False, "name": "DB_PASSWORD", "default": "from-the-file"}
    door.platform.addons.provision(go_live(door.platform, spec(**named)))
    answer = door.ask("POST", "/api/v1/projects/shop/environments/production/addons/db/rotate", {})
    assert answer.status == 422 and "DB_PASSWORD" in answer.body["fix"]


def test_a_client_certificate_that_nobody_set_is_asked_for(door: Door) -> None:
    """An outside Temporal cluster without its certificate would turn every worker away: the deploy says which value is missing."""
    door.platform.addons.drivers = {"temporal": TemporalDriver(door.platform.home, Toolchains(door.platform.home, search=[]))}
    flows = {
        "kind": "temporal",
        "address": "127.0.0.1:1",
        "tls_certificate": {"kind": "secret"},
        "tls_key": {"kind": "secret", "name": "KEY"},
    }
    release = go_live(door.platform, {"services": {"web": {"kind": "web", "command": "run"}}, "addons": {"flows": flows}})
    with pytest.raises(SecretsMissing, match="FLOWS_TLS_CERT"):
        door.platform.addons.provision(release)
    for name in ("FLOWS_TLS_CERT", "KEY"):
        door.platform.secrets.set("shop", "production", name, f"pem of {name}", by="me")
    door.platform.addons.provision(release)
    assert door.platform.environment_of(release, "web")["TEMPORAL_TLS_KEY"] == "pem of KEY"
    path = "/api/v1/projects/shop/environments/production/addons/flows"
    shown = door.ask("GET", path).body
    assert (shown["state"], shown["detail"]) == ("unwell", "it does not answer")
    assert door.ask("POST", f"{path}/restart", {}).body["why"] == "flows is run by somebody else."
