"""Every route of the API has a policy, and every kind of key is let through exactly where the policy says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from doors import Door, go_live, open_door
from fastapi.routing import APIRoute

from homeport.api.app import PUBLIC, make_app
from homeport.api.auth import Needs
from homeport.store.keys import SCOPES

POLICIES = {
    "read": {
        "GET /api/v1/environments",
        "GET /api/v1/events",
        "GET /api/v1/deploys/{id}",
        "GET /api/v1/deploys/{id}/events",
        "GET {env}",
        "GET {env}/instances",
        "GET {env}/releases",
        "GET {env}/events",
        "GET {env}/blueprints/{dialect}",
        "GET {env}/env",
        "GET {env}/env-diff",
        "GET {env}/env-history",
        "GET {env}/crons",
        "GET {env}/crons/runs",
        "GET {env}/logs",
    },
    "secrets": {
        "POST {env}/env",
        "GET {env}/env/{key}",
        "POST {env}/env-export",
        "POST {env}/env-versions",
        "POST {env}/env-restore",
        "POST {env}/env-rotate",
        "POST {env}/addons",
        "POST {env}/addons/{name}/rotate",
    },
    "admin": {
        "GET /api/v1/keys",
        "POST /api/v1/keys",
        "POST /api/v1/keys/{id}/rotate",
        "DELETE /api/v1/keys/{id}",
        "POST /api/v1/down",
        "DELETE /api/v1/projects/{project}",
        "POST {env}/run",
        "GET /api/v1/vault",
        "POST /api/v1/vault/rekey",
        "POST /api/v1/vault/rotate",
        "GET /api/v1/audit",
        "GET /api/v1/audit/verify",
        "GET /api/v1/audit/export",
        "GET /api/v1/stores",
        "POST /api/v1/stores",
        "DELETE /api/v1/stores/{name}",
    },
}
"""The routes whose policy must not change by accident: those that read, those that open secrets, those of the owner."""


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("home")) as door:
        go_live(door.platform, {"services": {"web": {"kind": "web", "command": "run"}}})
        yield door


def routes(door: Door) -> list[APIRoute]:
    return [route for route in make_app(door.control).routes if isinstance(route, APIRoute)]


def policies_of(route: APIRoute) -> list[str]:
    return [d.call.scope for d in route.dependant.dependencies if isinstance(d.call, Needs)]


def named(route: APIRoute) -> str:
    return f"{min(route.methods or ())} {route.path}".replace("/api/v1/projects/{project}/environments/{environment}", "{env}")


def test_every_route_declares_one_policy_or_is_public(door: Door) -> None:
    """A route without exactly one policy is not let through this test, and no route is public by accident."""
    for route in routes(door):
        wanted = 0 if route.path in PUBLIC else 1
        assert len(policies_of(route)) == wanted, (
            f"{named(route)} needs a policy: take a key of type Reader, Deployer, SecretKeeper or Admin"
        )
        assert len(route.methods or ()) == 1, named(route)
    assert {"/api/health", "/version", "/api/v1/first-run"} == PUBLIC


@pytest.mark.parametrize("scope", POLICIES)
def test_what_reads_and_what_opens_secrets_is_as_agreed(door: Door, scope: str) -> None:
    """The routes that read, that open secrets and that only the owner may use are the ones of the table."""
    found = {named(route) for route in routes(door) if policies_of(route) == [scope]}
    assert POLICIES[scope] <= found
    if scope == "secrets":
        assert found == POLICIES[scope]


def test_every_route_lets_exactly_the_right_keys_through(door: Door) -> None:
    """No key, a wrong, a revoked and an expired one are refused with 401, a key without the scope with 403, on every route."""
    store = door.platform.store
    revoked, text = store.keys.create("revoked", list(SCOPES))
    store.keys.revoke(revoked.id)
    bad = {"none": None, "revoked": text, "expired": door.key("admin", expires_at=datetime.now(UTC) - timedelta(seconds=1))}
    good = {scope: door.key(scope) for scope in SCOPES}
    tried = 0
    for number, route in enumerate(routes(door)):
        if route.path in PUBLIC:
            continue
        method, path = min(route.methods or ()), re.sub(r"\{[^}]*\}", "unknown-thing", route.path)
        body: Any = {} if method == "POST" else None
        for name, key in {**bad, "wrong": f"hp_{'x' * 43}"}.items():
            reply = door.ask(method, path, body, key=key, source=f"127.1.{number}.2")
            assert (reply.status, reply.body["code"]) == (401, "unauthorised"), (named(route), name)
            tried += 1
        for scope, key in good.items():
            allowed = scope in (*policies_of(route), "admin")
            if allowed and route.path == "/api/v1/down":
                continue
            reply = door.ask(method, path, body, key=key, source=f"127.1.{number}.3")
            assert (reply.status != 403) == allowed and reply.status not in (401, 429) and reply.status < 500, (named(route), scope, reply)
            tried += 1
    assert tried > 200


def test_paths_that_nobody_declared_are_not_answered(door: Door) -> None:
    """Another path, another method or a trailing segment reaches nothing, whatever the key."""
    for method, path in [
        ("GET", "/api/v1"),
        ("GET", "/api/v1/secrets"),
        ("PUT", "/api/v1/keys"),
        ("GET", "/api/v1/vault/rekey"),
        ("GET", "/docs"),
    ]:
        assert door.ask(method, path).status in (404, 405)
    assert door.ask("GET", "/api/v1/vault/../keys", key=None).status in (401, 404)


def test_a_key_is_given_by_header_alone(door: Door) -> None:
    """A key in the address, or under another scheme, is not taken."""
    key = door.admin
    assert door.ask("GET", f"/api/v1/keys?key={key}&access_token={key}", key=None).status == 401
    assert door.ask("GET", "/api/v1/keys", key=f" {key}x").status == 401


def test_answers_and_schema_hold_no_digest(door: Door) -> None:
    """Neither the list of keys nor the schema knows digests or sealed values."""
    for path in ("/api/v1/keys", "/api/openapi.json"):
        text = str(door.ask("GET", path).body)
        assert "digest'" not in text.replace("'digest': {'title': 'Digest'", "") or path.endswith("json")
        assert "sealed'" not in text


def test_home_is_not_touched_by_refused_requests(door: Door, tmp_path: Path) -> None:
    """A refused request leaves no audit row and no change."""
    before = len(list(door.platform.store.audit.all()))
    door.ask("POST", "/api/v1/vault/rekey", {}, key=None, source="127.2.0.2")
    door.ask("POST", "/api/v1/vault/rekey", {}, key=door.key("deploy"), source="127.2.0.2")
    assert len(list(door.platform.store.audit.all())) == before
