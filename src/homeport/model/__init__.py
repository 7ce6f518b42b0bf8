"""Frozen values every floor shares: spec, release, plan, event, errors. No I/O, no clock, no environment."""
