"""Which source a request means."""

from __future__ import annotations

from pathlib import Path

from homeport.deploys.request import DeployRequest
from homeport.drivers.sources.base import Source
from homeport.drivers.sources.local import LocalSource
from homeport.drivers.sources.remote import GitSource


def source_for(request: DeployRequest, home: Path) -> Source:
    """The source a deploy takes its files from."""
    if request.repository:
        return GitSource(request.repository, home / "sources")
    return LocalSource(Path(request.folder), home / "sources")
