"""Append-only files are brought to the disk as they grow, whatever lies in their place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from homeport.drivers.addons.valkey.config import Tuning, conf
from homeport.drivers.addons.valkey.syncing import Syncing


def part(home: Path, addon: str, name: str) -> Path:
    file = home / "addons" / addon / "data" / "appendonlydir" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"*1\r\n")
    return file


def test_only_what_grew_is_synced(tmp_path: Path) -> None:
    """Each file is synced once when it is new and once after it grew, and not while nothing is written."""
    first, second = part(tmp_path, "a", "appendonly.aof.1.incr.aof"), part(tmp_path, "b", "appendonly.aof.1.incr.aof")
    syncing = Syncing(tmp_path)
    assert sorted(syncing.look()) == [first, second]
    assert syncing.look() == []
    with first.open("ab") as file:
        file.write(b"more")
    assert syncing.look() == [first]


def test_links_and_pipes_in_its_place_hold_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's folder is its own: a link to elsewhere is not followed, and a pipe is not waited for."""
    real = part(tmp_path, "a", "appendonly.aof.1.incr.aof")
    (real.parent / "link.aof").symlink_to("/etc/passwd")
    os.mkfifo(real.parent / "pipe.aof")
    synced: list[Path] = []
    monkeypatch.setattr(os, "fdatasync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink()))
    Syncing(tmp_path).look()
    assert real in synced
    assert Path("/etc/passwd") not in synced


def test_the_server_writes_before_it_answers() -> None:
    """The server's own sync each second would let it answer before writing; a file that asks for one of the engine's ways has it."""
    assert "\nappendfsync no\n" in conf(Tuning(host="127.0.0.1", port=1, memory=1))
    assert "\nappendfsync always\n" in conf(Tuning(host="127.0.0.1", port=1, memory=1, parameters={"appendfsync": "always"}))
