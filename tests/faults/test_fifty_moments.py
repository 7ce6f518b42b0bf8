"""Fifty moments out of a stretch of writes: each recovery holds exactly the transactions that were committed before it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.moments import recover, write
from rooms import House, house_in


def write_and_recover(house: House, seconds: float, moments: int) -> dict[str, object]:
    """Write for a while with two base backups in it, and recover to random moments."""
    place = house.add("pitr")
    return recover(house.room, place, write(house.room, place, seconds, 2, 0.002), moments)


@pytest.mark.xdist_group("backups-in-time")
@pytest.mark.timeout(300)
def test_random_moments_are_exact_to_the_transaction(tmp_path: Path) -> None:
    """Five moments in a few seconds of writes: all exact."""
    with house_in(tmp_path / "home") as house:
        found = write_and_recover(house, 3, 5)
    assert found["exact"] == 5, found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_random_moments_are_exact_to_the_transaction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fifty moments in a minute of writes: 50 of 50 exact; the figures are printed as JSON."""
    with house_in(tmp_path / "home") as house:
        found = write_and_recover(house, 60, 50)
    with capsys.disabled():
        print(json.dumps({"pitr": found}))
    assert found["exact"] == 50, found
