"""cloudflared's `config.yml`: ingress rules become routes of the edge.

Rules of the format are those of cloudflared's `config/configuration.go` and `ingress/ingress.go`: first match wins, a
wildcard stands for sub-domains only, a path is an unanchored regular expression, and the last rule matches everything.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar
from urllib.parse import urlsplit

from homeport.blueprints.document import parse_yaml
from homeport.blueprints.naming import bare_name
from homeport.blueprints.opening import broken_pattern, duration, finish, open_file
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import View
from homeport.model.base import Duration, slug
from homeport.model.reading import Reading
from homeport.model.route import Action, Match, Respond, Route, ToUrl
from homeport.model.spec import Spec, Tunnel

_LINE = re.compile(r"^(ingress|tunnel|credentials-file|warp-routing)\s*:", re.MULTILINE)

NO_TUNNEL = "kept with the tunnel; Homeport's edge answers these hosts itself, a cloudflared beside it still reads its own file"
_CONNECTION = (
    "protocol", "edge-ip-version", "edge-bind-address", "region", "ha-connections", "retries", "grace-period", "post-quantum", "pq",
    "edge", "heartbeat-interval", "heartbeat-count", "max-edge-addr-retries", "rpc-timeout", "write-stream-timeout", "dial-edge-timeout",
    "compression-quality", "use-reconnect-token", "quic-disable-pmtu-discovery", "quic-connection-level-flow-control-limit",
    "quic-stream-level-flow-control-limit", "features", "tag", "label", "origincert", "token-file", "credentials_file", "cred-file",
    "max-active-flows", "icmpv4-src", "icmpv6-src", "dns-resolver-addrs", "virtual-dns-service-resolver-addresses", "connector-id",
)  # fmt: skip
"""How cloudflared reaches Cloudflare."""
_LOGGING = (
    "loglevel", "transport-loglevel", "proto-loglevel", "logfile", "log-directory", "logDirectory", "logLevel", "trace-output", "output",
    "metrics", "metrics-update-freq", "pidfile", "management-diagnostics", "management-hostname", "log-format-output",
)  # fmt: skip
_UPDATES = (
    "autoupdate-freq",
    "no-autoupdate",
    "is-autoupdated",
    "config",
    "name",
    "overwrite-dns",
    "stdin-control",
    "ui",
    "lb-pool",
    "api-url",
)
_OLD_ORIGIN = {
    "no-tls-verify": "noTLSVerify", "http-host-header": "httpHostHeader", "origin-server-name": "originServerName",
    "origin-ca-pool": "caPool", "proxy-connect-timeout": "connectTimeout", "proxy-tls-timeout": "tlsTimeout",
    "proxy-tcp-keepalive": "tcpKeepAlive", "proxy-no-happy-eyeballs": "noHappyEyeballs", "proxy-address": "proxyAddress",
    "proxy-keepalive-connections": "keepAliveConnections", "proxy-keepalive-timeout": "keepAliveTimeout", "proxy-port": "proxyPort",
    "no-chunked-encoding": "disableChunkedEncoding", "bastion": "bastionMode", "http2-origin": "http2Origin", "socks5": "proxyType",
}  # fmt: skip
"""Flags of the days before ingress rules, which the file may still hold."""
_DNS = (
    "proxy-dns",
    "proxy-dns-port",
    "proxy-dns-address",
    "proxy-dns-upstream",
    "proxy-dns-bootstrap",
    "proxy-dns-max-upstream-conns",
    "resolver",
)

_KEPT_ORIGIN = {
    "tlsTimeout": "kept with the route; nginx counts the TLS handshake into the connect timeout",
    "tcpKeepAlive": "kept with the route; the edge uses the machine's own keep-alive interval",
    "noHappyEyeballs": "kept with the route; the edge connects to the first address of the origin's name",
    "keepAliveConnections": "kept with the route; the edge keeps its own number of idle connections",
    "keepAliveTimeout": "kept with the route; the edge keeps its own idle time",
    "disableChunkedEncoding": "kept with the route; the edge buffers a body only where the origin needs a length",
    "http2Origin": "kept with the route; the edge speaks HTTP/1.1 to origins",
    "originServerName": "kept with the route; checked where the edge verifies the origin's certificate",
    "caPool": "kept with the route; checked where the edge verifies the origin's certificate",
    "proxyAddress": "kept with the route; the edge runs no proxy of its own",
    "proxyPort": "kept with the route; the edge runs no proxy of its own",
}
_DROPPED_ORIGIN = {
    "bastionMode": "a jump host needs cloudflared on both ends; the edge does not offer one",
    "proxyType": "the edge offers no SOCKS proxy",
    "ipRules": "rules of the SOCKS proxy, which the edge does not offer",
    "access": "Cloudflare Access tokens are not checked by the edge; protect the route in another way before you move it",
    "matchSNItoHost": "the edge sends the origin's own name",
}


class CloudflaredReader:
    """Reads `config.yml` of cloudflared."""

    dialect: ClassVar[str] = "cloudflared"
    precedence: ClassVar[int] = 10

    def recognises(self, file_name: str, text: str) -> bool:
        if not bare_name(file_name).lower().endswith((".yml", ".yaml")):
            return False
        keys = {match[1] for match in _LINE.finditer(text)}
        return "ingress" in keys or {"tunnel", "credentials-file"} <= keys

    def candidates(self, tree: SourceTree) -> list[str]:
        found: list[str] = []
        for folder in ("", "cloudflared", ".cloudflared"):
            for name in ("cloudflared.yml", "cloudflared.yaml", "config.yml", "config.yaml"):
                path = f"{folder}/{name}" if folder else name
                if name in tree.list(folder) and self._is_ours(tree, path):
                    found.append(path)
        return found

    def _is_ours(self, tree: SourceTree, path: str) -> bool:
        try:
            return self.recognises(path, tree.text(path) or "")
        except ValueError:
            return False

    def read(self, tree: SourceTree, path: str) -> Reading:
        view = open_file(tree, path, parse_yaml)
        warnings: list[str] = []
        return finish(view, self.dialect, lambda: _spec(view, tree, warnings), warnings)


def _spec(view: View, tree: SourceTree, warnings: list[str]) -> Spec:
    options = _options(view)
    defaults = _origin(view.view("originRequest")) | _old_origin(view)
    routes = _ingress(view, defaults, warnings)
    tunnel_id = view.text("tunnel") if "tunnel" in view else ""
    view.approximated("tunnel", "credentials-file", *_CONNECTION, reason=NO_TUNNEL)
    tunnel = Tunnel(
        id=tunnel_id,
        credentials_file=str(view.raw("credentials-file") or view.raw("credentials_file") or ""),
        protocol=str(view.raw("protocol") or ""),
        options=options,
    )
    return Spec(name=slug(tree.name), routes=tuple(routes), tunnels=(tunnel,) if view.data else ())


def _options(view: View) -> dict[str, Any]:
    """The settings of the tunnel itself; each kept, each with its fate."""
    view.ignored(*_LOGGING, reason="cloudflared's own logs and metrics; the edge's are under `homeport logs` and `homeport status`")
    view.ignored(*_UPDATES, reason="about the cloudflared program, which the edge does not need")
    view.ignored(*_DNS, reason="the edge is no DNS resolver")
    view.ignored("warp-routing", reason="private networks over WARP need Cloudflare's network")
    view.ignored("token", "credentials-contents", "api-key", "api-ca-key", reason="a credential of Cloudflare; kept out of the spec")
    kept = (*_CONNECTION, *_LOGGING, *_UPDATES, *_DNS, "warp-routing")
    return {key: view.raw(key) for key in kept if key in view.data and key not in ("protocol", "credentials_file")}


def _old_origin(view: View) -> dict[str, Any]:
    found = {new: view.data[old] for old, new in _OLD_ORIGIN.items() if old in view.data}
    view.approximated(*_OLD_ORIGIN, reason="kept with each route; the edge acts on the host header and TLS verification only")
    return found


def _ingress(view: View, defaults: dict[str, Any], warnings: list[str]) -> list[Route]:
    rules = list(view.views("ingress"))
    if not rules:
        return _single_origin(view, defaults)
    routes: list[Route] = []
    for number, rule in enumerate(rules, 1):
        routes += _rule(rule, number, number == len(rules), defaults, warnings)
    return routes


def _single_origin(view: View, defaults: dict[str, Any]) -> list[Route]:
    """A file of the days before ingress rules: one `url`, perhaps one `hostname`."""
    url, host = view.text("url"), view.text("hostname")
    view.honoured("hello-world", reason="answered at the edge")
    if not url:
        view.approximated("unix-socket", "hostname", reason=NO_TUNNEL)
        return []
    address = url if "://" in url else f"http://{url}"
    return [Route(match=Match(host=host), action=_to_url(view, "url", address, defaults))]


def _rule(rule: View, number: int, last: bool, defaults: dict[str, Any], warnings: list[str]) -> list[Route]:
    host, path = rule.text("hostname").strip(), rule.text("path")
    rule.ignored("rewrite", reason="reserved by cloudflared and without effect there")
    _check_host(rule, host, path, number, last)
    if path and broken_pattern(path):
        rule.problem("path", f"rule #{number} has an invalid regular expression")
        return []
    origin = {**defaults, **_origin(rule.view("originRequest"))}
    action = _service(rule, number, origin, warnings)
    if action is None:
        return []
    host = "" if host == "*" else host
    match = Match(host=host, path=path, syntax="regex") if path else Match(host=host)
    return [Route(match=match, action=action)]


def _check_host(rule: View, host: str, path: str, number: int, last: bool) -> None:
    """Rules of cloudflared's `validateHostname`."""
    key = "hostname" if "hostname" in rule.data else None
    if re.search(r":\d+$", host):
        rule.problem(key, "a hostname cannot contain a port", "Write the host alone; the port of the origin belongs into `service`.")
    if host.rfind("*") > 0 or (host.startswith("*") and host != "*" and not host.startswith("*.")):
        rule.problem(key, "a hostname can have one wildcard, and for sub-domains only: `*.example.com`")
    catches_all = host in ("", "*") and not path
    if last and not catches_all:
        rule.problem(
            key,
            "the last ingress rule must match all requests: it may have neither hostname nor path",
            "Add `- service: http_status:404` as the last rule.",
        )
    elif catches_all and not last:
        rule.problem(key, f"rule #{number} matches every request, so the rules after it would never be used", "Move it to the end.")


