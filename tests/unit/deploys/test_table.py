"""The route table shows what is live, on the hosts that it says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from homeport.deploys.routes import Live, captures, edge_pattern, hosts_of, make_table
from homeport.drivers.edge.base import Answer, Files, RedirectTo, Target, Upstream
from homeport.model.release import Artifact, Release, Revision
from homeport.model.route import Match
from homeport.model.spec import Spec


def release(services: dict[str, Any], environment: str = "production", **rest: Any) -> Release:
    spec = Spec.model_validate({"name": "shop", "services": services, **rest})
    artifacts = {name: Artifact(id="a", folder="/artifacts/a", publish="dist") for name in services}
    return Release(
        id="r1",
        project="shop",
        environment=environment,
        number=1,
        revision=Revision(digest="d"),
        spec=spec,
        artifacts=artifacts,
        created_at=datetime.now(UTC),
    )


TARGET = Target(host="127.0.0.1", port=20001)


def table(of: Release, **live: Any) -> Any:
    return make_table([Live(of, {"web": (TARGET,)}, **live)], port=8080, address="127.0.0.1")


def test_a_service_answers_on_its_own_host_and_the_front_also_on_the_projects() -> None:
    """Default hosts name service and project, other environments are named in between, custom hosts are production's."""
    services = {"web": {"kind": "web", "domains": [{"host": "Shop.example"}]}, "site": {"kind": "static"}}
    production, staging = release(services), release(services, "staging")
    assert hosts_of(production, "web") == ("web.shop.localhost", "shop.localhost", "shop.example")
    assert hosts_of(production, "site") == ("site.shop.localhost",)
    assert hosts_of(staging, "web") == ("web.staging.shop.localhost", "staging.shop.localhost")


def test_a_web_service_goes_to_its_instances() -> None:
    """Requests go to the targets of the live release."""
    action = table(release({"web": {"kind": "web"}})).sites[0].routes[-1].action
    assert isinstance(action, Upstream) and action.targets == (TARGET,) and action.release == "r1" and action.backups == ()


def test_a_rule_by_country_does_not_keep_the_rest_from_the_edge() -> None:
    """Such a rule is left out, its opposite holds for everybody; the edge would refuse the whole table."""
    rule = {"service": "web", "action": {"kind": "redirect", "to": "/x"}}
    country, language = {"type": "country", "value": "de"}, {"type": "language", "value": "de"}
    routes = [
        {**rule, "match": {"path": f"/{number}", "conditions": conditions}}
        for number, conditions in enumerate(([country, language], [{**country, "negate": True}, language]))
    ]
    found = table(release({"web": {"kind": "web"}}, routes=routes)).sites[0].routes
    assert [(route.path, [condition.type for condition in route.conditions]) for route in found] == [("/1", ["language"]), ("/", [])]


def test_requests_of_a_held_service_wait_at_its_relay() -> None:
    """While it is held a service's only target is the relay; at other times the relay is the last resort."""
    of, relay = release({"web": {"kind": "web"}}), Target(host="127.0.0.1", port=20009)
    held = make_table([Live(of, {"web": ()}, relays={"web": relay})], port=1, address="127.0.0.1", held={"shop/production/web": relay})
    action = held.sites[0].routes[-1].action
    assert isinstance(action, Upstream) and action.targets == (relay,)
    usual = table(of, relays={"web": relay}).sites[0].routes[-1].action
    assert isinstance(usual, Upstream) and usual.targets == (TARGET,) and usual.backups == (relay,)


@pytest.mark.parametrize("service", [{"kind": "web"}, {"kind": "web", "maintenance": {"enabled": True}}])
def test_without_instances_or_in_maintenance_the_edge_answers_503(service: dict[str, Any]) -> None:
    """Nothing to send to is a 503 of the edge, not a refused connection."""
    action = make_table([Live(release({"web": service}), {})], port=1, address="127.0.0.1").sites[0].routes[-1].action
    assert isinstance(action, Answer) and action.status == 503 and not action.cacheable


def test_a_static_site_is_files_with_its_routes_before_them() -> None:
    """Redirects and headers of the file come in order, before the files."""
    routes = [
        {"service": "site", "match": {"path": "/old", "syntax": "exact"}, "action": {"kind": "redirect", "to": "/new", "status": 301}},
        {"service": "site", "match": {"path": "/*", "syntax": "glob"}, "action": {"kind": "headers", "response": {"X-A": "1"}}},
    ]
    found = table(release({"site": {"kind": "static", "single_page": True}}, routes=routes)).sites[0].routes
    assert isinstance(found[0].action, RedirectTo) and found[0].action.status == 301
    assert isinstance(found[-1].action, Files) and found[-1].action.single_page and found[-1].response_headers == {"X-A": "1"}
    assert str(found[-1].action.root) == "/artifacts/a/dist"


@pytest.mark.parametrize(
    ("match", "wanted"),
    [
        (Match(path="/a", syntax="prefix"), ("/a", "prefix")),
        (Match(path="/a/*", syntax="glob"), ("/a/", "prefix")),
        (Match(path="/*", syntax="glob"), ("/", "prefix")),
        (Match(path="/a", syntax="glob"), ("/a", "exact")),
        (Match(path="/blog/:slug", syntax="params"), ("^/blog/(?<slug>[^/]+)$", "regex")),
        (Match(path="/docs/:path*", syntax="params"), ("/docs/", "prefix")),
        (Match(path="/x(y)", syntax="params"), None),
    ],
)
def test_patterns_of_the_dialects_become_patterns_of_the_edge(match: Match, wanted: tuple[str, str] | None) -> None:
    """Prefixes stay prefixes, parameters become named captures, and what has no form is left out."""
    assert edge_pattern(match) == wanted


@pytest.mark.parametrize(
    ("match", "to", "pattern"),
    [
        (Match(path="/blog/*", syntax="glob"), "/news/:splat", r"^/blog/(?<splat>.*)$"),
        (Match(path="/*", syntax="glob"), "https://example.com/:splat", r"^/(?<splat>.*)$"),
        (Match(path="/docs/:path*", syntax="params"), "/guide/:path*", r"^/docs/(?<path>.*)$"),
    ],
)
def test_what_a_destination_uses_is_captured(match: Match, to: str, pattern: str) -> None:
    """A path that could be a prefix is a pattern with a capture when the destination needs the rest of it."""
    routes = [{"service": "site", "match": match.model_dump(), "action": {"kind": "redirect", "to": to, "status": 301}}]
    first = table(release({"site": {"kind": "static"}}, routes=routes)).sites[0].routes[0]
    assert (first.path, first.syntax) == (pattern, "regex")
    assert isinstance(first.action, RedirectTo) and "$" in first.action.to


def test_parameters_in_destinations_become_captures() -> None:
    """`:slug` is a capture; the `:` of a scheme or port is not."""
    assert captures("/posts/:slug") == "/posts/$slug"
    assert captures("https://example.com/:splat") == "https://example.com/$splat"


def test_two_projects_never_share_a_host() -> None:
    """A host that is taken stays with the first."""
    of = release({"web": {"kind": "web", "domains": [{"host": "a.example"}]}})
    twin = of.model_copy(update={"project": "other"})
    found = make_table([Live(of, {"web": (TARGET,)}), Live(twin, {"web": (TARGET,)})], port=1, address="127.0.0.1")
    assert [("a.example" in site.hosts) for site in found.sites] == [True, False]
