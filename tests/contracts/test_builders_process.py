"""The process builder: what runs, what is kept, what is refused. No package registry is needed here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from homeport.drivers.builders import tree
from homeport.drivers.builders.base import BuildLimits, BuildRequest
from homeport.drivers.builders.errors import BuildFailed, BuildTimedOut, DiskLow, UnknownLanguage
from homeport.drivers.builders.process import ProcessBuilder
from homeport.drivers.files import remove_tree
from homeport.drivers.sources.local import LocalSource
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.release import Artifact
from homeport.model.service import Build, StaticService, WebService

Make = Callable[..., Artifact]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def builder(home: Path) -> ProcessBuilder:
    return ProcessBuilder(home, Toolchains(home), reserve=0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account can reach; pytest's own is closed when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="homeport-builders-"))
    folder.chmod(0o755)
    yield folder
    remove_tree(folder)


def request_for(
    tree: Path, home: Path, definition: Any, *, seconds: float = 30, env: dict[str, str] | None = None, user: int | None = None
) -> BuildRequest:
    revision, folder = LocalSource(tree, home / "sources").fetch()
    return BuildRequest(
        project="shop",
        environment="production",
        service="web",
        definition=definition,
        source=folder,
        source_digest=revision.digest,
        env=env or {},
        user=user,
        limits=BuildLimits(time=timedelta(seconds=seconds)),
    )


def files(folder: Path, **contents: str) -> Path:
    for name, text in contents.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def command(line: str, **more: Any) -> WebService:
    return WebService(build=Build(builder="command", command=line, **more), command="sh run.sh")


@pytest.fixture
def make(builder: ProcessBuilder, home: Path, tmp_path: Path) -> Make:
    def run(definition: Any, *, lines: list[str] | None = None, **given: Any) -> Artifact:
        log = (lambda _line: None) if lines is None else lines.append
        return builder.build(request_for(tmp_path / "app", home, definition, **given), log)

    return run


def test_steps_run_in_order_and_are_logged(make: Make, tmp_path: Path) -> None:
    """Each part of a build command runs in the service's folder; progress and output are told line by line."""
    files(tmp_path / "app", api__a="1")
    definition = command("sh -c 'echo one > made' && cat made && echo two | tr a-z A-Z > loud; cat loud")
    lines: list[str] = []
    artifact = make(definition.model_copy(update={"root": "api"}), lines=lines)
    assert (Path(artifact.folder) / "api" / "loud").read_text() == "TWO\n"
    assert artifact.root == "api"
    assert [line for line in lines if not line.startswith("building")] == ["one", "TWO"]


def test_what_is_built_is_read_only(make: Make, tmp_path: Path) -> None:
    """After a build no file of the artifact can be written to by others, and set-uid bits are gone."""
    files(tmp_path / "app", a="1")
    artifact = make(command("cp a b && chmod 4777 b && mkdir -m 777 d && cp a d/c"))
    for path in Path(artifact.folder).rglob("*"):
        assert path.stat().st_mode & 0o6022 == 0, path
    assert (Path(artifact.folder) / "b").stat().st_mode & 0o777 == 0o555


