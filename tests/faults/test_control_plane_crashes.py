"""`kill -9` of the control plane at every point of every step of every flow. Enumerated, not sampled.

Each case: traffic runs, a deploy is asked for, the control plane dies at the named point, a new one is started. Then: a final state,
old or new serving, one live release, no orphan, and every effect seen once.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bench_apps import BenchApp
from homes import Home, home_in, outside_tmp, until
from traffic import Traffic

from homeport.deploys.workflow import STEPS
from homeport.durable.faults import POINTS

pytestmark = [pytest.mark.xdist_group("faults-control-plane")]

SETTLED_WITHIN = 60.0
"""Seconds from the start of the new control plane to the final state of the deploy. How long it took is told: 2 s on a quiet machine;
on one where much else runs, many times that."""

OVERLAP = ("fetch", "plan", "build", "record", "provision", "release-command", "start", "healthy", "smoke", "switch", "retire", "summary")
HOLD = ("hold", "start", "healthy", "smoke", "switch", "retire", "summary")
BACK = ("recall", "provision", "start", "healthy", "smoke", "switch", "retire", "summary")
BACK_HOLD = ("recall", "hold", "start", "healthy", "smoke", "switch", "retire", "summary")
FIRST = ("record", "start", "healthy", "switch", "retire", "first-deploy", "summary")
FLOWS = {
    "deploy": OVERLAP,
    "deploy with a disk": HOLD,
    "rollback": BACK,
    "rollback with a disk": BACK_HOLD,
    "first deploy": FIRST,
    "broken deploy": ("undo",),
    "broken deploy with a disk": ("undo",),
}
QUICK = {
    ("deploy", "release-command", "after-effect"),
    ("deploy", "start", "after-effect"),
    ("deploy", "switch", "after-effect"),
    ("deploy with a disk", "hold", "after-effect"),
    ("rollback", "switch", "before"),
}
"""Run with the ordinary tests; the rest by `make faults`."""


@dataclass
class Scene:
    """One home with a project per way of replacing instances, and what each should look like."""

    home: Home
    place: Path
    once: Path
    apps: dict[str, BenchApp] = field(default_factory=dict)
    version: int = 1

    def project(self, name: str, *, disk: bool) -> BenchApp:
        """A project that is live in two releases, so that it can go back."""
        if name not in self.apps:
            app = BenchApp(self.place / name, name)
            app.web["env"] = {"ONCE_FILE": "/data/once.txt" if disk else str(self.once / name)}
            app.web["release_command"] = {"command": f"sh -c 'echo migrated >> {self.once}/{name}-migrations'"}
            app.more["addons"] = {"elsewhere": {"kind": "external", "type": "example", "url": "http://127.0.0.1:9"}} if not disk else {}
            if disk:
                app.web["disks"] = [{"name": "data", "mount_path": "/data"}]
            app.write()
            self.home.up(app.folder)
            self.next(app)
            self.home.up(app.folder)
            self.apps[name] = app
        return self.apps[name]

    def next(self, app: BenchApp) -> str:
        self.version += 1
        app.version(f"v{self.version}")
        return f"v{self.version}"

    def ran(self, app: BenchApp) -> Counter[str]:
        """How often each POST of the project was executed."""
        files = [self.once / app.name, *(self.home.path / "volumes").glob(f"{app.name}-*/once.txt")]
        return Counter(id for file in files if file.exists() for id in file.read_text().split())

    def migrations(self, app: BenchApp) -> int:
        file = self.once / f"{app.name}-migrations"
        return len(file.read_text().split()) if file.exists() else 0


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A home in which all cases happen, one after the other."""
    once = outside_tmp()
    try:
        with home_in(tmp_path_factory.mktemp("home") / "h") as home:
            home.serve()
            yield Scene(home, tmp_path_factory.mktemp("apps"), once)
    finally:
        shutil.rmtree(once)


