"""The plan: what a deploy will do, decided before anything is done."""

from __future__ import annotations

from typing import Literal

from homeport.model.base import Frozen


class Difference(Frozen):
    """One thing that is not as in the live release. Values of variables never appear."""

    kind: Literal["add", "remove", "change"]
    section: Literal["service", "env", "route", "addon", "scale", "command", "build", "health", "disk", "schedule", "group", "setting"]
    name: str
    """`web`, `web.DATABASE_URL`, …"""
    before: str = ""
    after: str = ""
    reason: str = ""
    destructive: bool = False
    """Needs confirmation: data or configuration would no longer be there."""


class ServicePlan(Frozen):
    """What happens to one service."""

    service: str
    kind: str
    action: Literal["start", "replace", "keep", "stop", "serve", "schedule", "skip"]
    instances: int = 0
    strategy: Literal["", "overlap", "hold"] = ""
    reason: str = ""


class Plan(Frozen):
    """Ordered and fully decided: the steps of the workflow make no choices."""

    project: str
    environment: str
    live: str = ""
    """Release that serves now; empty when none does."""
    services: tuple[ServicePlan, ...] = ()
    differences: tuple[Difference, ...] = ()
    warnings: tuple[str, ...] = ()
    provided: dict[str, tuple[str, ...]] = {}
    """By service, the names of variables that it gets because the platform its file is for gives them."""
    refusals: tuple[str, ...] = ()
    """Why this cannot be deployed here, one sentence each."""

    @property
    def destructive(self) -> tuple[Difference, ...]:
        return tuple(d for d in self.differences if d.destructive)
