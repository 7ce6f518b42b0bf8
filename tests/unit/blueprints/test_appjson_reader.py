"""What app.json says, as Homeport understands it: Heroku's, Dokku's and the Cloud Run button's."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from homeport.blueprints.appjson import AppJsonReader
from homeport.blueprints.document import parse_json
from homeport.blueprints.patch import in_environment
from homeport.blueprints.source import MemoryTree, decode
from homeport.model.addon import External, MariaDB, Postgres
from homeport.model.env import FromAddOn, GeneratedValue, PlainValue, SecretValue
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading, leaves, show_path
from homeport.model.service import CronService, PrivateService, WebService


def read(document: dict[str, Any] | str, **others: str) -> Reading:
    text = document if isinstance(document, str) else json.dumps(document)
    return AppJsonReader().read(MemoryTree({"app.json": text, **others}, name="shop"), "app.json")


def test_processes_take_their_commands_from_the_procfile_beside() -> None:
    """Formation says how many and how large, the Procfile what runs; the release command belongs to the web process."""
    reading = read(
        {"name": "Small Tool", "formation": {"web": {"quantity": 2, "size": "standard-1x"}, "worker": {"quantity": 0}}},
        Procfile="web: gunicorn app\nworker: celery -A app\nrelease: ./migrate\n",
    )
    web, worker = reading.spec.services["web"], reading.spec.services["worker"]
    assert (reading.spec.name, reading.spec.title) == ("small-tool", "Small Tool")
    assert (web.command, web.scale.instances, web.resources.plan) == ("gunicorn app", 2, "standard-1x")
    assert (worker.command, worker.scale.instances) == ("celery -A app", 0)
    assert web.release_command is not None and web.release_command.command == "./migrate" and worker.release_command is None


def test_without_formation_and_procfile_there_is_one_detected_web_process() -> None:
    """The file alone is enough for a plan."""
    assert list(read({"name": "x"}).spec.services) == ["web"]


def test_config_variables_are_plain_generated_or_asked_for() -> None:
    """A variable without a value is required unless it says otherwise, as on Heroku."""
    env = read({"env": {
        "A": "1",
        "B": {"description": "words", "value": "2"},
        "C": {"generator": "secret"},
        "D": {"description": "needed"},
        "E": {"required": False},
        "F": {"value": "", "required": True},
        "HEROKU_APP_NAME": {"required": True},
    }}).spec.services["web"].env  # fmt: skip
    assert env == {
        "A": PlainValue(value="1"),
        "B": PlainValue(value="2"),
        "C": GeneratedValue(format="hex", bytes=32),
        "D": SecretValue(description="needed"),
        "E": SecretValue(required=False),
        "F": SecretValue(),
        "HEROKU_APP_NAME": PlainValue(value="shop"),
    }


def test_several_processes_share_one_env_group() -> None:
    """Config variables belong to the app: a generated value is the same for all."""
    spec = read({"formation": {"web": {}, "worker": {}}, "env": {"KEY": {"generator": "secret"}}}).spec
    assert {service.env_groups for service in spec.services.values()} == {("app",)}
    assert isinstance(spec.env_groups["app"].env["KEY"], GeneratedValue)


def test_add_ons_become_native_or_external_with_the_variables_they_set() -> None:
    """PostgreSQL, Redis and MySQL run here; a mail provider stays where it is and its variables are asked for."""
    reading = read({"addons": [
        "heroku-postgresql:mini", {"plan": "heroku-postgresql", "as": "ANALYTICS", "options": {"version": "16"}}, "heroku-redis", "jawsdb",
        "sendgrid:starter", "scheduler:standard",
    ]})  # fmt: skip
    spec, env = reading.spec, reading.spec.services["web"].env
    assert isinstance(spec.addons["postgres"], Postgres) and spec.addons["postgres"].plan == "mini"
    assert spec.addons["analytics"].version == "16" and spec.addons["analytics"].bind == ("ANALYTICS",)
    assert isinstance(spec.addons["mariadb"], MariaDB) and spec.addons["mariadb"].flavour == "mysql"
    assert isinstance(spec.addons["sendgrid"], External)
    assert env["DATABASE_URL"] == FromAddOn(addon="postgres") and env["ANALYTICS_URL"] == FromAddOn(addon="analytics")
    assert env["REDIS_URL"] == FromAddOn(addon="redis") and env["JAWSDB_URL"] == FromAddOn(addon="mariadb")
    assert isinstance(env["SENDGRID_USERNAME"], SecretValue)
    assert {n.path for n in reading.by_fate(Fate.APPROXIMATED)} == {"addons[4]", "addons[5]"}


def test_scripts_go_to_the_moments_they_are_about() -> None:
    """Heroku's postdeploy runs once; Dokku's predeploy before each release."""
    web = read(
        {"scripts": {"postdeploy": "seed", "pr-predestroy": "bye", "dokku": {"predeploy": "migrate", "postdeploy": "tell"}}}
    ).spec.services["web"]
    assert web.first_deploy_command is not None and web.first_deploy_command.command == "seed"
    assert web.release_command is not None and web.release_command.command == "migrate"
    assert {name: hook.command for name, hook in web.hooks.items()} == {"pr-predestroy": "bye", "post_deploy": "tell"}


def test_health_checks_of_dokku_are_understood() -> None:
    """Startup gates the deploy; liveness is a further check."""
    web = read({"healthchecks": {"web": [
        {"type": "startup", "path": "/up", "content": "ok", "attempts": 3, "wait": 2, "httpHeaders": [{"name": "Host", "value": "a"}]},
        {"type": "liveness", "command": ["bin/alive"], "initialDelay": 10},
        {"type": "readiness", "listening": True, "port": 5000},
        {"type": "startup", "uptime": 20},
    ]}}).spec.services["web"]  # fmt: skip
    assert web.health is not None
    assert (web.health.path, web.health.expect_body, web.health.retries, web.health.interval) == ("/up", "ok", 3, timedelta(seconds=2))
    assert [(c.kind, c.role) for c in web.checks] == [("command", "live"), ("tcp", "ready"), ("none", "startup")]


def test_crons_exposed_processes_and_autoscaling_of_dokku() -> None:
    """Dokku's additions have their counterparts."""
    spec = read({
        "cron": [{"command": "clean", "schedule": "0 1 * * *", "concurrency_policy": "forbid"}],
        "formation": {"internal": {"service": {"exposed": True}}, "web": {"autoscaling": {
            "min_quantity": 1, "max_quantity": 10, "cooldown_period_seconds": 300, "triggers": {"cpu": {"metadata": {"value": "60"}}}}}},
    }).spec  # fmt: skip
    assert isinstance(spec.services["cron-1"], CronService) and spec.services["cron-1"].concurrency == "forbid"
    assert isinstance(spec.services["internal"], PrivateService)
    scale = spec.services["web"].scale
    assert (scale.min, scale.max, scale.cooldown, scale.target_cpu) == (1, 10, timedelta(minutes=5), 60)


