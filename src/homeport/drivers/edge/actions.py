"""One route's action as nginx directives."""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

from homeport.drivers.edge.base import Answer, EdgeRefused, EdgeRoute, Files, RedirectTo, Target, Upstream
from homeport.drivers.edge.pages import PAGES, RETRY_AFTER
from homeport.drivers.edge.patterns import Pattern, Template, joined_query, literal
from homeport.drivers.edge.syntax import Directive, block, check, line, plain, quote

HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
"""The part of RFC 9110's `token` that means nothing to nginx."""
OWN_HEADERS = frozenset({"connection", "transfer-encoding", "content-length", "date", "server", "upgrade", "keep-alive", "trailer", "te"})
"""Headers of the connection: they are nginx's to write."""
LARGEST_ANSWER = 64 * 1024
"""Bytes of a fixed answer."""
UPSTREAM_IDLE = 1
"""Seconds an idle connection to an instance is kept: below the keep-alive time of common servers (gunicorn 2 s, Node and uvicorn 5 s), so
that no request is sent on a connection the application is just closing."""

INTERNAL_HEADERS = (
    "X-Forwarded-Server", "X-Forwarded-Prefix", "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Ssl", "X-Forwarded-Scheme",
    "X-Original-URL", "X-Original-Host", "X-Original-Forwarded-For", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-Middleware-Subrequest",
    "X-Middleware-Subrequest-Id", "X-Middleware-Invoke", "X-Invoke-Path", "X-Invoke-Query", "X-Invoke-Status", "X-Nextjs-Data-Internal",
    "X-Cluster-Client-Ip", "X-Client-Ip", "X-Remote-User", "Remote-User", "X-Auth-Request-User", "X-Auth-Request-Email", "X-Url-Scheme",
    "X-Host", "X-Scheme", "X-ProxyUser-Ip", "X-Accel-Internal", "X-Sendfile", "X-Real-Host", "True-Client-Ip", "CF-Connecting-IP",
    "Fastly-Client-Ip", "Forwarded", "Proxy", "Front-End-Https", "Client-Ip",
)  # fmt: skip
"""Headers that only a proxy in front may set, and that applications believe."""
HOMEPORT_HEADERS = (
    "Probe",
    "Release",
    "Generation",
    "Candidate",
    "User",
    "Site",
    "Project",
    "Environment",
    "Service",
    "Role",
    "Token",
    "Internal",
)


@dataclass
class Drawing:
    """What is collected while a table is turned into directives."""

    home: Path
    version: tuple[int, ...]
    headers_more: bool = True
    upstreams: dict[tuple[object, ...], tuple[str, list[Directive]]] = field(default_factory=dict)
    resolves: bool = False
    prelude: list[Directive] = field(default_factory=list)
    """What the site at hand must work out before a location is chosen. It stands in the `server` block because an `if` that matches inside
    a location leaves that location's configuration, `try_files` included."""

    def beforehand(self, *directives: Directive) -> None:
        """Add to the prelude, once."""
        self.prelude += [directive for directive in directives if directive not in self.prelude]


COMMON = (
    line("add_header", "X-Homeport-Release", "$homeport_told_release", "always"),
    line("add_header", "X-Homeport-Generation", "$homeport_told_generation", "always"),
)
"""Told on probe requests only: an empty value writes no header."""


def milliseconds(value: timedelta) -> str:
    """A duration as nginx reads it; at least 1 ms, because 0 would mean another thing."""
    return f"{max(1, round(value / timedelta(milliseconds=1)))}ms"


def request_headers(host: str, drawing: Drawing, *, client: str = "$remote_addr") -> list[Directive]:
    """The headers an instance gets: truth from the edge, nothing a client made up."""
    names = list(INTERNAL_HEADERS)
    if not drawing.headers_more:
        names += [f"X-Homeport-{name}" for name in HOMEPORT_HEADERS]
    return [
        line("proxy_set_header", "Host", host),
        line("proxy_set_header", "Connection", "$homeport_connection"),
        line("proxy_set_header", "Upgrade", "$homeport_upgrade"),
        line("proxy_set_header", "X-Forwarded-For", client),
        line("proxy_set_header", "X-Real-IP", client),
        line("proxy_set_header", "X-Forwarded-Proto", "$scheme"),
        line("proxy_set_header", "X-Forwarded-Host", requested_host(drawing)),
        line("proxy_set_header", "X-Forwarded-Port", "$server_port"),
        line("proxy_set_header", "X-Request-Id", "$request_id"),
        *(line("proxy_set_header", name, "") for name in names),
    ]


