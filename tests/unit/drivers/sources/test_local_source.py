"""Snapshots of folders on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

from homeport.drivers.sources.errors import SourceRefused, SourceUnavailable
from homeport.drivers.sources.local import LocalSource
from homeport.drivers.sources.snapshot import SnapshotStore

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"]


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run([*GIT, "-C", str(folder), *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    (folder / "src").mkdir(parents=True)
    (folder / "main.py").write_text("print(1)\n")
    (folder / "src" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "src" / "run.sh").chmod(0o755)
    (folder / ".gitignore").write_text("*.log\nsecret/\n")
    (folder / "noise.log").write_text("x")
    (folder / "node_modules" / "x").mkdir(parents=True)
    (folder / "node_modules" / "x" / "index.js").write_text("x")
    return folder


@pytest.fixture
def repository(tree: Path) -> Path:
    git(tree, "init", "-q")
    git(tree, "add", "main.py", "src", ".gitignore")
    git(tree, "commit", "-q", "-m", "first; $(touch X)")
    return tree


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir() or p.is_symlink())


def test_a_plain_folder_is_taken_without_what_it_ignores(tree: Path, tmp_path: Path) -> None:
    """A folder that is no repository is taken as .gitignore says, without dependency folders."""
    revision, target = LocalSource(tree, tmp_path / "sources").fetch()
    assert names(target) == [".gitignore", "main.py", "src/run.sh"]
    assert target.name == revision.digest
    assert revision.commit == ""
    assert (target / "src/run.sh").stat().st_mode & 0o777 == 0o555
    assert (target / "main.py").stat().st_mode & 0o777 == 0o444


def test_equal_trees_have_equal_digests(tree: Path, repository: Path, tmp_path: Path) -> None:
    """The digest speaks of paths, modes and contents alone."""
    one, _ = LocalSource(tree, tmp_path / "a").fetch()
    subprocess.run(["cp", "-r", str(tree), str(tmp_path / "copy")], check=True)
    two, _ = LocalSource(tmp_path / "copy", tmp_path / "b").fetch()
    assert one.digest == two.digest
    (tmp_path / "copy" / "src" / "run.sh").chmod(0o644)
    assert LocalSource(tmp_path / "copy", tmp_path / "b").fetch()[0].digest != one.digest


def test_a_repository_is_taken_with_its_facts(repository: Path, tmp_path: Path) -> None:
    """Commit, branch, message and origin are told, the origin without its password."""
    git(repository, "remote", "add", "origin", "https://me:hunter2@example.test/a/b.git")
    revision, _ = LocalSource(repository, tmp_path / "sources").fetch()
    assert revision.commit == git(repository, "rev-parse", "HEAD")
    assert revision.branch == "main"
    assert revision.message == "first; $(touch X)"
    assert revision.origin == "https://example.test/a/b.git"
    assert not revision.dirty


@pytest.mark.parametrize("change", ["edit", "new", "delete", "stage"])
def test_a_changed_work_tree_is_called_dirty(repository: Path, tmp_path: Path, change: str) -> None:
    """An edited, added, deleted or staged file makes the revision dirty."""
    if change == "edit":
        (repository / "main.py").write_text("print(2)\n")
    elif change == "new":
        (repository / "new.py").write_text("x")
    elif change == "delete":
        (repository / "main.py").unlink()
    else:
        git(repository, "rm", "-q", "--cached", "main.py")
    assert LocalSource(repository, tmp_path / "sources").fetch()[0].dirty


def test_a_folder_inside_a_repository_is_taken_alone(repository: Path, tmp_path: Path) -> None:
    """A subfolder of a repository is a source of its own."""
    _, target = LocalSource(repository / "src", tmp_path / "sources").fetch()
    assert names(target) == ["run.sh"]


def test_a_folder_that_its_repository_ignores_is_taken(repository: Path, tmp_path: Path) -> None:
    """A project inside an ignored folder of another repository is still a project."""
    (repository / "secret").mkdir()
    (repository / "secret" / "app.py").write_text("x")
    revision, target = LocalSource(repository / "secret", tmp_path / "sources").fetch()
    assert names(target) == ["app.py"]
    assert revision.commit == ""


def test_a_submodule_is_part_of_the_tree(repository: Path, tmp_path: Path) -> None:
    """Checked-out submodules are taken with the tree around them."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "lib.py").write_text("x")
    git(inner, "init", "-q")
    git(inner, "add", ".")
    git(inner, "commit", "-q", "-m", "inner")
    git(repository, "submodule", "--quiet", "add", str(inner), "vendor")
    _, target = LocalSource(repository, tmp_path / "sources").fetch()
    assert "vendor/lib.py" in names(target)
    assert not any(".git/" in name for name in names(target))


