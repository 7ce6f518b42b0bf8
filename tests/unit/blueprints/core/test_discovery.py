"""One project, several files: precedence, filling, conflicts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from homeport.blueprints.discover import find_files, read_project
from homeport.blueprints.source import FolderTree, MemoryTree, SubTree
from homeport.model.env import FromAddOn, Template
from homeport.model.errors import BlueprintInvalid
from homeport.model.service import WebService

FLASK = {"requirements.txt": "flask\ngunicorn\n", "app.py": "from flask import Flask\napp = Flask(__name__)\n"}
RENDER = "services: [{type: web, name: api, runtime: python, startCommand: render-start, healthCheckPath: /up}]\n"
COMPOSE = """
services:
  api:
    build: .
    command: compose-start
    environment: {DATABASE_URL: "postgres://u:p@db:5432/app", DEBUG: "1"}
  admin: {image: dpage/pgadmin4}
  db: {image: "postgres:16"}
"""
SITE = {"index.html": "", "package.json": '{"scripts": {"build": "vite build"}, "devDependencies": {"vite": "5"}}'}


def below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


def test_precedence_is_homeport_platform_compose_procfile_source() -> None:
    """The first of these that is there decides."""
    files = {
        "homeport.yaml": "services: {api: {kind: web, command: homeport-start}}\n",
        "render.yaml": RENDER,
        "docker-compose.yml": COMPOSE,
        "Procfile": "web: procfile-start\n",
        **FLASK,
    }
    expected = ["homeport-start", "render-start", "compose-start", "procfile-start", "gunicorn app:app --bind $HOST:$PORT"]
    order = ["homeport.yaml", "render.yaml", "docker-compose.yml", "Procfile", "."]
    for index, command in enumerate(expected):
        left = {name: text for name, text in files.items() if name not in order[:index]}
        project = read_project(MemoryTree(left, "shop"))
        service = next(iter(project.spec.services.values()))
        assert project.file == order[index]
        assert service.command in (command, tuple(command.split()))


def test_disputes_are_named() -> None:
    """Where two files say different things about a service, the report names both files and the key."""
    project = read_project(MemoryTree({"render.yaml": RENDER, "Procfile": "web: procfile-start\n"}, "shop"))
    assert [(c.path, c.kept, c.dropped) for c in project.conflicts] == [("services.api.command", "render.yaml", "Procfile")]


def test_a_procfile_fills_a_missing_start_command() -> None:
    """A platform file without a start command takes it from the Procfile, with the release command."""
    render = "services: [{type: web, name: api, runtime: python}]\n"
    project = read_project(MemoryTree({"render.yaml": render, "Procfile": "web: start\nrelease: migrate\n"}, "shop"))
    service = project.spec.services["api"]
    assert service.command == "start" and service.release_command is not None and service.release_command.command == "migrate"


def test_add_ons_come_with_the_variables_that_need_them() -> None:
    """A platform file that names no database gets Compose's, wired to the matching service, and no development values."""
    railway = '{"build": {"builder": "NIXPACKS"}, "deploy": {"startCommand": "start"}}'
    project = read_project(MemoryTree({"railway.json": railway, "docker-compose.yml": COMPOSE, **FLASK}, "shop"))
    (service,) = project.spec.services.values()
    assert list(project.spec.addons) == ["db"]
    assert list(service.env) == ["DATABASE_URL"] and isinstance(service.env["DATABASE_URL"], FromAddOn | Template)
    assert any("admin" in warning for warning in project.warnings)


def test_a_choice_decides_instead_of_precedence() -> None:
    """`prefer` takes a file name, a path or a dialect; one that is not there is refused with what is."""
    tree = MemoryTree({"render.yaml": RENDER, "docker-compose.yml": COMPOSE, **FLASK}, "shop")
    assert read_project(tree, prefer="docker-compose.yml").dialect == "compose"
    assert read_project(tree, prefer="compose").file == "docker-compose.yml"
    detected = read_project(tree, prefer="detect")
    assert detected.dialect == "detect" and detected.spec.services["web"].command == "gunicorn app:app --bind $HOST:$PORT"
    with pytest.raises(BlueprintInvalid, match="railway"):
        read_project(tree, prefer="railway")


def test_a_broken_file_stops_only_when_it_decides() -> None:
    """The deciding file must be valid; another that is broken is named and left out."""
    with pytest.raises(BlueprintInvalid):
        read_project(MemoryTree({"render.yaml": "services: [", **FLASK}, "shop"))
    project = read_project(MemoryTree({"render.yaml": RENDER, "docker-compose.yml": "services: [", **FLASK}, "shop"))
    assert project.file == "render.yaml" and [item.file for item in project.skipped] == ["docker-compose.yml"]
    assert any("docker-compose.yml was not used" in warning for warning in project.warnings)


