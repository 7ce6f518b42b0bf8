"""What Railway's files say, as Homeport understands it."""

from __future__ import annotations

import json
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from homeport.blueprints.patch import in_environment
from homeport.blueprints.railway import RailwayReader, railway_addons, railway_references
from homeport.blueprints.source import MemoryTree, decode
from homeport.model.env import FromAddOn, FromGroup, FromService, GeneratedValue, HostValue, PlainValue, SecretValue, Template
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading, leaves, show_path
from homeport.model.service import CronService, ScheduleTrigger, WebService


def read(document: dict[str, Any] | str, file: str = "railway.json", **others: str) -> Reading:
    text = document if isinstance(document, str) else json.dumps(document)
    return RailwayReader().read(MemoryTree({file: text, **others}, name="shop"), file)


def test_a_usual_file_becomes_one_web_service() -> None:
    """Builder, commands, health check, restart policy and replicas all reach the spec."""
    reading = read({
        "$schema": "https://railway.com/railway.schema.json",
        "build": {"builder": "nixpacks", "buildCommand": "npm run build", "watchPatterns": ["/src/**", "!docs/**"]},
        "deploy": {
            "startCommand": "node index.js", "preDeployCommand": ["npm run migrate"], "healthcheckPath": "/health",
            "healthcheckTimeout": 300, "restartPolicyType": "on_failure", "restartPolicyMaxRetries": 10, "numReplicas": 2,
            "overlapSeconds": "60", "drainingSeconds": "10", "sleepApplication": True,
        },
    })  # fmt: skip
    service = reading.spec.services["web"]
    assert isinstance(service, WebService)
    assert service.command == "node index.js"
    assert service.release_command is not None and service.release_command.command == "npm run migrate"
    assert service.health is not None and (service.health.path, service.health.deadline) == ("/health", timedelta(seconds=300))
    assert (service.restart.policy, service.restart.max_retries) == ("on-failure", 10)
    assert service.scale.instances == 2 and service.scale.scale_to_zero
    assert service.rollout.overlap == timedelta(seconds=60) and service.shutdown_grace == timedelta(seconds=10)
    assert service.build_filter.paths == ("src/**",) and service.build_filter.ignored_paths == ("docs/**",)
    assert not reading.by_fate(Fate.IGNORED) and not reading.by_fate(Fate.UNKNOWN)


@pytest.mark.parametrize("word", ["ON_FAILURE", "on_failure", "on-failure", "On_Failure"])
def test_enumerations_are_read_in_any_case(word: str) -> None:
    """Railway accepts its enumerations however they are written, and so does Homeport."""
    assert read({"deploy": {"restartPolicyType": word}}).spec.services["web"].restart.policy == "on-failure"


def test_a_schedule_makes_a_cron_service() -> None:
    """`cronSchedule` turns the service into a cron."""
    service = read({"deploy": {"startCommand": "python job.py", "cronSchedule": "*/15 * * * *"}}).spec.services["cron"]
    assert isinstance(service, CronService) and service.schedule == "*/15 * * * *"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("railway.json", "web"),
        ("railway.worker.json", "worker"),
        ("apps/api/railway.json", "api"),
        ("owner__repo__railway.api.json", "api"),
    ],
)
def test_the_service_is_named_by_its_file(file: str, name: str) -> None:
    """The name in the file's name, else its folder, else `web`."""
    assert list(read({"deploy": {"startCommand": "x"}}, file).spec.services) == [name]


def test_an_environment_is_a_merge_patch_over_the_base() -> None:
    """`environments.pr` is Homeport's preview environment; what it does not say stays as in the base."""
    reading = read({
        "deploy": {"startCommand": "npm start", "numReplicas": 3, "healthcheckPath": "/up"},
        "environments": {
            "staging": {"deploy": {"numReplicas": 1}},
            "pr": {"deploy": {"startCommand": "npm run pr", "healthcheckPath": None}},
        },
    })  # fmt: skip
    staging, preview = in_environment(reading.spec, "staging").services["web"], in_environment(reading.spec, "preview").services["web"]
    assert (staging.scale.instances, staging.command) == (1, "npm start")
    assert (preview.command, preview.health, preview.scale.instances) == ("npm run pr", None, 3)


def test_regions_are_summed_and_kept() -> None:
    """Instances of all regions run; the regions are approximated."""
    reading = read({"deploy": {"multiRegionConfig": {"us-west2": {"numReplicas": 2}, "asia": {"numReplicas": 1}}}})
    assert reading.spec.services["web"].scale.instances == 3
    assert {note.path for note in reading.by_fate(Fate.APPROXIMATED)} == {
        "deploy.multiRegionConfig.us-west2.numReplicas",
        "deploy.multiRegionConfig.asia.numReplicas",
    }


def test_several_services_in_one_file_are_read_though_railway_does_not() -> None:
    """`services` as a mapping and as a list, with databases by their image."""
    mapping = read({"services": {"api": {"source": {"rootDirectory": "apps/api"}, "deploy": {"startCommand": "node a.js"}}, "worker": {}}})
    assert mapping.spec.services["api"].root == "apps/api" and set(mapping.spec.services) == {"api", "worker"}
    listed = read('[deploy]\nstartCommand = "x"\n[[services]]\nname = "db"\nimage = "postgres:15-alpine"\n', "railway.toml")
    assert listed.spec.addons["db"].kind == "postgres" and listed.spec.addons["db"].version == "15"
    assert list(listed.spec.services) == ["web"]


