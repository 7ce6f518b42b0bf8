"""What an instance of the process runtime finds when it starts."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from homeport.drivers.runtimes.base import Mount, Placement, StartRefused
from homeport.drivers.runtimes.process import ProcessRuntime
from homeport.model.release import Artifact
from homeport.model.service import Disk

ROOT = os.geteuid() == 0
SOON = timedelta(seconds=10)
REPOSITORY = Path(__file__).resolve().parents[4]


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[ProcessRuntime]:
    (tmp_path / "home").mkdir()
    runtime = ProcessRuntime(tmp_path / "home")
    yield runtime
    for seen in runtime.observe():
        runtime.stop(seen.handle.id, grace=timedelta(0))
        runtime.forget(seen.handle.id)
    runtime.close()


def _placement(runtime: ProcessRuntime, command: tuple[str, ...] | str, **given: object) -> Placement:
    folder = runtime.home / "artifacts" / "a"
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, object] = {
        "id": "i",
        "project": "p",
        "environment": "e",
        "service": "web",
        "release": "r1",
        "artifact": Artifact(id="a", folder=str(folder), path=(str(Path(sys.prefix) / "bin"),)),
        "command": command,
        "user": 20_001 if ROOT else None,
        **given,
    }
    return Placement.model_validate(values)


def _run(runtime: ProcessRuntime, placement: Placement) -> list[str]:
    runtime.start(placement)
    return [line.text for line in runtime.logs("i", follow=True)]


def test_the_environment_is_what_the_placement_says(runtime: ProcessRuntime) -> None:
    """Nothing is inherited; only PATH and HOME are filled in, and the placement's own win."""
    os.environ["HOMEPORT_CANARY"] = "x"
    lines = _run(runtime, _placement(runtime, ("env",), env={"A": "1", "HOME": "/nowhere"}))
    names = {line.split("=")[0] for line in lines}
    assert names - {"TMPDIR"} == {"A", "HOME", "PATH"} and "HOME=/nowhere" in lines


def test_no_descriptor_but_the_standard_three_is_open(runtime: ProcessRuntime) -> None:
    """Files of the control plane, inheritable ones included, do not reach the instance."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        # ls itself opens the folder it lists
        assert _run(runtime, _placement(runtime, ("ls", "/proc/self/fd"))) == ["0", "1", "2", "3"]
    finally:
        os.close(reader)
        os.close(writer)


def test_the_work_folder_is_a_private_writable_copy(runtime: ProcessRuntime) -> None:
    """Source is copied, dependencies are links, modes and links are kept, and the artifact stays as it was."""
    placement = _placement(runtime, "sh run.sh")
    source = Path(placement.artifact.folder)
    (source / "node_modules" / "x").mkdir(parents=True)
    (source / "sub").mkdir()
    (source / "run.sh").write_text("echo changed > sub/file; cat sub/file; readlink node_modules link; test -x tool && echo runs; pwd\n")
    (source / "sub" / "file").write_text("original")
    (source / "tool").write_text("x")
    (source / "tool").chmod(0o555)
    (source / "link").symlink_to("sub/file")
    placement = placement.model_copy(update={"artifact": placement.artifact.model_copy(update={"linked": ("node_modules",)})})
    work = str(runtime.home / "instances" / "i" / "work")
    assert _run(runtime, placement) == ["changed", str(source / "node_modules"), "sub/file", "runs", work]
    assert (source / "sub" / "file").read_text() == "original"


def test_a_disk_is_found_at_its_mount_path_and_outlives_the_instance(runtime: ProcessRuntime) -> None:
    """What is written to the disk is there for the next instance, also under another platform's source folder."""
    folder = runtime.home / "volumes" / "p-e-data"
    mounts = (Mount(disk=Disk(mount_path="/opt/render/project/src/storage"), folder=folder),)
    script = 'echo one >> "$DISK/file"; cat storage/file'
    placement = _placement(runtime, script, mounts=mounts, env={"DISK": "/opt/render/project/src/storage"})
    assert _run(runtime, placement) == ["one"]
    runtime.forget("i")
    assert _run(runtime, placement) == ["one", "one", "one"], "the log was kept as well"
    assert (folder / "file").read_text() == "one\none\n"


def test_names_of_other_services_resolve(runtime: ProcessRuntime) -> None:
    """`/etc/hosts` of the instance has the names of its environment."""
    if not runtime.capabilities.names:
        pytest.skip(runtime.capabilities.reasons["names"])
    assert _run(runtime, _placement(runtime, ("getent", "hosts", "db-7"), hosts={"db-7": "127.0.0.9"}))[0].split() == ["127.0.0.9", "db-7"]


def test_a_read_only_disk_cannot_be_written_to(runtime: ProcessRuntime) -> None:
    """A disk that is read-only is mounted so."""
    if not runtime.capabilities.mounts:
        pytest.skip(runtime.capabilities.reasons["mounts"])
    mounts = (Mount(disk=Disk(mount_path="/data", read_only=True), folder=runtime.home / "volumes" / "d"),)
    (line,) = _run(runtime, _placement(runtime, "touch /data/x && echo written", mounts=mounts))
    assert "Read-only file system" in line


@pytest.mark.parametrize(
    ("prepare", "command", "why"),
    [
        ("", "no-such-program", "not in the artifact nor on PATH"),
        ("script", "./script", "not executable"),
        ("", ("env", "x" * 3_000_000), "larger than the kernel takes"),
    ],
)
def test_a_refused_start_says_why(runtime: ProcessRuntime, prepare: str, command: tuple[str, ...] | str, why: str) -> None:
    """The reason names what is wrong, and no folder is left."""
    placement = _placement(runtime, command)
    if prepare:
        (Path(placement.artifact.folder) / prepare).write_text("#!/bin/sh\n")
    with pytest.raises(StartRefused, match=why):
        runtime.start(placement)
    assert not list((runtime.home / "instances").iterdir())


