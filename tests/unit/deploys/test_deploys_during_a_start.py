"""A deploy that begins while a control plane is still starting: what it has started is not taken for a remainder."""

from __future__ import annotations

from pathlib import Path

import pytest
from doors import fake_platform, go_live

from homeport.deploys.supervisor import Supervisor
from homeport.store.instances import InstanceRow

SPEC = {"services": {"job": {"kind": "worker", "command": "sleep 1"}}}


def candidate(number: int) -> InstanceRow:
    id = f"shop-production-job-r{number}-0"
    return InstanceRow(id, "shop", "production", "job", number, 0, "candidate", "", 0, "starting", 0, 0, "", None, None)


@pytest.mark.parametrize("deploying", [True, False])
def test_candidates_of_an_open_deploy_stay(tmp_path: Path, deploying: bool) -> None:
    """Those of a deploy that waits or runs stay; those that no deploy is about go."""
    platform = fake_platform(tmp_path / "home")
    try:
        go_live(platform, SPEC)
        row = platform.store.environments.get("shop", "production")
        assert row is not None
        platform.store.environments.change("shop", "production", scale={"job": 0})
        if deploying:
            platform.store.deploys.queue(id="d1", project="shop", environment="production", kind="deploy", request={}, actor="test")
        platform.store.instances.add([candidate(2)])
        supervisor = Supervisor(platform)
        current = platform.store.environments.get("shop", "production")
        assert current is not None
        supervisor.ensure(current)
        left = [found.id for found in platform.store.instances.list("shop", "production") if found.role == "candidate"]
        assert left == (["shop-production-job-r2-0"] if deploying else [])
    finally:
        platform.store.close()
