"""Which files belong to a service, and which of them rebuild it."""

from __future__ import annotations

import re
from functools import lru_cache

from homeport.drivers.sources.snapshot import Manifest
from homeport.model.service import BuildFilter

_WORKSPACE = ("pnpm-workspace.yaml", "turbo.json", "nx.json", "lerna.json", "rush.json")


def belonging(manifest: Manifest, root: str, whole: bool) -> Manifest:
    """The files a service can see: its root folder, or all of the repository when it reaches beyond (`whole`)."""
    if not root or whole:
        return manifest
    prefix = root.rstrip("/") + "/"
    return {path: entry for path, entry in manifest.items() if path.startswith(prefix)}


def is_workspace(manifest: Manifest, package: dict[str, object]) -> bool:
    """Whether the repository's folders depend on each other through a package manager's workspace."""
    return bool(package.get("workspaces")) or any(name in manifest for name in _WORKSPACE)


def matching(manifest: Manifest, wanted: BuildFilter) -> Manifest:
    """The files whose change rebuilds."""
    if not wanted.paths and not wanted.ignored_paths:
        return manifest
    yes = [_pattern(glob) for glob in wanted.paths]
    no = [_pattern(glob) for glob in wanted.ignored_paths]
    return {
        path: entry
        for path, entry in manifest.items()
        if (not yes or any(one.match(path) for one in yes)) and not any(one.match(path) for one in no)
    }


@lru_cache(maxsize=4096)
def _pattern(glob: str) -> re.Pattern[str]:
    """A glob as git and Render read it: `*` stays within a folder, `**` crosses folders, a folder stands for all in it."""
    text = glob.strip().removeprefix("./").strip("/")
    parts: list[str] = []
    position = 0
    while position < len(text):
        rest = text[position:]
        if rest.startswith("**/"):
            parts.append("(?:[^/]+/)*")
            position += 3
        elif rest.startswith("**"):
            parts.append(".*")
            position += 2
        elif rest[0] == "*":
            parts.append("[^/]*")
            position += 1
        elif rest[0] == "?":
            parts.append("[^/]")
            position += 1
        elif rest[0] == "[" and (end := rest.find("]", 2)) > 0:
            inside = rest[1:end].replace("\\", "\\\\").replace("[", "\\[")
            parts.append("[" + ("^" + inside[1:] if inside[0] in "!^" else inside) + "]")
            position += end + 1
        else:
            parts.append(re.escape(rest[0]))
            position += 1
    try:
        return re.compile("(?:" + "".join(parts) + ")(?:/.*)?$", re.DOTALL)
    except re.error:
        return re.compile(re.escape(text) + "(?:/.*)?$")
