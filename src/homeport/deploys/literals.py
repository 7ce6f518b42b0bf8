"""Texts around the references of a value that was set by hand: `postgres://me:password@` before `${{Postgres.PGHOST}}`.

A reference is part of a release's spec, where everybody who may read can see it; the texts around it were given as a secret and stay in
the vault, each as an entry of its own that the spec names.
"""

from __future__ import annotations

import re

from homeport.blueprints.railway.references import REFERENCE, railway_references
from homeport.model.env import EnvValue, PlainValue, SecretValue, Template

PREFIX = "part."
"""What the names of such entries begin with: `part.KEY.0`."""

_PUNCTUATION = re.compile(r"(?:[a-z][a-z0-9+.-]*://)?[^A-Za-z]{0,12}")
"""A scheme, a port, a slash: nothing that needs to be kept."""


def is_reference(text: str) -> bool:
    """Whether a value refers to something."""
    return REFERENCE.search(text) is not None


def literals(name: str, text: str) -> dict[str, str]:
    """The texts of a value that are to be sealed, by the entry of each."""
    value = railway_references(text)
    parts = value.parts if isinstance(value, Template) else ()
    return {
        _entry(name, number): part.value
        for number, part in enumerate(parts)
        if isinstance(part, PlainValue) and not _PUNCTUATION.fullmatch(part.value)
    }


def sealed(name: str, text: str, service: str, known: frozenset[str]) -> EnvValue:
    """A value as a service has it, each of its texts that is `known` to the vault replaced by where it lies."""
    value = railway_references(text, service)
    if not isinstance(value, Template):
        return value
    apart = literals(name, text).keys() & known
    parts = [SecretValue(name=_entry(name, number)) if _entry(name, number) in apart else part for number, part in enumerate(value.parts)]
    return Template(parts=tuple(parts))


def _entry(name: str, number: int) -> str:
    return f"{PREFIX}{name}.{number}"