def requested_host(drawing: Drawing) -> str:
    """Host and port of the request as nginx routed it: never the `Host` header beside an absolute URI that names another host."""
    return "$host$is_request_port$request_port" if drawing.version >= (1, 29, 3) else "$http_host"


def response_headers(route: EdgeRoute, drawing: Drawing) -> list[Directive]:
    """Headers set and removed; setting one replaces the application's."""
    made: list[Directive] = []
    for name in (*route.remove_headers, *route.response_headers):
        if not HEADER_NAME.fullmatch(name) or name.lower() in OWN_HEADERS:
            raise EdgeRefused.of(f"The response header {name[:60]!r}", "its name cannot be set by a route")
        if drawing.headers_more and name in route.remove_headers and name not in route.response_headers:
            made.append(line("more_clear_headers", name))
        elif not drawing.headers_more:
            made.append(line("proxy_hide_header", name))
    for name, value in route.response_headers.items():
        check(value, f"The value of the response header {name}")
        if drawing.headers_more:
            made.append(line("more_set_headers", f"{name}: {plain(value)}"))
        elif name.lower() == "content-type":
            made += [block("types", [], []), line("default_type", plain(value))]
        else:
            made.append(line("add_header", name, plain(value), "always"))
    return made


def action(route: EdgeRoute, drawing: Drawing, pattern: Pattern | None, fallback: str) -> list[Directive]:
    """The inside of the location that serves this route; `fallback` names the location of a `Files` fallback."""
    common = [*COMMON, *response_headers(route, drawing)]
    match route.action:
        case Upstream():
            return [*common, *_pass(route.action, drawing, pattern)]
        case Files():
            return [*common, *_files(route.action, drawing, fallback)]
        case RedirectTo():
            return [*common, *_redirect(route.action, drawing, pattern)]
        case Answer():
            return [*common, *_answer(route.action)]


def _captures(template: Template, pattern: Pattern | None, drawing: Drawing) -> list[Directive]:
    """Match the raw path again, so that what is captured is still percent-encoded and cannot break a header or request line."""
    if not template.captures or pattern is None:
        return []
    drawing.beforehand(block("if", ["($request_uri", "~", r"^(?<homeport_raw>[^?#]*)", ")"], [line("set", "$homeport_yes", "1")]))
    made = [block("if", ["($homeport_raw", "!~", pattern.named, ")"], [line("return", 404)])]
    if template.first:
        made.append(block("if", [f"($homeport_c{template.first}", "~", r"^[/\\]", ")"], [line("return", 404)]))
    return made


def _pass(up: Upstream, drawing: Drawing, pattern: Pattern | None) -> list[Directive]:
    if not up.targets:
        return [line("return", 503)]
    made = [line("set", "$homeport_release", plain(check(up.release, "The release name")))]
    name = upstream(up, drawing)
    scheme = "https" if up.protocol == "https" else "http"
    if up.rewrite:
        template = Template.of(up.rewrite, pattern.groups if pattern else {}, f"The rewrite {up.rewrite[:80]!r}")
        if not up.rewrite.startswith("/"):
            raise EdgeRefused.of(f"The rewrite {up.rewrite[:80]!r}", "it does not begin with /")
        made += _captures(template, pattern, drawing)
        made.append(line("proxy_pass", f"{scheme}://{name}{joined_query(template.text)}"))
    else:
        made += stripped(up.strip_prefix)
        made.append(line("proxy_pass", f"{scheme}://{name}"))
    if up.host_header:
        if not re.fullmatch(r"[A-Za-z0-9._:\[\]-]{1,255}", up.host_header):
            raise EdgeRefused.of(f"The host header {up.host_header[:60]!r}", "it is not a host name")
        made += request_headers(up.host_header, drawing)
    if up.protocol == "https":
        made += _tls(up)
    if up.protocol == "h2c":
        if drawing.version < (1, 29, 4):
            raise EdgeRefused.of(f"The service {up.name[:60]!r}", "this nginx cannot speak HTTP/2 to applications (1.29.4 or newer can)")
        made.append(line("proxy_http_version", "2"))
    waits = milliseconds(up.timeout)
    return [
        *made,
        line("proxy_connect_timeout", milliseconds(up.connect_timeout)),
        line("proxy_read_timeout", waits),
        line("proxy_send_timeout", waits),
    ]


