"""The platform of one home: its drivers, its store, and what they know together."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from homeport.deploys.addons import AddOnBook
from homeport.deploys.audit import AuditLog
from homeport.deploys.closing import Gate
from homeport.deploys.config import Surroundings, environment_of
from homeport.deploys.outside import OutsideStores
from homeport.deploys.own_ports import OwnPorts
from homeport.deploys.plan import instances_of, strategy_of
from homeport.deploys.ports import at_port
from homeport.deploys.progress import ProgressLogs
from homeport.deploys.provided import build_variables, facts_of_run, platform_name, provided
from homeport.deploys.routes import Live, host_of, hosts_of, make_table
from homeport.deploys.secrets import SecretBook
from homeport.deploys.vault import LOST, VaultCare
from homeport.drivers.builders.base import Builder
from homeport.drivers.edge.base import ProvingEdge, RouteTable, Target
from homeport.drivers.edge.hold import Holder
from homeport.drivers.runtimes.accounts import allocate
from homeport.drivers.runtimes.addresses import FIRST, LAST, free_port, is_free
from homeport.drivers.runtimes.base import Handle, Mount, Placement, Runtime
from homeport.drivers.vault.keys import KeySource
from homeport.drivers.vault.seal import Sealer, VaultDamaged
from homeport.durable import Faults
from homeport.model.base import slug
from homeport.model.release import Release, ServiceView
from homeport.model.service import CronService, Listening, PrivateService, Service, StaticService, WebService
from homeport.settings import Settings
from homeport.store import Store
from homeport.store.environments import EnvironmentRow
from homeport.store.instances import InstanceRow
from homeport.store.reserve import Reserve

log = logging.getLogger("homeport")

DEFAULT_FORWARD_PORT = 10000
"""Port that a private service is reached on when its file names none: Render's default."""

"""What an operator who has lost the vault's key renames `vault.json` to, to begin with a new one."""

SPREAD = 250
"""Places at which searches for a port begin, one after the other; one search a second comes to the first again after four minutes."""

DEFAULT_GRACE = timedelta(seconds=30)


