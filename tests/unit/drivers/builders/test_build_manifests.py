"""Which files an install reads, and when it reads more."""

from __future__ import annotations

import json
from typing import Any

import pytest

from homeport.blueprints.source import MemoryTree
from homeport.drivers.builders.detect import Folder
from homeport.drivers.builders.manifests import Manifests, node_manifests, python_manifests
from homeport.drivers.builders.recipe import NodeInstall, PythonInstall


def node(files: dict[str, str]) -> Manifests:
    return node_manifests(Folder(MemoryTree(files), ""), NodeInstall(tool="npm"))


def package(**fields: Any) -> dict[str, str]:
    return {"package.json": json.dumps({"name": "x", **fields})}


def python(files: dict[str, str], method: Any = "files", wanted: tuple[str, ...] = ("requirements.txt",)) -> Manifests:
    return python_manifests(Folder(MemoryTree(files), ""), PythonInstall(method=method, files=wanted if method == "files" else ()))


def test_a_change_of_scripts_or_version_keeps_the_layer() -> None:
    """Only the fields an install reads count."""
    one = node(package(version="1.0.0", scripts={"build": "a"}, dependencies={"ms": "1"}))
    two = node(package(version="2.0.0", scripts={"build": "b"}, dependencies={"ms": "1"}))
    assert one == two
    assert one != node(package(dependencies={"ms": "2"}))
    assert not one.blocked


@pytest.mark.parametrize(
    "files",
    [
        package(scripts={"preinstall": "x"}),
        package(scripts={"install": "node-gyp rebuild"}),
        package(workspaces=["a"]),
        package(dependencies={"a": "file:../a"}),
        package(devDependencies={"a": "link:./a"}),
        package(dependencies={"a": "./a"}),
        package(overrides={"a": {"b": "file:x"}}),
        {**package(), "pnpm-workspace.yaml": ""},
        {**package(), ".yarnrc.yml": ""},
        {**package(), "patches/a.patch": ""},
        {**package(), "binding.gyp": ""},
        {"package.json": "[]"},
        {},
    ],
)
def test_an_install_that_sees_more_than_manifests_is_no_layer(files: dict[str, str]) -> None:
    """Scripts of the project, workspaces and local packages keep the install in the build's own folder."""
    assert node(files).blocked


def test_scripts_that_follow_an_install_are_run_by_themselves() -> None:
    """`postinstall` and `prepare` of the project see its source: they run after the shared install, in the build's folder."""
    found = node(package(scripts={"prepare": "husky", "postinstall": "prisma generate", "test": "x", "prepublish": ""}))
    assert not found.blocked
    assert found.scripts == ("postinstall", "prepare")
    assert "husky" not in found.files["package.json"]


def test_included_requirement_files_are_followed() -> None:
    """`-r` and `-c` lines bring in their files, relative to the file that names them."""
    files = {"requirements.txt": "-r req/base.txt\nflask\n", "req/base.txt": "-c pins.txt\nclick # x\n", "req/pins.txt": "click==8\n"}
    assert set(python(files).files) == {"requirements.txt", "req/base.txt", "req/pins.txt"}
    assert not python(files).blocked


@pytest.mark.parametrize(
    "text",
    [
        "-e .", ".", "./lib", "file:///x", "a @ file:///x", "/abs/a.whl", "a.whl", "--find-links wheels", "-r ../other.txt",
        "-r missing.txt", "-r /etc/passwd",
    ],
)  # fmt: skip
def test_requirements_of_local_projects_are_no_layer(text: str) -> None:
    """What names a path cannot be shared by content."""
    assert python({"requirements.txt": text}).blocked


@pytest.mark.parametrize(
    "text",
    [
        "flask==3.0",
        "a[b,c]>=1 ; python_version > '3.8'",
        "a @ git+https://h.test/a.git@v1",
        "--index-url https://h.test/simple\nflask",
    ],
)
def test_usual_requirements_are_a_layer(text: str) -> None:
    """Names, versions, markers, indexes and git addresses are manifest enough."""
    assert not python({"requirements.txt": text}).blocked


def test_a_circle_of_requirement_files_ends() -> None:
    """Files that include each other are read once."""
    assert set(python({"requirements.txt": "-r a.txt", "a.txt": "-r requirements.txt"}).files) == {"requirements.txt", "a.txt"}


def test_a_poetry_lock_becomes_pinned_requirements() -> None:
    """The main group is installed at its locked versions; development and Windows packages are not."""
    lock = """
[[package]]
name = "flask"
version = "3.0.0"
optional = false
groups = ["main"]
[[package]]
name = "pytest"
version = "8.0"
optional = false
groups = ["dev"]
[[package]]
name = "pywin32"
version = "1"
optional = false
[[package]]
name = "tomli"
version = "2.0"
optional = false
groups = ["main"]
markers = "python_version < '3.11'"
"""
    found = python({"pyproject.toml": "[tool.poetry]", "poetry.lock": lock}, "poetry")
    assert found.files["requirements.txt"] == "flask==3.0.0\ntomli==2.0 ; python_version < '3.11'\n"


def test_poetry_and_pipenv_wishes_become_ranges() -> None:
    """Without a lock the wishes themselves are installed."""
    wishes = 'python="^3.8"\na="^1.2"\nb="~2.3"\nc="*"\nd="1.0"\ne={version=">=1",extras=["x"]}\nf="^0.4"'
    files = {"pyproject.toml": f"[tool.poetry.dependencies]\n{wishes}"}
    assert python(files, "poetry").files["requirements.txt"].split() == [
        "a>=1.2,<2",
        "b>=2.3,<2.4",
        "c",
        "d==1.0",
        "e[x]>=1",
        "f>=0.4,<0.5",
    ]
    lock = json.dumps({"default": {"flask": {"version": "==3.0", "markers": "python_version>'3'", "extras": ["async"]}}})
    assert python({"Pipfile": "", "Pipfile.lock": lock}, "pipenv").files["requirements.txt"] == "flask[async]==3.0 ; python_version>'3'\n"


@pytest.mark.parametrize("name", ["a\n-e .", "-e .", "a @ file:///etc"])
def test_a_hostile_lock_cannot_add_lines(name: str) -> None:
    """A name with a line end or a leading dash in a lock file is not written into requirements."""
    lock = json.dumps({"default": {name: {"version": "==1"}}})
    assert python({"Pipfile": "", "Pipfile.lock": lock}, "pipenv").blocked


def test_a_project_with_a_src_folder_is_installed_itself() -> None:
    """A package layout needs the project on the path, so its install sees the source."""
    text = '[project]\nname="a"\ndependencies=[]\n[build-system]\nrequires=[]\n'
    assert python({"pyproject.toml": text, "uv.lock": "", "src/a/x.py": ""}, "uv").blocked
    assert not python({"pyproject.toml": text, "uv.lock": "", "a/x.py": ""}, "uv").blocked
    assert python({"pyproject.toml": text + "[tool.uv.sources]\nb={path='../b'}\n", "uv.lock": ""}, "uv").blocked
