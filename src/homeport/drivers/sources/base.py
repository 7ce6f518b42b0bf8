"""The Protocol of a source: a place that revisions are fetched from."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from homeport.model.release import Revision


class Source(Protocol):
    """Takes a revision into the store of sources."""

    def fetch(self, reference: str = "") -> tuple[Revision, Path]:
        """Take what the reference names (empty: the work tree, or the default branch) into `sources/<digest>`.

        Equal trees give the same folder. Links that leave the tree, device files and trees over the caps are refused.
        Raises SourceUnavailable, SourceRefused.
        """
