"""One attempt to recover a home: what was there before it, so that whatever ends it leaves that and nothing else.

`backups/recovering` says that one is under way. A home that has it is refused by the control plane; the next attempt takes away what the
one before had made, and begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from homeport.backups.errors import RecoveryRefused
from homeport.drivers.addons import switching
from homeport.drivers.addons.base import AddOnDriver
from homeport.drivers.addons.keeping import ServerDriver
from homeport.drivers.addons.records import records
from homeport.drivers.files import remove_tree, sync_folder, write_atomic

DATA = ("homeport.db", "vault.json", "addons", "volumes", "tombstones")
"""Entries of a home that somebody would miss."""


def mark(home: Path) -> Path:
    return home / "backups" / "recovering"


def refuse_unfinished(home: Path) -> None:
    """Raises RecoveryRefused when a recovery of this home was interrupted: it holds a part of its data."""
    if mark(home).exists():
        raise RecoveryRefused(
            why=f"A recovery of {home} was interrupted, and it holds only a part of its data.",
            fix="Ask for it again with `homeport recover`: it begins anew. The backups are as they were.",
        )


class Attempt:
    """`drivers` are made only when add-ons have to be taken away."""

    def __init__(self, home: Path, drivers: Callable[[], Mapping[str, AddOnDriver]]) -> None:
        self.home, self.drivers = home, drivers
        self.filled = False
        """Whether a database outside of the home got its store from an attempt of this home."""
        self._before: list[str] = []
        self._vault_key = b""

    def begin(self) -> None:
        """Raises RecoveryRefused when the home holds data. What an interrupted attempt left is taken away."""
        if mark(self.home).exists():
            known = json.loads(mark(self.home).read_bytes())
            self._before, self.filled = list(known["before"]), bool(known["filled"])
            self._clear()
        else:
            there = [name for name in DATA if _holds(self.home / name)]
            if there:
                raise RecoveryRefused(
                    why=f"{self.home} is a home already, or what is left of one: it has {', '.join(there)}.",
                    fix="Recover on an empty machine, or end it with `homeport down` and move it away whole. Nothing was deleted.",
                )
            self._before = sorted(self._entries())
        if (self.home / "vault.key").is_file():
            self._vault_key = (self.home / "vault.key").read_bytes()
        scratch = self.home / "backups" / "scratch"
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.home / "backups").chmod(0o711)
        self._write()

    def fills(self) -> None:
        """A database outside of the home is about to get its store."""
        self.filled = True
        self._write()

    def done(self) -> None:
        """The home is whole."""
        mark(self.home).unlink(missing_ok=True)
        sync_folder(self.home / "backups")

    def undo(self) -> None:
        """Leave what was there before. A database outside that was filled is remembered: the next attempt fills it again."""
        self._clear()
        if self._vault_key:
            write_atomic(self.home / "vault.key", self._vault_key, 0o600)
        if self.filled:
            (self.home / "backups").mkdir(exist_ok=True, mode=0o711)
            self._write()

    def _write(self) -> None:
        write_atomic(mark(self.home), json.dumps({"before": self._before, "filled": self.filled}).encode(), 0o600)

    def _entries(self) -> set[str]:
        """What lies in the home and in its `backups/`."""
        backups = self.home / "backups"
        inner = {f"backups/{entry.name}" for entry in backups.iterdir()} if backups.is_dir() else set[str]()
        return {entry.name for entry in self.home.iterdir()} | inner

    def _clear(self) -> None:
        known = self.drivers() if (self.home / "addons").is_dir() else {}
        for record in list(records(self.home)):
            driver: object = known.get(record.kind)
            if isinstance(driver, ServerDriver):
                switching.discard(driver, record.id)
        for name in DATA:  # empty before, where there at all
            remove_tree(self.home / name)
        made = self._entries() - set(self._before)
        for name in sorted(made, key=lambda name: (name == "backups/recovering", name)):  # the mark goes last
            if not (name == "backups" or (name.startswith("backups/") and not (self.home / "backups").is_dir())):
                remove_tree(self.home / name)
        if "backups" in made:
            remove_tree(self.home / "backups")


def _holds(entry: Path) -> bool:
    return any(entry.iterdir()) if entry.is_dir() else entry.exists()
