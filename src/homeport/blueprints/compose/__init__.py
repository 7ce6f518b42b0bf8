"""Compose: `compose.yaml` and `docker-compose.yml`, read and written after the Compose specification."""

from homeport.blueprints.compose.reader import ComposeReader

__all__ = ["ComposeReader"]
