"""MariaDB add-ons: the system's server, one per add-on."""

from homeport.drivers.addons.mariadb.driver import MariaDBDriver

__all__ = ["MariaDBDriver"]
