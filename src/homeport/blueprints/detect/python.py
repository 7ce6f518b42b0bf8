"""Python applications: which framework, where its application object is, and how it is started."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from homeport.blueprints.detect.files import Folder, mapping
from homeport.blueprints.detect.found import Found
from homeport.blueprints.naming import clean_path
from homeport.model.service import Build, Hook, WebService, WorkerService

MANIFESTS = (
    "requirements.txt",
    "pyproject.toml",
    "Pipfile",
    "uv.lock",
    "poetry.lock",
    "setup.py",
    "setup.cfg",
    "environment.yml",
    "manage.py",
)
ENTRIES = (
    "main",
    "app",
    "server",
    "api",
    "application",
    "wsgi",
    "asgi",
    "run",
    "web",
    "index",
    "__init__",
    "factory",
    "bot",
    "worker",
    "__main__",
)
"""Module names in the order in which people expect the application."""
FRAMEWORKS = {
    "FastAPI": "fastapi", "Starlette": "starlette", "Litestar": "litestar", "Quart": "quart", "Sanic": "sanic", "Flask": "flask",
    "Dash": "dash", "Bottle": "bottle", "Falcon": "falcon",
}  # fmt: skip
ASYNC = frozenset({"fastapi", "starlette", "litestar", "quart", "sanic"})
_NAME = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._\-]*)\s*(\[[^\]]*\])?")
_OBJECT = re.compile(
    r"^(\w+)\s*(?::\s*[\w.]+\s*)?=\s*(?:\w+\.)?(FastAPI|Starlette|Litestar|Quart|Sanic|Flask|Dash|Bottle|connexion\.FlaskApp)\s*\(",
    re.MULTILINE,
)
_FACTORY_CALL = re.compile(
    r"^(app|application|api)\s*(?::\s*[\w.]+\s*)?=\s*(?:\w+\.)?(create_app|make_app|get_app|build_app|create_application)\s*\(",
    re.MULTILINE,
)
_FACTORY = re.compile(r"^(?:async\s+)?def\s+(create_app|make_app|get_app|build_app|create_application)\s*\(\s*([^)]*)\)", re.MULTILINE)
_MAIN = re.compile(r"^if\s+__name__\s*==\s*['\"]__main__['\"]", re.MULTILINE)
_LISTENS = re.compile(
    r"HTTPServer|socketserver|web\.run_app|uvicorn\.run|\.listen\(|serve_forever|waitress\.serve|app\.run\(|run_simple|launch\(|"
    r"environ(?:\.get)?[\[(]['\"]PORT['\"]|getenv\(['\"]PORT['\"]"
)


def detect_python(folder: Folder) -> Found | None:
    """The application of a folder of Python, or None."""
    top = [name for name in folder.names if name.endswith(".py")]
    if not folder.has(*MANIFESTS) and not any(name[:-3] in ENTRIES for name in top):
        return None
    packages = dependencies(folder)
    for attempt in (_django, _streamlit, _application, _gradio, _script):
        found = attempt(folder, packages)
        if found is not None:
            return found
    return None


def dependencies(folder: Folder) -> dict[str, str]:
    """Names of the packages an application asks for, normalised, with their extras. Lock files are not needed for that."""
    found: dict[str, str] = {}

    def add(lines: Iterable[Any]) -> None:
        for line in lines:
            match = _NAME.match(line) if isinstance(line, str) else None
            if match:
                found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2] or ""

    requirements = ["requirements.txt", "requirements/base.txt", "requirements/production.txt", "requirements/prod.txt"]
    for name in requirements:
        if folder.first(name):
            add(folder.text(name).splitlines())
    for line in folder.text("requirements.txt").splitlines():
        if included := re.match(r"^(?:-r|--requirement)[ =]+(\S+)", line.strip()):
            add(folder.text(_inside(included[1])).splitlines())
    project = folder.toml("pyproject.toml")
    add(mapping(project, "project").get("dependencies") or [])
    for extra in mapping(project, "project", "optional-dependencies").values():
        add(extra if isinstance(extra, list) else [])
    poetry = mapping(project, "tool", "poetry", "dependencies")
    for name, wanted in poetry.items():
        extras = wanted.get("extras") if isinstance(wanted, dict) else None
        add([f"{name}[{','.join(map(str, extras))}]" if isinstance(extras, list) else name])
    add(mapping(folder.toml("Pipfile"), "packages"))
    found.pop("python", None)
    return found


def _inside(path: str) -> str:
    try:
        return clean_path(path)
    except ValueError:
        return ""


def _django(folder: Folder, packages: dict[str, str]) -> Found | None:
    manage = folder.first("manage.py", *(f"{name}/manage.py" for name in folder.folders()))
    text = folder.text(manage) if manage else ""
    named = re.search(r"DJANGO_SETTINGS_MODULE['\"]\s*,\s*['\"]([\w.]+)['\"]", text)
    if not named:
        return None
    root = manage.rpartition("/")[0]
    settings_module = named[1]
    settings = _module_text(folder, root, settings_module)
    project = re.search(r"WSGI_APPLICATION\s*=\s*['\"]([\w.]+)\.\w+['\"]", settings)
    wsgi = project[1] if project else settings_module.split(".")[0] + ".wsgi"
    asgi = wsgi.removesuffix(".wsgi") + ".asgi"
    inside = f"cd {root} && " if root else ""
    notes = [f"Django project {settings_module.split('.')[0]}, by {manage}."]
    if "daphne" in packages or ("channels" in packages and "daphne" in packages):
        command = f"daphne -b $HOST -p $PORT {asgi}:application"
    elif "gunicorn" in packages and "uvicorn-worker" in packages:
        command = f"gunicorn {asgi}:application -k uvicorn_worker.UvicornWorker --bind $HOST:$PORT"
    elif "gunicorn" in packages:
        command = f"gunicorn {wsgi}:application --bind $HOST:$PORT"
    elif "uvicorn" in packages and "channels" in packages:
        command = f"uvicorn {asgi}:application --host $HOST --port $PORT"
    elif "waitress" in packages:
        command = f"waitress-serve --listen=$HOST:$PORT {wsgi}:application"
    else:
        command = "python manage.py runserver --noreload $HOST:$PORT"
        notes.append("No server such as gunicorn is in the requirements: Django's own development server is used.")
    web: dict[str, Any] = {"command": inside + command, "build": Build(runtime="python", framework="django")}
    if "DATABASES" in settings or _has_migrations(folder, root):
        web["release_command"] = Hook(command=f"{inside}python manage.py migrate --noinput")
    if re.search(r"^\s*STATIC_ROOT\s*=", settings, re.MULTILINE):
        collect = "python manage.py collectstatic --noinput"
        if re.search(r"environ\[|env\(['\"]\w+['\"]\s*\)|config\(['\"]\w+['\"]\s*\)", settings):
            collect += " || echo 'collectstatic was skipped: the settings want variables that a build does not have'"
        web["build"] = Build(runtime="python", framework="django", command=inside + collect)
    return Found(WebService(**web), tuple(notes))


def _module_text(folder: Folder, root: str, module: str) -> str:
    """The text of a settings module; of a package, its files together."""
    base = (f"{root}/" if root else "") + module.replace(".", "/")
    if folder.first(f"{base}.py"):
        text = folder.text(f"{base}.py")
    else:
        text = "\n".join(folder.text(f"{base}/{name}.py") for name in ("__init__", "base", "production", "common", "settings"))
    parent = base.rpartition("/")[0]
    for star in re.findall(r"^from\s+\.(\w+)\s+import\s+\*", text, re.MULTILINE):
        text += "\n" + folder.text(f"{parent}/{star}.py")
    return text


def _has_migrations(folder: Folder, root: str) -> bool:
    inner = Folder(folder.tree, folder.at(root) if root else folder.path)
    return any(name.startswith("0") for app in inner.folders() for name in folder.tree.list(inner.at(f"{app}/migrations")))


def _streamlit(folder: Folder, packages: dict[str, str]) -> Found | None:
    if "streamlit" not in packages:
        return None
    for path in _by_likelihood(folder.sources((".py",), 1), ("streamlit_app", "app", "main", "home", "dashboard", "index")):
        if re.search(r"^\s*(import streamlit|from streamlit)", folder.text(path), re.MULTILINE) and "/pages/" not in f"/{path}":
            command = f"streamlit run {path} --server.port $PORT --server.address $HOST --server.headless true"
            return Found(
                WebService(command=command, build=Build(runtime="python", framework="streamlit")), (f"Streamlit application {path}.",)
            )
    return None


def _by_likelihood(paths: list[str], names: tuple[str, ...]) -> list[str]:
    def rank(path: str) -> tuple[int, int, str]:
        stem = path.rpartition("/")[2][:-3].lower()
        return (names.index(stem) if stem in names else len(names), path.count("/"), path)

    return sorted(paths, key=rank)


def _application(folder: Folder, packages: dict[str, str]) -> Found | None:
    candidates = _by_likelihood(folder.sources((".py",), 3), ENTRIES)
    for path in candidates:
        text = folder.text(path)
        match = _OBJECT.search(text)
        if match and match[2] in ("Flask", "Bottle") and _FACTORY.search(text) and match.start() > _FACTORY.search(text).start():  # type: ignore[union-attr]
            match = None
        if match:
            name = f"{match[1]}.server" if match[2] == "Dash" else match[1]
            if match[2] == "Dash":
                server = re.search(rf"^(\w+)\s*=\s*{match[1]}\.server\b", text, re.MULTILINE)
                name = server[1] if server else name
            return _served(folder, packages, path, name, FRAMEWORKS[match[2]])
    for path in candidates:
        text = folder.text(path)
        framework = next((name for name in ("fastapi", "starlette", "litestar", "quart", "sanic", "flask") if name in packages), "")
        called = _FACTORY_CALL.search(text)
        if framework and called:
            return _served(folder, packages, path, called[1], framework)
    for path in candidates:
        text = folder.text(path)
        factory = _FACTORY.search(text)
        for title, framework in FRAMEWORKS.items():
            if factory and re.search(rf"\b{title}\(", text) and not re.search(r"^\s*\w+\s*(?::\s*\w+)?\s*(,|$)", factory[2]):
                return _served(folder, packages, path, f"{factory[1]}()", framework)
    return None


def _served(folder: Folder, packages: dict[str, str], path: str, name: str, framework: str) -> Found | None:
    where, module = _module(path)
    if module is None:
        return Found(WebService(command=f"python {path}", build=Build(runtime="python", framework=framework)), (f"{framework} in {path}.",))
    factory = name.endswith("()")
    target = f"{module}:{name}"
    notes = [f"{framework} application {target}."]
    build = Build(runtime="python", framework=framework)
    chdir = f" --chdir {where}" if where else ""
    if framework in ASYNC:
        extras = packages.get("fastapi", "")
        if "uvicorn" in packages or "fastapi-cli" in packages or "standard" in extras or "all" in extras:
            command = _uvicorn(target, where, factory)
        elif "hypercorn" in packages:
            command = f"hypercorn {target} --bind $HOST:$PORT"
        elif "granian" in packages:
            command = f"granian --interface asgi --host $HOST --port $PORT {target}"
        elif framework == "sanic":
            command = f"sanic {target} --host=$HOST --port=$PORT --single-process"
        elif "daphne" in packages:
            command = f"daphne -b $HOST -p $PORT {target}"
        else:
            command = _uvicorn(target, where, factory)
            if folder.has("requirements.txt"):
                build = build.model_copy(update={"install": "pip install -r requirements.txt uvicorn"})
            notes.append("No server such as uvicorn is in the requirements: uvicorn is added.")
    elif "gunicorn" in packages:
        shown = f"'{target}'" if factory else target
        command = f"gunicorn {shown} --bind $HOST:$PORT{chdir}"
    elif "waitress" in packages:
        command = f"waitress-serve --listen=$HOST:$PORT {'--call ' + target[:-2] if factory else target}"
    elif framework == "flask":
        shown = f"{where}/{module.replace('.', '/')}.py" if where else module
        command = f"flask --app {shown if name in ('app', 'application') or factory else f'{shown}:{name}'} run --host $HOST --port $PORT"
        notes.append("No server such as gunicorn is in the requirements: Flask's own development server is used.")
    else:
        command = f"python {path}"
    service = WebService(command=command, build=build)
    return Found(service, tuple(notes))


def _uvicorn(target: str, where: str, factory: bool) -> str:
    target = target.removesuffix("()")
    return f"uvicorn {target}{' --factory' if factory else ''}{f' --app-dir {where}' if where else ''} --host $HOST --port $PORT"


def _module(path: str) -> tuple[str, str | None]:
    """The folder to import from (`src`, or the root) and the dotted module; None when the path is no importable name."""
    parts = path.removesuffix(".py").split("/")
    where = ""
    if parts[0] == "src" and len(parts) > 1:
        where, parts = "src", parts[1:]
    if parts[-1] == "__init__":
        parts = parts[:-1]
    if not parts or not all(part.isidentifier() for part in parts):
        return where, None
    return where, ".".join(parts)


def _gradio(folder: Folder, packages: dict[str, str]) -> Found | None:
    if "gradio" not in packages:
        return None
    for path in _by_likelihood(folder.sources((".py",), 1), ENTRIES):
        if re.search(r"\.launch\(", folder.text(path)):
            command = f"GRADIO_SERVER_NAME=$HOST GRADIO_SERVER_PORT=$PORT python {path}"
            return Found(WebService(command=command, build=Build(runtime="python", framework="gradio")), (f"Gradio application {path}.",))
    return None


def _script(folder: Folder, packages: dict[str, str]) -> Found | None:  # noqa: ARG001
    """No framework: the script people would start. It is a web service only when it seems to listen."""
    build = Build(runtime="python")
    scripts = _by_likelihood(
        [p for p in folder.sources((".py",), 1) if p.rpartition("/")[2] not in ("__init__.py", "setup.py", "conftest.py")], ENTRIES
    )
    runnable = [p for p in scripts if p.count("/") == 0 and (p[:-3] in ENTRIES or _MAIN.search(folder.text(p)))]
    runnable += [p for p in scripts if p.endswith("/__main__.py")]
    if not runnable:
        named = list(mapping(folder.toml("pyproject.toml"), "project", "scripts"))
        if len(named) == 1:
            return Found(WorkerService(command=named[0], build=build), (f"The script {named[0]} of pyproject.toml runs as a worker.",))
        return None
    path = runnable[0]
    command = f"python -m {path.rpartition('/')[0].replace('/', '.')}" if path.endswith("/__main__.py") else f"python {path}"
    if any(_LISTENS.search(folder.text(name)) for name in [path, *scripts[:20]]):
        return Found(WebService(command=command, build=build), (f"{path} listens on a port.",))
    return Found(WorkerService(command=command, build=build), (f"{path} shows no sign of a server: it runs as a worker.",))
