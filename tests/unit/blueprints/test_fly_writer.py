"""What is written for Fly, and that it reads back as it was."""

from __future__ import annotations

import json
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tomli_w
from hypothesis import HealthCheck as Check
from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.blueprints.fly import FlyReader, FlyWriter
from homeport.blueprints.source import MemoryTree, decode
from homeport.model.addon import Postgres
from homeport.model.env import PlainValue, SecretValue
from homeport.model.errors import BlueprintInvalid
from homeport.model.route import Route, SetHeaders
from homeport.model.service import (
    Build,
    CronService,
    Disk,
    HealthCheck,
    Hook,
    PrivateService,
    Resources,
    Restart,
    Rollout,
    Scale,
    Service,
    StaticService,
    WebService,
    WorkerService,
)
from homeport.model.spec import Spec

MANY = settings(max_examples=60, deadline=None, suppress_health_check=[Check.too_slow])
SECONDS = st.none() | st.integers(1, 86_400).map(lambda n: timedelta(seconds=n))
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=20)
MIB = 1 << 20
SIZES = st.none() | st.integers(1, 64).map(lambda n: n << 30)


@st.composite
def a_check(draw: Any, kind: str) -> HealthCheck:
    """A check of one kind, with everything Fly can say about it."""
    times = {"interval": draw(SECONDS), "timeout": draw(SECONDS), "start_period": draw(SECONDS)}
    times["restart_after"] = draw(st.none() | st.integers(1, 9))
    if kind != "http":
        return HealthCheck(kind="tcp", **times)
    return HealthCheck(
        path=draw(st.sampled_from(["/", "/up", "/a?b=c"])), method=draw(st.sampled_from(["GET", "HEAD"])), tls=draw(st.booleans()),
        tls_skip_verify=draw(st.booleans()), headers=draw(st.dictionaries(st.sampled_from(["X-A", "Host"]), TEXT, max_size=2)), **times,
    )  # fmt: skip


@st.composite
def a_group(draw: Any, shared: dict[str, Any], kind: str) -> Service:
    """A service that a process group can be."""
    values = {
        **shared,
        "command": draw(TEXT),
        "disks": draw(st.sampled_from([(), (Disk(name="data", mount_path="/data", grow_threshold=80, grow_by=1 << 30),)])),
        "restart": draw(
            st.just(Restart()) | st.builds(Restart, policy=st.sampled_from(["on-failure", "never"]), max_retries=st.integers(0, 9))
        ),
        "resources": draw(
            st.builds(
                Resources,
                plan=st.sampled_from(["", "performance-2x"]),
                cpu=st.none() | st.sampled_from([1.0, 8.0]),
                memory=st.integers(1, 99).map(lambda n: n * MIB),
                cpu_kind=st.sampled_from(["", "shared"]),
                gpu=st.sampled_from(["", "a10", "l40s:2"]),
            )
        ),
    }
    if kind == "worker":
        return WorkerService(**values)
    checks = [draw(a_check(k)) for k in draw(st.sampled_from([[], ["http"], ["tcp"], ["http", "tcp"], ["http", "http"]]))]
    minimum = draw(st.none() | st.integers(0, 5))
    values |= {"port": draw(st.integers(1, 65535)), "health": checks[0] if checks else None, "checks": tuple(checks[1:])}
    values["scale"] = Scale(
        instances=max(1, minimum or 0), min=minimum, scale_to_zero=not minimum and draw(st.booleans()),
        target_concurrency=draw(st.none() | st.integers(1, 99)), hard_concurrency=draw(st.none() | st.integers(1, 99)),
        concurrency_type=draw(st.sampled_from(["", "requests", "connections"])),
    )  # fmt: skip
    if kind == "private":
        return PrivateService(protocol="tcp", **values)
    return WebService(force_https=draw(st.booleans()), protocol=draw(st.sampled_from(["http", "h2c"])), **values)


@st.composite
def an_app(draw: Any) -> Spec:
    """A spec with everything that one fly.toml can say."""
    shared: dict[str, Any] = {
        "env": {name: PlainValue(value=value) for name, value in draw(st.dictionaries(st.sampled_from(["A", "B", "C"]), TEXT)).items()},
        "build": draw(
            st.sampled_from([Build(), Build(builder="image", image="redis:7"), Build(builder="dockerfile", dockerfile="d/Dockerfile")])
        ),
        "region": draw(st.sampled_from(["", "ams"])),
        "stop_signal": draw(st.sampled_from(["", "SIGINT"])),
        "shutdown_grace": draw(SECONDS),
        "rollout": Rollout(strategy=draw(st.sampled_from(["", "rolling", "bluegreen"])), wait_timeout=draw(SECONDS)),
    }
    services: dict[str, Service] = {"app": draw(a_group(shared, draw(st.sampled_from(["web", "private", "worker"]))))}
    for name in draw(st.sets(st.sampled_from(["jobs", "mail"]))):
        services[name] = draw(a_group(shared, draw(st.sampled_from(["private", "worker"]))))
    if draw(st.booleans()):
        services["app"] = services["app"].model_copy(update={"release_command": Hook(command="bin/migrate")})
    routes: tuple[Route, ...] = ()
    if services["app"].kind == "web" and draw(st.booleans()):
        routes = (Route(service="app", action=SetHeaders(response={"X-A": "b"}, remove=("Server",))),)
    return Spec(name="shop", services=services, routes=routes)


