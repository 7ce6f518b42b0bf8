"""Measurements of whole processes; each module prints one JSON document."""
