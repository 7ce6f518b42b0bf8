"""A home that other accounts can reach.

As root, builds and instances run as accounts of their own, which must be able to walk to the home's folders. A home below a private
folder (`/root`, a temporary folder) is therefore also mounted at `/run/homeport/<digest>`, and used by that name. Nothing about the
private folder changes.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
from pathlib import Path

from homeport.model.errors import HomeportError

ALIASES = Path("/run/homeport")
_MS_BIND = 4096
_MNT_DETACH = 2


class HomeUnreachable(HomeportError):
    """Other accounts cannot walk to the home, and it cannot be mounted elsewhere."""

    code = "home-unreachable"


def reachable(home: Path) -> Path:
    """The home by a name that every account can use: its own when it can, else a bind mount. Twice is once.

    Raises HomeUnreachable.
    """
    home = home.resolve()
    if os.geteuid() != 0 or all(folder.stat().st_mode & 0o001 for folder in home.parents if folder.exists()):
        return home
    home.mkdir(parents=True, exist_ok=True, mode=0o711)
    alias = ALIASES / hashlib.sha256(str(home).encode()).hexdigest()[:12]
    alias.mkdir(parents=True, exist_ok=True, mode=0o711)
    _sweep()
    if not _same(home, alias) and _libc().mount(str(home).encode(), str(alias).encode(), None, _MS_BIND, None) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise HomeUnreachable(
            what="The control plane did not start; applications that run keep running.",
            why=f"The accounts that applications run as cannot walk to {home}, and mounting it elsewhere failed: {reason}.",
            fix="Set HOMEPORT_HOME to a folder such as /var/lib/homeport, or `chmod o+x` the folders above it.",
        )
    return alias


def forget(home: Path) -> None:
    """Take the second name away. Without one nothing happens."""
    if home.parent == ALIASES and os.geteuid() == 0:
        # Asked of the kernel: on one file system `Path.is_mount` does not see a bind mount.
        while any(line.split()[4] == str(home) for line in Path("/proc/self/mountinfo").read_text().splitlines()):
            if _libc().umount2(str(home).encode(), _MNT_DETACH) != 0:
                return
        with contextlib.suppress(OSError):
            home.rmdir()


def _same(home: Path, alias: Path) -> bool:
    return os.path.samestat(home.stat(), alias.stat())


def _sweep() -> None:
    """Unmount second names of homes that were removed."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4].startswith(f"{ALIASES}/") and fields[3].endswith("//deleted"):
            _libc().umount2(fields[4].encode(), _MNT_DETACH)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
