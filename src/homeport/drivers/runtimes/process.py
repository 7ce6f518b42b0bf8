"""The process runtime: instances are operating system processes that live on without the control plane.

Start: records are written so that a start may be interrupted anywhere (see `records`): the launcher holds the instance's lock until
it has become the application, and leaves its pid before that. Whoever starts the same instance next waits for the lock and finds it.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from homeport.drivers.cgroups import Cgroups, Limits, cgroups
from homeport.drivers.files import remove_tree
from homeport.drivers.runtimes import commands, processes, sandbox
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
from homeport.drivers.runtimes.logfiles import STREAMS, InstanceLog, Stream
from homeport.drivers.runtimes.records import Folder, Placed, Running
from homeport.drivers.runtimes.watcher import Watcher, send, wait_for_any
from homeport.drivers.runtimes.work import prepare_work, working_directory

log = logging.getLogger(__name__)

PIDS = 2048
"""Processes and threads of an instance, when its resources name no number."""
OPEN_FILES = 65_536
OOM_SCORE = 300
"""Instances are ended before the control plane when the machine runs out of memory."""
KILL_PATIENCE = 10.0
"""Seconds in which the kernel must have ended a process after SIGKILL."""
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,240}")
_WRAPPERS = frozenset({"sh", "dash", "bash", "npm", "npx", "yarn", "pnpm", "make", "uv", "poetry", "pipenv", "foreman", "honcho"})
"""Programs that start the real one and may keep a stop signal to themselves: for these the whole group is signalled."""


@dataclass
class _Live:
    """One instance that this runtime watches."""

    handle: Handle
    placed: Placed
    running: Running
    log: InstanceLog
    starts: dict[Stream, int]
    ended: threading.Event = field(default_factory=threading.Event)
    exit: Exit | None = None
    stopping: bool = False
    input: int | None = None


class ProcessRuntime:
    """Runs instances as processes of this machine. Thread-safe. Re-adopts what runs when it is made."""

    def __init__(self, home: Path, *, groups: Cgroups | None = None, at: Callable[[str], None] | None = None) -> None:
        """`at` is told each point a start or stop passes, for fault tests."""
        self.home = home
        self._folders = home / "instances"
        self._groups = cgroups() if groups is None else groups
        self._realm = re.sub(r"[^a-z0-9]+", "-", str(home).lower()).strip("-")[-80:] or "home"
        self._at = at or (lambda _: None)
        self._live: dict[str, _Live] = {}
        self._lock = threading.RLock()
        self._listeners: list[Callable[[str, Exit], None]] = []
        self._watcher = Watcher(self._ended)
        for id in self._ids():
            try:
                with self._folder(id).locked(patience=5):
                    self._adopt(id, holding=True)
            except TimeoutError:
                continue  # another program is busy with it; `observe` finds it later

    def close(self) -> None:
        """Stop watching. Instances live on."""
        self._watcher.close()
        for id in list(self._live):
            self.close_input(id)

    @cached_property
    def _namespaces(self) -> sandbox.Isolation:
        return sandbox.isolation()

    @cached_property
    def _capabilities(self) -> Capabilities:
        root, groups, namespaces = os.geteuid() == 0, self._groups, self._namespaces
        reasons: dict[str, str] = {"images": "images need a container runtime"}
        if not root:
            reasons["isolates_users"] = "only root can give every environment an account of its own"
        for name, controller in (("limits_memory", "memory"), ("limits_cpu", "cpu"), ("limits_pids", "pids")):
            if controller not in groups.bases:
                reasons[name] = groups.reasons.get(controller, f"there is no {controller} control group here")
        pids = "pids" in groups.bases or (not root and namespaces.namespaces)
        if pids:
            reasons.pop("limits_pids", None)
        if not namespaces.namespaces:
            reasons["mounts"] = reasons["names"] = namespaces.reason
        return Capabilities(
            isolates_users=root,
            limits_memory="memory" in groups.bases,
            limits_cpu="cpu" in groups.bases,
            limits_pids=pids,
            mounts=namespaces.namespaces,
            names=namespaces.namespaces,
            reasons=reasons,
        )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    # -- start -----------------------------------------------------------------------------------------------------

    def start(self, placement: Placement) -> Handle:
        if not _ID.fullmatch(placement.id):
            raise _refused(placement, f"{placement.id[:80]!r} is not an instance id.")
        sandbox.check_mounts(placement)
        folder = self._folder(placement.id)
        with folder.locked() as lock:
            folder.prepare()
            found = self._standing(placement, folder)
            if found is not None:
                return found
            fresh = not folder.work.exists()
            try:
                return self._start(placement, folder, lock)
            except (StartRefused, OSError) as error:
                self._undo(folder, fresh=fresh)
                if isinstance(error, OSError):
                    raise _refused(placement, f"{error.strerror}: {error.filename or 'the instance folder'}.") from error
                raise

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
        if live is not None and not live.ended.is_set():
            if placement.generation > placed.generation:
                folder.note_generation(placed, placement.generation)
            return live.handle
        handle = folder.handle()
        if handle is not None and placement.once:
            return handle
        self._sweep(placed, folder.running())
        return None

    def _start(self, placement: Placement, folder: Folder, lock: int) -> Handle:
        user = placement.user if os.geteuid() == 0 else None
        isolated = self._namespaces.namespaces
        env = self._environment(placement, folder, isolated=isolated)
        argv = commands.argv(placement.command or placement.artifact.command, env, subject=placement.service)
        self._at("before-work")
        links = sandbox.links(placement, mounted=isolated)
        prepare_work(placement, folder.work, links, user)
        self._prepare_folders(placement, folder, user)
        group = self._groups.group(self._realm, placement.id)
        if group is not None:
            self._create_group(placement, group)
        placed = Placed.of(placement, isolated=isolated, group=group)
        folder.write_placed(placed)
        instance_log = InstanceLog(placement.id, folder.log)
        starts = {stream: instance_log.end(stream) for stream in STREAMS}
        self._at("before-launch")
        whole = order(
            argv=argv,
            env=env,
            search=commands.search_path(placement.artifact.path, env),
            cwd=str(working_directory(placement.artifact, folder.work)),
            user=user,
            log=str(folder.log),
            cgroups=() if group is None else group.joins,
            view=self._view(placement, folder, user) if isolated else (),
            root=str(folder.run / "root"),
            limits=self._limits(placement, grouped=group is not None),
            oom_score=OOM_SCORE,
            record=str(folder.process_file),
            boot_id=processes.boot_id(),
        )
        reader, writer = os.pipe() if placement.stdin else (None, None)
        try:
            pid, failure = launch(whole, lock=lock, stdin=reader)
        except BaseException:
            if writer is not None:
                os.close(writer)
            raise
        finally:
            if reader is not None:
                os.close(reader)
        self._at("after-launch")
        running = folder.running()
        if failure is not None or running is None or running.pid != pid:
            if writer is not None:
                os.close(writer)
            raise _launch_refused(placement.service, failure or Failure(stage="record", number=0, subject="it left no trace"))
        return self._watch(folder, placed, running, instance_log, starts, writer).handle

    def _environment(self, placement: Placement, folder: Folder, *, isolated: bool) -> dict[str, str]:
        env = {
            "PATH": ":".join((*placement.artifact.path, *commands.STANDARD_PATH)),
            "HOME": str(folder.work),
            **({} if isolated else {"TMPDIR": str(folder.tmp)}),
            **placement.artifact.env,
            **placement.env,
        }
        for name, value in env.items():
            if not name or "=" in name or "\0" in name or "\0" in value:
                raise _refused(placement, f"The variable {name[:80]!r} has a name or value that no process can be given.")
        return env if isolated else sandbox.point_at_folders(env, placement)

    def _prepare_folders(self, placement: Placement, folder: Folder, user: int | None) -> None:
        for path, mode in ((folder.tmp, 0o700), (folder.run / "root", 0o700)):
            path.mkdir(mode=mode, exist_ok=True)
        if user is not None:
            os.chown(folder.tmp, user, user)
        folder.tmp.chmod(0o1777)
        for mount in placement.mounts:
            if mount.disk.kind == "bind" and mount.folder.exists():
                continue
            target = mount.folder / mount.disk.subpath
            if not target.exists():
                target.mkdir(mode=0o700, parents=True)
            if user is not None and target.stat().st_uid == 0 and target.is_dir():
                os.chown(target, user, user)
        try:
            existing = Path("/etc/hosts").read_text(errors="replace")
        except OSError:
            existing = ""
        (folder.run / "hosts").write_text(sandbox.hosts_file(placement, existing))
        (folder.run / "hosts").chmod(0o644)

    def _create_group(self, placement: Placement, group: Any) -> None:
        resources = placement.resources
        try:
            group.create(Limits(memory=resources.memory, cpu=resources.cpu, pids=resources.pids or PIDS))
        except OSError as error:
            raise _refused(placement, f"Its control group could not be made: {error.strerror}: {error.filename}.") from error

    def _limits(self, placement: Placement, *, grouped: bool) -> dict[str, int]:
        limits = {"RLIMIT_NOFILE": OPEN_FILES, "RLIMIT_CORE": 0}
        if not grouped and self.capabilities.limits_pids:
            limits["RLIMIT_NPROC"] = placement.resources.pids or PIDS
        return limits

    def _view(self, placement: Placement, folder: Folder, user: int | None) -> tuple[sandbox.Operation, ...]:
        artifact = placement.artifact
        needed = {Path(artifact.folder), self.home / "toolchains", *sandbox.toolchains(artifact.path)}
        needed |= {Path(path) for path in artifact.path}
        needed |= {
            real for path in artifact.linked if not (real := (Path(artifact.folder) / path).resolve()).is_relative_to(artifact.folder)
        }
        return sandbox.view(placement, home=self.home, instance=folder.path, needed=sorted(needed), user=user)

    def _undo(self, folder: Folder, *, fresh: bool) -> None:
        """After a refused start: nothing of it is left, except the log of an earlier life."""
        placed = folder.placed()
        if placed is not None:
            self._sweep(placed, None)
        with self._lock:
            self._live.pop(folder.path.name, None)
        if fresh:
            self._remove(folder)

    def _watch(
        self, folder: Folder, placed: Placed, running: Running, instance_log: InstanceLog, starts: dict[Stream, int], writer: int | None
    ) -> _Live:
        handle = folder.handle()
        if handle is None:
            raise RuntimeError("an instance is watched only after it was recorded")
        live = _Live(handle=handle, placed=placed, running=running, log=instance_log, starts=starts, input=writer)
        with self._lock:
            self._live[placed.id] = live
        if not self._watcher.add(placed.id, running.pid, running.start_time, running.boot_id):
            self._ended(placed.id, folder.exit() or Exit(at=datetime.now(UTC)))
        return live

    # -- find again ------------------------------------------------------------------------------------------------

    def _ids(self) -> list[str]:
        try:
            return sorted(entry.name for entry in self._folders.iterdir() if (entry / "run" / "placement.json").exists())
        except FileNotFoundError:
            return []

    def _folder(self, id: str) -> Folder:
        return Folder(self._folders / id)

    def _adopt(self, id: str, *, holding: bool = False) -> _Live | None:
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
            alive = processes.is_running(running.pid, running.start_time, running.boot_id)
            if not alive and folder.exit() is None:
                self._sweep(placed, running)
                folder.write_exit(Exit(at=datetime.now(UTC), out_of_memory=_oom(placed)))
            instance_log = InstanceLog(id, folder.log)
            if alive:
                return self._watch(folder, placed, running, instance_log, dict.fromkeys(STREAMS, 0), None)
            handle = folder.handle()
            if handle is None:
                return None
            live = _Live(
                handle=handle, placed=placed, running=running, log=instance_log, starts=dict.fromkeys(STREAMS, 0), exit=folder.exit()
            )
            live.ended.set()
            self._live[id] = live
            return live

    def observe(self) -> Sequence[Observation]:
        lives: list[_Live] = []
        for id in self._ids():
            live = self._adopt(id)
            if live is not None:
                lives.append(live)
            elif not (folder := self._folder(id)).is_locked() and (placed := folder.placed()) is not None:
                yield_handle = Handle(id=id, pid=0, start_time=0, started_at=placed.started_at, host=placed.host, port=placed.port)
                lives.append(_never_ran(yield_handle, placed, InstanceLog(id, folder.log)))
        members = self._members(live for live in lives if not live.ended.is_set())
        return [self._observation(live, members.get(live.handle.id, [])) for live in lives]

    def _observation(self, live: _Live, members: list[int]) -> Observation:
        if live.ended.is_set():
            return Observation(handle=live.handle, state="exited", exit=live.exit)
        seen = [found for pid in members if (found := processes.process(pid)) is not None and not found.ended]
        group = live.placed.group
        memory = group.memory() if group else None
        cpu = group.cpu_seconds() if group else None
        return Observation(
            handle=live.handle,
            state="running",
            memory=sum(found.memory for found in seen) if memory is None else memory,
            cpu_seconds=sum(found.cpu_seconds for found in seen) if cpu is None else cpu,
            processes=len(seen),
        )

    def _members(self, lives: Any) -> dict[str, list[int]]:
        """All processes of these instances: by control group, else by mount namespace, else by session."""
        found: dict[str, list[int]] = {}
        by_namespace: dict[int, _Live] = {}
        by_session: dict[int, _Live] = {}
        for live in lives:
            if live.placed.group is not None:
                found[live.handle.id] = live.placed.group.pids()
            elif live.placed.isolated and live.running.namespace:
                by_namespace[live.running.namespace] = live
            else:
                by_session[live.running.pid] = live
        if by_namespace:
            for inode, pids in processes.by_namespace(by_namespace).items():
                found[by_namespace[inode].handle.id] = pids
        if by_session:
            for session, pids in processes.by_session(by_session).items():
                found[by_session[session].handle.id] = pids
        return found

    # -- the end ---------------------------------------------------------------------------------------------------

    def _left(self, placed: Placed, running: Running | None) -> list[int]:
        """Processes of an instance that are still there, strangers with a recycled number excluded."""
        if placed.group is not None:
            return placed.group.pids()
        if running is None or running.boot_id != processes.boot_id():
            return []
        if placed.isolated and running.namespace:
            pids = processes.by_namespace([running.namespace])[running.namespace]
            work = str(self._folder(placed.id).work)
            return [pid for pid in pids if processes.has_mount(pid, work)]
        leader = processes.process(running.pid)
        if leader is not None and leader.start_time != running.start_time:
            return []
        return [pid for pid in processes.by_session([running.pid])[running.pid] if (seen := processes.process(pid)) and not seen.ended]

    def _sweep(self, placed: Placed, running: Running | None) -> None:
        """End whatever an instance left behind, and remove its group. Raises InstanceRunning."""
        deadline = time.monotonic() + KILL_PATIENCE
        while left := self._left(placed, running):
            self._kill(placed, left)
            if time.monotonic() > deadline:
                raise InstanceRunning(
                    what=f"{placed.id} could not be ended.",
                    why=f"The kernel does not let go of process {left[0]}: it waits for a device or a network file system.",
                    fix="Find out with `ps` what it waits for; a restart of the machine always ends it.",
                )
            wait_for_any(left, 0.05)
        if placed.group is not None:
            placed.group.remove()

    def _kill(self, placed: Placed, pids: Sequence[int]) -> None:
        if placed.group is not None:
            placed.group.kill()
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass

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
            live.exit = exit
            live.ended.set()
        for listener in list(self._listeners):
            try:
                listener(id, exit)
            except Exception:  # one listener's mistake must not keep the news from the others
                log.exception("a listener failed on the end of %s", id)

    def _finish(self, live: _Live, exit: Exit) -> Exit:
        """Record the end, and end what it left behind (unless a stop is giving that its grace)."""
        folder = self._folder(live.handle.id)
        if folder.running() == live.running:
            exit = folder.write_exit(exit)
            live.log.mark()
        if not live.stopping:
            left = self._left(live.placed, live.running)
            if left:
                self._kill(live.placed, left)
            if live.placed.group is not None:
                live.placed.group.remove(0.05)
        self.close_input(live.handle.id)
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
                    self._sweep(placed, None)
                return None
            live.stopping = True
            self._at("before-signal")
            if not live.ended.is_set():
                self._ask(live, time.monotonic() + (live.placed.grace if grace is None else grace).total_seconds())
            self._at("before-kill")
            self._sweep(live.placed, live.running)
            live.ended.wait(KILL_PATIENCE)
            self._at("after-kill")
            return live.exit

    def _ask(self, live: _Live, deadline: float) -> None:
        """Send the stop signal and wait: first to the main process, to the others when it has gone (see docs/adr on stopping)."""
        number = _signal(live.placed.stop_signal)
        running = live.running
        if _is_wrapper(running.pid):
            for pid in self._left(live.placed, running):
                _send_quietly(pid, number)
        else:
            send(running.pid, running.start_time, running.boot_id, number)
        live.ended.wait(max(0.0, deadline - time.monotonic()))
        asked: set[int] = set()
        while time.monotonic() < deadline and (left := self._left(live.placed, running)):
            for pid in set(left) - asked:
                _send_quietly(pid, number)
            asked.update(left)
            wait_for_any(left, deadline - time.monotonic())

    def forget(self, id: str) -> None:
        folder = self._folder(id)
        if not folder.path.is_dir():
            return
        with folder.locked():
            live = self._adopt(id, holding=True)
            if live is not None and not live.ended.is_set():
                raise InstanceRunning(
                    what=f"The files of {id} were kept.", why="The instance still runs.", fix="Stop it first, then remove its files."
                )
            placed = folder.placed()
            if placed is not None:
                self._sweep(placed, folder.running())
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
        lines, ends = instance_log.tail(tail)
        yield from lines
        if follow and live is not None:
            yield from instance_log.follow(ends, live.ended.is_set, stopped)

    def output(self, id: str, *, stopped: Callable[[], bool] = lambda: False) -> Iterator[Output]:
        live = self._adopt(id)
        if live is not None:
            yield from live.log.output(live.starts, live.ended.is_set, stopped)

    def feed(self, id: str, data: bytes) -> bool:
        live = self._live.get(id)
        while live is not None and data:
            if live.input is None or live.ended.is_set():
                return False
            try:
                data = data[os.write(live.input, data[:4096]) :]
            except BrokenPipeError:
                return False
        return live is not None

    def close_input(self, id: str) -> None:
        with self._lock:
            live = self._live.get(id)
            if live is not None and live.input is not None:
                os.close(live.input)
                live.input = None

    def pids(self, id: str) -> list[int]:
        """All processes of an instance that runs."""
        live = self._adopt(id)
        return [] if live is None or live.ended.is_set() else self._left(live.placed, live.running)

    def execute(self, id: str, command: tuple[str, ...] | str, *, timeout: timedelta) -> Executed:
        live = self._adopt(id)
        if live is None or live.ended.is_set():
            raise _refused(id, "The instance does not run.")
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
            oom_score=OOM_SCORE,
        )
        reader, writer = os.pipe()
        try:
            try:
                pid, failure = launch(whole, output=writer)
            finally:
                os.close(writer)
            if failure is not None:
                raise _launch_refused("The command", failure)
            return collect(pid, reader, timeout.total_seconds())
        finally:
            os.close(reader)

    def rotate(self) -> None:
        with self._lock:
            lives = list(self._live.values())
        for live in lives:
            try:
                live.log.mark()
                live.log.rotate()
            except OSError as error:
                log.warning("the log of %s could not be rotated: %s", live.handle.id, error)


def _never_ran(handle: Handle, placed: Placed, instance_log: InstanceLog) -> _Live:
    """An instance whose start was interrupted before there was a process."""
    nobody = Running(pid=0, start_time=0, boot_id="")
    live = _Live(handle=handle, placed=placed, running=nobody, log=instance_log, starts={}, exit=Exit(at=placed.started_at))
    live.ended.set()
    return live


def _oom(placed: Placed) -> bool:
    return placed.group is not None and placed.group.out_of_memory()


def _signal(name: str) -> int:
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        return signal.SIGTERM


def _send_quietly(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _is_wrapper(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:2]
    except OSError:
        return False
    return any(Path(os.fsdecode(word).split(" ")[0]).stem in _WRAPPERS for word in words if word)


def _refused(subject: Placement | str, why: str) -> StartRefused:
    name = subject if isinstance(subject, str) else subject.service
    return StartRefused(
        what=f"{name} was not started; what ran before still runs.",
        why=why,
        fix="Correct what the reason names and deploy again.",
    )


_SENTENCES = {
    ("program", errno.ENOENT): (
        "The program {subject!r} is not in the artifact nor on PATH.",
        "Install it in the build, or correct the start command.",
    ),
    ("program", errno.EACCES): ("{subject!r} is not executable.", "Run `chmod +x` on it and commit, or start it through its interpreter."),
    ("program", errno.E2BIG): ("The environment and arguments are larger than the kernel takes (about 2 MB).", "Make variables smaller."),
    ("folder", errno.ENOENT): ("Its folder {subject} is not part of the built source.", "Correct the root folder of the service."),
}


def _launch_refused(name: str, failure: Failure) -> StartRefused:
    why, fix = _SENTENCES.get((failure.stage, failure.number), ("", ""))
    return StartRefused(
        what=f"{name} was not started; what ran before still runs.",
        why=why.format(subject=failure.subject) if why else f"The step {failure} failed.",
        fix=fix or "Run `homeport doctor`, which checks what this machine allows, and deploy again.",
    )


_: tuple[type[Runtime], type[Interactive], type[CanExecute]] = (ProcessRuntime, ProcessRuntime, ProcessRuntime)