def _tls(up: Upstream) -> list[Directive]:
    name = (up.host_header or up.targets[0].host).split(":", maxsplit=1)[0]
    made = [line("proxy_ssl_server_name", "on"), line("proxy_ssl_name", name)]
    if not up.tls_verify:
        return made
    bundle = ssl.get_default_verify_paths().cafile
    if not bundle:
        raise EdgeRefused.of(f"The address {name[:60]!r}", "this machine has no CA bundle to verify its certificate with")
    return [*made, line("proxy_ssl_verify", "on"), line("proxy_ssl_trusted_certificate", bundle)]


def stripped(prefix: str) -> list[Directive]:
    """Take a prefix off the path; a path that is only the prefix becomes `/`."""
    prefix = prefix.rstrip("/")
    if not prefix:
        return []
    check(prefix, "The prefix to take off")
    return [line("rewrite", rf"(?s)^{literal(prefix)}(?:/+(?<homeport_rest>.*))?\z", "/$homeport_rest", "break")]


def upstream(up: Upstream, drawing: Drawing) -> str:
    """Name of the upstream block for these targets, made when it is new."""
    key = (up.targets, up.backups, up.protocol, up.sticky)
    if key not in drawing.upstreams:
        name = f"homeport-{len(drawing.upstreams)}"
        drawing.upstreams[key] = (name, _upstream_block(name, up, drawing))
    return drawing.upstreams[key][0]


def _upstream_block(name: str, up: Upstream, drawing: Drawing) -> list[Directive]:
    servers = [server(target, drawing, fails=not up.backups) for target in up.targets]
    servers += [Directive("server", (*server(target, drawing).args, "backup")) for target in up.backups]
    inside: list[Directive] = []
    if any("resolve" in entry.args for entry in servers):
        inside.append(line("zone", name, "64k"))
    inside += servers
    if up.sticky and up.backups:
        raise EdgeRefused.of(f"The service {up.name[:60]!r}", "sticky sessions and a service that may not overlap exclude each other")
    if up.sticky and len(up.targets) > 1:
        if drawing.version < (1, 29, 6):
            raise EdgeRefused.of(f"The service {up.name[:60]!r}", "this nginx has no sticky sessions (1.29.6 or newer has)")
        inside.append(line("sticky", "cookie", "homeport_sticky", "path=/", "httponly", "samesite=lax"))
    inside += [line("keepalive", 32), line("keepalive_timeout", f"{UPSTREAM_IDLE}s"), line("keepalive_requests", 10_000)]
    return inside


def server(target: Target, drawing: Drawing, *, fails: bool = True) -> Directive:
    """One `server` of an upstream. A name is looked up while the edge runs, so that it starts without DNS.

    `fails`: whether one that fails is left out for a second. With a backup it is not: every request asks the instance first.
    """
    args = [address(target.host, target.port)]
    if not 1 <= target.weight <= 1000:
        raise EdgeRefused.of(f"The weight {target.weight}", "it is not between 1 and 1000")
    if target.weight != 1:
        args.append(f"weight={target.weight}")
    args += ["max_fails=1", "fail_timeout=1s"] if fails else ["max_fails=0"]
    if not _is_address(target.host) and target.host != "localhost":
        if drawing.version < (1, 27, 3):
            raise EdgeRefused.of(
                f"The address {target.host[:60]!r}", "this nginx looks names up only when it starts (1.27.3 or newer while it runs)"
            )
        drawing.resolves = True
        args.append("resolve")
    return line("server", *args)


