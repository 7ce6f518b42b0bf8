"""From what is live to the edge's route table. Pure: equal inputs give equal tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from homeport.drivers.edge.base import Answer, EdgeAction, EdgeRoute, Files, Forward, RedirectTo, RouteTable, Site, Target, Upstream
from homeport.model.release import Release
from homeport.model.route import Condition, Match, Redirect, Respond, Rewrite, Route, SetHeaders, ToService
from homeport.model.service import PrivateService, StaticService, WebService

UNKNOWN = frozenset({"country", "role"})
"""What of a visitor the edge is told by nobody: there is no table of addresses by country here, and no accounts of an identity service."""

DRAIN = timedelta(seconds=30)
"""How long the former release finishes its requests and streams after a switch."""


@dataclass(frozen=True)
class Live:
    """One environment as the edge should show it."""

    release: Release
    targets: dict[str, tuple[Target, ...]]
    """Instances per service that may receive requests."""
    forwards: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Loopback address and port of services that others of the project reach by name."""
    stopped: bool = False
    relays: dict[str, Target] = field(default_factory=dict)
    """Where requests wait for services that may not overlap, while no instance of theirs listens."""
    maintenance: frozenset[str] = frozenset()


def host_of(project: str, environment: str, service: str) -> str:
    """The default host name of a service: `web.shop.localhost`, in other environments `web.staging.shop.localhost`."""
    return f"{service}.{project}.localhost" if environment == "production" else f"{service}.{environment}.{project}.localhost"


def front_of(release: Release) -> str:
    """The service that also answers on the project's bare host: the first web service, else the first static one."""
    services = release.spec.services
    for kind in ("web", "static"):
        for name, service in services.items():
            if service.kind == kind:
                return name
    return ""


def hosts_of(release: Release, name: str) -> tuple[str, ...]:
    """Every host name a public service answers on."""
    service = release.spec.services[name]
    if not isinstance(service, WebService | StaticService):
        return ()
    hosts = [host_of(release.project, release.environment, name)] if service.default_domain else []
    if name == front_of(release) and service.default_domain:
        hosts.append(host_of(release.project, release.environment, name).split(".", 1)[1])
    if release.environment == "production":
        hosts += [domain.host.lower() for domain in service.domains]
    return tuple(dict.fromkeys(hosts))


def make_table(environments: Iterable[Live], *, port: int, address: str, held: dict[str, Target] | None = None) -> RouteTable:
    """The whole table. `held` sends a service (`project/environment/service`) to a holding relay for the moment."""
    sites: list[Site] = []
    forwards: list[Forward] = []
    taken: set[str] = set()
    for live in environments:
        for name, service in live.release.spec.services.items():
            key = f"{live.release.project}/{live.release.environment}/{name}"
            targets = (held[key],) if held and key in held else live.targets.get(name, ())
            if isinstance(service, WebService | StaticService):
                hosts = tuple(host for host in hosts_of(live.release, name) if host not in taken)
                taken |= set(hosts)
                if hosts:
                    sites.append(_site(live, name, service, hosts, targets, held or {}))
            if name in live.forwards and targets and isinstance(service, WebService | PrivateService):
                host, forward_port = live.forwards[name]
                forwards.append(Forward(name=key.replace("/", "-"), host=host, port=forward_port, targets=targets))
    return RouteTable(sites=tuple(sites), forwards=tuple(forwards), port=port, address=address, drain=DRAIN + timedelta(seconds=5))


def _site(
    live: Live, name: str, service: WebService | StaticService, hosts: tuple[str, ...], targets: Sequence[Target], held: dict[str, Target]
) -> Site:
    release = live.release
    if live.stopped or service.maintenance.enabled or name in live.maintenance:
        main: EdgeAction = Answer(status=503, body=_page("Down for maintenance", "This site is being worked on and will be back shortly."))
    elif isinstance(service, StaticService):
        main = _files(release, name, service)
    else:
        main = _upstream(live, name, service, targets)
    rules = [] if isinstance(main, Answer) else _rules(live, name, main, held)
    catch_all = any(r.path == "/" and r.syntax == "prefix" and not r.methods and not r.conditions for r in rules)
    routes = (*rules, *(() if catch_all else (EdgeRoute(action=main, response_headers=_headers_for(release, name, "/")),)))
    return Site(name=f"{release.project}-{release.environment}-{name}", hosts=hosts, routes=routes, allow=service.ip_allow_list)


def _upstream(live: Live, name: str, service: WebService, targets: Sequence[Target]) -> EdgeAction:
    release = live.release
    if not targets:
        return Answer(status=503, body=_page("Not running", "This service has no running instance."))
    return Upstream(
        name=f"{release.project}-{release.environment}-{name}",
        targets=tuple(targets),
        protocol="h2c" if service.protocol == "h2c" else "http",
        release=release.id,
        backups=(live.relays[name],) if name in live.relays else (),
        sticky=service.sticky and name not in live.relays,
    )


def _files(release: Release, name: str, service: StaticService) -> EdgeAction:
    artifact = release.artifacts.get(name)
    if artifact is None:
        return Answer(status=503, body=_page("Not built", "This site has not been built."))
    return Files(
        root=Path(artifact.folder) / artifact.publish,
        clean_urls=service.clean_urls,
        trailing_slash=service.trailing_slash,
        single_page=service.single_page,
        not_found=service.not_found_page,
    )


