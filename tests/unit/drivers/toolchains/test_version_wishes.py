"""Version wishes and the nearest of what is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.drivers.toolchains.versions import nearest_node, nearest_python, node_range, triple

NODES = [(20, 20, 2), (24, 19, 0), (22, 20, 0), (20, 18, 0)]
PYTHONS = ["3.11.2", "3.12.1", "3.13.0", "3.10.13", "3.11.7"]


@pytest.mark.parametrize(
    ("wish", "inside", "outside"),
    [
        ("20", (20, 5, 0), (21, 0, 0)),
        ("20.x", (20, 5, 0), (21, 0, 0)),
        ("v20.1.0", (20, 1, 0), (20, 1, 1)),
        ("^18.2", (18, 9, 0), (19, 0, 0)),
        ("~20.3.1", (20, 3, 9), (20, 4, 0)),
        ("~20", (20, 9, 0), (21, 0, 0)),
        (">=18", (24, 0, 0), (17, 9, 0)),
        (">= 18 < 21", (20, 9, 9), (21, 0, 0)),
        (">18", (19, 0, 0), (18, 9, 9)),
        ("<=20.1", (20, 1, 9), (20, 2, 0)),
        ("18 || >=22", (22, 1, 0), (20, 0, 0)),
        ("18.0.0 - 20", (20, 9, 0), (21, 0, 0)),
        ("^0.2.3", (0, 2, 9), (0, 3, 0)),
        ("lts/iron", (20, 1, 0), (22, 0, 0)),
        ("20.*", (20, 9, 0), (19, 0, 0)),
    ],
)
def test_node_ranges_are_read(wish: str, inside: tuple[int, int, int], outside: tuple[int, int, int]) -> None:
    """The grammar of `engines`, `.nvmrc` and `.node-version`."""
    assert node_range(wish)(inside)
    assert not node_range(wish)(outside)


@pytest.mark.parametrize(
    ("wish", "expected", "fits"),
    [
        ("", (20, 20, 2), True), ("lts/*", (20, 20, 2), True), ("22", (22, 20, 0), True), (">=18", (20, 20, 2), True),
        ("18", (20, 20, 2), False), ("16.3", (20, 20, 2), False), ("23", (24, 19, 0), False), ("30", (24, 19, 0), False),
        ("lts/hydrogen", (20, 20, 2), False), ("nonsense", (20, 20, 2), False), ("20.18.0", (20, 18, 0), True),
    ],
)  # fmt: skip
def test_the_nearest_node_is_taken(wish: str, expected: tuple[int, int, int], fits: bool) -> None:
    """What satisfies wins; else the next higher major number, else the highest."""
    assert nearest_node(wish, NODES) == (expected, fits)


@pytest.mark.parametrize(
    ("wish", "expected", "fits"),
    [
        ("", "3.12.1", True), ("3.11", "3.11.7", True), ("python-3.11.7", "3.11.7", True), ("3.11.x", "3.11.7", True),
        ("python-3.11.4", "3.11.7", False), ("3.9", "3.10.13", False), ("3.14.1", "3.13.0", False), (">=3.10,<3.12", "3.11.7", True),
        ("^3.11", "3.12.1", True), ("~3.11", "3.11.7", True), ("~=3.11.2", "3.11.7", True), ("==3.13.*", "3.13.0", True),
        ("3", "3.12.1", True), ("3.13-dev", "3.13.0", True), ("nonsense", "3.12.1", False), ("2.7", "3.10.13", False),
        ("3.11.2", "3.11.2", True),
    ],
)  # fmt: skip
def test_the_nearest_python_is_taken(wish: str, expected: str, fits: bool) -> None:
    """What satisfies wins; else the nearest minor number."""
    assert nearest_python(wish, PYTHONS) == (expected, fits)


@given(st.text(max_size=60))
def test_any_wish_has_an_answer(wish: str) -> None:
    """No text makes choosing a version fail."""
    assert nearest_node(wish, NODES)[0] in NODES
    assert nearest_python(wish, PYTHONS)[0] in PYTHONS


def test_what_is_no_version_is_refused() -> None:
    """Text without a number is no version."""
    with pytest.raises(ValueError, match="not a version"):
        triple("abc")