def test_the_builds_environment_is_its_own(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build sees its own variables, a home and temporary folder of its own, and nothing of the host's."""
    monkeypatch.setenv("HOMEPORT_API_TOKEN", "hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    files(tmp_path / "app", a="1")
    artifact = make(command("env > env.txt; touch $TMPDIR/x $HOME/y"), env={"GREETING": "two words; $(touch X)\nnext"})
    text = (Path(artifact.folder) / "env.txt").read_text()
    assert "GREETING=two words; $(touch X)\nnext" in text
    assert "hunter2" not in text
    assert "HOMEPORT" not in text
    assert f"HOME={Path.home()}\n" not in text


def test_a_failing_step_shows_the_last_lines(make: Make, home: Path, tmp_path: Path) -> None:
    """The error names the step, its exit code and the last 40 lines; nothing is left that counts."""
    files(tmp_path / "app", a="1")
    with pytest.raises(BuildFailed) as caught:
        make(command("seq 60 && false"))
    assert "`false` ended with exit code 1" in caught.value.why
    assert caught.value.tail == tuple(str(number) for number in range(21, 61))
    assert not list((home / "artifacts").glob("*/app"))


def test_a_build_that_never_ends_is_stopped(make: Make, tmp_path: Path) -> None:
    """The time limit holds for the whole build."""
    files(tmp_path / "app", a="1")
    with pytest.raises(BuildTimedOut):
        make(command("sleep 0.2 && sleep 60"), seconds=0.6)


def test_a_full_disk_refuses_before_anything_starts(home: Path, tmp_path: Path) -> None:
    """Builds leave room for databases."""
    files(tmp_path / "app", a="1")
    builder = ProcessBuilder(home, Toolchains(home, search=[]), reserve=1 << 60)
    with pytest.raises(DiskLow):
        builder.build(request_for(tmp_path / "app", home, command("touch x")), lambda _line: None)


@pytest.mark.parametrize("root", ["../outside", "a/../../b", "missing", "a\nb"])
def test_a_root_outside_the_source_is_refused(make: Make, tmp_path: Path, root: str) -> None:
    """A root folder that climbs out or does not exist is an error, not a folder elsewhere."""
    files(tmp_path / "app", a="1")
    with pytest.raises(UnknownLanguage):
        make(WebService(root=root, build=Build(builder="command", command="true"), command="x"))


@pytest.mark.parametrize("publish", ["../..", "missing", "escape"])
def test_only_a_folder_of_the_site_is_published(make: Make, tmp_path: Path, publish: str) -> None:
    """A publish folder that is not there, or is a link out of the source, is refused."""
    files(tmp_path / "app", index_dot_html="x")
    with pytest.raises((UnknownLanguage, BuildFailed)):
        make(StaticService(publish=publish, build=Build(builder="command", command="ln -s /etc escape")))


def test_links_that_leave_a_site_are_not_served(make: Make, tmp_path: Path) -> None:
    """A build that plants a link to a host file in the site has it removed, and that is noted."""
    files(tmp_path / "app", dist__index_dot_html="x")
    artifact = make(
        StaticService(publish="dist", build=Build(builder="command", command="ln -s /etc/passwd dist/p && ln -s index.html dist/ok"))
    )
    assert sorted(path.name for path in Path(artifact.folder).iterdir()) == ["index.html", "ok"]
    assert any("dist" not in note and "p is a link" in note for note in artifact.notes)


def test_links_inside_a_site_become_what_they_name(make: Make, tmp_path: Path) -> None:
    """The edge follows no links: files and folders are put in their place, circles and dangling links are told."""
    files(tmp_path / "app", dist__index_dot_html="x", dist__a__style_dot_css="y")
    links = ("index.html dist/home.html", "a dist/b", "../index.html dist/a/up.html", ".. dist/a/around", "missing dist/lost", "b dist/c")
    artifact = make(StaticService(publish="dist", build=Build(builder="command", command=" && ".join(f"ln -s {one}" for one in links))))
    site = Path(artifact.folder)
    assert not any(path.is_symlink() for path in site.rglob("*"))
    assert [(site / name).read_text() for name in ("home.html", "a/up.html", "b/style.css", "c/style.css")] == ["x", "x", "y", "y"]
    assert sorted(note.split(" is a link")[0] for note in artifact.notes if "is a link" in note) == ["a/around", "lost"]


def test_links_cannot_blow_a_site_up(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that link to each other's neighbours double with each; beyond the bound they are not served."""
    monkeypatch.setattr(tree, "LINKED", 50)
    files(tmp_path / "app", dist__index_dot_html="x", dist__d0__f="y")
    steps = [f"mkdir dist/d{n} && ln -s ../d{n - 1} dist/d{n}/a && ln -s ../d{n - 1} dist/d{n}/b" for n in range(1, 12)]
    artifact = make(StaticService(publish="dist", build=Build(builder="command", command=" && ".join(steps))))
    assert sum(path.is_file() for path in Path(artifact.folder).rglob("*")) <= 60
    assert any("leads to more files than the 50" in note for note in artifact.notes)


@pytest.mark.parametrize("name", ["x;touch X", "x\ny", "-rf", "$(touch X)", "x y"])
def test_hostile_names_in_manifests_start_nothing(make: Make, tmp_path: Path, name: str) -> None:
    """Strings of package.json and requirements.txt never become commands of ours."""
    app = files(tmp_path / "app", a="1")
    (app / "package.json").write_text(json.dumps({"name": name, "packageManager": name, "engines": {"node": name}}))
    (app / "requirements.txt").write_text("# " + name.replace("\n", " ") + "\n")
    (app / "runtime.txt").write_text(name)
    (app / ".nvmrc").write_text(name)
    try:
        make(WebService(command="x", build=Build(runtime="python", runtime_version=name)))
    except BuildFailed:
        pass
    assert list(tmp_path.rglob("X")) == []


def test_a_python_service_without_requirements_gets_an_environment(make: Make, tmp_path: Path) -> None:
    """The virtual environment's python is first on the artifact's path, and a change of source reuses it."""
    app = files(tmp_path / "app", main_dot_py="print('hello')")
    first = make(WebService(command="python main.py"))
    assert first.runtime.startswith("python 3.")
    env = {**first.env, "PATH": ":".join(first.path) + ":/usr/bin:/bin"}
    found = subprocess.run(
        ["python", "-c", "import sys; print(sys.prefix)"], env=env, capture_output=True, text=True, check=True, timeout=20
    )
    assert found.stdout.strip() == first.env["VIRTUAL_ENV"]
    assert first.linked == (".venv",)
    files(app, main_dot_py="print('bye')")
    second = make(WebService(command="python main.py"))
    assert second.env["VIRTUAL_ENV"] == first.env["VIRTUAL_ENV"]
    assert second.seconds < 20


def test_an_artifact_that_a_crash_left_half_done_is_built_again(builder: ProcessBuilder, make: Make, home: Path, tmp_path: Path) -> None:
    """A folder without artifact.json does not count, whatever is in it."""
    files(tmp_path / "app", a="1")
    key = builder.key(request_for(tmp_path / "app", home, command("cp a b")))
    (home / "artifacts" / key / "app").mkdir(parents=True)
    (home / "artifacts" / key / "app" / "stale").touch()
    artifact = make(command("cp a b"))
    assert artifact.id == key
    assert sorted(path.name for path in Path(artifact.folder).iterdir()) == ["a", "b"]


def test_an_artifact_is_checked_once_after_the_machine_restarted(make: Make, home: Path, tmp_path: Path) -> None:
    """A power cut may lose what was written: the first use after a restart compares the content."""
    files(tmp_path / "app", a="1")
    artifact = make(command("cp a b"))
    record = home / "artifacts" / artifact.id / "artifact.json"
    data = json.loads(record.read_text())
    record.write_text(json.dumps({**data, "boot": "another"}))
    assert make(command("cp a b")).cached
    (Path(artifact.folder) / "b").chmod(0o644)
    (Path(artifact.folder) / "b").write_text("")
    record.write_text(json.dumps({**data, "boot": "another"}))
    assert not make(command("cp a b")).cached
    assert (Path(artifact.folder) / "b").read_text() == "1"


def test_pruning_keeps_what_releases_name_and_their_layers(builder: ProcessBuilder, make: Make, home: Path, tmp_path: Path) -> None:
    """Unused artifacts and layers go, young ones stay, and a kept artifact keeps its layers."""
    app = files(tmp_path / "app", main_dot_py="1")
    kept = make(WebService(command="python main.py"))
    files(app, main_dot_py="2")
    old = make(command("cp main.py b"))
    assert builder.prune({kept.id}, timedelta(hours=1)) == []
    for folder in [*(home / "artifacts").iterdir(), *(home / "layers").iterdir()]:
        os.utime(folder, (1, 1))
    assert builder.prune({kept.id}, timedelta(hours=1)) == [f"artifacts/{old.id}"]
    assert (Path(kept.env["VIRTUAL_ENV"]) / "bin" / "python").exists()
    os.utime(home / "artifacts" / kept.id, (1, 1))
    assert len(builder.prune(set(), timedelta(hours=1))) == 2
    assert not Path(kept.env["VIRTUAL_ENV"]).exists()


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_builders_process import ProcessBuilder, Toolchains, command, request_for
home = Path(sys.argv[1])
builder = ProcessBuilder(home, Toolchains(home, search=[]), reserve=0)
builder.build(request_for(Path(sys.argv[2]), home, command({line!r})), lambda line: print(line, flush=True))
"""


def test_a_builder_that_is_killed_in_the_middle_leaves_no_harm(make: Make, home: Path, tmp_path: Path) -> None:
    """kill -9 in the middle of a build: the lock is free, nothing half-done counts, and the next build is whole."""
    app = files(tmp_path / "app", a="1")
    line = "sh -c 'echo half > b; test -e /proc/$PPID; test -f go || sleep 20'"
    script = KILLED.format(tests=str(Path(__file__).parent), line=line)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", script, str(home), str(app)], stdout=subprocess.PIPE, text=True, env=env)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("building")
        (half,) = (home / "artifacts").glob("*/app")
        deadline = time.monotonic() + 10
        while not (half / "b").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    for left in _processes_in(half):
        os.kill(left, signal.SIGKILL)
    assert not (half.parent / "artifact.json").exists()
    (app / "go").touch()
    assert (Path(make(command(line)).folder) / "b").read_text() == "half\n"


def _processes_in(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink() == folder:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_two_processes_that_build_the_same_build_it_once(home: Path, tmp_path: Path) -> None:
    """The lock holds between processes too."""
    app = files(tmp_path / "app", a="1")
    line = "sh -c 'sleep 0.3; echo x >> /proc/self/cwd/count'"
    script = KILLED.format(tests=str(Path(__file__).parent), line=line)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [
        subprocess.Popen([sys.executable, "-c", script, str(home), str(app)], stdout=subprocess.PIPE, text=True, env=env) for _ in range(2)
    ]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted(bool(output) for output in outputs) == [False, True]


def test_other_builds_do_not_wait(builder: ProcessBuilder, home: Path, tmp_path: Path) -> None:
    """Builds of different keys run side by side."""
    files(tmp_path / "app", a="1")
    request = request_for(tmp_path / "app", home, command("sleep 2"))
    other = request_for(tmp_path / "app", home, command("sleep 2.5"))
    begun = time.monotonic()
    threads = [threading.Thread(target=builder.build, args=(one, lambda _line: None)) for one in (request, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun < 4.4


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another account")
def test_root_builds_as_the_given_account_and_keeps_the_result(open_folder: Path) -> None:
    """As root the build runs as the environment's account, which afterwards cannot change what it built."""
    home = open_folder / "home"
    builder = ProcessBuilder(home, Toolchains(home, search=[]), reserve=0)
    request = request_for(files(open_folder / "app", a="1"), home, command("sh -c 'id -u > who; id -G > groups'"), user=61999)
    artifact = builder.build(request, lambda _line: None)
    assert (Path(artifact.folder) / "who").read_text() == "61999\n"
    assert (Path(artifact.folder) / "groups").read_text() == "61999\n"
    assert {path.stat().st_uid for path in [Path(artifact.folder), *Path(artifact.folder).rglob("*")]} == {0}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another account")
def test_a_home_that_the_account_cannot_reach_is_said_so(make: Make, home: Path, tmp_path: Path) -> None:
    """Rather than failing with a riddle, the build says which folder is closed."""
    files(tmp_path / "app", a="1")
    home.mkdir(exist_ok=True)
    home.chmod(0o700)
    with pytest.raises(BuildFailed) as caught:
        make(command("true"), user=61999)
    assert str(home) in caught.value.why


def test_a_source_only_change_is_built_at_once(make: Make, tmp_path: Path) -> None:
    """With a warm layer a small service is built in a fraction of a second."""
    app = files(tmp_path / "app", main_dot_py="1")
    make(WebService(command="python main.py"))
    best = 9.0
    for number in range(5):
        files(app, main_dot_py=f"print({number})")
        best = min(best, make(WebService(command="python main.py")).seconds)
    assert best < 0.1
