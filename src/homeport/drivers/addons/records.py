"""Where an add-on lies, and what is written down about it.

`addons/<project>-<environment>-<name>/` holds `addon.json` (what it is), `server/` (its process, its lock, its log), and folders of the
engine's own. Passwords are in none of them: engines keep verifiers, the vault keeps passwords.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.errors import AddOnFailed, AddOnMissing
from homeport.drivers.files import locked, remove_tree, sync_folder, write_atomic
from homeport.drivers.runtimes.accounts import allocate
from homeport.drivers.runtimes.addresses import free_port, is_free
from homeport.model.addon import AddOn
from homeport.model.base import Frozen

FIRST_ACCOUNT, LAST_ACCOUNT = 30_000, 30_999
"""uids of add-ons, where Homeport is root: apart from those of environments, so that no application can read an engine's files."""
FIRST_PORT, LAST_PORT = 15_000, 19_999
"""Ports of add-ons whose usual one is taken: below those given to instances."""

_GRAVE = re.compile(r".+\.\d{8}T\d{6}\.\d{6}Z")
"""Name of an add-on's tombstone (`bury`); those of disks begin with their time."""


class Record(Frozen):
    """`addon.json`."""

    id: AddOnId
    kind: str
    definition: AddOn
    """As last asked for, without passwords and variables."""
    consumers: tuple[str, ...] = ()
    host: str
    port: int
    user: int | None = None
    wanted: Literal["running", "stopped"] = "running"
    version: str = ""
    """Major version of the data."""
    source: str = ""
    """`bundled` or `system`: whose programs serve it."""
    data: str = ""
    """Name of the data folder in use."""
    replica_ports: tuple[int, ...] = ()
    extra_ports: tuple[int, ...] = ()
    """Ports of further interfaces of the same server."""
    open: bool = False
    """Whether it asks for no password, because the image that the file names does not either."""
    slots: dict[str, str] = {}
    """By consumer, which of its two logins is the newer: `a` or `b`."""
    streamed: bool = False
    """Whether a receiver takes its log as it is written."""
    filling: Literal["", "under way", "done"] = ""
    """Whether it is being filled from the project's files; one whose filling did not end is made anew."""
    pool_port: int = 0
    """Port of its connection pool, on `host`; 0 without one."""
    gate_port: int = 0
    """Port on all addresses of the machine that allowed networks reach it by; 0 without."""

    @property
    def ports(self) -> tuple[int, ...]:
        """Every port that is its own."""
        found = (self.port, *self.replica_ports, *self.extra_ports, self.pool_port, self.gate_port)
        return tuple(number for number in found if number)


class Place:
    """The folder of one add-on."""

    def __init__(self, home: Path, id: AddOnId) -> None:
        self.id, self.addons = id, home / "addons"
        self.folder = self.addons / id.slug

    @property
    def server(self) -> Path:
        return self.folder / "server"

    @property
    def lock(self) -> Path:
        """Held while the add-on is changed; beside the folder, since that comes and goes."""
        return self.addons / f".{self.id.slug}.lock"

    def read(self) -> Record | None:
        """What is written down; None when there is no such add-on. Raises AddOnFailed when the folder is another one's."""
        found = read(self.folder)
        if found is not None and found.id != self.id:
            raise AddOnFailed(
                name=self.id.name,
                why=f"The folder {self.folder.name} belongs to {found.id.name} of {found.id.project}/{found.id.environment}.",
                fix="Rename one of the two projects, environments or add-ons.",
            )
        return found

    def get(self) -> Record:
        """Raises AddOnMissing."""
        found = self.read()
        if found is None:
            raise AddOnMissing(self.id.slug)
        return found

    def write(self, record: Record) -> Record:
        data = json.dumps(record.model_dump(mode="json", exclude_defaults=True), indent=1) + "\n"
        write_atomic(self.folder / "addon.json", data.encode(), 0o600)
        return record

    def make(self, name: str, user: int | None, mode: int = 0o700) -> Path:
        """A folder of the engine's own."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
        if user is not None:
            os.chown(folder, user, user)
        return folder


def read(folder: Path) -> Record | None:
    try:
        return Record.model_validate_json((folder / "addon.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def records(home: Path, kind: str = "") -> Iterator[Record]:
    """Every add-on of a home, or those of one kind."""
    try:
        folders = sorted((home / "addons").iterdir())
    except FileNotFoundError:
        return
    for folder in folders:
        found = read(folder) if not folder.name.startswith(".") else None
        if found is not None and kind in ("", found.kind):
            yield found


def without_secrets(definition: AddOn) -> AddOn:
    """The definition as it may be written down."""
    secret = {"password", "root_password", "tls_certificate", "tls_key"} & set(type(definition).model_fields)
    return definition.model_copy(update={"env": {}, **dict.fromkeys(secret)})


def account_for(home: Path, slug: str) -> int | None:
    """The uid an add-on's engine runs as, when Homeport is root: one of its own, kept."""
    if os.geteuid() != 0:
        return None
    addons = home / "addons"
    with locked(addons / ".accounts.lock"):
        known = _accounts(addons)
        if slug not in known:
            known[slug] = allocate(known, slug, first=FIRST_ACCOUNT, last=LAST_ACCOUNT)
            write_atomic(addons / "accounts.json", json.dumps(known).encode(), 0o600)
        return known[slug]