def test_a_root_folder_that_is_not_there_is_named(runtime: ProcessRuntime) -> None:
    """A service whose root is missing is refused with that reason."""
    placement = _placement(runtime, "true")
    placement = placement.model_copy(update={"artifact": placement.artifact.model_copy(update={"root": "backend"})})
    with pytest.raises(StartRefused, match="backend is not part of the built source"):
        runtime.start(placement)


def test_input_is_fed_and_output_comes_as_it_is_written(runtime: ProcessRuntime) -> None:
    """A conversation works without line ends, and the end of input reaches the program."""
    script = (
        "import sys; sys.stdout.write('name? '); sys.stdout.flush(); "
        "print('hello', sys.stdin.readline().strip()); print(len(sys.stdin.read()))"
    )
    runtime.start(_placement(runtime, ("python3", "-I", "-c", script), stdin=True))
    seen = b""
    fed = False
    for piece in runtime.output("i"):
        seen += piece.data
        if seen.endswith(b"name? ") and not fed:
            fed = True
            assert runtime.feed("i", b"world\n") and runtime.feed("i", b"x" * 300_000)
            runtime.close_input("i")
    assert seen == b"name? hello world\n300000\n"
    assert not runtime.feed("i", b"late")


def test_a_command_runs_inside_the_instance(runtime: ProcessRuntime) -> None:
    """It has the instance's environment, folder, account and files, and its exit code and output are told."""
    mounts = (Mount(disk=Disk(mount_path="/data"), folder=runtime.home / "volumes" / "d"),)
    runtime.start(_placement(runtime, ("sleep", "60"), env={"A": "from the instance", "D": "/data"}, mounts=mounts))
    done = runtime.execute("i", 'echo "$A"; pwd; id -u; touch $D/made; exit 3', timeout=SOON)
    assert done.code == 3
    user = 20_001 if ROOT else os.geteuid()
    assert done.output.splitlines() == ["from the instance", str(runtime.home / "instances/i/work"), str(user)]
    assert (runtime.home / "volumes/d/made").exists()


def test_a_command_that_takes_too_long_is_ended(runtime: ProcessRuntime) -> None:
    """After the timeout it and what it started are gone; what it wrote is told."""
    runtime.start(_placement(runtime, ("sleep", "60")))
    done = runtime.execute("i", "echo begun; sleep 60 & sleep 60", timeout=timedelta(milliseconds=300))
    assert (done.code, done.output) == (None, "begun\n")
    deadline = time.monotonic() + 5
    while runtime.observe()[0].processes > 1:
        assert time.monotonic() < deadline, "what the command started is left"
        time.sleep(0.01)
    runtime.stop("i")
    with pytest.raises(StartRefused, match="does not run"):
        runtime.execute("i", "true", timeout=SOON)


def test_a_program_gets_its_stop_signal_and_its_grace(runtime: ProcessRuntime) -> None:
    """The main process is asked first and may finish its work with its helpers still there."""
    helper = "import time; time.sleep(60)"
    main = (
        "import signal, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-I', '-S', '-c', {helper!r}])\n"
        "def end(*_):\n    print('helper', child.poll(), flush=True); sys.exit(7)\n"
        "signal.signal(signal.SIGINT, end); print('ready', flush=True); time.sleep(60)\n"
    )
    runtime.start(_placement(runtime, ("python3", "-I", "-S", "-c", main), stop_signal="SIGINT"))
    next(line for line in runtime.logs("i", follow=True) if line.text == "ready")
    exit = runtime.stop("i")
    assert exit is not None and exit.code == 7
    assert [line.text for line in runtime.logs("i")][:2] == ["ready", "helper None"]


def test_a_shell_in_front_does_not_keep_the_signal_to_itself(runtime: ProcessRuntime) -> None:
    """Behind a list of shell commands the real program is asked too."""
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: (print('asked', flush=True), sys.exit(0))); "
        "print('ready', flush=True); time.sleep(60)"
    )
    placement = _placement(runtime, f'true && python3 -I -S -c "{code}" && true')
    runtime.start(placement)
    next(line for line in runtime.logs("i", follow=True) if line.text == "ready")
    runtime.stop("i")
    assert "asked" in [line.text for line in runtime.logs("i")]


def test_secrets_are_neither_on_disk_nor_in_argument_lists(runtime: ProcessRuntime) -> None:
    """Values of the environment appear in no file of the instance and in no command line."""
    seen: list[bytes] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.append(path.read_bytes())
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    runtime.start(_placement(runtime, ("sleep", "60"), env={"API_KEY": "canary-7319"}))
    done.set()
    watcher.join()
    assert not any(b"canary-7319" in line for line in seen)
    files = [path for path in (runtime.home / "instances").rglob("*") if path.is_file()]
    assert files and not any(b"canary-7319" in path.read_bytes() for path in files)


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="becoming another account needs root")
def test_the_contract_holds_for_an_ordinary_user(runtime: ProcessRuntime) -> None:
    """The contract suite of the process runtime passes when an account without rights runs it."""
    if REPOSITORY.parent.stat().st_mode & 0o005 != 0o005 or REPOSITORY.is_relative_to("/tmp"):
        pytest.skip("the repository lies where an instance cannot read it")
    command = (
        "python3",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "process",
        str(REPOSITORY / "tests/contracts/test_runtimes.py"),
    )
    env = {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    runtime.start(_placement(runtime, command, env=env))
    exit = runtime.wait("i", timedelta(seconds=90))
    assert exit is not None and exit.code == 0, "\n".join(line.text for line in runtime.logs("i", tail=40))