def _is_address(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def address(host: str, port: int) -> str:
    """`host:port` as nginx reads it. Raises EdgeRefused when it is not one."""
    if not 1 <= port <= 65535:
        raise EdgeRefused.of(f"The port {port}", "it is not between 1 and 65535")
    if host == "localhost":
        host = "127.0.0.1"
    if _is_address(host):
        bare = host.strip("[]")
        return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"
    if not re.fullmatch(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_-]{1,63})*\.?", host):
        raise EdgeRefused.of(f"The address {host[:60]!r}", "it is neither an IP address nor a host name")
    return f"{host}:{port}"


def _redirect(to: RedirectTo, drawing: Drawing, pattern: Pattern | None) -> list[Directive]:
    if to.status not in (301, 302, 303, 307, 308):
        raise EdgeRefused.of(f"The redirect status {to.status}", "it is not 301, 302, 303, 307 or 308")
    if not re.match(r"/(?![/\\])|https?://[^/]|\$", to.to):
        raise EdgeRefused.of(f"The redirect to {to.to[:80]!r}", "it is neither a path nor an http or https address")
    template = Template.of(to.to, pattern.groups if pattern else {}, f"The redirect to {to.to[:80]!r}")
    if to.to.startswith("$") and not (template.captures and to.to.startswith("$1")):
        raise EdgeRefused.of(f"The redirect to {to.to[:80]!r}", "its target would be chosen by the visitor")
    target = template.text if "#" in to.to else joined_query(template.text)
    return [*_captures(template, pattern, drawing), line("return", to.status, target)]


def _answer(answer: Answer) -> list[Directive]:
    if not (200 <= answer.status <= 299 or 400 <= answer.status <= 599) or answer.status == 444:
        raise EdgeRefused.of(f"The status {answer.status}", "the edge can answer 2xx, 4xx and 5xx")
    body = check(answer.body, "The text of an answer", lines=True)
    if len(body.encode()) > LARGEST_ANSWER:
        raise EdgeRefused.of("The text of an answer", f"it is longer than {LARGEST_ANSWER} bytes")
    made = [block("types", [], []), line("default_type", plain(check(answer.content_type, "The content type of an answer")))]
    if not answer.cacheable:
        made.append(line("add_header", "Cache-Control", "no-store", "always"))
    if answer.status == 503:
        made.append(line("add_header", "Retry-After", RETRY_AFTER, "always"))
    chunks = _chunks(body)
    if len(chunks) <= 1:
        return [*made, line("return", answer.status, "".join(chunks))]
    names = [f"$homeport_part{number}" for number in range(len(chunks))]
    return [*made, *(line("set", *pair) for pair in zip(names, chunks, strict=True)), line("return", answer.status, "".join(names))]


def _chunks(body: str) -> Sequence[str]:
    """Pieces of a long text, each short enough for one token once quoted."""
    chunks: list[str] = []
    for start in range(0, len(body), 200):
        piece = plain(body[start : start + 200])
        if chunks and len(quote(chunks[-1]).encode()) + len(piece.encode()) * 2 < 3000:
            chunks[-1] += piece
        else:
            chunks.append(piece)
    return chunks


_RAW = r"^(?<homeport_bare>/(?:[^/?\\][^?]*)?"
"""Start of a pattern for a raw path that cannot be read as another host (`//host`)."""


def _goes(pattern: str, target: str) -> Directive:
    return block("if", ["($request_uri", "~", pattern, ")"], [line("return", 308, target + "$is_args$args")])


