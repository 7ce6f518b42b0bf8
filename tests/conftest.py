"""Fixtures every layer shares."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real files and third-party suites beside the repository; skips where it is not."""
    if not SHARED.is_dir():
        pytest.skip("../shared is not there: real files and third-party suites are not part of this repository")
    return SHARED
