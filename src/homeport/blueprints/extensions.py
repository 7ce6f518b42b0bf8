"""What a project's source says of its PostgreSQL databases elsewhere than at them: extensions that its migrations make, which decide the
engine that can serve, and addresses of a pool that its variables ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from homeport.blueprints.source import SourceTree
from homeport.model.addon import AddOn, Postgres
from homeport.model.env import FromAddOn, Template
from homeport.model.spec import Spec

MAX_FOLDERS = 2_000
MAX_FILES = 500
"""Migrations that are read; a project with more has its extensions in the first ones."""
LEFT_OUT = frozenset({
    "node_modules", "vendor", "dist", "build", "target", "venv", "env", "docs", "doc", "test", "tests", "spec", "fixtures", "examples",
    "__pycache__", "site-packages", "coverage", "public", "static", "assets",
})  # fmt: skip
MIGRATIONS = frozenset({"migrations", "migration", "migrate", "versions", "alembic", "db", "drizzle", "prisma", "sql", "schema"})
"""Folders whose programs are migrations; a `.sql` file is read wherever it lies."""
CODE = (".py", ".rb", ".ts", ".js", ".mjs", ".exs", ".php", ".go", ".kt", ".java", ".xml", ".yml", ".yaml")
EVERYWHERE = frozenset({"plpgsql"})

_SQL = re.compile(r"""\bcreate\s+extension\s+(?:if\s+not\s+exists\s+)?[\\"'`]*([a-z][a-z0-9_-]*)""", re.IGNORECASE)
_RAILS = re.compile(r"""\benable_extension\s*\(?\s*["':](?:pg_catalog\.)?([a-z][a-z0-9_-]*)""")
_DJANGO = re.compile(r"""\bCreateExtension\(\s*["']([a-z][a-z0-9_-]*)["']""")
_DJANGO_NAMED = {
    "TrigramExtension": "pg_trgm", "UnaccentExtension": "unaccent", "HStoreExtension": "hstore", "CITextExtension": "citext",
    "CryptoExtension": "pgcrypto", "BtreeGinExtension": "btree_gin", "BtreeGistExtension": "btree_gist", "BloomExtension": "bloom",
    "VectorExtension": "vector",
}  # fmt: skip
_PRISMA = re.compile(r"^\s*extensions\s*=\s*\[(.*?)\]\s*$", re.MULTILINE | re.DOTALL)
_PRISMA_ONE = re.compile(r"""(\w+)\s*(?:\(([^)]*)\))?""")
_COMMENT = re.compile(r"^\s*(?:--|#|//).*$", re.MULTILINE)


def made_extensions(tree: SourceTree) -> dict[str, str]:
    """Extensions by name, with the file that makes each."""
    found: dict[str, str] = {}
    for path in _migrations(tree):
        try:
            text = tree.text(path) or ""
        except ValueError:
            continue  # larger than any migration
        for name in extensions_of(path, text):
            found.setdefault(name, path)
    return found


def extensions_of(path: str, text: str) -> list[str]:
    """The extensions that one file makes."""
    text = _COMMENT.sub("", text)
    names = [name.lower() for name in _SQL.findall(text)]
    if path.endswith(".rb"):
        names += _RAILS.findall(text)
    if path.endswith(".py"):
        names += [*_DJANGO.findall(text), *(name for word, name in _DJANGO_NAMED.items() if f"{word}(" in text)]
    if path.endswith(".prisma"):
        for wanted in _PRISMA.findall(text):
            for name, options in _PRISMA_ONE.findall(wanted):
                mapped = re.search(r"""map:\s*"([^"]+)""", options)
                names.append(mapped[1] if mapped else name)
    return [name for name in dict.fromkeys(names) if name not in EVERYWHERE]


def with_made_extensions(spec: Spec, tree: SourceTree) -> Spec:
    """The spec with what migrations make noted at its PostgreSQL databases, and with the pools that variables refer to."""
    if not any(isinstance(addon, Postgres) for addon in spec.addons.values()):
        return spec
    names, pooled = tuple(sorted(made_extensions(tree))), _pooled(spec)
    addons: dict[str, AddOn] = {
        name: addon.model_copy(update={"extensions_made": names, "pooling": addon.pooling or name in pooled})
        if isinstance(addon, Postgres)
        else addon
        for name, addon in spec.addons.items()
    }
    return spec.model_copy(update={"addons": addons})


def _pooled(spec: Spec) -> set[str]:
    """Add-ons whose pool some variable asks for, as Render's `connectionPoolString` does."""
    environments = [holder.env for holder in (*spec.services.values(), *spec.env_groups.values())]
    values = [value for env in environments for value in env.values()]
    parts = [part for value in values for part in (value.parts if isinstance(value, Template) else (value,))]
    return {part.addon for part in parts if isinstance(part, FromAddOn) and part.property == "pooled-url"}


def _migrations(tree: SourceTree) -> Iterator[str]:
    """Files that may change a schema, the shallowest first."""
    folders, seen, given = [""], 0, 0
    while folders and seen < MAX_FOLDERS:
        folder = folders.pop(0)
        seen += 1
        below = bool(MIGRATIONS & set(folder.split("/")))
        for name in tree.list(folder):
            path = f"{folder}/{name}" if folder else name
            if name.endswith("/"):
                if not name.startswith(".") and name[:-1].lower() not in LEFT_OUT:
                    folders.append(path[:-1])
            elif name.endswith((".sql", ".prisma")) or (below and name.endswith(CODE)):
                given += 1
                if given > MAX_FILES:
                    return
                yield path
