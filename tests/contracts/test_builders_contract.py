"""What every builder keeps to."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from homeport.drivers.builders.base import Builder, BuildLimits, BuildRequest
from homeport.drivers.builders.errors import BuildCancelled, BuildFailed
from homeport.drivers.builders.fake import FakeBuilder
from homeport.drivers.builders.process import ProcessBuilder
from homeport.drivers.sources.local import LocalSource
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.service import Build, BuildFilter, StaticService, WebService

Ask = Callable[..., BuildRequest]


@pytest.fixture(params=["fake", "process"])
def builder(request: pytest.FixtureRequest, tmp_path: Path) -> Builder:
    home = tmp_path / "home"
    if request.param == "fake":
        return FakeBuilder(home)
    return ProcessBuilder(home, Toolchains(home, search=[]), reserve=0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    (folder / "site").mkdir(parents=True)
    (folder / "run.sh").write_text("#!/bin/sh\necho hello\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "site" / "index.html").write_text("<h1>hello</h1>")
    (folder / "notes.md").write_text("notes")
    (folder / "link").symlink_to("run.sh")
    return folder


@pytest.fixture
def ask(tree: Path, tmp_path: Path) -> Ask:
    def make(**given: Any) -> BuildRequest:
        definition = given.pop("definition", None) or WebService(build=Build(builder="command"), command="./run.sh")
        revision, folder = LocalSource(tree, tmp_path / "sources").fetch()
        return BuildRequest(
            project="shop",
            environment="production",
            service="web",
            definition=definition,
            source=folder,
            source_digest=revision.digest,
            limits=BuildLimits(time=timedelta(seconds=30)),
            **given,
        )

    return make


def never() -> bool:
    return False


def test_the_artifact_has_the_source_and_the_key(builder: Builder, ask: Ask) -> None:
    """The artifact's id is the key, and its folder holds the tree with modes and links."""
    request = ask()
    artifact = builder.build(request, lambda _line: None, never)
    assert artifact.id == builder.key(request)
    folder = Path(artifact.folder)
    assert (folder / "run.sh").read_text() == "#!/bin/sh\necho hello\n"
    assert os.access(folder / "run.sh", os.X_OK)
    assert str((folder / "link").readlink()) == "run.sh"


def test_building_again_is_free(builder: Builder, ask: Ask) -> None:
    """The same request again gives the same artifact from the cache, without a line of output."""
    first = builder.build(ask(), lambda _line: None, never)
    lines: list[str] = []
    second = builder.build(ask(), lines.append, never)
    assert (second.id, second.folder, second.cached) == (first.id, first.folder, True)
    assert not first.cached
    assert lines == []


@pytest.mark.parametrize("change", ["content", "mode", "name", "environment", "settings", "user"])
def test_every_input_is_in_the_key(builder: Builder, ask: Ask, tree: Path, change: str) -> None:
    """A change of any input makes another artifact."""
    before = builder.key(ask())
    given: dict[str, Any] = {}
    match change:
        case "content":
            (tree / "run.sh").write_text("#!/bin/sh\necho other\n")
        case "mode":
            (tree / "notes.md").chmod(0o755)
        case "name":
            (tree / "notes.md").rename(tree / "other.md")
        case "environment":
            given = {"env": {"A": "1"}}
        case "settings":
            given = {"definition": WebService(build=Build(builder="command", command="true"), command="./run.sh")}
        case _:
            given = {"user": 12345}
    assert builder.key(ask(**given)) != before


def test_a_change_outside_the_filter_builds_nothing(builder: Builder, ask: Ask, tree: Path) -> None:
    """Files that the build filter leaves out do not make a new artifact."""
    definition = WebService(build=Build(builder="command"), command="./run.sh", build_filter=BuildFilter(ignored_paths=("*.md",)))
    first = builder.build(ask(definition=definition), lambda _line: None, never)
    (tree / "notes.md").write_text("other notes")
    assert builder.build(ask(definition=definition), lambda _line: None, never).cached
    (tree / "run.sh").write_text("#!/bin/sh\n")
    assert builder.build(ask(definition=definition), lambda _line: None, never).id != first.id


def test_a_change_outside_the_root_builds_nothing(builder: Builder, ask: Ask, tree: Path) -> None:
    """A service in a folder is not rebuilt by what happens beside it."""
    definition = StaticService(root="site", build=Build(runtime="static"))
    builder.build(ask(definition=definition), lambda _line: None, never)
    (tree / "notes.md").write_text("other notes")
    assert builder.build(ask(definition=definition), lambda _line: None, never).cached


def test_a_static_artifact_is_the_published_folder(builder: Builder, ask: Ask) -> None:
    """A static service's artifact holds the published files and nothing else."""
    artifact = builder.build(ask(definition=StaticService(publish="site")), lambda _line: None, never)
    assert artifact.kind == "static"
    assert [path.name for path in (Path(artifact.folder) / artifact.publish).iterdir()] == ["index.html"]


def test_the_source_is_never_written_to(builder: Builder, ask: Ask) -> None:
    """The snapshot is as before, and its files stay read-only."""
    request = ask()
    before = sorted((str(path), path.lstat().st_mode, path.lstat().st_size) for path in request.source.rglob("*"))
    builder.build(request, lambda _line: None, never)
    assert before == sorted((str(path), path.lstat().st_mode, path.lstat().st_size) for path in request.source.rglob("*"))


def test_a_cancelled_build_says_so(builder: Builder, ask: Ask) -> None:
    """A build that is cancelled before it begins, or while it runs, ends as cancelled and leaves nothing that counts."""
    definition = WebService(build=Build(builder="command", command="sleep 30"), command="./run.sh")
    with pytest.raises(BuildCancelled):
        builder.build(ask(definition=definition), lambda _line: None, lambda: True)


def test_two_at_once_build_once(builder: Builder, ask: Ask) -> None:
    """The same request from several threads gives one artifact, built once."""
    request = ask(definition=WebService(build=Build(builder="command", command="sh -c 'date +%N > made'"), command="./run.sh"))
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(builder.build(request, lambda _line: None, never))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({artifact.folder for artifact in found}) == 1
    assert sum(not artifact.cached for artifact in found) == 1


def test_a_fake_can_be_told_to_fail(ask: Ask, tmp_path: Path) -> None:
    """The fake fails like a real one when asked to."""
    fake = FakeBuilder(tmp_path / "fake")
    fake.fail["web"] = "the compiler found an error"
    with pytest.raises(BuildFailed) as caught:
        fake.build(ask(), lambda _line: None)
    assert caught.value.tail
