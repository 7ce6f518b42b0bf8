"""A whole Homeport for tests: a real control plane as a process, on a home and ports of its own, and a thorough clean-up."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil

APPS = Path(__file__).resolve().parents[1] / "apps"
REPOSITORY = APPS.parents[1]
PATIENCE = 30.0
"""Seconds that anything may take before a test gives up."""


class Answer(NamedTuple):
    """What the edge answered."""

    status: int
    headers: dict[str, str]
    body: str


class Home:
    """One home. `close` ends everything and says what was left behind."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.path = folder
        self.edge_port, self.api_port = free_ports(2)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("HOMEPORT_")}
        self.env |= {"HOMEPORT_HOME": str(folder), "HOMEPORT_EDGE_PORT": str(self.edge_port), "HOMEPORT_API_PORT": str(self.api_port)}
        self.env |= env or {}
        self.alias = Path("/run/homeport") / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        self.process: subprocess.Popen[bytes] | None = None
        self._started: list[subprocess.Popen[bytes]] = []

    # --- the control plane ------------------------------------------------------------------------------------

    def serve(self, *, fault: str = "", wait: bool = True, limits: Callable[[], None] | None = None) -> subprocess.Popen[bytes]:
        """Start the control plane; with `fault` it kills itself at that point. Returns once it answers."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not Path(f"/proc/{self.pid() or 'none'}").exists():
            (self.path / "serve.json").unlink(missing_ok=True)  # of one that is gone; of one that runs it is needed
        env = {**self.env, **({"HOMEPORT_FAULT": fault} if fault else {})}
        with (self.path / "serve.log").open("ab") as log:
            argv = [sys.executable, "-m", "homeport", "serve"]
            self.process = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=limits
            )
            self._started.append(self.process)
            threading.Thread(target=self.process.wait, daemon=True).start()  # reaped at once: `down` waits until it is gone
        if wait:
            process = self.process
            until(lambda: self.alive() or process.poll() is not None, "the control plane to answer")
            assert process.poll() is None or fault, self.log()
        return self.process

    def alive(self) -> bool:
        """Whether the control plane answers."""
        try:
            return self.api("GET", "/api/health", timeout=10)[0] == 200
        except (OSError, ValueError, http.client.HTTPException):
            return False

    def pid(self) -> int:
        """Of the control plane, as it wrote it down; 0 when there is none."""
        try:
            return int(json.loads((self.path / "serve.json").read_bytes())["pid"])
        except (OSError, ValueError):
            return 0

    def _serves(self) -> bool:
        """Whether the control plane's process is there, whether it answers or not."""
        return any("homeport serve" in command for command in self.processes().values())

    def kill(self) -> None:
        """`kill -9` the control plane and wait until it is gone."""
        pid = self.pid() or (self.process.pid if self.process else 0)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.gone(pid)

    def gone(self, pid: int, seconds: float = PATIENCE) -> None:
        """Wait until a process has ended."""

        def ended() -> bool:
            if self.process is not None and self.process.pid == pid:
                return self.process.poll() is not None
            return not Path(f"/proc/{pid}/stat").exists() or Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"

        until(ended, f"process {pid} to end", seconds)

    def log(self) -> str:
        """What the control plane said."""
        file = self.path / "serve.log"
        return file.read_text(errors="replace")[-8000:] if file.is_file() else ""

    # --- doors ------------------------------------------------------------------------------------------------

    def cli(self, *arguments: str | Path, code: int | None = 0, timeout: float = 120, cwd: Path | None = None) -> str:
        """Run the command line; its standard output. `code` None accepts any exit code."""
        done = self.run(*arguments, timeout=timeout, cwd=cwd)
        assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log()[-3000:]}"
        return done.stdout

    def run(self, *arguments: str | Path, timeout: float = 120, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line, whatever comes."""
        argv = [sys.executable, "-m", "homeport", *map(str, arguments)]
        return subprocess.run(
            argv, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd or self.path
        )

    def json(self, *arguments: str | Path, code: int | None = 0, timeout: float = 120) -> Any:
        """Run a verb with `--json`."""
        return json.loads(self.cli(*arguments, "--json", code=code, timeout=timeout))

    def up(self, folder: Path, *more: str | Path, code: int | None = 0, timeout: float = 120) -> Any:
        """Deploy a folder; the result object."""
        self.path.mkdir(parents=True, exist_ok=True)
        return self.json("up", folder, *more, code=code, timeout=timeout)

    def api(self, method: str, path: str, body: dict[str, Any] | None = None, timeout: float = 60) -> tuple[int, Any]:
        """One request to the API with the local key."""
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=timeout)
        try:
            file = self.path / "cli.key"
            key = file.read_text().strip() if file.is_file() else ""
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        finally:
            connection.close()

    def ask(self, folder: Path, **more: Any) -> str:
        """Ask for a deploy and do not wait; its id."""
        status, found = self.api("POST", "/api/v1/deploys", {"folder": str(folder), **more})
        assert status == 202, found
        return str(found["id"])

    def settled(self, deploy: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """Wait for a deploy to end; its row."""
        last: dict[str, Any] = {}

        def done() -> bool:
            nonlocal last
            with contextlib.suppress(OSError, http.client.HTTPException):
                last = self.api("GET", f"/api/v1/deploys/{deploy}")[1]
            return last.get("status", "queued") not in ("queued", "running")

        until(done, f"deploy {deploy} to end", seconds, tell=lambda: f"{last}\n{self.log()[-4000:]}")
        return last

    def get(self, host: str, path: str = "/", method: str = "GET", body: bytes | None = None, timeout: float = 15) -> Answer:
        """One request through the edge."""
        connection = http.client.HTTPConnection("127.0.0.1", self.edge_port, timeout=timeout)
        try:
            connection.request(method, path, body, {"Host": host, "Connection": "close"})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode(errors="replace"))
        finally:
            connection.close()

    def serves(self, host: str, path: str, body: str, seconds: float = PATIENCE) -> None:
        """Wait until the edge answers a path with this body."""
        last: list[object] = []

        def there() -> bool:
            try:
                last[:] = [self.get(host, path)]
            except OSError as error:
                last[:] = [error]
            return isinstance(last[0], Answer) and last[0].body == body

        until(there, f"{host}{path} to answer {body!r}", seconds, tell=lambda: f"{last}\n{self.log()[-4000:]}")

    # --- looking inside ---------------------------------------------------------------------------------------

    def rows(self, query: str, *values: Any, file: str = "homeport.db") -> list[sqlite3.Row]:
        """Rows of the store (or the journal), read from beside."""
        with contextlib.closing(sqlite3.connect(f"file:{self.path / file}?mode=ro", uri=True, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(query, values).fetchall()

    def instances(self, project: str, environment: str = "production") -> list[dict[str, Any]]:
        """Every instance of an environment."""
        status, found = self.api("GET", f"/api/v1/projects/{project}/environments/{environment}/instances")
        assert status == 200, found
        return list(found)

    def processes(self) -> dict[int, str]:
        """Every process that belongs to this home, with its command line."""
        found: dict[int, str] = {}
        marks = (str(self.path.resolve()), str(self.alias))
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                with contextlib.suppress(OSError):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    place = str((folder / "cwd").readlink())
                    environ = (folder / "environ").read_bytes().decode(errors="replace")
                    zombie = (folder / "stat").read_text().rsplit(") ", 1)[1][0] == "Z"
                    if not zombie and any(_mentions(text, mark) for mark in marks for text in (command, place, environ)):
                        found[int(folder.name)] = command or place
        return found

    def edge_processes(self) -> tuple[int, list[int]]:
        """The edge's master and its workers; 0 and [] when it does not run."""
        names = {pid: text for pid, text in self.processes().items() if "nginx" in text}
        parents = {pid: _parent(pid) for pid in names}
        master = next((pid for pid, parent in parents.items() if parent not in names), 0)
        return master, [pid for pid, parent in parents.items() if parent == master]

    def folders(self) -> set[str]:
        """Instance folders on disk."""
        place = self.path / "instances"
        return {f.name for f in place.iterdir() if f.is_dir()} if place.is_dir() else set()

    # --- the end ----------------------------------------------------------------------------------------------

    def close(self) -> list[str]:
        """`down`, then whatever it takes; what `down` left behind."""
        left: list[str] = []
        if self.path.is_dir():
            with contextlib.suppress(AssertionError):
                until(lambda: self.alive() or not self._serves(), "a busy control plane to answer")
            if not self._serves() and self.processes():
                with contextlib.suppress(AssertionError):
                    self.serve()
            if self._serves():
                self.run("down", timeout=120)
                with contextlib.suppress(AssertionError):
                    until(lambda: not self.processes(), "the last process to end", 10)
            left = [f"process {pid}: {command}" for pid, command in self.processes().items()]
            ports = {"edge": self.edge_port, "API": self.api_port}
            left += [f"{name} port {port}: {listeners(port)}" for name, port in ports.items() if listens(port)]
            left += [f"mount {self.alias}"] if mounted(self.alias) else []
        self._force()
        return left

    def _force(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._started:
            process.wait(10)
        if mounted(self.alias):
            subprocess.run(["umount", "-l", str(self.alias)], check=False, capture_output=True)
            with contextlib.suppress(OSError):
                self.alias.rmdir()
        shutil.rmtree(self.path, ignore_errors=True)


@contextlib.contextmanager
def home_in(folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Home]:
    """A home for the length of a block. Fails when its `down` leaves something behind."""
    home = Home(folder, env)
    try:
        yield home
    except BaseException:
        sys.stderr.write(home.log())
        home.close()
        raise
    left = home.close()
    assert not left, f"`homeport down` left behind: {left}"


def until(done: Callable[[], Any], what: str, seconds: float = PATIENCE, *, tell: Callable[[], str] = str) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}\n{tell()}"
        time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, below those that the kernel gives to outgoing connections and those that Homeport gives to instances."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(10_000, 19_999)
        with contextlib.closing(socket.socket()) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
    return found


def listens(port: int) -> bool:
    """Whether somebody accepts connections on a loopback port."""
    with contextlib.closing(socket.socket()) as one:
        one.settimeout(1)
        return one.connect_ex(("127.0.0.1", port)) == 0


def listeners(port: int) -> list[str]:
    """Who listens on a port, as far as this account may see it."""
    found = [c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr[1:] == (port,) and c.pid]
    return [" ".join(psutil.Process(pid).cmdline()) for pid in found if psutil.pid_exists(pid)]


def mounted(folder: Path) -> bool:
    """Whether something is mounted there; `Path.is_mount` does not see bind mounts of the same file system."""
    return any(line.split()[4] == str(folder) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def outside_tmp() -> Path:
    """A fresh folder that every instance sees and may write: `/tmp` is private to each. The caller removes it."""
    import tempfile

    base = Path("/run") if os.geteuid() == 0 else Path.home()
    folder = Path(tempfile.mkdtemp(prefix="homeport-test-", dir=base))
    folder.chmod(0o1777)
    return folder


def _mentions(text: str, mark: str) -> bool:
    return any(text[at + len(mark) : at + len(mark) + 1] in ("", "/", " ", "\0", "\n") for at in _found(text, mark))


def _found(text: str, mark: str) -> Iterator[int]:
    at = text.find(mark)
    while at >= 0:
        yield at
        at = text.find(mark, at + 1)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[1])
    except (OSError, IndexError):
        return 0
