"""The edge on nginx: generations of configuration, each tested, swapped in and proven, the last good one always kept.

Order of an `apply`, and what a crash between two steps leaves behind:

1. render, read back, test on a scratch copy          nothing changed
2. write `generations/N`, synced                       an unused folder
3. `current` -> N (rename), reload                     N may be served or not: the next `apply`, `recover` or `ensure_running` asks
4. confirmed by the workers themselves                 the same
5. `confirmed` -> N (rename)                           done

A reload loses nothing: new workers take the new connections at once; old workers finish their requests, keep idle client connections
for `render.IDLE` seconds, and are closed after the table's `drain`. A request on such an idle connection is still answered by the old
generation, so an instance may stop only when `drain` says that no old worker knows it any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import time
from collections.abc import Collection, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from homeport.drivers.edge import control
from homeport.drivers.edge.base import Edge, EdgeRefused, EdgeStatus, EdgeUnavailable, EdgeUnconfirmed, RouteTable, Target, Upstream
from homeport.drivers.edge.connections import established
from homeport.drivers.edge.control import Checked
from homeport.drivers.edge.generations import Generations
from homeport.drivers.edge.program import Nginx, Process, processes, runs, send, wait_gone
from homeport.drivers.edge.render import CONTROL_SOCKET, harmless, render
from homeport.drivers.edge.stillness import still
from homeport.drivers.edge.syntax import Directive, emit, verify

POLL = 0.002
"""Seconds between two questions to the edge: nginx announces nothing, so it is asked."""


class NginxEdge:
    """Edge on one nginx, started as a daemon of its own. Every method may be called from any thread or process of this home."""

    def __init__(self, home: Path, *, nginx: str = "", user: str = "", confirm_within: timedelta = timedelta(seconds=15)) -> None:
        """`home`: folder of all state. `nginx`: the operator's program instead of the bundled one. `user`: account of the workers
        when the edge is started by root (default `nobody`). `confirm_within`: deadline of the proof after a reload."""
        self.home = home.resolve()
        self._edge = self.home / "edge"
        self._generations = Generations(self._edge)
        self._nginx = Nginx(self.home, nginx=nginx, user=user)
        self._within = confirm_within

    # -- the Protocol ---------------------------------------------------------------------------------------------------

    def apply(self, table: RouteTable) -> int:
        """Serve this table and return its generation, proven by the workers. Equal to what is served: nothing happens.

        Raises EdgeRefused (bad table), EdgeUnavailable (port taken, cannot start), EdgeUnconfirmed; the last good table is served then.
        """
        with self._locked():
            found = processes(self.home)
            now = self._generations.number("current")
            if now and self._master(found) and self._is(table, now) and self._served() == now:
                self._generations.point("confirmed", now)
                return now
            number = max([*self._generations.numbers(), now], default=0) + 1
            tree = self._tree(table, number)
            text = emit(tree)
            verify(text, tree)
            self._test(tree)
            self._generations.write(number, text, table)
            self._put(number, found)
            self._generations.collect(number, {self._generation(process) for process in processes(self.home)})
            return number

    def status(self) -> EdgeStatus:
        """What is served now, asked of the workers themselves."""
        found = processes(self.home)
        master = self._master(found)
        table = self.table()
        served = self._served() or 0
        if master is None:
            return EdgeStatus(running=False, generation=served, port=table.port if table else 0)
        workers = sum(process.parent == master.pid and not process.leaving for process in found)
        return EdgeStatus(running=True, generation=served, pid=master.pid, port=table.port if table else 0, workers=workers)

    def table(self) -> RouteTable | None:
        """The table that is served, read back from disk."""
        return self._generations.table(self._generations.number("confirmed") or self._generations.number("current"))

    def in_flight(self, target: Target) -> int:
        """Connections between edge and instance that are open right now.

        While the served table still names the instance this counts idle kept-alive connections too (they live for at most a second).
        """
        return established((process.pid for process in processes(self.home)), target.host, target.port)

    def drain(self, target: Target, deadline: timedelta) -> int:
        """Wait until no worker can pass a request to this instance any more, or the deadline passes; return the connections left.

        After a switch this takes until the last idle client connection of the old workers is closed: `render.IDLE` seconds at most,
        longer only for requests and streams that are still going on. Without such clients it returns at once.
        """
        end = time.monotonic() + deadline.total_seconds()
        while True:
            left = max(0.0, end - time.monotonic())
            knowing = [process for process in processes(self.home) if not process.is_master and self._knows(process, target)]
            if not knowing:
                return 0
            if not any(process.leaving for process in knowing) or all(self._backed(process, target) for process in knowing):
                # Still routed to, or a request too late would go to the backup: only what is open has to be waited for.
                if not (count := self.in_flight(target)) or not left:
                    return count
                time.sleep(min(left, 0.05))
            elif not left or not wait_gone([process.pid for process in knowing if process.leaving], left):
                return self.in_flight(target)

    @contextlib.contextmanager
    def still(self, wanted: Collection[Target]) -> Iterator[None]:
        """Inside, no worker that is being replaced passes anything to these instances: it waits. For at most a few seconds.

        For the moment in which an instance with a backup stops listening. What it has not accepted by then the kernel breaks off, and a
        POST that was sent already may not be sent again; of an instance that listens no more nginx learns before it sends anything.
        """
        found = [process.pid for process in processes(self.home) if process.leaving and any(self._knows(process, one) for one in wanted)]
        with still(found, lambda: not any(self.in_flight(one) for one in wanted)):
            yield

    def stop(self) -> None:
        """Stop serving at once. Already stopped is success. The last table is kept for `ensure_running`."""
        with self._locked():
            self._kill()

    # -- more than the Protocol -----------------------------------------------------------------------------------------

    def ensure_running(self) -> EdgeStatus:
        """Bring the edge back when it is down or without a master, on the last good table; finish what a crash cut short.

        Without any table nothing starts. Raises EdgeUnavailable.
        """
        with self._locked():
            found = processes(self.home)
            good, now = self._generations.number("confirmed"), self._generations.number("current")
            served = self._served() if now else None
            if now and served == now and self._master(found):
                self._generations.point("confirmed", now)
            elif good:
                if self._master(found) is None or served != good or now != good:
                    self._generations.point("current", good)
                    self._serve(good, found)
            elif now:
                self._serve(now, found)
                self._generations.point("confirmed", now)
        return self.status()

    recover = ensure_running

    def token(self) -> str:
        """The secret of this home's probes: requests that carry it in `X-Homeport-Probe` are told release and generation."""
        path = self._edge / "run/probe-token"
        with contextlib.suppress(FileNotFoundError):
            return path.read_text(encoding="ascii")
        self._prepare()
        temporary = path.with_name(f".token-{secrets.token_hex(8)}")
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # the first one wins
        temporary.unlink()
        return path.read_text(encoding="ascii")

    def check(
        self,
        target: Target,
        *,
        host: str,
        path: str = "/",
        timeout: timedelta = timedelta(seconds=5),
        headers: dict[str, str] | None = None,
    ) -> Checked:
        """One GET to an instance through the edge, before any site shows it: the smoke check that needs no reload.

        The private listener passes it on with the headers visitors' requests get. What it does not cover is the choice of a site
        and route, which `apply` proves by its own means.
        """
        return control.ask_candidate(
            self.home, self.token(), target, host=host, path=path, timeout=timeout.total_seconds(), headers=headers or {}
        )

    def rotate(self, keep: int = 3) -> None:
        """Begin new log files; the `keep` before stay as `.1`, `.2`, …"""
        with self._locked():
            for name in ("access.jsonl", "error.log"):
                path = self._edge / "log" / name
                for number in range(keep, 0, -1):
                    older = path.with_name(f"{name}.{number - 1}") if number > 1 else path
                    if older.exists():
                        older.replace(path.with_name(f"{name}.{number}"))
            if master := self._master(processes(self.home)):
                send([master.pid], signal.SIGUSR1)

    # -- files ----------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One change at a time, across threads and processes."""
        self._prepare()
        handle = os.open(self._edge / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _prepare(self) -> None:
        if not self.home.exists():
            self.home.mkdir(parents=True, mode=0o711)
        for name, mode in (
            ("", 0o755),
            ("bin", 0o755),
            ("log", 0o710),
            ("cache", 0o755),
            ("scratch", 0o755),
            ("run", 0o700),
            ("generations", 0o700),
        ):
            folder = self._edge / name
            if not folder.exists():
                folder.mkdir(mode=mode, exist_ok=True)
                folder.chmod(mode)
                if name == "log" and (account := self._nginx.account()):
                    # Workers open new logs by themselves, so they may pass; they may not write here: the master, which is root, would
                    # follow a link they made (CVE-2016-1247).
                    shutil.chown(folder, group=account.split()[1])
        if os.geteuid() == 0 and self.home.stat().st_mode & 0o011 != 0o011:
            self.home.chmod(
                self.home.stat().st_mode & 0o7777 | 0o011
            )  # the workers' account passes through; it lists and reads nothing here

    def _tree(self, table: RouteTable, number: int) -> tuple[Directive, ...]:
        return render(table, generation=number, home=self.home, token=self.token(), program=self._nginx.program())

    def _is(self, table: RouteTable, number: int) -> bool:
        """Whether a generation is this table, as today's Homeport would write it."""
        return self._generations.table(number) == table and self._generations.text(number) == emit(self._tree(table, number))

    def _test(self, tree: tuple[Directive, ...]) -> None:
        """`nginx -t` without privileges, ports or secrets on a copy. Raises EdgeRefused with nginx's own words."""
        scratch = f"edge/scratch/{secrets.token_hex(8)}"
        folder = self.home / scratch
        try:
            for name in ("run", "log", "cache"):
                (folder / "edge" / name).mkdir(parents=True)
            (folder / "nginx.conf").write_text(emit(harmless(tree, scratch, self.token())), encoding="utf-8")
            self._nginx.test(scratch)
        except ValueError as error:
            raise EdgeRefused.of("The generated configuration", f"nginx says: {error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # -- processes ------------------------------------------------------------------------------------------------------

    def _master(self, found: list[Process]) -> Process | None:
        return next((process for process in found if process.is_master), None)

    def _served(self) -> int | None:
        answer = control.served_generation(self.home)
        return answer[0] if answer else None

    def _put(self, number: int, found: list[Process]) -> None:
        """Serve generation `number`, or go back to the last good one and raise."""
        good = self._generations.number("confirmed")
        self._generations.point("current", number)
        try:
            self._serve(number, found)
        except (EdgeUnavailable, EdgeUnconfirmed):
            if good:
                self._generations.point("current", good)
                with contextlib.suppress(EdgeUnavailable, EdgeUnconfirmed):
                    self._serve(good, processes(self.home))
            else:
                self._kill()
                (self._edge / "current").unlink(missing_ok=True)
            self._generations.remove(number)
            raise
        self._generations.point("confirmed", number)

    def _serve(self, number: int, found: list[Process]) -> None:
        """Start or reload on `current` and wait for the proof."""
        log = self._edge / "log/error.log"
        place = log.stat().st_size if log.exists() else 0
        master = self._master(found)
        if master is not None:
            old = {process.pid for process in found if process.parent == master.pid}
            send([master.pid], signal.SIGHUP)
            if self._confirm(number, old, log, place, master):
                self._note(number)
                return
            found = processes(self.home)
        self._clear(found)
        self._nginx.start()
        self._confirm(number, set(), log, place)
        self._note(number)

    def _confirm(self, number: int, old: set[int], log: Path, place: int, master: Process | None = None) -> bool:
        """Wait until this generation answers new connections and no older worker listens. False when the `master` has ended instead.

        nginx's master waits 100 ms between starting the new workers and dismissing the old (`ngx_master_process_cycle`). Once a new one
        is ready (it takes its title after it began to listen) there is nothing left to wait for, so the old are dismissed here. The master
        does not start them again: it looks at what has exited only after it dismissed them itself. Until then the kernel prefers the old
        ones, so no answer tells that the new are ready. Raises EdgeUnconfirmed or EdgeUnavailable.
        """
        end, dismissed = time.monotonic() + self._within.total_seconds(), False
        while time.monotonic() < end:
            if not dismissed and self._ready(old):
                send(old, signal.SIGQUIT)
                dismissed = True
            if dismissed and not self._listening(old) and self._served() == number:
                return True
            if master is not None and not runs(master, self.home):
                return False  # killed at this moment: it will never answer
            if said := _complaint(log, place):
                self._fail(number, said)
            time.sleep(POLL)
        return self._fail(number, _complaint(log, place))

    def _fail(self, number: int, said: str) -> NoReturn:
        if "bind()" in said:
            raise EdgeUnavailable(
                what="The edge was not changed; it serves what it served before.",
                why=f"nginx says: {said}",
                fix="Free the port, or choose another with --edge-port or HOMEPORT_EDGE_PORT.",
            )
        raise EdgeUnconfirmed(
            what="The edge was not changed; it serves what it served before.",
            why=f"nginx says: {said}" if said else f"Generation {number} did not answer within {self._within.total_seconds():.0f} s.",
            fix="Read edge/log/error.log in Homeport's home and deploy again.",
        )

    def _ready(self, old: set[int]) -> bool:
        """Whether a new worker listens."""
        return any(process.pid not in old and process.title.startswith("nginx: worker process") for process in processes(self.home))

    def _listening(self, old: set[int]) -> bool:
        """Whether a worker of an older generation may still accept connections."""
        for pid in old:
            try:
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if title and b"shutting down" not in title:
                return True
        return False

    def _clear(self, found: list[Process]) -> None:
        """Workers whose master was killed keep the port: let them finish their requests, but listen no more."""
        orphans = [process.pid for process in found if not process.is_master]
        send(orphans, signal.SIGQUIT)
        end = time.monotonic() + 2
        while self._listening(set(orphans)) and time.monotonic() < end:
            time.sleep(POLL)
        send([pid for pid in orphans if self._listening({pid})], signal.SIGKILL)
        (self._edge / "run/nginx.pid").unlink(missing_ok=True)

    def _kill(self) -> None:
        found = processes(self.home)
        master = self._master(found)
        if master is not None:
            send([master.pid], signal.SIGTERM)
            if not wait_gone([master.pid], 5):
                send([master.pid], signal.SIGKILL)
        rest = [process.pid for process in processes(self.home)]
        send(rest, signal.SIGKILL)
        wait_gone(rest, 5)
        (self.home / CONTROL_SOCKET).unlink(missing_ok=True)

    # -- which worker knows what ------------------------------------------------------------------------------------------

    def _note(self, number: int) -> None:
        """Write down which generation the running workers serve: an empty file per worker, named by pid, start and generation."""
        folder = self._edge / "run/workers"
        folder.mkdir(exist_ok=True)
        running = {f"{process.pid}-{process.started}": process for process in processes(self.home) if not process.is_master}
        noted = {entry.name.rpartition("-")[0]: entry for entry in folder.iterdir()}
        for key, entry in noted.items():
            if key not in running:
                entry.unlink(missing_ok=True)
        for key, process in running.items():
            if key not in noted and not process.leaving:
                (folder / f"{key}-{number}").touch()

    def _generation(self, process: Process) -> int:
        """The generation a worker serves; 0 when nobody wrote it down (it was started again by its master: the current one)."""
        start = f"{process.pid}-{process.started}-"
        try:
            found = next((name for name in os.listdir(self._edge / "run/workers") if name.startswith(start)), "")  # noqa: PTH208
        except FileNotFoundError:
            return 0
        return int(found.rpartition("-")[2]) if found else 0

    def _knows(self, process: Process, target: Target) -> bool:
        """Whether a worker may pass requests to this instance; an old one of unknown generation may."""
        generation = self._generation(process)
        if not generation and process.leaving:
            return True
        table = self._generations.table(generation or self._generations.number("current"))
        return table is None or target in targets(table)

    def _backed(self, process: Process, target: Target) -> bool:
        """Whether every route of a worker's table to this instance has a backup."""
        table = self._generations.table(self._generation(process))
        return (
            table is not None
            and all(up.backups for up in upstreams(table) if target in up.targets)
            and not any(target in forward.targets for forward in table.forwards)
        )


def upstreams(table: RouteTable) -> Iterator[Upstream]:
    """Every group of instances a table's sites pass requests to."""
    for site in table.sites:
        for route in site.routes:
            up = route.action if route.action.kind == "upstream" else route.action.fallback if route.action.kind == "files" else None
            if up is not None:
                yield up


def targets(table: RouteTable) -> Iterator[Target]:
    """Every instance a table passes requests or connections to."""
    for up in upstreams(table):
        yield from (*up.targets, *up.backups)
    for forward in table.forwards:
        yield from forward.targets


def _complaint(log: Path, place: int) -> str:
    """The first emergency nginx wrote since."""
    try:
        with log.open("rb") as file:
            file.seek(place)
            text = file.read(256 * 1024).decode("utf-8", "replace")
    except OSError:
        return ""
    for entry in text.splitlines():
        if "[emerg]" in entry:
            return entry.partition("[emerg] ")[2].partition(": ")[2][:500]
    return ""


if TYPE_CHECKING:
    _: type[Edge] = NginxEdge
