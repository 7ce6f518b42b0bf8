"""Cloud Run: Knative `service.yaml`, and the jobs and worker pools beside it."""

from homeport.blueprints.cloudrun.reader import CloudRunReader
from homeport.blueprints.cloudrun.writer import CloudRunWriter

__all__ = ["CloudRunReader", "CloudRunWriter"]
