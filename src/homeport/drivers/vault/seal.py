"""Sealing: AES-256-GCM under a data key, which is itself wrapped by the vault's key (`keys.py`).

The associated data names the data key and the value's place (project, environment, secret, version), so a sealed value cannot be moved
(NIST SP 800-38D authenticates it with the text). What does not open is an error, never an empty string.

`vault.json` holds the wrapped data keys. It is one file that is replaced at once, so at every moment exactly one vault key opens it:
that is what makes changing the key safe against a crash. Why there are two levels: `docs/adr/0010-vault-keys.md`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from homeport.drivers.files import locked, sync_folder, write_atomic
from homeport.drivers.vault.keys import KeySource, VaultKeyInvalid, VaultKeyMissing, VaultKeyWrong, fingerprint, new_key
from homeport.model.errors import HomeportError

_FORMAT = b"\x02"
_HEADER = 5
"""Bytes before the nonce: the format, and the number of the data key (big-endian)."""
_NONCE = 12
_TAG = 16

MAX_SEALS = 2**32
"""Values one data key may seal with random nonces (NIST SP 800-38D, 8.3). A home stays below by orders of magnitude."""

REKEY_STEPS = ("begin", "next-key-written", "ring-written", "key-promoted", "done")
"""Where a change of the vault's key can be interrupted; the fault suite crashes at each."""


class SecretDoesNotOpen(HomeportError):
    """A sealed value was changed, moved, or sealed under another key."""

    code = "secret-does-not-open"

    def __init__(self, place: str) -> None:
        super().__init__(
            what="Nothing was started with this value; what runs keeps running.",
            why=f"The sealed value of {place} does not open with this home's vault key.",
            fix=f"Put the vault.key that belongs to this database back, or {way_out(place)}.",
        )
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return SecretDoesNotOpen, (self.place,)


def way_out(place: str) -> str:
    """What gives a value another one when nobody can open it any more, by where it is sealed."""
    project, environment, name = (*place.rpartition("@")[0].split("/", 2), "", "")[:3]
    at = f"--project {project} --env {environment}"
    if (project, environment) == ("", "stores"):
        return f"add the store again with its credential: `homeport stores add {name}`"
    if (project, environment) == ("homeport", "backups"):
        return f"add the target again: `homeport backup add-target {name.removeprefix('target.')}`"
    if name.startswith("addon."):
        addon = name.removeprefix("addon.").partition("/")[0]
        return f"give the add-on new passwords: `homeport addons rotate {addon} {at}`"
    if name.startswith("part."):
        return f"set the variable again whose text it is a part of: `homeport env {at}` lists them"
    service, slash, key = name.rpartition("/")
    return f"set the value again: `homeport env set {key}=- {at}{f' --service {service}' if slash else ''}`"


class VaultDamaged(HomeportError):
    """`vault.json` is not what Homeport wrote."""

    code = "vault-damaged"

    def __init__(self, why: str) -> None:
        super().__init__(
            what="The vault was not opened; applications that run keep running.",
            why=f"vault.json {why}.",
            fix="Restore vault.json from a backup of this home; the sealed values need it.",
        )


