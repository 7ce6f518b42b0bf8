"""Netlify's redirect and header rules: the tables of `netlify.toml` and the lines of `_redirects` and `_headers`.

The line grammars are Netlify's (packages redirect-parser and headers-parser of netlify/build); Cloudflare Pages and
Workers assets read the same two files, with `! Name` to remove a header. A line that the platforms skip is skipped here
too, and said so.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from homeport.blueprints.dialect import open_blueprint
from homeport.blueprints.document import Document
from homeport.blueprints.opening import join
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import Ledger, View, scalar_text
from homeport.model.reading import Fate
from homeport.model.route import Action, Condition, Match, Redirect, Rewrite, Route, SetHeaders, ToService, ToUrl

FUNCTIONS = "/.netlify/functions/"
_STATUS = re.compile(r"^(\d{1,4})(!?)$")
_HEADER_NAME = re.compile(r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$")

Functions = dict[str, str]
"""Name in the URL to name of the service."""


def redirect_routes(rule: View, service: str, functions: Functions) -> list[Route]:
    """The routes of one `[[redirects]]` entry; its keys get their fates."""
    source = _aliased(rule, "from", "origin")
    status = _status(rule)
    target = _aliased(rule, "to", "destination") or _forward(source, status)
    for key, value in (("from", source), ("to", target)):
        if not value:
            rule.problem(None, f'a redirect needs "{key}"')
    if not source or not target:
        return []
    force, conditions = bool(rule.flag("force", False)), _query(rule) + _conditions(rule)
    rule.ignored("signed", "sign", "signing", reason="the proxied request is not signed; the name of the variable is kept")
    rule.ignored(
        "rate_limit", "edge_handler", "edge_handlers", reason="a feature of Netlify's network; kept so that it can be written back"
    )
    match = _match(source, tuple(conditions))
    if target.partition("?")[0] == f"{FUNCTIONS}:splat" and source.endswith("/*") and functions:
        return [
            Route(
                service=service,
                match=match.model_copy(update={"path": match.path[:-1] + name, "syntax": "prefix"}),
                action=ToService(service=functions[name]),
                force=force,
            )
            for name in sorted(functions)
        ]
    signed = scalar_text(_first(rule, "signed", "signing", "sign"))
    extensions = {key: rule.data[key] for key in ("rate_limit",) if key in rule.data}
    route = Route(
        service=service,
        match=match,
        action=_action(rule, target, status, functions),
        force=force,
        signed=signed,
        extensions=extensions,
    )
    headers = rule.take("headers", reason="sent along with the proxied request")
    if not isinstance(headers, dict) or not headers:
        return [route]
    request = {str(k): scalar_text(v) for k, v in headers.items() if not isinstance(v, dict | list) and _HEADER_NAME.match(str(k))}
    return [Route(service=service, match=match, action=SetHeaders(request=request), proceed=True, force=force), route]


def _first(rule: View, *keys: str) -> Any:
    return next((rule.data[key] for key in keys if key in rule.data), None)


def _aliased(rule: View, key: str, old: str) -> str:
    """A key, or the name it had before, as Netlify still reads it."""
    return (rule.text(key) if key in rule else rule.text(old)).strip()


def _forward(source: str, status: int) -> str:
    """Where a rule without destination leads: a splat with status 200 means the same path."""
    return re.sub(r"/\*$", "/:splat", source) if source.endswith("/*") and 200 <= status < 300 else ""


def _status(rule: View) -> int:
    value = rule.take("status")
    if value is None:
        return 301
    match = _STATUS.match(scalar_text(value).strip()) if not isinstance(value, dict | list | bool) else None
    if not match or not 100 <= int(match[1]) <= 599:
        rule.problem("status", f"an HTTP status is expected here, not {str(value)[:40]!r}")
        return 301
    return int(match[1])


def _query(rule: View) -> list[Condition]:
    key = next((k for k in ("query", "params", "parameters") if k in rule), None)
    value = rule.take(key) if key else None
    if not isinstance(value, dict):
        return []
    return [Condition(type="query", key=str(k), value="" if scalar_text(v).startswith(":") else scalar_text(v)) for k, v in value.items()]


def _conditions(rule: View) -> list[Condition]:
    if "conditions" not in rule or not isinstance(rule.data["conditions"], dict):
        rule.honoured("conditions")
        return []
    table, found = rule.view("conditions"), []
    for key in table.keys():  # noqa: SIM118 - a View is no mapping
        kind = key.lower()
        values = [part.strip() for part in ",".join(table.texts(key)).split(",") if part.strip()]
        if kind in ("language", "cookie"):
            table.honoured(key)
        elif kind == "country":
            table.ignored(key, reason="the edge does not know countries, so the rule never matches; kept so that it can be written back")
        elif kind == "role":
            table.ignored(key, reason="roles come from Netlify Identity, so the rule never matches; kept so that it can be written back")
        else:
            table.ledger.note(table.at(key), Fate.UNKNOWN, "no such condition is known")
            continue
        if kind == "cookie":
            found += [Condition(type="cookie", key=value) for value in values]
        elif kind in ("country", "language", "role"):
            found.append(Condition(type=kind, value=",".join(values)))
    return found


def _match(source: str, conditions: tuple[Condition, ...]) -> Match:
    host, path = "", source
    if source.startswith(("http://", "https://")):
        try:
            parts = urlsplit(source)
            host, path = parts.hostname or "", parts.path or "/"
        except ValueError:
            path = source
    if not path.startswith("/"):
        path = f"/{path}"
    return Match(host=host, path=path, syntax="glob" if "*" in path or ":" in path else "exact", conditions=conditions)


def _action(rule: View | None, target: str, status: int, functions: Functions) -> Action:
    """What a rule does: 3xx redirects, anything else answers with another path, a function or an outside address."""
    if 300 <= status <= 399:
        return Redirect(to=target, status=status)
    if target.startswith(FUNCTIONS):
        name = target.removeprefix(FUNCTIONS).split("/")[0].split("?")[0]
        if name in functions:
            return ToService(service=functions[name], path=target if "?" in target else "")
        if rule is not None:
            key = "to" if "to" in rule.data else "destination"
            rule.approximated(key, reason=f"no function {name!r} was found in the source; the path is passed on as it is")
    if target.startswith(("http://", "https://")):
        return ToUrl(url=target)
    return Rewrite(to=target, status=status)


def header_routes(rule: View, service: str, warnings: list[str]) -> list[Route]:
    """The route of one `[[headers]]` entry; its keys get their fates."""
    path = rule.text("for").strip()
    values = rule.view("values")
    if not path:
        rule.problem(None, 'a headers entry needs "for"')
        return []
    response: dict[str, str] = {}
    for name in values.keys():  # noqa: SIM118
        text = ", ".join(line.strip() for value in values.texts(name) for line in value.splitlines() if line.strip())
        if name.lower() == "basic-auth":
            values.ignored(name, reason="password protection is not taken over; the header is never sent")
            warnings.append(f"{path}: Basic-Auth of Netlify is not taken over: the path is open until you protect it.")
        elif not _HEADER_NAME.match(name):
            values.problem(name, f"{name[:60]!r} is not a header name")
        else:
            response[name] = text.replace("\0", "")
    return [Route(service=service, match=_match(path, ()), action=SetHeaders(response=response), proceed=True)] if response else []


def redirects_document(file: str, text: str) -> Document:
    """A `_redirects` file as data: `{"redirects": [{from, query, to, status, force, conditions, skipped}]}`."""
    document = Document(file, text, {})
    rules: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = _words(line)
        if not words:
            continue
        at = ("redirects", len(rules))
        rules.append(_redirect_line(words))
        document.places[at] = (number, len(line) - len(line.lstrip()) + 1)
    if rules:
        document.data["redirects"] = rules
    return document


def _words(line: str) -> list[str]:
    words = line.split()
    comment = next((i for i, word in enumerate(words) if word.startswith("#")), len(words))
    return words[:comment]


def _redirect_line(words: list[str]) -> dict[str, Any]:
    """`from [key=value …] [to] [status[!]] [key=value …]`; `{"skipped": line}` when it is none."""
    source, rest = words[0], words[1:]
    to_at = next((i for i, word in enumerate(rest) if word.startswith(("/", "http://", "https://"))), None)
    rule: dict[str, Any] = {"from": source}
    if rest and _STATUS.match(rest[0]):
        before, tail = [], rest
    elif to_at is not None:
        before, tail = rest[:to_at], rest[to_at + 1 :]
        rule["to"] = rest[to_at]
    else:
        return {"skipped": " ".join(words)}
    if not source.startswith(("/", "http://", "https://")):
        return {"skipped": " ".join(words)}
    if before:
        rule["query"] = _pairs(before)
    if tail:
        match = _STATUS.match(tail[0])
        if not match or not 100 <= int(match[1]) <= 599:
            return {"skipped": " ".join(words)}
        rule["status"] = int(match[1])
        if match[2]:
            rule["force"] = True
    if len(tail) > 1:
        conditions = _pairs(tail[1:])
        signed = conditions.pop("Sign", conditions.pop("signed", None))
        rule |= ({"conditions": conditions} if conditions else {}) | ({"signed": signed} if signed is not None else {})
    if "to" not in rule and not _forward(source, int(rule.get("status", 301))):
        return {"skipped": " ".join(words)}
    return rule


def _pairs(words: list[str]) -> dict[str, Any]:
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def headers_document(file: str, text: str) -> Document:
    """A `_headers` file as data: `{"headers": [{for, values, remove}]}`; lines that the platforms skip are under `skipped`."""
    document = Document(file, text, {})
    rules: list[dict[str, Any]] = []
    skipped: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line, column = raw.strip(), len(raw) - len(raw.lstrip()) + 1
        if not line or line.startswith("#"):
            continue
        if line.startswith(("/", "http://", "https://")) and not re.match(r"^https?:\s", line):
            document.places[("headers", len(rules))] = (number, column)
            rules.append({"for": line})
            continue
        name, colon, value = (part.strip() for part in line.partition(":"))
        where = ("headers", len(rules) - 1)
        if name.startswith("!") and not colon and rules:
            document.places[(*where, "remove", len(rules[-1].get("remove", [])))] = (number, column)
            rules[-1].setdefault("remove", []).append(name[1:].strip())
        elif colon and value and rules and _HEADER_NAME.match(name):
            values = rules[-1].setdefault("values", {})
            document.places.setdefault((*where, "values", name), (number, column))
            values[name] = f"{values[name]}, {value}" if name in values else value
        else:
            document.places[("skipped", len(skipped))] = (number, column)
            skipped.append(line)
    document.data |= ({"headers": rules} if rules else {}) | ({"skipped": skipped} if skipped else {})
    return document


def file_routes(view: View, service: str, functions: Functions, warnings: list[str]) -> list[Route]:
    """The routes of a `_redirects` or `_headers` document."""
    routes: list[Route] = []
    for rule in view.views("redirects"):
        if "skipped" in rule:
            rule.ignored("skipped", reason="not a redirect rule: `from to [status]` is expected; the platforms skip such a line as well")
            warnings.append(
                f"{view.ledger.document.file}:{view.ledger.document.place(rule.path)[0]}: the line is skipped: not a redirect rule"
            )
            continue
        routes += redirect_routes(rule, service, functions)
    for rule in view.views("headers"):
        rule.honoured("for")
        removed = tuple(name for name in rule.texts("remove") if name)
        if "values" in rule:
            routes += header_routes(rule, service, warnings)
        if removed:
            match = _match(rule.text("for"), ())
            routes.append(Route(service=service, match=match, action=SetHeaders(remove=removed), proceed=True))
    view.ignored("skipped", reason="not a header line: a path or `Name: value` is expected; the platforms skip such a line as well")
    return routes


def side_file(file_name: str) -> str | None:
    """`_redirects` or `_headers` when the file is one of them."""
    last = file_name.rsplit("/", 1)[-1]
    return next((kind for kind in ("_redirects", "_headers") if last == kind or last.endswith("__" + kind)), None)


def side_document(file: str, text: str, kind: str) -> Document:
    """Parse one of the two side files."""
    return redirects_document(file, text) if kind == "_redirects" else headers_document(file, text)


def side_view(tree: SourceTree, path: str, kind: str) -> View:
    document = side_document(path, open_blueprint(tree, path), kind)
    return View(Ledger(document), document.data)


def side_routes(tree: SourceTree, folders: list[str], service: str, functions: Functions, warnings: list[str]) -> list[Route]:
    """Routes of the `_redirects` and `_headers` in the first of the folders that has each; their faults become warnings."""
    routes: list[Route] = []
    for kind in ("_redirects", "_headers"):
        path = next((join(folder, kind) for folder in folders if kind in tree.list(folder)), None)
        if path is None:
            continue
        view = side_view(tree, path, kind)
        routes += file_routes(view, service, functions, warnings)
        warnings += [f"{path}:{problem.line}: {problem.message}" for problem in view.ledger.problems]
    return routes


def is_fallback(route: Route) -> bool:
    """Whether a rule answers every path without a file with `index.html`: the fallback of a single-page application."""
    plain = not (route.force or route.match.conditions or route.match.host)
    return plain and route.match.path == "/*" and route.action == Rewrite(to="/index.html")
