"""What becomes of instances when the control plane, the disk or the application itself misbehaves."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from homeport.drivers.runtimes import processes
from homeport.drivers.runtimes.base import Exit, InstanceDiskFull, Mount, Placement, StartRefused
from homeport.drivers.runtimes.process import ProcessRuntime
from homeport.model.release import Artifact
from homeport.model.service import Disk, Resources

ROOT = os.geteuid() == 0
ID = "shop-production-web-r1-0"
SOON = timedelta(seconds=10)

DRIVER = """
import os, signal, sys
from pathlib import Path
from datetime import timedelta
from homeport.drivers.runtimes.base import Placement
from homeport.drivers.runtimes.process import ProcessRuntime

home, point, verb = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def at(reached):
    if reached == point:
        os.kill(os.getpid(), signal.SIGKILL)
runtime = ProcessRuntime(home, at=at)
placement = Placement.model_validate_json(sys.stdin.read())
handle = runtime.start(placement)
if verb == "stop":
    runtime.stop(handle.id, grace=timedelta(seconds=5))
print("not crashed")
"""


def _artifact(home: Path, code: str) -> Artifact:
    folder = home / "artifacts" / "a"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.py").write_text(code)
    return Artifact(id="a", folder=str(folder), path=(str(Path(sys.prefix) / "bin"),))


def _placement(home: Path, code: str, **given: object) -> Placement:
    values: dict[str, object] = {
        "id": ID,
        "project": "shop",
        "environment": "production",
        "service": "web",
        "release": "r1",
        "artifact": _artifact(home, code),
        "command": ("python3", "-I", "-S", "app.py"),
        "user": 20_001 if ROOT else None,
        **given,
    }
    return Placement.model_validate(values)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "home"
    place.mkdir()
    yield place
    with _runtime(place) as runtime:
        for seen in runtime.observe():
            runtime.stop(seen.handle.id, grace=timedelta(0))
            runtime.forget(seen.handle.id)
    assert _of(place) == [], "a process of the test is left"


@contextlib.contextmanager
def _runtime(home: Path) -> Iterator[ProcessRuntime]:
    runtime = ProcessRuntime(home)
    try:
        yield runtime
    finally:
        runtime.close()


def _of(home: Path) -> list[int]:
    """Every live process whose program runs in a work folder of this home, or was started for it."""
    found = []
    for pid in processes.pids():
        seen = processes.process(pid)
        place = processes.folder(pid)
        if seen is not None and not seen.ended and place.startswith(str(home)):
            found.append(pid)
    return found


def _until(condition: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def _crash(home: Path, point: str, verb: str, placement: Placement) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DRIVER, str(home), point, verb],
        input=placement.model_dump_json(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


KILL_WHILE_LAUNCHING = """
from homeport.drivers.runtimes import launching, sandbox
sandbox.isolation()
launching._outcome = lambda pid, status: os.kill(os.getpid(), signal.SIGKILL)
"""

COUNTING = "import os, time\nopen(os.environ['STARTS'], 'a').write('x')\ntime.sleep(60)\n"


@pytest.mark.parametrize("point", ["before-work", "before-launch", "after-launch"])
def test_a_crash_in_start_ends_in_one_instance_after_the_next_start(home: Path, tmp_path: Path, point: str) -> None:
    """Killed at each point of a start, the control plane's next start gives exactly one running instance."""
    disk = home / "volumes" / "d"
    placement = _placement(home, COUNTING, mounts=(Mount(disk=Disk(mount_path="/starts"), folder=disk),), env={"STARTS": "/starts/log"})
    done = _crash(home, point, "start", placement)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with _runtime(home) as runtime:
        handle = runtime.start(placement)
        _until(lambda: (disk / "log").exists())
        assert [(seen.state, seen.handle) for seen in runtime.observe()] == [("running", handle)]
        assert _of(home) == [handle.pid]
        assert (disk / "log").read_text() == "x", "it was started twice"