def test_a_review_environment_is_the_preview_environment() -> None:
    """What an environment says lies over the app's own."""
    spec = read({
        "addons": ["heroku-postgresql:standard-0"], "env": {"A": "1"}, "formation": {"web": {"quantity": 3}},
        "environments": {"review": {"addons": ["heroku-postgresql:mini"], "env": {"A": "2"}, "formation": {"web": {"quantity": 1}}}},
    }).spec  # fmt: skip
    preview = in_environment(spec, "preview")
    assert preview.addons["postgres"].plan == "mini" and preview.services["web"].scale.instances == 1
    assert preview.services["web"].env["A"] == PlainValue(value="2")


def test_the_cloud_run_button_shares_the_file_name() -> None:
    """Its hooks and options are taken at their word."""
    web = read(
        {"hooks": {"postcreate": {"commands": ["./a", "./b"]}}, "options": {"memory": "512Mi", "port": 8080, "http2": True}}
    ).spec.services["web"]
    assert isinstance(web, WebService) and (web.port, web.protocol, web.resources.memory) == (8080, "h2c", 512 << 20)
    assert web.first_deploy_command is not None and web.first_deploy_command.command == "./a && ./b"


def test_expos_file_of_the_same_name_is_another() -> None:
    """A React Native project's app.json is no blueprint."""
    assert not AppJsonReader().recognises("app.json", '{\n  "expo": {"name": "x"}}')
    assert AppJsonReader().candidates(MemoryTree({"app.json": '{"expo": {}}'})) == []


def test_every_problem_is_found_in_one_go_with_its_place() -> None:
    """Faults in several sections come as one error, comments in the file notwithstanding."""
    with pytest.raises(BlueprintInvalid) as caught:
        read('{\n  // a comment\n  "formation": {"web": {"quantity": "many"}},\n  "addons": [7],\n  "cron": [{"command": "x"}],\n}')
    assert [(p.path, p.line) for p in caught.value.problems] == [("formation.web.quantity", 3), ("addons[0]", 4), ("cron[0]", 5)]


def test_every_leaf_of_every_real_file_has_one_fate(shared: Path) -> None:
    """All files of the corpus are read or refused with a place; at least 95 in 100 leaves have an effect."""
    good = total = 0
    for file in sorted((shared / "corpus" / "appjson").iterdir()):
        text = decode(file.read_bytes())
        assert AppJsonReader().recognises(file.name, text)
        try:
            reading = AppJsonReader().read(MemoryTree({file.name: text}), file.name)
        except BlueprintInvalid as error:
            assert all(problem.line for problem in error.problems), file.name
            continue
        data = parse_json(file.name, text).data
        assert sorted(note.path for note in reading.keys) == sorted(show_path(leaf) for leaf in leaves(data)), file.name
        total += len(reading.keys)
        good += len(reading.by_fate(Fate.HONOURED)) + len(reading.by_fate(Fate.APPROXIMATED))
    assert good >= 0.95 * total
