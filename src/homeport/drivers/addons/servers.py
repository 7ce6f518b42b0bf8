"""Engine processes of add-ons: started detached, at most one per data folder, found again after a restart of the control plane.

The fence is a lock that the kernel keeps. The server gets the add-on's empty, locked lock file as its standard input, and every process
it forks inherits it; reading it gives end of file, as from /dev/null. So the lock is free exactly when the last process that could write
the data has ended, however it ended, and no second server can be started before. `holders` finds those processes by the same file.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pwd
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from homeport.drivers.addons.errors import AddOnFailed, AddOnInUse
from homeport.drivers.cgroups import Group, Limits
from homeport.drivers.files import locked, write_atomic
from homeport.drivers.runtimes import launching
from homeport.drivers.runtimes.base import Executed, Exit
from homeport.drivers.runtimes.logfiles import InstanceLog
from homeport.drivers.runtimes.processes import boot_id, is_running, listening, pids
from homeport.drivers.runtimes.records import Running
from homeport.drivers.runtimes.watcher import Watcher, send, wait_for_any
from homeport.model.base import Frozen

log = logging.getLogger(__name__)

ACCOUNT = "homeport-addon"
"""Name an engine's account goes by inside its own view of /etc/passwd."""
LOCK_PATIENCE = 15.0
"""Seconds for the last process of a dead server to go after SIGKILL."""
PATH = "/usr/local/bin:/usr/bin:/bin"
PIDS = 4096
OPEN_FILES = 65_536
KEPT_FENCE = 9
"""Descriptor that holds the fence in servers that close their standard input (see `keeping_fence`)."""
OOM_SCORE = 100
"""Applications (300) are ended before databases when the machine runs out of memory."""


class Command(Frozen):
    """What a server or a tool of the engine is started with."""

    argv: tuple[str, ...]
    cwd: Path
    user: int | None = None
    env: dict[str, str] = {}
    group: Group | None = None
    memory: int | None = None
    """Bytes that all its processes may use together, where control groups can hold them to it."""
    stale: tuple[Path, ...] = ()
    """Files that say a server runs: whoever holds the fence knows better, and removes what a dead one left."""


def keeping_fence(*argv: str) -> tuple[str, ...]:
    """The command of a server that closes its standard input when it starts: the fence stays open as a second descriptor."""
    return ("/bin/sh", "-c", f'exec "$@" {KEPT_FENCE}<&0', "sh", *argv)


class Keeper:
    """Watches the servers of one driver and tells listeners of their ends."""

    def __init__(self) -> None:
        self._watcher = Watcher(self._see_end)
        self._ended: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._listeners: list[Callable[[Path], None]] = []

    def on_exit(self, listener: Callable[[Path], None]) -> None:
        """Call `listener(folder)` on the watching thread after each end of a server."""
        self._listeners.append(listener)

    def watch(self, folder: Path, running: Running) -> threading.Event:
        """Watch a server, once; the event is set when it has ended."""
        name = f"{running.pid} {folder}"
        with self._lock:
            event = self._ended.get(name)
            if event is None:
                event = self._ended[name] = threading.Event()
                if not self._watcher.add(name, running.pid, running.start_time, running.boot_id):
                    event.set()
                    del self._ended[name]
            return event

    def close(self) -> None:
        """Stop watching; servers live on."""
        self._watcher.close()

    def _see_end(self, name: str, _exit: Exit) -> None:
        with self._lock:
            event = self._ended.pop(name, None)
        if event is not None:
            event.set()
        for listener in self._listeners:
            listener(Path(name.partition(" ")[2]))


