"""Vercel's routing: redirects, headers, rewrites (path-to-regexp) and the older `routes` (regular expressions).

The order in which Vercel looks at a request is kept: headers and redirects, then files, then rewrites. Schema: the one
Vercel's CLI checks (validate-config.ts with @vercel/routing-utils).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from homeport.blueprints.opening import broken_pattern
from homeport.blueprints.view import View, scalar_text
from homeport.model.reading import Fate
from homeport.model.route import Action, Condition, Filesystem, Match, Redirect, Respond, Rewrite, Route, SetHeaders, ToService, ToUrl

Resolve = Callable[[str], str | None]
"""A path or service name of the file to the name of the service that answers it; None when it is nobody's."""

MAX_RULES = 4096
_CONDITION = frozenset({"header", "cookie", "query", "host"})
_RUNTIME_ENV = "the variables are not filled in at run time; write their values"
_PHASES = frozenset({"error", "filesystem", "hit", "miss", "resource", "rewrite"})
_PLAIN = re.compile(r"[\w/.\-~%@+=,;&!]*")


def _match(rule: View, path: str, syntax: str = "params") -> Match:
    return Match(
        path=path or "/",
        syntax="exact" if syntax == "params" and _PLAIN.fullmatch(path) else syntax,
        conditions=tuple(_conditions(rule, "has", False) + _conditions(rule, "missing", True)),
    )


def _conditions(rule: View, key: str, negate: bool) -> list[Condition]:
    found = []
    for item in rule.views(key):
        kind = item.text("type")
        if kind not in _CONDITION:
            item.problem("type" if "type" in item.data else None, f"header, cookie, query or host is expected here, not {kind[:40]!r}")
            continue
        name = item.text("key")
        pattern, inverted = _value(item)
        if pattern is not None:
            found.append(Condition(type=kind, key=name, value=pattern, negate=negate != inverted))
    return found


def _value(item: View) -> tuple[str | None, bool]:
    """The pattern of a condition, and whether it is inverted; None when the edge cannot compare so."""
    value = item.raw("value")
    if not isinstance(value, dict):
        return item.text("value"), False
    table = item.view("value")
    patterns: list[tuple[str, bool]] = []
    for operator in table.keys():  # noqa: SIM118 - a View is no mapping
        text = table.data[operator]
        words = [re.escape(scalar_text(v)) for v in text] if isinstance(text, list) else [re.escape(scalar_text(text))]
        pattern = {
            "eq": f"^{words[0]}$" if words else "", "neq": f"^{words[0]}$" if words else "", "pre": f"^{words[0]}" if words else "",
            "suf": f"{words[0]}$" if words else "", "inc": f"^(?:{'|'.join(words)})$", "ninc": f"^(?:{'|'.join(words)})$",
            "re": scalar_text(text) if not isinstance(text, dict | list) else "",
        }.get(operator)  # fmt: skip
        if pattern is None:
            if operator in ("gt", "gte", "lt", "lte"):
                table.ignored(operator, reason="the edge compares text, not numbers; the rule applies to every value")
            continue
        table.honoured(operator)
        patterns.append((pattern, operator in ("neq", "ninc")))
    return patterns[0] if patterns else (None, False)


def redirects(view: View, service: str) -> list[Route]:
    """`redirects`: 308, or 307 when not permanent. They come before files, so they are forced."""
    found = []
    for rule in _each(view, "redirects"):
        source, target = _source(rule), rule.text("destination")
        status = rule.integer("statusCode", low=100, high=999)
        permanent = rule.flag("permanent", True)
        rule.ignored("env", reason=_RUNTIME_ENV)
        if "destination" not in rule.data:
            rule.problem(None, 'a redirect needs "destination"')
        code = status if status is not None else 308 if permanent else 307
        if not 300 <= code <= 399:
            rule.problem("statusCode", f"a redirect answers with 300 to 399, not {code}")
            continue
        found.append(Route(service=service, match=_match(rule, source), action=Redirect(to=target, status=code), force=True))
    return found