def forget_account(home: Path, slug: str) -> None:
    """Give the uid free; only when no file of it is left."""
    addons = home / "addons"
    with locked(addons / ".accounts.lock"):
        known = _accounts(addons)
        if [name for name in (slug, door(slug)) if known.pop(name, None) is not None]:
            write_atomic(addons / "accounts.json", json.dumps(known).encode(), 0o600)


def buried(grave: Path) -> Record | None:
    """The add-on whose tombstone this is; None for one of a disk, whose files an application wrote: none of them is looked at."""
    if not _GRAVE.fullmatch(grave.name):
        return None
    found = read(grave)
    return found if found is not None and grave.name.startswith(f"{found.id.slug}.") else None


def purge(home: Path, grave: Path) -> None:
    """Remove a tombstone for good, and give its account free when nothing else belongs to it. Already gone is success.

    Not while the add-on is being made again, nor while an older tombstone of it is kept: what lies there belongs to the same account.
    """
    record = buried(grave)
    remove_tree(grave)
    if record is None:
        return
    place = Place(home, record.id)
    with contextlib.suppress(InterruptedError), locked(place.lock, cancelled=lambda: True):
        if not place.folder.exists() and not any(grave.parent.glob(f"{record.id.slug}.*")):
            forget_account(home, record.id.slug)


def door(slug: str) -> str:
    """The name under which the account of an add-on's pool and gate is kept: it is not the engine's own."""
    return f"{slug}/door"


def _accounts(addons: Path) -> dict[str, int]:
    try:
        return dict(json.loads((addons / "accounts.json").read_bytes()))
    except FileNotFoundError:
        return {}


def choose_address(home: Path, slug: str, usual: int, *, host: str = "", port: int = 0) -> tuple[str, int]:
    """Loopback address and port for a new add-on: those asked for, else an address of its own and the engine's usual port on it.

    Call with `.addresses.lock` held, and write the record before letting go.
    """
    taken = [(found.host, number) for found in records(home) if found.id.slug != slug for number in found.ports]
    host = host or _address(f"{home.resolve()}/{slug}", {address for address, _ in taken})
    if port:
        return host, port
    if (host, usual) not in taken and is_free(host, usual):
        return host, usual
    # Where one address serves all homes of a machine, each begins to look elsewhere: a port of a stopped add-on looks free to others.
    return host, free_port({number for _, number in taken}, host=host, after=begin_at(home, slug), first=FIRST_PORT, last=LAST_PORT)


def begin_at(home: Path, slug: str) -> int:
    """The port behind which an add-on begins to look for a free one."""
    return FIRST_PORT + _digest(f"{home.resolve()}/{slug}") % (LAST_PORT - FIRST_PORT)


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:2])


def _address(name: str, taken: set[str]) -> str:
    """One of 127.78.0.0/16 (all of 127/8 is loopback, RFC 1122), the same for the same name wherever it is free.

    The name holds the home: two homes on one machine may have an add-on of the same slug and start it at the same moment.
    """
    start = _digest(name)
    for step in range(65_536):
        number = (start + step) % 65_536
        address = f"127.78.{number // 256}.{number % 256}"
        if number % 256 not in (0, 255) and address not in taken:
            return address
    return "127.0.0.1"


def bury(home: Path, place: Place) -> Path:
    """Move the folder to `tombstones/<slug>.<time>`; when it is already there, the newest."""
    graves = home / "tombstones"
    graves.mkdir(mode=0o711, exist_ok=True)
    if place.folder.is_dir():
        grave = graves / f"{place.id.slug}.{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        place.folder.rename(grave)
        sync_folder(place.addons)
        sync_folder(graves)
        return grave
    found = sorted(grave for grave in graves.glob(f"{place.id.slug}.*") if (seen := read(grave)) and seen.id == place.id)
    if not found:
        raise AddOnMissing(place.id.slug)
    return found[-1]
