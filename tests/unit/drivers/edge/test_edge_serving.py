"""What visitors get from the real edge."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from homeport.drivers.edge.actions import HOMEPORT_HEADERS, INTERNAL_HEADERS
from homeport.drivers.edge.base import Answer, EdgeRefused, EdgeRoute, Files, Forward, RedirectTo, RouteTable, Site, Target, Upstream
from homeport.drivers.edge.nginx import NginxEdge
from homeport.model.route import Condition

Ask = Callable[..., Any]
Make = Callable[..., RouteTable]


def test_a_request_reaches_its_instance_with_the_truth_about_the_visitor(
    edge: NginxEdge, table: Make, app: Ask, ask: Ask, port: int
) -> None:
    """Host, path and query arrive as sent; X-Forwarded-* say what the edge saw."""
    edge.apply(table(app().upstream()))
    seen = ask("/a%2Fb/c%20d?x=%2F&y=1").json()
    assert (seen["app"], seen["path"]) == ("one", "/a%2Fb/c%20d?x=%2F&y=1")
    headers = seen["headers"]
    assert headers["host"] == "web.localhost"
    assert (headers["x-forwarded-for"], headers["x-real-ip"]) == ("127.0.0.1", "127.0.0.1")
    assert (headers["x-forwarded-proto"], headers["x-forwarded-host"], headers["x-forwarded-port"]) == ("http", "web.localhost", str(port))
    assert len(headers["x-request-id"]) == 32
    assert ask("/", headers={"Host": f"web.localhost:{port}"}, host="").json()["headers"]["host"] == f"web.localhost:{port}"


LIES = sorted({*INTERNAL_HEADERS, *(f"X-Homeport-{name}" for name in (*HOMEPORT_HEADERS, "Anything-New"))})


def test_headers_only_a_proxy_may_set_are_taken_from_visitors(edge: NginxEdge, table: Make, app: Ask, ask: Ask) -> None:
    """Every internal header is stripped or overwritten, in any spelling, and `Connection` cannot nominate one."""
    edge.apply(table(app().upstream()))
    forged = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Real-IP", "X-Request-Id")
    lies = dict.fromkeys((*LIES, *forged), "evil")
    for headers in (
        lies,
        {name.upper(): value for name, value in lies.items()},
        {name.replace("-", "_"): value for name, value in lies.items()},
    ):
        seen = ask("/", headers={**headers, "Connection": "X-Forwarded-For, X-Real-IP, X-Homeport-User"}).json()["headers"]
        assert "evil" not in seen.values()
        assert seen["x-forwarded-for"] == "127.0.0.1"
        assert not [name for name in seen if name.startswith("x-homeport")]


def test_an_absolute_address_cannot_show_the_instance_another_host(edge: NginxEdge, table: Make, app: Ask, port: int) -> None:
    """The host that chose the site is the host the instance sees."""
    edge.apply(table(app().upstream()))
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"GET http://web.localhost/ HTTP/1.1\r\nHost: admin.localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["headers"]["host"] == "web.localhost"


def test_an_unknown_host_gets_a_404_that_nobody_stores(edge: NginxEdge, table: Make, app: Ask, ask: Ask) -> None:
    """Hosts that no site declares are answered by the platform."""
    edge.apply(table(app().upstream()))
    reply = ask("/x.css", host="other.localhost")
    assert (reply.status, reply.headers["cache-control"], reply.headers["content-type"]) == (404, "no-store", "text/html; charset=utf-8")
    assert b"Not found" in reply.body


def test_platform_pages_say_when_to_come_again(edge: NginxEdge, table: Make, app: Ask, ask: Ask) -> None:
    """A dead instance is a 502 and none at all a 503, with Retry-After and no-store; an instance's own 503 passes untouched."""
    gone = app("gone")
    gone.stop()
    down = Upstream(name="none", targets=())
    edge.apply(table(EdgeRoute(path="/gone", action=gone.upstream()), EdgeRoute(path="/none", action=down), app("ok").upstream()))
    for path, status in (("/gone", 502), ("/none/x.js", 503)):
        reply = ask(path)
        assert (reply.status, reply.headers["cache-control"], reply.headers["retry-after"]) == (status, "no-store", "5")
        assert reply.headers["content-type"].startswith("text/html")
    reply = ask("/down")
    assert (reply.status, "retry-after" in reply.headers, reply.json()["app"]) == (503, False, "ok")


