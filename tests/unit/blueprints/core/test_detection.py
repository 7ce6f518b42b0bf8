"""Detection: what runs, read from the source itself."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from homeport.blueprints.detect import DetectReader, detect_services, fill
from homeport.blueprints.source import MemoryTree
from homeport.model.errors import BlueprintInvalid
from homeport.model.service import Build, HealthCheck, PrivateService, StaticService, WebService, WorkerService
from homeport.model.spec import Spec


def package(**keys: object) -> str:
    return json.dumps(keys)


FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
FLASK = "from flask import Flask\napp = Flask(__name__)\n"
MANAGE = "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'proj.settings')"
SETTINGS = (
    "BASE_DIR = 1\nWSGI_APPLICATION = 'proj.wsgi.application'\n"
    "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': BASE_DIR / 'db.sqlite3'}}\n"
)
VITE = package(scripts={"build": "vite build", "dev": "vite"}, devDependencies={"vite": "5"})

CASES: dict[str, tuple[Mapping[str, str], str, str]] = {
    "fastapi": ({"requirements.txt": "fastapi\nuvicorn\n", "main.py": FASTAPI}, "web", "uvicorn main:app --host $HOST --port $PORT"),
    "fastapi in a package": (
        {
            "pyproject.toml": '[project]\nname="x"\ndependencies=["fastapi[standard]>=0.1"]\n',
            "app/main.py": "import x\n" + FASTAPI,
            "app/__init__.py": "",
        },
        "web",
        "uvicorn app.main:app --host $HOST --port $PORT",
    ),
    "fastapi below src": (
        {"pyproject.toml": '[project]\nname="x"\ndependencies=["fastapi","uvicorn"]\n', "src/shop/main.py": "api: FastAPI = FastAPI(\n)\n"},
        "web",
        "uvicorn shop.main:api --app-dir src --host $HOST --port $PORT",
    ),
    "fastapi made by a factory": (
        {"requirements.txt": "fastapi\nuvicorn", "app.py": "def create_app() -> FastAPI:\n    app = FastAPI()\n    return app\n"},
        "web",
        "uvicorn app:create_app --factory --host $HOST --port $PORT",
    ),
    "starlette with hypercorn": (
        {"requirements.txt": "starlette\nhypercorn", "server.py": "app = Starlette(routes=[])\n"},
        "web",
        "hypercorn server:app --bind $HOST:$PORT",
    ),
    "flask": ({"requirements.txt": "Flask==3.0\n", "app.py": FLASK}, "web", "flask --app app run --host $HOST --port $PORT"),
    "flask with gunicorn": ({"requirements.txt": "flask\ngunicorn\n", "wsgi.py": FLASK}, "web", "gunicorn wsgi:app --bind $HOST:$PORT"),
    "flask made by a factory": (
        {
            "Pipfile": '[packages]\nflask = "*"\ngunicorn = "*"\n',
            "shop/__init__.py": "def create_app(config=None):\n    app = Flask(__name__)\n    return app\n",
        },
        "web",
        "gunicorn 'shop:create_app()' --bind $HOST:$PORT",
    ),
    "flask by a factory that is called": (
        {
            "requirements.txt": "-r requirements/base.txt\n",
            "requirements/base.txt": "flask\ngunicorn\n",
            "run.py": "from shop import create_app\napp = create_app()\n",
        },
        "web",
        "gunicorn run:app --bind $HOST:$PORT",
    ),
    "flask of poetry": (
        {"pyproject.toml": '[tool.poetry.dependencies]\npython = "^3.11"\nflask = "*"\nwaitress = {version = "*"}\n', "app.py": FLASK},
        "web",
        "waitress-serve --listen=$HOST:$PORT app:app",
    ),
    "streamlit": (
        {"requirements.txt": "streamlit", "app.py": "import streamlit as st\n"},
        "web",
        "streamlit run app.py --server.port $PORT --server.address $HOST --server.headless true",
    ),
    "gradio": (
        {"requirements.txt": "gradio", "app.py": "demo.launch()\n"},
        "web",
        "GRADIO_SERVER_NAME=$HOST GRADIO_SERVER_PORT=$PORT python app.py",
    ),
    "a script that listens": (
        {"requirements.txt": "", "main.py": "HTTPServer(('', int(os.environ['PORT'])), H)\n"},
        "web",
        "python main.py",
    ),
    "a bot": ({"requirements.txt": "discord.py", "bot.py": "client.run(TOKEN)\n"}, "worker", "python bot.py"),
    "one script of pyproject": ({"pyproject.toml": '[project]\nname="x"\n[project.scripts]\nserve = "x:main"\n'}, "worker", "serve"),
    "express": ({"package.json": package(scripts={"start": "node index.js"}, dependencies={"express": "4"})}, "web", "npm start"),
    "express with yarn": (
        {"package.json": package(scripts={"start": "node x"}, dependencies={"express": "4"}), "yarn.lock": ""},
        "web",
        "yarn start",
    ),
    "fastify without a start script": (
        {"package.json": package(main="server.js", dependencies={"fastify": "5"}), "server.js": ""},
        "web",
        "node server.js",
    ),
    "plain node": (
        {"package.json": package(name="x"), "index.js": "http.createServer(f).listen(process.env.PORT)"},
        "web",
        "node index.js",
    ),
    "a node worker": ({"package.json": package(scripts={"start": "node poll.js"}), "poll.js": "setInterval(f, 1)"}, "worker", "npm start"),
    "next": (
        {"package.json": package(scripts={"build": "next build", "start": "next start"}, dependencies={"next": "15"})},
        "web",
        "npm start",
    ),
    "next standalone": (
        {
            "package.json": package(scripts={"build": "next build"}, dependencies={"next": "15"}),
            "next.config.mjs": "export default { output: 'standalone' }",
        },
        "web",
        "HOSTNAME=$HOST node .next/standalone/server.js",
    ),
    "nuxt": (
        {"package.json": package(scripts={"build": "nuxt build"}, devDependencies={"nuxt": "3"})},
        "web",
        "node .output/server/index.mjs",
    ),
    "sveltekit with its node adapter": (
        {
            "package.json": package(
                scripts={"build": "vite build"}, devDependencies={"@sveltejs/kit": "2", "@sveltejs/adapter-node": "5", "vite": "5"}
            )
        },
        "web",
        "node build",
    ),
}
STATIC: dict[str, tuple[Mapping[str, str], str]] = {
    "vite": ({"package.json": VITE, "index.html": ""}, "dist"),
    "vite with its own folder": (
        {"package.json": VITE, "index.html": "", "vite.config.ts": "export default {build: {outDir: './out/'}}"},
        "out",
    ),
    "create-react-app": ({"package.json": package(scripts={"start": "react-scripts start"}, dependencies={"react-scripts": "5"})}, "build"),
    "astro": ({"package.json": package(scripts={"build": "astro build", "start": "astro dev"}, dependencies={"astro": "4"})}, "dist"),
    "sveltekit as files": ({"package.json": package(devDependencies={"@sveltejs/kit": "2", "@sveltejs/adapter-static": "3"})}, "build"),
    "next exported": (
        {
            "package.json": package(dependencies={"next": "15"}),
            "next.config.js": "// output: 'standalone'\nmodule.exports = {output: 'export'}",
        },
        "out",
    ),
    "angular": (
        {
            "package.json": package(scripts={"start": "ng serve", "build": "ng build"}, dependencies={"@angular/core": "18"}),
            "angular.json": json.dumps(
                {"projects": {"web": {"architect": {"build": {"builder": "@angular/build:application", "options": {}}}}}}
            ),
        },
        "dist/web/browser",
    ),
    "plain files": ({"index.html": ""}, ""),
    "a public folder": ({"public/index.html": "", "README.md": ""}, "public"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_start_command_is_found(name: str) -> None:
    """Each kind of application gets the service kind and start command its framework documents."""
    files, kind, command = CASES[name]
    found = detect_services(MemoryTree(files, "x"))
    assert [(item.service.kind, item.service.command) for item in found.values()] == [(kind, command)]
    assert all(item.notes for item in found.values())


@pytest.mark.parametrize("name", STATIC)
def test_the_publish_folder_is_found(name: str) -> None:
    """Bundlers and plain files become a static site with the folder that the bundler writes."""
    files, publish = STATIC[name]
    (found,) = detect_services(MemoryTree(files, "x")).values()
    assert isinstance(found.service, StaticService) and found.service.publish == publish


def test_django_migrates_and_collects() -> None:
    """A Django project runs its migrations before going live and collects static files."""
    files = {
        "requirements.txt": "Django\ngunicorn\n",
        "manage.py": MANAGE,
        "proj/settings.py": SETTINGS + "STATIC_ROOT = 1\n",
        "proj/wsgi.py": "",
    }
    (found,) = detect_services(MemoryTree(files, "x")).values()
    service = found.service
    assert isinstance(service, WebService) and isinstance(service.command, str)
    assert service.command.endswith("gunicorn proj.wsgi:application --bind $HOST:$PORT")
    assert service.release_command is not None and str(service.release_command.command).endswith("python manage.py migrate --noinput")
    assert service.build.command == "python manage.py collectstatic --noinput"
    (plain,) = detect_services(MemoryTree({**files, "requirements.txt": "Django", "proj/settings.py": "DATABASES = {}"}, "x")).values()
    assert plain.service.command == "python manage.py runserver --noreload $HOST:$PORT"
    assert not plain.service.build.command


def test_next_standalone_brings_its_files_along() -> None:
    """The build copies what Next leaves out of the standalone folder."""
    files, _, _ = CASES["next standalone"]
    (found,) = detect_services(MemoryTree(files, "x")).values()
    assert "cp -r .next/static .next/standalone/.next/static" in found.service.build.command


def test_monorepos_become_several_services() -> None:
    """Each application folder is a service of its own; libraries and the top of a workspace are none."""
    tree = MemoryTree(
        {
            "package.json": package(workspaces=["apps/*", "packages/*"]),
            "apps/api/package.json": package(scripts={"start": "node x"}, dependencies={"express": "4"}),
            "apps/site/package.json": VITE,
            "apps/site/index.html": "",
            "packages/lib/package.json": package(name="lib"),
            "backend/requirements.txt": "fastapi\nuvicorn",
            "backend/main.py": FASTAPI,
        },
        "x",
    )
    found = detect_services(tree)
    assert {name: (item.service.kind, item.service.root) for name, item in found.items()} == {
        "api": ("web", "apps/api"),
        "site": ("static", "apps/site"),
        "backend": ("web", "backend"),
    }


def test_a_front_end_beside_a_server_is_found_unless_the_server_builds_it() -> None:
    """A folder called frontend is a site of its own, but not when the scripts at the top build it."""
    front = {"frontend/package.json": VITE, "frontend/index.html": ""}
    server = {"requirements.txt": "flask", "app.py": FLASK}
    assert set(detect_services(MemoryTree({**server, **front}, "x"))) == {"web", "frontend"}
    builds = {
        "package.json": package(scripts={"build": "npm run build --prefix frontend", "start": "node s"}, dependencies={"express": "4"})
    }
    assert set(detect_services(MemoryTree({**builds, **front}, "x"))) == {"web"}


def test_other_languages_and_dockerfiles_are_named() -> None:
    """A language without a builder, and a lone Dockerfile, still become a service that says what it needs."""
    (go,) = detect_services(MemoryTree({"go.mod": "", "main.go": ""}, "x")).values()
    assert go.service.build.runtime == "go" and "Dockerfile" in go.notes[0]
    (docker,) = detect_services(MemoryTree({"Dockerfile": "FROM x\nEXPOSE 8080"}, "x")).values()
    assert isinstance(docker.service, WebService) and (docker.service.build.builder, docker.service.port) == ("dockerfile", 8080)


@pytest.mark.parametrize("files", [{}, {"README.md": ""}, {"package.json": "{broken"}, {"package.json": "[]"}, {"tests/test_x.py": ""}])
def test_nothing_recognised_is_an_error_with_a_way_on(files: Mapping[str, str]) -> None:
    """A tree without an application is refused with what to do about it."""
    tree = MemoryTree(files, "x")
    assert DetectReader().candidates(tree) == []
    with pytest.raises(BlueprintInvalid) as caught:
        DetectReader().read(tree, ".")
    assert "homeport init" in caught.value.fix


def test_filling_never_changes_what_a_file_says() -> None:
    """A command, a publish folder or a health check that is there stays; what is missing comes from the source, with a note."""
    tree = MemoryTree({"requirements.txt": "flask\ngunicorn", "app.py": FLASK, "web/package.json": VITE, "web/index.html": ""}, "x")
    spec = Spec(
        name="x",
        services={
            "own": WebService(command="mine", health=HealthCheck(path="/up")),
            "open": WebService(),
            "inner": PrivateService(command="x"),
            "image": WebService(build=Build(builder="image", image="nginx")),
            "site": StaticService(root="web", build=Build(builder="command", command="make")),
            "plain": StaticService(build=Build(builder="none")),
            "files": StaticService(root="nowhere"),
            "other": WorkerService(root="nowhere"),
        },
    )
    filled, notes = fill(spec, tree)
    assert filled.services["own"] == spec.services["own"]
    opened, inner, image, site = (filled.services[name] for name in ("open", "inner", "image", "site"))
    assert opened.command == "gunicorn app:app --bind $HOST:$PORT"
    assert opened.health is not None and (opened.health.kind, opened.health.expect_status) == ("http", (100, 499))
    assert inner.health is not None and inner.health.kind == "tcp"
    assert image.command == ""
    assert isinstance(site, StaticService) and (site.publish, site.build.command) == ("dist", "make")
    assert any(note.startswith("other: no start command") for note in notes)
    assert [note for note in notes if note.startswith(("plain:", "files:"))] == [
        "files: no folder of built files is named, and none was recognised: nowhere itself is served."
    ]
    assert fill(filled, tree)[0] == filled
