"""What everything in this room shares: folders, targets, drivers, the key, and the index of what there is."""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field

from homeport.backups.errors import BackupMissing, BudgetSpent, NoRoom
from homeport.backups.manifest import Manifest, Proof
from homeport.backups.repository import Repository
from homeport.drivers.addons.base import AddOnDriver, AddOnId
from homeport.drivers.addons.keeping import ServerDriver
from homeport.drivers.addons.postgres import PostgresDriver
from homeport.drivers.addons.servers import folder_size
from homeport.drivers.files import remove_tree
from homeport.drivers.storage.base import Storage, StorageFailed, Target
from homeport.drivers.storage.keys import BackupKey, home_key
from homeport.model.base import Frozen
from homeport.model.release import Release
from homeport.store import Store
from homeport.store.backups import BackupRow

log = logging.getLogger("homeport.backups")

SCRATCH_PROJECT = "homeport.scratch"
"""Project of scratch add-ons: no project of a user can have a dot in its name."""
LOCAL = "local"
"""The target there is until another is added: a folder of the home. What lies there then stays readable, and goes as the policy says."""


UNSTREAMED = timedelta(seconds=60)
"""What is lost at most without streaming: the time until a segment is finished, and until it is shipped."""


class Policy(Frozen):
    """What is backed up when, and how long it is kept."""

    every: timedelta = timedelta(days=1)
    """Time between backups of the same thing."""
    prove_every: timedelta = timedelta(days=1)
    """Time between drills of the same thing."""
    keep_last: int = Field(default=3, ge=1, le=1000)
    """Newest backups that are always kept."""
    keep_daily: int = Field(default=7, ge=0, le=3650)
    """Days of which the newest backup is kept."""
    keep_weekly: int = Field(default=4, ge=0, le=520)
    """Weeks of which the newest backup is kept."""
    keep_gone: timedelta = timedelta(days=30)
    """Time for which backups of what was destroyed are kept."""
    budget: int = Field(default=0, ge=0)
    """Bytes that the data of one project may take on the disk; 0: no budget."""
    reserve: int = Field(default=1 << 30, ge=0)
    """Bytes of the disk that backups leave free, so that databases can write."""
    recipients: tuple[str, ...] = Field(default=(), max_length=16)
    """age recipients of the operator that can open every backup as well."""
    rpo: timedelta = Field(default=UNSTREAMED, ge=timedelta(seconds=1), le=UNSTREAMED)
    """Most that a PostgreSQL add-on may lose with the machine (recovery point objective). Below a minute its log is streamed."""
    rpo_for: dict[str, Annotated[timedelta, Field(ge=timedelta(seconds=1), le=UNSTREAMED)]] = Field(default={}, max_length=1000)
    """Another one for `project`, `project/environment` or `project/environment/add-on`; the most exact counts."""

    def loss(self, project: str, environment: str, name: str) -> timedelta:
        """Most that an add-on may lose."""
        for key in (f"{project}/{environment}/{name}", f"{project}/{environment}", project):
            if key in self.rpo_for:
                return self.rpo_for[key]
        return self.rpo


class Wiring(Protocol):
    """What the room needs of the platform it is built into."""

    def live_release(self, project: str, environment: str) -> Release | None: ...

    def provision(self, release: Release) -> None:
        """Bring the add-ons of a release up with the environment's own passwords."""

    def account(self, project: str, environment: str) -> int | None:
        """uid of an environment's processes, when Homeport is root."""

    def tell(self, kind: str, text: str, project: str = "", environment: str = "", **data: object) -> None:
        """Write an event down."""

    def reveal(self, project: str, environment: str, name: str, version: int) -> str:
        """A secret's value in the clear."""

    def keep(self, project: str, environment: str, name: str, value: str, actor: str) -> int:
        """Set a secret; its version."""

    def go_live(self, project: str, environment: str, number: int, actor: str) -> str:
        """Ask for a recorded release to be put live; the deploy's id."""

    def released(self, project: str, environment: str) -> None:
        """An operation has let go of an environment: deploys that wait for it can begin."""

    def abandon(self, project: str, environment: str, why: str) -> None:
        """Remove an environment whose data cannot be relied on, and say so."""

    def forget(self, project: str, environment: str) -> None:
        """Take back every secret that was set for an environment that did not come to be."""

    def vault_keys(self) -> Sequence[bytes]:
        """The vault's keys, the one in use first."""


