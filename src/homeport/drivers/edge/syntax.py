"""nginx's configuration as a typed tree: written by one emitter, read back by one parser, compared before it is used.

Text of users reaches the file only as a quoted leaf token. Quoting rules are those of `ngx_conf_read_token`:
inside double quotes a backslash escapes `"` and `\\`, and `\\n`, `\\t`, `\\r` are read as control characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from homeport.drivers.edge.base import EdgeRefused

LONGEST_TOKEN = 3500
"""Bytes of one written token; nginx refuses tokens that do not fit its 4096-byte buffer."""
LARGEST_CONFIG = 16 * 1024 * 1024
"""Bytes of one configuration."""

DOLLAR = "${homeport_dollar}"
"""A variable that holds `$`: nginx has no escape for it where variables are expanded."""

_DIRECTIVES = """
absolute_redirect access_log add_header client_body_temp_path client_body_timeout client_header_timeout client_max_body_size daemon
default_type disable_symlinks error_log error_page events fastcgi_temp_path geo http if ignore_invalid_headers internal keepalive
keepalive_min_timeout keepalive_requests keepalive_timeout large_client_header_buffers listen location log_format map
map_hash_bucket_size merge_slashes more_clear_headers more_clear_input_headers more_set_headers pid proxy_buffer_size
proxy_buffering proxy_buffers proxy_busy_buffers_size proxy_connect_timeout proxy_hide_header proxy_http_version
proxy_ignore_headers proxy_next_upstream proxy_next_upstream_timeout proxy_next_upstream_tries proxy_pass proxy_read_timeout
proxy_request_buffering proxy_send_timeout proxy_set_header proxy_socket_keepalive proxy_ssl_name proxy_ssl_server_name
proxy_ssl_trusted_certificate proxy_ssl_verify proxy_temp_path proxy_timeout recursive_error_pages reset_timedout_connection
resolver resolver_timeout return rewrite root scgi_temp_path send_timeout sendfile server server_name server_names_hash_bucket_size
server_names_hash_max_size server_tokens set sticky stream tcp_nodelay tcp_nopush try_files types types_hash_bucket_size
types_hash_max_size underscores_in_headers uninitialized_variable_warn upstream user uwsgi_temp_path variables_hash_bucket_size
variables_hash_max_size worker_connections worker_processes worker_rlimit_nofile worker_shutdown_timeout zone
"""
ALLOWED = frozenset(_DIRECTIVES.split())
"""The only directives a generated configuration may hold: no `alias`, `include`, `ssi`, `load_module`, `perl_*` or `js_*`."""

DATA_BLOCKS = frozenset({"map", "geo", "types"})
"""Blocks whose entries are data, not directives."""

_BARE = re.compile(r"[A-Za-z0-9_./:@*+-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Directive:
    """One directive: a name, its arguments as nginx understands them after unquoting, and a block where it has one."""

    name: str
    args: tuple[str, ...] = ()
    block: tuple[Directive, ...] | None = None


def line(name: str, *args: str | int) -> Directive:
    """A directive that ends in `;`."""
    return Directive(name, tuple(str(arg) for arg in args))


def block(name: str, args: Sequence[str | int], inside: Sequence[Directive]) -> Directive:
    """A directive with a block."""
    return Directive(name, tuple(str(arg) for arg in args), tuple(inside))


def check(text: str, what: str, *, lines: bool = False) -> str:
    """Return a user's text when it can be a leaf.

    Raises EdgeRefused on control characters (newlines too, unless `lines`), lone surrogates, and text too long for a token.
    """
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:
        raise EdgeRefused.of(what, "it is not valid Unicode text") from None
    if _CONTROL.search(text.replace("\r\n", "\n") if lines else text) or (not lines and "\n" in text):
        raise EdgeRefused.of(what, "it holds a control character or a newline")
    if not lines and len(encoded) > LONGEST_TOKEN // 2:
        raise EdgeRefused.of(what, f"it is longer than {LONGEST_TOKEN // 2} bytes")
    return text


def plain(text: str) -> str:
    """A user's text for a place where nginx expands variables: every `$` becomes a variable that holds one."""
    return text.replace("$", DOLLAR)


