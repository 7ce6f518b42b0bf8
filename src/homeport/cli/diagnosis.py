"""What `homeport doctor` looks at."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
from dataclasses import dataclass

from homeport.cli.client import home


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    check: str
    verdict: str
    """`good`, `fair` (works with less) or `bad`."""
    found: str
    follows: str = ""


def diagnose() -> list[Finding]:
    """Look at the machine. Changes nothing."""
    return [_python(), _sqlite(), _account(), _runtime(), _edge(), _disk(), *_tools()]


def _python() -> Finding:
    return Finding("python", "good", platform.python_version())


def _sqlite() -> Finding:
    found = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < (3, 51, 3):
        follows = "before 3.51.3 a rare WAL fault is known; HOMEPORT_DATABASE_URL can name a PostgreSQL"
        return Finding("sqlite", "fair", found, follows)
    return Finding("sqlite", "good", found)


def _account() -> Finding:
    if os.geteuid() == 0:
        return Finding("account", "good", "root", "every environment gets an account of its own")
    return Finding("account", "fair", f"uid {os.geteuid()}", "applications run as this account and can read each other's files")


def _runtime() -> Finding:
    from homeport.drivers.runtimes.process import ProcessRuntime

    runtime = ProcessRuntime(home())
    try:
        lacking = runtime.capabilities.reasons
    finally:
        runtime.close()
    text = "; ".join(f"{name}: {why}" for name, why in lacking.items())
    return Finding("processes", "good" if set(lacking) <= {"images"} else "fair", "ready", text)


def _edge() -> Finding:
    from homeport.drivers.edge.program import Nginx

    try:
        nginx = Nginx(home(), nginx=os.environ.get("HOMEPORT_NGINX", ""), user="")
    except Exception as error:  # noqa: BLE001 - a diagnosis reports whatever it meets
        return Finding("edge", "bad", str(error).splitlines()[0], "nothing can be served")
    return Finding("edge", "good", f"nginx {getattr(nginx, 'version', '')}".strip())


def _disk() -> Finding:
    folder = home()
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    free = usage.free / 2**30
    return Finding(
        "disk", "good" if free > 5 else "fair" if free > 1 else "bad", f"{free:.1f} GiB free", "" if free > 1 else "builds are refused"
    )


def _tools() -> list[Finding]:
    wanted = {
        "git": ("bad", "sources are taken with git"),
        "node": ("good", "installed from the package registry when a project needs it"),
        "docker": ("fair", "services that run images need a container engine"),
    }
    found = []
    for name, (verdict, follows) in wanted.items():
        path = shutil.which(name)
        found.append(Finding(name, "good" if path else verdict, path or "not there", "" if path else follows))
    return found