class Room:
    """`open_storage` makes a target's driver. Everything of the room on disk lies under `backups/` of the home."""

    def __init__(
        self, home: Path, store: Store, drivers: Mapping[str, AddOnDriver], wiring: Wiring, open_storage: Callable[[Target], Storage],
        targets: Callable[[], Sequence[Target]],
    ) -> None:  # fmt: skip
        self.home, self.store, self.drivers, self.wiring = home, store, drivers, wiring
        self.open_storage, self._targets = open_storage, targets
        self.folder = home / "backups"
        self.folder.mkdir(mode=0o711, exist_ok=True, parents=True)
        self.reach: Callable[[str, str], None] = lambda _step, _point: None
        """Called at points of an operation where the control plane can be made to die."""
        self.busy = threading.RLock()
        """Held by whoever changes add-ons or takes copies: one at a time."""

    # --- parts ------------------------------------------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        return Policy.model_validate(self.store.backups.policy())

    @property
    def key(self) -> BackupKey:
        return home_key(self.folder / "key", self.policy.recipients)

    @property
    def postgres(self) -> PostgresDriver:
        driver = self.drivers["postgres"]
        assert isinstance(driver, PostgresDriver)  # noqa: S101 (wired so)
        return driver

    def server(self, kind: str) -> ServerDriver:
        """The driver of a kind of add-on, as one whose folders can be exchanged and thrown away."""
        driver = self.drivers[kind]
        assert isinstance(driver, ServerDriver)  # noqa: S101 (all that can be copied are)
        return driver

    def targets(self) -> list[Target]:
        """Where backups go: those that were added, else a folder of the home."""
        return list(self._targets()) or [self._own()]

    def _own(self) -> Target:
        return Target(name=LOCAL, kind="folder", address=str(self.folder / LOCAL))

    def repositories(self) -> list[Repository]:
        """Where backups go."""
        return self._opened(self.targets())

    def shelves(self) -> list[Repository]:
        """Where backups may lie: the targets, and the home's own folder also after others were added, as long as it holds something."""
        found = self.targets()
        if all(target.name != LOCAL for target in found) and any((self.folder / LOCAL).glob("*/*")):
            found.append(self._own())
        return self._opened(found)

    def _opened(self, targets: Sequence[Target]) -> list[Repository]:
        key, scratch = self.key, self.made("scratch")
        return [Repository(self.open_storage(target), key, scratch) for target in targets]

    def made(self, name: str) -> Path:
        """A private folder of the room."""
        folder = self.folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A new empty folder, gone afterwards."""
        folder = self.made("scratch") / secrets.token_hex(6)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            remove_tree(folder)

    def require(self, needed: int, what: str = "") -> None:
        """Raises NoRoom when the disk would be left with less than the reserve."""
        free, reserve = shutil.disk_usage(self.folder).free, self.policy.reserve
        if free - needed < reserve:
            raise NoRoom(needed=needed, free=free, reserve=reserve, what=what)

    def afford(self, project: str, what: str, needed: int = 0) -> None:
        """Raises BudgetSpent when a project's data takes its budget already, or would with `needed` bytes more."""
        budget = self.policy.budget
        if budget and (used := self.used_by(project)) + needed > budget:
            raise BudgetSpent(project=project, used=used, budget=budget, needed=needed, what=what)

    def used_by(self, project: str) -> int:
        """Bytes of a project's add-ons and disks, of every environment, by what the ledger says is its own."""
        return sum(self.sizes(project).values())

    def sizes(self, project: str = "") -> dict[str, int]:
        """Bytes of add-ons and disks by project."""
        used: dict[str, int] = {}
        for kind, folder in (("addon", self.home / "addons"), ("volume", self.home / "volumes")):
            for row in self.store.ledger.list(kind, project):
                owner = row.owner.split("/")[0]
                used[owner] = used.get(owner, 0) + (folder_size(folder / row.key) if (folder / row.key).is_dir() else 0)
        return used

    # --- what there is ----------------------------------------------------------------------------------------

    def addons(self, *kinds: str) -> list[AddOnId]:
        """Every add-on that releases of this home have, of a kind that can be copied, or of these kinds only."""
        found = []
        for row in self.store.ledger.list("addon"):
            kind = str(row.value.get("engine"))
            if kind in self.drivers and kind in (kinds or self.drivers):
                project, environment = row.owner.split("/")
                found.append(AddOnId(project=project, environment=environment, name=str(row.value["addon"])))
        return found

    def databases(self) -> list[AddOnId]:
        """Every PostgreSQL add-on."""
        return self.addons("postgres")

    def driver_of(self, id: AddOnId) -> AddOnDriver:
        """Raises BackupMissing when there is no such add-on."""
        for row in self.store.ledger.list("addon", f"{id.project}/{id.environment}"):
            if row.value["addon"] == id.name and str(row.value.get("engine")) in self.drivers:
                return self.drivers[str(row.value["engine"])]
        raise BackupMissing(f"There is no add-on {id.name} in {id.environment} of {id.project}.", "`homeport status` shows what there is.")

    def manifests(self, project: str = "", environment: str = "", name: str = "", kind: str = "") -> list[Manifest]:
        """Newest first, from the index."""
        return [Manifest.model_validate_json(row.body) for row in self.store.backups.list(project, environment, name, kind=kind)]

    def index(self, manifest: Manifest, targets: list[str], proof: Proof | None = None) -> None:
        """Write a backup into the index."""
        self.store.backups.put(
            BackupRow(
                id=manifest.id,
                kind=manifest.kind,
                project=manifest.project,
                environment=manifest.environment,
                name=manifest.name,
                taken_at=manifest.taken_at,
                size=manifest.size,
                targets=targets,
                body=manifest.model_dump_json(exclude_defaults=True),
                proven_at=proof.proven_at if proof and not proof.problem else None,
                proof=proof.model_dump(mode="json") if proof else None,
            )
        )

    def holder(self, manifest: Manifest) -> Repository:
        """A repository that holds a backup. Raises BackupMissing when none is known, StorageFailed when none answers."""
        return next(self.holders(manifest))

    def holders(self, manifest: Manifest) -> Iterator[Repository]:
        """Repositories that hold a backup, one after the other, for whoever finds the one before damaged or cut off.

        All but the first complete their log with what lies on the others. Raises BackupMissing when none is known, StorageFailed when none
        answers.
        """
        row, shelves = self.store.backups.get(manifest.id), self.shelves()
        last: Repository | None = None
        count, problem = 0, None
        for repository in shelves:
            if row is not None and repository.name not in row.targets:
                continue
            try:
                repository.manifest(manifest.id)
            except (StorageFailed, BackupMissing) as error:
                problem = error
                continue
            last, count = repository, count + 1
            yield repository if count == 1 else repository.with_log_of(shelves)
        if last is None:
            raise problem or BackupMissing(f"No target that is known now holds the backup {manifest.id}.", self._lost(row))
        if count == 1 and len(shelves) > 1:
            yield last.with_log_of(shelves)

    @staticmethod
    def _lost(row: BackupRow | None) -> str:
        if row is None or not row.targets:
            return ""
        return f"It lies on {', '.join(row.targets)}: add that target again with `homeport backup add-target`."

    def find(self, id: str) -> Manifest:
        """A backup by its id, or the beginning of it. Raises BackupMissing."""
        rows = [row for row in self.store.backups.list(limit=100_000) if row.id.startswith(id)]
        if len(rows) != 1:
            raise BackupMissing(f"{'No backup has' if not rows else 'Several backups have'} an id that begins with {id[:80]!r}.")
        return Manifest.model_validate_json(rows[0].body)

    def scratch_id(self, id: AddOnId) -> AddOnId:
        """A scratch add-on for trying a restore."""
        return AddOnId(project=SCRATCH_PROJECT, environment=secrets.token_hex(3), name=id.name)


def new_id() -> str:
    """`20261120T140507Z-3f9a1c`: sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