@dataclass(frozen=True)
class Ring:
    """The data keys of a home, wrapped. Immutable; a change makes a new one with the next generation."""

    generation: int
    """Counts every change of the file."""
    key: str
    """Fingerprint of the vault key that wraps the data keys."""
    active: int
    """Data key that new values are sealed with."""
    wrapped: dict[int, bytes]
    made: dict[int, str] = field(default_factory=dict)
    """When each data key was made, as ISO text."""
    rekeyed: str = ""
    """When the vault key was changed last."""

    def dump(self) -> bytes:
        """As a file, with a checksum over everything else."""
        body = {
            "format": 2,
            "generation": self.generation,
            "key": self.key,
            "active": self.active,
            "data-keys": {str(n): base64.b64encode(w).decode() for n, w in self.wrapped.items()},
            "made": {str(n): m for n, m in self.made.items()},
            "rekeyed": self.rekeyed,
        }
        return json.dumps({**body, "checksum": _checksum(body)}, indent=1).encode() + b"\n"

    @classmethod
    def load(cls, data: bytes) -> Ring:
        """Raises VaultDamaged."""
        try:
            body: dict[str, Any] = json.loads(data)
            if body.pop("checksum") != _checksum(body):
                raise VaultDamaged("does not match its own checksum")
            return cls(
                generation=int(body["generation"]),
                key=str(body["key"]),
                active=int(body["active"]),
                wrapped={int(n): base64.b64decode(w, validate=True) for n, w in body["data-keys"].items()},
                made={int(n): str(m) for n, m in body["made"].items()},
                rekeyed=str(body["rekeyed"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise VaultDamaged("is not a file that Homeport wrote") from error


@dataclass(frozen=True)
class VaultStatus:
    """What an operator may know about the vault."""

    key: str
    """Fingerprint of the vault key."""
    place: str
    """Where the key is kept."""
    generation: int
    active: int
    data_keys: dict[int, str]
    """Number of each data key and when it was made."""
    rekeyed: str


class Sealer:
    """Seals and opens values of one home. Thread-safe; opening never waits for a change of keys."""

    def __init__(self, home: Path, source: KeySource | None = None, *, reach: Callable[[str], None] = lambda _: None) -> None:
        """Read the home's keys, making them on first use, and finish a change of key that was interrupted.

        `reach` is told every step of a change. Raises VaultKeyMissing, VaultKeyWrong, VaultKeyInvalid, VaultDamaged.
        """
        self.source, self.ring_file, self._lock_file = source or KeySource(home), home / "vault.json", home / "vault.lock"
        self.reach = reach
        self._changing = threading.Lock()
        with locked(self._lock_file):
            self.ring, wrapping = self._load() if self.ring_file.is_file() else self._make()
            self._recover(wrapping)
        self._ciphers = {number: AESGCM(_unwrap(wrapping, number, data)) for number, data in self.ring.wrapped.items()}

    # --- values -----------------------------------------------------------------------------------------------

    def seal(self, plain: str, place: str) -> bytes:
        """Seal text for one place (`project/environment/name@version`)."""
        number = self.ring.active
        header = _FORMAT + number.to_bytes(4)
        nonce = os.urandom(_NONCE)
        return header + nonce + self._ciphers[number].encrypt(nonce, plain.encode(), header + place.encode())

    def open(self, sealed: bytes, place: str) -> str:
        """The text sealed for this place. Raises SecretDoesNotOpen."""
        cipher = self._ciphers.get(key_of(sealed))
        if cipher is None or len(sealed) < _HEADER + _NONCE + _TAG:
            raise SecretDoesNotOpen(place)
        nonce, text = sealed[_HEADER : _HEADER + _NONCE], sealed[_HEADER + _NONCE :]
        try:
            return cipher.decrypt(nonce, text, sealed[:_HEADER] + place.encode()).decode()
        except (InvalidTag, UnicodeDecodeError) as error:
            raise SecretDoesNotOpen(place) from error

    # --- keys -------------------------------------------------------------------------------------------------

    def status(self) -> VaultStatus:
        """The vault's keys by name; no key itself."""
        ring = self.ring
        inside = any(fingerprint(key) == ring.key for key in self.source.inside())
        place = self.source.file.name if inside else self.source.place
        return VaultStatus(ring.key, place, ring.generation, ring.active, {n: ring.made.get(n, "") for n in ring.wrapped}, ring.rekeyed)

    def rekey(self) -> VaultStatus:
        """Wrap the data keys by another vault key. Values are not touched, and can be opened all the time.

        A key of the home is made anew. A key kept outside must have been given beside the old one; with a home whose key was in
        `vault.key` until now, the outside key takes over and the file goes. Raises VaultKeyWrong, VaultKeyInvalid.
        """
        with self._changing, locked(self._lock_file):
            ring, old = self._load()
            self.reach("begin")
            new = self._next_key(old)
            data_keys = {number: _unwrap(old, number, data) for number, data in ring.wrapped.items()}
            self.reach("next-key-written")
            wrapped = {number: _wrap(new, number, data) for number, data in data_keys.items()}
            self._write(Ring(ring.generation + 1, fingerprint(new), ring.active, wrapped, ring.made, _now()))
            self.reach("ring-written")  # from here on the new key is the key
            if self.source.external:
                self.source.forget_file()
            else:
                self.source.promote()
            self.reach("key-promoted")
            self.reach("done")
        return self.status()

    def rotate(self) -> int:
        """Make a new data key for what is sealed from now on; returns its number. Older values open as before."""
        with self._changing, locked(self._lock_file):
            ring, wrapping = self._load()
            number, data = max(ring.wrapped) + 1, new_key()
            wrapped = {**ring.wrapped, number: _wrap(wrapping, number, data)}
            self._ciphers = {**self._ciphers, number: AESGCM(data)}
            self._write(Ring(ring.generation + 1, ring.key, number, wrapped, {**ring.made, number: _now()}, ring.rekeyed))
            return number

    def retire(self, numbers: set[int]) -> None:
        """Forget data keys. The caller knows that nothing is sealed with them any more.

        Until this process ends it still opens with them: somebody may have read a row before it was sealed again.
        """
        with self._changing, locked(self._lock_file):
            ring, _ = self._load()
            kept = {number: data for number, data in ring.wrapped.items() if number not in numbers or number == ring.active}
            made = {number: when for number, when in ring.made.items() if number in kept}
            self._write(Ring(ring.generation + 1, ring.key, ring.active, kept, made, ring.rekeyed))

    # --- files ------------------------------------------------------------------------------------------------

    def _make(self) -> tuple[Ring, bytes]:
        keys = self.source.keys()
        if not keys:
            keys = [new_key()]
            self.source.write(keys[0])
        ring = Ring(1, fingerprint(keys[0]), 1, {1: _wrap(keys[0], 1, new_key())}, {1: _now()})
        write_atomic(self.ring_file, ring.dump(), mode=0o600)
        return ring, keys[0]

    def _load(self) -> tuple[Ring, bytes]:
        """The ring with the key that opens it. Raises VaultDamaged, VaultKeyMissing, VaultKeyWrong."""
        ring = Ring.load(self.ring_file.read_bytes())
        keys = self.source.keys()
        if not keys:
            raise VaultKeyMissing(self.source.place)
        key = next((key for key in keys if fingerprint(key) == ring.key), None)
        if key is None:
            raise VaultKeyWrong(ring.key, ", ".join(fingerprint(key) for key in keys))
        return ring, key

    def _recover(self, wrapping: bytes) -> None:
        """Finish or forget a change of key that a crash interrupted: the ring says which key won."""
        inside = self.source.inside()
        if self.source.next_file.is_file():
            if fingerprint(inside[-1]) == fingerprint(wrapping):
                self.source.promote()
            else:
                self.source.forget_next()

    def _next_key(self, old: bytes) -> bytes:
        if not self.source.external:
            new = new_key()
            self.source.write(new, next_one=True)
            return new
        others = [key for key in self.source.outside() if key != old]
        if not others:
            raise VaultKeyWrong("that comes next", "only the one in use")
        return others[0]

    def _write(self, ring: Ring) -> None:
        write_atomic(self.ring_file, ring.dump(), mode=0o600)
        self.ring = ring


def opens(home: Path, source: KeySource) -> bool:
    """Whether a home's `vault.json` is whole and a key that is given opens it. Raises VaultKeyInvalid, also for an unreadable key."""
    for file in (source.file, source.next_file):
        if file.exists() and not os.access(file, os.R_OK):
            raise VaultKeyInvalid(f"{file.name} is there and this account may not read it; ask as the one that runs Homeport.")
    try:
        known = Ring.load((home / "vault.json").read_bytes()).key
    except (FileNotFoundError, VaultDamaged):
        return False
    return known in {fingerprint(key) for key in source.keys()}  # noqa: SIM118 (a source is no mapping)


def set_aside(home: Path, source: KeySource) -> list[str]:
    """Put a vault that nothing opens out of the way, so that the next start makes a new one; the names its files have now.

    Nothing is removed: a key that is found later opens it again.
    """
    now = list[str]()
    with locked(home / "vault.lock"):
        for file in (home / "vault.json", source.file, source.next_file):  # in this order: alone, a key is only an unused file
            if file.is_file():
                others = (file.with_name(f"{file.name}.lost.{number}") for number in range(2, 1_000_000))
                place = next(name for name in chain([file.with_name(f"{file.name}.lost")], others) if not name.exists())
                file.rename(place)
                now.append(place.name)
        sync_folder(home)
    return now


def key_of(sealed: bytes) -> int:
    """Number of the data key a value was sealed with; 0 for what is no sealed value."""
    return int.from_bytes(sealed[1:_HEADER]) if sealed[:1] == _FORMAT and len(sealed) >= _HEADER else 0


def _wrap(key: bytes, number: int, data: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, data, f"homeport data key {number}".encode())


def _unwrap(key: bytes, number: int, wrapped: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], f"homeport data key {number}".encode())
    except InvalidTag as error:
        raise VaultDamaged(f"holds a data key (number {number}) that was changed") from error


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat()


__all__ = ["REKEY_STEPS", "KeySource", "Ring", "Sealer", "SecretDoesNotOpen", "VaultDamaged", "VaultKeyMissing", "VaultStatus", "key_of"]
