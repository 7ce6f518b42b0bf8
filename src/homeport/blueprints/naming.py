"""Names: of files as people mangle them, and of services as files write them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from homeport.model.base import slug

_REVISION = re.compile(r"@[0-9a-f]{4,40}(?=\.|$)")


def bare_name(file_name: str) -> str:
    """A file's own name: `owner__repo__render@8c630422.yaml` is `render.yaml`, `a/b/Procfile` is `Procfile`."""
    last = file_name.replace("\\", "/").rsplit("/", 1)[-1]
    return _REVISION.sub("", last.rsplit("__", 1)[-1] if not last.startswith("__") else last)


class Names:
    """Gives each title of a file its own valid name: the slug, numbered when two titles share it."""

    def __init__(self) -> None:
        self._by_title: dict[str, str] = {}
        self._taken: set[str] = set()

    def claim(self, title: str) -> str:
        """The name of a title; the same title gets the same name again."""
        if (known := self._by_title.get(title)) is not None:
            return known
        name = base = slug(title)
        number = 2
        while name in self._taken:
            name = f"{base[:59]}-{number}"
            number += 1
        self._taken.add(name)
        self._by_title[title] = name
        return name

    def find(self, title: str) -> str | None:
        """The name of a title that was claimed, exactly or after slugging; None when there is none."""
        found = self._by_title.get(title)
        return found if found is not None else (slug(title) if slug(title) in self._taken else None)

    def titles(self) -> Iterable[str]:
        return self._by_title.keys()

    @staticmethod
    def title(title: str, name: str) -> str:
        """What to keep in `title`: empty when the name says it already."""
        return "" if title == name else title


def clean_path(path: str) -> str:
    """A folder or file of the repository without `./`, doubled or trailing slashes; the root is empty.

    Raises ValueError for a path that leaves the repository or holds a control character.
    """
    if any(ord(char) < 32 for char in path):
        raise ValueError("a path cannot hold a line break or another control character")
    parts: list[str] = []
    for part in path.replace("\\", "/").split("/"):
        if part == ".." and not parts:
            raise ValueError(f"{path[:80]!r} leaves the repository")
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
