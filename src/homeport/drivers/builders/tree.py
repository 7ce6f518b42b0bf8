"""The trees a build works on: the source's files put in place, the content's digest, and what a static site leaves behind."""

# ruff: noqa: PTH115, PTH123

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

from homeport.drivers.builders.detect import PUBLISH
from homeport.drivers.files import copy_file, link_or_copy, remove_tree
from homeport.drivers.sources.snapshot import Entry, Manifest, digest_of


def read_manifest(source: Path, digest: str) -> Manifest:
    """The manifest that was kept when the snapshot was taken; a folder without one is read."""
    try:
        raw = json.loads((source.parent / ".manifests" / f"{digest}.json").read_bytes())
        return {path: Entry(*values) for path, values in raw.items()}
    except (OSError, ValueError, TypeError):
        return walk(source, set())


def walk(folder: Path, left_out: set[str]) -> Manifest:
    """The manifest of a folder as it is now, without the named paths."""
    found: Manifest = {}
    for here, folders, names in os.walk(folder):
        base = os.path.relpath(here, folder)
        prefix = "" if base == "." else base + "/"
        folders[:] = [name for name in folders if prefix + name not in left_out]
        for name in [*names, *(name for name in folders if os.path.islink(f"{here}/{name}"))]:  # noqa: PTH114
            if prefix + name not in left_out:
                found[prefix + name] = _entry(f"{here}/{name}")
    return found


def _entry(path: str) -> Entry:
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        return Entry("l", os.readlink(path), 0)
    with open(path, "rb") as file:
        return Entry("x" if info.st_mode & 0o111 else "f", hashlib.file_digest(file, "sha256").hexdigest(), info.st_size)


def tree_digest(folder: Path, left_out: set[str]) -> str:
    """The content's digest, computed the way a source's is."""
    return digest_of(walk(folder, left_out))


def place(source: Path, target: Path, files: Manifest, *, link: bool) -> None:
    """Put the files of a source into an existing folder: linked when nobody will write to them, else as writable copies."""
    made: set[str] = {""}
    for path, entry in files.items():
        parent = path.rpartition("/")[0]
        if parent not in made:
            (target / parent).mkdir(parents=True, exist_ok=True)
            made.add(parent)
        to = target / path
        if entry.kind == "l":
            to.symlink_to(entry.content)
        elif link:
            link_or_copy(source / path, to, 0o555 if entry.kind == "x" else 0o444)
        else:
            copy_file(source / path, to)
            to.chmod(0o755 if entry.kind == "x" else 0o644)


def published(here: Path, publish: str, built: bool) -> Path | None:
    """The folder a static site is served from: the named one, else the usual ones, else the service's folder; None if not there."""
    if publish:
        found = here / publish
        return found if found.is_dir() and found.resolve().is_relative_to(here.resolve()) else None
    if built:
        for name in PUBLISH:
            if (here / name / "index.html").is_file() and (here / name).resolve().is_relative_to(here.resolve()):
                return here / name
    return here


def keep_site(found: Path, target: Path) -> list[str]:
    """Move the published folder to `target` and make it self-contained: links that lead out are dropped. Returns notes."""
    found.resolve().rename(target)
    dropped: list[str] = []
    for here, folders, names in os.walk(target):
        for name in [*names, *folders]:
            path = Path(here, name)
            if path.is_symlink() and not path.resolve().is_relative_to(target):
                path.unlink()
                dropped.append(str(path.relative_to(target)))
    return [f"{name} is a link that leads out of the site; it is not served." for name in dropped[:20]]


def clear(folder: Path, kept: Path) -> None:
    """Remove everything in a folder but one entry."""
    for entry in folder.iterdir():
        if entry != kept:
            remove_tree(entry)
