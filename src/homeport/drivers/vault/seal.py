"""Sealing: AES-256-GCM under a data key, which is itself wrapped by the key in `vault.key`.

The associated data names project, environment, secret and version, so a sealed value cannot be moved to another place
(NIST SP 800-38D authenticates it with the text). What does not open is an error, never an empty string.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from homeport.drivers.files import write_atomic
from homeport.model.errors import HomeportError

_VERSION = b"\x01"
_NONCE = 12


class SecretDoesNotOpen(HomeportError):
    """A sealed value was changed, moved, or sealed under another key."""

    code = "secret-does-not-open"

    def __init__(self, place: str) -> None:
        super().__init__(
            what="Nothing was started with this value; what runs keeps running.",
            why=f"The sealed value of {place} does not open with this home's vault key.",
            fix="Put the vault.key that belongs to this database back, or set the value again with `homeport env set`.",
        )


class VaultKeyMissing(HomeportError):
    """Sealed data exists and its key does not."""

    code = "vault-key-missing"

    def __init__(self, path: Path) -> None:
        super().__init__(
            what="The control plane did not start; applications that run keep running.",
            why=f"The vault holds sealed values and its key {path.name} is not there or not readable.",
            fix="Restore vault.key from where you keep it. Without it the values cannot be read by anybody.",
        )


class Sealer:
    """Seals and opens values of one home."""

    def __init__(self, home: Path) -> None:
        """Read the home's keys, making them on first use. Raises VaultKeyMissing, SecretDoesNotOpen."""
        self.key_file, self.ring_file = home / "vault.key", home / "vault.json"
        self._data_key = AESGCM(self._unwrap(self._wrapping_key()))

    def _wrapping_key(self) -> bytes:
        if self.key_file.is_file():
            return base64.b64decode(self.key_file.read_bytes())
        if self.ring_file.is_file():
            raise VaultKeyMissing(self.key_file)
        key = secrets.token_bytes(32)
        write_atomic(self.key_file, base64.b64encode(key) + b"\n", mode=0o600)
        return key

    def _unwrap(self, wrapping: bytes) -> bytes:
        if not self.ring_file.is_file():
            data_key = secrets.token_bytes(32)
            ring = {"data-key": base64.b64encode(_seal(AESGCM(wrapping), data_key, "data-key")).decode()}
            write_atomic(self.ring_file, json.dumps(ring).encode(), mode=0o600)
            return data_key
        ring = json.loads(self.ring_file.read_bytes())
        return _open(AESGCM(wrapping), base64.b64decode(ring["data-key"]), "data-key")

    def seal(self, plain: str, place: str) -> bytes:
        """Seal text for one place (`project/environment/name@version`)."""
        return _seal(self._data_key, plain.encode(), place)

    def open(self, sealed: bytes, place: str) -> str:
        """The text sealed for this place. Raises SecretDoesNotOpen."""
        return _open(self._data_key, sealed, place).decode()


def _seal(cipher: AESGCM, plain: bytes, place: str) -> bytes:
    nonce = os.urandom(_NONCE)
    return _VERSION + nonce + cipher.encrypt(nonce, plain, place.encode())


def _open(cipher: AESGCM, sealed: bytes, place: str) -> bytes:
    if sealed[:1] != _VERSION or len(sealed) < 1 + _NONCE + 16:
        raise SecretDoesNotOpen(place)
    try:
        return cipher.decrypt(sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :], place.encode())
    except InvalidTag as error:
        raise SecretDoesNotOpen(place) from error
