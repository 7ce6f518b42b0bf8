"""How taking a source can end badly."""

from __future__ import annotations

from homeport.model.errors import HomeportError


class SourceUnavailable(HomeportError):
    """The folder, repository or reference is not there, or cannot be read."""

    code = "source-unavailable"

    def __init__(self, *, source: str, why: str, fix: str) -> None:
        super().__init__(what=f"The source {source} was not taken; nothing was changed.", why=why, fix=fix)


class SourceRefused(HomeportError):
    """The tree holds something that is not safe to build, or is over a limit."""

    code = "source-refused"

    def __init__(self, *, source: str, why: str, fix: str) -> None:
        super().__init__(what=f"The source {source} was refused; nothing was changed.", why=why, fix=fix)
