"""Commands that run to their end in a service's surroundings: release commands, one-offs."""

from __future__ import annotations

import re
from datetime import timedelta

from homeport.deploys.candidates import last_lines
from homeport.deploys.platform import Platform
from homeport.deploys.progress import ProgressLog
from homeport.drivers.runtimes.base import Exit
from homeport.model.addon import Postgres
from homeport.model.errors import HomeportError
from homeport.model.release import Release
from homeport.model.service import Hook

RELEASE_TIME = timedelta(minutes=30)

AGAIN = "-again"
_NO_EXTENSION = re.compile(r'extension "([\w-]+)" is not available|extension control file ".*/([\w-]+)\.control"')


class CommandFailed(HomeportError):
    """A release command ended badly; nothing was switched."""

    code = "release-command-failed"


def run_once(platform: Platform, release: Release, service: str, hook: Hook, key: str, progress: ProgressLog) -> None:
    """Run a hook and wait for its end. One that runs already (the control plane was away) is waited for, not started again.

    Raises CommandFailed with its last lines.
    """
    limit = hook.timeout or RELEASE_TIME
    ended, lines = _attempt(platform, release, service, hook, _id(release, service, key), limit)
    if ended is not None and ended.code is None and ended.signal is None:
        progress.write("note", text="The command ended while the control plane was away, so nobody saw how; it is run again.")
        ended, lines = _attempt(platform, release, service, hook, _id(release, service, key) + AGAIN, limit)
    for line in lines:
        progress.output(service, line)
    if ended is None:
        raise _failed(release, service, f"it did not end within {limit.total_seconds():.0f} s", lines)
    if ended.code != 0:
        raise _failed(release, service, ended.sentence(), lines)


def forget_command(platform: Platform, release: Release, service: str, key: str) -> None:
    """Remove what a hook's run left, once its end is journaled: before that, its record is what keeps it from running twice."""
    for id in (_id(release, service, key), _id(release, service, key) + AGAIN):
        platform.runtime.forget(id)


def _id(release: Release, service: str, key: str) -> str:
    return f"{release.project}-{release.environment}-{service}-{release.id}-{key[-12:]}"


def _attempt(platform: Platform, release: Release, service: str, hook: Hook, id: str, limit: timedelta) -> tuple[Exit | None, list[str]]:
    env = platform.environment_of(release, service, direct=True)
    platform.start(platform.place(release, service, id, env, command=hook.command, once="release").model_copy(update={"once": True}))
    ended = platform.runtime.wait(id, limit)
    if ended is None:
        platform.runtime.stop(id)
    return ended, last_lines(platform, release, id)


def _failed(release: Release, service: str, why: str, tail: list[str]) -> CommandFailed:
    return CommandFailed(
        what=f"Release {release.id} was not put live; what served before still serves.",
        why=f"The release command of {service} failed: {why}.",
        fix=_advice(release, tail) or "Read the last lines below; correct the command and deploy again.",
        tail=tail,
    )


def _advice(release: Release, tail: list[str]) -> str:
    """What to do when a migration makes an extension that the engine of its database does not have; empty for every other end."""
    missing = next((found[1] or found[2] for line in tail if (found := _NO_EXTENSION.search(line))), "")
    names = [name for name, addon in release.spec.addons.items() if isinstance(addon, Postgres)]
    if not missing or not names:
        return ""
    return (
        f"`homeport addons upgrade {names[0]}` moves the data to a PostgreSQL of this machine that has {missing} "
        "(`apt-get install postgresql` brings one with the usual extensions); then deploy again."
    )
