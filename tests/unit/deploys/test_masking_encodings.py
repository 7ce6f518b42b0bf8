"""Secrets disappear from text in every encoding they are usually met in, and nothing else does."""

from __future__ import annotations

import base64
import html
import json
import re
import string
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.deploys import masking
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
    "signs": "a!b'c(d)e*f~g&h=i+j,k;l/m:n@o$p#q",
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
    "json of Go": lambda s: json.dumps(s, ensure_ascii=False).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
    "json of PHP": lambda s: json.dumps(s).replace("/", "\\/"),
    "json in capitals": lambda s: re.sub(r"\\u[0-9a-f]{4}", lambda found: "\\u" + found[0][2:].upper(), json.dumps(s)),
    "encodeURIComponent": lambda s: quote(s, safe="!'()*"),
    "encodeURI": lambda s: quote(s, safe=";,/?:@&=+$#!'()*"),
    "url in url": lambda s: quote(quote(s, safe=""), safe=""),
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


@pytest.mark.parametrize("width", [64, 76])
@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_wrapped_base64_is_masked_line_by_line(width: int, ending: bytes) -> None:
    """What `base64` prints of a long secret, or a PEM writer, is masked on each of its lines."""
    secret = "".join(f"canary{number}" for number in range(40))
    text = base64.b64encode(secret.encode() + ending).decode()
    mask = Masker([secret])
    lines = [mask(text[at : at + width]) for at in range(0, len(text), width)]
    assert all(line == MASK for line in lines[:-1])
    assert lines[-1] == MASK or len(lines[-1]) < 6


@given(st.text(string.ascii_letters + string.digits + "_.-", min_size=6, max_size=120))
def test_plain_values_are_looked_for_in_every_form_that_others_are(value: str) -> None:
    """A value without special signs is written as it is by JSON, HTML, Python and addresses, so leaving those out leaves nothing out."""
    forms = masking._forms(value)
    wanted = masking._json(value) | masking._url(value) | {html.escape(value), html.escape(value, quote=False), repr(value)[1:-1]}
    assert {form for form in wanted if len(form) >= masking.MIN_LENGTH} <= forms


def test_a_line_costs_the_same_with_a_thousand_secrets() -> None:
    """Many secrets do not make reading logs slow: the text is looked at once, whatever is looked for."""
    line = "2026-11-21 02:19:10 INFO app request GET /api/v1/things?x=1 200 in 12 ms user=42 trace=abcdef0123456789 " * 3

    def seconds(count: int) -> float:
        mask = Masker(f"secret number {number} of very many" for number in range(count))
        began = time.perf_counter()
        for _ in range(300):
            assert mask(line) == line
        return time.perf_counter() - began

    few = min(seconds(10) for _ in range(3))
    assert min(seconds(1000) for _ in range(3)) < 5 * few + 0.02
