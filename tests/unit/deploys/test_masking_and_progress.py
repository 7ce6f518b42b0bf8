"""Secrets do not show in any encoding; progress is never lost."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.deploys.masking import MASK, Masker
from homeport.deploys.progress import ProgressLogs

SECRET = 'p@ss w/rd"1\\é'


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        SECRET.encode().hex(),
        quote(SECRET, safe=""),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
    ],
)
def test_a_secret_is_hidden_in_every_encoding(form: str) -> None:
    """Raw, base64, hex, URL and JSON forms are replaced, and the text around them stays."""
    assert Masker([SECRET])(f"before {form} after") == f"before {MASK} after"


@given(st.text(min_size=6, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_a_masked_text_never_holds_the_secret(secret: str, before: str, after: str) -> None:
    """Whatever the secret and its surroundings, the secret is gone (unless the mask itself contains it)."""
    assert secret in MASK or secret not in Masker([secret])(before + secret + after)


def test_words_are_not_masked() -> None:
    """Short values such as `true` stay readable."""
    assert Masker(["true", "8000", "production"])("true 8000 in production") == "true 8000 in production"


def test_every_line_of_a_multi_line_secret_is_hidden() -> None:
    """A key that is printed line by line does not show."""
    assert "BODYBODY" not in Masker(["-----BEGIN KEY-----\nBODYBODY\n-----END KEY-----"])("x BODYBODY y")


def test_a_follower_reads_from_where_it_stopped(tmp_path: Path) -> None:
    """Lines come in order with their offsets; reading again from an offset gives the rest, and ends with the last line."""
    logs = ProgressLogs(tmp_path)
    log = logs.of("d1")
    log.step("fetch", "Taking")
    first = next(iter(logs.follow("d1", finished=lambda: False, timeout=1)))
    log.write("done", result={})
    rest = list(logs.follow("d1", offset=first[0], finished=lambda: False, timeout=1))
    assert json.loads(first[1])["step"] == "fetch" and [json.loads(line)["kind"] for _, line in rest] == ["done"]


def test_a_waiting_follower_is_woken_by_a_line(tmp_path: Path) -> None:
    """Following does not poll: a line written later is delivered, and a torn last line is waited for."""
    logs = ProgressLogs(tmp_path)
    (tmp_path / "d1.jsonl").write_text('{"kind": "step", "torn')
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(line for _, line in logs.follow("d1", finished=lambda: False, timeout=30) if line))
    reader.start()
    with (tmp_path / "d1.jsonl").open("a") as file:
        file.write('": 1}\n')
    logs.of("d1").write("failed", result={})
    reader.join(60)
    assert [json.loads(line)["kind"] for line in seen] == ["step", "failed"]


def test_following_a_finished_deploy_ends(tmp_path: Path) -> None:
    """A deploy that ended without a last line does not keep its follower for ever."""
    logs = ProgressLogs(tmp_path)
    logs.of("d1").step("fetch", "Taking")
    assert len(list(logs.follow("d1", finished=lambda: True, timeout=1))) == 1
