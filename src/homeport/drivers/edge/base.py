"""The Protocol of an edge, and the typed route table it is generated from."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field

from homeport.model.base import Duration, Frozen
from homeport.model.errors import HomeportError
from homeport.model.route import Condition


class EdgeRefused(HomeportError):
    """The route table asks for something the edge cannot or will not do; nothing was changed."""

    code = "edge-refused"

    @classmethod
    def of(cls, subject: str, reason: str, *, fix: str = "Change the route in the deployment file and deploy again.") -> EdgeRefused:
        """`subject` begins the sentence (`The host 'a b'`), `reason` ends it (`it is not a host name`)."""
        return cls(what="The edge was not changed; it serves what it served before.", why=f"{subject} was refused: {reason}.", fix=fix)


class EdgeUnavailable(HomeportError):
    """The edge is not there: it cannot start, its port is taken, or its program is missing."""

    code = "edge-unavailable"


class EdgeUnconfirmed(HomeportError):
    """The edge did not prove in time that it serves the new generation; the last good one was put back."""

    code = "edge-unconfirmed"


class Target(Frozen):
    """One instance behind the edge."""

    host: str
    port: int
    weight: int = 1


class Upstream(Frozen):
    """Pass on to instances."""

    kind: Literal["upstream"] = "upstream"
    name: str
    """Unique in the table: `<project>-<environment>-<service>`."""
    targets: tuple[Target, ...]
    backups: tuple[Target, ...] = ()
    """Asked only when no target accepts a connection: where a `Holder` waits while a service that may not overlap changes its release."""
    protocol: Literal["http", "https", "h2c"] = "http"
    release: str = ""
    """Told to the client as `X-Homeport-Release` only on probe requests."""
    sticky: bool = False
    timeout: Duration = timedelta(seconds=3600)
    """Longest silence of the application; WebSocket and SSE count."""
    connect_timeout: Duration = timedelta(seconds=5)
    tls_verify: bool = True
    """For `https`: whether the certificate must be valid for `host_header` (or the target's host)."""
    strip_prefix: str = ""
    rewrite: str = ""
    """Path passed on instead of the request's; `$name` and `$1` are captures of the route's `regex`, `$$` is a dollar."""
    host_header: str = ""


class Files(Frozen):
    """Serve files of a static artifact."""

    kind: Literal["files"] = "files"
    root: Path
    clean_urls: bool = False
    trailing_slash: bool | None = None
    single_page: bool = False
    not_found: str = ""
    fallback: Upstream | None = None
    """Where requests go that match no file."""
    strip_prefix: str = ""
    """Taken off the request's path before the file is looked up under `root`."""


class RedirectTo(Frozen):
    """Answer with a redirect."""

    kind: Literal["redirect"] = "redirect"
    to: str
    """Path or URL; `$name` and `$1` are captures of the route's `regex`, `$$` is a dollar. The query is kept unless `to` has one."""
    status: int = 308


class Answer(Frozen):
    """Answer at the edge with a fixed text."""

    kind: Literal["answer"] = "answer"
    status: int
    body: str = ""
    content_type: str = "text/html; charset=utf-8"
    cacheable: bool = False
    """Platform pages are `no-store`."""


EdgeAction = Annotated[Upstream | Files | RedirectTo | Answer, Field(discriminator="kind")]


class EdgeRoute(Frozen):
    """One rule; first match wins."""

    path: str = "/"
    """`prefix` matches whole segments: `/api` is `/api` and `/api/…`, not `/apis`. `regex` is searched in the decoded, normalised path."""
    syntax: Literal["prefix", "exact", "regex"] = "prefix"
    methods: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    action: EdgeAction
    response_headers: dict[str, str] = {}
    remove_headers: tuple[str, ...] = ()


class Site(Frozen):
    """The routes of one or more host names."""

    name: str
    """Unique: `<project>-<environment>-<service>`."""
    hosts: tuple[str, ...]
    routes: tuple[EdgeRoute, ...]
    allow: tuple[str, ...] | None = None
    """CIDRs that may come in; None means all."""
    max_body: int = 0
    """Bytes; 0 means no limit."""


class Forward(Frozen):
    """A TCP port on a loopback address passed on to instances: how private services are reached."""

    name: str
    host: str
    port: int
    targets: tuple[Target, ...]


class RouteTable(Frozen):
    """Everything the edge does. Equal tables give equal configurations."""

    sites: tuple[Site, ...] = ()
    forwards: tuple[Forward, ...] = ()
    port: int = 8080
    address: str = "127.0.0.1"
    body_timeout: Duration = timedelta(seconds=60)
    drain: Duration = timedelta(seconds=30)
    """How long old connections may live after a change (`worker_shutdown_timeout`)."""


class EdgeStatus(Frozen):
    """What the edge serves now."""

    running: bool
    generation: int = 0
    pid: int = 0
    port: int = 0
    workers: int = 0


class Edge(Protocol):
    """Routes the public's requests. Keeps serving while the control plane is down."""

    def apply(self, table: RouteTable) -> int:
        """Serve this table and return its generation, proven by a probe. Equal to the current table: nothing happens.

        Starts the edge when it does not run. On any failure the last good table is still served.
        Raises EdgeRefused (bad table), EdgeUnavailable (port taken, cannot start), EdgeUnconfirmed.
        """

    def status(self) -> EdgeStatus: ...

    def table(self) -> RouteTable | None:
        """The table that is served, read back from disk."""

    def in_flight(self, target: Target) -> int:
        """Connections between edge and instance that are open right now."""

    def drain(self, target: Target, deadline: timedelta) -> int:
        """Wait until the edge can send this instance nothing more, or the deadline passes; return how many connections are left.

        Call it after an `apply` without the target, and stop the instance only then. Takes up to 10 s while clients keep idle
        connections to the old routes; with `backups` only what is in flight is waited for.
        """

    def still(self, wanted: Collection[Target]) -> AbstractContextManager[None]:
        """Inside, requests on old connections wait that would go to these instances. For the moment in which they stop listening."""

    def stop(self) -> None:
        """Stop serving. Already stopped is success."""


class Answered(Protocol):
    """What a request to a candidate got."""

    @property
    def ok(self) -> bool: ...

    @property
    def status(self) -> int: ...

    @property
    def reason(self) -> str: ...


class ProvingEdge(Edge, Protocol):
    """An edge that can show a release to Homeport before it shows it to anybody else, and that can be brought back."""

    def ensure_running(self) -> EdgeStatus:
        """Bring the edge back on its last good table. Nothing to serve: nothing starts. Raises EdgeUnavailable."""

    def rotate(self) -> None:
        """Begin new log files; the older ones are bounded in number."""

    def token(self) -> str:
        """The secret that lets a probe be told which release answered."""

    def check(self, target: Target, *, host: str, path: str = "/", timeout: timedelta = timedelta(seconds=5)) -> Answered:
        """One GET to an instance through the edge, before any site shows it."""
