"""Control groups against trees of plain files, and against the kernel where we are root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from homeport.drivers.cgroups import Group, Limits, cgroups, probe


def _unified(folder: Path, *controllers: str) -> Path:
    folder.mkdir()
    (folder / "cgroup.controllers").write_text(" ".join(controllers))
    (folder / "cgroup.subtree_control").touch()
    (folder / "homeport").mkdir()
    if controllers:
        (folder / "homeport" / "cgroup.subtree_control").touch()
    else:
        (folder / "cgroup.subtree_control").unlink()
        (folder / "cgroup.subtree_control").mkdir()
    return folder


def test_without_root_there_are_none_and_the_reason_is_told(tmp_path: Path) -> None:
    """An ordinary user gets no groups, and a sentence per controller."""
    found = probe(tmp_path, tmp_path / "own", root=False)
    assert found.version == 0 and found.group("a") is None
    assert set(found.reasons) == {"memory", "cpu", "pids"}


def test_version_2_settings_are_written(tmp_path: Path) -> None:
    """Limits go to the files of version 2; swap is not given on top of memory."""
    found = probe(_unified(tmp_path / "cg", "memory", "cpu", "pids"), tmp_path / "own", root=True)
    group = found.group("home", "web")
    assert found.version == 2 and group is not None
    assert group.joins == (str(tmp_path / "cg/homeport/home/web/cgroup.procs"),)
    folder = tmp_path / "cg/homeport/home/web"
    folder.mkdir(parents=True)
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"):
        (folder / name).touch()
    group.create(Limits(memory=1000, cpu=0.5, pids=7))
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "memory.max": "1000",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "50000 100000",
        "pids.max": "7",
    }


def test_version_2_figures_are_read(tmp_path: Path) -> None:
    """Memory without droppable cache, processor time, and whether the kernel ended something."""
    group = Group(version=2, folders=dict.fromkeys(("memory", "cpu", "pids"), str(tmp_path)))
    assert group.memory() is None and group.cpu_seconds() is None and not group.out_of_memory() and group.pids() == []
    (tmp_path / "memory.current").write_text("5000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 2000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 1500000\n")
    (tmp_path / "memory.events").write_text("oom 2\noom_kill 1\n")
    (tmp_path / "cgroup.procs").write_text("3\n1\n")
    assert (group.memory(), group.cpu_seconds(), group.out_of_memory(), group.pids()) == (3000, 1.5, True, [1, 3])


def test_a_controller_that_is_not_handed_on_is_named(tmp_path: Path) -> None:
    """Groups are still made to find and end processes; the limits are missing with their reason."""
    found = probe(_unified(tmp_path / "cg"), tmp_path / "own", root=True)
    assert found.version == 2 and set(found.bases) == {"kill"} and set(found.reasons) == {"memory", "cpu", "pids"}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")
def test_the_kernel_ends_a_whole_group() -> None:
    """Processes of a group are found and ended, and the group is removed."""
    group = cgroups().group("test", f"group-{os.getpid()}")
    if group is None:
        pytest.skip("there are no control groups here")
    group.create(Limits(pids=10))
    processes = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    for process in processes:
        for file in group.joins:
            Path(file).write_text(str(process.pid))
    assert group.pids() == sorted(process.pid for process in processes)
    group.kill()
    assert [process.wait(30) for process in processes] == [-9, -9, -9]
    assert group.remove() and group.pids() == [] and group.remove()