def _service(rule: View, number: int, origin: dict[str, Any], warnings: list[str]) -> Action | None:
    """What a rule's `service` becomes; None after a problem was noted, or where the edge cannot do it."""
    service = rule.text("service").strip()
    if not service:
        rule.problem(None if "service" not in rule.data else "service", f"rule #{number} names no service")
        return None
    if service.startswith("http_status:"):
        return _status(rule, service.removeprefix("http_status:"))
    if service in ("hello_world", "hello-world", "helloworld"):
        return Respond(status=200, body="Hello world")
    if service.startswith(("unix:", "unix+tls:")):
        rule.approximated("service", reason="kept; the edge passes on to a unix socket only where its own user may open it")
        return ToUrl(url=service, options=origin)
    parts = _split(service)
    if service in ("bastion", "socks-proxy") or origin.get("bastionMode") is True:
        rule.ignored("service", reason="a jump host or SOCKS proxy needs cloudflared on both ends; the edge does not offer one")
        return None
    if parts is None:
        rule.problem(
            "service", f"{service[:80]!r} is not an address: it needs a scheme and a host", "Write it like `http://localhost:8080`."
        )
        return None
    scheme, has_path = parts
    if scheme not in ("http", "https", "ws", "wss"):
        host = rule.data.get("hostname") or "every host"
        rule.ignored(
            "service", reason=f"{scheme} is not HTTP: the edge routes by host name and path; publish the port of the service instead"
        )
        warnings.append(f"{host}: {service} is reached through the tunnel only; the edge does not route {scheme}.")
        return None
    if has_path:
        rule.problem("service", f"{service[:80]!r} has a path; a rule passes the request's own path on", "Remove the path.")
        return None
    return _to_url(rule, "service", service, origin)


