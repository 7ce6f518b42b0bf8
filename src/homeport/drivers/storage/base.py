"""The Protocol of a place that keeps backups, and what every such place can fail with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from pydantic import Field

from homeport.model.base import Frozen, Name
from homeport.model.errors import HomeportError

KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*(/[A-Za-z0-9_][A-Za-z0-9_.@+-]*)*")


class Target(Frozen):
    """Where backups go."""

    name: Name
    kind: Literal["folder", "rclone"]
    address: str = Field(min_length=1, max_length=2000)
    """A folder of this machine, or `remote:path` as rclone names it."""
    config: str = Field(default="", repr=False, max_length=64_000)
    """For `rclone`: the text of its configuration file, which holds the remote's credentials."""


class StorageFailed(HomeportError):
    """A target did not take or give what it was asked for."""

    code = "backup-target-failed"

    def __init__(self, *, target: str, why: str, what: str = "", fix: str = "") -> None:
        self.target = target
        super().__init__(
            what=what or "The copy was not completed; what runs was not touched.",
            why=f"The target {target}: {why}",
            fix=fix or "See that the target is there, has room and lets Homeport in: `homeport backup targets`. It is tried again.",
        )


class ObjectMissing(StorageFailed):
    """The target has no such object."""


class Storage(Protocol):
    """Keeps objects by key. Every method may be called twice: after a crash, it will be."""

    kind: ClassVar[str]
    name: str

    def put(self, key: str, source: Path) -> None:
        """Keep a file's content under a key: whole and durable when this returns, or not at all. Raises StorageFailed.

        The file may be the object from now on: it is only to be removed, not written to.
        """

    def fetch(self, key: str, target: Path) -> None:
        """Write an object's content to a new file, which is only to be read and removed. Raises ObjectMissing, StorageFailed."""

    def list(self, prefix: str = "") -> Mapping[str, int]:
        """Keys below a folder (`prefix` without the last slash; empty: all) with their sizes in bytes. Raises StorageFailed."""

    def remove(self, key: str) -> None:
        """Forget an object. Already gone is success. Raises StorageFailed."""


def check_key(key: str) -> str:
    """The key, when it is one: relative, of plain characters, no part beginning with a dot or a dash. Raises ValueError."""
    if not KEY.fullmatch(key) or len(key) > 900:
        raise ValueError(f"{key!r} is not a key")
    return key