def test_a_slow_instance_is_a_504(edge: NginxEdge, table: Make, app: Ask, ask: Ask) -> None:
    """Silence longer than the timeout ends in a platform page."""
    edge.apply(table(app().upstream(timeout=timedelta(milliseconds=100))))
    assert ask("/slow").status == 504


def test_large_bodies_pass_unless_a_site_limits_them(edge: NginxEdge, table: Make, app: Ask, ask: Ask, tmp_path: Path) -> None:
    """50 MB arrive byte for byte, sized or chunked, without a copy on the edge's disk; a limit is a 413."""
    one = app()
    edge.apply(table(one.upstream()))
    body = os.urandom(1 << 20) * 50
    digest = hashlib.sha256(body).hexdigest()
    assert ask("/", method="POST", body=body).json()["sha256"] == digest
    assert ask("/", method="PUT", body=iter([body[:1000], body[1000:]])).json()["sha256"] == digest
    assert not [path for path in (tmp_path / "home/edge/cache").rglob("*") if path.is_file()]
    edge.apply(table(one.upstream(), max_body=1000))
    assert ask("/", method="POST", body=b"x" * 1001).status == 413


def test_events_come_one_by_one(edge: NginxEdge, table: Make, app: Ask, port: int) -> None:
    """Server-sent events are passed on as they are written."""
    edge.apply(table(app().upstream()))
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client, client.makefile("rb") as file:
        client.sendall(b"GET /sse HTTP/1.1\r\nHost: web.localhost\r\n\r\n")
        began = time.monotonic()
        while b"data: one 3" not in file.readline():
            pass
        assert time.monotonic() - began < 20


def test_only_websocket_may_upgrade(edge: NginxEdge, table: Make, app: Ask, ask: Ask) -> None:
    """An `Upgrade: h2c` is not passed on: it would open a tunnel past the edge."""
    edge.apply(table(app().upstream()))
    seen = ask("/", headers={"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAA"}).json()["headers"]
    assert "upgrade" not in seen
    assert "upgrade" not in seen.get("connection", "").lower()


ROUTES = [
    # path asked, status, location or app that answers, path it saw
    ("/api", 200, "api", "/"),
    ("/api/", 200, "api", "/"),
    ("/api/v1/x?q=1", 200, "api", "/v1/x?q=1"),
    ("/apis", 200, "web", "/apis"),
    ("/exact", 410, "", ""),
    ("/exact/no", 200, "web", "/exact/no"),
    ("/old/a%20b?x=1", 308, "/new/a%20b?x=1", ""),
    ("/old//evil.example", 404, "", ""),
    ("/go/a%2520b?y=2", 302, "https://x.example/?to=a%2520b&y=2", ""),
    ("/blog/a%0d%0ab", 200, "api", "/posts/a%0d%0ab"),
    ("/blog/hello?x=1", 200, "api", "/posts/hello?x=1"),
    ("/cost", 307, "/$5/%C3%A9?x=1", ""),
    ("/anything/else", 200, "web", "/anything/else"),
]


@pytest.fixture
def routed(edge: NginxEdge, table: Make, app: Ask) -> None:
    api, web = app("api"), app("web")
    edge.apply(
        table(
            EdgeRoute(path="/api", action=api.upstream(strip_prefix="/api")),
            EdgeRoute(path="/exact", syntax="exact", action=Answer(status=410, body='gone $1 "\\"\n{};')),
            EdgeRoute(path="^/old/(.*)$", syntax="regex", action=RedirectTo(to="/$1")),
            EdgeRoute(path="^/new/.*$", syntax="regex", action=Answer(status=200)),
            EdgeRoute(path=r"^/go/(?<where>[^/]+)$", syntax="regex", action=RedirectTo(to="https://x.example/?to=$where", status=302)),
            EdgeRoute(path=r"^/blog/(?<slug>[^/]+)$", syntax="regex", action=api.upstream(rewrite="/posts/${slug}")),
            EdgeRoute(path="/cost", action=RedirectTo(to="/$$5/é", status=307)),
            web.upstream(),
        )
    )