def test_a_reference_takes_a_commit_of_the_folder(repository: Path, tmp_path: Path) -> None:
    """A named commit is taken instead of the work tree."""
    first = git(repository, "rev-parse", "HEAD")
    (repository / "main.py").write_text("print(2)\n")
    git(repository, "commit", "-q", "-am", "second")
    revision, target = LocalSource(repository, tmp_path / "sources").fetch(first)
    assert revision.commit == first
    assert (target / "main.py").read_text() == "print(1)\n"


@pytest.mark.parametrize("link", ["/etc/passwd", "../outside", "src/../../outside", "loop/../../outside"])
def test_a_link_that_leaves_the_tree_is_refused(tree: Path, tmp_path: Path, link: str) -> None:
    """Absolute links and links that climb out stop the snapshot, with the path named."""
    (tmp_path / "outside").write_text("x")
    (tree / "leak").symlink_to(link)
    with pytest.raises(SourceRefused, match="refused") as caught:
        LocalSource(tree, tmp_path / "sources").fetch()
    assert "leak" in caught.value.why


def test_a_link_through_a_link_cannot_leave(tree: Path, tmp_path: Path) -> None:
    """Two harmless-looking links that together lead outside are refused."""
    (tree / "a").mkdir()
    (tree / "a" / "up").symlink_to("..")
    (tree / "b").symlink_to("a/up/../app/main.py")
    with pytest.raises(SourceRefused):
        LocalSource(tree, tmp_path / "sources").fetch()


def test_links_inside_are_kept(tree: Path, tmp_path: Path) -> None:
    """A relative link inside the tree stays a link."""
    (tree / "alias.py").symlink_to("src/../main.py")
    _, target = LocalSource(tree, tmp_path / "sources").fetch()
    assert str((target / "alias.py").readlink()) == "src/../main.py"


def test_sockets_and_pipes_are_not_taken(tree: Path, tmp_path: Path) -> None:
    """Git lists no sockets; a pipe in the tree does not hang the snapshot."""
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tree)
        try:
            server.bind("s.sock")
        finally:
            os.chdir(here)
        _, target = LocalSource(tree, tmp_path / "sources").fetch()
    assert names(target) == [".gitignore", "main.py", "src/run.sh"]


def test_a_device_given_by_name_is_refused(tree: Path, tmp_path: Path) -> None:
    """A pipe that is listed all the same is refused."""
    os.mkfifo(tree / "pipe")
    with pytest.raises(SourceRefused, match="refused"):
        SnapshotStore(tmp_path / "sources").take(tree, ["pipe"], "app")


def test_trees_over_the_caps_are_refused(tree: Path, tmp_path: Path) -> None:
    """Too many files and too many bytes are told apart in the reason."""
    with pytest.raises(SourceRefused) as many:
        SnapshotStore(tmp_path / "a", max_files=1).take(tree, ["main.py", "src/run.sh"], "app")
    assert "2 files" in many.value.why
    with pytest.raises(SourceRefused) as large:
        SnapshotStore(tmp_path / "b", max_bytes=3).take(tree, ["main.py"], "app")
    assert "main.py" in large.value.why


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a\x7f"])
def test_paths_with_control_characters_are_refused(tree: Path, tmp_path: Path, name: str) -> None:
    """A path that could forge a line of a log or a manifest is refused."""
    (tree / name).write_text("x")
    with pytest.raises(SourceRefused):
        LocalSource(tree, tmp_path / "sources").fetch()


