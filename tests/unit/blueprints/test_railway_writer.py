"""What is written for Railway, and that it reads back as it was."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import tomli_w
from hypothesis import HealthCheck as Check
from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.blueprints.patch import merge_patch
from homeport.blueprints.railway import RailwayReader, RailwayWriter
from homeport.blueprints.source import MemoryTree, decode
from homeport.model.addon import Postgres
from homeport.model.env import FromAddOn, PlainValue, SecretValue
from homeport.model.errors import BlueprintInvalid
from homeport.model.service import (
    Build,
    BuildFilter,
    CronService,
    Disk,
    HealthCheck,
    Hook,
    Resources,
    Restart,
    Rollout,
    Scale,
    Service,
    StaticService,
    WebService,
)
from homeport.model.spec import Spec

MANY = settings(max_examples=60, deadline=None, suppress_health_check=[Check.too_slow])
SECONDS = st.none() | st.integers(0, 86_400).map(lambda n: timedelta(seconds=n))
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="${}"), min_size=1, max_size=30).map(str.strip)
COMMAND = st.just("") | TEXT
PATHS = st.lists(st.from_regex(r"[a-z]{1,8}/\*\*", fullmatch=True), max_size=3, unique=True).map(tuple)


@st.composite
def a_service(draw: Any) -> Service:
    """A service with everything that Railway's file can say."""
    regions = draw(st.dictionaries(st.sampled_from(["us-west2", "asia-southeast1", "europe-west4"]), st.integers(1, 5), max_size=3))
    release = draw(TEXT)
    values: dict[str, Any] = {
        "command": draw(COMMAND),
        "build": draw(st.sampled_from([Build(), Build(builder="dockerfile", dockerfile="apps/api/Dockerfile"), Build(command="make")])),
        "build_filter": BuildFilter(paths=draw(PATHS), ignored_paths=draw(PATHS)),
        "release_command": Hook(command=release) if release else None,
        "health": draw(st.none() | st.builds(HealthCheck, path=st.sampled_from(["/", "/up"]), deadline=SECONDS)),
        "restart": draw(
            st.just(Restart())
            | st.builds(Restart, policy=st.sampled_from(["always", "on-failure", "never"]), max_retries=st.none() | st.integers(0, 99))
        ),
        "rollout": Rollout(overlap=draw(SECONDS)),
        "shutdown_grace": draw(SECONDS),
        "resources": draw(
            st.builds(
                Resources, cpu=st.none() | st.sampled_from([0.5, 1.0, 8.0]), memory=st.none() | st.integers(1, 64).map(lambda n: n << 28)
            )
        ),
        "region": draw(st.sampled_from(["", "us-west2"])),
        "disks": draw(st.sampled_from([(), (Disk(name="data", mount_path="/data"),)])),
    }
    instances = sum(regions.values()) if regions else draw(st.integers(0, 20))
    values["scale"] = Scale(instances=instances, regions=regions, scale_to_zero=draw(st.booleans()))
    return CronService(schedule="0 3 * * 1", **values) if draw(st.booleans()) else WebService(**values)


SERVICES = st.dictionaries(st.sampled_from(["web", "api", "worker", "cron", "mail-2"]), a_service(), min_size=1, max_size=3)


@st.composite
def a_spec(draw: Any) -> Spec:
    """Services, and an environment in which they differ."""
    services = draw(SERVICES)
    spec = Spec(name="shop", services=services)
    if not draw(st.booleans()):
        return spec
    name = draw(st.sampled_from(["staging", "preview"]))
    there = {key: service.model_copy(update={"command": "other", "scale": Scale(instances=7)}) for key, service in services.items()}
    patch = merge_patch(_plain(services), _plain(there))
    return spec.model_copy(update={"environments": {name: {"services": patch}}})


def _plain(services: dict[str, Service]) -> dict[str, Any]:
    return {name: service.model_dump(mode="json", exclude_defaults=True) for name, service in services.items()}


