"""What readers of platform files share: opening a file of the tree, closing its account, walking its folders."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from homeport.blueprints.dialect import open_blueprint, validation_problems
from homeport.blueprints.document import Document, parse_json, parse_toml, parse_yaml
from homeport.blueprints.naming import bare_name
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import Ledger, View
from homeport.model.base import parse_duration, slug
from homeport.model.reading import Reading
from homeport.model.spec import Spec

_SKIPPED = frozenset({"node_modules", ".git", ".next", ".vercel", ".netlify", ".wrangler", "dist", "__pycache__", ".venv", "venv"})
MAX_LISTED = 5_000
"""Files looked at below one folder; more are not listed."""

Parser = Callable[[str, str], Document]


def parser_for(path: str) -> Parser:
    """The parser that a file name calls for; JSON (which allows comments) when it says nothing."""
    suffix = PurePosixPath(bare_name(path)).suffix.lower()
    return parse_toml if suffix == ".toml" else parse_yaml if suffix in (".yml", ".yaml") else parse_json


def open_file(tree: SourceTree, path: str, parser: Parser | None = None) -> View:
    """Parse one file of the tree to a view of its top mapping. Raises BlueprintInvalid."""
    document = (parser or parser_for(path))(path, open_blueprint(tree, path))
    return View(Ledger(document), document.data)


def finish(view: View, dialect: str, build: Callable[[], Spec], warnings: list[str] | None = None) -> Reading:
    """Build the spec, then close the account of the file.

    `build` is called once. A value that the model refuses becomes a located problem, never a traceback.
    Raises BlueprintInvalid with every problem found.
    """
    ledger = view.ledger
    try:
        spec = build()
    except ValidationError as error:
        raise validation_problems(error, ledger) from error
    keys = ledger.close()
    file = ledger.document.file
    return Reading(file=file, dialect=dialect, spec=spec, keys=keys, warnings=tuple(dict.fromkeys(warnings or ())))


def parent_of(path: str) -> str:
    """The folder of a file; empty for the root of the tree."""
    folder = str(PurePosixPath(path).parent)
    return "" if folder == "." else folder


def join(*parts: str) -> str:
    """Folders joined and cleaned, relative to the root of the tree; `..` above the root stays at the root."""
    kept: list[str] = []
    for piece in "/".join(parts).split("/"):
        if piece == "..":
            del kept[-1:]
        elif piece not in ("", "."):
            kept.append(piece)
    return "/".join(kept)


def files_below(tree: SourceTree, folder: str) -> list[str]:
    """Paths of all files below a folder, relative to the root of the tree, sorted; at most `MAX_LISTED`."""
    found: list[str] = []
    open_folders = [(folder, 0)]
    while open_folders and len(found) < MAX_LISTED:
        here, depth = open_folders.pop()
        for name in tree.list(here):
            if not name.endswith("/"):
                found.append(join(here, name))
            elif depth < 12 and name[:-1] not in _SKIPPED:
                open_folders.append((join(here, name), depth + 1))
    return sorted(found)[:MAX_LISTED]


def glob_matches(pattern: str, path: str) -> bool:
    """Whether a path matches a glob in which `**` crosses folders and `*` does not (minimatch, without braces)."""
    pattern = join(pattern)
    if "*" not in pattern and "?" not in pattern:
        return pattern == path
    marked = pattern.replace("**/", "\1").replace("**", "\2")
    text = "".join(
        "(?:.*/)?" if c == "\1" else ".*" if c == "\2" else "[^/]*" if c == "*" else "[^/]" if c == "?" else re.escape(c) for c in marked
    )
    return re.fullmatch(text, path) is not None


def package_json(tree: SourceTree, folder: str) -> dict[str, Any]:
    """The parsed package.json of a folder; empty when there is none or it is broken (the build says so)."""
    try:
        data = json.loads(tree.text(join(folder, "package.json")) or "{}")
    except (ValueError, OSError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def dependencies(tree: SourceTree, folder: str) -> set[str]:
    """Names of all packages that a folder's package.json asks for."""
    package = package_json(tree, folder)
    tables = (package.get(key) for key in ("dependencies", "devDependencies"))
    return {str(name) for table in tables if isinstance(table, dict) for name in table}


def unique(name: str, taken: Any) -> str:
    """A valid name from any text that is not taken yet: `api`, `api-2`, …"""
    base, number = slug(name), 2
    candidate = base
    while candidate in taken:
        candidate = f"{base[:58].rstrip('-')}-{number}"
        number += 1
    return candidate


def duration(view: View, key: str) -> timedelta | None:
    """A length of time under a key, honoured; None when absent. What is none is a located problem."""
    value = view.take(key)
    if value is None:
        return None
    try:
        result = parse_duration(value)
    except (ValueError, OverflowError):
        result = None
    if isinstance(result, timedelta):
        return result
    view.problem(key, f"a length of time such as `30s` is expected here, not {str(value)[:40]!r}")
    return None


_BROKEN = ("missing )", "unbalanced parenthesis", "unterminated character set", "nothing to repeat")


def broken_pattern(pattern: str) -> bool:
    """Whether a regular expression is broken in every dialect: brackets without end, a repetition of nothing.

    JavaScript and Go know more than Python does (`\\p{L}`), so other complaints of Python's compiler count for nothing.
    """
    if len(pattern) > 4096:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(re.sub(r"\(\?<(?![=!])", "(?P<", pattern))
    except re.error as error:
        return str(error.msg).startswith(_BROKEN)
    except (RecursionError, OverflowError):
        return True
    return False
