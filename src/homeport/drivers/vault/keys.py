"""Where the vault's key comes from: a file of the home, the operator's environment, or the operator's command.

An operator may give several keys at once, separated by white space: that is how a key that is kept elsewhere is changed
(`docs/how-to/rotate-the-vault-key.md`).
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import shlex
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from homeport.drivers.files import sync_folder, write_atomic
from homeport.model.errors import HomeportError

KEY_BYTES = 32
"""AES-256."""

COMMAND_SECONDS = 30.0
COMMAND_OUTPUT = 64 * 1024
MAX_KEYS = 8


class VaultKeyMissing(HomeportError):
    """Sealed data exists and its key does not."""

    code = "vault-key-missing"

    def __init__(self, place: str) -> None:
        super().__init__(
            what="The control plane did not start; applications that run keep running.",
            why=f"The vault holds sealed values and its key ({place}) is not there or not readable.",
            fix="Restore the key from where you keep it. Without it the values cannot be read by anybody.",
        )


class VaultKeyWrong(HomeportError):
    """A key was given and it is not the one that belongs to this vault."""

    code = "vault-key-wrong"

    def __init__(self, wanted: str, given: str) -> None:
        super().__init__(
            what="The vault was not opened; applications that run keep running.",
            why=f"vault.json is wrapped by the key {wanted}, and the keys that were given are {given or 'none'}.",
            fix="Give the key whose fingerprint is named; `homeport vault status` shows it on a home that works.",
        )


class VaultKeyInvalid(HomeportError):
    """What was given as a key is none, or the command that should give it failed."""

    code = "vault-key-invalid"

    def __init__(self, why: str) -> None:
        super().__init__(
            what="The vault was not opened; applications that run keep running.",
            why=why,
            fix="A key is 32 random bytes as base64 or hex: `openssl rand -base64 32`.",
        )


def fingerprint(key: bytes) -> str:
    """A name of a key that tells nothing about it: 16 hex digits of a labelled SHA-256 (keys are 256 random bits)."""
    return hashlib.sha256(b"homeport vault key\0" + key).hexdigest()[:16]


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def parse_key(text: str, place: str) -> bytes:
    """Base64 or hex of 32 bytes. Raises VaultKeyInvalid, which never shows the text."""
    text = text.strip()
    try:
        raw = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else base64.b64decode(text, validate=True)
    except ValueError as error:
        raise VaultKeyInvalid(f"{place} is neither base64 nor hex.") from error
    if len(raw) != KEY_BYTES:
        raise VaultKeyInvalid(f"{place} holds {len(raw)} bytes instead of {KEY_BYTES}.")
    return raw


class KeySource:
    """Every key the operator gives. `given` and `command` are settings; without them the key lies in `vault.key`."""

    def __init__(self, home: Path, *, given: str = "", command: str = "", environment: Mapping[str, str] | None = None) -> None:
        self.file, self.next_file = home / "vault.key", home / "vault.key.next"
        self._given, self._command, self._environment = given, command, dict(environment or {})

    @property
    def external(self) -> bool:
        """Whether the key is kept outside the home."""
        return bool(self._given or self._command)

    @property
    def place(self) -> str:
        """Where the key is looked for, as an operator knows it."""
        if self._given:
            return "HOMEPORT_VAULT_KEY"
        return "HOMEPORT_VAULT_KEY_COMMAND" if self._command else self.file.name

    def outside(self) -> list[bytes]:
        """The keys of the setting or the command, which is asked anew each time. Raises VaultKeyInvalid."""
        text = self._given or (self._ask() if self._command else "")
        words = text.split()
        if self.external and not words:
            raise VaultKeyInvalid(f"{self.place} gave no key.")
        if len(words) > MAX_KEYS:
            raise VaultKeyInvalid(f"{self.place} gave more than {MAX_KEYS} keys.")
        return [parse_key(word, self.place) for word in words]

    def inside(self) -> list[bytes]:
        """The keys that lie in the home: `vault.key`, and `vault.key.next` while a change is under way. Raises VaultKeyInvalid."""
        found = []
        for file in (self.file, self.next_file):
            try:
                text = file.read_text(encoding="ascii")
            except (FileNotFoundError, PermissionError):
                continue
            except UnicodeDecodeError as error:
                raise VaultKeyInvalid(f"{file.name} is not text.") from error
            found.append(parse_key(text, file.name))
        return found

    def keys(self) -> list[bytes]:
        """Every key there is, the operator's first. Raises VaultKeyInvalid."""
        return self.outside() + self.inside()

    def write(self, key: bytes, *, next_one: bool = False) -> None:
        """Put a key into the home, readable by its owner alone."""
        write_atomic(self.next_file if next_one else self.file, base64.b64encode(key) + b"\n", mode=0o600)

    def promote(self) -> None:
        """`vault.key.next` becomes `vault.key`, durably. Already done is success."""
        if self.next_file.exists():
            self.next_file.replace(self.file)
        sync_folder(self.file.parent)

    def forget_next(self) -> None:
        self.next_file.unlink(missing_ok=True)
        sync_folder(self.file.parent)

    def forget_file(self) -> None:
        """The key is kept outside from now on."""
        self.file.unlink(missing_ok=True)
        self.forget_next()

    def _ask(self) -> str:
        try:
            argv = shlex.split(self._command)
        except ValueError as error:
            raise VaultKeyInvalid("HOMEPORT_VAULT_KEY_COMMAND has an unclosed quote.") from error
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.defpath, **self._environment},
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            raise VaultKeyInvalid(f"HOMEPORT_VAULT_KEY_COMMAND could not be run: {error.strerror}.") from error
        try:
            output, _ = process.communicate(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise VaultKeyInvalid(f"HOMEPORT_VAULT_KEY_COMMAND gave no key within {COMMAND_SECONDS:.0f} s.") from error
        if process.returncode != 0:
            raise VaultKeyInvalid(f"HOMEPORT_VAULT_KEY_COMMAND ended with {process.returncode}.")
        return output[:COMMAND_OUTPUT].decode("ascii", errors="replace")