@pytest.mark.parametrize(("path", "status", "answer", "saw"), ROUTES, ids=[row[0] for row in ROUTES])
def test_the_first_route_that_matches_answers(routed: None, ask: Ask, path: str, status: int, answer: str, saw: str) -> None:
    """Prefixes, exact paths and patterns, redirects and rewrites; what visitors send stays encoded and cannot choose a host."""
    del routed
    query = "?x=1" if path == "/cost" else ""
    reply = ask(path + query)
    assert reply.status == status
    if status == 200:
        assert (reply.json()["app"], reply.json()["path"]) == (answer, saw)
    elif 300 <= status < 400:
        assert reply.headers["location"] == answer.replace("/new/", "/")
    elif status == 410:
        assert reply.body.decode() == 'gone $1 "\\"\n{};'


def test_routes_with_conditions_are_tried_in_order(edge: NginxEdge, table: Make, app: Ask, ask: Ask) -> None:
    """Methods, headers, cookies, queries and hosts decide; a route that does not hold leaves the request to the next."""

    def when(kind: Any, key: str, value: str = "", **more: Any) -> Condition:
        return Condition(type=kind, key=key, value=value, **more)

    def answers(number: int, *conditions: Condition, path: str = "/", methods: tuple[str, ...] = ()) -> EdgeRoute:
        return EdgeRoute(path=path, methods=methods, conditions=conditions, action=Answer(status=200, body=str(number)))

    web = app("web")
    edge.apply(
        table(
            answers(0, path="/fixed"),
            answers(1, when("header", "X-Beta", "on")),
            answers(2, when("cookie", "plan", "pro.*"), when("query", "v", "2")),
            answers(3, when("header", "X-No", negate=True), path="/no"),
            answers(4, when("header", "Accept-Language", ""), when("language", "", "de,fr"), path="/hallo"),
            answers(5, path="/write", methods=("POST", "PUT")),
            EdgeRoute(path="/post", methods=("POST",), action=web.upstream(release="r9")),
            answers(6, path="/write"),
            answers(7),
        )
    )
    beta = {"X-Beta": "on"}
    assert ask("/fixed", headers=beta).body == b"0"
    assert ask("/x", headers=beta).body == b"1"
    assert ask("/x", headers={"X-Beta": "on2"}).body == b"7"
    assert ask("/x?v=2", headers={"Cookie": "a=b; plan=professional"}).body == b"2"
    assert ask("/x?v=2", headers={"Cookie": "plan=free"}).body == b"7"
    assert ask("/no").body == b"3"
    assert ask("/no", headers={"X-No": "1"}).body == b"7"
    assert ask("/hallo", headers={"Accept-Language": "fr-CH, en;q=0.5"}).body == b"4"
    assert ask("/hallo", headers={"Accept-Language": "en"}).body == b"7"
    assert ask("/write", method="PUT", body=b"x").body == b"5"
    assert ask("/write").body == b"6"
    body = b"x" * 3_000_000
    assert ask("/post", method="POST", body=body, headers={"Expect": "100-continue"}).json()["size"] == len(body)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "home/artifacts/abc/public"
    for name, text in {
        "index.html": "home", "about.html": "about", "docs/index.html": "docs", "docs/intro.html": "intro",
        "app.js": "js", "style.css": "css",
        "data.bin": "x" * 1000, "404.html": "mine", ".env": "secret", ".git/config": "secret", "feed": "none",
        ".well-known/security.txt": "contact", "a $b;.txt": "odd", "empty/x.txt": "x",
    }.items():  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "outside").write_text("outside")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "out").symlink_to(tmp_path)
    return root


