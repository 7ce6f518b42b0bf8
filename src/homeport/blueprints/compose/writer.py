"""Writes a spec as `docker-compose.yaml`: what Docker can do in Compose's own words, the rest under `x-homeport`.

The file is read back while it is written: what the reader would not find again is kept as a merge patch (RFC 7386) over
the spec, so that nothing is lost on the way back; each part of the patch that Docker does not act upon is listed as a loss.
"""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

import yaml

from homeport.blueprints.compose.emit import Emitter
from homeport.blueprints.compose.reader import ComposeReader
from homeport.blueprints.overrides import merge_diff, merge_patch
from homeport.blueprints.source import MAX_FILE, MemoryTree
from homeport.model.errors import BlueprintInvalid, Problem
from homeport.model.reading import Loss, Written
from homeport.model.spec import Spec

FILE = "docker-compose.yaml"
MAX_REPAIRS = 20
"""Rounds in which what Compose would refuse is taken out of a written file."""

_STEP = re.compile(r'\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|([^.\[\]]+)')


class _Dumper(yaml.CSafeDumper):
    """Plain YAML without aliases; long texts as blocks."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.CSafeDumper, value: str) -> yaml.Node:
    block = "\n" in value and not any(line.endswith((" ", "\t")) for line in value.split("\n")) and value.isprintable() is False
    style = "|" if block and all(c.isprintable() or c == "\n" for c in value) and not value.startswith((" ", "\n")) else None
    ambiguous = style is None and (value.lower() in ("y", "n", "yes", "no", "on", "off") or value[:1] in "0123456789+-.~=<" or ":" in value)
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if ambiguous and style is None else style)


_Dumper.add_representer(str, _text)


def dump(data: Any) -> str:
    """Compose data as YAML that 1.1 and 1.2 readers understand alike."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=140, allow_unicode=True, default_flow_style=False))


class ComposeWriter:
    """Add-ons as their images, services as builds or images, jobs and cron services by name."""

    dialect: ClassVar[str] = "compose"

    def write(self, spec: Spec) -> Written:
        emitter = Emitter(spec)
        document = emitter.document()
        losses = list(emitter.losses)
        found = self._read_back(document, spec.name, losses)
        patch = _patch(found, spec)
        if patch:
            document["x-homeport"] = patch
            said = tuple(loss.path for loss in losses)
            for path, reason in _leaves(patch):
                if not _covered(path, said) and not emitter.equivalent(path):
                    losses.append(Loss(path=path, reason=reason))
        return Written(dialect=self.dialect, files={FILE: dump(document)}, losses=tuple(losses))

    @staticmethod
    def _read_back(document: dict[str, Any], name: str, losses: list[Loss]) -> Spec | None:
        """The spec that the document gives; what Compose would refuse is taken out of it, and listed."""
        for _ in range(MAX_REPAIRS):
            text = dump(document)
            if len(text) > MAX_FILE:
                return None
            try:
                return ComposeReader().read(MemoryTree({FILE: text}, name=name), FILE).spec
            except BlueprintInvalid as error:
                removed = [loss for problem in error.problems if (loss := _repair(document, problem)) is not None]
                losses += removed
                if not removed:
                    return None
        return None


def _repair(document: dict[str, Any], problem: Problem) -> Loss | None:
    keys = [(quoted or index or plain).replace('\\"', '"') for quoted, index, plain in _STEP.findall(problem.path)]
    entries: Any = document.get(keys[0]) if keys else None
    if len(keys) < 2 or not isinstance(entries, dict) or not isinstance(entries.get(keys[1]), dict):
        return None
    if len(keys) == 2 or keys[2] not in entries[keys[1]]:
        return None
    del entries[keys[1]][keys[2]]
    return Loss(path=".".join(keys[:3]), reason=f"Compose would refuse it: {problem.message}")


def _patch(found: Spec | None, spec: Spec) -> dict[str, Any]:
    """What the document, read back, does not give."""
    wanted = json.loads(json.dumps(spec.canonical()))
    before = json.loads(json.dumps(found.canonical())) if found is not None else {}
    patch = merge_diff(before, wanted)
    return patch if merge_patch(before, patch) == wanted else merge_diff({}, wanted)


def _leaves(patch: dict[str, Any]) -> list[tuple[str, str]]:
    """What the patch says, one entry per property of a service, an add-on or the project."""
    reason = "Docker has no word for it; kept under `x-homeport`"
    found: list[tuple[str, str]] = []
    for group, entries in patch.items():
        if group in ("services", "addons") and isinstance(entries, dict):
            for name, entry in entries.items():
                if not isinstance(entry, dict):
                    continue
                found += [(f"{group}.{name}.{key}", reason) for key, value in entry.items() if value is not None]
        elif entries is not None:
            found.append((group, reason))
    return found


def _covered(path: str, said: tuple[str, ...]) -> bool:
    return any(one == path or one.startswith(path + ".") or path.startswith(one + ".") for one in said)
