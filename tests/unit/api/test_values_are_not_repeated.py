"""What a request sent is not repeated in the answer that refuses it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doors import Door, open_door

CANARY = "canary-3f1c77aa"
ENV = "/api/v1/projects/shop/environments/production/env"


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with open_door(tmp_path) as door:
        yield door


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (ENV, {"set": {"A": [CANARY]}}),
        (ENV, {"set": {"A": {"nested": CANARY}}}),
        (ENV, {"set": {"A": CANARY}, "more": CANARY}),
        (ENV, {"set": {f"K{number}": CANARY for number in range(20_001)}}),
        (ENV, {"set": {"A": CANARY, "B C": CANARY}}),
        (ENV, {"set": {"A": f"{CANARY}\0"}}),
        (ENV, {"set": {"A": f"{CANARY}\ud800"}}),
        (ENV, {"set": CANARY}),
        ("/api/v1/stores", {"name": "x", "kind": "vault", "credential": [CANARY]}),
        ("/api/v1/first-run", {"token": [CANARY]}),
        ("/api/v1/first-run", {"token": CANARY * 50}),
    ],
)
def test_a_refused_request_is_not_repeated(door: Door, path: str, body: Any) -> None:
    """Each refusal names the place and the fault, as Homeport's errors do, and holds nothing of the values."""
    answer = door.ask("POST", path, body)
    text = json.dumps(answer.body)
    assert answer.status == 422, text[:500]
    assert CANARY not in text and len(text) < 5000
    assert answer.body["code"] in ("usage", "env-invalid") and answer.body["why"] and answer.body["fix"]