def test_files_are_served_with_type_and_validators(edge: NginxEdge, table: Make, ask: Ask, site: Path) -> None:
    """GET, HEAD, Range and If-None-Match work; media types are right; headers asked for are set."""
    edge.apply(
        table(EdgeRoute(action=Files(root=site, not_found="/404.html"), response_headers={"Cache-Control": "max-age=9", "X-A": 'a"$b'}))
    )
    for path, kind in (
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
    ):
        assert ask(path).headers["content-type"] == kind
    reply = ask("/data.bin")
    assert (reply.headers["content-type"], reply.headers["cache-control"], reply.headers["x-a"]) == (
        "application/octet-stream",
        "max-age=9",
        'a"$b',
    )
    assert ask("/data.bin", headers={"If-None-Match": reply.headers["etag"]}).status == 304
    part = ask("/data.bin", headers={"Range": "bytes=10-19"})
    assert (part.status, len(part.body)) == (206, 10)
    assert (ask("/data.bin", method="HEAD").body, ask("/data.bin", method="HEAD").headers["content-length"]) == (b"", "1000")
    assert ask("/a%20$b%3B.txt").body == b"odd"
    missing = ask("/nothing.js")
    assert (missing.status, missing.body, missing.headers["content-type"]) == (404, b"mine", "text/html; charset=utf-8")
    assert ask("/docs/").body == b"docs"
    assert (ask("/docs?x=1").status, ask("/docs?x=1").headers["location"]) == (308, "/docs/?x=1")
    assert ask("/empty/").status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/.env",
        "/.git/config",
        "/link",
        "/out/outside",
        "/../outside",
        "/%2e%2e/outside",
        "/..%2foutside",
        "/docs/..%2f..%2foutside",
        "//.env",
        "/%2eenv",
    ],
)
def test_files_outside_the_site_and_dotfiles_are_not_there(edge: NginxEdge, table: Make, ask: Ask, site: Path, path: str) -> None:
    """Links out, dot segments and dotfiles end in 4xx; `.well-known` is served."""
    edge.apply(table(Files(root=site)))
    reply = ask(path)
    assert reply.status in (400, 403, 404)
    assert b"secret" not in reply.body
    assert ask("/.well-known/security.txt").body == b"contact"


def test_clean_urls_and_slashes(edge: NginxEdge, table: Make, ask: Ask, site: Path) -> None:
    """`/about` is about.html and `/about.html` goes there; a slash is taken off or put on; no redirect leaves the host."""
    edge.apply(table(Files(root=site, clean_urls=True, trailing_slash=False)))
    assert (ask("/about").body, ask("/docs").body, ask("/docs/intro").body) == (b"about", b"docs", b"intro")
    assert [
        ask(path).headers.get("location") for path in ("/about.html?a=1", "/docs/index.html", "/index.html", "/about/", "/docs/?x=1")
    ] == [
        "/about?a=1",
        "/docs/",
        "/",
        "/about",
        "/docs?x=1",
    ]
    for path in ("//evil.example/", "//evil.example/x.html", "/\\evil.example/"):
        assert "location" not in ask(path).headers
    edge.apply(table(Files(root=site, trailing_slash=True)))
    assert ask("/about").headers["location"] == "/about/"
    assert "location" not in ask("/\\evil").headers
    assert (ask("/about/").body, ask("/app.js").body, ask("/docs/").body) == (b"about", b"js", b"docs")


def test_single_page_fallbacks_and_prefixes(edge: NginxEdge, table: Make, app: Ask, ask: Ask, site: Path) -> None:
    """Unknown paths give the page of a single-page application, or go to the application that is the fallback."""
    one = app()
    edge.apply(
        table(
            EdgeRoute(path="/spa", action=Files(root=site, single_page=True, strip_prefix="/spa")),
            Files(root=site, fallback=one.upstream()),
        )
    )
    assert (ask("/spa/deep/link").body, ask("/spa/app.js").body, ask("/spa/").body) == (b"home", b"js", b"home")
    assert ask("/spa").headers["location"] == "/spa/"
    assert ask("/app.js").body == b"js"
    assert ask("/not/there?x=1").json()["path"] == "/not/there?x=1"
    assert ask("/not/there", method="POST", body=b"abc").json()["size"] == 3


