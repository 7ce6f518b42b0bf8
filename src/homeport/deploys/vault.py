"""Care of the vault: its state, a new vault key, a new data key, and sealing older values again."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from homeport.deploys.audit import Caller
from homeport.deploys.secrets import SecretBook, is_internal
from homeport.drivers.files import write_atomic
from homeport.drivers.vault import seal
from homeport.drivers.vault.keys import KeySource
from homeport.drivers.vault.seal import key_of, way_out
from homeport.model.views import LostValue, VaultView
from homeport.store import Store
from homeport.store.secrets import SecretRow

log = logging.getLogger("homeport.vault")

LOST = "vault.json.lost"
"""Beside a store with sealed values and without `vault.json`, it says that those are given up."""

BATCH = 100
"""Values that are sealed again in one transaction: one wait for the disk, and others write in between."""


class VaultCare:
    """What an operator does with the vault. Reading and setting values goes on meanwhile."""

    def __init__(self, book: SecretBook) -> None:
        self.book = book
        self._sealing = threading.Lock()

    def status(self) -> VaultView:
        """The vault's keys by name, and how many values each data key has sealed."""
        found = self.book.sealer.status()
        rows = [row for row in self.book.store.secrets.all() if row.sealed is not None]
        used = Counter(key_of(row.sealed or b"") for row in rows)
        return VaultView(
            key=found.key,
            place=found.place,
            generation=found.generation,
            data_key=found.active,
            data_keys={str(number): used.get(number, 0) for number in found.data_keys},
            rekeyed=found.rekeyed,
            values=sum(used.values()),
            unreadable=len(self._unreadable(rows)),
        )

    def lost(self) -> list[LostValue]:
        """The values in use that do not open, with what gives each another one."""
        rows = self._unreadable(self.book.store.secrets.all())
        current = {where: self.book.names(*where) for where in {(row.project, row.environment) for row in rows}}
        return [
            LostValue(
                project=row.project,
                environment=row.environment,
                name=row.name,
                version=row.version,
                source=row.source,
                fix=_fix(row),
            )
            for row in sorted(rows, key=lambda row: (row.project, row.environment, row.name))
            if current[row.project, row.environment].get(row.name) == row
        ]

    def rekey(self, *, by: Caller) -> VaultView:
        """Change the vault's key. Raises AuditUnavailable, VaultKeyWrong, VaultKeyInvalid."""
        self.book.audit.write(by, "rekey", f"vault key {self.book.sealer.status().key}")
        self.book.sealer.rekey()
        return self.status()

    def rotate(self, *, by: Caller) -> VaultView:
        """A new data key, every value sealed again with it, and the old data keys forgotten. Raises AuditUnavailable.

        Values that do not open stay as they are, and so does the data key that they name.
        """
        self.book.audit.write(by, "rotate", f"data key {self.book.sealer.status().active}")
        self.book.sealer.rotate()
        self.seal_again()
        return self.status()

    def seal_again(self) -> int:
        """Bring every value to the data key in use and forget the others; returns how many. A crash leaves some for the next time."""
        with self._sealing:
            active = self.book.sealer.ring.active
            older = [row for row in self.book.store.secrets.all() if row.sealed is not None and key_of(row.sealed) != active]
            unreadable = {(row.project, row.environment, row.name, row.version) for row in self._unreadable(older)}
            older = [row for row in older if (row.project, row.environment, row.name, row.version) not in unreadable]
            done = sum(self.book.seal_again(older[start : start + BATCH]) for start in range(0, len(older), BATCH))
            with self.book.writing:
                used = self._used()
                unused = {number for number in self.book.sealer.ring.wrapped if number not in used} - {self.book.sealer.ring.active}
                if unused:
                    self.book.sealer.retire(unused)
            return done

    def _unreadable(self, rows: Iterable[SecretRow]) -> list[SecretRow]:
        return [row for row in rows if not self.book.can_open(row)]

    def _used(self) -> Counter[int]:
        return Counter(key_of(row.sealed) for row in self.book.store.secrets.all() if row.sealed is not None)


def _fix(row: SecretRow) -> str:
    """What gives a value that does not open another one, by where it came from."""
    service, slash, key = row.name.rpartition("/")
    at = f"{key} --project {row.project} --env {row.environment}{f' --service {service}' if slash else ''}"
    if row.source == "previous":
        return f"take it away: `homeport env unset {at}`"
    if row.source == "generated" and not is_internal(row.name):
        return f"make a new one: `homeport env rotate {at}`"
    if row.source == "external":
        return "deploy: it is fetched again"
    return way_out(f"{row.project}/{row.environment}/{row.name}@{row.version}")


def opens(home: Path, source: KeySource, store: Store) -> bool:
    """Whether a control plane starts with the vault of a home, or may make the first one. Raises VaultKeyInvalid."""
    if (home / "vault.json").exists():
        return seal.opens(home, source)
    return (home / LOST).exists() or not store.secrets.any_sealed()


def give_up(home: Path, source: KeySource) -> list[str]:
    """Put a vault that nothing opens aside, on purpose: the next start makes a new one. The names its files have now.

    No control plane may run on the home.
    """
    found = seal.set_aside(home, source)
    if not (home / LOST).exists():
        write_atomic(home / LOST, b"", mode=0o600)  # vault.json itself is what was lost
    return found
