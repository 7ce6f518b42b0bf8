"""Passwords that drivers make: new ones for consumers, handed over once, and the one by which Homeport itself gets in.

A consumer's password is in the vault alone; an engine keeps a verifier of it. Homeport's own lies beside the add-on's lock, where only
Homeport reads: it must get in also while the vault is closed.
"""

from __future__ import annotations

import secrets
import string

from homeport.drivers.addons.records import Place
from homeport.drivers.files import write_atomic

ALPHABET = string.ascii_letters + string.digits
"""They stand in URLs and configuration files as they are."""
LENGTH = 43
"""Characters of a new password: 256 bits."""


def new() -> str:
    """A password that nobody knows yet."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


def of_homeport(place: Place) -> str:
    """Homeport's own password for an add-on's server, made once."""
    place.server.mkdir(exist_ok=True)
    key = place.server / "admin.key"
    if not key.exists():
        write_atomic(key, secrets.token_urlsafe(32).encode(), 0o600)
    return key.read_text()
