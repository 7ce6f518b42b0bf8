"""Fates that depend on what a service becomes: an add-on is not told Docker's options, a probe is asked over HTTP, …"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from homeport.blueprints.compose.addons import CREDENTIALS, MODULES
from homeport.blueprints.compose.services import http_probe
from homeport.blueprints.compose.shapes import Overrides, Verdict
from homeport.blueprints.compose.tree import ComposeFile
from homeport.blueprints.view import scalar_text
from homeport.model.reading import Fate, Path

if TYPE_CHECKING:
    from homeport.blueprints.compose.reader import Role

_NATIVE = Verdict(Fate.HONOURED, "served by Homeport's own add-on instead of the image")
_KEPT = Verdict(Fate.IGNORED, "the native add-on does not need it; kept and written back")

_ADD_ON: dict[str | int, Verdict] = {
    "image": _NATIVE,
    "command": Verdict(Fate.HONOURED, "server settings of the add-on"),
    "environment": Verdict(Fate.APPROXIMATED, "kept for the image; the native add-on is set up by Homeport"),
    "env_file": Verdict(Fate.APPROXIMATED, "kept for the image; the native add-on makes its own credentials where the file holds them"),
    "container_name": Verdict(Fate.HONOURED, "another name the add-on is reached by"),
    "hostname": Verdict(Fate.HONOURED, "another name the add-on is reached by"),
    "volumes": Verdict(Fate.APPROXIMATED, "the data lives in the add-on's own storage, backed up and kept across deploys"),
    "healthcheck": Verdict(Fate.APPROXIMATED, "Homeport checks the engine by its own protocol"),
    "restart": Verdict(Fate.APPROXIMATED, "an add-on is always kept running"),
    "ports": Verdict(Fate.APPROXIMATED, "reached by name inside the project; no port is opened on the host"),
    "expose": Verdict(Fate.HONOURED, "reached by name inside the project"),
    "networks": Verdict(Fate.APPROXIMATED, "every service of the project reaches the add-on, nobody else does"),
    "network_mode": Verdict(Fate.APPROXIMATED, "every service of the project reaches the add-on, nobody else does"),
    "mem_limit": Verdict(Fate.HONOURED),
    "deploy": Verdict(Fate.APPROXIMATED, "the memory limit is the add-on's; one primary runs"),
    "depends_on": Verdict(Fate.APPROXIMATED, "add-ons start before every service"),
    "logging": Verdict(Fate.APPROXIMATED, "the add-on's log is kept and rotated by Homeport"),
    "shm_size": Verdict(Fate.APPROXIMATED, "a native engine is not held to Docker's 64 MiB of shared memory"),
    "profiles": Verdict(Fate.APPROXIMATED, "the add-on is provisioned when a service uses it"),
    "stop_grace_period": Verdict(Fate.APPROXIMATED, "the engine is always given the time to stop cleanly"),
    "links": Verdict(Fate.APPROXIMATED, "every service of the project reaches the add-on"),
    "build": _KEPT,
    "extends": Verdict(Fate.HONOURED),
}
_REST_OF_ADD_ON = _KEPT
_CREDENTIAL = Verdict(Fate.HONOURED)
_INTERFACE = Verdict(Fate.APPROXIMATED, "Temporal's web interface is a part of the add-on")
_PROVIDER = Verdict(Fate.APPROXIMATED, "provided by an outside tool: an external add-on whose variables are set by whoever runs it")
_ASKED = Verdict(Fate.APPROXIMATED, "asked over HTTP by Homeport itself, so that neither curl nor wget is needed")
_DECIDED = Verdict(Fate.APPROXIMATED, "`${…+…}` is decided when the file is read")
_ALTERNATIVE = re.compile(r"\$\{\w+:?\+")
_FIRST_SCHEDULE = Verdict(Fate.IGNORED, "a cron service has one schedule: the first; kept and written back")
_QUEUE = Verdict(Fate.APPROXIMATED, "a run that is still going makes Homeport skip the next one")


def overrides(file: ComposeFile, roles: Mapping[str, Role]) -> Overrides:
    """Verdicts by path for the main file."""
    result: Overrides = {}
    data = file.data if isinstance(file.data, dict) else {}
    services = data.get("services")
    for title, raw in services.items() if isinstance(services, dict) else ():
        if isinstance(raw, dict) and (role := roles.get(title)) is not None:
            _service(result, ("services", title), raw, role)
    jobs = data.get("jobs")
    for title, raw in jobs.items() if isinstance(jobs, dict) else ():
        if isinstance(raw, dict):
            _job(result, ("jobs", title), raw)
    return result


def _service(result: Overrides, here: Path, raw: dict[str, Any], role: Role) -> None:
    if role.kind == "addon":
        result[here] = {key: _ADD_ON.get(key, _REST_OF_ADD_ON) for key in raw if not key.startswith("x-")}
        if role.engine is not None and role.engine.modules:
            result[here]["image"] = Verdict(Fate.APPROXIMATED, MODULES)
        _credentials(result, here, raw.get("environment"))
    elif role.kind == "ui":
        result[here] = {"*": _INTERFACE}
    elif role.kind == "provider":
        result[here] = {"*": _PROVIDER}
    else:
        _probe(result, here, raw)
        _alternatives(result, (*here, "environment"), raw.get("environment"))


def _credentials(result: Overrides, here: Path, env: Any) -> None:
    entries = env.items() if isinstance(env, dict) else enumerate(env) if isinstance(env, list) else ()
    found: dict[str | int, Verdict] = {
        key: _CREDENTIAL for key, value in entries if (str(value).partition("=")[0] if isinstance(key, int) else key) in CREDENTIALS
    }
    if found:
        where = (*here, "environment")
        rest = _ADD_ON["environment"]
        count = len(env)
        keys: list[str | int] = list(env) if isinstance(env, dict) else list(range(count))
        result[where] = {key: found.get(key, rest) for key in keys}
        del result[here]["environment"]


def _probe(result: Overrides, here: Path, raw: dict[str, Any]) -> None:
    check = raw.get("healthcheck")
    test = check.get("test") if isinstance(check, dict) else None
    if not test:
        return
    words = tuple(map(scalar_text, test)) if isinstance(test, list) else scalar_text(test)
    if isinstance(words, tuple):
        words = " ".join(words[1:]) if words[:1] == ("CMD-SHELL",) else words[1:]
    if http_probe(words) is not None:
        result[(*here, "healthcheck")] = {"test": _ASKED}


def _alternatives(result: Overrides, where: Path, env: Any) -> None:
    entries = env.items() if isinstance(env, dict) else enumerate(env) if isinstance(env, list) else ()
    found: dict[str | int, Verdict] = {key: _DECIDED for key, value in entries if isinstance(value, str) and _ALTERNATIVE.search(value)}
    if found:
        result[where] = found


def _job(result: Overrides, here: Path, raw: dict[str, Any]) -> None:
    triggers = raw.get("triggers")
    schedules = triggers.get("schedule") if isinstance(triggers, dict) else None
    if isinstance(schedules, list):
        where = (*here, "triggers", "schedule")
        result[where] = dict.fromkeys(range(1, len(schedules)), _FIRST_SCHEDULE)
        if schedules and isinstance(schedules[0], dict):
            result[(*where, 0)] = {"missed_fires": Verdict(Fate.IGNORED, "a run that was missed is not made up for"), "concurrency": _QUEUE}
            if schedules[0].get("concurrency") == "forbid":
                result[(*where, 0)].pop("concurrency")
