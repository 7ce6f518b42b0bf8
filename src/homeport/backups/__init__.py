"""Copies that are proven, going back to a minute, forks, and starting again on an empty machine."""