def headers(view: View, service: str) -> list[Route]:
    """`headers`: set on the answers of matching paths."""
    found = []
    for rule in _each(view, "headers"):
        source, response = _source(rule), {}
        for header in rule.views("headers"):
            name = header.text("key")
            if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name):
                header.problem("key" if "key" in header.data else None, f"{name[:60]!r} is not a header name")
                continue
            response[name] = header.text("value")
        if response:
            found.append(Route(service=service, match=_match(rule, source), action=SetHeaders(response=response), proceed=True))
    return found


def rewrites(view: View, service: str, resolve: Resolve) -> list[Route]:
    """`rewrites`: another path, another service of the file, or an outside address."""
    found = []
    for rule in _each(view, "rewrites"):
        source = _source(rule)
        rule.ignored("env", reason=_RUNTIME_ENV)
        rule.approximated("respectOriginCacheControl", reason="the edge never caches what an outside address answers")
        rule.approximated("transforms", reason="kept with the route; the service sees the path as the client sent it")
        status = rule.integer("statusCode", 200, low=100, high=599) or 200
        match = _match(rule, source)
        action = _destination(rule, "destination", resolve, status)
        if action is not None:
            kept = {"transforms": rule.data["transforms"]} if rule.data.get("transforms") else {}
            found.append(Route(service=service, match=match, action=action, extensions=kept))
    return found


def _each(view: View, key: str) -> list[View]:
    items = list(view.views(key))
    if len(items) > MAX_RULES:
        view.problem(key, f"more than {MAX_RULES} rules")
    return items[:MAX_RULES]


def _source(rule: View) -> str:
    source = rule.text("source")
    rule.approximated("regex", reason="written by Vercel's own build from `source`")
    if not source:
        rule.problem("source" if "source" in rule.data else None, 'a rule needs "source"')
    elif not source.startswith(("/", ":", "(")):
        rule.problem("source", f"a path that begins with / is expected here, not {source[:60]!r}")
    return source


def _destination(rule: View, key: str, resolve: Resolve, status: int = 200) -> Action | None:
    value = rule.raw(key)
    if isinstance(value, dict):
        return _to_service(rule.view(key), resolve)
    target = rule.text(key)
    if not target:
        rule.problem(key if key in rule.data else None, f'"{key}" is missing')
        return None
    return _target(target, resolve, status)


def _to_service(target: View, resolve: Resolve) -> Action | None:
    name, path = target.text("service"), target.text("path")
    target.honoured("type")
    service = resolve(f"service:{name}")
    if service is None:
        target.problem("service" if "service" in target.data else None, f"the file has no service {name[:60]!r}")
        return None
    return ToService(service=service, path=path)


def _target(target: str, resolve: Resolve, status: int = 200) -> Action:
    if target.startswith(("http://", "https://")):
        return ToUrl(url=target)
    path = target if target.startswith("/") else f"/{target}"
    service = resolve(path.partition("?")[0])
    if service is not None:
        # a function sees the path of the request; only a query is added to it
        return ToService(service=service, path=path if "?" in path else "")
    return Rewrite(to=path, status=status)


def legacy(view: View, service: str, resolve: Resolve) -> list[Route]:
    """`routes` of the older configuration: regular expressions, in phases, going on with `continue`."""
    found: list[Route] = []
    before_files = True
    for rule in _each(view, "routes"):
        if "handle" in rule:
            phase = rule.text("handle")
            if phase not in _PHASES:
                rule.problem("handle", f"one of {', '.join(sorted(_PHASES))} is expected here, not {phase[:40]!r}")
            elif phase not in ("filesystem", "rewrite"):
                rule.approximated("handle", reason="kept; the edge knows one phase, the look for files")
            before_files = before_files and phase not in ("filesystem", "hit", "miss", "error", "resource")
            found.append(Route(service=service, action=Filesystem(phase=phase)))
            continue
        made = _legacy_rule(rule, service, resolve)
        found += [route.model_copy(update={"force": True}) for route in made] if before_files else made
    return found


