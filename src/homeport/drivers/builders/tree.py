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

LINKED = 20_000
"""Files and folders that links of a site may add to it, all together."""
FOLDER_LINKS = 100


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
    """Move the published folder to `target` and make it self-contained, since the edge follows no links. Returns notes.

    A link inside the site becomes what it names; one that leads out, or nowhere, or in a circle, is dropped.
    """
    found.resolve().rename(target)
    linked = [path for here, folders, names in os.walk(target) for name in (*names, *folders) if (path := Path(here, name)).is_symlink()]
    meant = {path: Path(os.path.realpath(path)) for path in linked}
    dropped = {path: why for path, real in meant.items() if (why := _why_dropped(path, real, target))}
    folders = [path for path, real in meant.items() if path not in dropped and real.is_dir()]
    dropped |= dict.fromkeys(folders[FOLDER_LINKS:], f"is one of more than {FOLDER_LINKS} to folders")
    for path in linked:
        path.unlink()
    room = LINKED
    for path in _in_order({path: real for path, real in meant.items() if path not in dropped}):
        put = _put(meant[path], path, room)
        if put > room:
            remove_tree(path)
            dropped[path] = f"leads to more files than the {LINKED} that links may add"
        room = 0 if put > room else room - put
    return [f"{path.relative_to(target)} is a link that {why}; it is not served." for path, why in list(dropped.items())[:20]]


def _why_dropped(path: Path, real: Path, site: Path) -> str:
    if not real.is_relative_to(site):
        return "leads out of the site"
    if path.is_relative_to(real):
        return "leads to a folder around it"
    return "" if real.exists() else "leads nowhere"


def _in_order(meant: dict[Path, Path]) -> list[Path]:
    """Links of files, then those of folders, each after the links inside the folder it names."""
    found = [path for path, real in meant.items() if not real.is_dir()]
    left = [path for path in meant if path not in set(found)]
    while left:
        ready = [path for path in left if not any(other.is_relative_to(meant[path]) for other in left)]
        found += ready or left[:1]
        left = [path for path in left if path not in (ready or left[:1])]
    return found


def _put(real: Path, target: Path, room: int) -> int:
    """Put a file, or a folder's files, at another place as well: links in it are gone by then. Returns how many; stops beyond `room`."""
    if not real.is_dir():
        link_or_copy(real, target, 0o555 if real.stat().st_mode & 0o111 else 0o444)
        return 1
    target.mkdir()
    count = 1
    for entry in sorted(real.iterdir()):
        if count > room:
            break
        count += _put(entry, target / entry.name, room - count)
    return count


def clear(folder: Path, kept: Path) -> None:
    """Remove everything in a folder but one entry."""
    for entry in folder.iterdir():
        if entry != kept:
            remove_tree(entry)
