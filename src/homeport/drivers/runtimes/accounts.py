"""Which account each environment's instances run as, where Homeport is root."""

from __future__ import annotations

from collections.abc import Mapping

from homeport.model.errors import HomeportError

FIRST, LAST = 20_000, 29_999
"""Range of uids (and equal gids) given out. No entry in /etc/passwd is needed; 20000-29999 is free on Debian and Red Hat by default."""


class AccountsExhausted(HomeportError):
    """There is no free uid for another environment."""

    code = "accounts-exhausted"


def allocate(existing: Mapping[str, int], key: str, *, first: int = FIRST, last: int = LAST) -> int:
    """The uid of `key` (`<project>-<environment>`): the one it has, else the lowest that is free.

    Pure: the caller records the result together with what it is for. A uid is given again only when its key has been removed
    from `existing`, which must happen after its files are gone. Raises AccountsExhausted.
    """
    if key in existing:
        return existing[key]
    taken = set(existing.values())
    for uid in range(first, last + 1):
        if uid not in taken:
            return uid
    raise AccountsExhausted(
        what=f"{key} was not set up; everything else runs on.",
        why=f"All {last - first + 1} accounts from {first} to {last} belong to other environments.",
        fix="Destroy environments that are no longer needed.",
    )