def _legacy_rule(rule: View, service: str, resolve: Resolve) -> list[Route]:
    key = "src" if "src" in rule else "source"
    source = rule.text(key)
    if not source:
        rule.problem(key if key in rule.data else None, 'a route needs "src"')
        return []
    if broken_pattern(source):
        rule.problem(key, "this is not a valid regular expression")
        return []
    _legacy_fates(rule)
    methods = tuple(method.upper() for method in rule.texts("methods"))
    match = _match(rule, source, "regex").model_copy(update={"methods": methods})
    status = rule.integer("status" if "status" in rule else "statusCode", low=100, high=999)
    response, request, removed = _legacy_headers(rule)
    proceed = bool(rule.flag("continue", False))
    target = "dest" if "dest" in rule else "destination"
    location = next((value for name, value in response.items() if name.lower() == "location"), None)
    found: list[Route] = []
    if status and 300 <= status <= 399 and location is not None:
        return [Route(service=service, match=match, action=Redirect(to=location, status=status))]
    if response or request or removed:
        found.append(
            Route(service=service, match=match, action=SetHeaders(response=response, request=request, remove=removed), proceed=True)
        )
    action: Action | None = None
    mitigate = rule.view("mitigate")
    if mitigate.text("action") == "deny":
        action = Respond(status=403)
    elif mitigate.data:
        mitigate.ignored("action", reason="the edge has no challenge page; the request is let through")
    elif target in rule.data:
        action = _destination(rule, target, resolve, status if status and status <= 599 else 200)
    elif status and status <= 599 and not proceed:
        action = Respond(status=status)
    if action is not None:
        found.append(Route(service=service, match=match, action=action, proceed=proceed))
    return found


def _legacy_fates(rule: View) -> None:
    rule.approximated("caseSensitive", reason="paths are compared with case either way")
    rule.honoured("user", "important", "override", "isInternal", reason="a mark of Vercel's own build without effect on the request")
    rule.approximated("check", reason="files are looked for once, before rewrites")
    rule.ignored("locale", reason="the edge does not choose by language; let the application do it")
    rule.ignored("middleware", "middlewarePath", "middlewareRawSrc", reason="middleware runs inside the framework's own server")
    rule.ignored("env", reason=_RUNTIME_ENV)
    rule.approximated("respectOriginCacheControl", reason="the edge never caches what an outside address answers")
    rule.honoured("transforms")


def _legacy_headers(rule: View) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    """Headers for the answer, headers for the service, headers taken away."""
    response = {name: scalar_text(value) for name, value in rule.view("headers").data.items() if not isinstance(value, dict | list)}
    rule.honoured("headers")
    request: dict[str, str] = {}
    removed: list[str] = []
    for item in rule.views("transforms"):
        kind, operation = scalar_text(item.raw("type")), scalar_text(item.raw("op"))
        table = item.raw("target")
        name = table.get("key") if isinstance(table, dict) else None
        args = item.raw("args")
        value = ", ".join(scalar_text(a) for a in args) if isinstance(args, list) else scalar_text(args)
        if kind == "response.headers" and isinstance(name, str) and operation in ("set", "append"):
            response[name] = value
        elif kind == "request.headers" and isinstance(name, str) and operation in ("set", "append"):
            request[name] = value
        elif kind == "response.headers" and isinstance(name, str) and operation == "delete":
            removed.append(name)
        else:
            reason = "the edge changes headers only, by their exact name; kept so that it can be written back"
            item.ledger.note(item.path, Fate.IGNORED, reason)
    return response, request, tuple(removed)


def unmounted(route: Route, mounts: list[str]) -> Route:
    """A rewrite into the folder of a legacy site, whose files Vercel keeps below that folder and Homeport serves from the root."""
    if isinstance(route.action, Rewrite):
        for mount in mounts:
            if route.action.to.startswith(f"{mount}/"):
                return route.model_copy(update={"action": route.action.model_copy(update={"to": route.action.to[len(mount) :]})})
    return route


def covers_everything(route: Route) -> bool:
    """Whether a rewrite sends every path to `index.html`: the fallback of a single-page application."""
    if not isinstance(route.action, Rewrite) or route.match.conditions or route.match.methods:
        return False
    everything = {"/(.*)", "/:path*", "/(.*)?", "(.*)", "/.*", "/:match*", "/:any*", "^/(.*)$", "/*"}
    return route.match.path in everything and route.action.to in ("/index.html", "/", "/index")
