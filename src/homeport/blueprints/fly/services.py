"""`http_service`, `[[services]]` and their checks: what a process group listens on, and when it counts as well."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from homeport.blueprints.fly.values import length, port_number, tables
from homeport.blueprints.view import View, scalar_text
from homeport.model.container import Port
from homeport.model.route import SetHeaders
from homeport.model.service import HealthCheck

EDGE_OWN = "the edge uses its own TLS and proxy settings; kept for writing it back"


@dataclass
class Listener:
    """One `http_service` or `[[services]]` entry."""

    processes: tuple[str, ...] = ()
    internal_port: int | None = None
    public: bool = False
    """Answers HTTP on 80 or 443 of the edge."""
    force_https: bool = False
    protocol: str = "tcp"
    h2c: bool = False
    ports: tuple[Port, ...] = ()
    """Further ports; `target` is the internal port."""
    health: tuple[HealthCheck, ...] = ()
    soft: int | None = None
    hard: int | None = None
    limit_kind: str = ""
    auto_stop: bool = False
    minimum: int | None = None
    headers: SetHeaders | None = None
    edge: dict[str, Any] = field(default_factory=dict)


def read_http_service(view: View) -> Listener:
    """`[http_service]`: ports 80 and 443 of the edge, handed to one internal port."""
    found = _common(view)
    found.public = True
    found.force_https = bool(view.flag("force_https"))
    _options(view, found)
    for stray in tables(view, "ports"):
        stray.approximated(*stray.keys(), reason="`http_service` always has the edge's ports 80 and 443")
    return found


def read_service(view: View) -> Listener:
    """One `[[services]]` entry: any port, any protocol."""
    found = _common(view)
    found.protocol = view.text("protocol", "tcp").lower()
    if found.protocol not in ("tcp", "udp"):
        view.problem("protocol", f"{found.protocol[:40]!r} is not a protocol", "Use `tcp` or `udp`.")
    if "force_https" in view:
        found.force_https = bool(view.flag("force_https"))
    _options(view, found)
    ports: list[Port] = []
    for entry in tables(view, "ports"):
        _port(entry, found, ports)
    found.ports = tuple(ports)
    return found


def _port(view: View, found: Listener, ports: list[Port]) -> None:
    number = port_number(view, "port")
    start, end = port_number(view, "start_port"), port_number(view, "end_port")
    handlers = view.texts("handlers")
    if view.flag("force_https"):
        found.force_https = True
    options: dict[str, Any] = {}
    for key in ("tls_options", "proxy_proto_options"):
        if key in view:
            options[key] = view.raw(key)
            view.approximated(key, reason=EDGE_OWN)
    _http_options(view.view("http_options"), found)
    if "http" in handlers and number in (80, 443):
        found.public = True
        view.honoured("port", "handlers", reason="the edge answers on its own HTTP and HTTPS ports")
        found.edge.update(options)
        return
    published = f"{start}-{end}" if start and end else str(number or "")
    if published:
        kind = "udp" if found.protocol == "udp" else "tcp"
        target = found.internal_port or number or start or 8080
        ports.append(
            Port.model_validate({"target": target, "published": published, "protocol": kind, "handlers": handlers, "options": options})
        )


def _common(view: View) -> Listener:
    found = Listener(processes=view.texts("processes"), internal_port=port_number(view, "internal_port"))
    _concurrency(view, found)
    if "auto_stop_machines" in view:
        mode = scalar_text(view.take("auto_stop_machines")).lower()
        if mode not in ("true", "false", "off", "stop", "suspend"):
            view.problem("auto_stop_machines", f"{mode[:40]!r} is not a mode", "Use `off`, `stop` or `suspend`.")
        found.auto_stop = mode in ("true", "stop", "suspend")
        if mode == "suspend":
            view.approximated("auto_stop_machines", reason="instances are stopped, not suspended with their memory")
    view.honoured("auto_start_machines", reason="an idle service is always started by the next request")
    if view.flag("auto_start_machines") is False and found.auto_stop:
        view.approximated("auto_start_machines", reason="an idle service is always started by the next request")
    found.minimum = view.integer("min_machines_running", low=0, high=1000)
    checks: list[HealthCheck] = []
    for key, reader in (("checks", read_http_check), ("http_checks", read_http_check), ("tcp_checks", read_tcp_check)):
        checks += [reader(entry) for entry in tables(view, key)]
    checks += [_script_check(entry) for entry in tables(view, "script_checks")]
    found.health = tuple(checks)
    if "machine_checks" in view:
        found.edge["machine_checks"] = view.raw("machine_checks")
        view.ignored("machine_checks", reason="Homeport checks the instance that will serve, before it serves; kept for writing it back")
    return found


def _concurrency(view: View, found: Listener) -> None:
    raw = view.raw("concurrency")
    if isinstance(raw, str):
        soft, _, hard = view.text("concurrency").partition(",")
        if not (soft.strip().isdecimal() and hard.strip().isdecimal() and len(raw) < 20):
            view.problem("concurrency", f"{raw[:40]!r} is not a pair of limits", "Write `soft,hard`, such as `20,25`.")
            return
        found.soft, found.hard, found.limit_kind = int(soft), int(hard), "requests"
        return
    inner = view.view("concurrency")
    kind = inner.text("type").lower()
    if kind and kind not in ("connections", "requests"):
        inner.problem("type", f"{kind[:40]!r} is not a kind of concurrency", "Use `connections` or `requests`.")
        kind = ""
    found.limit_kind = kind
    found.soft = inner.integer("soft_limit", low=0, high=1_000_000)
    found.hard = inner.integer("hard_limit", low=0, high=1_000_000)


def _options(view: View, found: Listener) -> None:
    _http_options(view.view("http_options"), found)
    for key in ("tls_options", "proxy_proto_options"):
        if key in view:
            found.edge[key] = view.raw(key)
            view.approximated(key, reason=EDGE_OWN)


def _http_options(view: View, found: Listener) -> None:
    found.h2c = bool(view.flag("h2_backend")) or found.h2c
    response = view.view("response")
    headers: dict[str, str] = {}
    removed: list[str] = []
    for name, value in response.view("headers").data.items():
        inner = response.view("headers")
        if value is False:
            inner.take(name, reason="the header is removed from answers")
            removed.append(name)
        elif isinstance(value, list):
            headers[name] = ", ".join(inner.texts(name))
            inner.approximated(name, reason="several values are sent as one header, joined by commas (RFC 9110, 5.3)")
        elif isinstance(value, dict):
            inner.problem(name, "text, a list, or false is expected here, not a mapping")
        else:
            headers[name] = inner.text(name)
    if headers or removed:
        known = found.headers or SetHeaders()
        found.headers = SetHeaders(response={**known.response, **headers}, remove=(*known.remove, *removed))
    kept = {key: view.raw(key) for key in ("compress", "idle_timeout", "headers_read_timeout", "replay_cache") if key in view}
    if kept:
        found.edge.setdefault("http_options", {}).update(kept)
    view.approximated(
        "compress", "idle_timeout", "headers_read_timeout", reason="the edge has its own compression and timeouts; kept for writing it back"
    )
    view.ignored("replay_cache", reason="about Fly's own proxy; kept for writing it back")
    if "pristine" in response:
        found.edge.setdefault("http_options", {})["response"] = {"pristine": response.raw("pristine")}
        response.approximated("pristine", reason="the edge adds no headers of its own to answers; kept for writing it back")


def _times(view: View) -> dict[str, Any]:
    limit = view.integer("restart_limit", low=0, high=1000)
    return {
        "interval": length(view, "interval", milliseconds=True),
        "timeout": length(view, "timeout", milliseconds=True),
        "start_period": length(view, "grace_period", milliseconds=True),
        "restart_after": limit or None,
    }


def read_http_check(view: View) -> HealthCheck:
    """A check by request: 2xx and 3xx are good answers."""
    path = view.text("path", "/") or "/"
    protocol = view.text("protocol").lower()
    if protocol not in ("", "http", "https"):
        view.problem("protocol", f"{protocol[:40]!r} is not a protocol", "Use `http` or `https`.")
    view.honoured("type", "name")
    return HealthCheck(
        path=path if path.startswith("/") else f"/{path}",
        method=view.text("method", "GET").upper() or "GET",
        headers=_headers(view),
        tls=protocol == "https",
        tls_skip_verify=bool(view.flag("tls_skip_verify")),
        tls_server_name=view.text("tls_server_name"),
        **_times(view),
    )


def _headers(view: View) -> dict[str, str]:
    """Request headers: a mapping, or the machine API's list of `{name, values}`."""
    raw = view.raw("headers")
    if isinstance(raw, list):
        found = {}
        for entry in view.views("headers"):
            found[entry.text("name")] = ", ".join(entry.texts("values") or entry.texts("value"))
        return found
    inner = view.view("headers")
    return {name: ", ".join(inner.texts(name)) for name in inner.keys()}  # noqa: SIM118


def read_tcp_check(view: View) -> HealthCheck:
    """A check by connecting."""
    view.honoured("type", "name")
    return HealthCheck(kind="tcp", **_times(view))


def _script_check(view: View) -> HealthCheck:
    command = (*view.texts("command"), *view.texts("args"))
    return HealthCheck(kind="command", command=command[0] if len(command) == 1 else command, **_times(view))


def read_named_check(name: str, view: View) -> tuple[HealthCheck, tuple[str, ...]]:
    """One of the top-level `[checks]`, and the process groups it is about."""
    kind = view.text("type").lower()
    port = port_number(view, "port")
    if kind not in ("http", "tcp"):
        view.problem("type" if "type" in view else None, "a check's type is `http` or `tcp`")
    check = read_tcp_check(view) if kind == "tcp" else read_http_check(view)
    return check.model_copy(update={"name": name, "role": "live", "port": str(port or "")}), view.texts("processes")


def at_port(checks: tuple[HealthCheck, ...], port: int | None) -> tuple[HealthCheck, ...]:
    """Checks that are about another port than the service's own."""
    return tuple(check.model_copy(update={"port": str(port or "")}) for check in checks)


__all__ = ["Listener", "at_port", "read_http_service", "read_named_check", "read_service", "replace"]
