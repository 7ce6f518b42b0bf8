"""The deploy, top to bottom. Each verb is one journaled, idempotent step; `steps.py` says how it is done."""

from __future__ import annotations

from homeport.deploys.steps import Deploy
from homeport.model.release import DeployResult


def deploy(do: Deploy) -> DeployResult:
    """Put one revision live, or leave the running release exactly as it was."""
    with do.undone_on_failure():
        if do.is_rollback:
            release = do.recall()
        else:
            source = do.fetch()
            draft = do.plan(source)
            artifacts = do.build(draft)
            release = do.record(draft, artifacts)
            do.begin_with_data(release)
        do.provision(release)
        do.run_release_command(release)
        do.hold_traffic(release)
        do.start(release)
        do.wait_until_healthy(release)
        do.smoke(release)
        do.switch(release)  # the point of no return

    do.retire(release)  # cannot fail the deploy: the reconciler repeats it
    do.run_commands_after(release)
    return do.summary(release)


STEPS = (
    "fetch",
    "plan",
    "build",
    "record",
    "recall",
    "provision",
    "release-command",
    "hold",
    "start",
    "healthy",
    "smoke",
    "switch",
    "retire",
    "summary",
)
"""Every journaled step, in order: the fault suite kills the control plane at each point of each.

`data`, of a new environment that begins with another one's, has a suite of its own beside forks and restores.
"""
