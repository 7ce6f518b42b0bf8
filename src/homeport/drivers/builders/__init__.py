"""Builders: source made runnable."""
