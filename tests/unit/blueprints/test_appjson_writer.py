"""What is written for Heroku, and that it reads back as it was."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
from hypothesis import HealthCheck as Check
from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.blueprints.appjson import AppJsonReader, AppJsonWriter
from homeport.blueprints.appjson.providers import make, name_for, variables
from homeport.blueprints.patch import merge_patch
from homeport.blueprints.source import MemoryTree, decode
from homeport.model.addon import AddOn, Temporal
from homeport.model.env import EnvGroup, EnvValue, FromService, GeneratedValue, PlainValue, SecretValue
from homeport.model.errors import BlueprintInvalid
from homeport.model.service import (
    Build,
    CronService,
    Disk,
    HealthCheck,
    Hook,
    PrivateService,
    Resources,
    Rollout,
    Scale,
    Service,
    StaticService,
    WebService,
    WorkerService,
)
from homeport.model.spec import Spec

MANY = settings(max_examples=60, deadline=None, suppress_health_check=[Check.too_slow])
WORD = st.from_regex(r"[A-Za-z./-]{1,12}", fullmatch=True)
COMMAND = st.sampled_from(["node a.js", "gunicorn app:app", "./run 'two words'"])
SECONDS = st.none() | st.integers(0, 900).map(lambda n: timedelta(seconds=n))
VALUE = st.one_of(
    st.builds(PlainValue, value=st.text(max_size=12)),
    st.builds(GeneratedValue, format=st.just("hex"), description=st.just("") | WORD),
    st.builds(SecretValue, required=st.booleans(), description=st.just("") | WORD),
)
ENV = st.dictionaries(st.sampled_from(["A", "SECRET_KEY", "C_3"]), VALUE, max_size=3)
SCALE = st.builds(
    Scale, instances=st.integers(0, 9), min=st.none() | st.just(1), max=st.none() | st.just(9), target_cpu=st.none() | st.just(60.0)
)


@st.composite
def a_check(draw: Any) -> HealthCheck:
    """A check that Dokku can run."""
    values: dict[str, Any] = {"name": draw(st.just("") | WORD), "retries": draw(st.none() | st.integers(1, 9)), "interval": draw(SECONDS)}
    values |= {
        "timeout": draw(SECONDS),
        "role": draw(st.sampled_from(["startup", "ready", "live"])),
        "port": draw(st.sampled_from(["", "81"])),
    }
    kind = draw(st.sampled_from(["http", "tcp", "command"]))
    if kind == "http":
        return HealthCheck(
            path=draw(st.sampled_from(["/", "/up"])), expect_body=draw(st.just("") | WORD), tls=draw(st.booleans()), **values
        )
    return HealthCheck(kind="tcp", **values) if kind == "tcp" else HealthCheck(kind="command", command=("bin/ok", "-v"), **values)


@st.composite
def a_process(draw: Any, name: str, shared: dict[str, Any]) -> Service:
    """A process type."""
    checks = list(draw(st.lists(a_check(), max_size=2)))
    first = next((check for role in ("startup", "ready") for check in checks if check.role == role), None)
    ordered = ([first] if first else []) + [check for check in checks if check is not first]
    values: dict[str, Any] = {
        **shared,
        "command": draw(COMMAND),
        "scale": draw(SCALE),
        "resources": Resources(plan=draw(st.sampled_from(["", "basic", "standard-2x"]))),
        "rollout": Rollout(parallelism=draw(st.none() | st.integers(1, 3))),
        "health": first,
        "checks": tuple(ordered[1:] if first else ordered),
    }
    if name != "web":
        return PrivateService(**values) if name == "internal" else WorkerService(**values)
    hooks = draw(st.dictionaries(st.sampled_from(["pr-predestroy", "test", "post_deploy"]), st.builds(Hook, command=COMMAND), max_size=2))
    moments = {key: draw(st.none() | st.builds(Hook, command=COMMAND)) for key in ("release_command", "first_deploy_command")}
    return WebService(hooks=hooks, **moments, **values)


@st.composite
def an_app(draw: Any) -> Spec:
    """A spec with everything that app.json and a Procfile can say."""
    addons: dict[str, AddOn] = {}
    for provider in draw(
        st.lists(st.sampled_from(["heroku-postgresql", "heroku-redis", "rediscloud", "jawsdb", "sendgrid"]), max_size=3, unique=True)
    ):
        attach = draw(st.sampled_from(["", provider[:4].upper()]))
        made = make(provider, draw(st.sampled_from(["", "mini"])), draw(st.sampled_from([{}, {"version": "16"}, {"fork": "x"}])), attach)
        addons[name_for(made, provider, attach, addons)] = made
    env: dict[str, EnvValue] = {**draw(ENV), **variables(addons)}
    build = draw(st.sampled_from([Build(), Build(buildpacks=("heroku/python",)), Build(stack="heroku-24", command="make")]))
    names = ["web", *sorted(draw(st.sets(st.sampled_from(["worker", "internal"]))))]
    grouped = {"env_groups": ("app",)} if env and len(names) > 1 else {"env": env}
    services = {name: draw(a_process(name, {"build": build, **grouped})) for name in names}
    spec = Spec(name="shop", services=services, addons=addons, env_groups={"app": EnvGroup(env=env)} if env and len(names) > 1 else {})
    if not draw(st.booleans()):
        return spec
    there = {name: service.model_copy(update={"scale": Scale(instances=7)}) for name, service in services.items()}
    before = {name: service.model_dump(mode="json", exclude_defaults=True) for name, service in services.items()}
    after = {name: service.model_dump(mode="json", exclude_defaults=True) for name, service in there.items()}
    if all(service.scale.min is None and service.scale.max is None and service.scale.target_cpu is None for service in services.values()):
        return spec.model_copy(update={"environments": {"preview": {"services": merge_patch(before, after)} if before != after else {}}})
    return spec


@MANY
@given(an_app())
def test_what_heroku_can_say_is_written_without_loss(spec: Spec) -> None:
    """Reading app.json and Procfile gives the same spec, and no loss is listed."""
    written = AppJsonWriter().write(spec)
    assert written.losses == ()
    assert AppJsonReader().read(MemoryTree(written.files, name="shop"), "app.json").spec == spec


def test_what_heroku_cannot_hold_is_listed() -> None:
    """A second web service, a site, disks, references and Temporal are named with their reason."""
    spec = Spec(
        name="shop",
        services={
            "api": WebService(command="a", disks=(Disk(mount_path="/d"),), env={"X": FromService(service="other")}),
            "other": WebService(command="b"),
            "site": StaticService(),
            "night": CronService(command="c", schedule="0 0 * * *"),
        },
        addons={"flows": Temporal()},
    )
    written = AppJsonWriter().write(spec)
    assert written.renamed == {"api": "web"}
    assert written.files["Procfile"] == "web: a\nother: b\n"
    assert json.loads(written.files["app.json"])["cron"] == [{"command": "c", "schedule": "0 0 * * *", "concurrency_policy": "forbid"}]
    assert {"services.web.disks", "services.other.kind", "services.site", "addons"} <= {loss.path for loss in written.losses}


def test_real_files_survive_a_round_trip(shared: Path) -> None:
    """What is written from a real file is valid for the old schema, but for the formation, and reads back the same."""
    schema = json.loads((shared / "schemas" / "heroku-app.json.2015.json").read_text())
    for outdated in ("formation", "name", "description"):
        schema["properties"].pop(outdated, None)
    for file in sorted((shared / "corpus" / "appjson").iterdir()):
        try:
            spec = AppJsonReader().read(MemoryTree({file.name: decode(file.read_bytes())}, name="shop"), file.name).spec
        except BlueprintInvalid:
            continue
        written = AppJsonWriter().write(spec)
        jsonschema.validate(json.loads(written.files["app.json"]), schema)
        assert written.losses or AppJsonReader().read(MemoryTree(written.files, name="shop"), "app.json").spec == spec, file.name


KEYS = ["name", "env", "formation", "addons", "buildpacks", "scripts", "environments", "healthchecks", "cron", "stack", "image", "hooks",
        "options", "web", "worker", "quantity", "size", "plan", "as", "url", "postdeploy", "dokku", "predeploy", "review", "test", "value",
        "description", "required", "generator", "type", "path", "attempts", "wait", "command", "schedule", "autoscaling", "triggers", "cpu",
        "metadata", "service", "exposed", "memory", "port", "commands", "postcreate", "version", "httpHeaders", "uptime"]  # fmt: skip
LEAF = st.none() | st.booleans() | st.integers(-5, 1 << 70) | st.floats(allow_nan=False) | st.text(max_size=12) | st.sampled_from(
    ["secret", "* * * * *", "heroku-postgresql:mini", "startup", "512Mi", "heroku/ruby", ":"])  # fmt: skip
JSON = st.recursive(LEAF, lambda c: st.lists(c, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), c, max_size=6))


@MANY
@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=8))
def test_no_document_crashes_the_reader_or_the_writer(document: dict[str, Any]) -> None:
    """Any JSON is read, or refused by the one typed error; whatever was read can be written and validates as a spec."""
    try:
        spec = AppJsonReader().read(MemoryTree({"app.json": json.dumps(document)}), "app.json").spec
    except BlueprintInvalid:
        return
    assert Spec.model_validate(spec.canonical()) == spec
    AppJsonWriter().write(spec)
