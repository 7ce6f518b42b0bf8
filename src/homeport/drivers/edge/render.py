"""The route table as nginx's configuration: pure, and equal tables give equal text.

Shapes that are dangerous in nginx 1.31.0 to 1.31.6 never occur (a test looks for them): no `alias`, no SSI, no `map` with
a pattern, no `rewrite` with `$1` or with `?` in what it writes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path

from homeport.drivers.edge.actions import (
    HOMEPORT_HEADERS,
    Drawing,
    address,
    milliseconds,
    request_headers,
    server,
)
from homeport.drivers.edge.base import EdgeRefused, Forward, RouteTable, Site
from homeport.drivers.edge.pages import error_pages, media_types, page_texts
from homeport.drivers.edge.routes import locations
from homeport.drivers.edge.syntax import Directive, block, check, line, plain

MOST_SITES, MOST_ROUTES, MOST_FORWARDS = 5000, 50_000, 2000

CONTROL_SOCKET = "edge/run/control.sock"
"""Where the edge answers the control plane: a unix socket in a folder that only Homeport's own account may enter."""
IDLE = 10
"""Seconds an idle client connection is kept by a worker that is being replaced (`keepalive_min_timeout`): closing it at once loses
the request a client is just sending on it. Measured: 9 % of requests lost over 100 reloads without, none with."""

_LOG = (
    '{"time":$msec,"site":"$homeport_site","release":"$homeport_release","host":"$host","method":"$request_method","path":"$homeport_path",'
    '"status":$status,"bytes":$bytes_sent,"seconds":$request_time,"upstream":"$upstream_addr","upstream_status":"$upstream_status",'
    '"upstream_seconds":"$upstream_response_time","client":"$remote_addr","id":"$request_id","probe":"$homeport_probe"}'
)
_HOST = re.compile(r"(?:\*\.)?(?=[^*]{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*")


@dataclass(frozen=True)
class Program:
    """What the nginx at hand can do, and how it is to run."""

    version: tuple[int, ...] = (1, 31, 3)
    headers_more: bool = True
    account: str = ""
    """`user group` of the workers; empty keeps the account that starts the edge."""
    workers: int = 2
    connections: int = 4096
    """Per worker, clients and instances together."""


def render(table: RouteTable, *, generation: int, home: Path, token: str, program: Program = Program()) -> tuple[Directive, ...]:
    """The whole configuration. Raises EdgeRefused naming what the table asks for that cannot be served."""
    if len(table.sites) > MOST_SITES or sum(len(site.routes) for site in table.sites) > MOST_ROUTES or len(table.forwards) > MOST_FORWARDS:
        raise EdgeRefused.of("The route table", f"it holds more than {MOST_SITES} sites, {MOST_ROUTES} routes or {MOST_FORWARDS} forwards")
    drawing = Drawing(home=home, version=program.version, headers_more=program.headers_more)
    _unique_hosts(table.sites)
    public = address(table.address, table.port)
    servers = [_default(public), _control(drawing, generation)]
    extra: list[Directive] = []
    for number, site in enumerate(table.sites):
        servers.append(_site(site, number, public, drawing, extra))
    upstreams = [block("upstream", [name], inside) for name, inside in drawing.upstreams.values()]
    http = [*_http(table, generation, token, drawing), *([_resolver()] if drawing.resolves else []), *extra, *upstreams, *servers]
    main = [
        *_main(table, program),
        block("events", [], [line("worker_connections", program.connections)]),
        block("http", [], http),
    ]
    if table.forwards:
        main.append(block("stream", [], _forwards(table.forwards, drawing)))
    return tuple(main)


def _main(table: RouteTable, program: Program) -> list[Directive]:
    made = [line("user", *program.account.split())] if program.account else []
    return [
        *made,
        line("daemon", "on"),
        line("worker_processes", program.workers),
        line("pid", "edge/run/nginx.pid"),
        line("error_log", "edge/log/error.log", "warn"),
        line("worker_shutdown_timeout", milliseconds(table.drain)),
    ]


