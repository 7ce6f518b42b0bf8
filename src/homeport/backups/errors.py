"""How the room can fail. Each says first that what runs was not touched."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from homeport.model.errors import HomeportError


class BackupMissing(HomeportError):
    """There is no backup that answers the question."""

    code = "backup-missing"

    def __init__(self, why: str, fix: str = "", *, what: str = "Nothing was restored; what runs was not touched.") -> None:
        super().__init__(what=what, why=why, fix=fix or "See what there is with `homeport backup list`.")


class TimeUnreachable(HomeportError):
    """The backups do not reach the moment that was asked for."""

    code = "time-unreachable"

    def __init__(self, *, why: str, earliest: datetime | None = None, latest: datetime | None = None, fix: str = "") -> None:
        self.earliest, self.latest = earliest, latest
        if fix:
            pass
        elif latest is not None:
            fix = f"The latest possible time is {stamp(latest)}; `--to latest` takes all there is."
        elif earliest is not None:
            fix = f"The earliest possible time is {stamp(earliest)}."
        else:
            fix = "See what there is with `homeport backup list`."
        super().__init__(what="Nothing was restored; what runs was not touched.", why=why, fix=fix)


class WalBroken(HomeportError):
    """The archive between a base backup and the moment asked for is not whole."""

    code = "wal-broken"

    def __init__(self, why: str, *, latest: datetime | None = None) -> None:
        before = f"The latest possible time before the gap is {stamp(latest)}" if latest else "Restore to a time before the gap"
        super().__init__(
            what="Nothing was restored; what runs was not touched.",
            why=why,
            fix=f"{before}; what is written from now on is safe again after `homeport backup now`.",
        )


class NotProven(HomeportError):
    """A restored copy is not what was backed up."""

    code = "backup-not-proven"

    def __init__(self, *, backup: str, why: str, tail: Sequence[str] = ()) -> None:
        super().__init__(
            what=f"The copy restored from {backup} was thrown away; what runs was not touched.",
            why=why,
            fix="Restore from another backup, and take a new one with `homeport backup now`.",
            tail=tail,
        )


class NoRoom(HomeportError):
    """The disk has too little space for what was asked."""

    code = "backup-no-room"

    def __init__(self, *, needed: int, free: int, reserve: int = 0, what: str = "") -> None:
        kept = f" and leaves a reserve of {reserve / 2**20:,.0f} MiB" if reserve else ""
        lower = ", or lower the reserve for now: `homeport backup schedule --reserve SIZE`" if needed < free else ""
        super().__init__(
            what=what or "Nothing was begun; what runs was not touched.",
            why=f"It needs about {needed / 2**20:,.0f} MiB{kept}, and {free / 2**20:,.0f} MiB are free.",
            fix=f"Make room on the disk (`homeport disk` shows what takes it){lower}.",
        )


class BudgetSpent(HomeportError):
    """The data of a project takes as much as it may."""

    code = "disk-budget-spent"

    def __init__(self, *, project: str, used: int, budget: int, needed: int = 0, what: str = "") -> None:
        more = f", and this needs about {needed / 2**20:,.0f} MiB more" if needed else ""
        super().__init__(
            what=what or "Nothing was begun; what runs was not touched.",
            why=f"The data of {project} takes {used / 2**20:,.0f} MiB of a budget of {budget / 2**20:,.0f} MiB{more}.",
            fix="Destroy an environment of it that is not needed, or raise the budget: `homeport backup schedule --budget SIZE`.",
        )


class RecoveryRefused(HomeportError):
    """A home cannot be brought back here."""

    code = "recovery-refused"

    def __init__(self, *, why: str, fix: str) -> None:
        super().__init__(what="Nothing was changed on this machine.", why=why, fix=fix)


class MachineLost(HomeportError):
    """A deploy was under way when its machine was lost."""

    code = "machine-lost"

    def __init__(self) -> None:
        super().__init__(
            what="The deploy was given up; the release before it serves.",
            why="The machine it ran on was lost, and its home was recovered here.",
            fix="Deploy again.",
        )


class ForkRefused(HomeportError):
    """An environment cannot be forked like this."""

    code = "fork-refused"

    def __init__(self, *, why: str, fix: str) -> None:
        super().__init__(what="Nothing was made; what runs was not touched.", why=why, fix=fix)


def stamp(at: datetime) -> str:
    """A moment as `restore --to` takes it."""
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")
