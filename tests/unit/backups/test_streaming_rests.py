"""What streaming costs a home without databases."""

from __future__ import annotations

from typing import cast

from homeport.backups.room import Policy, Room
from homeport.backups.streaming import SLOWEST, Streams
from homeport.drivers.addons.base import AddOnId


class Bare:
    """A room without databases, whose policy nobody needs."""

    def databases(self) -> list[AddOnId]:
        return []

    @property
    def policy(self) -> Policy:
        raise AssertionError("the policy was read")


def test_where_there_is_no_database_looks_are_rare_and_short() -> None:
    """A home without databases is looked at as rarely as allowed, and its policy is not read for it."""
    streams = Streams(cast("Room", Bare()))
    assert streams.look() == {} and streams.wanted() == {}
    assert streams.pace() == SLOWEST
