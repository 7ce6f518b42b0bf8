"""Requests to addresses that a person or a file named: the name is resolved once, the address is judged, and that address is called.

So a name that resolves to something else a moment later (DNS rebinding) leads nowhere, nothing follows a redirect, and what is meant for
this machine alone (loopback, link-local metadata services, private networks) is only reached where an operator said so.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]

LIMIT = 1 << 20
"""Bytes of an answer that are read at most."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_METADATA = frozenset(
    {ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200"), ipaddress.ip_address("168.63.129.16")}
)
_PRIVATE = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7", "::1/128", "100.64.0.0/10"))
)


class AddressRefusedError(ValueError):
    """The address must not be called. The text says why, without the address's own secrets."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


def permitted(address: str, *, private: bool) -> bool:
    """Whether an IP address may be called; what is embedded in IPv6 forms (mapped, NAT64, 6to4, Teredo) is judged as IPv4."""
    ip = _inner(ipaddress.ip_address(address))
    if ip in _METADATA or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return False
    if any(ip.version == net.version and ip in net for net in _PRIVATE):
        return private
    return ip.is_global and not ip.is_reserved


def _inner(ip: Address) -> Address:
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)


def resolve(host: str, port: int) -> list[str]:
    """Every address of a name. Raises OSError."""
    return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


class Outgoing:
    """Calls HTTP servers by pinned addresses."""

    def __init__(self, *, private: bool = False, seconds: float = 10.0, context: ssl.SSLContext | None = None, resolve: Resolve = resolve):
        """`private` lets loopback and private networks be called, and `http:`; `seconds` bounds one request as a whole."""
        self.private, self.seconds, self.context, self.resolve = private, seconds, context, resolve

    def request(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
        """One request. Raises AddressRefusedError; OSError and http.client.HTTPException when nobody answers well."""
        host, port, secure, target = self._parts(url)
        address = self._address(host, port)
        until = time.monotonic() + self.seconds
        connection = _Pinned(host, port, address, self.seconds, (self.context or ssl.create_default_context()) if secure else None)
        try:
            connection.request(method, target, body, {**(headers or {}), "Connection": "close"})
            answer = connection.getresponse()
            if 300 <= answer.status < 400:
                raise AddressRefusedError("it redirects, and redirects are not followed")
            parts, size = [], 0
            while chunk := answer.read1(64 * 1024):
                size += len(chunk)
                if size > LIMIT:
                    raise AddressRefusedError(f"its answer is larger than {LIMIT >> 20} MiB")
                if time.monotonic() > until:
                    raise TimeoutError("the answer took too long")
                parts.append(chunk)
            return Answer(answer.status, b"".join(parts))
        finally:
            connection.close()

    def _parts(self, url: str) -> tuple[str, int, bool, str]:
        try:
            split = urlsplit(url)
            host, port = split.hostname or "", split.port
        except ValueError as error:
            raise AddressRefusedError("it is not a web address") from error
        if split.scheme not in ("https", "http") or (split.scheme == "http" and not self.private):
            raise AddressRefusedError("its scheme must be https")
        if split.username is not None or split.password is not None or "%" in host or not host or any(c <= " " or c == "\x7f" for c in url):
            raise AddressRefusedError("it must be a host and a path, without a user, a zone or spaces")
        secure = split.scheme == "https"
        target = (split.path or "/") + (f"?{split.query}" if split.query else "")
        return host, port or (443 if secure else 80), secure, target

    def _address(self, host: str, port: int) -> str:
        found = self.resolve(host, port)
        if not found or not all(permitted(address, private=self.private) for address in found):
            raise AddressRefusedError("its name leads to an address inside this machine or network, or to none")
        return found[0]


class _Pinned(http.client.HTTPConnection):
    """A connection to one address under another name; TLS checks the name."""

    def __init__(self, host: str, port: int, address: str, seconds: float, context: ssl.SSLContext | None) -> None:
        super().__init__(host, port, timeout=seconds)
        self._address, self._context = address, context
        self.default_port = 443 if context is not None else 80

    def connect(self) -> None:
        raw = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._context.wrap_socket(raw, server_hostname=self.host) if self._context is not None else raw
