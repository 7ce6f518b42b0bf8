"""One-off commands: `homeport run -- cmd` with the live release's source and variables."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from homeport.deploys.candidates import masker_of
from homeport.deploys.control import ProjectNotFound
from homeport.deploys.platform import Platform, active_services
from homeport.model.release import Release
from homeport.model.service import StaticService


def run_command(platform: Platform, release: Release, service: str, command: tuple[str, ...], *, actor: str) -> Iterator[dict[str, Any]]:
    """Output lines, then `{"exit": code}`. When the caller goes away, the command is stopped."""
    name = service or next((n for n in active_services(release) if not isinstance(release.spec.services[n], StaticService)), "")
    if name not in release.spec.services or name not in release.artifacts:
        why = f"{release.project} has no service {service!r}." if service else f"{release.project} has no service that runs programs."
        raise ProjectNotFound(what="Nothing was run.", why=why, fix="See `homeport status`.")
    id = f"{release.project}-{release.environment}-{name}-run-{secrets.token_hex(4)}"
    env = platform.environment_of(release, name, direct=True)
    mask = masker_of(platform, release)
    platform.event("run", f"{actor} ran a command in {name}: {mask(command[0])}.", release, actor=actor, subject=name)
    platform.start(platform.place(release, name, id, env, command=command, once="run"))
    return _output(platform, id, mask)


def _output(platform: Platform, id: str, mask: Any) -> Iterator[dict[str, Any]]:
    try:
        for line in platform.runtime.logs(id, tail=100_000, follow=True):
            yield {"stream": line.stream, "text": mask(line.text)}
        ended = platform.runtime.wait(id, timedelta(seconds=10))
        code = ended.code if ended is not None and ended.code is not None else 128 + (ended.signal or 0) if ended is not None else 1
        yield {"exit": code}
    finally:
        platform.runtime.stop(id, grace=timedelta(seconds=5))
        platform.runtime.forget(id)
