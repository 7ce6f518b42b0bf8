"""The key that backups of a home are encrypted to.

`backups/key` in the home is an age identity (age-encryption.org/v1). Each target holds it too, wrapped by the vault's key as a passphrase
(`key.age`), so an empty machine needs the target and the vault key, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

import pyrage

from homeport.drivers.files import write_atomic
from homeport.model.errors import HomeportError


class BackupKeyWrong(HomeportError):
    """The key given does not open these backups."""

    code = "backup-key-wrong"

    def __init__(self, why: str, *, what: str = "", fix: str = "") -> None:
        super().__init__(
            what=what or "Nothing was restored; what runs was not touched.",
            why=why,
            fix=fix or "Give the vault key that the home had when these backups were made. The file is the `vault.key` of the home.",
        )


@dataclass(frozen=True)
class BackupKey:
    """An age identity with what is derived from it."""

    identity: pyrage.x25519.Identity
    recipients: tuple[pyrage.x25519.Recipient, ...]
    """Who can open what is packed: this identity, and the operator's own recovery recipients."""

    @classmethod
    def of(cls, text: str, also: tuple[str, ...] = ()) -> BackupKey:
        """From an identity's text and further age recipients. Raises BackupKeyWrong."""
        try:
            lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
            identity = pyrage.x25519.Identity.from_str(lines[0])
            others = tuple(pyrage.x25519.Recipient.from_str(recipient) for recipient in also)
        except (IndexError, pyrage.IdentityError, pyrage.RecipientError) as error:
            raise BackupKeyWrong("The backup key is not an age identity, or a recipient is not an age recipient.") from error
        return cls(identity, (identity.to_public(), *others))

    @property
    def public(self) -> str:
        """The recipient: what may be shown."""
        return str(self.identity.to_public())

    def sign(self, data: bytes) -> str:
        """HMAC-SHA-256 under a key that only holders of the identity have (RFC 2104; the key by HKDF's extract, RFC 5869)."""
        key = hmac.digest(b"homeport backup manifest", str(self.identity).encode(), "sha256")
        return hmac.new(key, data, hashlib.sha256).hexdigest()

    def seal(self, data: bytes) -> bytes:
        return bytes(pyrage.encrypt(data, list(self.recipients)))

    def open(self, sealed: bytes) -> bytes:
        """Raises BackupKeyWrong."""
        try:
            return bytes(pyrage.decrypt(sealed, [self.identity]))
        except (pyrage.DecryptError, OSError) as error:
            raise BackupKeyWrong("It was encrypted to another key, or was changed.") from error


def home_key(file: Path, also: tuple[str, ...] = ()) -> BackupKey:
    """The home's backup key, made on first use. Raises BackupKeyWrong."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        write_atomic(file, f"{pyrage.x25519.Identity.generate()}\n".encode(), 0o600)
    return BackupKey.of(file.read_text(encoding="ascii"), also)


def wrap(key: BackupKey, vault_key: bytes) -> bytes:
    """The identity under the vault's key, as an age file with a passphrase (scrypt): the key's base64 text."""
    return bytes(pyrage.passphrase.encrypt(str(key.identity).encode(), base64.b64encode(vault_key).decode()))


def unwrap(wrapped: bytes, vault_key: bytes) -> BackupKey:
    """Raises BackupKeyWrong."""
    try:
        return BackupKey.of(bytes(pyrage.passphrase.decrypt(wrapped, base64.b64encode(vault_key).decode())).decode("ascii"))
    except (pyrage.DecryptError, OSError, UnicodeDecodeError) as error:
        raise BackupKeyWrong("The vault key does not open the key of these backups.") from error
