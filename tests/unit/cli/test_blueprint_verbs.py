"""The verbs about deployment files, as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner, Result

from homeport.blueprints.convert import read_for_convert, without_assumed
from homeport.blueprints.homeport import HomeportReader
from homeport.blueprints.source import FolderTree
from homeport.cli.errors import CliError
from homeport.cli.main import app

RENDER = """\
services:
  - type: web
    name: shop
    runtime: node
    buildCommand: npm install
    startCommand: node server.js
    region: frankfurt
    colour: red
    envVars:
      - key: TOKEN
        sync: false
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOMEPORT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "render.yaml").write_text(RENDER)
    (folder / "package.json").write_text('{"name": "shop"}')
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: str | Path) -> dict[str, Any]:
    error = run(*arguments).exception
    assert isinstance(error, CliError), error
    return error.body | {"exit": error.exit_code}


def test_check_gives_each_file_with_every_key_in_one_class(shop: Path) -> None:
    """`blueprint check --json` accounts for every leaf of the file once."""
    result = run("blueprint", "check", shop / "render.yaml", "--json")
    (report,) = json.loads(result.stdout)
    assert result.exit_code == 0
    assert set(report) >= {"file", "dialect", "ok", "error", "services", "addons", "keys"}
    assert report["dialect"] == "render" and report["ok"] and report["error"] is None and report["services"] == ["shop"]
    assert {k["path"] for k in report["keys"]["ignored"]} == {"services[0].region"}
    assert [k["path"] for k in report["keys"]["unknown"]] == ["services[0].colour"]
    assert len(report["keys"]["honoured"]) == 7


def test_check_ends_with_six_for_what_it_cannot_read(shop: Path) -> None:
    """A file that is refused is located, and the command fails without stopping at it."""
    (shop / "fly.toml").write_text("app = [\n")
    result = run("blueprint", "check", shop, "--json")
    found = {Path(report["file"]).name: report for report in json.loads(result.stdout)}
    assert result.exit_code == 6
    assert found["render.yaml"]["ok"] and not found["fly.toml"]["ok"]
    assert "fly.toml:" in found["fly.toml"]["error"]
    assert "cannot be read" in run("blueprint", "check", shop).stdout


def test_unknown_keys_fail_only_when_strict(shop: Path) -> None:
    """An unknown key warns; with --strict it is an error with the file, the line and what was meant."""
    assert run("plan", shop).exit_code == 0
    assert run("blueprint", "check", shop, "--strict").exit_code == 6
    error = refused("plan", shop, "--strict")
    assert error["code"] == "unknown-keys" and error["exit"] == 6
    assert "render.yaml:8: services[0].colour" in error["why"]


def test_plan_tells_the_files_in_the_shape_of_check(shop: Path) -> None:
    """`plan --json` and `blueprint check --json` describe a file alike."""
    planned = json.loads(run("plan", shop, "--json").stdout)
    (checked,) = json.loads(run("blueprint", "check", shop / "render.yaml", "--json").stdout)
    (one,) = [file for file in planned["files"] if file["dialect"] == "render"]
    assert one["keys"] == checked["keys"]
    assert planned["services"] == {"shop": "web"}


def test_plan_takes_one_file_of_a_folder(shop: Path) -> None:
    """A file named instead of the folder decides."""
    (shop / "Procfile").write_text("web: node other.js\n")
    assert json.loads(run("plan", shop / "Procfile", "--json").stdout)["dialect"] == "procfile"


def test_an_unreadable_plan_is_a_document_too(shop: Path) -> None:
    """With --json the error of a broken file is on standard output as well."""
    (shop / "render.yaml").write_text("services: [\n")
    result = run("plan", shop, "--json")
    assert json.loads(result.stdout)["error"]["code"] == "blueprint-invalid"


def test_convert_writes_where_it_is_told(shop: Path) -> None:
    """Converting to a file writes it, names the losses beside, and leaves standard output to programs."""
    result = run("convert", shop, "--to", "fly", "-o", shop / "new" / "fly.toml")
    assert result.exit_code == 0 and result.stdout == ""
    assert 'app = "shop"' in (shop / "new" / "fly.toml").read_text()
    assert "cannot say" in result.stderr


def test_convert_of_a_file_leaves_its_neighbours_out(shop: Path) -> None:
    """A single file is converted by itself."""
    (shop / "Procfile").write_text("web: node other.js\nworker: node worker.js\n")
    assert "worker" not in run("convert", shop / "render.yaml", "--to", "homeport").stdout


def test_convert_refuses_a_dialect_nobody_writes(shop: Path) -> None:
    """The error lists the dialects there are."""
    error = refused("convert", shop, "--to", "nix")
    assert error["code"] == "unknown-dialect" and "compose" in error["fix"]


def test_convert_needs_a_folder_for_several_files(shop: Path) -> None:
    """A dialect of several files is not squeezed into one."""
    (shop / "taken").write_text("")
    assert refused("convert", shop, "--to", "appjson", "-o", shop / "taken")["code"] == "usage"
    assert run("convert", shop, "--to", "appjson", "-o", shop / "heroku").exit_code == 0
    assert run("convert", shop, "--to", "appjson", "-o", shop / "app.json").exit_code == 0
    assert (shop / "Procfile").is_file() and (shop / "heroku" / "Procfile").is_file()


def test_init_writes_what_the_files_say(shop: Path) -> None:
    """The homeport.yaml of `init` reads back as the same project, and explains its keys."""
    spec = without_assumed(read_for_convert(FolderTree(shop)))
    assert run("init", shop).exit_code == 0
    text = (shop / "homeport.yaml").read_text()
    assert "# Start command" in text
    assert HomeportReader().read(FolderTree(shop), "homeport.yaml").spec == spec


def test_init_replaces_nothing_unasked(shop: Path) -> None:
    """A homeport.yaml that is there stays, unless --yes is given."""
    (shop / "homeport.yaml").write_text("services: {}\n")
    assert refused("init", shop)["code"] == "usage"
    assert (shop / "homeport.yaml").read_text() == "services: {}\n"
    assert run("init", shop, "--yes").exit_code == 0


def test_the_schema_accepts_the_sample(shop: Path) -> None:
    """The published JSON Schema and the sample of homeport.yaml agree."""
    import yaml

    schema = json.loads(run("blueprint", "schema").stdout)
    jsonschema.validate(yaml.safe_load(run("blueprint", "sample").stdout), schema)


def test_completion_is_offered_for_bash() -> None:
    """The shell's completion script is printed for a shell that is named."""
    env = os.environ | {"_HOMEPORT_COMPLETE": "complete_bash", "COMP_WORDS": "homeport ro", "COMP_CWORD": "1"}
    argv = [sys.executable, "-c", "import sys; sys.argv[0] = 'homeport'; from homeport.cli.main import app; app(prog_name='homeport')"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert "rollback" in done.stdout.split(), done.stderr
