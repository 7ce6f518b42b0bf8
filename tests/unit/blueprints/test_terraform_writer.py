"""Terraform for Google Cloud: parsed back by an HCL parser, every reference resolved, nothing secret written."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import hcl2
from hypothesis import HealthCheck as Check
from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.blueprints.registry import reader
from homeport.blueprints.source import MemoryTree, decode
from homeport.blueprints.terraform import TerraformWriter
from homeport.blueprints.terraform.hcl import Block, Joined, Ref, Value, render
from homeport.blueprints.terraform.writer import Emitter
from homeport.model.addon import External, MariaDB, Postgres, Redis, Temporal
from homeport.model.env import (
    EnvGroup,
    FromAddOn,
    FromGroup,
    FromService,
    GeneratedValue,
    PlainValue,
    SecretValue,
    Template,
)
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Written
from homeport.model.service import (
    Build,
    CronService,
    Disk,
    Domain,
    FunctionService,
    HealthCheck,
    Hook,
    PrivateService,
    Resources,
    Restart,
    Scale,
    Service,
    StaticService,
    WebService,
    WorkerService,
)
from homeport.model.spec import Spec

MANY = settings(max_examples=40, deadline=None, suppress_health_check=[Check.too_slow])
IMAGE = Build(builder="image", image="eu-docker.pkg.dev/acme/shop/web:1")
_ESCAPE = re.compile(r'\\(u[0-9a-f]{4}|U[0-9a-f]{8}|["\\nrt])|\$\$\{|%%\{|\$\{([^}]*)\}|(.)', re.DOTALL)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}


def text_of(quoted: str) -> tuple[str | Ref, ...]:
    """The parts of a quoted template, decoded as HCL's specification says; independent of the writer."""
    parts: list[str | Ref] = []
    for match in _ESCAPE.finditer(quoted[1:-1]):
        code, reference, char = match[1], match[2], match[3]
        if reference is not None:
            parts.append(Ref(reference))
            continue
        piece = char if char is not None else match[0][1:] if code is None else _LETTERS.get(code) or chr(int(code[1:], 16))
        if parts and isinstance(parts[-1], str):
            parts[-1] += piece
        else:
            parts.append(piece)
    return tuple(parts)


def parsed(value: Any) -> Any:
    """A parsed value as plain data: texts as tuples of parts, expressions as Ref."""
    if isinstance(value, str):
        if value.startswith('"'):
            return text_of(value)
        return Ref(value[2:-1] if value.startswith("${") else value)
    if isinstance(value, list):
        return [parsed(item) for item in value]
    if isinstance(value, dict):
        return {"".join(map(str, text_of(k))) if k.startswith('"') else k: parsed(v) for k, v in value.items() if k != "__is_block__"}
    return value


def plain(value: Value) -> Any:
    """What was to be written, in the same form."""
    if isinstance(value, str):
        return (value,) if value else ()
    if isinstance(value, Joined):
        found: list[str | Ref] = []
        for part in value.parts:
            if isinstance(part, str) and found and isinstance(found[-1], str):
                found[-1] += part
            elif part != "":
                found.append(part)
        return tuple(found)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if item is not None}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def body(block: Block) -> dict[str, Any]:
    """A block's attributes, and its blocks by kind."""
    found = {key: plain(value) for key, value in block.attributes.items() if value is not None}
    for child in block.blocks:
        inner: Any = body(child)
        for label in reversed(child.labels):
            inner = {label: inner}
        found.setdefault(child.kind, []).append(inner)
    return found


def read(text: str) -> dict[str, Any]:
    return {kind: parsed(entries) for kind, entries in hcl2.loads(text).items()}


def assert_parses_back(blocks: list[Block], text: str) -> None:
    """The text holds these blocks and no others."""
    assert read(text) == body(Block("", blocks=blocks))


def resources_of(written: Written) -> dict[str, dict[str, Any]]:
    """Every resource by `type.name`."""
    found: dict[str, dict[str, Any]] = {}
    for text in written.files.values():
        for entry in read(text).get("resource", []):
            for kind, named in entry.items():
                for name, inner in named.items():
                    assert f"{kind}.{name}" not in found
                    found[f"{kind}.{name}"] = inner
    return found