@MANY
@given(a_spec())
def test_what_railway_can_say_is_written_without_loss(spec: Spec) -> None:
    """Reading what was written gives the same services; nothing is listed as lost when nothing is."""
    written = RailwayWriter().write(spec)
    assert written.losses == ()
    tree, reader = MemoryTree(written.files, name="shop"), RailwayReader()
    found: dict[str, Service] = {}
    for file in written.files:
        found |= reader.read(tree, file).spec.services
    assert found == spec.services


def test_what_railway_keeps_in_its_dashboard_is_listed_and_handed_over() -> None:
    """Variables become a file for the raw editor, secrets empty; everything else that is lost is named with its reason."""
    web = WebService(env={"A": PlainValue(value="two words"), "DB": FromAddOn(addon="postgres"), "KEY": SecretValue()})
    written = RailwayWriter().write(Spec(name="shop", services={"web": web, "site": StaticService()}, addons={"postgres": Postgres()}))
    assert written.files["railway.web.env"] == 'A="two words"\nDB=${{Postgres.DATABASE_URL}}\nKEY=\n'
    assert {"services.web.env", "services.site.kind", "addons"} <= {loss.path for loss in written.losses}
    assert all(loss.reason for loss in written.losses)


def test_real_files_survive_a_round_trip(shared: Path) -> None:
    """What is written from a real file is valid for the derived schema and reads back the same, but for the losses listed."""
    schema = json.loads((shared / "schemas" / "railway.derived.json").read_text())
    for file in sorted((shared / "corpus" / "railway").iterdir()):
        try:
            spec = RailwayReader().read(MemoryTree({file.name: decode(file.read_bytes())}, name="shop"), file.name).spec
        except BlueprintInvalid:
            continue
        written = RailwayWriter().write(spec)
        lost = {loss.path for loss in written.losses}
        tree = MemoryTree(written.files, name="shop")
        for name in [n for n in written.files if n.endswith(".json")]:
            jsonschema.validate(json.loads(written.files[name]), schema)
            for service, back in RailwayReader().read(tree, name).spec.services.items():
                if not any(path.startswith(f"services.{service}") for path in lost):
                    assert back == spec.services[service], file.name


KEYS = ["build", "deploy", "environments", "services", "crons", "env", "startCommand", "builder", "numReplicas", "region", "pr", "limits",
        "cpu", "memory", "multiRegionConfig", "ingress", "port", "name", "schedule", "preDeployCommand", "healthcheck", "nixpacksPlan",
        "phases", "setup", "cmds", "nixPkgs", "restartPolicy", "type", "cronSchedule", "overlapSeconds", "source", "image", "plugins",
        "watchPatterns", "variables", "required", "generator", "networking", "customDomains", "scripts", "service", "volumes"]  # fmt: skip
LEAF = st.none() | st.booleans() | st.integers(-5, 1 << 70) | st.floats(allow_nan=False) | st.text(max_size=12) | st.sampled_from(
    ["ON_FAILURE", "* * * * *", "${{Postgres.X}}", "512Mi", "500m", "../..", "postgres:15"])  # fmt: skip
JSON = st.recursive(LEAF, lambda c: st.lists(c, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), c, max_size=6))


@MANY
@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=8))
def test_no_document_crashes_the_reader_or_the_writer(document: dict[str, Any]) -> None:
    """Any JSON is read, or refused by the one typed error; whatever was read can be written and validates as a spec."""
    try:
        spec = RailwayReader().read(MemoryTree({"railway.json": json.dumps(document)}), "railway.json").spec
    except BlueprintInvalid:
        return
    assert Spec.model_validate(spec.canonical()) == spec
    RailwayWriter().write(spec)


def test_toml_and_json_say_the_same() -> None:
    """The two file formats are one dialect."""
    document = {"build": {"builder": "DOCKERFILE"}, "deploy": {"startCommand": "x", "numReplicas": 2}}
    tree = MemoryTree({"railway.json": json.dumps(document), "railway.toml": tomli_w.dumps(document)})
    assert RailwayReader().read(tree, "railway.json").spec == RailwayReader().read(tree, "railway.toml").spec
