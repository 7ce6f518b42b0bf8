"""Accounts and ports given to instances."""

from __future__ import annotations

import contextlib
import random
import socket

import pytest

from homeport.drivers.runtimes.accounts import AccountsExhausted, allocate
from homeport.drivers.runtimes.addresses import FIRST, LAST, PortsExhausted, ephemeral, free_port, is_free


def test_an_environment_keeps_its_account() -> None:
    """What has a uid gets the same again; what has none gets the lowest free one."""
    existing = {"shop-production": 20_000, "shop-staging": 20_002}
    assert allocate(existing, "shop-staging") == 20_002
    assert allocate(existing, "blog-production") == 20_001
    assert existing == {"shop-production": 20_000, "shop-staging": 20_002}


def test_too_many_environments_are_refused() -> None:
    """When the range is used up, the error says so."""
    with pytest.raises(AccountsExhausted):
        allocate({"a-b": 1, "c-d": 2}, "e-f", first=1, last=2)


def test_a_port_in_use_is_not_given_out() -> None:
    """Neither a port somebody listens on, on this address or all, nor one already given out."""
    for address in ("127.0.0.1", "0.0.0.0"):
        with listener(address) as server:
            port = int(server.getsockname()[1])
            assert not is_free("127.0.0.1", port)
            assert free_port(set(), after=port - 1) != port
    assert free_port({port}, after=port - 1) != port


def listener(address: str) -> socket.socket:
    """One on a port that Homeport gives out. Other programs of the machine choose from these ports too: one that was free may be taken."""
    for _ in range(50):
        with contextlib.suppress(OSError):
            return socket.create_server((address, free_port(set(), after=random.randint(FIRST, LAST - 500))))
    raise AssertionError("no port could be listened on")


def test_a_port_just_given_up_is_not_given_out_next() -> None:
    """The search begins behind the last one."""
    first = free_port(set())
    assert free_port(set(), after=first) > first


def test_outgoing_ports_are_left_alone() -> None:
    """Ports from which the kernel takes outgoing connections are never given out."""
    low, high = ephemeral()
    with pytest.raises(PortsExhausted):
        free_port(set(), first=low, last=min(high, low + 20))
