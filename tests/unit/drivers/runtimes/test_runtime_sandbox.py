"""What an instance is shown of the file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeport.drivers.runtimes.base import Mount, Placement, StartRefused
from homeport.drivers.runtimes.sandbox import check_mounts, hosts_file, links, point_at_folders, traversable, view
from homeport.model.release import Artifact
from homeport.model.service import Disk


def _placement(*mounts: Mount, **given: object) -> Placement:
    return Placement.model_validate(
        {
            "id": "i",
            "project": "p",
            "environment": "e",
            "service": "web",
            "release": "r1",
            "artifact": Artifact(id="a", folder="/nowhere"),
            "command": "x",
            "mounts": mounts,
            **given,
        }
    )


def _mount(path: str, folder: str = "/vol/d", **given: object) -> Mount:
    return Mount(disk=Disk.model_validate({"mount_path": path, **given}), folder=Path(folder))


@pytest.mark.parametrize("path", ["/", "/proc", "/dev/", "//sys", "/sys/fs/x", "/a/../etc", "../x"])
def test_mount_paths_that_the_system_needs_are_refused(path: str) -> None:
    """A disk over the root, /proc, /sys or /dev, or one that climbs, is refused before anything starts."""
    with pytest.raises(StartRefused, match="mount path"):
        check_mounts(_placement(_mount(path)))


def test_the_home_is_covered_and_only_what_is_needed_is_let_through(tmp_path: Path) -> None:
    """The cover comes before the folders that are shown, the artifact read-only, and it is sealed last."""
    home, other = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home / "artifacts/a", home / "instances/i/work", other):
        folder.mkdir(parents=True)
    operations = view(_placement(), home=home, instance=home / "instances/i", needed=[home / "artifacts/a", other], user=None)
    cover, shown, work = (
        operations.index(found)
        for found in (
            ("tmpfs", "", str(home), "mode=755,size=1m"),
            ("bind", str(home / "artifacts/a"), str(home / "artifacts/a"), "ro"),
            ("bind", str(home / "instances/i/work"), str(home / "instances/i/work"), ""),
        )
    )
    assert cover < shown < work
    assert ("bind", str(other), str(other), "ro") in operations, "what /tmp would hide is shown as well"
    assert operations[-1] == ("seal", "", str(home), "")


def test_a_closed_folder_above_the_home_is_replaced(tmp_path: Path) -> None:
    """Where the account may not pass through a parent of the home, the parent is covered in its place."""
    closed = Path("/root")
    if not closed.is_dir() or traversable(closed, 20_001):
        pytest.skip("/root can be passed through here")
    home = closed / ".homeport-test"
    operations = view(_placement(), home=home, instance=home / "instances/i", needed=[], user=20_001)
    assert ("tmpfs", "", "/root", "mode=755,size=1m") in operations
    assert not any(operation[2] == str(home) for operation in operations)


def test_disks_come_last_and_their_parents_are_rebuilt_first(tmp_path: Path) -> None:
    """A mount path that does not exist makes its nearest existing parent to be rebuilt; nothing is made on the host."""
    mounts = (_mount("/var/lib/no-such-folder/data", read_only=True), _mount("/no-such-top", kind="tmpfs", size=1024))
    operations = view(_placement(*mounts), home=tmp_path, instance=tmp_path / "instances/i", needed=[], user=None)
    assert ("spread", "/var/lib", "/var/lib", "") in operations
    assert ("bind", "/vol/d", "/var/lib/no-such-folder/data", "ro") in operations
    assert ("tmpfs", "", "/no-such-top", "mode=1777,size=1024") in operations
    assert not Path("/no-such-top").exists()


def test_disks_below_another_platforms_source_folder_are_linked_into_the_work_folder() -> None:
    """`/app/data` is also `data` of the source; a relative mount path is only that."""
    placement = _placement(_mount("/opt/render/project/src/storage", "/v/1"), _mount("uploads", "/v/2"), _mount("/data", "/v/3"))
    assert links(placement, mounted=True) == {"storage": "/opt/render/project/src/storage", "uploads": "/v/2"}
    assert links(placement, mounted=False)["storage"] == "/v/1"


def test_without_mounts_variables_point_at_the_real_folder() -> None:
    """Values that begin with a mount path, also behind a scheme, are rewritten; others that contain it are not."""
    placement = _placement(_mount("/data", "/v/1"), _mount("/data/deep", "/v/2"))
    env = {"A": "/data", "B": "/data/x", "C": "sqlite:////data/app.db", "D": "/database", "E": "x /data", "F": "/data/deep/y"}
    assert point_at_folders(env, placement) == {
        "A": "/v/1",
        "B": "/v/1/x",
        "C": "sqlite:////v/1/app.db",
        "D": "/database",
        "E": "x /data",
        "F": "/v/2/y",
    }


def test_names_of_the_instance_come_first_in_its_hosts_file() -> None:
    """The first match wins, so the environment's own names precede the machine's."""
    text = hosts_file(_placement(hosts={"db": "127.0.0.1", "api": "127.0.0.2"}), "10.0.0.1 db\n")
    assert text.splitlines() == ["127.0.0.1\tlocalhost", "::1\tlocalhost", "127.0.0.2\tapi", "127.0.0.1\tdb", "10.0.0.1 db"]