def test_allow_lists_hold_for_every_kind_of_route(edge: NginxEdge, table: Make, app: Ask, ask: Ask) -> None:
    """Who is not on the list gets 403, from redirects and answers too."""
    routes = (
        EdgeRoute(path="/r", action=RedirectTo(to="/x")),
        EdgeRoute(path="/a", action=Answer(status=200)),
        EdgeRoute(action=app().upstream()),
    )
    edge.apply(table(*routes, allow=("10.0.0.0/8", "::1")))
    assert [ask(path).status for path in ("/r", "/a", "/x")] == [403, 403, 403]
    edge.apply(table(*routes, allow=("127.0.0.1",)))
    assert [ask(path).status for path in ("/r", "/a", "/x")] == [308, 200, 200]


def test_response_headers_replace_the_applications(edge: NginxEdge, table: Make, app: Ask, ask: Ask) -> None:
    """A header set by a route is there once; a removed one is gone, on errors too."""
    edge.apply(
        table(
            EdgeRoute(
                action=app().upstream(),
                response_headers={"Content-Type": "text/x-new", "X-Frame-Options": "DENY"},
                remove_headers=("X-Powered-By",),
            )
        )
    )
    reply = ask("/down")
    assert (reply.headers["content-type"], reply.headers["x-frame-options"]) == ("text/x-new", "DENY")
    assert "x-powered-by" not in reply.headers


def test_release_and_generation_are_told_to_probes_only(edge: NginxEdge, table: Make, app: Ask, ask: Ask) -> None:
    """Without the token nothing is told, and an instance cannot speak for the edge."""
    generation = edge.apply(table(app("r7").upstream()))
    assert not [name for name in ask("/").headers if name.startswith("x-homeport")]
    told = ask("/", headers={"X-Homeport-Probe": edge.token()}).headers
    assert (told["x-homeport-release"], told["x-homeport-generation"]) == ("r7", str(generation))
    assert "x-homeport-release" not in ask("/", headers={"X-Homeport-Probe": "1"}).headers


def test_a_candidate_is_checked_through_the_edge_before_any_site_shows_it(edge: NginxEdge, table: Make, app: Ask, ask: Ask) -> None:
    """The private listener reaches the new instance; visitors still get the old; nothing is reloaded."""
    old, new = app("old"), app("new")
    generation = edge.apply(table(old.upstream()))
    checked = edge.check(new.target, host="web.localhost", path="/up?x=1")
    seen = json.loads(checked.body)
    assert (checked.status, seen["app"], seen["path"], seen["headers"]["host"]) == (200, "new", "/up?x=1", "web.localhost")
    assert "x-homeport-probe" not in seen["headers"]
    assert (ask("/").json()["app"], edge.status().generation) == ("old", generation)
    new.stop()
    assert edge.check(new.target, host="web.localhost").status == 502


def test_private_services_are_reached_over_tcp(edge: NginxEdge, app: Ask, ask: Ask, port: int) -> None:
    """A forward passes bytes on to the instance."""
    edge.apply(RouteTable(port=_free(), forwards=(Forward(name="db", host="127.0.0.1", port=port, targets=(app("db").target,)),)))
    assert ask("/").json()["app"] == "db"


def test_the_log_says_who_asked_what_without_queries(edge: NginxEdge, table: Make, app: Ask, ask: Ask, tmp_path: Path) -> None:
    """One JSON object per request, names of site and release in it, never a query."""
    edge.apply(table(app("r1").upstream()))
    ask('/pay"\\%0a?card=4111')
    log = tmp_path / "home/edge/log/access.jsonl"
    deadline = time.monotonic() + 5
    while not log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    entry = json.loads(log.read_text().splitlines()[-1])
    assert (entry["site"], entry["release"], entry["path"], entry["status"], entry["host"]) == (
        "shop-production-web",
        "r1",
        '/pay"\\\n',
        200,
        "web.localhost",
    )
    assert "4111" not in log.read_text()


