"""Masking: secret values disappear from text that people read, in the encodings they are met in.

It is a net below the rule that secrets are not written at all. What a program does to a secret before it prints it (reversing, splitting,
encrypting) no masking can know.
"""

from __future__ import annotations

import html
import json
import re
from binascii import b2a_base64
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
    """Replaces each secret: raw, base64 (also inside a longer base64 text, and wrapped), hex, URL, HTML and JSON, also twice escaped.

    Forms are looked up by their first `MIN_LENGTH` signs, so a line costs the same whether there are ten secrets or a thousand.
    """

    def __init__(self, values: Iterable[str]) -> None:
        forms: set[str] = set()
        for value in values:
            if len(value) >= MIN_LENGTH and value not in _ORDINARY:
                forms |= _forms(value)
                for line in {*value.splitlines()} - {value}:
                    forms |= _forms(line) if len(line) >= MIN_LENGTH else set()
        self._by_start: dict[str, list[str]] = {}
        for form in sorted(forms, key=len, reverse=True):
            self._by_start.setdefault(form[:MIN_LENGTH], []).append(form)

    def __call__(self, text: str) -> str:
        starts, shown, at, copied = self._by_start, list[str](), 0, 0
        if not starts:
            return text
        while at <= len(text) - MIN_LENGTH:
            found = starts.get(text[at : at + MIN_LENGTH])
            form = next((f for f in found if text.startswith(f, at)), "") if found else ""
            if form:
                shown += [text[copied:at], MASK]
                at = copied = at + len(form)
            else:
                at += 1
        return "".join((*shown, text[copied:])) if shown else text


def masked(error: E, mask: Callable[[str], str]) -> E:
    """The error without secrets in its sentences and in the application's own last lines."""
    error.what, error.why, error.fix = mask(error.what), mask(error.why), mask(error.fix)
    error.tail = tuple(mask(line) for line in error.tail)
    return error


_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
"""Values that JSON, HTML, Python and addresses write as they are: most keys and passwords."""


def _forms(value: str) -> set[str]:
    raw = value.encode()
    forms = {value, raw.hex(), raw.hex().upper()} | _base64(raw)
    if not _PLAIN.fullmatch(value):
        forms |= {html.escape(value), html.escape(value, quote=False), repr(value)[1:-1]} | _json(value) | _url(value)
    return {form for form in forms if len(form) >= MIN_LENGTH}


def _json(value: str) -> set[str]:
    """JSON as Python and JavaScript write it, as PHP does (`\\/`), as Go and others do (`\\u0026`), and JSON inside JSON."""
    ascii_only, whole = json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]
    forms = {ascii_only, whole}
    for text in (ascii_only, whole):
        for signs in (_GO, _ALL):
            coded = "".join(signs.get(sign, sign) for sign in text)
            forms |= {coded, re.sub(r"\\u[0-9a-f]{4}", lambda found: "\\u" + found[0][2:].upper(), coded)}
        forms.add(text.replace("/", "\\/"))
    return forms | {json.dumps(text, ensure_ascii=False)[1:-1] for text in forms}


_GO = {sign: f"\\u{ord(sign):04x}" for sign in "&<>"}
_ALL = {sign: f"\\u{ord(sign):04x}" for sign in "&<>'+="}


def _url(value: str) -> set[str]:
    """Percent-encoding, with the signs that Python, forms, JavaScript's two functions, and Go's paths and logins leave as they are."""
    forms = {quote_plus(value), quote_plus(value).replace("%2A", "*").replace("%7E", "~")}
    for safe in ("", "/", "!'()*", ";,/?:@&=+$#!'()*", "$&+=:@", "$&+,;=", "$&+,/:;=@"):
        forms.add(quote(value, safe=safe))
    forms |= {re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), text) for text in forms}
    return forms | {quote(quote(value, safe=""), safe="")}


_WRAPPED = (64, 76)
"""Signs of a line of base64: PEM (RFC 7468) and MIME (RFC 2045), which is also what `base64` prints."""


_OF_ADDRESSES = str.maketrans("+/", "-_")
"""From the usual alphabet of base64 to the one for addresses (RFC 4648, 5)."""


def _base64(raw: bytes) -> set[str]:
    """Base64 of the value alone, and the part of it that stays the same wherever it stands in a longer text (RFC 4648: 3 bytes a group)."""
    whole = b2a_base64(raw, newline=False).decode()
    forms = {whole, whole.rstrip("=")}
    for skipped in (0, 2, 1):
        inner = raw[skipped : skipped + (len(raw) - skipped) // 3 * 3]
        if len(inner) >= MIN_LENGTH:
            forms.add(b2a_base64(inner, newline=False).decode())
    forms |= {form.translate(_OF_ADDRESSES) for form in forms}
    if len(whole) >= min(_WRAPPED):
        for text in (whole, b2a_base64(raw + b"\n", newline=False).decode()):
            forms |= {text[at : at + width] for width in _WRAPPED if len(text) > width for at in range(0, len(text), width)}
    return forms
