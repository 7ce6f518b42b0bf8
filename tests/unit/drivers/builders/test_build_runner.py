"""Running the steps of a build."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from homeport.drivers.builders.base import BuildLimits
from homeport.drivers.builders.errors import BuildCancelled, BuildFailed, BuildTimedOut
from homeport.drivers.builders.run import Lines, Runner, StepFailed
from homeport.drivers.cgroups import cgroups

ENV = {"PATH": "/usr/bin:/bin"}
Start = Callable[..., Runner]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[Runner] = []

    def make(*, time_limit: float = 20, memory: int | None = None, cancelled: Callable[[], bool] = lambda: False) -> Runner:
        lines: list[str] = []
        runner = Runner(
            id=f"{len(made)}" + tmp_path.name,
            service="web",
            limits=BuildLimits(time=timedelta(seconds=time_limit), memory=memory),
            user=None,
            log=lines.append,
            cancelled=cancelled,
            places=(tmp_path, tmp_path / "tmp"),
        )
        runner.__enter__()
        made.append(runner)
        return runner

    yield make
    for runner in made:
        runner.__exit__()


def sh(runner: Runner, folder: Path, script: str) -> list[str]:
    """Run a script and return all that it printed."""
    lines: list[str] = []
    runner.lines = Lines(lines.append)
    runner.run(["/bin/sh", "-c", script], folder, ENV, script)
    return lines


def left(tmp_path: Path) -> list[psutil.Process]:
    """Processes whose working folder is the build's."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == tmp_path and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_both_streams_are_logged_line_by_line(start: Start, tmp_path: Path) -> None:
    """Output and errors come in order, the last line also without its end, colours kept."""
    assert sh(start(), tmp_path, "echo a; echo b >&2; printf '\\033[31mred\\033[0m'") == ["a", "b", "\x1b[31mred\x1b[0m"]


def test_progress_bars_and_long_lines_are_cut(start: Start, tmp_path: Path) -> None:
    """Of a line that is rewritten the last state counts; a line without end does not fill memory."""
    lines = sh(start(), tmp_path, "printf '10%%\\r50%%\\r100%%\\n'; head -c 300000 /dev/zero | tr '\\0' x; echo; echo end")
    assert lines[0] == "100%"
    assert len(lines[1]) < 5000
    assert lines[-1] == "end"


def test_the_environment_is_exactly_what_is_given(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of Homeport's own environment, open files or input reaches a build."""
    monkeypatch.setenv("HOMEPORT_SECRET", "x")
    lines = sh(start(), tmp_path, "env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD=; cat; ls /proc/self/fd | wc -l")
    assert lines[0] == "PATH=/usr/bin:/bin"
    assert int(lines[1]) <= 5


def test_a_build_is_nice(start: Start, tmp_path: Path) -> None:
    """Builds give way to what serves."""
    assert sh(start(), tmp_path, "nice")[0] == "10"


def test_a_failing_step_tells_its_code_and_last_lines(start: Start, tmp_path: Path) -> None:
    """The last 40 lines and the exit code are kept."""
    with pytest.raises(StepFailed) as caught:
        sh(start(), tmp_path, "seq 100; exit 3")
    assert "exit code 3" in caught.value.why
    assert caught.value.tail == tuple(str(number) for number in range(61, 101))


def test_a_missing_program_is_said_to_be_missing(start: Start, tmp_path: Path) -> None:
    """A command that does not exist is told apart from one that fails."""
    with pytest.raises(StepFailed) as caught:
        start().run(["no-such-program-at-all"], tmp_path, ENV, "no-such-program-at-all")
    assert "was not found" in caught.value.why


@pytest.mark.parametrize(
    "script", ["sleep 60", "sleep 60 & sleep 60", "setsid sleep 60 & sleep 60", "trap '' TERM INT; while :; do sleep 1; done"]
)
def test_a_step_that_never_ends_is_ended_with_all_its_children(start: Start, tmp_path: Path, script: str) -> None:
    """At the time limit everything the build started is gone, also what left its session."""
    before = time.monotonic()
    with pytest.raises(BuildTimedOut):
        sh(start(time_limit=0.4), tmp_path, script)
    assert time.monotonic() - before < 30
    psutil.wait_procs(left(tmp_path), timeout=20)
    assert left(tmp_path) == []


def test_what_a_step_leaves_in_the_background_does_not_hold_it_up(start: Start, tmp_path: Path) -> None:
    """A step is over when its program is; its background processes are ended."""
    before = time.monotonic()
    assert sh(start(), tmp_path, "setsid sleep 50 & echo done") == ["done"]
    assert time.monotonic() - before < 30
    psutil.wait_procs(left(tmp_path), timeout=20)
    assert left(tmp_path) == []


def test_a_cancelled_build_stops_soon(start: Start, tmp_path: Path) -> None:
    """A build looks for its cancellation several times a second."""
    begun = time.monotonic()
    with pytest.raises(BuildCancelled):
        sh(start(cancelled=lambda: time.monotonic() - begun > 0.3), tmp_path, "sleep 60")
    assert time.monotonic() - begun < 30


@pytest.mark.root
def test_a_build_that_needs_too_much_memory_is_said_to(start: Start, tmp_path: Path) -> None:
    """When the kernel ends a build for want of memory the error says so and names the limit."""
    if "memory" not in cgroups().bases:
        pytest.skip("memory control groups need root and a kernel that hands them out")
    with pytest.raises(BuildFailed) as caught:
        sh(start(memory=48 << 20), tmp_path, "exec python3 -c 'b = bytearray(400 << 20); print(len(b))'")
    assert "memory" in caught.value.why
    assert "48MiB" in caught.value.why