def assert_whole(written: Written) -> None:
    """Each reference names something that is there, and no two resources need each other."""
    text = "\n".join(written.files.values())
    variables = {name for file in written.files.values() for entry in read(file).get("variable", []) for name in entry}
    assert set(re.findall(r"\bvar\.(\w+)", re.sub(r'"[^"$]*"', "", text))) <= variables
    resources = resources_of(written)
    graph = {}
    for name, inner in resources.items():
        names = {m for ref in _refs(inner) for m in re.findall(r"\b(?:google|random)_\w+\.\w+", ref)}
        assert names <= set(resources), name
        graph[name] = names
    list(TopologicalSorter(graph).static_order())


def _refs(value: Any) -> list[str]:
    if isinstance(value, Ref):
        return [value.expression]
    if isinstance(value, dict):
        return [ref for item in value.values() for ref in _refs(item)]
    return [ref for item in value for ref in _refs(item)] if isinstance(value, list | tuple) else []


RICH = Spec(
    name="shop",
    services={
        "web": WebService(
            build=IMAGE,
            port=3000,
            command=("node", "a.js"),
            env={
                "A": PlainValue(value='a ${x} %{y} "q" \\ \n $${z} $'),
                "KEY": SecretValue(description="API key"),
                "DATABASE_URL": FromAddOn(addon="db"),
                "HOST": FromAddOn(addon="db", property="host"),
                "CACHE": FromAddOn(addon="cache"),
                "API": FromService(service="api", property="url"),
                "G": GeneratedValue(format="hex", bytes=16),
                "T": Template(parts=(PlainValue(value="x$"), SecretValue(name="TOKEN"), PlainValue(value="{y"))),
                "L": FromGroup(group="common", key="LEVEL"),
            },
            env_groups=("common",),
            domains=(Domain(host="shop.example.com"),),
            health=HealthCheck(path="/up", interval=timedelta(seconds=5), deadline=timedelta(seconds=60), restart_after=3),
            scale=Scale(min=1, max=5, hard_concurrency=40),
            resources=Resources(cpu=1.5, memory=512 << 20),
            disks=(Disk(name="b", mount_path="/b", kind="cluster", source="gs://files"),),
            release_command=Hook(command=("migrate",), timeout=timedelta(seconds=60)),
        ),
        "api": PrivateService(build=IMAGE, env={"BACK": FromService(service="web", property="url")}),
        "jobs": WorkerService(command="work"),
        "nightly": CronService(
            build=IMAGE, schedule="17 3 * * *", concurrency="allow", restart=Restart(policy="on-failure", max_retries=2)
        ),
        "site": StaticService(publish="dist"),
    },
    addons={
        "db": Postgres(version="16", disk=20 << 30, parameters={"max_connections": "50"}, high_availability=True),
        "cache": Redis(eviction="allkeys-lru", memory=3 << 30),
        "old": MariaDB(flavour="mysql", version="8.0"),
    },
    env_groups={"common": EnvGroup(env={"LEVEL": PlainValue(value="info"), "TOKEN": SecretValue(), "SALT": GeneratedValue()})},
)


def test_a_full_project_parses_back_to_what_was_meant() -> None:
    """Each file read by an HCL parser holds exactly the blocks it was made of."""
    written = TerraformWriter().write(RICH)
    for name, blocks in Emitter(RICH).files().items():
        assert_parses_back(blocks, written.files[name])
    assert_whole(written)
    kinds = {name.split(".")[0] for name in resources_of(written)}
    assert {
        "google_cloud_run_v2_service",
        "google_cloud_run_v2_job",
        "google_cloud_run_v2_worker_pool",
        "google_cloud_scheduler_job",
        "google_sql_database_instance",
        "google_sql_database",
        "google_sql_user",
        "google_redis_instance",
        "google_secret_manager_secret",
        "google_secret_manager_secret_version",
        "google_cloud_run_v2_service_iam_member",
        "google_service_account",
        "google_cloud_run_domain_mapping",
    } <= kinds


def test_only_web_services_are_open_to_everybody() -> None:
    """A private service answers what comes from the project's network only, and all traffic goes through that."""
    resources = resources_of(TerraformWriter().write(RICH))
    assert resources["google_cloud_run_v2_service.api"]["ingress"] == ("INGRESS_TRAFFIC_INTERNAL_ONLY",)
    web = resources["google_cloud_run_v2_service.web"]
    assert web["ingress"] == ("INGRESS_TRAFFIC_ALL",)
    assert web["template"][0]["vpc_access"][0]["egress"] == ("ALL_TRAFFIC",)
    assert resources["google_compute_subnetwork.app"]["private_ip_google_access"] is True
    assert "google_compute_router_nat.app" in resources


