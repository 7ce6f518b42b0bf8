"""Ports that are written into start commands."""

from __future__ import annotations

import pytest

from homeport.deploys.ports import Command, at_port


@pytest.mark.parametrize(
    ("command", "declared", "wanted"),
    [
        ("python -m http.server 8000", 8000, "python -m http.server 20001"),
        ("uvicorn app:app --host 0.0.0.0 --port 8000", 8000, "uvicorn app:app --host 0.0.0.0 --port 20001"),
        ("gunicorn --bind 0.0.0.0:8000 app:app", 8000, "gunicorn --bind 0.0.0.0:20001 app:app"),
        ("gunicorn -b :5000 app:app", None, "gunicorn -b :20001 app:app"),
        (("uvicorn", "app:app", "--port", "8000"), 8000, ("uvicorn", "app:app", "--port", "20001")),
        (("serve", "--port=8000"), 8000, ("serve", "--port=20001")),
        ("sh -c 'migrate && serve --port 8000'", 8000, "sh -c 'migrate && serve --port 20001'"),
    ],
)
def test_the_port_of_a_command_becomes_the_instances_own(command: Command, declared: int | None, wanted: Command) -> None:
    """Where a command says which port, the instance's is put in its place."""
    assert at_port(command, declared, 20001) == wanted


@pytest.mark.parametrize(
    ("command", "declared"),
    [
        ("uvicorn app:app --port $PORT", 8000),
        ("gunicorn --bind 0.0.0.0:${PORT:-8000} app:app", 8000),
        ("node server.js", 8000),
        ("node server.js --max-old-space-size=18000", 8000),
        ("worker --queue 10.0.8000.1", 8000),
        ("celery -A app worker", None),
    ],
)
def test_other_commands_stay_as_they_are(command: Command, declared: int | None) -> None:
    """A command that is told its port, or names none, is not touched."""
    assert at_port(command, declared, 20001) == command


def test_a_command_without_a_port_to_run_on_is_not_touched() -> None:
    """One-off commands and jobs have no port."""
    assert at_port("python -m http.server 8000", 8000, 0) == "python -m http.server 8000"
