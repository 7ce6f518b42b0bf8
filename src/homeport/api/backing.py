"""Where the backup room meets the platform: its wiring, its targets, and a home brought back from nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from homeport.backups import forks, recovering
from homeport.backups.guard import refuse
from homeport.backups.keeper import Keeper
from homeport.backups.operations import Progress
from homeport.backups.recovering import Recovered
from homeport.backups.room import Room
from homeport.deploys.audit import ITSELF
from homeport.deploys.control import ControlPlane
from homeport.deploys.engines import addon_drivers
from homeport.deploys.platform import active_services
from homeport.drivers.addons.postgres import PostgresDriver
from homeport.drivers.reach import reachable
from homeport.drivers.storage.base import Storage, Target
from homeport.drivers.storage.opening import open_target
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.drivers.vault.keys import KeySource, fingerprint
from homeport.durable import Faults
from homeport.model.errors import HomeportError
from homeport.model.release import PinnedSecret, Release
from homeport.settings import Settings
from homeport.store import Store

STOP_WITHIN = 120.0
"""Seconds that services may take to end before their disks are changed."""


class StillRunning(HomeportError):
    """What writes to a disk did not stop in time."""

    code = "still-running"


class PlatformWiring:
    """The platform as the backup room sees it."""

    def __init__(self, control: ControlPlane) -> None:
        self.control, self.platform = control, control.platform

    def live_release(self, project: str, environment: str) -> Release | None:
        return self.platform.live_release(project, environment)

    def provision(self, release: Release) -> None:
        self.platform.addons.provision(release)

    def account(self, project: str, environment: str) -> int | None:
        return self.platform.account(project, environment)

    def tell(self, kind: str, text: str, project: str = "", environment: str = "", **data: object) -> None:
        self.platform.event(kind, text, (project, environment), **data)

    def reveal(self, project: str, environment: str, name: str, version: int) -> str:
        return self.platform.secrets.open(project, environment, PinnedSecret(name=name, version=version))

    def keep(self, project: str, environment: str, name: str, value: str, actor: str) -> int:
        return self.platform.secrets.set(project, environment, name, value, by=actor, source="fork", origin="api").version

    def go_live(self, project: str, environment: str, number: int, actor: str) -> str:
        row = self.control.request_deploy(
            actor=actor, project=project, environment=environment, release=number, reason="a fork", confirmed=True, automatic=True
        )
        return row.id

    def released(self, project: str, environment: str) -> None:
        self.control.released(project, environment)

    def abandon(self, project: str, environment: str, why: str) -> None:
        self.control.destroy(project, environment, actor="homeport")
        self.tell("environment.abandoned", f"{project}/{environment} was removed: {why}. Fork it again.", project, environment)

    def forget(self, project: str, environment: str) -> None:
        """Only what a fork has copied: an environment of that name may have had values before, and they wait for its next deploy."""
        secrets = self.platform.secrets
        for row in secrets.store.secrets.history(project, environment):
            if row.source == "fork" and row.state in ("enabled", "disabled"):
                secrets.change_state(project, environment, row.name, row.version, "destroyed", by=ITSELF)

    def vault_keys(self) -> Sequence[bytes]:
        sealer = self.platform.secrets.sealer
        wanted = sealer.status().key
        return sorted(sealer.source.keys(), key=lambda key: fingerprint(key) != wanted)


class Targets:
    """The targets of a home; what their configuration holds is sealed by the vault."""

    def __init__(self, control: ControlPlane) -> None:
        self.store, self.sealer = control.platform.store.backups, control.platform.secrets.sealer

    def list(self) -> list[Target]:
        return [
            Target.model_validate(
                {
                    "name": row.name,
                    "kind": row.kind,
                    "address": row.address,
                    "config": self.sealer.open(row.sealed, _place(row.name)) if row.sealed else "",
                }
            )
            for row in self.store.targets()
        ]

    def put(self, target: Target) -> None:
        sealed = self.sealer.seal(target.config, _place(target.name)) if target.config else None
        self.store.put_target(target.name, target.kind, target.address, sealed)

    def remove(self, name: str) -> bool:
        return self.store.remove_target(name)


def _place(name: str) -> str:
    return f"homeport/backups/target.{name}@1"


def keeper_of(control: ControlPlane) -> Keeper:
    """The keeper of a control plane's home, not started."""
    platform = control.platform
    drivers = dict(platform.addons.drivers)
    tools = Toolchains(platform.home, network=platform.settings.network)
    if not isinstance(drivers.get("postgres"), PostgresDriver):
        drivers["postgres"] = PostgresDriver(platform.home, tools)
    configs = platform.home / "backups" / "targets"

    def opened(target: Target) -> Storage:
        return open_target(target, configs, tools, platform.settings.network)

    room = Room(platform.home, platform.store, drivers, PlatformWiring(control), opened, Targets(control).list)
    room.reach = Faults(platform.settings.fault).reach

    def seeded(release: Release, source: str, workers: bool, crons: bool) -> Sequence[str] | None:
        found = forks.seed(room, release, source, workers=workers, crons=crons)
        return found.notes if found is not None else None

    platform.seed = seeded
    platform.afford = lambda project: refuse(room, project, "Nothing was built; what runs was not touched.")
    return Keeper(room)


@contextlib.contextmanager
def quiet(control: ControlPlane, progress: Progress) -> Iterator[None]:
    """No service that has a disk runs while the block does; afterwards as many run as before, also when a crash came between.

    Raises StillRunning when one does not end.
    """
    project, environment = progress.operation.project, progress.operation.environment
    store, release = control.platform.store, control.platform.live_release(project, environment)
    names = [name for name in active_services(release) if release.spec.services[name].disks] if release is not None else []
    row = store.environments.get(project, environment)
    if release is None or row is None or not names:
        yield
        return
    progress.note(scale=row.scale)
    try:
        _scale(control, release, {**row.scale, **dict.fromkeys(names, 0)})
        deadline = time.monotonic() + STOP_WITHIN
        while any(seen.service in names for seen in store.instances.list(project, environment)):
            if time.monotonic() > deadline:
                raise StillRunning(
                    what="Nothing was restored.", why="A service that writes to the disks did not stop.", fix="See `homeport ps`."
                )
            time.sleep(0.05)  # the reconciler ends them in a thread of its own
        yield
    finally:
        _scale(control, release, row.scale)


def _scale(control: ControlPlane, release: Release, scale: dict[str, int]) -> None:
    store = control.platform.store.environments
    store.change(release.project, release.environment, scale=scale)
    changed = store.get(release.project, release.environment)
    if changed is not None:
        control.supervisor.scale(release, changed)


def recover_home(settings: Settings, target: Target, vault_key: bytes | None, say: Callable[[str], None]) -> Recovered:
    """Bring a home back from a target, before any control plane runs. Without `vault_key` the settings' own are taken.

    Raises what `recovering.recover` raises.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    home = reachable(settings.home)
    tools = Toolchains(home, network=settings.network)
    source = KeySource(home, given=settings.vault_key, command=settings.vault_key_command, environment=settings.vault_key_environment)
    keys = [vault_key] if vault_key is not None else source.keys()
    configs = Path(home) / "backups" / "targets"
    return recovering.recover(
        home,
        target,
        lambda wanted: open_target(wanted, configs, tools, settings.network),
        keys,
        lambda: addon_drivers(home, tools),
        lambda: Store.open(home, settings.database_url),
        keep_key=not source.external,
        say=say,
    )
