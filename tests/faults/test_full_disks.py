"""A full disk: what is on its way fails with a sentence, what runs goes on, and when there is room again everything works."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench_apps import AS_ROOT, BenchApp
from homes import Home, home_in
from traffic import Traffic

pytestmark = [
    pytest.mark.xdist_group("faults-disk"),
    pytest.mark.skipif(not AS_ROOT, reason="a file system of its own needs root"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 1.3 GB: builds want 1 GB to be free."""
    folder = tmp_path_factory.mktemp("small")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1300m,mode=755", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def home(small: Path) -> Iterator[Home]:
    """A home on it."""
    with home_in(small / "h") as home:
        home.serve()
        yield home


@pytest.fixture(scope="module")
def app(home: Home, tmp_path_factory: pytest.TempPathFactory) -> BenchApp:
    """The bench service, live in its third release."""
    app = BenchApp(tmp_path_factory.mktemp("apps") / "bench")
    for version in ("v1", "v2", "v3"):
        app.version(version)
        home.up(app.folder)
    return app


@contextlib.contextmanager
def only(folder: Path, left: int) -> Iterator[None]:
    """Fill the file system until so many bytes are left."""
    file = folder / "ballast"
    try:
        with file.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while (free := os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize) > left:
                os.posix_fallocate(ballast.fileno(), ballast.seek(0, os.SEEK_END), max(1, min(64 << 20, free - left)))
        yield
    finally:
        file.unlink()


def told(done: subprocess.CompletedProcess[str], home: Home) -> str:
    """`live`, or the code of the error; an error of Homeport's own is no answer."""
    assert "Traceback" not in done.stderr, done.stderr
    code = "live" if done.returncode == 0 else done.stderr.partition("error[")[2].partition("]")[0]
    assert code, done.stdout + done.stderr
    assert code != "internal-error", done.stdout + done.stderr + home.log()[-6000:]
    return code


def test_a_deploy_onto_a_full_disk(small: Path, home: Home, app: BenchApp, record_property: Callable[[str, object], None]) -> None:
    """It is refused before it builds; visitors do not notice; with room it works again."""
    app.version("full")
    with Traffic(home.edge_port, app.host, rate=80, post="/body") as visits, only(small, 0):
        assert told(home.run("up", app.folder, "--json", timeout=60), home) in ("disk-low", "disk-full")
        assert home.run("status", "-p", app.name).returncode == 0
    assert (visits.tally.failed, visits.tally.errors) == (0, {})
    assert home.up(app.folder)["status"] == "live"
    home.serves(app.host, "/version", "full\n")
    record_property("fault", "a deploy onto a full disk")
    record_property("outcome", f"refused; 0 of {visits.tally.requests} requests failed; works again with room")


@pytest.mark.parametrize("left", [0, 16 << 10, 64 << 10, 256 << 10, 1 << 20])
def test_a_rollback_onto_a_full_disk(
    small: Path, home: Home, app: BenchApp, left: int, record_property: Callable[[str, object], None]
) -> None:
    """However much is left, it goes live or says what is wrong; visitors do not notice; with room it works again."""
    target = next(r["id"] for r in home.json("releases", "-p", app.name) if r["live_at"] and r["state"] != "live")
    with Traffic(home.edge_port, app.host, rate=80, post="/body") as visits, only(small, left):
        status = told(home.run("rollback", target, "-p", app.name, "--json", timeout=60), home)
        home.run("env", "set", f"KEY_{left}=value", "-p", app.name)
        assert home.run("status", "-p", app.name).returncode == 0
    assert (visits.tally.failed, visits.tally.errors) == (0, {})
    assert home.json("rollback", target, "-p", app.name)["status"] == "live"
    assert [i["role"] for i in home.instances(app.name)].count("live") == 1
    record_property("fault", f"a rollback with {left >> 10} KB left on the disk of the home")
    record_property("outcome", f"{status}; 0 of {visits.tally.requests} requests failed; works again with room")


def test_a_restart_of_the_control_plane_on_a_full_disk(small: Path, home: Home, app: BenchApp) -> None:
    """It starts or says why; applications go on; with room it starts."""
    home.kill()
    with Traffic(home.edge_port, app.host, rate=80, post="/body") as visits:
        with only(small, 0):
            process = home.serve(wait=False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(8)
            if process.poll() is None:
                home.kill()
        home.serve()
    assert (visits.tally.failed, visits.tally.errors) == (0, {})
    assert home.json("status", "-p", app.name)["release"]


def test_secrets_on_a_full_disk(small: Path, home: Home, app: BenchApp) -> None:
    """What cannot be written down is not shown, set, exported or restored; the answer says so, and afterwards the log is whole."""
    home.cli("env", "set", "KEPT=canary-value", "-p", "bench")
    verbs = (["get", "KEPT"], ["set", "KEPT=other"], ["export"], ["unset", "KEPT"], ["version", "KEPT@1", "disable", "--yes"])
    outcomes: list[str] = []
    shown = 0
    with only(small, 0):
        for verb in verbs * 3:
            done = home.run("env", *verb, "-p", "bench")
            outcomes.append(told(done, home))
            shown += done.returncode == 0 and verb[0] == "get"
            assert done.returncode == 0 or "canary" not in done.stdout
    assert set(outcomes) <= {"live", "audit-unavailable", "disk-full", "not-found"} and "audit-unavailable" in outcomes, outcomes
    report = home.json("audit", "verify")
    assert report["ok"], report
    rows = home.json("audit", "--subject", "bench/production/KEPT")
    assert sum(row["action"] == "reveal" for row in rows) >= shown, "a value was shown without its row"
    for version in home.json("env", "history", "KEPT", "-p", "bench"):
        assert any(row["subject"].endswith(f"@{version['version']}") for row in rows), "a version without its row"
    home.cli("env", "set", "KEPT=canary-value", "-p", "bench")
    assert home.json("env", "get", "KEPT", "-p", "bench")["value"] == "canary-value"
