"""Routes: what the edge does with a host and a path. First match wins, in the order written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from homeport.model.base import Duration, Frozen, Json


class Condition(Frozen):
    """A route applies only when (or unless) the request has something."""

    type: Literal["header", "cookie", "query", "host", "country", "language", "role"]
    """What of the request."""
    key: str = ""
    """Name of the header, cookie or query field."""
    value: str = ""
    """Exact text or pattern; empty means present."""
    negate: bool = False
    """Applies when it is not so."""


class Match(Frozen):
    """Which requests."""

    host: str = ""
    """Empty means every host of `service`; `*.example.com` matches one label."""
    path: str = "/"
    """Path, in the words of `syntax`."""
    syntax: Literal["prefix", "exact", "glob", "params", "regex"] = "prefix"
    """`params` is path-to-regexp (`/blog/:slug*`), `glob` is Netlify/Render (`/a/*`)."""
    methods: tuple[str, ...] = ()
    """HTTP methods; empty is all."""
    conditions: tuple[Condition, ...] = ()
    """All of them must hold."""


class ToService(Frozen):
    """Pass on to a service, optionally under another path."""

    kind: Literal["service"] = "service"
    service: str
    """The service."""
    path: str = ""
    """Destination path with `:name`/`$1` of the match; empty keeps the request's."""
    strip_prefix: bool = False
    """Take the matched prefix off."""


class ToUrl(Frozen):
    """Pass on to an outside address."""

    kind: Literal["url"] = "url"
    url: str
    """The address."""
    options: dict[str, Json] = {}
    """Origin options (cloudflared's originRequest)."""
    connect_timeout: Duration | None = None
    """Most time to connect."""
    host_header: str = ""
    """Host to name; empty is the address's."""
    tls_verify: bool = True
    """Check its certificate."""


class Redirect(Frozen):
    """Answer with a redirect."""

    kind: Literal["redirect"] = "redirect"
    to: str
    """Where to; may use parts of the match."""
    status: int = Field(default=308, ge=300, le=399)
    """301, 302, 303, 307 or 308."""


class Rewrite(Frozen):
    """Answer with another path of the same service, the address bar unchanged."""

    kind: Literal["rewrite"] = "rewrite"
    to: str
    """The path; may use parts of the match."""
    status: int = 200
    """Status to answer with."""


class Respond(Frozen):
    """Answer at the edge."""

    kind: Literal["respond"] = "respond"
    status: int = Field(ge=100, le=599)
    """Status."""
    body: str = ""
    """Body."""


class SetHeaders(Frozen):
    """Change response (or request) headers, then go on with the next route."""

    kind: Literal["headers"] = "headers"
    response: dict[str, str] = {}
    """Headers of the answer."""
    request: dict[str, str] = {}
    """Headers towards the service."""
    remove: tuple[str, ...] = ()
    """Headers of the answer to drop."""


class Filesystem(Frozen):
    """From here on, an existing file wins over later routes (Vercel's `handle`)."""

    kind: Literal["phase"] = "phase"
    phase: str
    """Vercel's name of the phase."""


Action = Annotated[ToService | ToUrl | Redirect | Rewrite | Respond | SetHeaders | Filesystem, Field(discriminator="kind")]


class Route(Frozen):
    """One rule of the edge."""

    service: str = ""
    """Service whose hosts it is about; empty means `match.host` decides."""
    match: Match = Match()
    """Which requests."""
    action: Action
    """What is done."""
    force: bool = False
    """Applies even where a file exists (Netlify's `!`)."""
    signed: str = ""
    """Name of the secret that signs proxied requests (Netlify)."""
    proceed: bool = False
    """Go on with the next route after this one (Vercel's `continue`)."""
    extensions: dict[str, Json] = {}
    """What a dialect says that the edge does not do; kept so that it can be written back."""
