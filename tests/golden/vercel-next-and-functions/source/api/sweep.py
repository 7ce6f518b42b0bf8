"""A function."""
