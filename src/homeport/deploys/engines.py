"""The engines of a home: which driver serves what. The one place that chooses."""

from __future__ import annotations

from pathlib import Path

from homeport.deploys.addons import AddOnBook
from homeport.deploys.platform import Platform, open_platform
from homeport.deploys.secrets import SecretBook
from homeport.drivers.addons.base import AddOnDriver
from homeport.drivers.addons.mariadb import MariaDBDriver
from homeport.drivers.addons.postgres import PostgresDriver
from homeport.drivers.addons.temporal import TemporalDriver
from homeport.drivers.addons.valkey import ValkeyDriver
from homeport.drivers.builders.process import ProcessBuilder
from homeport.drivers.edge.nginx import NginxEdge
from homeport.drivers.reach import reachable
from homeport.drivers.runtimes.process import ProcessRuntime
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.settings import Settings
from homeport.store import Store


def open_home(settings: Settings) -> Platform:
    """A home on this machine: processes behind nginx. Raises HomeUnreachable, StoreUnavailable, VaultKeyMissing."""
    settings.home.mkdir(parents=True, exist_ok=True)
    home, network = reachable(settings.home), settings.network
    settings = settings.model_copy(update={"home": home})
    toolchains = Toolchains(home, network=network)
    builder = ProcessBuilder(home, toolchains, network=network)

    def book(store: Store, secrets: SecretBook) -> AddOnBook:
        return AddOnBook(store, secrets, addon_drivers(home, toolchains), home=home)

    return open_platform(settings, ProcessRuntime(home), NginxEdge(home, nginx=settings.nginx), builder, book)


def addon_drivers(home: Path, toolchains: Toolchains) -> dict[str, AddOnDriver]:
    """The driver of each kind of add-on."""
    return {
        "postgres": PostgresDriver(home, toolchains),
        "redis": ValkeyDriver(home, toolchains),
        "mariadb": MariaDBDriver(home),
        "temporal": TemporalDriver(home, toolchains),
    }
