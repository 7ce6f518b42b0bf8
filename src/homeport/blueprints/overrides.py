"""What differs per environment: JSON merge patches (RFC 7386) over the canonical spec."""

from __future__ import annotations

from typing import Any

from homeport.model.spec import Spec


def merge_patch(document: Any, patch: Any) -> Any:
    """Apply a merge patch: mappings merge, `null` removes, all else replaces (RFC 7386 section 2). Inputs stay as they were."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def merge_diff(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The smallest merge patch that turns `before` into `after`; neither may hold `null`."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if key in before and old == value:
            continue
        patch[key] = merge_diff(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return patch


def for_environment(spec: Spec, name: str) -> Spec:
    """The spec of one environment: its patch applied, the patches themselves left out.

    Names such as `preview-42` fall back to the patch of `preview`. Raises pydantic.ValidationError
    when the patched document is no valid spec.
    """
    patch = spec.environments.get(name)
    if patch is None and name.startswith("preview-"):
        patch = spec.environments.get("preview")
    if not patch:
        return spec.model_copy(update={"environments": {}}) if spec.environments else spec
    document = {key: value for key, value in spec.canonical().items() if key != "environments"}
    return Spec.model_validate(merge_patch(document, {key: value for key, value in patch.items() if key != "environments"}))
