"""Where backups go must be a place of its own, not one beside wherever the control plane was started."""

from __future__ import annotations

from pathlib import Path

import pytest
from doors import open_door


@pytest.mark.parametrize("address", ["0", "backups", "./backups", "../backups", "~/backups"])
def test_a_relative_folder_is_no_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """It is refused before anything is written; an absolute one is taken."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with open_door(tmp_path / "home") as door:
        refused = door.ask("POST", "/api/v1/backup-targets", {"name": "away", "kind": "folder", "address": address})
        assert refused.status == 422 and "absolute" in refused.body["why"]
        assert list((tmp_path / "here").iterdir()) == []
        taken = door.ask("POST", "/api/v1/backup-targets", {"name": "away", "kind": "folder", "address": str(tmp_path / "away")})
        assert taken.status == 201, taken
