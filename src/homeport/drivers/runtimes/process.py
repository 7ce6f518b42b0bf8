"""The process runtime: instances are operating system processes that live on without the control plane.

Start: records are written so that a start may be interrupted anywhere (see `records`): the launcher holds the instance's lock until
it has become the application, and leaves its pid before that. Whoever starts the same instance next waits for the lock and finds it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from homeport.drivers.cgroups import Cgroups, Group, cgroups
from homeport.drivers.files import remove_tree
from homeport.drivers.runtimes import commands, ending, preparing, processes, sandbox
from homeport.drivers.runtimes.base import (
    CanExecute,
    Capabilities,
    Executed,
    Exit,
    Handle,
    InstanceRunning,
    Interactive,
    LogLine,
    Observation,
    Output,
    Placement,
    Runtime,
    StalePlacement,
    StartRefused,
)
from homeport.drivers.runtimes.launching import Failure, collect, launch, order
from homeport.drivers.runtimes.live import Live, members, never_ran
from homeport.drivers.runtimes.logfiles import STREAMS, InstanceLog
from homeport.drivers.runtimes.records import Folder, Placed
from homeport.drivers.runtimes.watcher import Watcher
from homeport.drivers.runtimes.work import prepare_work, working_directory

log = logging.getLogger(__name__)

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,240}")


class ProcessRuntime:
    """Runs instances as processes of this machine. Thread-safe. Re-adopts what runs when it is made."""

    def __init__(
        self,
        home: Path,
        *,
        groups: Cgroups | None = None,
        isolation: sandbox.Isolation | None = None,
        at: Callable[[str], None] | None = None,
    ) -> None:
        """`groups` and `isolation` are probed when not given; `at` is told each point a start or stop passes, for fault tests."""
        self.home = home
        self._folders = home / "instances"
        self._groups = cgroups() if groups is None else groups
        self._realm = hashlib.sha256(str(home).encode()).hexdigest()[:16]
        self._isolation = isolation
        self._at = at or (lambda _: None)
        self._live: dict[str, Live] = {}
        self._lock = threading.RLock()
        self._listeners: list[Callable[[str, Exit], None]] = []
        self._watcher = Watcher(self._ended)
        for id in self._ids():
            try:
                with self._folder(id).locked(patience=5):
                    self._adopt(id, holding=True)
            except TimeoutError:
                continue  # another program is busy with it; `observe` finds it later
            except InstanceRunning as error:
                log.warning("%s: %s", error.what, error.why)

    def close(self) -> None:
        """Stop watching. Instances live on."""
        self._watcher.close()
        for id in list(self._live):
            self.close_input(id)
        realm = self._groups.group(self._realm)
        if realm is not None and not self._ids():
            realm.remove(0)

    @cached_property
    def _namespaces(self) -> sandbox.Isolation:
        return self._isolation or sandbox.isolation()

    @property
    def capabilities(self) -> Capabilities:
        return preparing.capabilities(self._groups, self._namespaces)

    # -- start -----------------------------------------------------------------------------------------------------

    def start(self, placement: Placement) -> Handle:
        if not _ID.fullmatch(placement.id):
            raise preparing.refused(placement, f"{placement.id[:80]!r} is not an instance id.")
        sandbox.check_mounts(placement)
        folder = self._folder(placement.id)
        try:
            with folder.locked() as lock:
                folder.prepare()
                return self._standing(placement, folder) or self._start(placement, folder, lock)
        except OSError as error:
            raise preparing.refused_by_system(placement, error) from error

    def _standing(self, placement: Placement, folder: Folder) -> Handle | None:
        """The handle of what already runs or, for `once`, has run; None when it is to be started."""
        placed = folder.placed()
        if placed is None:
            return None
        if placement.generation < placed.generation:
            raise StalePlacement(
                what=f"{placement.service} was not started: a newer plan has placed {placement.id}; that one runs on.",
                why=f"The plan is generation {placement.generation}, the newest seen is {placed.generation}.",
                fix="Nothing needs to be done; deploy again if your change is not live.",
            )
        live = self._adopt(placement.id, holding=True)
        if live is not None and live.runs:
            if placement.generation > placed.generation:
                folder.note_generation(placed, placement.generation)
            return live.handle
        handle = folder.handle()
        if handle is not None and placement.once:
            return handle
        ending.sweep(folder, placed, folder.running())
        return None

    def _start(self, placement: Placement, folder: Folder, lock: int) -> Handle:
        fresh = not folder.work.exists()
        try:
            self._at("before-work")
            user = placement.user if os.geteuid() == 0 else None
            prepare_work(placement, folder.work, sandbox.links(placement, mounted=self._namespaces.namespaces), user)
            preparing.prepare_folders(placement, folder, user)
            group = self._groups.group(self._realm, placement.id)
            if group is not None:
                preparing.create_group(placement, group)
            whole = self._order(placement, folder, user, group)
            folder.write_placed(Placed.of(placement, isolated=self._namespaces.namespaces, group=group))
            return self._launch(placement, folder, whole, lock)
        except (StartRefused, OSError):
            self._undo(folder, fresh=fresh)
            raise

    def _order(self, placement: Placement, folder: Folder, user: int | None, group: Group | None) -> dict[str, object]:
        """Everything the launcher is to do."""
        isolated = self._namespaces.namespaces
        env = preparing.environment(placement, folder, isolated=isolated)
        return order(
            argv=commands.argv(placement.command or placement.artifact.command, env, subject=placement.service),
            env=env,
            search=commands.search_path(placement.artifact.path, env),
            cwd=str(working_directory(placement.artifact, folder.work)),
            user=user,
            log=str(folder.log),
            cgroups=() if group is None else group.joins,
            view=preparing.view(self.home, placement, folder, user) if isolated else (),
            root=str(folder.run / "root"),
            limits=preparing.limits(placement, pids=group is None and self.capabilities.limits_pids),
            oom_score=preparing.OOM_SCORE,
            record=str(folder.process_file),
            boot_id=processes.boot_id(),
        )

    def _launch(self, placement: Placement, folder: Folder, whole: dict[str, object], lock: int) -> Handle:
        instance_log = InstanceLog(placement.id, folder.log)
        starts = {stream: instance_log.end(stream) for stream in STREAMS}
        with contextlib.ExitStack() as undo:
            reader = writer = None
            if placement.stdin:
                reader, writer = os.pipe()
                undo.callback(os.close, writer)
            self._at("before-launch")
            try:
                _, failure = launch(whole, lock=lock, stdin=reader)
            finally:
                if reader is not None:
                    os.close(reader)
            self._at("after-launch")
            placed, running, handle = folder.placed(), folder.running(), folder.handle()
            if failure is not None or placed is None or running is None or handle is None:
                raise preparing.launch_refused(placement, failure or Failure(stage="record", number=0, subject="it left no trace"))
            undo.pop_all()
            return self._watch(Live(handle, placed, running, instance_log, starts, input=writer)).handle

    def _undo(self, folder: Folder, *, fresh: bool) -> None:
        """After a refused start: nothing of it is left, except the log of an earlier life."""
        placed = folder.placed()
        if placed is not None:
            ending.sweep(folder, placed, None)
        with self._lock:
            self._live.pop(folder.path.name, None)
        folder.clear_process()
        if fresh:
            self._remove(folder)

    def _watch(self, live: Live) -> Live:
        running = live.running
        with self._lock:
            self._live[live.handle.id] = live
        if not self._watcher.add(live.handle.id, running.pid, running.start_time, running.boot_id):
            self._ended(live.handle.id, Exit(at=datetime.now(UTC)))
        return live

    # -- find again ------------------------------------------------------------------------------------------------

    def _ids(self) -> list[str]:
        try:
            return sorted(entry.name for entry in self._folders.iterdir() if (entry / "run" / "placement.json").exists())
        except FileNotFoundError:
            return []

    def _folder(self, id: str) -> Folder:
        return Folder(self._folders / id)

    def _adopt(self, id: str, *, holding: bool = False) -> Live | None:
        """The instance as this runtime watches it; found on disk when another one started it. None when it never ran.

        Without `holding` its lock, one that is being started just now is left to whoever starts it.
        """
        with self._lock:
            folder = self._folder(id)
            placed, running = folder.placed(), folder.running()
            known = self._live.get(id)
            if placed is None or running is None:
                return known
            if known is not None and known.running == running:
                return known
            if not holding and folder.is_locked():
                return known
            handle = folder.handle()
            if handle is None:
                return known
            live = Live(handle=handle, placed=placed, running=running, log=InstanceLog(id, folder.log))
            if processes.is_running(running.pid, running.start_time, running.boot_id):
                return self._watch(live)
            ending.sweep(folder, placed, running)
            live.end(folder.write_exit(Exit(at=datetime.now(UTC), out_of_memory=_oom(placed))))
            self._live[id] = live
            return live

    def observe(self) -> Sequence[Observation]:
        lives: list[Live] = []
        for id in self._ids():
            live = self._adopt(id)
            if live is not None:
                lives.append(live)
            elif not (folder := self._folder(id)).is_locked() and (placed := folder.placed()) is not None:
                lives.append(never_ran(folder, placed))
        found = members(live for live in lives if live.runs)
        return [live.observe(found.get(live.handle.id, [])) for live in lives]

    # -- the end ---------------------------------------------------------------------------------------------------

    def _ended(self, id: str, exit: Exit) -> None:
        """The watcher saw the end."""
        with self._lock:
            live = self._live.get(id)
        if live is None:
            return
        if exit.code != 0 and _oom(live.placed):
            exit = exit.model_copy(update={"out_of_memory": True})
        self._at("before-exit-recorded")
        try:
            exit = self._finish(live, exit)
        finally:
            live.end(exit)
        for listener in list(self._listeners):
            try:
                listener(id, exit)
            except Exception:  # one listener's mistake must not keep the news from the others
                log.exception("a listener failed on the end of %s", id)

    def _finish(self, live: Live, exit: Exit) -> Exit:
        """Record the end, and end what it left behind (unless a stop is giving that its grace)."""
        folder = self._folder(live.handle.id)
        if folder.running() == live.running:
            exit = folder.write_exit(exit)
            live.log.mark()
        if not live.stopping:
            left = ending.left(folder, live.placed, live.running)
            if left:
                ending.kill(live.placed, left)
            if live.placed.group is not None:
                live.placed.group.remove(0.05)
        live.close_input()
        return exit

    def stop(self, id: str, *, grace: timedelta | None = None) -> Exit | None:
        folder = self._folder(id)
        if folder.placed() is None:
            return None
        with folder.locked(patience=300):
            live = self._adopt(id, holding=True)
            if live is None:
                placed = folder.placed()
                if placed is not None:
                    ending.sweep(folder, placed, None)
                return None
            live.stopping = True
            self._at("before-signal")
            if live.runs:
                ending.ask(folder, live, time.monotonic() + (live.placed.grace if grace is None else grace).total_seconds())
            self._at("before-kill")
            ending.sweep(folder, live.placed, live.running)
            live.ended.wait(ending.KILL_PATIENCE)
            self._at("after-kill")
            return live.exit

    def forget(self, id: str) -> None:
        folder = self._folder(id)
        if not folder.path.is_dir():
            return
        with folder.locked():
            live = self._adopt(id, holding=True)
            if live is not None and live.runs:
                raise InstanceRunning(
                    what=f"The files of {id} were kept.", why="The instance still runs.", fix="Stop it first, then remove its files."
                )
            placed = folder.placed()
            if placed is not None:
                ending.sweep(folder, placed, folder.running())
            with self._lock:
                self._live.pop(id, None)
            self._remove(folder)

    def _remove(self, folder: Folder) -> None:
        for path in (folder.run / "placement.json", folder.work, folder.work.with_name("work.part"), folder.tmp, folder.run):
            remove_tree(path)
        for path in (folder.log, folder.path):
            for name in STREAMS:
                file = path / f"{name}.log"
                if file.is_file() and file.stat().st_size == 0:
                    file.unlink()
            try:
                path.rmdir()
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.ENOENT, errno.EEXIST}:
                    raise

    def wait(self, id: str, timeout: timedelta) -> Exit | None:
        live = self._adopt(id)
        if live is None or not live.ended.wait(timeout.total_seconds()):
            return None
        return live.exit

    def on_exit(self, listener: Callable[[str, Exit], None]) -> None:
        self._listeners.append(listener)

    # -- input and output ------------------------------------------------------------------------------------------

    def logs(self, id: str, *, tail: int = 100, follow: bool = False, stopped: Callable[[], bool] = lambda: False) -> Iterator[LogLine]:
        if not _ID.fullmatch(id):
            return
        live = self._adopt(id)
        instance_log = live.log if live is not None else InstanceLog(id, self._folder(id).log)
        lines, ends = instance_log.tail(tail, whole=live is not None and not live.ended.is_set())
        yield from lines
        if follow and live is not None:
            yield from instance_log.follow(ends, live.ended.is_set, stopped)

    def output(self, id: str, *, stopped: Callable[[], bool] = lambda: False) -> Iterator[Output]:
        live = self._adopt(id)
        if live is not None:
            yield from live.log.output(live.starts, live.ended.is_set, stopped)

    def feed(self, id: str, data: bytes) -> bool:
        live = self._live.get(id)
        return live is not None and live.feed(data)

    def close_input(self, id: str) -> None:
        live = self._live.get(id)
        if live is not None:
            live.close_input()

    def pids(self, id: str) -> list[int]:
        """All processes of an instance that runs."""
        live = self._adopt(id)
        return [] if live is None or not live.runs else ending.left(self._folder(id), live.placed, live.running)

    def execute(self, id: str, command: tuple[str, ...] | str, *, timeout: timedelta) -> Executed:
        live = self._adopt(id)
        if live is None or not live.runs:
            raise preparing.refused(id, "The instance does not run.")
        group = live.placed.group
        env = processes.environment(live.running.pid)
        argv = commands.argv(command, env, subject="The command")
        whole = order(
            argv=argv,
            env=env,
            search=commands.search_path((), env),
            cwd=processes.folder(live.running.pid) or str(self._folder(id).work),
            user=live.placed.user if os.geteuid() == 0 else None,
            cgroups=() if group is None else group.joins,
            join=live.running.pid if live.placed.isolated else 0,
            limits={"RLIMIT_CORE": 0},
            oom_score=preparing.OOM_SCORE,
        )
        reader, writer = os.pipe()
        try:
            try:
                pid, failure = launch(whole, output=writer)
            finally:
                os.close(writer)
            if failure is not None:
                raise preparing.launch_refused(id, failure)
            return collect(pid, reader, timeout.total_seconds())
        finally:
            os.close(reader)

    def rotate(self) -> None:
        with self._lock:
            lives = list(self._live.values())
        for live in lives:
            if not live.runs:
                continue
            try:
                live.log.mark()
                live.log.rotate()
            except OSError as error:
                log.warning("the log of %s could not be rotated: %s", live.handle.id, error)


def _oom(placed: Placed) -> bool:
    return placed.group is not None and placed.group.out_of_memory()


_: tuple[type[Runtime], type[Interactive], type[CanExecute]] = (ProcessRuntime, ProcessRuntime, ProcessRuntime)
