"""Finding out how a service is built."""

from __future__ import annotations

import json
from typing import Any

import pytest

from homeport.blueprints.source import MemoryTree
from homeport.drivers.builders.detect import detect
from homeport.drivers.builders.errors import UnknownLanguage
from homeport.drivers.builders.recipe import Command, NodeInstall, PythonInstall, Recipe
from homeport.model.service import Build, StaticService, WebService


def recipe(files: dict[str, str], env: dict[str, str] | None = None, **definition: Any) -> Recipe:
    return detect(MemoryTree(files), WebService(**definition), "web", env or {})


def texts(found: Recipe) -> list[str]:
    return [step.text if isinstance(step, Command) else f"{getattr(step, 'tool', '')}{getattr(step, 'method', '')}" for step in found.steps]


def package(**fields: Any) -> str:
    return json.dumps({"name": "x", **fields})


@pytest.mark.parametrize(
    ("files", "expected", "python", "node"),
    [
        ({"requirements.txt": ""}, ["files"], "", None),
        ({"pyproject.toml": "", "uv.lock": ""}, ["uv"], "", None),
        ({"pyproject.toml": "[project]\ndependencies=[]"}, ["pyproject"], "", None),
        ({"pyproject.toml": "[tool.poetry]", "poetry.lock": ""}, ["poetry"], "", None),
        ({"Pipfile": ""}, ["pipenv"], "", None),
        ({"setup.py": ""}, ["project"], "", None),
        ({"main.py": ""}, [], "", None),
        ({"package.json": package()}, ["npm"], None, ""),
        ({"package.json": package(scripts={"build": "x"}), "yarn.lock": ""}, ["yarn", "yarn run build"], None, ""),
        ({"package.json": package(), "pnpm-lock.yaml": ""}, ["pnpm"], None, ""),
        ({"package.json": package(), "bun.lock": ""}, ["bun"], None, ""),
        ({"package.json": package(packageManager="pnpm@9.1.0")}, ["pnpm"], None, ""),
        ({"package.json": package(), "requirements.txt": ""}, ["npm", "files"], "", ""),
        ({"index.html": ""}, [], None, None),
    ],
)
def test_the_language_is_known_by_its_files(files: dict[str, str], expected: list[str], python: str | None, node: str | None) -> None:
    """Manifests and lock files name the language, the package manager and whether there is a build step."""
    found = recipe(files)
    assert texts(found) == expected
    assert (found.python, found.node) == (python, node)


def test_a_node_service_that_also_installs_with_pip_gets_both_languages() -> None:
    """The hybrid: one command line, two toolchains."""
    found = recipe(
        {"package.json": package(), "requirements.txt": ""},
        build=Build(builder="command", runtime="node", command="npm install && pip install -r requirements.txt"),
        command="node server.js",
    )
    assert [type(step) for step in found.steps] == [NodeInstall, PythonInstall]
    assert found.python is not None
    assert found.node is not None


@pytest.mark.parametrize(
    ("files", "env", "wish"),
    [
        ({"runtime.txt": "python-3.11.7\n", "requirements.txt": ""}, {}, "python-3.11.7"),
        ({".python-version": "# pin\n3.12\n", "requirements.txt": ""}, {}, "3.12"),
        ({"pyproject.toml": '[project]\nrequires-python=">=3.10"\ndependencies=[]'}, {}, ">=3.10"),
        ({"pyproject.toml": '[tool.poetry.dependencies]\npython="^3.11"', "poetry.lock": ""}, {}, "^3.11"),
        ({"Pipfile": '[requires]\npython_version="3.9"'}, {}, "3.9"),
        ({"runtime.txt": "python-3.11.7", "requirements.txt": ""}, {"PYTHON_VERSION": "3.13.0"}, "3.13.0"),
    ],
)
def test_the_wished_python_is_found(files: dict[str, str], env: dict[str, str], wish: str) -> None:
    """Every place that projects name their Python in is read, the variable first."""
    assert recipe(files, env).python == wish