def _http(table: RouteTable, generation: int, token: str, drawing: Drawing) -> list[Directive]:
    """Limits and defaults of every site."""
    body = milliseconds(table.body_timeout)
    folders = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return [
        line("server_tokens", "off"),
        line("sendfile", "on"),
        line("tcp_nopush", "on"),
        line("tcp_nodelay", "on"),
        line("reset_timedout_connection", "on"),
        line("absolute_redirect", "off"),
        line("recursive_error_pages", "on"),
        line("uninitialized_variable_warn", "off"),
        line("server_names_hash_bucket_size", 512),
        line("server_names_hash_max_size", 16384),
        line("variables_hash_max_size", 4096),
        line("variables_hash_bucket_size", 256),
        line("map_hash_bucket_size", 512),
        line("types_hash_max_size", 4096),
        line("types_hash_bucket_size", 256),
        *(line(f"{name}_temp_path", f"edge/cache/{name}") for name in folders),
        line("client_header_timeout", "10s"),
        line("client_body_timeout", body),
        line("send_timeout", body),
        line("large_client_header_buffers", 8, "16k"),
        line("client_max_body_size", 0),
        line("keepalive_timeout", "75s"),
        *([line("keepalive_min_timeout", f"{IDLE}s")] if drawing.version >= (1, 27, 4) else []),
        line("keepalive_requests", 1000),
        line("default_type", "application/octet-stream"),
        media_types(),
        line("log_format", "homeport", "escape=json", _LOG),
        line("access_log", "edge/log/access.jsonl", "homeport", "buffer=32k", "flush=1s"),
        # What goes wrong with one request is told with its query string, which may hold a secret; its status is in the access log.
        line("error_log", "edge/log/error.log", "alert"),
        *_proxy(drawing),
        block("geo", ["$homeport_dollar"], [line("default", "$")]),
        *page_texts(),
        block("map", ["$http_upgrade", "$homeport_upgrade"], [line("default", ""), line("websocket", "websocket")]),
        block("map", ["$http_upgrade", "$homeport_connection"], [line("default", ""), line("websocket", "upgrade")]),
        block("map", ["$http_x_homeport_probe", "$homeport_probe"], [line("default", ""), line(token, "1")]),
        block("map", ["$homeport_probe", "$homeport_told_release"], [line("default", ""), line("1", "$homeport_release")]),
        block("map", ["$homeport_probe", "$homeport_told_generation"], [line("default", ""), line("1", generation)]),
        block("map", ["$args", "$homeport_more_args"], [line("default", "&$args"), line("", "")]),
    ]


def _proxy(drawing: Drawing) -> list[Directive]:
    """How requests are passed on: streamed both ways; tried again only where nothing can have happened twice.

    `proxy_next_upstream` leaves out `non_idempotent`: a POST that reached an instance is never sent again.
    """
    made = [
        line("proxy_http_version", "1.1"),
        line("proxy_buffering", "off"),
        line("proxy_buffer_size", "16k"),
        line("proxy_buffers", 8, "16k"),
        line("proxy_busy_buffers_size", "32k"),
        line("proxy_request_buffering", "off"),
        line("proxy_socket_keepalive", "on"),
        line("proxy_next_upstream", "error", "timeout"),
        line("proxy_next_upstream_tries", 3),
        line("proxy_next_upstream_timeout", "10s"),
        line("proxy_ignore_headers", "X-Accel-Redirect", "X-Accel-Charset", "X-Accel-Limit-Rate", "X-Accel-Expires"),
        line("proxy_hide_header", "X-Homeport-Release"),
        line("proxy_hide_header", "X-Homeport-Generation"),
        *request_headers(host_of(drawing), drawing),
    ]
    if drawing.headers_more:
        made.append(line("more_clear_input_headers", "X-Homeport-*"))
    return made


def host_of(drawing: Drawing) -> str:
    """The `Host` an instance sees."""
    return "$host$is_request_port$request_port" if drawing.version >= (1, 29, 3) else "$http_host"


def _resolver() -> Directive:
    """The system's name servers; without any, 127.0.0.1."""
    found: list[str] = []
    try:
        lines = Path("/etc/resolv.conf").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    for entry in lines:
        words = entry.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                server_address = ip_address(words[1])
            except ValueError:
                continue
            found.append(f"[{server_address}]" if server_address.version == 6 else str(server_address))
    return line("resolver", *(found or ["127.0.0.1"]), "valid=30s")


def _default(public: str) -> Directive:
    """Hosts nobody declared."""
    return block(
        "server", [], [line("listen", public, "default_server"), line("server_name", "_"), *_known("-"), *error_pages(()), _nowhere()]
    )


def _nowhere() -> Directive:
    return block("location", ["/"], [line("return", 404)])


def _known(site: str) -> list[Directive]:
    """Variables every request has, set before its headers are cleaned."""
    return [
        line("set", "$homeport_site", plain(site)),
        line("set", "$homeport_release", ""),
        line("set", "$homeport_path", "$uri"),
        line("set", "$homeport_asked", "$homeport_probe"),
    ]