@pytest.fixture(scope="module")
def schema() -> Any:
    """The published schema of fly.toml."""
    path = Path(__file__).parents[4] / "shared" / "schemas" / "fly.schemastore.json"
    if not path.is_file():
        pytest.skip("the shared schemas are not here")
    return jsonschema.Draft7Validator(json.loads(path.read_text()))


@MANY
@given(spec=an_app())
def test_what_fly_can_say_is_written_without_loss(spec: Spec, schema: Any) -> None:
    """Reading what was written gives the same spec, no loss is listed, and the file is valid for the published schema."""
    written = FlyWriter().write(spec)
    schema.validate(tomllib.loads(written.files["fly.toml"]))
    assert written.losses == ()
    assert FlyReader().read(MemoryTree(written.files, name="shop"), "fly.toml").spec == spec


def test_what_a_fly_app_cannot_hold_is_listed() -> None:
    """Secrets, add-ons, static sites and free schedules are named with their reason, and never started as something else."""
    spec = Spec(
        name="shop",
        services={
            "web": WebService(env={"A": PlainValue(value="1"), "KEY": SecretValue()}, scale=Scale(instances=3)),
            "site": StaticService(),
            "nightly": CronService(schedule="17 3 * * *", command="x"),
        },
        addons={"db": Postgres()},
    )
    written = FlyWriter().write(spec)
    assert tomllib.loads(written.files["fly.toml"])["processes"] == {"web": ""}
    lost = {loss.path: loss.reason for loss in written.losses}
    assert {"services.site", "services.nightly", "services.web.env.KEY", "services.web.scale", "addons"} <= set(lost)
    assert "fly secrets set" in lost["services.web.env.KEY"]


def test_real_files_survive_a_round_trip(shared: Path, schema: Any) -> None:
    """What is written from a real file is valid and reads back the same, but for the losses listed."""
    for file in sorted((shared / "corpus" / "fly").iterdir()):
        spec = FlyReader().read(MemoryTree({file.name: decode(file.read_bytes())}, name="shop"), file.name).spec
        written = FlyWriter().write(spec)
        schema.validate(tomllib.loads(written.files["fly.toml"]))
        back = FlyReader().read(MemoryTree(written.files, name="shop"), "fly.toml").spec
        assert written.losses or back == spec, file.name


KEYS = ["app", "build", "deploy", "env", "processes", "http_service", "services", "mounts", "mount", "vm", "checks", "statics", "files",
        "metrics", "restart", "experimental", "ports", "port", "handlers", "internal_port", "concurrency", "tcp_checks", "http_checks",
        "headers", "interval", "timeout", "destination", "source", "initial_size", "size", "memory", "cpus", "policy", "strategy",
        "http_options", "response", "schedules", "kill_timeout", "swap_size_mb", "guest_path", "type", "auto_stop_machines", "args",
        "script_checks", "command", "protocol", "start_port", "end_port", "tls_options", "gpu_kind", "gpus"]  # fmt: skip
LEAF = st.booleans() | st.integers(-5, 1 << 62) | st.floats(allow_nan=False) | st.text(max_size=12) | st.sampled_from(
    ["10s", "1gb", "80", "http", "tcp", "app", "web", "on-failure", "20,25", "daily", "stop"])  # fmt: skip
TOML = st.recursive(LEAF, lambda c: st.lists(c, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), c, max_size=6))


@MANY
@given(st.dictionaries(st.sampled_from(KEYS), TOML, max_size=8))
def test_no_document_crashes_the_reader_or_the_writer(document: dict[str, Any]) -> None:
    """Any TOML is read, or refused by the one typed error; whatever was read can be written and validates as a spec."""
    try:
        text = tomli_w.dumps(document)
        spec = FlyReader().read(MemoryTree({"fly.toml": text}), "fly.toml").spec
    except BlueprintInvalid:
        return
    assert Spec.model_validate(spec.canonical()) == spec
    FlyWriter().write(spec)
