"""Loopback addresses and ports for instances."""

from __future__ import annotations

import socket
from collections.abc import Collection
from pathlib import Path

from homeport.model.errors import HomeportError

HOST = "127.0.0.1"
FIRST, LAST = 20_000, 32_767
"""Ports given out. Linux takes outgoing ports from 32768 on by default; one of those may be in use when an instance wants to bind."""


class PortsExhausted(HomeportError):
    """There is no free port for another instance."""

    code = "ports-exhausted"


def free_port(taken: Collection[int], *, host: str = HOST, after: int = 0, first: int = FIRST, last: int = LAST) -> int:
    """A port nobody listens on that is not in `taken` (the caller remembers what it has given out, started or not).

    The search begins behind `after`, so that a port just given up is not given out again at once: late packets and clients
    of the old instance then find nobody instead of a stranger. Ports from which the kernel takes outgoing connections are left out.
    Raises PortsExhausted.
    """
    low, high = ephemeral()
    count = last - first + 1
    begin = after + 1 if first <= after < last else first
    for step in range(count):
        port = first + (begin - first + step) % count
        if port not in taken and not low <= port <= high and is_free(host, port):
            return port
    raise PortsExhausted(
        what="The instance was not started; what ran before still runs.",
        why=f"No port from {first} to {last} is free on {host}.",
        fix="Stop instances that are no longer needed, or whatever else listens on these ports.",
    )


def is_free(host: str, port: int) -> bool:
    """Whether a program could listen there now: nobody does, on this address or on all of them."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as test:
        test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: connections that are closing do not count
        try:
            test.bind((host, port))
        except OSError:
            return False
    return True


def ephemeral() -> tuple[int, int]:
    """The range from which the kernel takes ports for outgoing connections (ip(7), ip_local_port_range)."""
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except (OSError, ValueError):
        return 32_768, 60_999
    return int(low), int(high)
