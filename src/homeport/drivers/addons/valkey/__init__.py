"""Valkey add-ons: one server each, Redis-compatible."""

from homeport.drivers.addons.valkey.driver import ValkeyDriver

__all__ = ["ValkeyDriver"]
