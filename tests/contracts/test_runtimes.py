"""What every runtime promises. `fake` runs always, `process` on any Linux, `bare` is the same without namespaces and control groups."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import pytest

from homeport.drivers.cgroups import Cgroups
from homeport.drivers.runtimes.base import Exit, InstanceRunning, Placement, Runtime, StalePlacement, StartRefused
from homeport.drivers.runtimes.fake import FakeMachine, FakeRuntime
from homeport.drivers.runtimes.process import ProcessRuntime
from homeport.drivers.runtimes.sandbox import Isolation
from homeport.model.release import Artifact

SOON = timedelta(seconds=10)
SCRIPTS = {
    "print": "print('\\n'.join(sys.argv[2:]), flush=True)",
    "exit": "sys.exit(int(sys.argv[2]))",
    "stubborn": "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)",
    "run": "time.sleep(60)",
}


class Subject(Protocol):
    """One kind of runtime under test."""

    def again(self) -> Runtime:
        """A new runtime over the same machine, as after a restart of the control plane."""

    def placement(self, *words: str, id: str = "shop-production-web-r1-0", generation: int = 0, once: bool = False) -> Placement: ...


class FakeSubject:
    def __init__(self, _: Path) -> None:
        self.machine = FakeMachine()

    def again(self) -> Runtime:
        return FakeRuntime(self.machine)

    def placement(self, *words: str, id: str = "shop-production-web-r1-0", generation: int = 0, once: bool = False) -> Placement:
        return _placement(words, "/nowhere", id, generation, once)


class ProcessSubject:
    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.artifact = self.home / "artifacts" / "a"
        self.artifact.mkdir(parents=True)
        branches = "\n".join(f"if sys.argv[1] == {name!r}: {code}" for name, code in SCRIPTS.items())
        (self.artifact / "app.py").write_text(f"import signal, sys, time\n{branches}\n")
        self.opened: list[ProcessRuntime] = []

    def again(self) -> ProcessRuntime:
        self.opened.append(self.open())
        return self.opened[-1]

    def placement(self, *words: str, id: str = "shop-production-web-r1-0", generation: int = 0, once: bool = False) -> Placement:
        command = words if words == ("missing",) else ("python3", "-I", "-S", "app.py", *words)
        return _placement(command, str(self.artifact), id, generation, once)

    def open(self) -> ProcessRuntime:
        return ProcessRuntime(self.home)

    def close(self) -> None:
        runtime = self.again()
        for seen in runtime.observe():
            runtime.stop(seen.handle.id, grace=timedelta(0))
            runtime.forget(seen.handle.id)
        for opened in self.opened:
            opened.close()


class BareSubject(ProcessSubject):
    def open(self) -> ProcessRuntime:
        groups = Cgroups(reasons=dict.fromkeys(("memory", "cpu", "pids"), "the test wants none"))
        return ProcessRuntime(self.home, groups=groups, isolation=Isolation(namespaces=False, reason="the test wants none"))

    def placement(self, *words: str, id: str = "shop-production-web-r1-0", generation: int = 0, once: bool = False) -> Placement:
        return super().placement(*words, id=id, generation=generation, once=once).model_copy(update={"user": None})


def _placement(command: tuple[str, ...], folder: str, id: str, generation: int, once: bool) -> Placement:
    return Placement(
        id=id,
        project="shop",
        environment="production",
        service="web",
        release="r1",
        generation=generation,
        once=once,
        artifact=Artifact(id="a", folder=folder, path=(str(Path(sys.prefix) / "bin"),)),
        command=command,
        env={"GREETING": "hello"},
        host="127.0.0.1",
        port=20_123,
        user=20_001 if os.geteuid() == 0 else None,
    )


@pytest.fixture(params=["fake", "process", "bare"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    if request.param == "fake":
        yield FakeSubject(tmp_path)
        return
    process = ProcessSubject(tmp_path) if request.param == "process" else BareSubject(tmp_path)
    yield process
    process.close()


def _lines(runtime: Runtime, id: str) -> list[str]:
    return [line.text for line in runtime.logs(id)]


def test_an_instance_that_is_started_is_observed_running(subject: Subject) -> None:
    """After start the instance is observed as running, under the handle that start returned."""
    runtime = subject.again()
    handle = runtime.start(subject.placement("run"))
    (seen,) = runtime.observe()
    assert (seen.handle, seen.state) == (handle, "running")
    assert seen.processes >= 1
    assert (handle.host, handle.port) == ("127.0.0.1", 20_123)


def test_what_an_instance_uses_is_measured(subject: Subject) -> None:
    """A running instance has memory, once the kernel has counted it."""
    runtime = subject.again()
    runtime.start(subject.placement("run"))
    deadline = time.monotonic() + 5
    while runtime.observe()[0].memory == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_same_placement_again_gives_the_same_handle(subject: Subject) -> None:
    """A second start of what runs starts nothing."""
    runtime = subject.again()
    first = runtime.start(subject.placement("run"))
    assert runtime.start(subject.placement("run")) == first
    assert len(runtime.observe()) == 1


def test_starts_at_the_same_time_give_one_instance(subject: Subject) -> None:
    """Several threads that start one placement get one handle."""
    runtime = subject.again()
    handles = []
    threads = [threading.Thread(target=lambda: handles.append(runtime.start(subject.placement("run")))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(handles) == 6 and len(set(handles)) == 1


def test_a_placement_older_than_the_newest_is_refused(subject: Subject) -> None:
    """A lower generation is refused, an equal or higher one finds the instance running."""
    runtime = subject.again()
    handle = runtime.start(subject.placement("run", generation=5))
    with pytest.raises(StalePlacement):
        runtime.start(subject.placement("run", generation=4))
    assert runtime.start(subject.placement("run", generation=6)) == handle
    with pytest.raises(StalePlacement):
        runtime.start(subject.placement("run", generation=5))


def test_a_program_that_is_not_there_refuses_the_start_and_leaves_nothing(subject: Subject) -> None:
    """A start that cannot succeed raises StartRefused naming the program, and nothing is observed after it."""
    runtime = subject.again()
    with pytest.raises(StartRefused, match="missing"):
        runtime.start(subject.placement("missing"))
    assert runtime.observe() == []


def test_how_it_ended_is_told_to_listeners_and_to_waiters(subject: Subject) -> None:
    """An exit code reaches wait, observe and every listener, once."""
    runtime = subject.again()
    told: list[tuple[str, int | None]] = []
    heard = threading.Event()

    def listen(id: str, exit: Exit) -> None:
        told.append((id, exit.code))
        heard.set()

    runtime.on_exit(listen)
    handle = runtime.start(subject.placement("exit", "3"))
    exit = runtime.wait(handle.id, SOON)
    assert exit is not None and exit.code == 3
    assert heard.wait(10) and told == [(handle.id, 3)]
    (seen,) = runtime.observe()
    assert seen.state == "exited" and seen.exit is not None and seen.exit.code == 3


def test_a_listener_that_fails_does_not_silence_the_others(subject: Subject) -> None:
    """Exits that follow a listener's mistake are still told."""
    runtime = subject.again()
    if isinstance(runtime, FakeRuntime):
        pytest.skip("the fake tells on a thread per exit")
    heard = threading.Event()
    runtime.on_exit(lambda _id, _exit: 1 // 0)  # type: ignore[arg-type]
    runtime.on_exit(lambda _id, _exit: heard.set())
    runtime.start(subject.placement("exit", "0"))
    assert heard.wait(10)


def test_waiting_for_what_runs_returns_nothing_after_the_timeout(subject: Subject) -> None:
    """Wait returns None while the instance runs."""
    runtime = subject.again()
    handle = runtime.start(subject.placement("run"))
    assert runtime.wait(handle.id, timedelta(milliseconds=30)) is None
    assert runtime.wait("shop-production-web-r9-0", timedelta(milliseconds=30)) is None


def test_stop_ends_it_and_a_second_stop_is_success(subject: Subject) -> None:
    """Stop sends the stop signal; what is already gone, or was never there, is success."""
    runtime = subject.again()
    handle = runtime.start(subject.placement("run"))
    exit = runtime.stop(handle.id)
    assert exit is not None and exit.signal == 15
    again = runtime.stop(handle.id)
    assert again is not None and again.signal == 15
    assert runtime.stop("shop-production-web-r9-0") is None


def test_what_ignores_the_stop_signal_is_killed_after_the_grace(subject: Subject) -> None:
    """After the grace the instance is ended by SIGKILL."""
    runtime = subject.again()
    handle = runtime.start(subject.placement("stubborn"))
    if not isinstance(runtime, FakeRuntime):
        next(line for line in runtime.logs(handle.id, follow=True) if line.text == "deaf")
    exit = runtime.stop(handle.id, grace=timedelta(milliseconds=100))
    assert exit is not None and exit.signal == 9


def test_an_ended_instance_is_started_again(subject: Subject) -> None:
    """Start of an instance that has ended runs it again under a new handle, and its log goes on."""
    runtime = subject.again()
    first = runtime.start(subject.placement("print", "one"))
    runtime.wait(first.id, SOON)
    second = runtime.start(subject.placement("print", "one"))
    runtime.wait(first.id, SOON)
    assert second != first
    assert _lines(runtime, first.id) == ["one", "one"]


def test_a_one_off_is_not_run_twice(subject: Subject) -> None:
    """With `once`, start of what has ended returns the old handle, also after a restart of the control plane."""
    runtime = subject.again()
    first = runtime.start(subject.placement("print", "migrated", once=True))
    runtime.wait(first.id, SOON)
    assert runtime.start(subject.placement("print", "migrated", once=True)) == first
    assert subject.again().start(subject.placement("print", "migrated", once=True)) == first
    assert _lines(runtime, first.id) == ["migrated"]


def test_another_runtime_over_the_same_home_finds_what_runs(subject: Subject) -> None:
    """After a restart the instance is found, is not started twice, and can be stopped."""
    handle = subject.again().start(subject.placement("run"))
    later = subject.again()
    (seen,) = later.observe()
    assert (seen.handle, seen.state) == (handle, "running")
    assert later.start(subject.placement("run")) == handle
    assert later.stop(handle.id) is not None
    assert [seen.state for seen in later.observe()] == ["exited"]


def test_forget_removes_the_instance_but_not_its_log(subject: Subject) -> None:
    """A forgotten instance is observed no more; its log can still be read; forgetting twice is success."""
    runtime = subject.again()
    handle = runtime.start(subject.placement("print", "last words"))
    runtime.wait(handle.id, SOON)
    runtime.forget(handle.id)
    runtime.forget(handle.id)
    assert runtime.observe() == []
    assert _lines(runtime, handle.id) == ["last words"]


def test_what_runs_is_not_forgotten(subject: Subject) -> None:
    """Forget of a running instance raises and removes nothing."""
    runtime = subject.again()
    handle = runtime.start(subject.placement("run"))
    with pytest.raises(InstanceRunning):
        runtime.forget(handle.id)
    assert [seen.state for seen in runtime.observe()] == ["running"]


def test_the_tail_of_the_log_is_the_last_lines(subject: Subject) -> None:
    """Tail gives so many lines from the end, in order."""
    runtime = subject.again()
    handle = runtime.start(subject.placement("print", "1", "2", "3"))
    runtime.wait(handle.id, SOON)
    assert [line.text for line in runtime.logs(handle.id, tail=2)] == ["2", "3"]
    assert list(runtime.logs(handle.id, tail=0)) == []
    assert list(runtime.logs("shop-production-web-r9-0")) == []


def test_following_the_log_ends_with_the_instance(subject: Subject) -> None:
    """Follow gives every line and returns when the instance has ended."""
    runtime = subject.again()
    handle = runtime.start(subject.placement("print", "a", "b"))
    assert [line.text for line in runtime.logs(handle.id, follow=True)] == ["a", "b"]


def test_following_the_log_ends_when_the_reader_is_stopped(subject: Subject) -> None:
    """A reader that goes away is let go while the instance runs."""
    runtime = subject.again()
    handle = runtime.start(subject.placement("run"))
    gone = threading.Event()
    gone.set()
    assert list(runtime.logs(handle.id, follow=True, stopped=gone.is_set)) == []


def test_instances_are_told_apart(subject: Subject) -> None:
    """Stopping one instance leaves the other running."""
    runtime = subject.again()
    ids = ["shop-production-web-r1-0", "shop-production-web-r1-1"]
    for id in ids:
        runtime.start(subject.placement("run", id=id))
    runtime.stop(ids[0])
    assert {seen.handle.id: seen.state for seen in runtime.observe()} == {ids[0]: "exited", ids[1]: "running"}


def test_missing_capabilities_say_why(subject: Subject) -> None:
    """Each capability that is missing has one sentence of reason, for runtimes that touch the machine."""
    runtime = subject.again()
    if isinstance(runtime, FakeRuntime):
        pytest.skip("the fake lacks what a test asks it to lack")
    capabilities = runtime.capabilities
    missing = {name for name, value in capabilities.model_dump(exclude={"reasons"}).items() if not value}
    assert set(capabilities.reasons) == missing
    assert all(reason and not reason.endswith(".") for reason in capabilities.reasons.values())
