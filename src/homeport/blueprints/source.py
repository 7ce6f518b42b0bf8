"""The source tree a reader is handed: read-only, bounded, closed against links that leave it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

MAX_FILE = 1 << 20
"""Bytes of one blueprint; a real one is rarely past 100 kB."""


class SourceTree(Protocol):
    """Files by relative POSIX path."""

    name: str
    """What to call the project when no file does: the folder's name."""

    def text(self, path: str) -> str | None:
        """The file as text, or None when there is none (or it is a folder, or lies outside).

        Raises ValueError when larger than `MAX_FILE`."""

    def list(self, folder: str = "") -> list[str]:
        """Names in a folder, sorted; folders end with `/`. Empty when there is none."""


class FolderTree:
    """A folder on disk."""

    def __init__(self, root: Path, name: str = "") -> None:
        self.root = root.resolve()
        self.name = name or self.root.name or "app"

    def _inside(self, path: str) -> Path | None:
        if "\0" in path:
            return None
        full = (self.root / path).resolve()
        return full if full == self.root or self.root in full.parents else None

    def text(self, path: str) -> str | None:
        full = self._inside(path)
        if full is None or not full.is_file():
            return None
        if full.stat().st_size > MAX_FILE:
            raise ValueError(f"larger than {MAX_FILE >> 20} MiB")
        return decode(full.read_bytes())

    def list(self, folder: str = "") -> list[str]:
        full = self._inside(folder)
        if full is None or not full.is_dir():
            return []
        with os.scandir(full) as entries:
            return sorted(e.name + "/" if e.is_dir() else e.name for e in entries)


class MemoryTree:
    """Files given as a mapping: for tests, and for text that came over the network."""

    def __init__(self, files: Mapping[str, str], name: str = "app") -> None:
        self.files, self.name = dict(files), name

    def text(self, path: str) -> str | None:
        text = self.files.get(str(PurePosixPath(path)))
        if text is not None and len(text) > MAX_FILE:
            raise ValueError(f"larger than {MAX_FILE >> 20} MiB")
        return text

    def list(self, folder: str = "") -> list[str]:
        prefix = "" if folder in ("", ".") else str(PurePosixPath(folder)) + "/"
        names = {
            rest.split("/")[0] + ("/" if "/" in rest else "") for f in self.files if f.startswith(prefix) and (rest := f[len(prefix) :])
        }
        return sorted(names)


def decode(data: bytes) -> str:
    """Bytes of a text file as text: UTF-8 (a byte order mark is dropped), UTF-16 with a mark, else Latin-1."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


class SubTree:
    """A folder of another tree, as a tree of its own: for applications in subfolders."""

    def __init__(self, tree: SourceTree, folder: str) -> None:
        self.tree, self.folder = tree, folder.strip("/")
        self.name = PurePosixPath(self.folder).name or tree.name

    def _inside(self, path: str) -> str | None:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        return None if ".." in parts else "/".join((self.folder, *parts))

    def text(self, path: str) -> str | None:
        full = self._inside(path)
        return None if full is None else self.tree.text(full)

    def list(self, folder: str = "") -> list[str]:
        full = self._inside(folder)
        return [] if full is None else self.tree.list(full)