class Server:
    """One server of an add-on. `folder` holds `lock`, `process.json`, `generation` and `log/`, all written by Homeport alone."""

    def __init__(self, name: str, folder: Path, keeper: Keeper) -> None:
        self.name, self.folder, self._keeper = name, folder, keeper
        self.log = InstanceLog(name, folder / "log")

    # -- what is there ---------------------------------------------------------------------------------------------

    def running(self) -> Running | None:
        """Its main process, when it runs."""
        try:
            found = Running.model_validate_json((self.folder / "process.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValidationError):
            return None
        if not is_running(found.pid, found.start_time, found.boot_id):
            return None
        self._keeper.watch(self.folder, found)
        return found

    def holders(self) -> list[int]:
        """Every process that has the lock file open as its fence: the server's, and tools that work on its data. Never this one.

        A process that was started without a standard input gets its own look at the lock file as descriptor 0.
        """
        try:
            wanted = (self.folder / "lock").stat()
        except FileNotFoundError:
            return []
        found, mine = [], os.getpid()
        for pid in pids():
            for number in (0, KEPT_FENCE) if pid != mine else ():
                try:
                    seen = os.stat(f"/proc/{pid}/fd/{number}")  # noqa: PTH116 (thousands of them)
                except OSError:
                    continue
                if os.path.samestat(wanted, seen):
                    found.append(pid)
                    break
        return found

    def accepts(self, host: str, port: int) -> bool:
        """Whether its main process accepts connections there: an answer alone may be that of a program which got the port first."""
        running = self.running()
        return running is not None and (host, port) in listening([running.pid])

    def generation(self) -> int:
        """How often it was started."""
        try:
            return int((self.folder / "generation").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def tail(self, count: int) -> list[str]:
        return [line.text for line in self.log.tail(count)[0]]

    # -- start and stop --------------------------------------------------------------------------------------------

    def start(self, command: Command) -> Running:
        """Start it, or find it running. Raises AddOnInUse, AddOnFailed."""
        with self._gate():
            running = self.running()
            if running is not None:
                return running
            with self._fenced() as fence:
                write_atomic(self.folder / "generation", f"{self.generation() + 1}\n".encode())
                _remove(command.stale)
                return self._launch(command, fence)

    def _launch(self, command: Command, fence: int) -> Running:
        self.log.folder.mkdir(exist_ok=True)
        if command.group is not None:
            command.group.create(Limits(memory=command.memory, pids=PIDS))
        order = self._order(command, log=str(self.log.folder), record=str(self.folder / "process.json"), boot_id=boot_id())
        try:
            _, failure = launching.launch(order, stdin=fence)
        except OSError as error:
            raise AddOnFailed(name=self.name, why=f"Its server could not be started: {error.strerror}.") from error
        if failure is not None:
            raise AddOnFailed(name=self.name, why=f"Its server could not be started: {failure}.")
        running = Running.model_validate_json((self.folder / "process.json").read_bytes())
        self._keeper.watch(self.folder, running)
        return running

    def _order(self, command: Command, **more: object) -> dict[str, object]:
        root = self.folder / "root"
        root.mkdir(mode=0o700, exist_ok=True)
        view = accounts_view(self.folder, command.user)
        return launching.order(
            argv=list(command.argv),
            env={"PATH": PATH, "LANG": "C.UTF-8", "TZ": "UTC", "HOME": str(command.cwd), **command.env},
            cwd=str(command.cwd),
            user=command.user,
            cgroups=command.group.joins if command.group else (),
            view=view,
            root=str(root) if view else "",
            limits={"RLIMIT_NOFILE": OPEN_FILES, "RLIMIT_CORE": 0},
            oom_score=OOM_SCORE,
            **more,
        )

    def wait_ready(self, ready: Callable[[], bool], timeout: float) -> None:
        """Return when `ready()`. Raises AddOnFailed with the last log lines when the server ends or takes longer than `timeout` s."""
        running = self.running()
        ended = self._keeper.watch(self.folder, running) if running else threading.Event()
        deadline = time.monotonic() + timeout
        while not ready():
            if running is None or ended.wait(0.02):
                raise AddOnFailed(name=self.name, why="Its server ended while starting.", tail=self.tail(20))
            if time.monotonic() > deadline:
                raise AddOnFailed(name=self.name, why=f"Its server was not ready after {timeout:.0f} s.", tail=self.tail(20))

    def stop(self, number: int = signal.SIGTERM, grace: float = 30.0) -> None:
        """Ask it to end, wait, and end for certain what is left. Already gone is success. Raises AddOnInUse."""
        with self._gate():
            running = self.running()
            if running is not None and send(running.pid, running.start_time, running.boot_id, number):
                self._keeper.watch(self.folder, running).wait(grace)
            with self._fenced():
                (self.folder / "process.json").unlink(missing_ok=True)

    def sweep(self) -> None:
        """End what a dead control plane left at work on the data, so that the data can be removed. Raises AddOnInUse."""
        with self._gate():
            if self.running() is not None:
                raise AddOnInUse(self.name, "Its server runs.")
            with self._fenced():
                pass

    # -- tools -----------------------------------------------------------------------------------------------------

    def run(self, command: Command, timeout: float) -> Executed:
        """Run a tool of the engine on the data while no server can: initdb and its like. Raises AddOnInUse, AddOnFailed."""
        with self._gate():
            if self.running() is not None:
                raise AddOnInUse(self.name, "Its server runs.")
            with self._fenced() as fence:
                _remove(command.stale)
                return self._collect(command, fence, timeout)

    def _collect(self, command: Command, fence: int, timeout: float) -> Executed:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            pid, failure = launching.launch(self._order(command), stdin=fence, output=writer)
        finally:
            os.close(writer)
        try:
            if failure is not None:
                raise AddOnFailed(name=self.name, why=f"{Path(command.argv[0]).name} could not be started: {failure}.")
            return launching.collect(pid, reader, timeout)
        finally:
            os.close(reader)

    # -- the fence -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _gate(self) -> Iterator[None]:
        """One start or stop at a time, over all threads and control planes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "gate"):
            yield

    @contextlib.contextmanager
    def _fenced(self) -> Iterator[int]:
        """Hold the lock, after ending whatever a dead server or a dead control plane left behind. Raises AddOnInUse."""
        number = os.open(self.folder / "lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(number)
            yield number
        finally:
            os.close(number)

    def _take(self, number: int) -> None:
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                left = self.holders()
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise AddOnInUse(self.name)
            wait_for_any(left, 0.2) if left else time.sleep(0.05)  # a holder nobody can see gives no event


def _remove(files: Sequence[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def accounts_view(folder: Path, user: int | None) -> tuple[tuple[str, str, str, str], ...]:
    """A view of the machine in which the account has a name, which PostgreSQL insists on; nothing where it has one already."""
    user = os.geteuid() if user is None else user
    if account_name(user, default="") not in ("", ACCOUNT):
        return ()
    passwd = folder / "passwd"
    known = Path("/etc/passwd").read_text(errors="replace")
    text = f"{known.rstrip()}\n{ACCOUNT}:x:{user}:{user}::/nonexistent:/usr/sbin/nologin\n"
    if not passwd.exists() or passwd.read_text() != text:
        write_atomic(passwd, text.encode())
    return (("bind", "/", "/", "rw"), ("bind", str(passwd), "/etc/passwd", "ro"))


def account_name(user: int, default: str = ACCOUNT) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return default


def proportional_memory(members: Sequence[int]) -> int:
    """Bytes these processes use, shared pages counted once (`smaps_rollup`, Linux 4.14); resident bytes where that is not told."""
    total = 0
    for pid in members:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)
    return total


def folder_size(folder: Path) -> int:
    """Bytes on disk, holes not counted; files that vanish meanwhile are left out."""
    total = 0
    for here, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{here}/{name}").st_blocks * 512
    return total


def run_outside(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None, timeout: float) -> Executed:
    """Run a client tool of an engine with Homeport's own account. Raises OSError, TimeoutExpired."""
    import subprocess

    done = subprocess.run(
        list(argv),
        cwd=cwd,
        env={"PATH": PATH, "LANG": "C.UTF-8", "TZ": "UTC", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
    )
    return Executed(code=done.returncode, output=done.stdout.decode("utf-8", "replace"))
