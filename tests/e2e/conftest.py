"""One home per module: starting a control plane takes longer than most tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from homes import Home, home_in


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the module's applications."""
    return tmp_path_factory.mktemp("apps")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with a running control plane; its `down` must leave nothing behind."""
    with home_in(tmp_path_factory.mktemp("home") / "h") as home:
        home.serve()
        yield home