def _files(files: Files, drawing: Drawing, fallback: str) -> list[Directive]:
    """Files under a root: no links out, no dotfiles, no directory listings."""
    path = _file_path(files, drawing)
    made = [
        line("root", served_root(files.root, drawing.home)),
        line("disable_symlinks", "on", "from=$document_root"),
        block("if", ["($uri", "~", r"/\.(?!well-known(?:/|\z))", ")"], [line("return", 404)]),
    ]
    if files.clean_urls:
        end = "/" if files.trailing_slash else ""
        made.append(_goes(_RAW + r"/?)(?<=/)index\.html(?:\?|\z)", "$homeport_bare"))
        made.append(_goes(_RAW + r"[^/?\\])\.html(?:\?|\z)", f"$homeport_bare{end}"))
    if files.trailing_slash is False:
        made.append(_goes(_RAW + r"[^/?\\])/+(?:\?|\z)", "$homeport_bare"))
    elif files.trailing_slash is True:
        made.append(_goes(_RAW + r"/[^/?.\\]+|/[^/?.\\]+)(?:\?|\z)", "$homeport_bare/"))
    else:
        made.append(
            block(
                "if", ["(-f", f"$document_root{path}/index.html$homeport_slash", ")"], [line("return", 308, "$homeport_bare/$is_args$args")]
            )
        )
        drawing.beforehand(
            line("set", "$homeport_slash", "/"),  # `index.html/` is no file: the test above fails for a path that ends in a slash
            block("if", ["($request_uri", "~", _RAW + r"[^/?\\])(?:\?|\z)", ")"], [line("set", "$homeport_slash", "")]),
        )
    tries = [path, f"{path}/index.html"]
    if files.clean_urls or files.trailing_slash is not None:
        tries.append(f"{path}.html")
        tries += [f"{_stem(files, drawing)}.html"] if files.trailing_slash else []
    if files.single_page:
        tries.append("/index.html")
    if files.not_found and not fallback:
        made.append(line("error_page", 404, _missing_name(files)))
        made += [line("error_page", status, f"@homeport_{status}") for status in PAGES if status != 404]  # one here hides the server's
    return [*made, line("try_files", *tries, fallback or "=404")]


def _number(drawing: Drawing, pattern: str) -> int:
    """A number for what is captured beforehand by a pattern."""
    known = [directive.args[2] for directive in drawing.prelude if directive.name == "if" and "homeport_part_" in directive.args[2]]
    found = next((number for number, text in enumerate(known) if text == pattern.replace("NUMBER", str(number))), len(known))
    drawing.beforehand(block("if", ["($uri", "~", pattern.replace("NUMBER", str(found)), ")"], [line("set", "$homeport_yes", "1")]))
    return found


def _file_path(files: Files, drawing: Drawing) -> str:
    """The request's path under the root."""
    prefix = files.strip_prefix.rstrip("/")
    if not prefix:
        return "$uri"
    check(prefix, "The prefix to take off")
    pattern = rf"(?s)^{literal(prefix)}(?<homeport_part_NUMBER>(?:/.*)?)\z"
    return f"$homeport_part_{_number(drawing, pattern)}"


def _stem(files: Files, drawing: Drawing) -> str:
    """The same without slashes at its end."""
    prefix = literal(files.strip_prefix.rstrip("/"))
    pattern = rf"(?s)^{prefix}(?<homeport_part_NUMBER>/.*[^/])/+\z"
    return f"$homeport_part_{_number(drawing, pattern)}"


def _missing_name(files: Files) -> str:
    return "@homeport_missing_" + hashlib.sha256(f"{files.root}\0{files.not_found}".encode()).hexdigest()[:12]


def missing_page(files: Files, drawing: Drawing) -> Directive:
    """The location that answers 404 with a site's own page."""
    path = check("/" + files.not_found.lstrip("/"), "The not-found page")
    if ".." in path.split("/"):
        raise EdgeRefused.of(f"The not-found page {path[:60]!r}", "it leaves the folder")
    return block(
        "location",
        [_missing_name(files)],
        [
            *COMMON,
            line("root", served_root(files.root, drawing.home)),
            line("disable_symlinks", "on", "from=$document_root"),
            line("try_files", plain(path), "@homeport_404"),
        ],
    )


def served_root(root: Path, home: Path) -> str:
    """The folder as nginx gets it: relative to the home where it lies inside it, so that parents may stay closed."""
    text = str(root)
    if not root.is_absolute() or ".." in root.parts:
        raise EdgeRefused.of(f"The folder {text[:80]!r}", "it is not an absolute path")
    if root.is_relative_to(home):
        text = str(root.relative_to(home))
    return plain(check(text, "The folder of a static site"))
