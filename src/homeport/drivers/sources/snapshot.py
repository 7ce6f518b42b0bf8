"""Snapshots of a folder: content-addressed, read-only copies under `sources/<digest>`.

The digest is sha256 over the sorted entries `path NUL kind NUL sha256-or-link-target NUL`, kind being `x`, `f` or `l`.
A stat cache (path, size, mtime, ctime, inode to sha256) keeps an unchanged tree from being read again; as in git, an entry
written in the same instant as the file changed is not trusted.
"""

# ruff: noqa: PTH115, PTH123

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from homeport.drivers.files import copy_file, is_digest, link_or_copy, locked, prune_digests, remove_tree, sync_folder, write_atomic
from homeport.drivers.sources.errors import SourceRefused, SourceUnavailable

MAX_BYTES = 1 << 30
MAX_FILES = 50_000
RACY = 100_000_000
"""Nanoseconds; kernel time stamps advance in ticks of 1 to 10 ms."""
ATTEMPTS = 3
"""Times a tree is read again when it changes under the reader."""


class Entry(NamedTuple):
    """One file or link. `kind` is `f`, `x` (executable) or `l`; `content` the sha256, or the link's target."""

    kind: str
    content: str
    size: int
    git: str = ""
    """Git's own name of the content, to tell whether the work tree differs from the commit."""


Manifest = dict[str, Entry]
"""By relative POSIX path, sorted."""


def digest_of(manifest: Manifest) -> str:
    """The tree's digest."""
    total = hashlib.sha256()
    for path in sorted(manifest):
        entry = manifest[path]
        total.update(f"{path}\0{entry.kind}\0{entry.content}\0".encode())
    return total.hexdigest()


class _Changed(Exception):
    """A file changed between being hashed and being copied."""


