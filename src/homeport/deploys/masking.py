"""Masking: secret values disappear from text that people read, in the encodings they are met in.

It is a net below the rule that secrets are not written at all. What a program does to a secret before it prints it (reversing, splitting,
encrypting) no masking can know.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable
from typing import TypeVar
from urllib.parse import quote, quote_plus

from homeport.model.errors import HomeportError

MASK = "••••••"
_ORDINARY = frozenset(
    ["production", "staging", "development", "testing", "preview", "default", "localhost", "enabled", "disabled", "warning", "critical"]
)
"""Settings that are put in by hand like secrets, are none, and stand in every other line of a log."""

MIN_LENGTH = 6
"""Shorter values are words such as `true`; masking them would hide the text around them and protect nothing."""

E = TypeVar("E", bound=HomeportError)


class Masker:
    """Replaces each secret: raw, base64 (also inside a longer base64 text), hex, URL, HTML and JSON, also twice escaped."""

    def __init__(self, values: Iterable[str]) -> None:
        forms: set[str] = set()
        for value in values:
            if len(value) >= MIN_LENGTH and value not in _ORDINARY:
                forms |= _forms(value)
                for line in value.splitlines():
                    forms |= _forms(line) if len(line) >= MIN_LENGTH else set()
        longest = sorted(forms, key=len, reverse=True)
        self._find = re.compile("|".join(map(re.escape, longest))) if longest else None

    def __call__(self, text: str) -> str:
        return self._find.sub(MASK, text) if self._find is not None else text


def masked(error: E, mask: Callable[[str], str]) -> E:
    """The error without secrets in its sentences and in the application's own last lines."""
    error.what, error.why, error.fix = mask(error.what), mask(error.why), mask(error.fix)
    error.tail = tuple(mask(line) for line in error.tail)
    return error


def _forms(value: str) -> set[str]:
    raw = value.encode()
    url, plus = quote(value, safe=""), quote_plus(value)
    ascii_json, json_text = json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]
    forms = {value, raw.hex(), raw.hex().upper(), url, plus, quote(value), quote(url, safe=""), html.escape(value), repr(value)[1:-1]}
    forms |= {re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), text) for text in (url, plus)}
    forms |= {ascii_json, json_text, json.dumps(ascii_json)[1:-1], json.dumps(json_text, ensure_ascii=False)[1:-1]}
    forms |= _base64(raw)
    return {form for form in forms if len(form) >= MIN_LENGTH}


def _base64(raw: bytes) -> set[str]:
    """Base64 of the value alone, and the part of it that stays the same wherever it stands in a longer text (RFC 4648: 3 bytes a group)."""
    forms: set[str] = set()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(raw).decode()
        forms |= {whole, whole.rstrip("=")}
        for before in range(3):
            skipped = -before % 3
            inner = raw[skipped : skipped + (len(raw) - skipped) // 3 * 3]
            if len(inner) >= MIN_LENGTH:
                forms.add(encode(inner).decode())
    return forms
