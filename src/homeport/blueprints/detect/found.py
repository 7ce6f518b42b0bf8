"""What detection finds in one folder."""

from __future__ import annotations

from dataclasses import dataclass

from homeport.model.service import Service


@dataclass(frozen=True)
class Found:
    """A service without its place, and what was assumed about it."""

    service: Service
    notes: tuple[str, ...] = ()