def _cases() -> Iterator[Any]:
    for flow, steps in FLOWS.items():
        for step in steps:
            for point in POINTS:
                marks = [] if (flow, step, point) in QUICK else [pytest.mark.slow]
                yield pytest.param(flow, step, point, marks=marks, id=f"{flow.replace(' ', '-')}:{step}:{point}")


def test_every_step_of_a_deploy_is_crashed() -> None:
    """The enumeration covers every step that the workflow names."""
    covered = {step for steps in FLOWS.values() for step in steps}
    assert set(STEPS) <= covered


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("flow", "step", "point"), list(_cases()))
def test_the_control_plane_dies(scene: Scene, flow: str, step: str, point: str, record_property: Callable[[str, object], None]) -> None:
    """Old or new serves, one release is live, nothing is left over, and every effect is seen once."""
    record_property("group", f"kill -9 of the control plane: {flow}")
    record_property("fault", f"{point} of `{step}`")
    home, disk = scene.home, "disk" in flow
    app = _prepare(scene, flow, f"{step}-{point}")
    before = _seen(home, app)
    ask = _ask(scene, flow, app, before)
    until(lambda: not home.rows("SELECT 1 FROM workflow_status WHERE status = 'PENDING'", file="journal.db"), "the case before to end")
    home.kill()
    armed = home.serve(fault=f"{step}:{point}")
    with Traffic(home.edge_port, app.host, threads=4, rate=80) as traffic:
        time.sleep(0.1)
        with contextlib.suppress(OSError, http.client.HTTPException):
            ask()
        until(lambda: armed.poll() is not None, f"the fault at {step}:{point} to fire", 60, tell=home.log)
        assert armed.returncode == -signal.SIGKILL, home.log()
        began = time.monotonic()
        home.serve()
        row = home.settled(_newest(home, app), SETTLED_WITHIN)
        took = time.monotonic() - began
        time.sleep(0.1)
    after = _seen(home, app)
    wanted = "failed" if flow.startswith("broken") else "live"
    assert row["status"] == wanted, f"{row}\n{home.log()[-6000:]}"
    _one_live_and_no_orphan(home, app, flow, before, after)
    _effects_once(scene, app, flow, before, after, traffic)
    if not disk and flow != "first deploy":
        assert (traffic.tally.failed, traffic.tally.errors) == (0, {})
    lost = f"; {traffic.tally.failed} of {traffic.tally.requests} requests failed" if flow != "first deploy" else ""
    record_property("outcome", f"{wanted} {took:.1f} s after the restart{lost}")
    if flow == "first deploy":
        home.cli("destroy", app.name, "--yes")


def _prepare(scene: Scene, flow: str, case: str) -> BenchApp:
    if flow != "first deploy":
        return scene.project("disk" if "disk" in flow else "plain", disk="disk" in flow)
    app = BenchApp(scene.place / f"first-{case}", f"first-{case}")
    app.web["env"] = {"ONCE_FILE": str(scene.once / app.name)}
    app.web["first_deploy_command"] = {"command": f"sh -c 'echo seeded >> {scene.once}/{app.name}-seeds'"}
    app.write()
    return app


def _ask(scene: Scene, flow: str, app: BenchApp, before: dict[str, Any]) -> Callable[[], object]:
    home = scene.home
    if flow.startswith("rollback"):
        good = [r["number"] for r in before["releases"] if r["live_at"] and r["number"] != before["live"]]
        path = f"/api/v1/projects/{app.name}/environments/production/rollback"
        return lambda: home.api("POST", path, {"release": max(good)})
    scene.next(app)
    if flow.startswith("broken"):
        command, app.web["command"] = app.web["command"], "sh -c 'exit 3'"
        app.write()

        def ask() -> None:
            try:
                home.api("POST", "/api/v1/deploys", {"folder": str(app.folder)})
            finally:
                armed = home.process
                until(lambda: armed is None or armed.poll() is not None, "the fault", 60)
                app.web["command"] = command
                app.write()

        return ask
    return lambda: home.api("POST", "/api/v1/deploys", {"folder": str(app.folder)})


