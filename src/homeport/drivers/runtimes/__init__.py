"""Runtimes: what runs instances."""