class SnapshotStore:
    """The folder `sources/`: one read-only tree per digest, with its manifest in `.manifests/<digest>.json`."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> None:
        self.folder, self.max_bytes, self.max_files = folder, max_bytes, max_files
        for made in (folder, folder / ".manifests", folder / ".cache"):
            made.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)  # digests cannot be guessed: an application may open what it was given, and list nothing

    def take(self, root: Path, paths: Iterable[str], name: str) -> tuple[str, Manifest, Path]:
        """Copy the named files of `root` into the store. Equal trees give the same folder.

        Raises SourceRefused, SourceUnavailable.
        """
        wanted = sorted(set(paths))
        key = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
        with locked(self.folder / ".cache" / f"{key}.lock"):
            for _ in range(ATTEMPTS):
                try:
                    return self._take(root, wanted, name, self.folder / ".cache" / f"{key}.json")
                except _Changed:
                    continue
        raise SourceRefused(
            source=name, why="files kept changing while they were read", fix="Stop the program that writes into the folder and try again."
        )

    def _take(self, root: Path, paths: list[str], name: str, cache: Path) -> tuple[str, Manifest, Path]:
        known = _Cache(cache)
        manifest = _Reader(root, name, known, self).read(paths)
        digest = digest_of(manifest)
        target = self.folder / digest
        if not target.is_dir():
            self._copy(root, manifest, target, known.last)
        elif not self._manifest_path(digest).is_file():
            self._save_manifest(digest, manifest)
        known.save(digest)
        os.utime(target)  # used now: `prune` goes by it
        return digest, manifest, target

    def prune(self, keep: int, young: timedelta) -> list[str]:
        """Remove snapshots beyond the `keep` last used that were not used for `young`; artifacts do not need them any more."""
        by_use = sorted((one for one in self.folder.iterdir() if is_digest(one.name)), key=lambda one: one.lstat().st_mtime, reverse=True)
        removed = prune_digests(self.folder, {one.name for one in by_use[:keep]}, young)
        for name in removed:
            self._manifest_path(name).unlink(missing_ok=True)
        return removed

    def _copy(self, root: Path, manifest: Manifest, target: Path, previous: str) -> None:
        part = self.folder / f".{target.name}.{os.getpid()}.part"
        remove_tree(part)
        part.mkdir()
        earlier = {(e.content, e.kind): path for path, e in self.manifest(previous).items() if e.kind != "l"}
        try:
            made: set[str] = {"", "."}
            for path, entry in manifest.items():
                parent = path.rpartition("/")[0]
                if parent not in made:
                    (part / parent).mkdir(parents=True, exist_ok=True)
                    made.update(str(folder) for folder in (PurePosixPath(parent), *PurePosixPath(parent).parents))
                self._copy_one(root / path, part / path, entry, earlier.get((entry.content, entry.kind)), previous)
            self._save_manifest(target.name, manifest)
            for folder in sorted(made):
                (part / folder).chmod(0o755)
            try:
                part.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
            sync_folder(self.folder)
        finally:
            remove_tree(part)

    def _copy_one(self, source: Path, target: Path, entry: Entry, earlier: str | None, previous: str) -> None:
        mode = 0o555 if entry.kind == "x" else 0o444
        if entry.kind == "l":
            target.symlink_to(entry.content)
            return
        if earlier is not None:
            link_or_copy(self.folder / previous / earlier, target, mode)
            return
        try:
            copy_file(source, target)
        except OSError as error:
            raise _Changed from error
        with target.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.content:
                raise _Changed
        target.chmod(mode)

    def manifest(self, digest: str) -> Manifest:
        """The manifest of a snapshot; empty when there is none."""
        try:
            raw = json.loads(self._manifest_path(digest).read_bytes())
        except (OSError, ValueError):
            return {}
        return {path: Entry(*values) for path, values in raw.items()}

    def _manifest_path(self, digest: str) -> Path:
        return self.folder / ".manifests" / f"{digest}.json"

    def _save_manifest(self, digest: str, manifest: Manifest) -> None:
        write_atomic(self._manifest_path(digest), json.dumps(manifest, separators=(",", ":")).encode())


class _Cache:
    """What is known of the files of one folder since the last snapshot. A broken cache is an empty one."""

    def __init__(self, file: Path) -> None:
        self.file, self.started = file, time.time_ns()
        self.last = ""
        self.old: dict[str, list[object]] = {}
        self.new: dict[str, list[object]] = {}
        try:
            data = json.loads(file.read_bytes())
            self.last, self.old = str(data["last"]), dict(data["files"])
        except (OSError, ValueError, KeyError, TypeError):
            pass

    def find(self, path: str, signature: list[object]) -> tuple[str, str] | None:
        found = self.old.get(path)
        if found is None or found[:4] != signature or len(found) != 6:
            return None
        self.new[path] = found
        return str(found[4]), str(found[5])

    def keep(self, path: str, found: os.stat_result, signature: list[object], hashes: tuple[str, str]) -> None:
        if max(found.st_mtime_ns, found.st_ctime_ns) < self.started - RACY:
            self.new[path] = [*signature, *hashes]

    def save(self, digest: str) -> None:
        if self.new != self.old or digest != self.last:
            write_atomic(self.file, json.dumps({"last": digest, "files": self.new}, separators=(",", ":")).encode(), 0o600)


class _Reader:
    """Reads a tree into a manifest, refusing what must not be built."""

    def __init__(self, root: Path, name: str, cache: _Cache, store: SnapshotStore) -> None:
        self.root, self.name, self.cache, self.store = root, name, cache, store
        self.bytes = 0

    def read(self, paths: list[str]) -> Manifest:
        if len(paths) > self.store.max_files:
            self._refuse(f"it has {len(paths):,} files; the limit is {self.store.max_files:,}")
        manifest: Manifest = {}
        base = str(self.root)
        for path in paths:
            try:
                found = os.lstat(f"{base}/{path}")
            except (FileNotFoundError, NotADirectoryError):
                continue  # listed by git and deleted in the work tree
            except OSError as error:
                raise SourceUnavailable(
                    source=self.name, why=f"{path} cannot be read: {error.strerror}", fix="Check its permissions."
                ) from error
            entry = self._entry(path, found)
            if entry is not None:
                manifest[path] = entry
        return manifest

    def _entry(self, path: str, found: os.stat_result) -> Entry | None:
        if any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 or c == "\x7f" for c in path):
            self._refuse(f"the path {path[:80]!r} holds characters that are not allowed")
        if stat.S_ISLNK(found.st_mode):
            return Entry("l", self._link(path), 0)
        if stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode):
            self._refuse(f"{path} is a device, socket or pipe")
        self.bytes += found.st_size
        if self.bytes > self.store.max_bytes:
            self._refuse(f"it is larger than {self.store.max_bytes >> 20} MiB ({path} is where the limit was passed)")
        signature: list[object] = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
        hashes = self.cache.find(path, signature)
        if hashes is None:
            hashes = self._hash(path, found.st_size)
            self.cache.keep(path, found, signature, hashes)
        return Entry("x" if found.st_mode & 0o111 else "f", hashes[0], found.st_size, hashes[1])

    def _hash(self, path: str, size: int) -> tuple[str, str]:
        content, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        try:
            with open(os.open(self.root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                while block := file.read(1 << 20):
                    content.update(block)
                    git.update(block)
        except FileNotFoundError as error:
            raise _Changed from error
        except OSError as error:
            raise SourceUnavailable(
                source=self.name, why=f"{path} cannot be read: {error.strerror}", fix="Check its permissions."
            ) from error
        return content.hexdigest(), git.hexdigest()

    def _link(self, path: str) -> str:
        target = os.readlink(self.root / path)
        if not self._stays_inside(path):
            self._refuse(f"the symbolic link {path} leads out of the tree")
        return target

    def _stays_inside(self, path: str) -> bool:
        """Follow a path part by part; False when any step, also of a link on the way, goes above the root or round in a circle."""
        here: list[str] = []
        todo = path.split("/")[::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                if not here:
                    return False
                here.pop()
                continue
            here.append(part)
            where = self.root.joinpath(*here)
            if where.is_symlink():
                links += 1
                target = os.readlink(where)
                if links > 40 or target.startswith("/"):
                    return False
                here.pop()
                todo.extend(target.split("/")[::-1])
        return True

    def _refuse(self, why: str) -> None:
        raise SourceRefused(source=self.name, why=why, fix="Remove it, or list it in .gitignore when the build does not need it.")