def _seen(home: Home, app: BenchApp) -> dict[str, Any]:
    """Everything about the project that must add up, once nothing of it is on its way any more."""
    mine = (app.name,)
    return {
        "live": next((r["live"] for r in home.rows("SELECT live FROM environments WHERE project = ?", *mine)), None),
        "releases": home.rows("SELECT number, state, live_at FROM releases WHERE project = ? ORDER BY number", *mine),
        "events": Counter(r["kind"] for r in home.rows("SELECT kind FROM events WHERE project = ?", *mine)),
        "migrations": 0,
    }


def _newest(home: Home, app: BenchApp) -> str:
    rows = home.rows("SELECT id FROM deploys WHERE project = ? ORDER BY requested_at DESC LIMIT 1", app.name)
    return str(rows[0]["id"])


def _one_live_and_no_orphan(home: Home, app: BenchApp, flow: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    live = [r["number"] for r in after["releases"] if r["state"] == "live"]
    assert live == [after["live"]]
    new = len(after["releases"]) - len(before["releases"])
    if flow.startswith("broken"):
        assert after["live"] == before["live"]
        assert new == 1
    elif flow.startswith("rollback"):
        assert after["live"] != before["live"]
        assert new == 0
    else:
        assert after["live"] != before["live"]
        assert new == 1, [tuple(r) for r in after["releases"]]

    def orderly() -> bool:
        rows = [r for r in home.rows("SELECT * FROM instances WHERE project = ?", app.name) if r["role"] != "retiring"]
        return [r["number"] for r in rows if r["role"] == "live"] == [after["live"]] and all(r["role"] in ("live", "warm") for r in rows)

    until(orderly, "one live instance and no stray", 30, tell=lambda: str([tuple(r) for r in home.rows("SELECT * FROM instances")]))
    home.serves(app.host, "/version", home.get(app.host, "/version").body)
    until(lambda: not _orphans(home), "orphans to go", 30, tell=lambda: str(_orphans(home)))


def _orphans(home: Home) -> list[str]:
    """What exists without a row: processes, folders of runs, ports; and rows without a process."""
    rows = {r["id"]: r for r in home.rows("SELECT id, port, role FROM instances")}
    running = {command_of for _, command_of in _instance_processes(home)}
    folders = {name for name in home.folders() if (home.path / "instances" / name / "run").is_dir()}
    ports = {r["key"]: r["owner"] for r in home.rows("SELECT key, owner FROM ledger WHERE kind = 'port'")}
    found = [f"process of {id}" for id in running if id not in rows]
    found += [f"folder {name}" for name in folders if name not in rows]
    found += [f"port {key} of {owner}" for key, owner in ports.items() if owner not in rows]
    return found + [f"row {id} without a process" for id, row in rows.items() if row["role"] == "live" and id not in running]


def _instance_processes(home: Home) -> Iterator[tuple[int, str]]:
    """Processes of instances with the id of each, which is the folder they were started in."""
    for pid in home.processes():
        with contextlib.suppress(OSError):
            parts = (Path(f"/proc/{pid}/cwd").readlink()).parts
            if "instances" in parts:
                yield pid, parts[parts.index("instances") + 1]


def _effects_once(scene: Scene, app: BenchApp, flow: str, before: dict[str, Any], after: dict[str, Any], traffic: Traffic) -> None:
    ran = scene.ran(app)
    assert not [id for id, times in ran.items() if times > 1]
    assert traffic.tally.posted <= ran.keys()
    told = after["events"] - before["events"]
    assert told["deploy.failed" if flow.startswith("broken") else "deploy.live"] == 1, told
    assert told["deploy.live"] + told["deploy.failed"] == 1, told
    if flow == "first deploy":
        assert (scene.once / f"{app.name}-seeds").read_text().split() == ["seeded"]
    elif flow.startswith(("deploy", "broken")):
        made = after["releases"]
        assert scene.migrations(app) == len(made), "the release command runs once for each release"
