"""Where a home lies when nobody says: one rule for the command line and the control plane."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

SYSTEM_HOME = Path("/var/lib/homeport")


def home_of(environment: Mapping[str, str]) -> Path:
    """`HOMEPORT_HOME`, else `/var/lib/homeport` for root, else `~/.homeport`. Absolute."""
    given = environment.get("HOMEPORT_HOME")
    if given:
        return Path(given).expanduser().absolute()
    if os.geteuid() == 0:
        return SYSTEM_HOME
    return Path(environment.get("HOME") or Path.home()).absolute() / ".homeport"
