"""Masking: secret values disappear from text that people read, in the encodings they are met in."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "••••••"
MIN_LENGTH = 6
"""Shorter values are words such as `true`; masking them would hide the text around them and protect nothing."""


class Masker:
    """Replaces each secret, raw, base64, URL-encoded, hex or JSON-escaped."""

    def __init__(self, values: Iterable[str]) -> None:
        forms: set[str] = set()
        for value in values:
            if len(value) >= MIN_LENGTH:
                forms |= _forms(value)
                forms |= {line for line in value.splitlines() if len(line) >= MIN_LENGTH}
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text


def _forms(value: str) -> set[str]:
    raw = value.encode()
    plain = base64.b64encode(raw).decode()
    forms = {value, plain, plain.rstrip("="), base64.urlsafe_b64encode(raw).decode(), raw.hex(), quote(value, safe=""), quote_plus(value)}
    return {form for form in forms | {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]} if len(form) >= MIN_LENGTH}