def _rules(live: Live, name: str, main: EdgeAction, held: dict[str, Target]) -> list[EdgeRoute]:
    """The file's own routes for a service, in order; those the edge cannot express are left out (the plan says so)."""
    found: list[EdgeRoute] = []
    for route in live.release.spec.routes:
        conditions = answerable(route.match.conditions)
        if route.service == name and conditions is not None:
            action = _action(live, route, main, held)
            pattern = edge_pattern(route.match, capturing=_uses_captures(action))
            if action is not None and pattern is not None:
                path, syntax = pattern
                headers = _headers_for(live.release, name, path)
                found.append(
                    EdgeRoute(
                        path=path,
                        syntax=syntax,
                        methods=route.match.methods,
                        conditions=conditions,
                        action=action,
                        response_headers=headers,
                    )
                )
    for route in live.release.spec.routes:
        if route.service == name and isinstance(route.action, SetHeaders) and (pattern := edge_pattern(route.match)) is not None:
            path, syntax = pattern
            if (path, syntax) != ("/", "prefix") and not any((r.path, r.syntax) == (path, syntax) for r in found):
                found.append(EdgeRoute(path=path, syntax=syntax, action=main, response_headers=_headers_for(live.release, name, path)))
    return found


def answerable(conditions: tuple[Condition, ...]) -> tuple[Condition, ...] | None:
    """The conditions that the edge decides; None when one of them never holds, since nobody tells it a visitor's country or role."""
    unknown = [condition for condition in conditions if condition.type in UNKNOWN]
    if any(not condition.negate for condition in unknown):
        return None
    return tuple(condition for condition in conditions if condition not in unknown)


def _action(live: Live, route: Route, main: EdgeAction, held: dict[str, Target]) -> EdgeAction | None:
    action = route.action
    if isinstance(action, Redirect):
        return RedirectTo(to=captures(action.to), status=action.status)
    if isinstance(action, Respond):
        return Answer(status=action.status, body=action.body)
    if isinstance(action, Rewrite):
        if isinstance(main, Files):
            return main.model_copy(update={"single_page": True}) if action.to.rstrip("/") in ("", "/index.html") else None
        return main.model_copy(update={"rewrite": captures(action.to)}) if isinstance(main, Upstream) else None
    if isinstance(action, ToService):
        target = live.release.spec.services.get(action.service)
        if isinstance(target, WebService):
            key = f"{live.release.project}/{live.release.environment}/{action.service}"
            targets = (held[key],) if key in held else live.targets.get(action.service, ())
            upstream = _upstream(live, action.service, target, targets)
            if isinstance(upstream, Upstream) and action.path:
                return upstream.model_copy(update={"rewrite": captures(action.path)})
            return upstream
    return None


def _headers_for(release: Release, name: str, path: str) -> dict[str, str]:
    """Response headers that the file sets for a path: every matching rule, later ones win."""
    headers: dict[str, str] = {}
    for route in release.spec.routes:
        if route.service == name and isinstance(route.action, SetHeaders) and (pattern := edge_pattern(route.match)) is not None:
            where, syntax = pattern
            if (syntax == "prefix" and path.startswith(where)) or where == path:
                headers |= route.action.response
    return headers


_PARAM = re.compile(r":([A-Za-z_][A-Za-z0-9_]*)(\*|\+|\?)?")


def _uses_captures(action: EdgeAction | None) -> bool:
    """Whether the destination holds parts of the request's path."""
    to = action.to if isinstance(action, RedirectTo) else action.rewrite if isinstance(action, Upstream) else ""
    return "$" in (to or "")


def edge_pattern(match: Match, *, capturing: bool = False) -> tuple[str, str] | None:
    """A match as the edge's path and syntax; None when the edge has no form for it. `capturing`: parts of the path are needed."""
    path = match.path or "/"
    if match.syntax in ("prefix", "exact"):
        return path, match.syntax
    if match.syntax == "regex":
        return path, "regex"
    if match.syntax == "glob":
        if "*" not in path and ":" not in path:
            return path, "exact"
        if path in ("/*", "*") and not capturing:
            return "/", "prefix"
        head = path[:-1]
        if not capturing and path.endswith("/*") and "*" not in head and ":" not in head:
            return head, "prefix"
        return "^" + _PARAM.sub(
            lambda m: f"(?<{m[1]}>[^/]+)", re.escape(path).replace(r"\*", "(?<splat>.*)").replace("\\:", ":")
        ) + "$", "regex"
    if "(" in path or "{" in path:
        return None
    if not _PARAM.search(path):
        return path, "exact"
    if not capturing and (whole := re.fullmatch(r"(/[^:*]*)/:[A-Za-z_]\w*\*", path)) is not None:
        return whole[1] + "/", "prefix"
    return "^" + _PARAM.sub(lambda m: f"(?<{m[1]}>{'.*' if m[2] == '*' else '.+' if m[2] == '+' else '[^/]+'})", path) + "$", "regex"


def captures(destination: str) -> str:
    """`:name` of the dialects as the edge's `$name`; `:splat` included."""
    scheme, separator, rest = destination.partition("://")
    body = rest if separator else destination
    body = _PARAM.sub(lambda m: f"${m[1]}", body)
    return f"{scheme}://{body}" if separator else body


def _page(title: str, text: str) -> str:
    return f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1><p>{text}</p>"
