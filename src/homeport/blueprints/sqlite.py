"""SQLite databases that an application keeps in its own source folder.

On a laptop that works; on a platform every release gets a fresh copy of the source, and the data would be gone. Where the source says
plainly which file it is, the file is put on a disk of its own, so that it outlives releases and is shared with release commands.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from homeport.blueprints.source import SourceTree
from homeport.model.service import Disk, Rollout, Service, StaticService
from homeport.model.spec import Spec

MAX_FILES = 60
"""Source files looked at per service."""

DISK = "sqlite"
_DJANGO = re.compile(r"""BASE_DIR\s*(?:/|,)\s*["']([\w./-]+\.(?:sqlite3?|db))["']""")
_URL = re.compile(r"""sqlite(?:\+\w+)?:///(?:\./)?([\w-][\w./-]*\.(?:sqlite3?|db))["'?]""")
_ENGINE = re.compile(r"django\.db\.backends\.sqlite3|sqlite(?:\+\w+)?:///")
_FLASK = re.compile(r"flask_sqlalchemy", re.IGNORECASE)


def keep_sqlite(spec: Spec, tree: SourceTree) -> tuple[Spec, tuple[str, ...]]:
    """The spec with a disk for every SQLite file found in a service's source, and a note for each.

    Services that have a disk or a `DATABASE_URL` already know where their data is and stay as they are.
    """
    services: dict[str, Service] = {}
    notes: list[str] = []
    found: dict[str, tuple[str, ...]] = {}
    for name, service in spec.services.items():
        settled = service.disks or "DATABASE_URL" in service.env or isinstance(service, StaticService) or service.build.builder == "image"
        if not settled and service.root not in found:
            found[service.root] = sqlite_files(tree, service.root)
        files = () if settled else found[service.root]
        services[name] = (
            service.model_copy(update={"disks": (_disk(service.root, files),), "rollout": _beside(service.rollout)}) if files else service
        )
        if files:
            notes.append(f"{name}: {', '.join(files)} is kept on a disk, so that its data outlives releases.")
    return (spec.model_copy(update={"services": services}) if notes else spec), tuple(notes)


def _beside(rollout: Rollout) -> Rollout:
    """SQLite locks its file itself, so old and new may run side by side for the moment of a switch."""
    return rollout if rollout.strategy else rollout.model_copy(update={"strategy": "overlap"})


def _disk(root: str, files: tuple[str, ...]) -> Disk:
    return Disk(name=DISK, mount_path=".homeport-data", files=tuple(str(PurePosixPath(root) / file) for file in files))


def sqlite_files(tree: SourceTree, root: str) -> tuple[str, ...]:
    """SQLite files that Python source below a folder names, relative to that folder."""
    found: dict[str, None] = {}
    for path in _python_files(tree, root):
        text = tree.text(path) or ""
        if _ENGINE.search(text):
            for pattern in (_DJANGO, _URL):
                for name in pattern.findall(text):
                    found[name] = None
                    if pattern is _URL and _FLASK.search(text) and "/" not in name:
                        found[f"instance/{name}"] = None
    return tuple(name for name in found if ".." not in PurePosixPath(name).parts)


def _python_files(tree: SourceTree, root: str) -> list[str]:
    queue: list[str] = [root.strip("/")]
    files: list[str] = []
    deepest = root.count("/") + 3
    while queue and len(files) < MAX_FILES:
        folder = queue.pop(0)
        for name in tree.list(folder):
            path = f"{folder}/{name}" if folder else name
            if name.endswith(".py"):
                files.append(path)
            elif name.endswith("/") and path.count("/") <= deepest and not name.startswith((".", "node_modules", "venv", "test")):
                queue.append(path.rstrip("/"))
    return files[:MAX_FILES]
