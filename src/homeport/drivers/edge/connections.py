"""Open TCP connections of given processes, and whose they are, from `/proc`."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

ESTABLISHED = "01"


def _spelled(host: str, port: int) -> set[str]:
    """An address as `/proc/net/tcp` and `tcp6` write it: 32-bit words in the machine's byte order."""
    parsed = ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    four = parsed if isinstance(parsed, IPv4Address) else parsed.ipv4_mapped
    six = parsed if isinstance(parsed, IPv6Address) else IPv6Address(b"\0" * 10 + b"\xff\xff" + parsed.packed)
    forms = {"".join(f"{word:08X}" for word in struct.unpack("=4I", six.packed)) + f":{port:04X}"}
    if four is not None:
        forms.add(f"{struct.unpack('=I', four.packed)[0]:08X}:{port:04X}")
    return forms


def established(pids: Iterable[int], host: str, port: int) -> int:
    """How many established connections these processes have to this address. A name is looked up first; unknown names count as none."""
    try:
        forms = _spelled(host, port)
    except ValueError:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            return 0
        forms = set().union(*(_spelled(str(entry[4][0]), port) for entry in found))
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:  # noqa: PTH123
                for row in file:
                    fields = row.split(maxsplit=10)
                    if len(fields) > 9 and fields[3] == ESTABLISHED and fields[2] in forms:
                        inodes.add(fields[9])
        except OSError:
            continue
    return sum(len(inodes & _sockets(pid)) for pid in pids) if inodes else 0


def account_at(host: str, port: int) -> str:
    """The account whose process holds this end of a connection, as the kernel knows it: its name, or its number where it has none.

    Empty for an address that is not of this machine.
    """
    try:
        forms = _spelled(host, port)
    except ValueError:
        return ""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:  # noqa: PTH123
                uid = next((fields[7] for fields in map(str.split, file) if len(fields) > 9 and fields[1] in forms), "")
        except OSError:
            continue
        if uid:
            try:
                return pwd.getpwuid(int(uid)).pw_name
            except KeyError:
                return f"uid {uid}"
    return ""


def _sockets(pid: int) -> set[str]:
    found: set[str] = set()
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                try:
                    link = os.readlink(entry.path)  # noqa: PTH115
                except OSError:
                    continue
                if link.startswith("socket:["):
                    found.add(link[8:-1])
    except OSError:
        pass
    return found
