"""Real applications, installed from the real package registries. Skipped where those cannot be reached."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from homeport.drivers.builders.base import BuildLimits, BuildRequest
from homeport.drivers.builders.errors import BuildFailed
from homeport.drivers.builders.process import ProcessBuilder
from homeport.drivers.files import remove_tree
from homeport.drivers.sources.local import LocalSource
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.release import Artifact
from homeport.model.service import Build, Service, StaticService, WebService
from homeport.settings import Settings

NETWORK = Settings.from_environment().network
USER = 61998 if os.geteuid() == 0 else None
EXPRESS = json.dumps({"name": "x", "dependencies": {"express": "4.21.2"}})


class Workshop:
    """One home for all tests of this file, so that caches are filled once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.toolchains = Toolchains(self.home, network=NETWORK)
        self.builder = ProcessBuilder(self.home, self.toolchains, network=NETWORK, reserve=0)
        self.lines: list[str] = []

    def app(self, name: str, files: dict[str, str]) -> Path:
        tree = self.folder / name
        for path, text in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        return tree

    def build(self, tree: Path, definition: Service, env: dict[str, str] | None = None) -> Artifact:
        revision, source = LocalSource(tree, self.home / "sources").fetch()
        self.lines = []
        return self.builder.build(
            BuildRequest(
                project="shop",
                environment="production",
                service="web",
                definition=definition,
                source=source,
                source_digest=revision.digest,
                env=env or {},
                user=USER,
                limits=BuildLimits(time=timedelta(minutes=5), memory=2 << 30),
            ),
            self.lines.append,
        )

    def run(self, artifact: Artifact, *argv: str) -> str:
        """Run something the way an instance would, and return what it printed."""
        env = {
            **artifact.env,
            "PATH": ":".join([*artifact.path, "/usr/bin", "/bin"]),
            "HOME": "/nonexistent",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        account = {} if USER is None else {"user": USER, "group": USER}
        done = subprocess.run(
            ["/usr/bin/env", *argv],
            cwd=Path(artifact.folder) / artifact.root,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **account,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stderr
        return str(done.stdout).strip()


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    """The folder is not pytest's own: that one is closed to the account that builds when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="homeport-languages-"))
    folder.chmod(0o755)
    try:
        yield _open(folder)
    finally:
        remove_tree(folder)


def _open(folder: Path) -> Workshop:
    made = Workshop(folder)
    asked = subprocess.run(
        [str(made.toolchains.uv), "pip", "compile", "--quiet", "--no-config", "--cache-dir", str(folder / "probe"), "-"],
        input="six", text=True, capture_output=True, env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **NETWORK}, timeout=60, check=False,
        cwd=folder,
    )  # fmt: skip
    if asked.returncode:
        pytest.skip("PyPI cannot be reached from here")
    return made


def test_flask_and_a_source_only_change(shop: Workshop) -> None:
    """Requirements become a layer; when only source changed nothing is installed again."""
    tree = shop.app(
        "flask", {"app.py": "import flask\n", "requirements.txt": "flask==3.1.0\ngunicorn==23.0.0\n", "runtime.txt": "python-3.11.x"}
    )
    first = shop.build(tree, WebService(command="gunicorn app:app"))
    assert shop.run(first, "python", "-c", "import app; print(app.flask.Flask.__name__)") == "Flask"
    assert shop.run(first, "gunicorn", "--version").startswith("gunicorn")
    (tree / "app.py").write_text("import flask\nx = 1\n")
    second = shop.build(tree, WebService(command="gunicorn app:app"))
    assert not any("installing" in line for line in shop.lines)
    assert second.env["VIRTUAL_ENV"] == first.env["VIRTUAL_ENV"]
    assert second.seconds < 20
    (tree / "requirements.txt").write_text("flask==3.1.0\n")
    third = shop.build(tree, WebService(command="flask run"))
    assert third.env["VIRTUAL_ENV"] != first.env["VIRTUAL_ENV"]


def test_a_layer_cannot_be_changed_by_who_uses_it(shop: Workshop) -> None:
    """Files of a layer are read-only, also for the account that built it."""
    tree = shop.app("frozen", {"app.py": "", "requirements.txt": "itsdangerous==2.2.0\n"})
    artifact = shop.build(tree, WebService(command="python app.py"))
    where = shop.run(artifact, "python", "-c", "import itsdangerous; print(itsdangerous.__file__)")
    assert Path(where).stat().st_mode & 0o222 == 0
    assert Path(where).stat().st_uid == os.geteuid()
    assert shop.run(artifact, "python", "-c", "import itsdangerous; print(itsdangerous.__cached__)").endswith(".pyc")


def test_fastapi_from_pyproject(shop: Workshop) -> None:
    """A pyproject without a lock is enough."""
    text = '[project]\nname = "a"\nversion = "0"\nrequires-python = ">=3.10"\ndependencies = ["fastapi==0.115.6", "uvicorn==0.34.0"]\n'
    artifact = shop.build(
        shop.app("fastapi", {"pyproject.toml": text, "main.py": "import fastapi"}), WebService(command="uvicorn main:app")
    )
    assert shop.run(artifact, "python", "-c", "import main; print(main.fastapi.__version__)") == "0.115.6"


def test_django_collects_and_migrates(shop: Workshop) -> None:
    """Django on SQLite: static files are collected in the build, management commands run on the result."""
    manage = (
        "import os, sys\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site1.settings')\n"
        "from django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n"
    )
    settings = (
        "SECRET_KEY = 'x'\nINSTALLED_APPS = ['django.contrib.staticfiles']\nSTATIC_URL = '/s/'\nSTATIC_ROOT = 'collected'\n"
        "STATICFILES_DIRS = ['assets']\nDATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}\n"
    )
    files = {
        "manage.py": manage,
        "site1/__init__.py": "",
        "site1/settings.py": settings,
        "assets/a.css": "x",
        "requirements.txt": "django==5.1.4\n",
    }
    artifact = shop.build(shop.app("django", files), WebService(command="python manage.py runserver"))
    assert (Path(artifact.folder) / "collected" / "a.css").read_text() == "x"
    assert "no issues" in shop.run(artifact, "python", "manage.py", "check")


def test_express_and_the_hybrid(shop: Workshop) -> None:
    """A Node service whose build also runs pip sees both languages; the packages of npm are shared with the plain one."""
    plain = shop.build(shop.app("express", {"package.json": EXPRESS, "a.js": ""}), WebService(command="node a.js"))
    assert shop.run(plain, "node", "-p", "require('express').name || 'ok'")
    assert plain.env["NODE_ENV"] == "production"
    assert (Path(plain.folder) / "node_modules").is_symlink()
    hybrid = shop.build(
        shop.app("hybrid", {"package.json": EXPRESS, "a.js": "", "requirements.txt": "itsdangerous==2.2.0\n"}),
        WebService(
            build=Build(builder="command", runtime="node", command="npm install && pip install -r requirements.txt"), command="node a.js"
        ),
    )
    ask_python = "require('child_process').execFileSync('python3', ['-c', 'import itsdangerous; print(7)']).toString()"
    script = f"require('express'); console.log({ask_python})"
    assert shop.run(hybrid, "node", "-e", script) == "7"
    assert not any("npm" in line for line in shop.lines)
    assert "python" in hybrid.runtime
    assert "node" in hybrid.runtime


@pytest.mark.parametrize(
    "manager",
    ["pnpm@9.1.0", "yarn@1.22.19", pytest.param("yarn@4.1.0", marks=pytest.mark.slow), pytest.param("bun@1.1.0", marks=pytest.mark.slow)],
)
def test_every_package_manager(shop: Workshop, manager: str) -> None:
    """pnpm, yarn old and new, and bun install what a project names, without being on the machine."""
    package = json.dumps({"name": "x", "packageManager": manager, "dependencies": {"ms": "2.1.3"}})
    files = {"package.json": package, **({".yarnrc.yml": "nodeLinker: node-modules\n"} if manager.startswith("yarn@4") else {})}
    artifact = shop.build(shop.app(manager.replace("@", "-"), files), WebService(command="node a.js"))
    assert shop.run(artifact, "node", "-p", "require('ms')('1s')") == "1000"
    assert manager.partition("@")[0] in " ".join(artifact.path)


def test_vite_leaves_only_the_site(shop: Workshop) -> None:
    """A static build keeps what is published; a second build with another source reuses the packages."""
    package = json.dumps({"name": "v", "scripts": {"build": "vite build"}, "devDependencies": {"vite": "5.4.11"}})
    tree = shop.app("vite", {"package.json": package, "index.html": "<script type=module src=/m.js></script>", "m.js": "console.log(1)"})
    definition = StaticService(build=Build(builder="command", command="npm install && npm run build"), publish="dist")
    artifact = shop.build(tree, definition, {"NODE_ENV": "production"})
    assert artifact.kind == "static"
    assert sorted(path.name for path in Path(artifact.folder).iterdir()) == ["assets", "index.html"]
    (tree / "m.js").write_text("console.log(2)")
    assert shop.build(tree, definition, {"NODE_ENV": "production"}).id != artifact.id
    assert not any("installing" in line for line in shop.lines)


def test_a_step_that_changes_packages_gets_its_own(shop: Workshop) -> None:
    """A build that writes into an installed package does not change what others share."""
    script = "node -e \"require('fs').appendFileSync('node_modules/ms/index.js', '//changed')\""
    package = {"name": "x", "dependencies": {"ms": "2.1.3"}}
    tree = shop.app("patching", {"package.json": json.dumps({**package, "scripts": {"build": script}})})
    artifact = shop.build(tree, WebService(command="node a.js"))
    assert (Path(artifact.folder) / "node_modules/ms/index.js").read_text().endswith("//changed")
    assert any("packages of its own" in line for line in shop.lines)
    (tree / "a.js").write_text("1")
    shop.build(tree, WebService(command="node a.js"))
    assert not any("packages of its own" in line for line in shop.lines)
    other = shop.build(shop.app("plain", {"package.json": json.dumps(package)}), WebService(command="node a.js"))
    assert not (Path(other.folder) / "node_modules/ms/index.js").read_text().endswith("//changed")


def test_scripts_after_the_install_see_the_source_and_the_packages(shop: Workshop) -> None:
    """A project's own `postinstall` runs at every build, on packages that are not installed again."""
    script = "node -e \"require('fs').writeFileSync('made.txt', require('ms')('1s') + require('fs').readFileSync('in.txt', 'utf8'))\""
    package = {"name": "x", "dependencies": {"ms": "2.1.3"}, "scripts": {"postinstall": script}}
    tree = shop.app("postinstall", {"package.json": json.dumps(package), "in.txt": "a"})
    assert (Path(shop.build(tree, WebService(command="node a.js")).folder) / "made.txt").read_text() == "1000a"
    (tree / "in.txt").write_text("b")
    assert (Path(shop.build(tree, WebService(command="node a.js")).folder) / "made.txt").read_text() == "1000b"
    assert not any("installing" in line for line in shop.lines)


@pytest.mark.slow
def test_a_workspace_is_installed_whole(shop: Workshop) -> None:
    """Packages that depend on each other are installed and built in the build's own folder."""
    files = {
        "package.json": json.dumps({"name": "r", "private": True, "workspaces": ["packages/*"]}),
        "packages/a/package.json": json.dumps({"name": "a", "version": "1.0.0", "main": "a.js"}),
        "packages/a/a.js": "module.exports = 42",
        "packages/b/package.json": json.dumps({"name": "b", "version": "1.0.0", "dependencies": {"a": "1.0.0"}}),
        "packages/b/b.js": "console.log(require('a'))",
    }
    definition = WebService(root="packages/b", command="node b.js", build=Build(command="cd ../.. && npm install", builder="command"))
    artifact = shop.build(shop.app("workspace", files), definition)
    assert artifact.root == "packages/b"
    assert shop.run(artifact, "node", "b.js") == "42"


def test_requirements_that_do_not_exist_fail_with_the_installers_words(shop: Workshop) -> None:
    """The error shows what the installer said."""
    tree = shop.app("missing", {"a.py": "", "requirements.txt": "no-such-package-anywhere-1234567==9\n"})
    with pytest.raises(BuildFailed) as caught:
        shop.build(tree, WebService(command="python a.py"))
    assert any("no-such-package-anywhere-1234567" in line for line in caught.value.tail)


@pytest.mark.parametrize("line", ["--index-url=file:///etc\nflask", "flask;touch X", "-e $(touch X)", "flask\x00", "`touch X`"])
def test_hostile_requirements_start_nothing(shop: Workshop, line: str) -> None:
    """A requirements file is data for the installer, never a command."""
    tree = shop.app("hostile", {"a.py": "", "requirements.txt": line + "\n"})
    with pytest.raises(BuildFailed):
        shop.build(tree, WebService(command="python a.py"))
    assert not list(shop.folder.rglob("X"))


@pytest.mark.slow
def test_a_machine_without_node(shop: Workshop, tmp_path: Path) -> None:
    """With neither node nor npm on the machine the pinned wheel builds a Node service."""
    home = shop.folder / "bare"
    bare = ProcessBuilder(home, Toolchains(home, network=NETWORK, search=[]), network=NETWORK, reserve=0)
    revision, source = LocalSource(shop.app("bare-app", {"package.json": EXPRESS}), home / "sources").fetch()
    artifact = bare.build(
        BuildRequest(
            project="p", environment="e", service="web", definition=WebService(command="node a.js"), source=source,
            source_digest=revision.digest, user=USER, limits=BuildLimits(time=timedelta(minutes=5)),
        ),
        lambda _line: None,
    )  # fmt: skip
    assert shop.run(artifact, "node", "-p", "process.version") == "v24.19.0"
    assert shop.run(artifact, "npm", "--version")


@pytest.mark.slow
def test_next_standalone(shop: Workshop) -> None:
    """Next.js builds to its standalone server, which starts from the artifact."""
    package = json.dumps(
        {"name": "n", "scripts": {"build": "next build"}, "dependencies": {"next": "14.2.21", "react": "18.3.1", "react-dom": "18.3.1"}}
    )
    files = {
        "package.json": package,
        "next.config.js": "module.exports = { output: 'standalone' }",
        "pages/index.js": "export default function Home() { return <h1>hello</h1> }",
    }
    artifact = shop.build(shop.app("next", files), WebService(command="node .next/standalone/server.js"))
    assert (Path(artifact.folder) / ".next/standalone/server.js").is_file()
    assert shutil.disk_usage(artifact.folder).free