def test_a_second_file_of_a_dialect_is_named() -> None:
    """Where two names of one dialect lie side by side, the first is read and the other reported."""
    project = read_project(MemoryTree({"render.yaml": RENDER, "render.yml": RENDER}, "shop"))
    assert [(item.file, item.reason) for item in project.skipped] == [("render.yml", "render.yaml stands before it")]


def test_folders_with_files_of_their_own() -> None:
    """Without a file at the top, each folder's file describes that folder, and folders without one are detected."""
    tree = MemoryTree(
        {
            **below("web", {**SITE, "render.yaml": "services: [{type: web, name: site, runtime: static, staticPublishPath: dist}]"}),
            **below("api", {**FLASK, "Procfile": "web: start\n"}),
            **below("extra", FLASK),
        },
        "shop",
    )
    project = read_project(tree)
    assert {name: service.root for name, service in project.spec.services.items()} == {"api": "api", "web": "web", "extra": "extra"}


def test_a_folder_file_beside_a_blueprint_at_the_top() -> None:
    """A folder's file is used when no service at the top stands for that folder, and reported when one does."""
    front = below("frontend", {**SITE, "Procfile": "web: serve\n"})
    tree = MemoryTree({"render.yaml": RENDER.replace("runtime: python", "runtime: python, rootDir: backend"), **front}, "shop")
    assert set(read_project(tree).spec.services) == {"api", "web"}
    covered = read_project(MemoryTree({"render.yaml": RENDER, **front}, "shop"))
    assert set(covered.spec.services) == {"api"} and [item.file for item in covered.skipped] == ["frontend/Procfile"]


def test_pipelines_are_collected_and_never_decide() -> None:
    """Workflows are listed beside what runs; a broken one is only named."""
    workflow = "on: push\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps: [{run: make}]\n"
    tree = MemoryTree({**FLASK, ".github/workflows/ci.yml": workflow, ".github/workflows/bad.yml": "on: ["}, "shop")
    project = read_project(tree)
    assert project.dialect == "detect" and [pipeline.file for pipeline in project.spec.pipelines] == [".github/workflows/ci.yml"]
    assert [item.file for item in project.skipped] == [".github/workflows/bad.yml"]


def test_the_environment_is_applied_and_the_whole_document_kept() -> None:
    """`spec` is what runs in the environment asked for; `document` still holds every environment."""
    text = "services: {web: {kind: web, command: x}}\nenvironments: {staging: {services: {web: {scale: {instances: 2}}}}}\n"
    tree = MemoryTree({"homeport.yaml": text}, "shop")
    project = read_project(tree, environment="staging")
    assert project.spec.services["web"].scale.instances == 2 and project.spec.environments == {}
    assert project.document.services["web"].scale.instances == 1 and "staging" in project.document.environments


def test_every_service_ends_with_a_health_check() -> None:
    """A web service nobody gave a path answers with anything but a server error; the file's own check stays."""
    web = read_project(MemoryTree({"Procfile": "web: x\n"}, "shop")).spec.services["web"]
    assert isinstance(web, WebService) and web.health is not None and web.health.expect_status == (100, 499)
    api = read_project(MemoryTree({"render.yaml": RENDER}, "shop")).spec.services["api"]
    assert isinstance(api, WebService) and api.health is not None and api.health.path == "/up"


def test_trees_are_closed(tmp_path: Path) -> None:
    """Neither `..`, links out of the folder, nor NULs reach a file outside of a tree."""
    (tmp_path / "secret").write_text("x")
    (tmp_path / "app" / "sub").mkdir(parents=True)
    (tmp_path / "app" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "app" / "sub" / "a.txt").write_text("a")
    tree = FolderTree(tmp_path / "app")
    assert tree.text("../secret") is None and tree.text("link") is None and tree.text("a\0b") is None
    inner = SubTree(tree, "sub")
    assert inner.text("a.txt") == "a" and inner.list() == ["a.txt"] and inner.text("../link") is None and inner.list("..") == []


def test_reading_a_small_project_takes_less_than_50_ms() -> None:
    """Once imported, a project of a few files is read and filled within 50 ms of processor time."""
    tree = MemoryTree({"render.yaml": RENDER, "docker-compose.yml": COMPOSE, "Procfile": "web: x\n", **FLASK}, "shop")
    read_project(tree)
    spent = []
    for _ in range(5):
        begun = time.process_time()
        read_project(tree)
        spent.append(time.process_time() - begun)
    assert min(spent) < 0.05


def test_find_files_lists_them_in_order() -> None:
    """The files of the root folder, the deciding one first."""
    tree = MemoryTree({"Procfile": "web: x", "render.yaml": RENDER, "homeport.yaml": ""}, "shop")
    assert find_files(tree) == [("homeport", "homeport.yaml"), ("render", "render.yaml"), ("procfile", "Procfile")]