def quote(token: str) -> str:
    """Write one token. Raises EdgeRefused on NUL and other control characters, and on tokens nginx could not hold."""
    if _BARE.fullmatch(token):
        return token
    if _CONTROL.search(token.replace("\r", "")):
        raise EdgeRefused.of("A token of the configuration", "it holds a control character")
    escaped = token.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    if len(escaped.encode("utf-8", "surrogatepass")) > LONGEST_TOKEN:
        raise EdgeRefused.of(f"The text {token[:40]!r}…", f"it is longer than {LONGEST_TOKEN} bytes once quoted")
    return f'"{escaped}"'


def emit(tree: Sequence[Directive]) -> str:
    """The configuration file of a tree. Raises EdgeRefused on a directive that is not allowed or a file that is too large."""
    lines: list[str] = []
    _emit(tree, 0, lines, data=False)
    text = "\n".join(lines) + "\n"
    if len(text) > LARGEST_CONFIG:
        raise EdgeRefused.of("The route table", f"its configuration is larger than {LARGEST_CONFIG} bytes")
    return text


def _emit(tree: Sequence[Directive], depth: int, lines: list[str], *, data: bool) -> None:
    indent = "  " * depth
    for directive in tree:
        if not data and directive.name not in ALLOWED:
            raise EdgeRefused.of(f"The directive {directive.name[:40]!r}", "it is not one Homeport writes")
        head = indent + " ".join(map(quote, (directive.name, *directive.args)))
        if directive.block is None:
            lines.append(head + ";")
            continue
        lines.append(head + " {")
        _emit(directive.block, depth + 1, lines, data=directive.name in DATA_BLOCKS)
        lines.append(indent + "}")


def parse(text: str) -> tuple[Directive, ...]:
    """Read a configuration file as nginx does. Raises ValueError where nginx would refuse it."""
    tokens = _tokens(text)
    tree = _block(tokens, depth=0)
    return tuple(tree)


def _block(tokens: Iterator[tuple[str, bool]], depth: int) -> list[Directive]:
    found: list[Directive] = []
    words: list[str] = []
    for word, quoted in tokens:
        if quoted or word not in (";", "{", "}"):
            words.append(word)
        elif word == "}":
            if words or depth == 0:
                raise ValueError("unexpected }")
            return found
        elif not words:
            raise ValueError(f"unexpected {word}")
        else:
            inside = tuple(_block(tokens, depth + 1)) if word == "{" else None
            found.append(Directive(words[0], tuple(words[1:]), inside))
            words = []
    if words or depth:
        raise ValueError("unexpected end of file")
    return found


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "'": "'", "\\": "\\"}
_TOKEN = re.compile(
    r"""[ \t\r\n]+ | \#[^\n]* | (?P<mark>[;{}])
        | "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>(?:[^'\\]|\\.)*)'
        | (?P<bare>(?:\$\{|\\.|[^ \t\r\n;{}"'\#\\])(?:\$\{|\\.|[^ \t\r\n;{\\])*)""",
    re.VERBOSE | re.DOTALL,
)


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    """Tokens and whether they are words (never punctuation)."""
    place, glued = 0, False
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ValueError(f"cannot read {text[place : place + 20]!r}")
        place = match.end()
        kind = match.lastgroup
        if kind is None:
            glued = False
        elif kind == "mark":
            glued = False
            yield match[kind], False
        else:
            if glued:
                raise ValueError(f"two words touch before {text[place : place + 20]!r}")
            glued = kind != "bare"
            yield re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), match[kind], flags=re.DOTALL), True


def verify(text: str, meant: Sequence[Directive]) -> None:
    """Prove that the file says what was meant. Raises EdgeRefused when reading it back gives another tree."""
    try:
        read = parse(text)
    except ValueError as error:
        raise EdgeRefused.of("The generated configuration", f"it does not read back: {error}") from error
    if read != tuple(meant):
        raise EdgeRefused.of("The generated configuration", "reading it back gives other directives than were meant")
