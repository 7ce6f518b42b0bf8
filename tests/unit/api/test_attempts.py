"""Guessing keys is slow for whoever guesses, and the owner is never locked out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import pytest
from doors import Door, open_door

from homeport.api.auth import MAX_ADDRESSES, MAX_FAILED, MAX_FAILED_IN_ALL, WINDOW, Attempts, TooManyAttempts


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_ten_wrong_keys_a_minute_and_then_nobody_looks() -> None:
    """The eleventh wrong key within a minute is refused unseen; after the minute keys are looked at again."""
    clock = Clock()
    attempts = Attempts(clock)
    for number in range(MAX_FAILED):
        attempts.check("a", f"wrong {number}")
        attempts.failed("a")
    with pytest.raises(TooManyAttempts):
        attempts.check("a", "perhaps right")
    attempts.check("b", "another address")
    clock.now += WINDOW + 1
    attempts.check("a", "perhaps right")


def test_a_key_that_worked_is_let_through_while_others_guess() -> None:
    """Whoever fills an address with wrong keys does not lock out a key that has worked."""
    attempts = Attempts(Clock())
    attempts.worked("the owner's")
    for _ in range(100):
        attempts.failed("a")
    attempts.check("a", "the owner's")
    with pytest.raises(TooManyAttempts):
        attempts.check("a", "another")


def test_many_addresses_together_are_bounded_and_so_is_memory() -> None:
    """A thousand addresses guess no more than the limit of all, and counters do not grow without end."""
    attempts = Attempts(Clock())
    tries = 0
    for address in range(1000):
        try:
            for _ in range(MAX_FAILED):
                attempts.check(str(address), "guess")
                attempts.failed(str(address))
                tries += 1
        except TooManyAttempts:
            continue
    assert tries == MAX_FAILED_IN_ALL
    for address in range(MAX_ADDRESSES + 500):
        attempts.failed(f"x{address}")
    assert len(attempts._failed) == MAX_ADDRESSES and len(attempts._all) == MAX_FAILED_IN_ALL


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("home")) as door:
        yield door


def test_guessing_over_the_wire_ends_with_429(door: Door) -> None:
    """A hundred wrong keys get ten 401 and then 429 with a time to wait; the key in use goes on working from the same address."""
    assert door.ask("GET", "/api/v1/keys", source="127.3.0.1").status == 200
    replies = [door.ask("GET", "/api/v1/keys", key=f"hp_{number}", source="127.3.0.1") for number in range(100)]
    assert [r.status for r in replies] == [401] * MAX_FAILED + [429] * (100 - MAX_FAILED)
    assert replies[-1].headers["retry-after"] == "60" and replies[-1].body["code"] == "too-many-attempts"
    assert door.ask("GET", "/api/v1/keys", source="127.3.0.1").status == 200
    fresh = door.key("read")
    assert door.ask("GET", "/api/v1/environments", key=fresh, source="127.3.0.1").status == 429
    assert door.ask("GET", "/api/v1/environments", key=fresh, source="127.3.0.9").status == 200


def test_the_first_run_token_is_counted_too(door: Door) -> None:
    """Guessing the one-time token is limited like guessing a key."""
    statuses = [door.ask("POST", "/api/v1/first-run", {"token": f"t{n}"}, key=None, source="127.3.0.2").status for n in range(12)]
    assert statuses == [401] * MAX_FAILED + [429] * 2


def test_a_wrong_key_takes_as_long_as_one_that_begins_right(door: Door) -> None:
    """Keys are looked up by digest: what a wrong key shares with a right one does not change the time by 5 ms."""
    store = door.platform.store.keys
    right = door.key("read")

    def median(text: str) -> float:
        times = []
        for _ in range(60):
            began = time.perf_counter()
            assert store.find(text) is None
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    assert abs(median(right[:-1] + "!") - median("hp_" + "x" * 43)) < 0.005


def test_a_rotated_key_and_its_heir_work_side_by_side_for_the_overlap(door: Door) -> None:
    """After a rotation both keys work with the same scopes; with no overlap the old one ends at once; an ended one is not rotated."""
    row, old = door.platform.store.keys.create("ci", ["deploy"])
    made = door.ask("POST", f"/api/v1/keys/{row.id}/rotate", {"overlap": "1h"})
    assert made.status == 201
    for key in (old, made.body["key"]):
        assert door.ask("POST", "/api/v1/plan", {}, key=key, source="127.3.0.5").status == 422
    listed = {k["id"]: k for k in door.ask("GET", "/api/v1/keys").body}
    assert listed[row.id]["expires_at"] and not listed[made.body["id"]]["expires_at"] and listed[made.body["id"]]["scopes"] == ["deploy"]
    again = door.ask("POST", f"/api/v1/keys/{made.body['id']}/rotate", {"overlap": 0})
    assert door.ask("POST", "/api/v1/plan", {}, key=made.body["key"], source="127.3.0.6").status == 401
    assert door.ask("POST", "/api/v1/plan", {}, key=again.body["key"], source="127.3.0.5").status == 422
    assert door.ask("POST", f"/api/v1/keys/{made.body['id']}/rotate", {}).status == 422
    actions = [r.action for r in door.platform.store.audit.list(limit=10)]
    assert actions.count("key-rotate") >= 2
