"""Files on disk: durable writes, copies, locks and frozen trees."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from homeport.drivers.files import (
    copy_tree,
    freeze,
    is_digest,
    locked,
    prune_digests,
    remove_tree,
    world_reachable,
    write_atomic,
    write_changed,
)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is replaced whole or not at all, and no part is left behind."""
    target = tmp_path / "a"
    write_atomic(target, b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert target.read_bytes() == b"old"


def test_a_file_that_says_the_same_is_not_written_again(tmp_path: Path) -> None:
    """A file is replaced only when its text is another one, and only its owner reads it."""
    target = tmp_path / "a"
    assert write_changed(target, "old", None)
    first = target.stat()
    assert not write_changed(target, "old", None)
    assert (target.stat().st_ino, stat.S_IMODE(first.st_mode)) == (first.st_ino, 0o600)
    assert write_changed(target, "new", None)
    assert target.read_text() == "new"


def test_a_file_that_was_written_and_not_given_away_is_given_away_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever ended between writing and giving away leaves a file that its reader gets the next time."""
    given: list[tuple[Path, int, int]] = []
    monkeypatch.setattr(os, "chown", lambda path, user, group: given.append((path, user, group)))
    target, reader = tmp_path / "a", os.geteuid() + 1
    write_changed(target, "text", None)
    assert not write_changed(target, "text", reader)
    assert given == [(target, reader, reader)]


@pytest.mark.parametrize("link", [True, False])
def test_a_tree_is_copied_with_modes_and_links(tmp_path: Path, link: bool) -> None:
    """Folders, modes and links arrive as they are; links are not followed."""
    source = tmp_path / "a"
    (source / "d").mkdir(parents=True)
    (source / "d" / "x").write_text("1")
    (source / "d" / "x").chmod(0o555)
    (source / "l").symlink_to("/etc/passwd")
    copy_tree(source, tmp_path / "b", link=link)
    assert (tmp_path / "b" / "d" / "x").stat().st_mode & 0o555 == 0o555
    assert str((tmp_path / "b" / "l").readlink()) == "/etc/passwd"
    assert ((tmp_path / "b" / "d" / "x").stat().st_ino == (source / "d" / "x").stat().st_ino) is link


def test_freezing_takes_every_right_to_write(tmp_path: Path) -> None:
    """Files become read-only, set-uid bits go, pipes are removed, the target of a link is not touched."""
    outside = tmp_path / "outside"
    outside.write_text("x")
    tree = tmp_path / "t"
    tree.mkdir(mode=0o700)
    (tree / "s").write_text("abc")
    (tree / "s").chmod(0o6777)
    (tree / "l").symlink_to(outside)
    os.mkfifo(tree / "p")
    assert freeze(tree) == 3
    assert (tree / "s").stat().st_mode & 0o7777 == 0o555
    assert not (tree / "p").exists()
    assert outside.stat().st_mode & 0o200
    remove_tree(tree)
    assert not tree.exists()


def test_read_only_folders_can_be_removed(tmp_path: Path) -> None:
    """What a package manager made unwritable still goes away; twice is no error."""
    (tmp_path / "t" / "d").mkdir(parents=True)
    (tmp_path / "t" / "d" / "f").touch()
    (tmp_path / "t" / "d").chmod(0o500)
    remove_tree(tmp_path / "t")
    remove_tree(tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_removing_a_tree_leaves_the_folder_above_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody still writes into the tree, its last step fails once; the folder that holds it stays open to others all the same."""
    above = tmp_path / "addon"
    tree = above / "data.part"
    tree.mkdir(parents=True)
    above.chmod(0o711)
    real = os.rmdir
    refused: list[str] = []

    def busy(path: str, **more: int) -> None:
        if not refused:
            refused.append(path)
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        real(path, **more)

    monkeypatch.setattr(os, "rmdir", busy)
    remove_tree(tree)
    assert refused
    assert not tree.exists()
    assert stat.S_IMODE(above.stat().st_mode) == 0o711


def test_a_lock_excludes_threads(tmp_path: Path) -> None:
    """One at a time, also when the file is removed by a holder meanwhile."""
    inside, most = 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with locked(tmp_path / "l"):
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1
                (tmp_path / "l").unlink(missing_ok=True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


HOLDER = """
import sys
from pathlib import Path
from homeport.drivers.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_excludes_processes_and_dies_with_its_holder(tmp_path: Path) -> None:
    """The kernel frees the lock of a killed process; a cancelled waiter gets away."""
    lock = tmp_path / "l"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        asked = iter([False, True])
        with pytest.raises(InterruptedError), locked(lock, lambda: next(asked)):
            pass
        holder.kill()
    with locked(lock) as free:
        assert free


def test_pruning_touches_nothing_but_digests(tmp_path: Path) -> None:
    """Only folders named by a digest, unused and not kept, are removed."""
    names = ["a" * 64, "b" * 64, "c" * 63, ".hidden", "G" * 64]
    for name in names:
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1, 1))
    assert prune_digests(tmp_path, {"a" * 64}, timedelta(hours=1)) == ["b" * 64]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a" * 64, "c" * 63, ".hidden", "G" * 64])
    assert is_digest("0" * 64)


def test_a_closed_folder_above_makes_a_file_unreachable() -> None:
    """Whether others can get to a file depends on every folder above it."""
    assert world_reachable(Path("/bin/sh"))
    assert not world_reachable(Path("/no/such/file"))


def test_two_remove_one_tree(tmp_path: Path) -> None:
    """Who removes what somebody else removes at the same moment succeeds."""
    for attempt in range(20):
        tree = tmp_path / str(attempt)
        for number in range(30):
            (tree / f"a{number}" / "b").mkdir(parents=True)
            (tree / f"a{number}" / "b" / "c").touch()
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(remove_tree, tree) for _ in range(4)]:
                done.result()
        assert not tree.exists()
