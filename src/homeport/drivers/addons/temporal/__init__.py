"""Temporal add-ons: a server with SQLite each, or an outside cluster by its address."""

from homeport.drivers.addons.temporal.driver import TemporalDriver

__all__ = ["TemporalDriver"]
