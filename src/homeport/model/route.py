"""Routes: what the edge does with a host and a path. First match wins, in the order written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from homeport.model.base import Duration, Frozen, Json


class Condition(Frozen):
    """A route applies only when (or unless) the request has something."""

    type: Literal["header", "cookie", "query", "host", "country", "language", "role"]
    key: str = ""
    value: str = ""
    """Exact text or pattern; empty means present."""
    negate: bool = False


class Match(Frozen):
    """Which requests."""

    host: str = ""
    """Empty means every host of `service`; `*.example.com` matches one label."""
    path: str = "/"
    syntax: Literal["prefix", "exact", "glob", "params", "regex"] = "prefix"
    """`params` is path-to-regexp (`/blog/:slug*`), `glob` is Netlify/Render (`/a/*`)."""
    methods: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()


class ToService(Frozen):
    """Pass on to a service, optionally under another path."""

    kind: Literal["service"] = "service"
    service: str
    path: str = ""
    """Destination path with `:name`/`$1` of the match; empty keeps the request's."""
    strip_prefix: bool = False


class ToUrl(Frozen):
    """Pass on to an outside address."""

    kind: Literal["url"] = "url"
    url: str
    options: dict[str, Json] = {}
    """Origin options (cloudflared's originRequest)."""
    connect_timeout: Duration | None = None
    host_header: str = ""
    tls_verify: bool = True


class Redirect(Frozen):
    """Answer with a redirect."""

    kind: Literal["redirect"] = "redirect"
    to: str
    status: int = Field(default=308, ge=300, le=399)


class Rewrite(Frozen):
    """Answer with another path of the same service, the address bar unchanged."""

    kind: Literal["rewrite"] = "rewrite"
    to: str
    status: int = 200


class Respond(Frozen):
    """Answer at the edge."""

    kind: Literal["respond"] = "respond"
    status: int = Field(ge=100, le=599)
    body: str = ""


class SetHeaders(Frozen):
    """Change response (or request) headers, then go on with the next route."""

    kind: Literal["headers"] = "headers"
    response: dict[str, str] = {}
    request: dict[str, str] = {}
    remove: tuple[str, ...] = ()


class Filesystem(Frozen):
    """From here on, an existing file wins over later routes (Vercel's `handle`)."""

    kind: Literal["phase"] = "phase"
    phase: str


Action = Annotated[ToService | ToUrl | Redirect | Rewrite | Respond | SetHeaders | Filesystem, Field(discriminator="kind")]


class Route(Frozen):
    """One rule of the edge."""

    service: str = ""
    """Service whose hosts it is about; empty means `match.host` decides."""
    match: Match = Match()
    action: Action
    force: bool = False
    """Applies even where a file exists (Netlify's `!`)."""
    signed: str = ""
    proceed: bool = False
    """Go on with the next route after this one (Vercel's `continue`)."""
    extensions: dict[str, Json] = {}