def test_crons_written_beside_become_triggers() -> None:
    """`crons` is not Railway's, yet people write it: a path called on a schedule."""
    service = read({"crons": [{"name": "mail", "schedule": "0 8 * * *", "endpoint": "/api/mail"}]}).spec.services["web"]
    assert service.triggers == (ScheduleTrigger(schedule="0 8 * * *", path="/api/mail", name="mail"),)


def test_variables_written_in_the_file_are_taken_at_their_word() -> None:
    """Plain, generated and required variables; PORT fixes the port."""
    reading = read(
        {"env": {"A": 1, "KEY": {"generate": True}, "TOKEN": {"required": False}, "PORT": "9000", "DB": "${{Postgres.DATABASE_URL}}"}}
    )
    service = reading.spec.services["web"]
    assert service.env["A"] == PlainValue(value="1") and isinstance(service.env["KEY"], GeneratedValue)
    assert service.env["TOKEN"] == SecretValue(required=False)
    assert isinstance(service, WebService) and service.port == 9000
    assert service.env["DB"] == FromAddOn(addon="postgres") and reading.spec.addons["postgres"].kind == "postgres"


def test_every_problem_is_found_in_one_go_with_its_place() -> None:
    """Three faults of one file come as one error with three places."""
    text = '{\n  "deploy": {\n    "numReplicas": "many",\n    "restartPolicyType": "SOMETIMES",\n    "cronSchedule": "daily"\n  }\n}'
    with pytest.raises(BlueprintInvalid) as caught:
        read(text)
    assert [(p.line, p.path) for p in caught.value.problems] == [
        (4, "deploy.restartPolicyType"),
        (3, "deploy.numReplicas"),
        (5, "deploy.cronSchedule"),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", PlainValue(value="plain")),
        ("${{Postgres.DATABASE_URL}}", FromAddOn(addon="postgres")),
        ("${{ Postgres.PGHOST }}", FromAddOn(addon="postgres", property="host")),
        ("${{Redis.REDIS_PRIVATE_URL}}", FromAddOn(addon="redis", property="private-url")),
        ("${{MySQL.MYSQLDATABASE}}", FromAddOn(addon="mysql", property="database")),
        ("${{MongoDB.MONGO_URL}}", FromAddOn(addon="mongodb")),
        ("${{shared.KEY}}", FromGroup(group="shared", key="KEY")),
        ("${{api.PORT}}", FromService(service="api", property="port")),
        ("${{api.TOKEN}}", FromService(service="api", property=None, variable="TOKEN")),
        ("${{RAILWAY_PUBLIC_DOMAIN}}", FromService(service="web", property="public-host")),
        ("${{RAILWAY_GIT_BRANCH}}", HostValue(name="RAILWAY_GIT_BRANCH", default="")),
        ("${{secret(48)}}", GeneratedValue(format="alphanumeric", bytes=48)),
        (
            "https://${{api.RAILWAY_PUBLIC_DOMAIN}}/v1",
            Template(parts=(PlainValue(value="https://"), FromService(service="api", property="public-host"), PlainValue(value="/v1"))),
        ),
    ],
)
def test_reference_variables_are_understood(text: str, value: Any) -> None:
    """Each form of Railway's reference variables has its counterpart."""
    assert railway_references(text, "web") == value


def test_references_imply_add_ons() -> None:
    """A reference to one of Railway's databases is enough to know that the project needs one."""
    found = railway_addons("${{Postgres.DATABASE_URL}} ${{Redis-abc.REDIS_URL}}", "${{MongoDB.MONGO_URL}}", "${{api.X}}")
    assert {name: addon.kind for name, addon in found.items()} == {"postgres": "postgres", "redis-abc": "redis", "mongodb": "external"}


def test_a_reference_in_a_command_becomes_a_variable() -> None:
    """Commands stay plain shell: the reference moves to the environment."""
    service = read({"deploy": {"startCommand": "psql ${{Postgres.DATABASE_URL}} -c 'select 1'"}}).spec.services["web"]
    assert service.command == "psql ${POSTGRES_DATABASE_URL} -c 'select 1'"
    assert service.env["POSTGRES_DATABASE_URL"] == FromAddOn(addon="postgres")


def test_every_leaf_of_every_real_file_has_one_fate(shared: Path) -> None:
    """All files of the corpus are read or refused with a place; at least 97 in 100 leaves have an effect."""
    good = total = 0
    for file in sorted((shared / "corpus" / "railway").iterdir()):
        text = decode(file.read_bytes())
        reader = RailwayReader()
        assert reader.recognises(file.name, text)
        try:
            reading = reader.read(MemoryTree({file.name: text}), file.name)
        except BlueprintInvalid as error:
            assert all(problem.line for problem in error.problems), file.name
            continue
        data = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
        assert sorted(note.path for note in reading.keys) == sorted(show_path(leaf) for leaf in leaves(data)), file.name
        total += len(reading.keys)
        good += len(reading.by_fate(Fate.HONOURED)) + len(reading.by_fate(Fate.APPROXIMATED))
    assert good >= 0.97 * total
