"""Render's `render.yaml`: every key of its JSON Schema, the names that were renamed (`env`, `redis`, `previewsEnabled`),
and the slips that real files show, each with what becomes of it."""

from homeport.blueprints.render.reader import RenderReader
from homeport.blueprints.render.writer import RenderWriter

__all__ = ["RenderReader", "RenderWriter"]
