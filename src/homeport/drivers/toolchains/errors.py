"""How a toolchain can be missing."""

from __future__ import annotations

from homeport.model.errors import HomeportError


class ToolchainUnavailable(HomeportError):
    """A language or engine is neither on the machine nor installable."""

    code = "toolchain-unavailable"

    def __init__(self, *, name: str, why: str, fix: str = "", tail: tuple[str, ...] = ()) -> None:
        super().__init__(
            what=f"{name} is not there and could not be installed; nothing was changed.",
            why=why,
            fix=fix or "Check that the machine reaches the package registries, or install it with the system's package manager.",
            tail=tail,
        )
