"""The Protocol of a builder."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from homeport.model.base import Duration, Frozen, Size
from homeport.model.release import Artifact
from homeport.model.service import Service


class BuildLimits(Frozen):
    """What one build may use. Enforced by cgroup as root, by rlimits and niceness otherwise."""

    cpu: float | None = None
    memory: Size | None = None
    time: Duration
    """Wall time; the build is killed after it. Default 15 min."""


class BuildRequest(Frozen):
    """One service of one revision."""

    project: str
    environment: str
    service: str
    definition: Service
    source: Path
    """Folder of the fetched source; never written to."""
    source_digest: str
    env: dict[str, str] = {}
    """Variables the file gives the build. Secrets come only when the build asks for them by name."""
    provided: dict[str, str] = {}
    """Variables that the platform the file is for gives builds; those of `env` win. Installs that are shared do not get them."""
    revision: dict[str, str] = {}
    """The same about the revision (its commit, its branch): another commit with the same files is not another build."""
    user: int | None = None
    """uid the build runs as, when Homeport is root."""
    limits: BuildLimits


Log = Callable[[str], None]
"""Receives one line of output, already without its line end."""


class Builder(Protocol):
    """Turns source into artifacts."""

    def key(self, request: BuildRequest) -> str:
        """sha256 over every input: the filtered source, build settings, toolchain versions. Fast (no build)."""

    def build(self, request: BuildRequest, log: Log, cancelled: Callable[[], bool]) -> Artifact:
        """The artifact of `key(request)`: from the cache when complete, else built. Safe to call twice and at once.

        Raises BuildFailed (with the last lines), BuildTimedOut, BuildCancelled, DiskLow, UnknownLanguage.
        """

    def prune(self, keep: Collection[str], young: timedelta) -> list[str]:
        """Remove what no artifact of `keep` (ids) needs and nobody used within `young`; returns what was removed."""

    def end_strays(self) -> None:
        """End every process of builds, those that a killed control plane left running too. Call it when no build is wanted."""