@dataclass
class Platform:
    """Everything a room needs. One per control plane."""

    settings: Settings
    store: Store
    runtime: Runtime
    edge: ProvingEdge
    builder: Builder
    secrets: SecretBook
    addons: AddOnBook
    progress: ProgressLogs

    def __post_init__(self) -> None:
        self.edge_lock = threading.RLock()
        self.gate = Gate()
        self._searches = itertools.count(int(time.time()))
        self.reserve = Reserve(self.settings.home)
        self.held: dict[str, Target] = {}
        """Services (`project/environment/service`) whose requests wait at a relay right now."""
        self.holders: dict[str, Holder] = {}
        """Relays by service; made when first needed, kept while the control plane runs."""
        self.own_ports = OwnPorts(self.store.ledger)
        self.outside = OutsideStores(self.secrets)
        self.vault = VaultCare(self.secrets)
        self.seed: Callable[[Release, str, bool, bool], Sequence[str] | None] = lambda _release, _source, _workers, _crons: None
        """Set by the rooms of data: have a new environment's databases begin with those of another; what to tell, None when it has data."""
        self.afford: Callable[[str], None] = lambda _project: None
        """Set by the rooms of data: raises when a project takes all of the disk that it may."""
        self.wake: Callable[[], None] = lambda: None
        """Set by the supervisor: something changed that it should look at."""

    @property
    def home(self) -> Path:
        return self.settings.home

    # --- what is live -----------------------------------------------------------------------------------------

    def live_release(self, project: str, environment: str) -> Release | None:
        row = self.store.environments.get(project, environment)
        found = self.store.releases.get(project, environment, row.live) if row is not None and row.live is not None else None
        return found.release if found else None

    def account(self, project: str, environment: str) -> int | None:
        """The uid an environment's processes run as: its own when Homeport is root, else none."""
        if os.geteuid() != 0:
            return None
        row = self.store.environments.ensure(project, environment)
        if row.account is None:
            account = allocate(self.store.environments.accounts(), f"{project}/{environment}")
            self.store.environments.change(project, environment, account=account)
            return account
        return row.account

    def wanted(self, release: Release, row: EnvironmentRow | None) -> dict[str, int]:
        """How many instances of each service a release runs in its environment."""
        scale = row.scale if row else {}
        found = {name: instances_of(name, release.spec.services[name], scale) for name in active_services(release)}
        once = self.own_ports.of(release.project, release.environment)
        return {name: min(count, 1) if name in once else count for name, count in found.items()}

    # --- instances --------------------------------------------------------------------------------------------

    def new_row(self, release: Release, service: str, ordinal: int, role: str) -> InstanceRow:
        """The row of one instance, with its port when it listens. The same instance gets the same port again."""
        id = instance_id(release, service, ordinal)
        definition = release.spec.services[service]
        port = 0
        if isinstance(definition, Listening):
            ports = self._ports()
            insists = release.artifacts[service].port
            port = insists or int(self.store.ledger.assign("port", id, lambda _: self._free_port(ports)))
        host = "127.0.0.1" if port else ""
        return InstanceRow(
            id, release.project, release.environment, service, release.number, ordinal, role, host, port, "new", 0, 0, "", None, None
        )

    def placement(self, release: Release, row: InstanceRow) -> Placement:
        """An instance, fully decided. Opens the secrets it needs. Raises ReferenceBroken, SecretDoesNotOpen."""
        service = release.spec.services[row.service]
        env = self.environment_of(release, row.service)
        if row.port:
            env |= {"PORT": str(row.port), "HOST": row.host}
        return self.place(release, row.service, row.id, env, command=service.command, port=row.port, ordinal=row.ordinal)

    def start(self, placement: Placement) -> Handle:
        """Start a process, unless everything is being stopped."""
        with self.gate.inside():
            return self.runtime.start(placement)

    def place(
        self,
        release: Release,
        service: str,
        id: str,
        env: dict[str, str],
        *,
        command: tuple[str, ...] | str,
        port: int = 0,
        ordinal: int = 0,
        once: str = "",
    ) -> Placement:
        """A placement of any command in a service's surroundings: an instance; `once` tells a `release`, a `run` or a `job`."""
        definition = release.spec.services[service]
        artifact = release.artifacts[service]
        return Placement(
            id=id,
            project=release.project,
            environment=release.environment,
            service=service,
            release=release.id,
            ordinal=ordinal,
            generation=time.time_ns() // 1_000_000,
            artifact=artifact,
            command=at_port(_with_entrypoint(definition, command or artifact.command), getattr(definition, "port", None), port),
            env={**self.provided(release, service, instance=id, ordinal=ordinal, once=once), **env},
            host="127.0.0.1" if port else "",
            port=port,
            resources=definition.resources,
            mounts=self.mounts(release, definition),
            hosts=self.names(release),
            user=self.account(release.project, release.environment),
            grace=definition.shutdown_grace or DEFAULT_GRACE,
            stop_signal=definition.stop_signal or "SIGTERM",
        )

    def environment_of(self, release: Release, service: str, *, direct: bool = False) -> dict[str, str]:
        """The variables of a service: discovery and add-ons below the toolchain's, those below the configuration.

        With `direct` databases are reached past their pools: what changes a schema needs a session of its own.
        """
        around = Surroundings(
            service=lambda name, wanted: self._service_property(release, name, wanted),
            addon=lambda name, wanted: self.addons.property(release, service, name, wanted, direct=direct),
            provided=lambda name, key: self.provided(release, name).get(key),
        )
        config = environment_of(release, service, self.secrets, around)
        found = {**self._discovery(release, service), **self.addons.variables(release, service, direct=direct)}
        return {**found, **release.artifacts[service].env, **config}

    def told(self, release: Release, service: str) -> list[tuple[str, str, dict[str, str]]]:
        """What a service is told that nobody names, strongest first: `add-on`, `service` or `platform`, a note, and the variables."""
        dialect = release.dialects.get(service, "")
        platform = platform_name(dialect)
        if isinstance(release.spec.services[service], StaticService):
            spec = release.spec.model_copy(update={"name": release.project})
            built = build_variables(spec, release.environment, service, release.revision, dialect, self.settings.edge_port)
            return [("platform", f"as {platform} gives it to builds", {**built[0], **built[1]})] if platform else []
        return [
            ("add-on", "of the only add-on that has it", self.addons.variables(release, service)),
            ("service", "of another service of the project", self._discovery(release, service)),
            ("platform", f"as {platform} gives it" if platform else "", self.provided(release, service)),
        ]

    def provided(self, release: Release, service: str, *, instance: str = "", ordinal: int = 0, once: str = "") -> dict[str, str]:
        """The variables that the platform a service's file is for gives its processes."""
        private = (self._service_property(release, service, "host") or "") if service in self.forwards(release) else ""
        port = self.settings.edge_port
        facts = facts_of_run(release, service, port, private_host=private, instance=instance, ordinal=ordinal, once=once)
        return provided(release.dialects.get(service, ""), facts, "run")

    def mounts(self, release: Release, service: Service) -> tuple[Mount, ...]:
        """The service's disks with their folders, made and owned."""
        found: list[Mount] = []
        owner = f"{release.project}/{release.environment}"
        for disk in service.disks:
            if disk.kind in ("volume", "tmpfs"):
                name = slug(disk.name or disk.source or disk.mount_path)
                folder = self.home / "volumes" / f"{release.project}-{release.environment}-{name}"
                if not folder.is_dir():
                    folder.mkdir(parents=True, mode=0o750, exist_ok=True)
                    account = self.account(release.project, release.environment)
                    if account is not None:
                        os.chown(folder, account, account)
                    self.store.ledger.claim("volume", folder.name, owner, mount_path=disk.mount_path)
                found.append(Mount(disk=disk, folder=folder))
        return tuple(found)

    # --- names ------------------------------------------------------------------------------------------------

    def forwards(self, release: Release) -> dict[str, tuple[str, int]]:
        """Loopback address and port of each service that others of the project can call."""
        listening = {
            n: s for n, s in release.spec.services.items() if isinstance(s, WebService | PrivateService) and n in active_services(release)
        }
        if len(active_services(release)) < 2:
            return {}
        found: dict[str, tuple[str, int]] = {}
        for name, service in listening.items():
            owner = f"{release.project}/{release.environment}/{name}"
            port = service.port or DEFAULT_FORWARD_PORT
            address = self.store.ledger.assign("address", owner, lambda taken, port=port: free_address(taken, port, self.home))  # type: ignore[misc]
            found[name] = (address, port)
        return found

    def names(self, release: Release) -> dict[str, str]:
        """Every host name that instances of the release may resolve, with its address."""
        names: dict[str, str] = {}
        for name, (address, _) in self.forwards(release).items():
            service = release.spec.services[name]
            for alias in (name, service.title, *service.aliases):
                if alias:
                    names[alias] = address
        return names | self.addons.names(release)

    def _service_property(self, release: Release, name: str, wanted: str) -> str | None:
        if name not in release.spec.services:
            return None
        public = f"{host_of(release.project, release.environment, name)}:{self.settings.edge_port}"
        if wanted == "public-url":
            return f"http://{public}"
        if wanted == "public-host":
            return public.split(":", maxsplit=1)[0]
        address, port = self.forwards(release).get(name, ("", 0))
        if not port:
            return {
                "host": public.split(":", maxsplit=1)[0],
                "port": str(self.settings.edge_port),
                "hostport": public,
                "url": f"http://{public}",
            }.get(wanted)
        host = name if self.runtime.capabilities.names else address
        return {"host": host, "port": str(port), "hostport": f"{host}:{port}", "url": f"http://{host}:{port}"}.get(wanted)

    def _discovery(self, release: Release, service: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, (_, port) in self.forwards(release).items():
            if name != service:
                prefix = name.upper().replace("-", "_")
                host = self._service_property(release, name, "host") or ""
                found |= {f"{prefix}_HOST": host, f"{prefix}_PORT": str(port), f"{prefix}_URL": f"http://{host}:{port}"}
        return found

    # --- edge -------------------------------------------------------------------------------------------------

    def table(self, *, switching: Release | None = None) -> RouteTable:
        """The route table of all that is live; `switching` takes the place of its environment's live release."""
        lives = []
        for row in self.store.environments.all():
            release = self.live_release(row.project, row.environment)
            if switching is not None and (row.project, row.environment) == (switching.project, switching.environment):
                release = switching
            if release is not None:
                lives.append(Live(release, self.targets(release), self.forwards(release), stopped=row.stopped, relays=self.relays(release)))
        return make_table(lives, port=self.settings.edge_port, address=self.settings.edge_address, held=self.held)

    def relays(self, release: Release) -> dict[str, Target]:
        """The fixed place where requests wait for each service that may not overlap. The edge always knows it as a last resort."""
        found: dict[str, Target] = {}
        ports = self._ports()
        once = self.own_ports.of(release.project, release.environment)
        for name in active_services(release):
            service = release.spec.services[name]
            if isinstance(service, Listening) and (strategy_of(service) == "hold" or name in once):
                owner = f"{release.project}/{release.environment}/{name}"
                port = self.store.ledger.assign("relay", owner, lambda _: self._free_port(ports))
                found[name] = Target(host=relay_host(self.home), port=int(port))
        return found

    def _free_port(self, taken: set[int]) -> str:
        """Homes on one machine begin their search at different places: a port may be given out long before anybody listens on it.

        Each search begins a little further on, so that a port which was just given up is not given out again while old workers of the
        edge may still send its former owner something.
        """
        begin = _number_of(self.home) + next(self._searches) % SPREAD
        return str(free_port(taken, after=FIRST + begin % (LAST - FIRST)))

    def another_port(self, row: InstanceRow) -> InstanceRow | None:
        """The row with another port, since a program that is not Homeport's got hold of its own; None when its port was not given to it."""
        given = [found.key for found in self.store.ledger.list("port", row.id)]
        if str(row.port) not in given:
            return None
        ports = self._ports()
        for key in given:
            self.store.ledger.release("port", key)
        port = int(self.store.ledger.assign("port", row.id, lambda _: self._free_port(ports)))
        self.store.instances.change(row.id, port=port)
        return replace(row, port=port)

    def _ports(self) -> set[int]:
        return {int(row.key) for kind in ("port", "relay") for row in self.store.ledger.list(kind)}

    def targets(self, release: Release) -> dict[str, tuple[Target, ...]]:
        """Per service, the instances that may receive requests: the well ones, or all when none is well."""
        rows = [
            r
            for r in self.store.instances.list(release.project, release.environment, number=release.number)
            if r.port and r.role != "retiring"
        ]
        found: dict[str, tuple[Target, ...]] = {}
        for service in {row.service for row in rows}:
            mine = [row for row in rows if row.service == service]
            well = [row for row in mine if row.state == "healthy"] or mine
            found[service] = tuple(Target(host=row.host, port=row.port) for row in well)
        return found

    def refresh_edge(self, *, switching: Release | None = None) -> int:
        """Bring the edge to what is live; returns its generation. Raises EdgeRefused, EdgeUnavailable, EdgeUnconfirmed."""
        with self.edge_lock:
            return self.edge.apply(self.table(switching=switching))

    # --- views ------------------------------------------------------------------------------------------------

    def url_of(self, release: Release, service: str) -> str | None:
        """Where the public reaches a service."""
        hosts = hosts_of(release, service)
        return f"http://{hosts[0]}:{self.settings.edge_port}" if hosts else None

    def service_views(self, release: Release) -> tuple[ServiceView, ...]:
        rows = self.store.instances.list(release.project, release.environment, number=release.number)
        return tuple(
            ServiceView(
                name=name,
                kind=release.spec.services[name].kind,
                url=self.url_of(release, name),
                instances=sum(1 for row in rows if row.service == name and row.role in ("live", "candidate") and row.state == "healthy"),
            )
            for name in active_services(release)
        )

    # --- taking away ------------------------------------------------------------------------------------------

    def stop_instances(self, rows: Sequence[InstanceRow], *, grace: timedelta | None = None) -> None:
        """Stop instances side by side and forget them; their ports are free again. Already gone is success."""
        for row in rows:
            self.store.instances.change(row.id, role="retiring", retire_at=None)
        threads = [threading.Thread(target=self._stop_instance, args=(row.id, grace), name=f"stop-{row.id}") for row in rows]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _stop_instance(self, id: str, grace: timedelta | None) -> None:
        self.runtime.stop(id, grace=grace)
        self.runtime.forget(id)
        for port in self.store.ledger.list("port", id):
            self.store.ledger.release("port", port.key)
        self.store.instances.remove([id])

    def event(self, kind: str, text: str, about: Release | tuple[str, str] = ("", ""), **data: Any) -> None:
        """Write an event down about a release, or a project and environment; a full disk must not stop what it reports."""
        project, environment = about if isinstance(about, tuple) else (about.project, about.environment)
        with suppress(Exception):
            self.store.events.add(kind, text, project=project, environment=environment, **data)


def active_services(release: Release) -> list[str]:
    """Services of a release that run in its profile."""
    wanted = set(release.profile)
    return [n for n, s in release.spec.services.items() if not s.profiles or wanted & set(s.profiles)]


def _with_entrypoint(service: Service, command: tuple[str, ...] | str) -> tuple[str, ...] | str:
    """The command behind the entry point a container file names, as a container engine would put them together."""
    entry = service.container.entrypoint
    if not entry or not command:
        return entry or command
    first = tuple(shlex.split(entry)) if isinstance(entry, str) else tuple(entry)
    return first + (tuple(shlex.split(command)) if isinstance(command, str) else command)


def instance_id(release: Release, service: str, ordinal: int) -> str:
    """`shop-production-web-r42-0`: unique on the machine, and the name of the instance's folder."""
    return f"{release.project}-{release.environment}-{service}-{release.id}-{ordinal}"


def needs_process(service: Service) -> bool:
    """Whether a service has instances that run all the time."""
    return not isinstance(service, CronService | StaticService) and service.kind != "function"


def open_platform(
    settings: Settings,
    runtime: Runtime,
    edge: ProvingEdge,
    builder: Builder,
    addons: Callable[[Store, SecretBook], AddOnBook],
) -> Platform:
    """Open a home with the given drivers. Raises StoreUnavailable, VaultKeyMissing."""
    store = Store.open(settings.home, settings.database_url)
    key = KeySource(settings.home, given=settings.vault_key, command=settings.vault_key_command, environment=settings.vault_key_environment)
    faults = Faults(settings.fault)
    if not (settings.home / "vault.json").exists() and not (settings.home / LOST).exists() and store.secrets.any_sealed():
        raise VaultDamaged("is not there, and the store holds values that were sealed with it")
    sealer = Sealer(settings.home, key, reach=lambda step: faults.reach("rekey", step))
    secrets = SecretBook(store, sealer, AuditLog(store.audit, settings.home))
    return Platform(settings, store, runtime, edge, builder, secrets, addons(store, secrets), ProgressLogs(settings.home / "deploys"))


def relay_host(home: Path) -> str:
    """The loopback address of a home's relays. Their ports are kept while nobody listens there, so no other home may have them."""
    number = _number_of(home)
    return f"127.78.{number // 254 % 254 + 1}.{number % 254 + 1}"


def _number_of(home: Path) -> int:
    return int.from_bytes(hashlib.sha256(str(home.resolve()).encode()).digest()[:4])


def free_address(taken: set[str], port: int, home: Path) -> str:
    """A loopback address (RFC 1122: all of 127.0.0.0/8) that no service of this home has yet and where nobody listens on the port.

    Homes begin at different places of the range, so that two on one machine do not meet while one of them is stopped.
    """
    first, last = 256, 65_000
    begin = _number_of(home) % (last - first)
    for step in range(last - first):
        number = first + (begin + step) % (last - first)
        address = f"127.77.{number // 256}.{number % 256}"
        if address not in taken and number % 256 not in (0, 255) and (port < 1024 or is_free(address, port)):
            return address
    raise RuntimeError("127.77.0.0/16 is used up")
