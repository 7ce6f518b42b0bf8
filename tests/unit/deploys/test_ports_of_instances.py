"""Which ports instances get, and when they get others."""

from __future__ import annotations

from pathlib import Path

from doors import fake_platform, go_live

SPEC = {"services": {"web": {"kind": "web", "command": "run"}}}


def test_a_port_that_was_given_up_is_not_given_out_again_at_once(tmp_path: Path) -> None:
    """Old workers of the edge may still send its former owner something."""
    platform = fake_platform(tmp_path / "home")
    try:
        release = go_live(platform, SPEC)
        seen = []
        for _ in range(5):
            row = platform.new_row(release, "web", 0, "candidate")
            assert platform.new_row(release, "web", 0, "candidate").port == row.port
            seen.append(row.port)
            platform.store.ledger.release("port", str(row.port))
        assert len(set(seen)) == 5
    finally:
        platform.store.close()


def test_an_instance_gets_another_port_when_its_own_was_taken(tmp_path: Path) -> None:
    """It keeps the new one; a port that was not given to it stays as it is."""
    platform = fake_platform(tmp_path / "home")
    try:
        release = go_live(platform, SPEC)
        row = platform.new_row(release, "web", 0, "candidate")
        platform.store.instances.add([row])
        other = platform.another_port(row)
        assert other is not None and other.port != row.port
        known = platform.store.instances.get(row.id)
        assert known is not None and known.port == other.port == platform.new_row(release, "web", 0, "candidate").port
        assert platform.another_port(row) is None
    finally:
        platform.store.close()
