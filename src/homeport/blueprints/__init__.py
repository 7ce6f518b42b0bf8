"""Blueprints: deployment files of every dialect, read into the spec and written from it. Pure: the only input is the source tree."""