def test_a_missing_folder_is_unavailable(tmp_path: Path) -> None:
    """A folder that is not there is said to be unavailable."""
    with pytest.raises(SourceUnavailable):
        LocalSource(tmp_path / "none", tmp_path / "sources").fetch()


def test_the_repositorys_own_programs_do_not_run(repository: Path, tmp_path: Path) -> None:
    """Filters, hooks and file watchers that a repository configures are never started."""
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\ncat\n")
    trap.chmod(0o755)
    for key in ("core.fsmonitor", "filter.x.clean", "filter.x.smudge", "filter.x.process", "core.sshCommand", "gpg.program"):
        git(repository, "config", key, str(trap))
    (repository / ".gitattributes").write_text("* filter=x\n")
    (repository / "main.py").write_text("changed")
    LocalSource(repository, tmp_path / "sources").fetch()
    assert not (tmp_path / "sprung").exists()


def test_unchanged_files_are_shared_between_snapshots_and_never_with_the_user(tree: Path, tmp_path: Path) -> None:
    """A second snapshot links what the first one holds; the user's own file has one name only."""
    store = tmp_path / "sources"
    _, one = LocalSource(tree, store).fetch()
    (tree / "main.py").write_text("print(2)\n")
    _, two = LocalSource(tree, store).fetch()
    assert one != two
    assert (one / "src/run.sh").stat().st_ino == (two / "src/run.sh").stat().st_ino
    assert (tree / "src/run.sh").stat().st_nlink == 1
    assert (one / "main.py").read_text() == "print(1)\n"


def test_a_file_that_keeps_its_size_and_time_is_still_seen_as_changed(tree: Path, tmp_path: Path) -> None:
    """A file rewritten with the same size and modification time is read again."""
    before = LocalSource(tree, tmp_path / "sources").fetch()[0]
    time.sleep(0.15)
    LocalSource(tree, tmp_path / "sources").fetch()
    found = (tree / "main.py").stat()
    (tree / "main.py").write_text("print(9)\n")
    os.utime(tree / "main.py", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert LocalSource(tree, tmp_path / "sources").fetch()[0].digest != before.digest


def test_an_unchanged_tree_of_two_thousand_files_is_known_at_once(tmp_path: Path) -> None:
    """The stat cache makes the second snapshot of 2,000 files take a fraction of the first."""
    tree = tmp_path / "app"
    for folder in range(40):
        (tree / f"d{folder}").mkdir(parents=True)
        for number in range(50):
            (tree / f"d{folder}" / f"{number}.txt").write_text(f"{folder} {number}" * 50)
    source = LocalSource(tree, tmp_path / "sources")
    time.sleep(0.15)
    source.fetch()
    best = 9.0
    for _ in range(5):
        started = time.perf_counter()
        source.fetch()
        best = min(best, time.perf_counter() - started)
    assert best < 0.25  # 0.04 s on an idle machine


def test_old_snapshots_are_pruned(tree: Path, tmp_path: Path) -> None:
    """The last used snapshots stay, and none that was used lately goes."""
    source = LocalSource(tree, tmp_path / "sources")
    taken = []
    for number in range(4):
        (tree / "main.py").write_text(f"print({number})\n")
        taken.append(source.fetch()[1])
    assert source.store.prune(2, timedelta(hours=1)) == []
    for number, folder in enumerate(taken):
        os.utime(folder, (number + 1, number + 1))
    assert sorted(source.store.prune(2, timedelta(hours=1))) == sorted(folder.name for folder in taken[:2])
    assert [folder.is_dir() for folder in taken] == [False, False, True, True]
    assert (tmp_path / "sources" / ".manifests").is_dir()
