"""A folder on this machine as a source: tracked files, and untracked ones that are not ignored, as they are right now."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from homeport.drivers.sources.base import Source
from homeport.drivers.sources.errors import SourceUnavailable
from homeport.drivers.sources.git import Git, environment, stand_in, without_credentials
from homeport.drivers.sources.snapshot import Manifest, SnapshotStore
from homeport.model.release import Revision

ALWAYS_LEFT_OUT = frozenset({".git", ".homeport", ".hg", ".svn"})
LEFT_OUT_UNTRACKED = frozenset({
    "node_modules", ".venv", "venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".nox", ".eggs",
    ".next", ".nuxt", ".svelte-kit", ".turbo", ".parcel-cache", ".DS_Store", ".idea", ".terraform", "bower_components",
})  # fmt: skip
"""Made by tools, never source; a repository that tracks one of these gets it all the same."""

MAX_NESTING = 8
"""Submodules within submodules."""


class LocalSource:
    """Snapshots of one folder. `home` is an empty folder that git may call its home."""

    def __init__(self, folder: Path, sources_dir: Path, *, network: Mapping[str, str] | None = None) -> None:
        self.folder = folder.expanduser().resolve()
        self.store = SnapshotStore(sources_dir)
        self.git = Git(environment(sources_dir / ".cache", network or {}))

    def fetch(self, reference: str = "") -> tuple[Revision, Path]:
        """Take the work tree as it is. A `reference` takes that commit of the folder's repository instead."""
        if reference:
            from homeport.drivers.sources.remote import GitSource

            return GitSource(str(self.folder), self.store.folder).fetch(reference)
        if not self.folder.is_dir():
            raise SourceUnavailable(source=str(self.folder), why="there is no such folder", fix="Check the path.")
        facts = self._start_facts()
        paths, index = self._list(self.folder, 0)
        if not index and not paths:
            for process in facts or ():
                self.git.finish(process, 30)
            facts = None
            paths = self._list_plain(self.folder, 0)
        digest, manifest, target = self.store.take(self.folder, paths, self.folder.name)
        revision = Revision(
            digest=digest,
            origin=str(self.folder),
            files=len(manifest),
            bytes=sum(entry.size for entry in manifest.values()),
        )
        if facts is not None:
            revision = self._with_facts(revision, facts, manifest, index)
        return revision, target

    # what is in the tree

    def _list(self, folder: Path, depth: int) -> tuple[list[str], dict[str, str]]:
        """Paths of a work tree, and for tracked ones git's name of their content."""
        code, output, _ = self.git.run(folder, "ls-files", "-z", "--cached", "--stage", "--others", "--exclude-standard", timeout=60)
        if code:
            return [], {}
        paths: list[str] = []
        index: dict[str, str] = {}
        for raw in output.decode("utf-8", errors="surrogateescape").split("\0"):
            head, tab, path = raw.partition("\t")
            words = head.split(" ")
            if tab and len(words) == 3 and len(words[1]) in {40, 64}:
                if words[0] == "160000":
                    paths += self._nested(folder, path, depth)
                elif not _left_out(path, ALWAYS_LEFT_OUT):
                    paths.append(path)
                    index[path] = words[1]
            elif raw.endswith("/"):
                paths += self._nested(folder, raw.rstrip("/"), depth)
            elif raw and not _left_out(raw, ALWAYS_LEFT_OUT | LEFT_OUT_UNTRACKED):
                paths.append(raw)
        return paths, index

    def _nested(self, folder: Path, path: str, depth: int) -> list[str]:
        """Files of a submodule or of a repository inside the tree. One that is not checked out has none."""
        inner = folder / path
        if depth >= MAX_NESTING or not inner.is_dir() or inner.is_symlink() or _left_out(path, ALWAYS_LEFT_OUT | LEFT_OUT_UNTRACKED):
            return []
        if not (inner / ".git").exists():
            return []
        return [f"{path}/{name}" for name in self._list(inner, depth + 1)[0]]

    def _list_plain(self, folder: Path, depth: int) -> list[str]:
        """Paths of a folder that is in no repository (or is ignored by the one around it)."""
        with stand_in(folder) as extra:
            code, output, errors = self.git.run(folder, "ls-files", "-z", "--others", "--exclude-standard", extra=extra, timeout=60)
        if code:
            raise SourceUnavailable(source=str(folder), why=f"git cannot list it: {errors[-200:]}", fix="Check its permissions.")
        paths: list[str] = []
        for path in output.decode("utf-8", errors="surrogateescape").split("\0"):
            if path.endswith("/"):
                paths += self._nested(folder, path.rstrip("/"), depth)
            elif path and not _left_out(path, ALWAYS_LEFT_OUT | LEFT_OUT_UNTRACKED):
                paths.append(path)
        return paths

    # what git knows about it

    def _start_facts(self) -> list[subprocess.Popen[bytes]] | None:
        """Ask git about the commit while the tree is listed; None when the folder is in no repository."""
        if not any((folder / ".git").exists() for folder in (self.folder, *self.folder.parents)):
            return None
        return [
            self.git.start(self.folder, "log", "-1", "--no-show-signature", "--format=%H%x00%s", "HEAD"),
            self.git.start(self.folder, "symbolic-ref", "--short", "-q", "HEAD"),
            self.git.start(self.folder, "config", "--get", "remote.origin.url"),
            self.git.start(self.folder, "diff-index", "--cached", "--quiet", "--ignore-submodules", "HEAD", "--", "."),
        ]

    def _with_facts(
        self, revision: Revision, facts: list[subprocess.Popen[bytes]], manifest: Manifest, index: Mapping[str, str]
    ) -> Revision:
        log, branch, origin, staged = (self.git.finish(process, 30) for process in facts)
        if log[0]:
            return revision
        commit, _, message = log[1].decode(errors="replace").strip().partition("\0")
        dirty = staged[0] != 0 or any(path not in manifest for path in index)
        dirty = dirty or any(_differs(path, entry.git, entry.kind, index) for path, entry in manifest.items())
        address = without_credentials(origin[1].decode(errors="replace").strip())
        return revision.model_copy(
            update={
                "commit": commit,
                "message": message[:500],
                "branch": branch[1].decode(errors="replace").strip(),
                "dirty": dirty,
                "origin": address or revision.origin,
            }
        )


def _differs(path: str, git: str, kind: str, index: Mapping[str, str]) -> bool:
    """Whether a file is not as it was added. Filters (line ends, LFS) are not run: they would be the repository's own programs."""
    known = index.get(path)
    return known is None or (kind != "l" and len(known) == len(git) and known != git)


def _left_out(path: str, names: frozenset[str]) -> bool:
    return not names.isdisjoint(PurePosixPath(path).parts)


_: type[Source] = LocalSource
