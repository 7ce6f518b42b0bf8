"""What every add-on driver that runs a server does alike: start, stop, bring back, bury, and tell."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from homeport.drivers.addons import copies
from homeport.drivers.addons.base import AddOnId, AddOnRequest, BackupRef
from homeport.drivers.addons.errors import AddOnFailed
from homeport.drivers.addons.records import (
    Place,
    Record,
    account_for,
    bury,
    choose_address,
    purge,
    read,
    records,
    without_secrets,
)
from homeport.drivers.addons.servers import Command, Keeper, Server
from homeport.drivers.cgroups import Group, cgroups
from homeport.drivers.files import locked, remove_tree, sync_folder
from homeport.model.base import parse_size
from homeport.model.errors import HomeportError

log = logging.getLogger(__name__)

PLAN_MEMORY = {
    "free": "256MB", "starter": "256MB", "hobby": "256MB", "basic-256mb": "256MB", "basic-1gb": "1GB", "basic-4gb": "4GB",
    "standard": "1GB", "pro": "4GB", "pro-4gb": "4GB", "pro-8gb": "8GB", "pro-16gb": "16GB", "pro-32gb": "32GB", "mini": "256MB",
    "essential-0": "256MB", "essential-1": "512MB", "essential-2": "1GB", "standard-0": "4GB", "standard-2": "8GB",
    "premium-0": "4GB",
}  # fmt: skip
"""Memory of the sizes that providers name, as their price lists give it."""
DEFAULT_MEMORY = 256 << 20
LOOK_TIMEOUT = 3.0
"""Seconds a server has to answer when somebody looks at it; one that works on its data may be slower, and is given more elsewhere."""
SILENT = "it does not answer"
ROTATE_AT = 10 << 20
"""Bytes of log at which a file is rotated."""


class ServerDriver(ABC):
    """The common half of a driver. `at(point)` is called before each step of a change: the name of the step that follows."""

    kind: ClassVar[str]
    usual_port: ClassVar[int]
    stop_signal: ClassVar[int] = signal.SIGTERM
    stop_grace: ClassVar[float] = 30.0
    start_timeout: ClassVar[float] = 60.0

    def __init__(self, home: Path, *, at: Callable[[str], None] | None = None) -> None:
        self.home = home
        self._at = at or (lambda _: None)
        self._keeper = Keeper()
        self._listeners: list[Callable[[AddOnId], None]] = []
        self._keeper.on_exit(self._ended)

    def close(self) -> None:
        """Stop watching. Servers live on."""
        self._keeper.close()

    # -- what an engine says ---------------------------------------------------------------------------------------

    @abstractmethod
    def _command(self, place: Place, record: Record) -> Command:
        """How its server is started."""

    @abstractmethod
    def _ready(self, place: Place, record: Record) -> bool:
        """Whether its server answers."""

    # -- the Protocol's common part --------------------------------------------------------------------------------

    def start(self, id: AddOnId) -> None:
        place = self._place(id)
        with locked(place.lock):
            record = place.get()
            if record.wanted != "running":
                record = place.write(record.model_copy(update={"wanted": "running"}))
            self._start(place, record)

    def stop(self, id: AddOnId) -> None:
        place = self._place(id)
        with locked(place.lock):
            record = place.read()
            if record is not None:
                place.write(record.model_copy(update={"wanted": "stopped"}))
                self._stop(place, record)

    def restart(self, id: AddOnId) -> None:
        place = self._place(id)
        with locked(place.lock):
            record = place.get()
            self._stop(place, record)
            self._start(place, record)

    def ensure(self) -> Sequence[AddOnId]:
        revived: list[AddOnId] = []
        for record in records(self.home, self.kind):
            place = self._place(record.id)
            with contextlib.suppress(InterruptedError), locked(place.lock, cancelled=lambda: True):
                revived += self._revive(place)
        return revived

    def _revive(self, place: Place) -> list[AddOnId]:
        record = place.read()
        if record is None or record.wanted != "running" or not record.data:
            return []
        for server in self._servers(place, record):
            with contextlib.suppress(OSError):
                server.log.rotate(ROTATE_AT)
        if all(server.running() for server in self._servers(place, record)):
            return []
        try:
            self._start(place, record)
        except HomeportError as error:
            log.warning("%s: %s %s", place.id.slug, error.what, error.why)
            return []
        return [place.id] if all(server.running() for server in self._servers(place, record)) else []

    def on_exit(self, listener: Callable[[AddOnId], None]) -> None:
        self._listeners.append(listener)

    def destroy(self, id: AddOnId) -> Path:
        place = self._place(id)
        with locked(place.lock):
            record = place.read()
            if record is not None:
                self._stop(place, record)
            return bury(self.home, place)

    def undo_destroy(self, id: AddOnId, grave: Path) -> None:
        """Raises AddOnFailed when there is an add-on of that name again, or the tombstone is not of this one."""
        place = self._place(id)
        with locked(place.lock):
            if place.read() is None:
                found = read(grave)
                if found is None or found.id != id:
                    raise AddOnFailed(name=id.name, why=f"{grave.name} is not a tombstone of it.", fix="Name one that is.")
                grave.rename(place.folder)
                sync_folder(place.addons)
            elif grave.exists():
                raise AddOnFailed(
                    name=id.name, why="There is a new add-on of that name.", fix="Destroy the new one first, or restore under another name."
                )
            self._start(place, self._readdressed(place, place.get()))

    def purge(self, grave: Path) -> None:
        """Remove a tombstone for good. Already gone is success."""
        purge(self.home, grave)

    def logs(self, id: AddOnId, tail: int = 100) -> list[str]:
        place = self._place(id)
        place.get()
        return self._server(place).tail(tail)

    # -- for the engines -------------------------------------------------------------------------------------------

    def _place(self, id: AddOnId) -> Place:
        return Place(self.home, id)

    def _server(self, place: Place) -> Server:
        return Server(place.id.slug, place.server, self._keeper)

    def _servers(self, place: Place, _record: Record) -> list[Server]:
        """Every server of an add-on, the main one first."""
        return [self._server(place)]

    def _start(self, place: Place, record: Record) -> None:
        server = self._server(place)
        found = server.running()
        server.start(self._command(place, record))
        try:
            server.wait_ready(lambda: self._ready(place, record), self.start_timeout)
        except AddOnFailed:
            if found is None:
                raise
            server.start(self._command(place, record))  # the one that was found has ended just now
            server.wait_ready(lambda: self._ready(place, record), self.start_timeout)

    def _stop(self, place: Place, record: Record) -> None:
        for server in reversed(self._servers(place, record)):
            server.stop(self.stop_signal, self.stop_grace)

    def _group(self, place: Place) -> Group | None:
        realm = f"addons-{hashlib.sha256(str(self.home).encode()).hexdigest()[:12]}"
        return cgroups().group(realm, place.id.slug)

    def _begin(self, request: AddOnRequest) -> tuple[Place, Record]:
        """The add-on's folder and record, made when it is new and brought up to the request when not. Call with its lock held."""
        place = self._place(request.id)
        place.addons.mkdir(parents=True, exist_ok=True, mode=0o755)
        known = place.read()
        definition = without_secrets(request.definition)
        if known is not None:
            known = known.model_copy(update={"definition": definition, "consumers": request.consumers, "wanted": "running"})
            return place, place.write(known)
        self._at("folder")
        user = request.user if os.geteuid() == 0 else None
        if os.geteuid() == 0 and user is None:
            user = account_for(self.home, request.id.slug)
        place.folder.mkdir(mode=0o711, exist_ok=True)
        place.folder.chmod(0o711)
        with locked(place.addons / ".addresses.lock"):
            host, port = choose_address(self.home, request.id.slug, self.usual_port, host=request.host, port=request.port)
            record = Record(
                id=request.id, kind=self.kind, definition=definition, consumers=request.consumers, host=host, port=port, user=user
            )
            return place, place.write(record)

    @contextlib.contextmanager
    def _restoring(self, backup: BackupRef, source: Path, into: AddOnId, host: str = "") -> Iterator[tuple[Place, Record, Record]]:
        """A new add-on for the data of a copy, held by its lock and gone again when the block fails: its place, its record, the copy's.

        Raises BackupDamaged, and AddOnFailed when there is such an add-on already.
        """
        known = copies.verify(backup, source)
        place = self._place(into)
        with locked(place.lock):
            if (found := place.read()) is not None and found.data:
                raise AddOnFailed(
                    name=into.name, what="Nothing was restored; what runs was not touched.", why=f"There is an add-on {into.slug} already.",
                    fix="Restore under another name.",
                )  # fmt: skip
            request = AddOnRequest(id=into, definition=known.definition, consumers=known.consumers, host=host)
            try:
                yield (*self._begin(request), known)
            except BaseException:
                self._server(place).stop(self.stop_signal, self.stop_grace)
                remove_tree(place.folder)
                raise

    def _readdressed(self, place: Place, record: Record) -> Record:
        """The record with an address of its own, when its old one was given away meanwhile."""
        with locked(place.addons / ".addresses.lock"):
            others = {(found.host, found.port) for found in records(self.home) if found.id != record.id}
            if (record.host, record.port) in others:
                host, port = choose_address(self.home, record.id.slug, self.usual_port)
                record = record.model_copy(update={"host": host, "port": port})
            return place.write(record.model_copy(update={"wanted": "running"}))

    def _ended(self, folder: Path) -> None:
        for above in (folder.parent, folder.parent.parent):
            record = read(above)
            if record is not None:
                for listener in self._listeners:
                    listener(record.id)
                return


def plan_memory(definition: object) -> int:
    """Bytes an add-on's plan gives it."""
    memory: int | None = getattr(definition, "memory", None)
    if memory:
        return memory
    named = PLAN_MEMORY.get(str(getattr(definition, "plan", "")).lower())
    return int(parse_size(named)) if named else DEFAULT_MEMORY


def memory_limit(definition: object) -> int | None:
    """Bytes its processes may use together; None when its file names neither a size nor a plan: then it is only tuned to the smallest."""
    named = str(getattr(definition, "plan", "")).lower() in PLAN_MEMORY
    return plan_memory(definition) if named or getattr(definition, "memory", None) else None


@contextlib.contextmanager
def socket_host(folder: Path) -> Iterator[str]:
    """A short name of a folder with sockets, for as long as it is open: socket addresses hold 107 bytes (unix(7))."""
    number = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)
