"""Routes of a site as nginx locations, so that the first route that matches wins.

nginx itself picks an exact location, then the longest prefix, then patterns in order. Three shapes cover every list of routes:

- Only prefixes and exact paths: a route behind one that covers it can never match and is left out; then the longest prefix
  *is* the first match, and nginx's own lookup serves.
- Patterns too: every route becomes a pattern location, in order.
- Conditions (methods, headers, cookies, …): nginx cannot choose a location by them, so a chain of exact tests runs first, up to the last
  route with conditions, and hands over to named locations by status codes that nothing else uses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from homeport.drivers.edge.actions import COMMON, Drawing, action, missing_page
from homeport.drivers.edge.base import EdgeRefused, EdgeRoute, Files, Site, Upstream
from homeport.drivers.edge.patterns import Pattern, either, literal
from homeport.drivers.edge.syntax import Directive, block, check, line, plain
from homeport.model.route import Condition

CHAIN_CODES = tuple(code for code in (*range(520, 600), *range(432, 494)) if code not in (451, 444))
"""Statuses that stand for a place in the chain of a site; no platform page uses them and answers of instances are not looked at."""

_METHOD = re.compile(r"[A-Z][A-Z-]{0,30}")


def locations(site: Site, drawing: Drawing) -> tuple[list[Directive], list[Directive]]:
    """Directives that run before a location is chosen, and the locations."""
    routes = [_normal(route) for route in site.routes]
    last = max((number for number, route in enumerate(routes) if route.methods or route.conditions), default=-1)
    chain: list[Directive] = []
    places: list[Directive] = []
    drawing.prelude = []
    body = _Bodies(drawing)
    if last >= len(CHAIN_CODES):
        raise EdgeRefused.of(
            f"The site {site.name[:60]!r}", f"it has a condition after route {len(CHAIN_CODES)}; put routes with conditions first"
        )
    for number, route in enumerate(routes[: last + 1]):
        chain += _test(route, CHAIN_CODES[number])
        chain.append(line("error_page", CHAIN_CODES[number], "=", f"@homeport_route{number}"))
        places.append(block("location", [f"@homeport_route{number}"], body.of(route)))
    rest = routes[last + 1 :]
    places += _ordered(rest, body) if any(route.syntax == "regex" for route in rest) else _native(rest, body)
    return [*drawing.prelude, *chain], [*places, *body.extra]


class _Bodies:
    """Insides of locations, with the extra locations they need."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing, self.extra, self._names = drawing, list[Directive](), dict[object, str]()

    def of(self, route: EdgeRoute) -> list[Directive]:
        pattern = _pattern(route) if route.syntax == "regex" else None
        fallback = ""
        if isinstance(route.action, Files):
            if route.action.fallback is not None:
                fallback = self._fallback(route, route.action.fallback)
            elif route.action.not_found:
                self._missing(route.action)
        return action(route, self.drawing, pattern, fallback)

    def _fallback(self, route: EdgeRoute, to: Upstream) -> str:
        key = (to, tuple(route.response_headers.items()), route.remove_headers)
        if key not in self._names:
            self._names[key] = f"@homeport_fallback{len(self._names)}"
            inner = EdgeRoute(action=to, response_headers=route.response_headers, remove_headers=route.remove_headers)
            self.extra.append(block("location", [self._names[key]], action(inner, self.drawing, None, "")))
        return self._names[key]

    def _missing(self, files: Files) -> None:
        place = missing_page(files, self.drawing)
        if place not in self.extra:
            self.extra.append(place)


def _normal(route: EdgeRoute) -> EdgeRoute:
    """The route with its path decoded, as nginx compares it. Raises EdgeRefused on a path that is none."""
    if route.syntax == "regex":
        return route
    path = unquote(check(route.path, "The path of a route"), errors="surrogateescape") if "%" in route.path else route.path
    check(path, f"The path {route.path[:80]!r}")
    if not path.startswith("/") or "/../" in path + "/" or "/./" in path + "/":
        raise EdgeRefused.of(f"The path {route.path[:80]!r}", "it does not begin with / or holds . or .. segments")
    return route.model_copy(update={"path": re.sub("/{2,}", "/", path)})


def _pattern(route: EdgeRoute) -> Pattern:
    return Pattern.of(route.path, f"The pattern {route.path[:80]!r}")


def _regex(route: EdgeRoute) -> str:
    """A pattern for any route's path."""
    if route.syntax == "regex":
        return _pattern(route).bare
    if route.syntax == "exact":
        return rf"^{literal(route.path)}\z"
    return "^" + literal(route.path) if route.path.endswith("/") else rf"^{literal(route.path)}(?:/|\z)"


