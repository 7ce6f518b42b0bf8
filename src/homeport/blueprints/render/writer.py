"""Writes a render.yaml that Render's own JSON Schema accepts."""

from __future__ import annotations

from typing import Any, ClassVar

from homeport.blueprints.homeport import dump_yaml
from homeport.blueprints.overrides import for_environment
from homeport.blueprints.render.entries import Entries
from homeport.model.addon import AddOn
from homeport.model.env import EnvGroup
from homeport.model.reading import Loss, Written
from homeport.model.service import Service
from homeport.model.spec import Spec

HEADER = "# Written by Homeport. https://render.com/docs/blueprint-spec describes every key.\n"
Pieces = tuple[dict[str, Service], dict[str, AddOn], dict[str, EnvGroup]]
LISTS = ("services", "databases", "envVarGroups")


class RenderWriter:
    """Render blueprints."""

    dialect: ClassVar[str] = "render"

    def write(self, spec: Spec) -> Written:
        entries = Entries(spec)
        document: dict[str, Any] = {}
        generation, days = spec.previews.generation, spec.previews.expire_after_days
        if generation != "off" or days:
            document["previews"] = {"generation": generation} | ({"expireAfterDays": days} if days else {})
        others = [name for name in spec.environments if name != "preview"]
        if others:
            document |= _environments(spec, others, entries)
        else:
            document |= entries.resources((spec.services, spec.addons, spec.env_groups))
        if not any(document.get(key) for key in (*LISTS, "projects")):
            document["services"] = []
        losses = list(entries.losses)
        losses += [Loss(path=f"pipelines.{p.name}", reason="Render runs no pipelines of this kind") for p in spec.pipelines]
        losses += [Loss(path="tunnels", reason="Render has no tunnels")] if spec.tunnels else []
        return Written(dialect=self.dialect, files={"render.yaml": HEADER + dump_yaml(document)}, losses=tuple(dict.fromkeys(losses)))


def _pieces(spec: Spec) -> Pieces:
    return spec.services, spec.addons, spec.env_groups


def _environments(spec: Spec, names: list[str], entries: Entries) -> dict[str, Any]:
    """One project: what all environments share stands under `ungrouped`, the rest in its environment.
    Names are unique in a blueprint, so a service that differs between environments cannot be said."""
    base = next((name for name in names if not spec.environments[name]), "production")
    wholes = {name: _pieces(for_environment(spec, name)) for name in dict.fromkeys([base, *names])}
    if base not in names:
        wholes[base] = _pieces(for_environment(spec.model_copy(update={"environments": {}}), base))
    shared: Pieces = ({}, {}, {})
    own: dict[str, Pieces] = {name: ({}, {}, {}) for name in wholes}
    for index, kind in enumerate(("services", "addons", "env_groups")):
        for environment, whole in wholes.items():
            pieces: dict[str, Any] = whole[index]
            for name, piece in pieces.items():
                same = [other[index].get(name) == piece for other in wholes.values()]
                if all(same) and len(wholes) > 1:
                    shared[index][name] = piece
                elif environment == base or name not in wholes[base][index]:
                    if not any(name in other[index] for other in own.values()):
                        own[environment][index][name] = piece
                    else:
                        entries.lose(f"environments.{environment}.{kind}.{name}", "names are unique in a blueprint")
                elif piece != wholes[base][index].get(name):
                    entries.lose(
                        f"environments.{environment}.{kind}.{name}", "names are unique in a blueprint, so it cannot differ by environment"
                    )
    settings = (spec.extensions.get("render") or {}).get("environments") or {}
    project = {"name": spec.title or spec.name, "environments": [_environment(n, own[n], settings.get(n) or {}, entries) for n in own]}
    together = entries.resources(shared)
    return {"projects": [project]} | ({"ungrouped": together} if together else {})


def _environment(name: str, pieces: Pieces, settings: dict[str, Any], entries: Entries) -> dict[str, Any]:
    written: dict[str, Any] = {"name": settings.get("title") or name}
    if settings.get("isolation"):
        written["networking"] = {"isolation": settings["isolation"]}
    if settings.get("protection"):
        written["permissions"] = {"protection": settings["protection"]}
    return written | entries.resources(pieces)