@pytest.mark.parametrize("point", ["before-signal", "before-exit-recorded", "before-kill", "after-kill"])
def test_a_crash_in_stop_ends_in_no_instance_after_the_next_stop(home: Path, point: str) -> None:
    """Killed at each point of a stop, the control plane's next stop leaves no process."""
    done = _crash(home, point, "stop", _placement(home, "import time; time.sleep(60)"))
    assert done.returncode == -signal.SIGKILL, done.stderr
    with _runtime(home) as runtime:
        assert runtime.stop(ID) is not None
        assert [seen.state for seen in runtime.observe()] == ["exited"]
        assert _of(home) == []


def test_a_crash_while_the_launcher_works_starts_nothing_twice(home: Path) -> None:
    """Killed right after the launcher was forked, the control plane leaves it to finish; the next start waits for it."""
    disk = home / "volumes" / "d"
    placement = _placement(home, COUNTING, mounts=(Mount(disk=Disk(mount_path="/starts"), folder=disk),), env={"STARTS": "/starts/log"})
    killer = DRIVER.replace("handle = ", KILL_WHILE_LAUNCHING + "handle = ")
    done = subprocess.run(
        [sys.executable, "-c", killer, str(home), "-", "start"],
        input=placement.model_dump_json(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    with _runtime(home) as runtime:
        handle = runtime.start(placement)
        _until(lambda: (disk / "log").exists())
        assert _of(home) == [handle.pid]
        assert (disk / "log").read_text() == "x"


def test_a_full_disk_refuses_the_start_and_leaves_nothing(home: Path) -> None:
    """When the copy of the source does not fit, the error says so, and no instance folder is left."""
    placement = _placement(home, "pass")
    (Path(placement.artifact.folder) / "large.bin").write_bytes(b"x" * (1 << 20))
    with _runtime(home) as runtime:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        try:
            with pytest.raises(InstanceDiskFull, match="no room"):
                runtime.start(placement)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert runtime.observe() == []
        assert not list((home / "instances").iterdir())


@pytest.mark.skipif(not ROOT, reason="mounting a small file system needs root")
@pytest.mark.parametrize("room", ["4k", "64k", "300k"])
def test_a_full_file_system_refuses_the_start_and_recovers(home: Path, room: str) -> None:
    """On a file system that is full at different points, the start fails with its reason; with room again it succeeds."""
    instances = home / "instances"
    instances.mkdir()
    placement = _placement(home, "import time; time.sleep(60)")
    (Path(placement.artifact.folder) / "large.bin").write_bytes(b"x" * 400_000)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room},mode=711", "none", str(instances)], check=True)
    try:
        with _runtime(home) as runtime:
            with pytest.raises(StartRefused, match="room"):
                runtime.start(placement)
            assert runtime.observe() == []
            subprocess.run(["mount", "-o", "remount,size=10m", str(instances)], check=True)
            assert runtime.start(placement).pid
            runtime.stop(ID)
            runtime.forget(ID)
    finally:
        subprocess.run(["umount", "-l", str(instances)], check=True)


FORK_BOMB = """
import os, sys, time
made = 0
try:
    while made < 500:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError:
    pass
print("made", made, flush=True)
time.sleep(60)
"""


def test_a_fork_bomb_is_bounded_and_ended_whole(home: Path) -> None:
    """An instance that forks without end gets no further than its limit, and stop ends every one of them."""
    with _runtime(home) as runtime:
        if not runtime.capabilities.limits_pids:
            pytest.skip(runtime.capabilities.reasons["limits_pids"])
        runtime.start(_placement(home, FORK_BOMB, resources=Resources(pids=40)))
        line = next(line.text for line in runtime.logs(ID, follow=True) if line.text.startswith("made"))
        assert 30 <= int(line.split()[1]) < 40
        assert 30 <= runtime.observe()[0].processes <= 40
        runtime.stop(ID, grace=timedelta(0))
        assert _of(home) == []


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        null = os.open("/dev/null", os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        time.sleep(60)
    os._exit(0)
os.wait()
print("away", flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["sys.exit(0)", "time.sleep(60)"])
def test_what_an_instance_puts_into_the_background_dies_with_it(home: Path, end: str) -> None:
    """A daemon in a session of its own is ended when the instance ends by itself, and when it is stopped."""
    with _runtime(home) as runtime:
        if not runtime.capabilities.mounts and not ROOT:
            pytest.skip("without a namespace or a control group a daemon cannot be told from a stranger")
        runtime.start(_placement(home, DAEMON.replace("{end}", end)))
        next(line for line in runtime.logs(ID, follow=True) if line.text == "away")
        if "exit" not in end:
            runtime.stop(ID)
        exit = runtime.wait(ID, SOON)
        assert exit is not None
        _until(lambda: _of(home) == [])


def test_an_instance_that_is_killed_from_outside_is_noticed_at_once(home: Path) -> None:
    """kill -9 of an instance reaches the listener, which waits for no look."""
    told: list[float] = []
    heard = threading.Event()

    def listen(_id: str, _exit: Exit) -> None:
        told.append(time.monotonic())
        heard.set()

    with _runtime(home) as runtime:
        handle = runtime.start(_placement(home, "import time; time.sleep(60)"))
        runtime.on_exit(listen)
        killed = time.monotonic()
        os.kill(handle.pid, signal.SIGKILL)
        assert heard.wait(30)
        assert told[0] - killed < 1.5
        exit = runtime.wait(ID, SOON)
        assert exit is not None and exit.signal == 9 and not exit.out_of_memory


def test_an_instance_that_ended_while_nobody_watched_is_found_ended(home: Path) -> None:
    """What ended while the control plane was down is observed as ended, of unknown cause, and is not taken for another."""
    with _runtime(home) as runtime:
        handle = runtime.start(_placement(home, "import time; time.sleep(60)"))
    os.kill(handle.pid, signal.SIGKILL)
    os.waitid(os.P_PID, handle.pid, os.WEXITED)
    with _runtime(home) as runtime:
        (seen,) = runtime.observe()
        assert seen.state == "exited" and seen.exit is not None and seen.exit.sentence() == "it ended while nobody watched"


def test_a_recycled_pid_is_not_taken_for_the_instance(home: Path) -> None:
    """A record whose pid now belongs to another process is an ended instance, and that process is left alone."""
    with _runtime(home) as runtime:
        runtime.start(_placement(home, "pass"))
        runtime.wait(ID, SOON)
    record = home / "instances" / ID / "run" / "process.json"
    (record.parent / "exit.json").unlink()
    values = json.loads(record.read_text())
    record.write_text(json.dumps({**values, "pid": os.getpid()}))
    with _runtime(home) as runtime:
        assert [seen.state for seen in runtime.observe()] == ["exited"]
        runtime.stop(ID)


MEMORY = "data = []\nwhile True: data.append(b'x' * (1 << 20))\n"


def test_running_out_of_memory_is_told_as_such(home: Path) -> None:
    """An instance over its memory limit is ended alone, and the exit says why."""
    with _runtime(home) as runtime:
        if not runtime.capabilities.limits_memory:
            pytest.skip(runtime.capabilities.reasons["limits_memory"])
        runtime.start(_placement(home, MEMORY, resources=Resources(memory=40 << 20)))
        exit = runtime.wait(ID, SOON)
        assert exit is not None and exit.out_of_memory and exit.signal == 9


@pytest.mark.slow
def test_two_hundred_lives_leak_nothing(home: Path) -> None:
    """After 200 starts and stops there are as many descriptors, threads and processes as before."""
    placement = _placement(home, "import time; time.sleep(60)")
    with _runtime(home) as runtime:
        runtime.start(placement)
        runtime.stop(ID)
        before = (len(list(Path("/proc/self/fd").iterdir())), threading.active_count())
        for _ in range(200):
            runtime.start(placement)
            runtime.stop(ID)
        assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before
        runtime.forget(ID)
    assert _of(home) == []