def _covers(route: EdgeRoute, path: str, *, exact: bool) -> bool:
    """Whether a prefix or exact route matches every request that `path` (a prefix, or exactly it) matches."""
    if route.syntax == "exact":
        return exact and route.path == path
    return path.startswith(route.path) if route.path.endswith("/") else path == route.path or path.startswith(route.path + "/")


def _native(routes: Sequence[EdgeRoute], body: _Bodies) -> list[Directive]:
    made: dict[tuple[str, ...], list[Directive]] = {}
    reachable: list[EdgeRoute] = []
    for route in routes:
        if not any(_covers(earlier, route.path, exact=route.syntax == "exact") for earlier in reachable):
            reachable.append(route)
    for route in reachable:
        inside = body.of(route)
        if route.syntax == "exact":
            made[("=", route.path)] = inside
        elif route.path == "/":
            made[("/",)] = inside
        else:
            bare = route.path.rstrip("/")
            made[("^~", bare + "/")] = inside
            if not route.path.endswith("/"):
                made.setdefault(("=", bare), inside)
    for key in [key for key in made if key[0] == "^~"]:
        bare = key[1].rstrip("/")
        if ("=", bare) not in made:  # nginx would redirect `/api` to `/api/` by itself
            first = next((route for route in reachable if _covers(route, bare, exact=True)), None)
            made[("=", bare)] = body.of(first) if first else [*COMMON, line("return", 404)]
    made.setdefault(("/",), [*COMMON, line("return", 404)])
    return [block("location", key, inside) for key, inside in made.items()]


def _ordered(routes: Sequence[EdgeRoute], body: _Bodies) -> list[Directive]:
    made: list[Directive] = []
    rest = [*COMMON, line("return", 404)]
    for route in routes:
        if route.syntax == "prefix" and route.path == "/":
            rest = body.of(route)
            break
        made.append(block("location", ["~", _regex(route)], body.of(route)))
    return [*made, block("location", ["/"], rest)]


def _test(route: EdgeRoute, code: int) -> list[Directive]:
    """Leave for the route's named location when everything holds; only `set` and `return` stand inside an `if`."""
    fails = [("($uri", "!~", _regex(route), ")")] if not (route.syntax == "prefix" and route.path == "/") else []
    if route.methods:
        for method in route.methods:
            if not _METHOD.fullmatch(method):
                raise EdgeRefused.of(f"The method {method[:40]!r}", "it is not an HTTP method in upper case")
        fails.append(("($request_method", "!~", either(route.methods), ")"))
    fails += [_unless(condition) for condition in route.conditions]
    no = [line("set", "$homeport_yes", "0")]
    return [
        line("set", "$homeport_yes", "1"),
        *(block("if", test, no) for test in fails),
        block("if", ["($homeport_yes", "=", "1", ")"], [line("return", code)]),
    ]


def _unless(condition: Condition) -> tuple[str, str, str, str]:
    """The arguments of an `if` that is true when the condition does not hold."""
    variable, value = _variable(condition), check(condition.value, f"The value of a condition on {condition.type}")
    if condition.type == "language":
        languages = "|".join(literal(word.strip().lower()) for word in value.split(",") if word.strip())
        return (f"({variable}", "~*" if condition.negate else "!~*", rf"^\s*(?:{languages})(?:[-;,\s]|\z)", ")")
    if not value:
        return (f"({variable}", "!=" if condition.negate else "=", "", ")")
    if re.fullmatch(r"[^\\^$.|?*+()\[\]{}]*", value) or re.fullmatch(r"[A-Za-z0-9.:/_ -]*", value):
        return (f"({variable}", "=" if condition.negate else "!=", plain(value), ")")
    pattern = Pattern.of(value, f"The pattern {value[:60]!r} of a condition on {condition.type}").bare
    return (f"({variable}", "~" if condition.negate else "!~", rf"^(?:{pattern})\z", ")")


def _variable(condition: Condition) -> str:
    key = condition.key
    match condition.type:
        case "host":
            return "$host"
        case "language":
            return "$http_accept_language"
        case "header" if re.fullmatch(r"[A-Za-z0-9-]{1,100}", key):
            return "$http_" + key.lower().replace("-", "_")
        case "cookie" if re.fullmatch(r"[A-Za-z0-9_]{1,100}", key):
            return f"$cookie_{key}"
        case "query" if re.fullmatch(r"[A-Za-z0-9_]{1,100}", key):
            return f"$arg_{key.lower()}"
        case "header" | "cookie" | "query":
            raise EdgeRefused.of(
                f"The condition on the {condition.type} {key[:60]!r}", "nginx cannot name it: letters, digits and _ (in headers -) can be"
            )
        case _:
            raise EdgeRefused.of(f"A condition on the visitor's {condition.type}", "the edge does not know it")
