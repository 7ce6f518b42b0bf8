"""Fixtures every layer shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


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