@pytest.mark.parametrize(
    "text", ["\n", ";", "}", "{", "$", '"', "\\", "'", "#", "${host}", "é\u2028", " ", "%", "a" * 1000, "$1", "\\\\", "\t"]
)
def test_nginx_accepts_hostile_text_and_gives_it_back(edge: NginxEdge, table: Make, ask: Ask, text: str) -> None:
    """Text that means something to nginx is only text, and comes back as it was."""
    routes = [EdgeRoute(path="/body", action=Answer(status=200, body=text, content_type="text/plain"))]
    if text != "\n":
        routes.append(EdgeRoute(path="/header", action=Answer(status=200), response_headers={"X-A": f"a{text}b"}))
    edge.apply(table(*routes, Files(root=Path(f"/nonexistent/a{text.strip()}b"))))
    assert ask("/body").body.decode() == text
    if len(routes) > 1:
        assert ask("/header").headers["x-a"].encode("latin-1").decode() == f"a{text}b"


def test_a_pattern_nginx_refuses_changes_nothing(edge: NginxEdge, table: Make, app: Ask, ask: Ask) -> None:
    """What only nginx can refuse is refused on the scratch copy, and the old table is served."""
    good = table(app().upstream())
    generation = edge.apply(good)
    with pytest.raises(EdgeRefused) as refused:
        edge.apply(table(EdgeRoute(path="^/a{2,1}$", syntax="regex", action=Answer(status=200))))
    assert "nginx says" in refused.value.why
    assert (edge.table(), edge.status().generation, ask("/").status) == (good, generation, 200)


def test_one_failing_instance_of_several_costs_no_request(edge: NginxEdge, table: Make, app: Ask, ask: Ask) -> None:
    """With two instances, one of them dead, every GET and POST is answered by the other; no POST runs twice."""
    alive, dead = app("alive"), app("dead")
    dead.stop()
    edge.apply(table(Upstream(name="web", targets=(dead.target, alive.target))))
    for number in range(40):
        assert ask("/", method="POST" if number % 2 else "GET", body=b"x", headers={"X-Id": str(number)}).status == 200
    assert len(alive.posts) == len(set(alive.posts)) == 20


def test_sticky_visitors_stay(edge: NginxEdge, table: Make, app: Ask, ask: Ask) -> None:
    """A visitor who shows the cookie gets the same instance."""
    one, two = app("one"), app("two")
    edge.apply(table(Upstream(name="web", targets=(one.target, two.target), sticky=True)))
    first = ask("/")
    cookie = first.headers["set-cookie"].partition(";")[0]
    assert {ask("/", headers={"Cookie": cookie}).json()["app"] for _ in range(6)} == {first.json()["app"]}


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_sites_have_names_of_their_own(edge: NginxEdge, app: Ask, ask: Ask, port: int) -> None:
    """Hosts choose the site; a wildcard takes what no other names."""
    one, two = app("one"), app("two")
    edge.apply(
        RouteTable(
            port=port,
            sites=(
                Site(name="a", hosts=("*.shop.localhost",), routes=(EdgeRoute(action=one.upstream()),)),
                Site(name="b", hosts=("web.shop.localhost", "x.example"), routes=(EdgeRoute(action=two.upstream()),)),
            ),
        )
    )
    assert [ask("/", host=host).json()["app"] for host in ("any.shop.localhost", "web.shop.localhost", "X.Example")] == [
        "one",
        "two",
        "two",
    ]


def test_names_are_looked_up_while_the_edge_runs(edge: NginxEdge, table: Make) -> None:
    """A target that cannot be looked up does not keep the edge from starting."""
    assert (
        edge.apply(
            table(Upstream(name="away", targets=(Target(host="no-such-host.invalid", port=443),), protocol="https", tls_verify=False))
        )
        == 1
    )
