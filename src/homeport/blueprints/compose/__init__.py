"""Compose: `compose.yaml` and `docker-compose.yml`, read and written after the Compose specification."""

from homeport.blueprints.compose.reader import ComposeReader
from homeport.blueprints.compose.writer import ComposeWriter

__all__ = ["ComposeReader", "ComposeWriter"]