def test_secrets_are_asked_for_or_made_and_never_written() -> None:
    """What people know comes by sensitive variables without a default; what nobody has to know is random."""
    spec = Spec(
        name="shop",
        services={"web": WebService(build=IMAGE, env={"K": SecretValue(default="hunter2"), "G": GeneratedValue(format="uuid")})},
        addons={"db": Postgres(password=PlainValue(value="swordfish")), "out": External(type="neo4j")},
    )
    written = TerraformWriter().write(spec)
    text = "".join(written.files.values())
    assert "hunter2" not in text and "swordfish" not in text
    assert "random_uuid" in text and "random_password" in text
    variables = read(written.files["variables.tf"])["variable"]
    (asked,) = [entry["k"] for entry in variables if "k" in entry]
    assert asked["sensitive"] is True and "default" not in asked
    assert any(loss.path == "addons.db.password" for loss in written.losses)


def test_a_circle_of_references_is_cut_and_listed() -> None:
    """Terraform refuses resources that need each other; the second reference is a loss."""
    written = TerraformWriter().write(RICH)
    assert "services.api.env.BACK" in {loss.path for loss in written.losses}


def test_losses_of_a_full_project_are_honest() -> None:
    """What is listed is what has to be done by hand, or cannot be said; nothing that is written."""
    found = {loss.path: loss.reason for loss in TerraformWriter().write(RICH).losses}
    assert set(found) == {
        "services.api.env.BACK",
        "services.web.release_command.order",
        "services.jobs.build",
        "services.site.build",
    }


def test_what_google_does_not_run_is_listed() -> None:
    """Functions, MariaDB, Temporal, redirects, disks and everything without a field of its own have a reason."""
    spec = Spec(
        name="shop",
        services={
            "web": WebService(
                domains=(Domain(host="a.example.com", redirect_to="b"),),
                disks=(Disk(mount_path="/data"),),
                region="oregon",
                stop_signal="SIGINT",
                health=HealthCheck(expect_body="ok"),
            ),
            "fn": FunctionService(),
            "c": CronService(schedule="@daily"),
        },
        addons={"m": MariaDB(), "t": Temporal(), "r": Redis(plan="big")},
        environments={"staging": {}},
    )
    written = TerraformWriter().write(spec)
    found = {loss.path: loss.reason for loss in written.losses}
    for path in (
        "services.fn",
        "services.web.domains[0]",
        "services.web.disks[0]",
        "services.web.region",
        "services.web.stop_signal",
        "services.web.health.expect_body",
        "services.c.schedule",
        "services.c.concurrency",
        "addons.m.flavour",
        "addons.t",
        "addons.r.plan",
        "environments",
    ):
        assert found.get(path), path
    assert_whole(written)


def test_the_layout_is_that_of_terraform_fmt() -> None:
    """Equals signs of neighbouring attributes stand in a column, a longer value breaks the column, blocks stand apart."""
    block = Block(
        "resource",
        ("a", "b"),
        {"x": "1", "long": True, "m": {"k": 1, "other": "v"}, "after": [Ref("a.b"), "c"]},
        [Block("inner"), Block("n", (), {"y": 2})],
    )
    assert render([block, Block("locals")]) == (
        'resource "a" "b" {\n  x    = "1"\n  long = true\n  m = {\n    k     = 1\n    other = "v"\n  }\n  after = [a.b, "c"]\n\n'
        "  inner {}\n\n  n {\n    y = 2\n  }\n}\n\nlocals {}\n"
    )


HOSTILE = st.text(st.sampled_from('${}%"\\\n\r\t a\u00e9\u2028\U0001f600\x00\x7f'), max_size=25) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=25
)


@MANY
@given(text=HOSTILE)
def test_no_text_escapes_its_quotes(text: str) -> None:
    """Any text, parsed back, is the same text: no interpolation, no directive, no end of the string."""
    block = Block("resource", ("a", "b"), {"x": text, "y": [text, {"k": text}], "m": {"a.b": text}})
    assert_parses_back([block], render([block]))


@MANY
@given(parts=st.lists(HOSTILE | st.just(Ref("var.a")), min_size=1, max_size=4))
def test_text_around_references_keeps_both(parts: list[str | Ref]) -> None:
    """References stay references and text stays text, whatever stands at the seams."""
    block = Block("locals", (), {"x": Joined((*parts, Ref("var.z")))})
    assert_parses_back([block], render([block]))


