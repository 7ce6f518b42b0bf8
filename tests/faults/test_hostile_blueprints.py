"""Blueprints that mean harm, through the whole way of `up`: refused with a sentence, or carried out as plain text. Never more."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench_apps import BenchApp, variables_of
from homes import Home, home_in

pytestmark = pytest.mark.xdist_group("faults-hostile")

MARK = "homeport-was-here"
NAMES = (
    "web; touch /tmp/{mark}",
    "web\n}}\nserver {{ listen 81; }}",
    "$(touch /tmp/{mark})",
    "web{{",
    "../../etc",
    "-rf",
    "a" * 64,
    "WEB",
    "web`id`",
    "web\x00",
    'web"',
    "${{HOME}}",
    "",
    ".",
    "wéb",
)
VALUES = (
    "line one\nline two\nPATH=/tmp",
    "'single' \"double\" `back`",
    "$(touch /tmp/{mark}) ${{HOME}} $HOME %s {{}} ;|&<>",
    "\\n \\0 \\",
    "ünïcode \U0001f600 \u202e",
    " spaces ",
    "",
    "a" * 100_000,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home in which one honest project is live all the time."""
    with home_in(tmp_path_factory.mktemp("home") / "h") as home:
        home.serve()
        app = BenchApp(tmp_path_factory.mktemp("apps") / "honest", "honest")
        home.up(app.folder)
        yield home
        assert home.get(app.host, "/version").body == "v1\n"


@pytest.fixture(autouse=True)
def _no_trace() -> Iterator[None]:
    """Nothing a blueprint says is ever executed."""
    yield
    assert not Path("/tmp", MARK).exists()


def refused(home: Home, folder: Path, *codes: str) -> dict[str, Any]:
    """Deploy a folder that must be refused with one of these codes, within a few seconds, and leave nothing."""
    done = home.run("up", folder, "--json", timeout=30)
    assert done.returncode not in (0, 124), done.stdout
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)["error"] if done.stdout.strip().startswith("{") else {}
    code = found.get("code") or done.stderr.partition("error[")[2].partition("]")[0]
    assert code in codes, done.stdout + done.stderr
    assert home.alive()
    return dict(found)


@pytest.mark.parametrize(
    "where", ["project", "service", *(pytest.param(where, marks=pytest.mark.slow) for where in ("host", "disk", "cron"))]
)
def test_names_are_checked_wherever_they_stand(
    home: Home, tmp_path: Path, where: str, record_property: Callable[[str, object], None]
) -> None:
    """A name with shell, nginx or path syntax in it is refused as invalid, or becomes a harmless one."""
    outcomes: dict[str, int] = {"refused": 0, "made harmless": 0}
    for number, text in enumerate(NAMES):
        name = text.format(mark=MARK) if "{" in text else text
        app = BenchApp(tmp_path / f"a{number}", f"hostile-{where}")
        document = json.loads((app.folder / "homeport.yaml").read_text())
        web = document["services"]["web"]
        if where == "project":
            document["name"] = name
        elif where == "service":
            document["services"][name] = document["services"].pop("web")
        elif where == "host":
            web["domains"] = [{"host": name}]
        elif where == "disk":
            web["disks"] = [{"name": name, "mount_path": f"/data/{name}"}]
        else:
            document["services"]["job"] = {"kind": "cron", "schedule": name, "command": "true"}
        (app.folder / "homeport.yaml").write_text(json.dumps(document))
        done = home.run("up", app.folder, "--json", timeout=60)
        assert "Traceback" not in done.stderr
        assert "internal-error" not in done.stdout + done.stderr, (name, done.stdout, done.stderr)
        assert home.alive(), home.log()
        outcomes["made harmless" if done.returncode == 0 else "refused"] += 1
        if done.returncode == 0:
            home.cli("destroy", json.loads(done.stdout)["project"], "--yes")
    record_property("fault", f"hostile names as {where}")
    record_property("outcome", f"{outcomes['refused']} refused, {outcomes['made harmless']} made harmless, nothing executed")


def test_values_reach_the_program_as_they_are(home: Home, tmp_path: Path) -> None:
    """Variables with line ends, quotes, substitutions and 100 KB arrive byte for byte, and nothing of them is executed."""
    app = BenchApp(tmp_path / "values", "values")
    wanted = {f"VALUE_{number}": text.format(mark=MARK) if "{mark}" in text else text for number, text in enumerate(VALUES)}
    app.web["env"] = wanted
    app.write()
    home.up(app.folder)
    seen = variables_of(next(i["pid"] for i in home.instances("values") if i["role"] == "live"))
    assert {key: seen.get(key) for key in wanted} == wanted
    home.cli("destroy", "values", "--yes")


