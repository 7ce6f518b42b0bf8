"""Procfile: reading and writing."""

from __future__ import annotations

import pytest

from homeport.blueprints.commands import fixed_port, without_comment
from homeport.blueprints.procfile import ProcfileReader, ProcfileWriter
from homeport.blueprints.source import MemoryTree
from homeport.model.addon import Postgres
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading
from homeport.model.service import Hook, PrivateService, WebService, WorkerService
from homeport.model.spec import Spec


def read(text: str) -> Reading:
    return ProcfileReader().read(MemoryTree({"Procfile": text}, "Shop"), "Procfile")


def test_web_release_and_workers() -> None:
    """web receives traffic, release runs before a release goes live, all others are workers."""
    spec = read("# processes\nweb: gunicorn app:app  # server\n\nrelease: python manage.py migrate\nworker_fast:  celery -A app\r\n").spec
    assert (spec.name, spec.title) == ("shop", "Shop")
    web = spec.services["web"]
    assert isinstance(web, WebService) and web.command == "gunicorn app:app"
    assert web.release_command == Hook(command="python manage.py migrate")
    assert spec.services["worker-fast"] == WorkerService(title="worker_fast", command="celery -A app")


def test_a_release_without_web_belongs_to_a_detected_web_service() -> None:
    """As on Heroku, a Procfile with nothing but a release command leaves the web process to detection."""
    reading = read("release: bin/migrate\n")
    assert reading.spec.services["web"] == WebService(release_command=Hook(command="bin/migrate"))
    assert reading.warnings


def test_processes_run_by_hand_do_not_start() -> None:
    """console and migrate are kept with no instance, and the report says so."""
    reading = read("web: a\nconsole: rails console\nmigrate: x\n")
    assert reading.spec.services["console"].scale.instances == 0
    assert [note.path for note in reading.by_fate(Fate.APPROXIMATED)] == ["console", "migrate"]


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("web: a\nno process here\n", 2, "not `name: command`"),
        ("web:\n", 1, "no command"),
        ("web: a\nweb: b\n", 2, "stands twice"),
        ("\n\n<<<<<<< HEAD\n", 3, "merge conflict"),
        ("{%- if x %}\nweb: a\n", 1, "template"),
        ("# nothing\n", 1, "no process"),
        ("", 1, "no process"),
    ],
)
def test_malformed_lines_are_located(text: str, line: int, part: str) -> None:
    """Each line that is no process is a problem with its line."""
    with pytest.raises(BlueprintInvalid) as caught:
        read(text)
    assert caught.value.problems[0].line == line and part in caught.value.problems[0].message


def test_a_written_procfile_reads_back_the_same() -> None:
    """Web, workers and the release command survive; what a Procfile cannot say is a loss."""
    spec = Spec(
        name="shop",
        services={
            "api": WebService(command=("node", "a b.js"), release_command=Hook(command="migrate")),
            "mailer": WorkerService(title="Mailer", command="node mail.js"),
            "search": PrivateService(command="x"),
            "site": WebService(command="y"),
        },
        addons={"db": Postgres()},
    )
    written = ProcfileWriter().write(spec)
    assert written.files["Procfile"] == "release: migrate\nweb: node 'a b.js'\nMailer: node mail.js\n"
    assert written.renamed == {"api": "web"}
    assert {loss.path for loss in written.losses} == {"services.search", "services.site", "addons.db"}
    again = read(written.files["Procfile"]).spec
    assert again.services["web"].release_command == Hook(command="migrate") and again.services["mailer"].title == "Mailer"


@pytest.mark.parametrize(
    ("command", "port"),
    [
        ("uvicorn a:b --port 8000", 8000),
        ("uvicorn a:b --port=8000 --reload", 8000),
        ("gunicorn a:b --bind 0.0.0.0:5000", 5000),
        ("gunicorn -b :8080 a:b", 8080),
        ("uvicorn a:b --port $PORT", None),
        ("uvicorn a:b --port ${PORT:-8000}", None),
        ("rails server -p 3000", 3000),
        ("php artisan serve --port=${PORT:-8080}", None),
        (("node", "x", "--port", "99999"), None),
    ],
)
def test_a_fixed_port_is_a_number_in_the_command(command: str, port: int | None) -> None:
    """Only a number that is written out counts as a port the program insists on."""
    assert fixed_port(command) == port


def test_comments_of_command_lines() -> None:
    """A comment ends a line outside of quotes only."""
    assert without_comment("echo 'a # b' # c") == "echo 'a # b'"
    assert without_comment("echo a#b") == "echo a#b"


def test_names_that_a_procfile_gives_a_meaning_are_renamed() -> None:
    """A worker called web or release gets another process name, and comes back under its own."""
    spec = Spec(
        name="shop",
        services={"web": WorkerService(command="a"), "api": WebService(command="b"), "x": WorkerService(title="A b", command="c")},
    )
    written = ProcfileWriter().write(spec)
    assert written.files["Procfile"] == "web-worker: a\nweb: b\nx: c\n"
    assert written.renamed == {"web": "web-worker", "api": "web"}
