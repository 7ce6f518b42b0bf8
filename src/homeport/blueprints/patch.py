"""Differences between specs: JSON merge patches (RFC 7386), and what a written dialect lost."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from homeport.model.reading import Loss, Path, show_path
from homeport.model.spec import Spec


def merge_patch(before: Any, after: Any) -> Any:
    """The patch that turns `before` into `after` (RFC 7386): None removes a key, a list is replaced whole."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        if key not in before:
            patch[key] = value
        elif before[key] != value:
            patch[key] = merge_patch(before[key], value)
    return patch


def apply_patch(target: Any, patch: Any) -> Any:
    """`target` with a merge patch applied (RFC 7386, section 2). Neither argument is changed."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply_patch(result.get(key), value)
    return result


def in_environment(spec: Spec, environment: str) -> Spec:
    """The spec as it is in one environment; the spec itself when the environment has no patch.

    Raises pydantic.ValidationError when the patch makes an invalid spec."""
    patch = spec.environments.get(environment)
    if not patch:
        return spec
    base = {key: value for key, value in spec.canonical().items() if key != "environments"}
    return Spec.model_validate(apply_patch(base, patch))


def losses(spec: Spec, back: Spec, reasons: Sequence[tuple[str, str]], default: str) -> tuple[Loss, ...]:
    """A loss for each thing `spec` says that `back`, read from what was written, does not say.

    `reasons` pairs a pattern (`services.*.disks*`, fnmatch) with a sentence; the first that matches is used, else `default`."""
    found: list[Loss] = []
    _compare(spec.canonical(), back.canonical(), (), found, lambda path: _reason(path, reasons, default))
    return tuple(found)


def _reason(path: Path, reasons: Sequence[tuple[str, str]], default: str) -> str:
    shown = show_path(path)
    return next((reason for pattern, reason in reasons if fnmatchcase(shown, pattern)), default)


def _same_command(said: Any, kept: Any) -> bool:
    """An argv list and the line it is written as are one command."""
    return isinstance(said, list | tuple) and isinstance(kept, str) and shlex.join(str(part) for part in said) == kept


def _compare(said: Any, kept: Any, path: Path, found: list[Loss], reason: Any) -> None:
    if said == kept or (path and str(path[-1]).endswith("command") and _same_command(said, kept)):
        return
    if isinstance(said, Mapping) and isinstance(kept, Mapping):
        for key in [*said, *(k for k in kept if k not in said)]:
            where = (*path, key)
            if key not in kept:
                found.append(Loss(path=show_path(where), reason=reason(where)))
            elif key not in said:
                found.append(Loss(path=show_path(where), reason=f"reads back with a value of its own: {reason(where)}"))
            else:
                _compare(said[key], kept[key], where, found, reason)
    elif isinstance(said, list) and isinstance(kept, list) and len(said) == len(kept):
        for index, (left, right) in enumerate(zip(said, kept, strict=True)):
            _compare(left, right, (*path, index), found, reason)
    else:
        found.append(Loss(path=show_path(path), reason=reason(path)))