@pytest.mark.parametrize("key", ["A=B", "A\nB", "", "LD_PRELOAD", "A B", "1A", "BASH_FUNC_x%%"])
def test_names_of_variables(home: Home, tmp_path: Path, key: str) -> None:
    """A variable's name that no environment can carry is refused; a dangerous one is the project's own affair and reaches only it."""
    app = BenchApp(tmp_path / "key", "keyed")
    app.web["env"] = {key: "x"}
    app.write()
    done = home.run("up", app.folder, "--json", timeout=60)
    assert "internal-error" not in done.stdout + done.stderr, done.stdout + done.stderr
    if done.returncode == 0:
        live = variables_of(next(i["pid"] for i in home.instances("keyed") if i["role"] == "live"))
        assert live.get(key) == "x"
        home.cli("destroy", "keyed", "--yes")
    assert home.alive()


def test_a_schedule_that_nobody_can_read(home: Home, tmp_path: Path) -> None:
    """A job that would never run is refused."""
    app = BenchApp(tmp_path / "cron", "scheduled")
    app.services["job"] = {"kind": "cron", "schedule": "every full moon", "command": "true"}
    app.write()
    assert "every full moon" in refused(home, app.folder, "plan-refused")["why"]


def test_a_bomb_of_aliases(home: Home, tmp_path: Path) -> None:
    """A YAML file that would unfold to gigabytes is refused at once."""
    lines = ["a: &a0 [x,x,x,x,x,x,x,x,x,x]"] + [f"b{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "render.yaml").write_text("\n".join(lines) + "\nservices: *a11\n")
    refused(home, tmp_path, "blueprint-invalid")


def test_a_huge_file(home: Home, tmp_path: Path) -> None:
    """A blueprint of 50 MB is refused by its size."""
    (tmp_path / "render.yaml").write_text("services:\n" + "  - {type: web, name: w}\n" * 2_000_000)
    refused(home, tmp_path, "blueprint-invalid")


def test_deep_nesting(home: Home, tmp_path: Path) -> None:
    """Ten thousand brackets are refused, not recursed into."""
    (tmp_path / "render.yaml").write_text("services: " + "[" * 10_000 + "]" * 10_000)
    refused(home, tmp_path, "blueprint-invalid")


@pytest.mark.parametrize(
    "text", ["\x00\x01\x02", "services: [", "- \t- x: {", "!!python/object/apply:os.system ['touch /tmp/x']", "\ufeff"]
)
def test_broken_files(home: Home, tmp_path: Path, text: str) -> None:
    """What is no YAML, or asks for objects, is refused with its place."""
    (tmp_path / "render.yaml").write_text(text)
    refused(home, tmp_path, "blueprint-invalid", "unknown-language", "nothing-to-deploy")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/shadow", "/", ".", "/proc/self/environ"])
def test_links_out_of_the_source(home: Home, tmp_path: Path, target: str) -> None:
    """A link that leads out of the source is refused, or what it leads to is not served."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("<p>fine</p>")
    (site / "leak").symlink_to(target)
    document = {"name": "links", "services": {"site": {"kind": "static", "build": {"builder": "none"}}}}
    (site / "homeport.yaml").write_text(json.dumps(document))
    done = home.run("up", site, "--json", timeout=60)
    assert "internal-error" not in done.stdout + done.stderr, done.stdout + done.stderr
    if done.returncode == 0:
        for path in ("/leak", "/leak/etc/passwd", "/leak/passwd"):
            assert "root:" not in home.get("site.links.localhost", path).body
        home.cli("destroy", "links", "--yes")


def test_a_blueprint_that_is_a_link_or_no_file(home: Home, tmp_path: Path) -> None:
    """A blueprint that is a link out, a folder, a pipe or a device is not followed and not waited for."""
    makers: tuple[Callable[[Path], None], ...] = (
        lambda path: path.symlink_to("/etc/passwd"),
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("/dev/zero"),
    )
    for number, make in enumerate(makers):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder / "render.yaml")
        done = home.run("up", folder, "--json", timeout=30)
        assert done.returncode != 0
        assert "root:" not in done.stdout + done.stderr
        assert "internal-error" not in done.stdout + done.stderr, done.stdout + done.stderr


def test_hostile_commands_and_paths_stay_in_their_place(home: Home, tmp_path: Path) -> None:
    """Routes, health paths and header values with nginx syntax in them are plain text to the edge, or refused."""
    for number, text in enumerate(("/a;}\nserver{listen 81;}", '/"quoted"', "/$uri$host", "/{", "/a b", "/#", "/\\")):
        app = BenchApp(tmp_path / f"r{number}", "routes")
        document = json.loads((app.folder / "homeport.yaml").read_text())
        document["routes"] = [{"service": "web", "match": {"path": text}, "action": {"kind": "redirect", "to": "/elsewhere" + text}}]
        document["services"]["web"]["health"]["headers"] = {"X-Test": text}
        (app.folder / "homeport.yaml").write_text(json.dumps(document))
        done = home.run("up", app.folder, "--json", timeout=60)
        assert "internal-error" not in done.stdout + done.stderr, (text, done.stdout, done.stderr)
        assert home.get("web.honest.localhost", "/version").body == "v1\n"
    home.run("destroy", "routes", "--yes")
    shutil.rmtree(tmp_path)