def _control(drawing: Drawing, generation: int) -> Directive:
    """The private listener: which generation answers, and requests to an instance that no site shows yet.

    `X-Homeport-Candidate` names the instance. It is read before `X-Homeport-*` is cleared from what is passed on.
    """
    return block(
        "server",
        [],
        [
            line("listen", f"unix:{CONTROL_SOCKET}"),
            line("server_name", "_"),
            line("access_log", "off"),
            *_known("-"),
            line("set", "$homeport_candidate", "$http_x_homeport_candidate"),
            block(
                "location",
                ["=", "/.homeport/generation"],
                [block("types", [], []), line("default_type", "text/plain"), line("return", 200, f"{generation} $pid")],
            ),
            block(
                "location",
                ["/"],
                [
                    block("if", ["($homeport_probe", "=", "", ")"], [line("return", 403)]),
                    block(
                        "if",
                        ["($homeport_candidate", "!~", r"^(?:[0-9.]{7,15}|\[[0-9a-fA-F:.]{2,45}\]):[0-9]{1,5}\z", ")"],
                        [line("return", 400)],
                    ),
                    line("proxy_pass", "http://$homeport_candidate"),
                    *request_headers("$http_host", drawing, client="127.0.0.1"),
                    line("proxy_connect_timeout", "5s"),
                ],
            ),
        ],
    )


def _unique_hosts(sites: Sequence[Site]) -> None:
    seen: dict[str, str] = {}
    names: set[str] = set()
    for site in sites:
        if site.name in names:
            raise EdgeRefused.of(f"The site {site.name[:60]!r}", "its name is in the table twice")
        names.add(site.name)
        for host in site.hosts:
            if not _is_host(host):
                raise EdgeRefused.of(f"The host {host[:80]!r} of {site.name[:60]}", "it is not a host name in lower case")
            if host in seen:
                raise EdgeRefused.of(f"The host {host!r} of {site.name[:60]}", f"it belongs to {seen[host][:60]} already")
            seen[host] = site.name


def _is_host(host: str) -> bool:
    if _HOST.fullmatch(host):
        return True
    try:
        return host.startswith("[") and ip_address(host.strip("[]")).version == 6
    except ValueError:
        return False


def _site(site: Site, number: int, public: str, drawing: Drawing, extra: list[Directive]) -> Directive:
    name = check(site.name, "The name of a site")
    if not site.hosts:
        raise EdgeRefused.of(f"The site {name[:60]!r}", "it has no host")
    if site.max_body < 0:
        raise EdgeRefused.of(f"The site {name[:60]!r}", "its largest body is negative")
    made = [line("listen", public), line("server_name", *site.hosts), line("client_max_body_size", site.max_body), *_known(name)]
    if site.allow is not None:
        variable = f"$homeport_in{number}"
        extra.append(block("geo", [variable], [line("default", "0"), *(line(_network(cidr), "1") for cidr in dict.fromkeys(site.allow))]))
        made.append(block("if", [f"({variable}", "=", "0", ")"], [line("return", 403)]))
    chain, places = locations(site, drawing)
    return block("server", [], [*made, *chain, *error_pages(()), *places])


def _network(cidr: str) -> str:
    try:
        return str(ip_network(cidr, strict=False))
    except ValueError:
        raise EdgeRefused.of(f"The network {cidr[:60]!r}", "it is not an IP address or a CIDR") from None


def _forwards(forwards: Sequence[Forward], drawing: Drawing) -> list[Directive]:
    made: list[Directive] = [line("proxy_timeout", "24h"), line("proxy_connect_timeout", "5s")]
    seen: set[str] = set()
    for number, forward in enumerate(forwards):
        check(forward.name, "The name of a forward")
        listen = address(forward.host, forward.port)
        if not ip_address(listen.rsplit(":", 1)[0].strip("[]") if not listen[0].isalpha() else "0.0.0.0").is_loopback:  # noqa: S104
            raise EdgeRefused.of(f"The forward {forward.name[:60]!r}", "it does not listen on a loopback address")
        if listen in seen:
            raise EdgeRefused.of(f"The forward {forward.name[:60]!r}", f"{listen} is taken by another forward")
        seen.add(listen)
        if not forward.targets:
            continue
        servers = [server(target, replace(drawing)) for target in forward.targets]
        if any("resolve" in entry.args for entry in servers):
            raise EdgeRefused.of(f"The forward {forward.name[:60]!r}", "its instances need IP addresses")
        made.append(block("upstream", [f"homeport-forward-{number}"], servers))
        made.append(block("server", [], [line("listen", listen), line("proxy_pass", f"homeport-forward-{number}")]))
    return made


def harmless(tree: Sequence[Directive], folder: str, token: str) -> tuple[Directive, ...]:
    """The same configuration for a test run: every listener a socket in a folder, no secret, no change of account."""
    numbers: dict[str, int] = {}

    def changed(directive: Directive) -> Directive:
        if directive.name == "listen":
            number = numbers.setdefault(directive.args[0], len(numbers))
            return replace(directive, args=(f"unix:{folder}/{number}", *directive.args[1:]))
        if directive.name == token:
            return replace(directive, name="token")
        if directive.block is None or directive.name not in ("http", "stream", "server", "map"):
            return directive
        return replace(directive, block=tuple(map(changed, directive.block)))

    return tuple(changed(directive) for directive in tree if directive.name != "user")


__all__ = ["CONTROL_SOCKET", "HOMEPORT_HEADERS", "IDLE", "Program", "harmless", "render"]
