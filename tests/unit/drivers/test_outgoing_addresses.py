"""Requests to named addresses go to the address that was judged, and to none inside this machine or network."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from homeport.drivers.outgoing import LIMIT, AddressRefusedError, Outgoing, permitted

INSIDE = [
    "127.0.0.1", "127.8.9.10", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "169.254.169.254",
    "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "100.100.100.200",
    "168.63.129.16", "192.0.2.1", "198.18.0.1", "2001:db8::1",
]  # fmt: skip

NEVER = [
    "169.254.169.254",
    "0.0.0.0",
    "224.0.0.1",
    "::",
    "fe80::1",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
]


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_not_called(address: str) -> None:
    """Loopback, private, link-local, metadata and reserved addresses are refused, also inside IPv6 forms."""
    assert not permitted(address, private=False)


@pytest.mark.parametrize("address", NEVER)
def test_metadata_and_link_local_are_never_called(address: str) -> None:
    """What an operator may allow for a private network does not reach metadata services, link-local or unspecified addresses."""
    assert not permitted(address, private=True)


def test_the_public_and_an_allowed_private_network_are_called() -> None:
    """Public addresses are fine, private ones where they are allowed."""
    assert permitted("93.184.215.14", private=False) and permitted("2606:4700::1111", private=False)
    assert all(permitted(address, private=True) for address in ("127.0.0.1", "10.0.0.1", "::1", "fc00::1", "::ffff:10.0.0.1"))


@pytest.fixture
def visited() -> Iterator[tuple[int, list[bytes]]]:
    """A server on loopback that writes down whoever comes."""
    seen: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                seen.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1], seen
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "localhost.", "0x7f000001", "2130706433", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0",
        "user@127.0.0.1", "user:pass@127.0.0.1", "[fe80::1%25lo]", "127.0.0.1%2f", "",
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["https", "http", "file", "gopher", "ftp"])
def test_no_spelling_of_loopback_is_called(visited: tuple[int, list[bytes]], host: str, scheme: str) -> None:
    """However loopback is written, nobody arrives there; other schemes than https are refused."""
    port, seen = visited
    with pytest.raises((AddressRefusedError, OSError)):
        Outgoing(seconds=2).request("GET", f"{scheme}://{host}:{port}/")
    assert seen == []


def test_a_name_that_changes_its_address_is_judged_once_and_called_there(visited: tuple[int, list[bytes]]) -> None:
    """The address that was judged is the one that is called: a second look-up does not happen. Several addresses must all be fine."""
    port, seen = visited
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    calls: list[str] = []

    def resolve(host: str, _port: int) -> list[str]:
        calls.append(host)
        return next(answers)

    answer = Outgoing(private=True, resolve=resolve).request("GET", f"http://changing.example:{port}/x?y=1")
    assert (answer.status, answer.body, calls) == (200, b"ok", ["changing.example"])
    assert seen[0].startswith(b"GET /x?y=1 HTTP/1.1\r\nHost: changing.example:")
    mixed = Outgoing(resolve=lambda *_: ["93.184.215.14", "127.0.0.1"])
    with pytest.raises(AddressRefusedError):
        mixed.request("GET", f"https://mixed.example:{port}/")
    assert len(seen) == 1 and LIMIT == 1 << 20


@pytest.mark.parametrize("url", ["https://a b/", "https://a/\r\nX: y", "https://a:99999/", "https://[::1", "no address", "https://a/\x00"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """Spaces, line ends, wild ports and broken brackets are refused before anything is resolved."""
    with pytest.raises(AddressRefusedError):
        Outgoing(resolve=lambda *_: pytest.fail("resolved")).request("GET", url)
