"""Builds what a Dockerfile describes without a container engine, as far as that can be done honestly."""

from __future__ import annotations

from homeport.blueprints.source import SourceTree
from homeport.drivers.builders.errors import UnknownLanguage
from homeport.drivers.builders.recipe import Recipe
from homeport.model.service import Service


def recipe_from_dockerfile(tree: SourceTree, definition: Service, service: str, env: dict[str, str]) -> Recipe:
    """The recipe that a Dockerfile amounts to. Raises UnknownLanguage naming what cannot be done."""
    del tree, env
    raise UnknownLanguage(
        service=service,
        why=f"it is built by {definition.build.builder}, and there is no container engine",
        fix="Install Docker or Podman, or give a build command and a start command.",
    )
