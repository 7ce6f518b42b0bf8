"""Reads the command lines that users write for builds: which parts install dependencies, which are programs to run.

A line is cut at `&&` (and at line ends) only when every part is a plain command, that is, words and quotes; anything with further
shell syntax goes to /bin/sh whole. See docs/adr/0006-build-commands.md.
"""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath

from homeport.drivers.builders.recipe import Command, NodeInstall, PythonInstall, Step

_SPECIAL = re.compile(r"[|&;<>()$`\\*?\[\]{}~#!\x00]")
_ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
_BUILTIN = {"export", "set", "source", ".", "eval", "exec", "if", "for", "while", "case", "test", "[", "unset", "alias", "trap", "ulimit", "umask", "exit", "wait", "read", "local"}  # fmt: skip  # noqa: E501

_NODE_QUIET = {
    "--no-audit", "--audit=false", "--no-fund", "--fund=false", "--prefer-offline", "--silent", "-s", "--quiet", "-q", "--verbose",
    "--no-progress", "--loglevel=error", "--loglevel=warn", "--include=dev", "--also=dev", "--production=false", "--non-interactive",
    "--no-update-notifier",
}  # fmt: skip
"""Change what is printed or are the default here; the same packages are installed."""
_NODE_KEPT = {
    "--legacy-peer-deps", "--force", "-f", "--frozen-lockfile", "--no-frozen-lockfile", "--immutable", "--ignore-scripts",
    "--omit=optional", "--no-optional", "--ignore-engines", "--strict-peer-dependencies=false", "--shamefully-hoist", "--no-package-lock",
    "--no-save", "--ignore-optional", "--network-timeout=100000", "--omit=dev", "--production", "--only=production", "--prod", "-P",
    "--ignore-platform",
}  # fmt: skip
"""Are passed on to the tool."""
_PIP_QUIET = {"--no-cache-dir", "--upgrade", "-U", "--quiet", "-q", "-qq", "--disable-pip-version-check", "--no-input", "--user", "--prefer-binary", "--break-system-packages", "--no-warn-script-location", "--progress-bar=off", "-v", "--verbose", "--system", "--root-user-action=ignore"}  # fmt: skip  # noqa: E501
_PIP_BASICS = {"pip", "setuptools", "wheel"}


def read_line(line: str, folder: str = "") -> list[Step]:
    """The steps of one command line, in order, run from `folder` (relative to the service's root)."""
    text = re.sub(r"\\\r?\n", " ", line).strip()
    if not text:
        return []
    parts = [part.strip() for chunk in text.splitlines() for part in chunk.split("&&")]
    steps: list[Step] = []
    here = folder
    for part in parts:
        if not part and "&&" not in line:
            continue  # an empty line of a block
        words = plain_words(part)
        if words is None:
            return [Command(argv=(text,), script=True, folder=folder)]
        if words[0] == "cd":
            moved = _move(here, words)
            if moved is None:
                return [Command(argv=(text,), script=True, folder=folder)]
            here = moved
            continue
        steps += classify(words, here)
    return steps


def plain_words(part: str) -> list[str] | None:
    """The words of a plain command; None when a shell would do more than split it."""
    try:
        words = shlex.split(part)
    except ValueError:
        return None
    if not words or words[0] in _BUILTIN or "\n" in part:
        return None
    outside = re.sub(r"'[^']*'", "''", part)
    outside = re.sub(r'"[^"$`\\]*"', '""', outside)
    return None if _SPECIAL.search(outside) else words


def _move(here: str, words: list[str]) -> str | None:
    if len(words) != 2 or words[1].startswith(("/", "-", "~")):
        return None
    parts: list[str] = list(PurePosixPath(here).parts)
    for part in PurePosixPath(words[1]).parts:
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def classify(words: list[str], folder: str) -> list[Step]:
    """The step of one plain command; none for what is already there (`corepack enable`, `pip install --upgrade pip`)."""
    env: dict[str, str] = {}
    words = list(words)
    while words and _ASSIGNMENT.match(words[0]):
        name, _, value = words.pop(0).partition("=")
        env[name] = value
    if not words:
        return []
    line = " ".join(words)
    if not env:
        for read in (_node, _python):
            found = read(words, folder, line)
            if found is not None:
                return found
    return [Command(argv=tuple(words), folder=folder, env=env)]


