"""What a caller asks of a deploy."""

from __future__ import annotations

from homeport.model.base import Frozen


class DeployRequest(Frozen):
    """A deploy of new source, or (with `release`) of a recorded release. Journaled, so it holds no secret."""

    id: str
    project: str
    environment: str = "production"
    folder: str = ""
    """Folder of the work tree."""
    repository: str = ""
    """Git address, instead of a folder."""
    reference: str = ""
    """Branch, tag or commit."""
    prefer: str = ""
    """File or dialect to read when there are several."""
    profiles: tuple[str, ...] = ()
    release: int = 0
    """Number of a recorded release to put live: a rollback."""
    data_from: str = ""
    """Environment whose data a new one's databases begin with, masked."""
    workers: bool = False
    """Run workers beside such data."""
    crons: bool = False
    """Run scheduled jobs beside such data."""
    confirmed: bool = False
    """The caller accepts what the plan takes away."""
    strict: bool = False
    """Keys that nobody knows are a fault."""
    actor: str = ""
    reason: str = ""
    automatic: bool = False
    """Homeport itself asked: it is not watched again."""