@MANY
@given(
    values=st.lists(
        HOSTILE | st.integers(0, 9) | st.lists(st.just("a" * 60), max_size=3) | st.just({"k": ["x" * 99, "y" * 99]}), max_size=4
    )
)
def test_long_lists_parse_back(values: list[Any]) -> None:
    """Lists that are broken over lines hold the same items."""
    block = Block("locals", (), {"x": [*values, "z" * 99, {"a": "b"}]})
    assert_parses_back([block], render([block]))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COMMON: dict[str, Any] = {
    "env": st.dictionaries(
        st.sampled_from(["A", "b.c", "PORT", "a b"]),
        TEXT.map(lambda t: PlainValue(value=t))
        | st.builds(SecretValue, name=TEXT, required=st.booleans())
        | st.builds(GeneratedValue, format=st.sampled_from(["hex", "uuid", "alphanumeric", "base64"]), scope=st.sampled_from(["", "s"]))
        | st.builds(FromAddOn, addon=st.sampled_from(["db", "gone"]), property=st.sampled_from(["url", "host", "password", "database"]))
        | st.builds(
            FromService,
            service=st.sampled_from(["web", "api", "db", "gone"]),
            property=st.sampled_from(["url", "port", "hostport", "public-url"]),
        )
        | st.just(Template(parts=(FromService(service="api"), PlainValue(value="$"), SecretValue(name="x")))),
        max_size=4,
    ),
    "command": st.sampled_from(["", "npm start", "a && b ${c}", ("a", "")]),
    "build": st.sampled_from([Build(), IMAGE]),
    "scale": st.builds(Scale, instances=st.integers(0, 4), max=st.none() | st.integers(0, 9), scale_to_zero=st.booleans()),
    "disks": st.lists(
        st.builds(
            Disk,
            name=TEXT,
            mount_path=TEXT,
            source=st.sampled_from(["", "gs://b", "nfs://h/p"]),
            kind=st.sampled_from(["volume", "tmpfs", "secret"]),
        ),
        max_size=2,
    ).map(tuple),
    "env_groups": st.sampled_from([(), ("g",)]),
}
SERVICES: st.SearchStrategy[Service] = st.one_of(
    st.builds(
        WebService,
        domains=st.lists(st.builds(Domain, host=TEXT | st.sampled_from(["a.example", "b.example"])), max_size=2).map(tuple),
        **COMMON,
    ),
    st.builds(PrivateService, **COMMON),
    st.builds(WorkerService, **COMMON),
    st.builds(StaticService, **COMMON),
    st.builds(CronService, schedule=st.sampled_from(["* * * * *", "", "x"]), job=st.booleans(), **COMMON),
)


@MANY
@given(
    services=st.dictionaries(st.sampled_from(["web", "api", "9x", "w" * 63]), SERVICES, max_size=3),
    addon=st.sampled_from([Postgres(), Redis(), Temporal(), Temporal(address="h:1"), MariaDB(), External(type="x")]),
)
def test_any_spec_becomes_files_that_parse_and_hold_together(services: dict[str, Service], addon: Any) -> None:
    """Whatever a spec says: no exception, files that parse back to the blocks, references that resolve, no circle."""
    groups = {"g": EnvGroup(env={"S": SecretValue(), "G": GeneratedValue(), "U": FromService(service="web", property="url")})}
    spec = Spec(name="shop", services=services, addons={"db": addon}, env_groups=groups)
    written = TerraformWriter().write(spec)
    for name, blocks in Emitter(spec).files().items():
        if blocks:
            assert_parses_back(blocks, written.files[name])
    assert_whole(written)


def test_real_files_become_terraform(shared: Path) -> None:
    """Each tenth real file of every dialect is written as files that parse and hold together."""
    rows = [json.loads(line) for line in (shared / "corpus" / "index.jsonl").read_text().splitlines()]
    rows = [row for row in rows if not row["fixture"] and row["dialect"] not in ("cloudbuild", "ghworkflow")]
    done = 0
    for row in rows[::10]:
        file = shared / "corpus" / row["file"]
        one = reader(row["dialect"])
        assert one is not None
        try:
            spec = one.read(MemoryTree({file.name: decode(file.read_bytes())}, name="app"), file.name).spec
        except BlueprintInvalid:
            continue
        assert_whole(TerraformWriter().write(spec))
        done += 1
    assert done > 50
