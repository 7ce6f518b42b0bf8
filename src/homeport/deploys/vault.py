"""Care of the vault: its state, a new vault key, a new data key, and sealing older values again."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from homeport.deploys.audit import Caller
from homeport.deploys.secrets import SecretBook
from homeport.drivers.vault.seal import key_of
from homeport.model.views import VaultView

log = logging.getLogger("homeport.vault")

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
        used = self._used()
        return VaultView(
            key=found.key,
            place=found.place,
            generation=found.generation,
            data_key=found.active,
            data_keys={str(number): used.get(number, 0) for number in found.data_keys},
            rekeyed=found.rekeyed,
            values=sum(used.values()),
        )

    def rekey(self, *, by: Caller) -> VaultView:
        """Change the vault's key. Raises AuditUnavailable, VaultKeyWrong, VaultKeyInvalid."""
        self.book.audit.write(by, "rekey", f"vault key {self.book.sealer.status().key}")
        self.book.sealer.rekey()
        return self.status()

    def rotate(self, *, by: Caller) -> VaultView:
        """A new data key, every value sealed again with it, and the old data keys forgotten. Raises AuditUnavailable."""
        self.book.audit.write(by, "rotate", f"data key {self.book.sealer.status().active}")
        self.book.sealer.rotate()
        self.seal_again()
        return self.status()

    def seal_again(self) -> int:
        """Bring every value to the data key in use and forget the others; returns how many. A crash leaves some for the next time."""
        with self._sealing:
            active = self.book.sealer.ring.active
            older = [row for row in self.book.store.secrets.all() if row.sealed is not None and key_of(row.sealed) != active]
            done = sum(self.book.seal_again(older[start : start + BATCH]) for start in range(0, len(older), BATCH))
            with self.book.writing:
                used = self._used()
                unused = {number for number in self.book.sealer.ring.wrapped if number not in used} - {self.book.sealer.ring.active}
                if unused:
                    self.book.sealer.retire(unused)
            return done

    def _used(self) -> Counter[int]:
        return Counter(key_of(row.sealed) for row in self.book.store.secrets.all() if row.sealed is not None)
