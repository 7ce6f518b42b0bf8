"""Counting requests in a log that grows, turns over and holds anything."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from homeport.drivers.edge.access_log import AccessLog

START = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "edge/log/access.jsonl"
    path.parent.mkdir(parents=True)
    return path


def row(seconds: float, status: int = 200, site: str = "web", release: str = "r1") -> str:
    return json.dumps({"time": START.timestamp() + seconds, "site": site, "release": release, "status": status, "seconds": 0.5}) + "\n"


def add(path: Path, *rows: str) -> None:
    with path.open("a") as file:
        file.write("".join(rows))


def test_requests_and_errors_of_a_site_are_counted_as_they_come(log: Path, tmp_path: Path) -> None:
    """Only the site, only since then, only what was added since the last call is read."""
    counts = AccessLog(tmp_path)
    assert counts.counts("web", START) == (0, 0)
    add(log, row(-60), row(1), row(2, 502), row(2, 200, "other"), row(3, 404))
    assert counts.counts("web", START) == (3, 1)
    add(log, row(4, 500, release="r2"))
    assert counts.counts("web", START) == (4, 2)
    assert counts.counts("web", START, "r2") == (1, 1)
    assert counts.counts("web", START + timedelta(seconds=3)) == (2, 1)
    assert counts.traffic("web", START).seconds == pytest.approx(2.0)
    counts.close()


def test_half_lines_and_garbage_do_no_harm(log: Path, tmp_path: Path) -> None:
    """A line is counted when it is whole; what is no line of ours is passed over."""
    counts = AccessLog(tmp_path)
    whole = row(1, 503)
    add(log, "no json\n", "{}\n", "[1]\n", whole[:20])
    assert counts.counts("web", START) == (0, 0)
    add(log, whole[20:])
    assert counts.counts("web", START) == (1, 1)
    counts.close()


def test_counting_goes_on_through_rotation_and_truncation(log: Path, tmp_path: Path) -> None:
    """Lines written to the old file after the last look are counted too."""
    counts = AccessLog(tmp_path)
    add(log, row(1))
    assert counts.counts("web", START) == (1, 0)
    add(log, row(2))
    log.rename(log.with_name("access.jsonl.1"))
    add(log.with_name("access.jsonl.1"), row(3))
    assert counts.counts("web", START) == (3, 0)
    add(log, row(4))
    assert counts.counts("web", START) == (4, 0)
    log.write_text("")
    assert counts.counts("web", START) == (4, 0)
    add(log, row(5))
    assert counts.counts("web", START) == (5, 0)
    counts.close()


def test_a_long_log_is_entered_in_its_middle(log: Path, tmp_path: Path) -> None:
    """The first call finds the time by bisection instead of reading everything."""
    with log.open("w") as file:
        file.writelines(row(number) for number in range(20_000))
    counts = AccessLog(tmp_path)
    assert counts.counts("web", START + timedelta(seconds=19_990)) == (10, 0)
    assert sum(len(buckets) for buckets in counts._counts.values()) < 30
    counts.close()