def _status(rule: View, text: str) -> Respond | None:
    if not re.fullmatch(r"[1-5]\d\d", text.strip()):
        rule.problem("service", f"{text[:20]!r} is not an HTTP status", "Write it like `http_status:404`.")
        return None
    return Respond(status=int(text))


def _split(address: str) -> tuple[str, bool] | None:
    """Scheme, and whether there is a path; None when it is no address. Templates such as `${PORT}` pass."""
    match = re.match(r"^([a-z][a-z0-9+.-]*)://(.+)$", address, re.IGNORECASE | re.DOTALL)
    if not match:
        return None
    try:
        parts = urlsplit(re.sub(r"\$\{[^}]*\}", "0", address))
        return (match[1].lower(), parts.path not in ("", "/")) if parts.netloc else None
    except ValueError:
        return None


def _to_url(view: View, key: str, url: str, origin: dict[str, Any]) -> ToUrl | None:
    if _split(url) is None:
        view.problem(key, f"{url[:80]!r} is not an address")
        return None
    host = origin.get("httpHostHeader")
    timeout: Duration | None = origin.get("connectTimeout") if not isinstance(origin.get("connectTimeout"), bool) else None
    kept = {k: v for k, v in origin.items() if k not in ("httpHostHeader", "connectTimeout", "noTLSVerify")}
    return ToUrl(
        url=url,
        options=kept,
        connect_timeout=timeout,
        host_header=str(host) if host is not None else "",
        tls_verify=origin.get("noTLSVerify") is not True,
    )


def _origin(view: View) -> dict[str, Any]:
    """An `originRequest` by cloudflared's own names; durations are checked here."""
    found: dict[str, Any] = {}
    for key, reason in _KEPT_ORIGIN.items():
        view.approximated(key, reason=reason)
    for key, reason in _DROPPED_ORIGIN.items():
        view.ignored(key, reason=reason)
    found.update({key: view.raw(key) for key in (*_KEPT_ORIGIN, *_DROPPED_ORIGIN) if key in view.data})
    if (timeout := duration(view, "connectTimeout")) is not None:
        found["connectTimeout"] = timeout
    if (skip := view.flag("noTLSVerify")) is not None:
        found["noTLSVerify"] = skip
    if host := view.text("httpHostHeader"):
        found["httpHostHeader"] = host
    return found
