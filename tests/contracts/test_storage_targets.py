"""What every backup target promises: a folder, and rclone (over its local backend)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from rooms import toolchains

from homeport.drivers.storage.base import ObjectMissing, Storage, StorageFailed, Target
from homeport.drivers.storage.opening import open_target

pytestmark = pytest.mark.xdist_group("storage")


@pytest.fixture(params=["folder", "rclone"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    shelf = tmp_path / "shelf"
    if request.param == "folder":
        target = Target(name="shelf", kind="folder", address=str(shelf))
    else:
        target = Target(name="shelf", kind="rclone", address=f"disk:{shelf}", config="[disk]\ntype = local\n")
    yield open_target(target, tmp_path / "configs", toolchains())
    config = tmp_path / "configs" / "shelf.rclone.conf"
    assert not config.exists() or stat.S_IMODE(config.stat().st_mode) == 0o600


def test_objects_come_back_as_they_were(storage: Storage, tmp_path: Path) -> None:
    """Put, list, fetch, replace and remove; the same twice is the same once, and what is gone is told."""
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(100_000))
    assert storage.list("a") == {}
    storage.put("a/b/one.parcel", source)
    storage.put("a/b/one.parcel", source)
    storage.put("a/two+3.x", source)
    assert storage.list("a") == {"a/b/one.parcel": 100_000, "a/two+3.x": 100_000}
    assert set(storage.list()) == {"a/b/one.parcel", "a/two+3.x"}
    storage.fetch("a/b/one.parcel", back)
    assert back.read_bytes() == source.read_bytes()
    source.write_bytes(b"changed")
    storage.put("a/two+3.x", source)
    back.unlink()
    storage.fetch("a/two+3.x", back)
    assert back.read_bytes() == b"changed"
    storage.remove("a/two+3.x")
    storage.remove("a/two+3.x")
    assert set(storage.list("a")) == {"a/b/one.parcel"}
    with pytest.raises(ObjectMissing):
        storage.fetch("a/two+3.x", tmp_path / "nothing")


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a//b", "-x", "a/./b", ""])
def test_keys_that_lead_elsewhere_are_refused(storage: Storage, key: str, tmp_path: Path) -> None:
    """No key names anything outside of the target, and none is taken for an option."""
    (tmp_path / "source").write_bytes(b"x")
    with pytest.raises(ValueError, match="not a key"):
        storage.put(key, tmp_path / "source")


def test_a_target_that_is_not_there_is_told_by_name(tmp_path: Path) -> None:
    """A file where the folder should be is a failed target, not a crash."""
    (tmp_path / "file").write_text("")
    for target in (
        Target(name="away", kind="folder", address=str(tmp_path / "file")),
        Target(name="away", kind="rclone", address=f"disk:{tmp_path / 'file'}", config="[disk]\ntype = local\n"),
        Target(name="away", kind="rclone", address="nobody:x", config=""),
    ):
        storage = open_target(target, tmp_path / "configs", toolchains())
        with pytest.raises(StorageFailed, match="away"):
            storage.put("a/b", tmp_path / "file")
