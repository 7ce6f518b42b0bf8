"""No file at all: what runs is read from the source itself."""

from homeport.blueprints.detect.fill import fill
from homeport.blueprints.detect.reader import DetectReader, detect_services

__all__ = ["DetectReader", "detect_services", "fill"]
