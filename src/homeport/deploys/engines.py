"""The engines of a home: which driver serves what. The one place that chooses."""

from __future__ import annotations

from homeport.deploys.addons import AddOnBook
from homeport.deploys.platform import Platform, open_platform
from homeport.deploys.secrets import SecretBook
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
    builder = ProcessBuilder(home, Toolchains(home, network=network), network=network)
    return open_platform(settings, ProcessRuntime(home), NginxEdge(home, nginx=settings.nginx), builder, _addons)


def _addons(store: Store, secrets: SecretBook) -> AddOnBook:
    return AddOnBook(store, secrets, {})
