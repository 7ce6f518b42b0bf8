"""Requests over the edge's private socket: which generation answers, and instances that no site shows yet."""

from __future__ import annotations

import http.client
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from homeport.drivers.edge.base import Target
from homeport.drivers.edge.render import CONTROL_SOCKET

TOKEN_HEADER = "X-Homeport-Probe"  # noqa: S105 - the name of a header
RELEASE_HEADER = "X-Homeport-Release"
GENERATION_HEADER = "X-Homeport-Generation"
CANDIDATE_HEADER = "X-Homeport-Candidate"
LARGEST_ANSWER = 64 * 1024


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket of any path length: the folder is entered through its descriptor, because `sun_path` holds 108 bytes."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("homeport", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)


@dataclass(frozen=True)
class Checked:
    """What a request to a candidate got."""

    ok: bool
    status: int = 0
    """0: no answer came."""
    body: str = ""
    """The first 64 KiB."""
    reason: str = ""


def served_generation(home: Path, timeout: float = 2.0) -> tuple[int, int] | None:
    """Generation and worker pid that answer a new connection right now; None when nobody does."""
    connection = _UnixConnection(home / CONTROL_SOCKET, timeout)
    try:
        connection.request("GET", "/.homeport/generation")
        generation, pid = connection.getresponse().read(100).split()
        return int(generation), int(pid)
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def ask_candidate(home: Path, token: str, target: Target, *, host: str, path: str, timeout: float, headers: dict[str, str]) -> Checked:
    """One GET to an instance through the edge as the site's visitors would reach it, while they still get the old release."""
    connection = _UnixConnection(home / CONTROL_SOCKET, timeout)
    address = f"[{target.host}]" if ":" in target.host else "127.0.0.1" if target.host == "localhost" else target.host
    try:
        connection.request(
            "GET",
            path,
            headers={**headers, "Host": host, TOKEN_HEADER: token, CANDIDATE_HEADER: f"{address}:{target.port}", "Connection": "close"},
        )
        answer = connection.getresponse()
        return Checked(ok=True, status=answer.status, body=answer.read(LARGEST_ANSWER).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Checked(ok=False, reason=str(error) or type(error).__name__)
    finally:
        connection.close()
