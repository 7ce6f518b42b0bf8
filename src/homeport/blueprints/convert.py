"""From any dialect to any other, with an honest list of what the target cannot say.

A writer names what it knows it leaves out. On top of that, what was written is read back and compared with the spec:
whatever differs without having been named becomes a loss as well, so that no loss is silent.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from homeport.blueprints.dialect import Reader
from homeport.blueprints.registry import DIALECTS, reader, writer
from homeport.blueprints.source import MemoryTree, SourceTree
from homeport.model.env import Env, ExternalValue, SecretValue
from homeport.model.errors import BlueprintInvalid, HomeportError
from homeport.model.reading import Loss, Path, Written, show_path
from homeport.model.spec import Spec


class UnknownDialect(HomeportError):
    """A dialect that nobody writes."""

    code = "unknown-dialect"


def convert(source: SourceTree | Spec, to: str) -> Written:
    """Write a project, or a spec, in another dialect; every loss is listed.

    Raises UnknownDialect; BlueprintInvalid when the source cannot be read.
    """
    if to not in DIALECTS or not DIALECTS[to].writer:
        known = ", ".join(name for name, entry in DIALECTS.items() if entry.writer)
        raise UnknownDialect(
            what="Nothing was written.", why=f"{to[:40]!r} is not a dialect that Homeport writes.", fix=f"Choose one of: {known}."
        )
    spec = source if isinstance(source, Spec) else read_for_convert(source)
    made = writer(to)
    if made is None:
        raise UnknownDialect(what="Nothing was written.", why=f"{to} has no writer.", fix="Choose another dialect.")
    spec = without_assumed(spec)
    written = made.write(spec if to == "homeport" else kept_by_hand(spec))
    found = roundtrip_losses(spec, written)
    return written.model_copy(update={"losses": (*written.losses, *found)}) if found else written


def read_for_convert(tree: SourceTree) -> Spec:
    """The whole project with the patches of all its environments."""
    from homeport.blueprints.discover import read_project

    return read_project(tree).document


def without_assumed(spec: Spec) -> Spec:
    """The spec without the health checks that Homeport assumed because nobody named one: each platform assumes its own."""
    from homeport.blueprints.detect.fill import ANY_ANSWER, BINDS

    services = {
        name: service.model_copy(update={"health": None}) if service.health in (ANY_ANSWER, BINDS) else service
        for name, service in spec.services.items()
    }
    return spec.model_copy(update={"services": services})


def kept_by_hand(spec: Spec) -> Spec:
    """The spec with values of outside secret stores as secrets that a person gives: no other dialect knows such stores."""

    def by_hand(env: Env) -> Env:
        return {key: SecretValue(description=f"{v.path} of {v.store}") if isinstance(v, ExternalValue) else v for key, v in env.items()}

    services = {name: service.model_copy(update={"env": by_hand(service.env)}) for name, service in spec.services.items()}
    groups = {name: group.model_copy(update={"env": by_hand(group.env)}) for name, group in spec.env_groups.items()}
    return spec.model_copy(update={"services": services, "env_groups": groups})


def read_back(spec: Spec, written: Written) -> Spec | None:
    """What the dialect's reader makes of what was written; None when the dialect is only written."""
    back: Reader | None = reader(written.dialect) if DIALECTS[written.dialect].reader else None
    if back is None:
        return None
    tree = MemoryTree(written.files, name=spec.name)
    for path in (*back.candidates(tree), *written.files):
        if path in written.files:
            return renamed_back(back.read(tree, path).spec, written.renamed)
    return None


def renamed_back(spec: Spec, renamed: dict[str, str]) -> Spec:
    """The spec with the services and add-ons that the dialect renamed under their own names again."""
    own = {there: here for here, there in renamed.items()}
    if not own:
        return spec
    document = spec.canonical()
    for kind in ("services", "addons"):
        if kind in document:
            document[kind] = {own.get(name, name): value for name, value in document[kind].items()}
    return Spec.model_validate(document)


def roundtrip_losses(spec: Spec, written: Written) -> list[Loss]:
    """Where reading back gives something else than the spec, and the writer named no loss there or above.

    Raises BlueprintInvalid when the reader refuses what the writer wrote, which is a fault of Homeport's own.
    """
    named = [loss.path for loss in written.losses]
    try:
        back = read_back(spec, written)
    except BlueprintInvalid:
        if not all(covered(f"services.{name}", named) for name in spec.services):
            raise
        return []
    if back is None:
        return []
    title = DIALECTS[written.dialect].title
    reason = f"{title} has no place for it"
    found = differences(spec.canonical(), back.canonical())
    paths = dict.fromkeys(show_path(path) for path in found)
    return [Loss(path=path, reason=reason) for path in paths if not covered(path, named)]


def covered(path: str, named: Iterable[str]) -> bool:
    """Whether a loss that is named stands at this path, above it or below it."""
    return any(path == loss or _above(loss, path) or _above(path, loss) for loss in named)


def _above(parent: str, path: str) -> bool:
    return path.startswith(parent) and path[len(parent) : len(parent) + 1] in (".", "[")


def differences(before: Any, after: Any, path: Path = ()) -> list[Path]:
    """Where two documents differ: the shortest path below which mappings are not alike; lists are compared as wholes,
    and a command's words are as good as its line."""
    if isinstance(before, dict) and isinstance(after, dict):
        found: list[Path] = []
        for key in dict.fromkeys([*before, *after]):
            if key not in before or key not in after:
                found.append((*path, str(key)))
            else:
                found += differences(before[key], after[key], (*path, str(key)))
        return found
    return [] if before == after or _same_command(before, after) or _same_command(after, before) else [path]


def _same_command(words: Any, line: Any) -> bool:
    """Whether a command as words and one as a line start the same program with the same arguments."""
    return (
        isinstance(words, list | tuple)
        and isinstance(line, str)
        and all(isinstance(word, str) for word in words)
        and shlex.join(words) == line
    )
