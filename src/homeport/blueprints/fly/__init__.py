"""Fly: `fly.toml`. One file is one Fly app: a project whose process groups are its services."""

from homeport.blueprints.fly.reader import FlyReader
from homeport.blueprints.fly.writer import FlyWriter

__all__ = ["FlyReader", "FlyWriter"]
