"""How an add-on can fail. Each says what became of the data first."""

from __future__ import annotations

from collections.abc import Sequence

from homeport.model.errors import HomeportError


class AddOnFailed(HomeportError):
    """An add-on could not be set up, started or changed."""

    code = "addon-failed"

    def __init__(self, *, name: str, why: str, fix: str = "", what: str = "", tail: Sequence[str] = ()) -> None:
        super().__init__(
            what=what or f"The add-on {name} does not run as asked; its data was not touched.",
            why=why,
            fix=fix or f"Read `homeport addons logs {name}`.",
            tail=tail,
        )


class AddOnMissing(HomeportError):
    """There is no such add-on here."""

    code = "addon-missing"

    def __init__(self, slug: str) -> None:
        super().__init__(
            what=f"Nothing was done: there is no add-on {slug}.",
            why="It was never provisioned, or it has been destroyed.",
            fix="`homeport addons` lists what there is; a destroyed add-on can be taken back for 7 days.",
        )


class AddOnInUse(HomeportError):
    """Another server has the data folder; a second one is never started."""

    code = "addon-in-use"

    def __init__(self, slug: str, why: str = "") -> None:
        super().__init__(
            what=f"The server of {slug} was not started, so that its data stays whole.",
            why=why or "Another process still holds its data folder, and it cannot be ended from here.",
            fix="Find it with `lsof` on the folder's lock file; it may run in another container or under another account.",
        )


class BackupFailed(HomeportError):
    """A copy could not be completed; the add-on serves on."""

    code = "backup-failed"

    def __init__(self, *, slug: str, why: str, fix: str = "", tail: Sequence[str] = ()) -> None:
        super().__init__(
            what=f"No backup of {slug} was made; the add-on runs on unchanged.",
            why=why,
            fix=fix or "Free space on the target, or choose another one, and try again.",
            tail=tail,
        )


class BackupDamaged(HomeportError):
    """What lies in a backup is not what was put there."""

    code = "backup-damaged"

    def __init__(self, *, backup: str, why: str) -> None:
        super().__init__(
            what=f"Nothing was restored from {backup}; what runs was not touched.",
            why=why,
            fix="Restore from another backup: `homeport backup list`. Check the disk that held this one.",
        )


class FillingFailed(HomeportError):
    """A new database could not be filled from the project's files; it is made anew the next time."""

    code = "addon-filling-failed"

    def __init__(self, *, name: str, where: str, why: str, tail: Sequence[str] = ()) -> None:
        super().__init__(
            what=f"The new database {name} was not filled, and is not used; what served before still serves.",
            why=f"{where}: {why.rstrip('.')}.",
            fix="Correct the file and deploy again: the database is then made anew and filled from the first file.",
            tail=tail,
        )


class UpgradeFailed(HomeportError):
    """A major upgrade did not succeed; the old version runs again."""

    code = "addon-upgrade-failed"

    def __init__(self, *, slug: str, why: str, tail: Sequence[str] = ()) -> None:
        super().__init__(
            what=f"{slug} was not upgraded: the old version runs again with all its data.",
            why=why,
            fix="Correct what the reason names and run `homeport addons upgrade` again.",
            tail=tail,
        )
