"""Fixtures every layer shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
SHOWN = 15
"""Lines that the summary quotes of the failure of a test that was tried again."""


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real files and third-party suites beside the repository; skips where it is not."""
    if not SHARED.is_dir():
        pytest.skip("../shared is not there: real files and third-party suites are not part of this repository")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def nobody_kills_the_tests() -> Iterator[None]:
    """`os.kill(0, …)` would end the whole run: a test that lost the process it wants to kill fails instead."""
    kill = os.kill

    def careful(pid: int, number: int) -> None:
        assert pid > 0, f"{pid} is no process: the one to signal was not found"
        kill(pid, number)

    os.kill = careful
    yield
    os.kill = kill


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say why each test was tried again, also one that passed then: its failure is printed nowhere else."""
    reruns = terminalreporter.stats.get("rerun", [])
    if not reruns:
        return
    terminalreporter.section("why tests were tried again")
    for report in reruns:
        terminalreporter.write_line(f"{report.nodeid} ({report.when})")
        for line in reason_of(report.longreprtext):
            terminalreporter.write_line(f"    {line}")


def reason_of(text: str) -> list[str]:
    """What a failure's text says of its reason: the lines of its error, else the last ones; of many the first and the last."""
    lines = text.splitlines()
    errors = [line for line in lines if line.startswith("E ")]
    found = [*errors, *lines[-1:]] if errors else lines[-SHOWN:]
    if len(found) <= SHOWN:
        return found
    return [*found[:5], f"... {len(found) - SHOWN + 1} more lines ...", *found[-(SHOWN - 6) :]]
