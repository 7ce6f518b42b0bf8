"""Founderhouse: founders, their startups, and search over what they write."""

__version__ = "0.9.2"
