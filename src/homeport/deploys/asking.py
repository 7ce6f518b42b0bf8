"""Health commands of external add-ons: run like a one-off, with the source and the variables of a service."""

from __future__ import annotations

import secrets
import time
from datetime import timedelta

from homeport.deploys.external import Health
from homeport.deploys.platform import Platform, active_services, needs_process
from homeport.model.addon import External
from homeport.model.errors import HomeportError
from homeport.model.release import Release

PATIENCE = timedelta(seconds=10)
"""How long a health command may take."""


def ask_by_command(platform: Platform, release: Release, name: str) -> Health:
    """What the health command of an external add-on says, run in the surroundings of the first service that runs programs."""
    addon = release.spec.addons[name]
    services = [n for n in active_services(release) if n in release.artifacts and needs_process(release.spec.services[n])]
    if not isinstance(addon, External) or not addon.health_command or not services:
        return Health(state="unknown", detail="no service runs programs with which its command could run")
    id = f"{release.project}-{release.environment}-{services[0]}-check-{secrets.token_hex(4)}"
    began = time.monotonic()
    try:
        env = platform.environment_of(release, services[0])
        platform.start(platform.place(release, services[0], id, env, command=addon.health_command, once="run"))
        ended = platform.runtime.wait(id, PATIENCE)
    except HomeportError as error:
        return Health(state="unknown", detail=f"its health command could not be run: {error.why}")
    finally:
        platform.runtime.stop(id, grace=timedelta(0))
        platform.runtime.forget(id)
    late = "its health command did not end in time"
    detail = late if ended is None else "" if ended.code == 0 else f"its health command: {ended.sentence()}"
    return Health(state="unwell" if detail else "well", detail=detail, milliseconds=round((time.monotonic() - began) * 1000, 1))
