"""Version wishes as projects write them, and the nearest of the versions that are there.

Python wishes follow PEP 440, plus Heroku's `python-3.11.4`, Poetry's `^3.11` and a bare `3.11` meaning any patch of it.
Node wishes follow node-semver's ranges (caret, tilde, hyphen, x-ranges, `||`), plus nvm's `lts/*` and `lts/<name>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

Triple = tuple[int, int, int]

LTS_NAMES = {"argon": 4, "boron": 6, "carbon": 8, "dubnium": 10, "erbium": 12, "fermium": 14, "gallium": 16, "hydrogen": 18, "iron": 20, "jod": 22, "krypton": 24}  # fmt: skip  # noqa: E501
NEWEST = {"", "*", "x", "node", "latest", "current", "stable", "lts", "lts/*", "default", "auto", "system"}

PYTHON_ORDER = ("3.12", "3.13", "3.11", "3.14", "3.10", "3.9")
"""Which minor version is taken when several would do: the ones most packages have wheels for come first."""


def triple(text: str) -> Triple:
    """`v20.11.1` as numbers; missing parts are 0. Raises ValueError."""
    match = re.match(r"^\s*[v=]*(\d+)(?:\.(\d+))?(?:\.(\d+))?", text)
    if not match:
        raise ValueError(f"{text[:40]!r} is not a version")
    return int(match[1]), int(match[2] or 0), int(match[3] or 0)


# Node


def node_range(wish: str) -> Callable[[Triple], bool]:
    """A test for the range. Raises ValueError for text that is none."""
    text = wish.strip().lower()
    if text in NEWEST:
        return lambda _version: True
    if text.startswith("lts/") and text[4:] in LTS_NAMES:
        major = LTS_NAMES[text[4:]]
        return lambda version: version[0] == major
    tests = [_node_and(part) for part in text.split("||")]
    return lambda version: any(test(version) for test in tests)


def _node_and(text: str) -> Callable[[Triple], bool]:
    hyphen = re.match(r"^\s*(\S+)\s+-\s+(\S+)\s*$", text)
    if hyphen:
        low, high = triple(hyphen[1]), _above(hyphen[2])
        return lambda version: low <= version < high
    words = re.sub(r"([<>=~^]+)\s+", r"\1", text.replace(",", " ")).split()
    tests = [_node_one(word) for word in words]
    return lambda version: all(test(version) for test in tests)


def _node_one(word: str) -> Callable[[Triple], bool]:
    match = re.match(r"^([<>=~^]*)v?([\dx*][\w.*+-]*)$", word)
    if not match:
        raise ValueError(f"{word[:40]!r} is not a version range")
    operator, version = match[1], match[2]
    if version[0] in "x*":
        return lambda _version: True
    low, above = triple(version), _above(version)
    match operator:
        case ">=":
            return lambda found: found >= low
        case ">":
            return lambda found: found >= above
        case "<":
            return lambda found: found < low
        case "<=":
            return lambda found: found < above
        case "^":
            limit = (low[0] + 1, 0, 0) if low[0] else ((0, low[1] + 1, 0) if low[1] else above)
            return lambda found: low <= found < limit
        case "~" | "~>":
            limit = (low[0], low[1] + 1, 0) if version.count(".") else (low[0] + 1, 0, 0)
            return lambda found: low <= found < limit
        case "" | "=":
            return lambda found: low <= found < above
    raise ValueError(f"{word[:40]!r} is not a version range")


def _above(text: str) -> Triple:
    """The first version after all that `text` covers: 20 -> 21.0.0, 20.1 -> 20.2.0, 20.1.3 -> 20.1.4."""
    parts = [part for part in re.split(r"\.", text.lstrip("v=")) if part and part[0] not in "x*"][:3]
    low = triple(text)
    if len(parts) <= 1:
        return low[0] + 1, 0, 0
    return (low[0], low[1] + 1, 0) if len(parts) == 2 else (low[0], low[1], low[2] + 1)


def nearest_node(wish: str, have: Sequence[Triple]) -> tuple[Triple, bool]:
    """The first of `have` that satisfies the wish, else the one nearest to it; and whether it satisfies.

    Nearest: the first with the lowest major number above the wish's (Node keeps what worked), else the highest.
    """
    try:
        fits = node_range(wish)
    except ValueError:
        return have[0], False
    for version in have:
        if fits(version):
            return version, True
    number = re.search(r"\d+", wish)
    wanted = LTS_NAMES.get(wish.strip().lower()[4:], int(number[0]) if number else 0)
    higher = [version for version in have if version[0] >= wanted]
    return (min(higher, key=lambda version: version[0]) if higher else max(have)), False


# Python


def python_specifier(wish: str) -> SpecifierSet:
    """The wish as a PEP 440 specifier. Raises ValueError for text that is none."""
    text = wish.strip().lower().removeprefix("python").lstrip("-= ").strip() or ">=3"
    text = re.sub(r"\.x\b", "", text)
    text = re.sub(r"-dev$|t$", "", text)
    if re.fullmatch(r"\d+", text) or re.fullmatch(r"\d+\.\d+", text):
        text = f"=={text}.*"
    elif re.fullmatch(r"\d+\.\d+\.\d+[a-z0-9]*|\d+(\.\d+)*\.\*", text):
        text = f"=={text}"
    parts = [_python_part(part.strip()) for part in text.split(",") if part.strip()]
    try:
        return SpecifierSet(",".join(parts))
    except InvalidSpecifier as error:
        raise ValueError(f"{wish[:40]!r} is not a Python version") from error


def _python_part(part: str) -> str:
    match = re.fullmatch(r"([\^~])\s*(\d+)(?:\.(\d+))?(?:\.(\d+))?", part)
    if not match:
        return part
    low = ".".join(number for number in match.groups()[1:] if number is not None)
    if match[1] == "^":
        return f">={low},<{int(match[2]) + 1}"
    return f">={low},<{match[2]}.{int(match[3] or 0) + 1}"


def nearest_python(wish: str, have: Sequence[str]) -> tuple[str, bool]:
    """Of the versions that are there, the best that satisfies the wish, else the one with the nearest minor number."""

    def rank(version: str) -> tuple[int, Version]:
        minor = ".".join(version.split(".")[:2])
        return (-PYTHON_ORDER.index(minor) if minor in PYTHON_ORDER else -99, Version(version))

    ranked = sorted(have, key=rank, reverse=True)
    if not wish.strip():
        return ranked[0], True
    try:
        specifier = python_specifier(wish)
        fitting = [version for version in ranked if specifier.contains(version, prereleases=True)]
    except (ValueError, InvalidVersion):
        return ranked[0], False
    if fitting:
        return fitting[0], True
    number = re.search(r"(\d+)(?:\.(\d+))?", wish)
    minor = int(number[2] or 0) if number else 11
    return min(ranked, key=lambda version: (abs(triple(version)[1] - minor), -triple(version)[1])), False
