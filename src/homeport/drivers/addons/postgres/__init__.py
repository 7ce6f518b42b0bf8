"""PostgreSQL add-ons: one cluster each, of the bundled programs or the system's."""

from homeport.drivers.addons.postgres.driver import PostgresDriver

__all__ = ["PostgresDriver"]