@pytest.mark.parametrize(
    ("files", "env", "wish"),
    [
        ({"package.json": package(engines={"node": ">=18 <21"})}, {}, ">=18 <21"),
        ({"package.json": package(engines={"node": "18"}), ".nvmrc": "v20.1\n"}, {}, "v20.1"),
        ({"package.json": package(), ".node-version": "22"}, {}, "22"),
        ({"package.json": package(), ".tool-versions": "python 3.1\nnodejs 20.2.0\n"}, {}, "20.2.0"),
        ({"package.json": package(volta={"node": "16.1.0"})}, {}, "16.1.0"),
        ({"package.json": package(), ".nvmrc": "18"}, {"NODE_VERSION": "22.1"}, "22.1"),
    ],
)
def test_the_wished_node_is_found(files: dict[str, str], env: dict[str, str], wish: str) -> None:
    """Every place that projects name their Node in is read, the variable first."""
    assert recipe(files, env).node == wish


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"engines": 3, "scripts": [], "packageManager": {}}', "\0", "[" * 100_000])
def test_a_broken_package_json_stops_nothing_here(text: str) -> None:
    """Detection reads what it can; the installer itself says what is wrong with the file."""
    assert texts(recipe({"package.json": text})) == ["npm"]


@pytest.mark.parametrize("text", ["= = =", "[project]\ndependencies = 3", "[project]\nrequires-python = 3\n", "\0"])
def test_a_broken_pyproject_stops_nothing_here(text: str) -> None:
    """The same for Python."""
    recipe({"pyproject.toml": text, "requirements.txt": ""})


def test_django_collects_its_static_files() -> None:
    """A Django project with STATIC_ROOT runs collectstatic when the file names no build command."""
    files = {"manage.py": "", "requirements.txt": "", "site/settings.py": "STATIC_ROOT = 'x'", "app/models.py": ""}
    assert texts(recipe(files)) == ["files", "python manage.py collectstatic --noinput"]


def test_a_given_command_replaces_the_detected_build() -> None:
    """A build command that installs is the whole build; one that does not comes after the detected install."""
    files = {"package.json": package(scripts={"build": "x"})}
    assert texts(recipe(files, build=Build(command="npm ci && npm run other"))) == ["npm", "npm run other"]
    assert texts(recipe(files, build=Build(command="make"))) == ["npm", "make"]
    assert texts(recipe(files, build=Build(install="yarn"))) == ["yarn", "yarn run build"]
    assert texts(recipe(files, build=Build(builder="command", command="make"))) == ["make"]
    assert texts(recipe(files, build=Build(builder="none"))) == []


def test_yarn_two_and_later_are_told_from_yarn_one() -> None:
    """The form of yarn.lock, or .yarnrc.yml, decides which Yarn is used."""
    assert recipe({"package.json": package(), "yarn.lock": "# yarn lockfile v1\n"}).tools == {"yarn": "1"}
    assert recipe({"package.json": package(), "yarn.lock": "__metadata:\n"}).tools == {"yarn": "4"}
    assert recipe({"package.json": package(packageManager="yarn@3.2.1"), "yarn.lock": ""}).tools == {"yarn": "3.2.1"}


@pytest.mark.parametrize(("files", "runtime"), [({"main.go": ""}, "go"), ({}, ""), ({"README.md": ""}, ""), ({"Gemfile": ""}, "ruby")])
def test_an_unknown_language_is_said_to_be_unknown(files: dict[str, str], runtime: str) -> None:
    """Nothing is guessed: without a known file or a command the error says what to add."""
    with pytest.raises(UnknownLanguage):
        recipe(files, build=Build(runtime=runtime))


def test_a_static_service_without_a_build_needs_nothing() -> None:
    """Plain files are served as they are, from the folder the file names."""
    found = detect(MemoryTree({"public/index.html": ""}), StaticService(publish="./public"), "site", {})
    assert found.steps == ()
    assert found.publish == "./public"


def test_the_root_folder_is_where_files_are_looked_for() -> None:
    """A service in a subfolder is known by the files of that folder."""
    found = recipe({"package.json": package(), "api/requirements.txt": ""}, root="api")
    assert texts(found) == ["files"]
    assert found.node is None