def _node(words: list[str], folder: str, line: str) -> list[Step] | None:
    tool, rest = words[0], words[1:]
    if tool == "corepack" and rest[:1] in (["enable"], ["prepare"], ["install"], ["use"]):
        return []
    if (
        tool == "npm"
        and rest[:1] in (["install"], ["i"])
        and "-g" in rest
        and all(w.split("@")[0] in {"npm", "pnpm", "yarn", "-g"} for w in rest[1:])
    ):
        return []
    verbs = {"npm": {"install", "i", "ci", "clean-install"}, "pnpm": {"install", "i"}, "yarn": {"install", ""}, "bun": {"install", "i"}}
    if tool not in verbs or (rest[0] if rest else "") not in verbs[tool]:
        if not (tool == "yarn" and rest and all(word.startswith("-") for word in rest)):
            return None
        rest = ["install", *rest]
    kept: list[str] = []
    for word in rest[1:]:
        if word in _NODE_KEPT:
            kept.append(word)
        elif word not in _NODE_QUIET:
            return None
    return [NodeInstall(tool=tool, folder=folder, arguments=tuple(kept), line=line)]


def _python(words: list[str], folder: str, line: str) -> list[Step] | None:
    if re.fullmatch(r"python(3(\.\d+)?)?", words[0]) and words[1:3] == ["-m", "pip"]:
        words = ["pip", *words[3:]]
    elif re.fullmatch(r"pip3?(\.\d+)?", words[0]):
        words = ["pip", *words[1:]]
    elif words[:2] == ["uv", "pip"]:
        words = ["pip", *words[2:]]
    if words[:2] == ["pip", "install"]:
        return _pip(words[2:], folder, line)
    if words[:2] == ["uv", "sync"]:
        return _uv_sync(words[2:], folder, line)
    if words[:2] == ["poetry", "install"] and all(word.startswith("--") for word in words[2:]):
        return [PythonInstall(method="poetry", folder=folder, line=line)]
    if words[:2] in (["pipenv", "install"], ["pipenv", "sync"]) and all(word.startswith("--") for word in words[2:]):
        return [PythonInstall(method="pipenv", folder=folder, line=line)]
    if words[0] == "poetry" and words[1:2] == ["config"]:
        return []
    return None


def _pip(words: list[str], folder: str, line: str) -> list[Step] | None:
    files: list[str] = []
    names: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in {"-r", "--requirement"} and rest:
            files.append(rest.pop(0))
        elif word.startswith("--requirement="):
            files.append(word.partition("=")[2])
        elif word.startswith("-r") and len(word) > 2:
            files.append(word[2:])
        elif word.startswith("-"):
            if word not in _PIP_QUIET:
                return None
        else:
            names.append(word)
    if names and not files:
        if all(name.split("=")[0].split("<")[0].split(">")[0] in _PIP_BASICS for name in names):
            return []
        if names in (["poetry"], ["pipenv"], ["uv"]):
            return []
        return [PythonInstall(method="project", folder=folder, line=line)] if names == ["."] else None
    if names or not files or any(file.startswith(("/", "-", "http:", "https:")) for file in files):
        return None
    return [PythonInstall(method="files", folder=folder, files=tuple(files), line=line)]


def _uv_sync(words: list[str], folder: str, line: str) -> list[Step] | None:
    groups: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in {"--frozen", "--locked", "--no-dev", "--no-cache", "--no-editable", "--no-install-project", "--no-default-groups", "-q"}:
            continue
        if word in {"--extra", "--group", "--all-extras", "--all-groups"}:
            groups += [word, rest.pop(0)] if word in {"--extra", "--group"} and rest else [word]
            continue
        return None
    return [PythonInstall(method="uv", folder=folder, groups=tuple(groups), line=line)]
