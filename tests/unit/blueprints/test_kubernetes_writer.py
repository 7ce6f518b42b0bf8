"""What is written for Kubernetes: valid objects, no secret, nothing lost in silence."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from hypothesis import HealthCheck as Check
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes_validate import utils
from packaging.version import Version
from referencing import Registry, Resource

from homeport.blueprints.kubernetes import KubernetesReader, KubernetesWriter
from homeport.blueprints.kubernetes.names import Objects, short
from homeport.blueprints.manifests import dump_manifests, escape, expand, parse_manifests
from homeport.blueprints.registry import reader
from homeport.blueprints.source import MemoryTree, decode
from homeport.model.addon import MariaDB, Postgres, Redis, Temporal
from homeport.model.container import ContainerOptions, Port
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
from homeport.model.reading import Fate, Written
from homeport.model.route import Match, Redirect, Route, ToService
from homeport.model.service import (
    Build,
    CronService,
    DependsOn,
    Disk,
    Domain,
    FunctionService,
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
VERSIONS = sorted(set(utils.all_versions()), key=Version)[-2:]
IMAGE = Build(builder="image", image="ghcr.io/acme/shop:1.2")


@cache
def _definitions(version: str) -> Any:
    schema = utils.schema_contents(f"kubernetes-json-schema/v{version}-local-strict/_definitions.json", version)
    return Resource.from_contents(schema) @ Registry()


@cache
def _validator(version: str, kind: str, api: str) -> Any:
    """What `kubernetes-validate --strict` builds for each object anew, kept."""
    short_api = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    schema = utils.schema_contents(f"kubernetes-json-schema/v{version}-local-strict/{kind.lower()}-{short_api}.json", version)
    return jsonschema.validators.Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions(version))


def objects_of(written: Written) -> list[dict[str, Any]]:
    """The objects of what was written, as any YAML reader sees them."""
    return [one for one in yaml.safe_load_all(written.files["kubernetes.yaml"]) if one is not None]


def assert_valid(written: Written) -> None:
    """Each object is valid for the two newest versions, and no two have the same kind and name."""
    found = objects_of(written)
    for version in VERSIONS:
        for one in found:
            _validator(version, one["kind"], one["apiVersion"]).validate(one)
    keys = [(one["kind"], one["metadata"]["name"]) for one in found]
    assert len(keys) == len(set(keys))
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name) for _, name in keys)


def read_back(written: Written, name: str = "shop") -> Spec:
    """What the reader makes of what was written; every leaf is accounted for."""
    reading = KubernetesReader().read(MemoryTree(written.files, name=name), "kubernetes.yaml")
    assert not reading.by_fate(Fate.UNKNOWN)
    return reading.spec


def without_kept(written: Written) -> Spec:
    """What the other objects alone say, without the ConfigMap of leftovers."""
    kept = [one for one in objects_of(written) if "homeport.dev/spec" not in one["metadata"].get("annotations", {})]
    return KubernetesReader().read(MemoryTree({"k.yaml": dump_manifests(kept)}, name="shop"), "k.yaml").spec


def of_kind(written: Written, kind: str, name: str = "") -> dict[str, Any]:
    """The one object of a kind (and name)."""
    (found,) = [one for one in objects_of(written) if one["kind"] == kind and name in ("", one["metadata"]["name"])]
    return found


def losses(written: Written) -> dict[str, str]:
    return {loss.path: loss.reason for loss in written.losses}


RICH = Spec(
    name="shop",
    services={
        "web": WebService(
            build=IMAGE,
            port=3000,
            command="node server.js",
            env={
                "MODE": PlainValue(value="$(not) a $$ reference\nsecond line "),
                "KEY": SecretValue(),
                "MAYBE": SecretValue(required=False, name="OTHER"),
                "DATABASE_URL": FromAddOn(addon="db"),
                "PASSWORD": FromAddOn(addon="db", property="password"),
                "SHARED": FromGroup(group="common", key="LEVEL"),
                "DSN": Template(parts=(PlainValue(value="x://$(u):"), SecretValue(name="TOKEN"), PlainValue(value="@h"))),
            },
            env_groups=("common",),
            domains=(Domain(host="shop.example.com"), Domain(host="api.example.com", path="/v1", tls=False)),
            health=HealthCheck(
                path="/up", interval=timedelta(seconds=5), timeout=timedelta(seconds=2), retries=4, restart_after=9,
                deadline=timedelta(seconds=90), headers={"Host": "a"},
            ),
            resources=Resources(cpu=1.5, memory=512 << 20, cpu_reserved=0.25, memory_reserved=128 << 20),
            scale=Scale(min=2, max=6, target_cpu=70, target_memory=80),
            release_command=Hook(command="bin/migrate --all", timeout=timedelta(seconds=60)),
            shutdown_grace=timedelta(seconds=45),
            rollout=Rollout(max_surge="25%", max_unavailable="1", monitor=timedelta(seconds=10)),
            container=ContainerOptions(user="1000:1000", read_only=True, working_dir="/srv", cap_drop=("ALL",), tmpfs=()),
            aliases=("shop-web",),
            sticky=False,
        ),
        "api": PrivateService(build=IMAGE, port=9000, protocol="h2c", health=HealthCheck(kind="tcp"), scale=Scale(instances=3)),
        "jobs": WorkerService(
            build=IMAGE,
            command="work",
            disks=(Disk(name="data", mount_path="/data", size=5 << 30), Disk(name="tmp", mount_path="/t", kind="tmpfs", size=1 << 20)),
            checks=(HealthCheck(kind="command", command=("alive",), role="live"),),
        ),
        "nightly": CronService(
            build=IMAGE, command="clean", schedule="17 3 * * *", timezone="Europe/Berlin", concurrency="replace",
            timeout=timedelta(seconds=600), restart=Restart(policy="on-failure", max_retries=2),
        ),
        "once": CronService(build=IMAGE, command="seed", schedule="", job=True, restart=Restart(policy="never")),
    },
    addons={
        "db": Postgres(version="17", database="shop", user="shop", disk=10 << 30, parameters={"max_connections": "50"}),
        "cache": Redis(version="9", eviction="allkeys-lru", persistence=False, disk=1 << 30),
        "books": MariaDB(version="11", database="b", user="b", disk=1 << 30),
    },
    env_groups={"common": EnvGroup(env={"LEVEL": PlainValue(value="info"), "TOKEN": SecretValue()})},
    routes=(Route(match=Match(host="shop.example.com", path="/api"), action=ToService(service="api")),),
)  # fmt: skip


def test_what_kubernetes_can_say_reads_back_from_its_own_fields() -> None:
    """A spec of fields that Kubernetes has is found again without any help of the ConfigMap of leftovers, images of add-ons aside."""
    written = KubernetesWriter().write(RICH)
    assert_valid(written)
    back, wanted = without_kept(written).canonical(), RICH.canonical()
    for addon in back["addons"].values():
        addon.pop("image")
    for addon in (*back["addons"].values(), *wanted["addons"].values()):
        addon.pop("flavour", None)
    assert back["services"] == wanted["services"]
    assert back == wanted
    assert read_back(written) == RICH


def test_losses_of_a_full_spec_are_instructions_only() -> None:
    """Where every field has a place, what is listed is what a person has to do: make Secrets, and run the release Job."""
    found = losses(KubernetesWriter().write(RICH))
    assert set(found) == {
        "secrets.shop-secrets", "secrets.group-common", "secrets.db", "secrets.cache", "secrets.books", "secrets.web-tls",
        "services.web.release_command.order", "services.web.scale.instances",
    } - {"services.web.scale.instances"}  # fmt: skip
    assert "KEY" in found["secrets.shop-secrets"] and "OTHER" in found["secrets.shop-secrets"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_official_validator_agrees(version: str) -> None:
    """`kubernetes-validate --strict` itself accepts every object of a full spec."""
    seen = set()
    for one in objects_of(KubernetesWriter().write(RICH)):
        if one["kind"] not in seen:
            seen.add(one["kind"])
            kubernetes_validate.validate(one, version, strict=True)
    assert {"Deployment", "StatefulSet", "Service", "Ingress", "HorizontalPodAutoscaler", "CronJob", "Job", "ConfigMap"} <= seen
    assert {"NetworkPolicy", "PodDisruptionBudget"} <= seen


def test_no_secret_and_no_generated_value_is_written() -> None:
    """Secrets are references; what has to be created is listed, with the keys."""
    spec = Spec(
        name="shop",
        services={"web": WebService(build=IMAGE, env={"A": SecretValue(default="hunter2"), "B": GeneratedValue()})},
        addons={"db": Postgres(password=PlainValue(value="swordfish"))},
    )
    written = KubernetesWriter().write(spec)
    assert not [one for one in objects_of(written) if one["kind"] == "Secret"]
    pod = json.dumps(of_kind(written, "Deployment"))
    assert "hunter2" not in pod
    found = losses(written)
    assert "openssl rand" in found["services.web.env.B"]
    assert "A" in found["secrets.shop-secrets"]
    assert "password" in found["secrets.db"]


def test_an_unbuilt_service_gets_an_image_by_convention() -> None:
    """A service that is built from source names the image that somebody has to push."""
    written = KubernetesWriter().write(Spec(name="shop", services={"web": WebService(command="node a.js"), "site": StaticService()}))
    assert of_kind(written, "Deployment", "web")["spec"]["template"]["spec"]["containers"][0]["image"] == "shop-web:latest"
    assert "shop-site:latest" in losses(written)["services.site.build"]


def test_a_listening_instance_is_drained_before_it_is_told_to_stop() -> None:
    """The pod goes on serving while its address leaves the proxies, and its own grace comes on top."""
    written = KubernetesWriter().write(Spec(name="shop", services={"web": WebService(build=IMAGE)}))
    pod = of_kind(written, "Deployment")["spec"]["template"]["spec"]
    assert pod["containers"][0]["lifecycle"]["preStop"] == {"sleep": {"seconds": 5}}
    assert pod["terminationGracePeriodSeconds"] == 35
    assert of_kind(written, "Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_only_pods_of_the_project_reach_what_is_private() -> None:
    """The network policy selects private services and add-ons, never the web service."""
    policy = of_kind(KubernetesWriter().write(RICH), "NetworkPolicy")["spec"]
    inside = policy["podSelector"]["matchExpressions"][0]["values"]
    assert {"private", "postgres", "redis"} <= set(inside) and "web" not in inside
    assert policy["ingress"] == [{"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "shop"}}}]}]


def test_what_the_cluster_would_not_do_is_listed() -> None:
    """Redirects, functions, orders of start, plans and scale to zero are losses with a reason, and come back from the ConfigMap."""
    spec = Spec(
        name="shop",
        services={
            "web": WebService(
                build=IMAGE, depends_on=(DependsOn(service="api"),), resources=Resources(plan="starter"), scale=Scale(scale_to_zero=True),
                restart=Restart(policy="never"), health=HealthCheck(expect_body="ok"), ports=(Port(target=9229, published="9229"),),
            ),
            "api": PrivateService(build=IMAGE),
            "fn": FunctionService(entrypoint="a.js"),
        },
        routes=(Route(match=Match(host="a.example.com", path="/x"), action=Redirect(to="/y")),),
        environments={"staging": {"services": {"web": {"scale": {"instances": 1}}}}},
    )  # fmt: skip
    written = KubernetesWriter().write(spec)
    found = losses(written)
    for path in (
        "services.web.depends_on", "services.web.resources.plan", "services.web.scale.scale_to_zero", "services.web.restart.policy",
        "services.web.health.expect_body", "services.web.ports[0]", "services.fn", "routes[0]", "environments",
    ):  # fmt: skip
        assert any(one.startswith(path) for one in found), path
    assert_valid(written)
    assert read_back(written) == spec


def test_names_that_kubernetes_cannot_take_are_changed_and_found_again() -> None:
    """Names that begin with a digit, are long, or are shared by a service and an add-on get objects of their own."""
    long = "a" * 63
    spec = Spec(name="1shop", services={"2web": WebService(build=IMAGE), long: WebService(build=IMAGE), "db": WorkerService(build=IMAGE)},
                addons={"db": Redis()})  # fmt: skip
    written = KubernetesWriter().write(spec)
    assert_valid(written)
    assert read_back(written, "1shop") == spec
    assert len(short(long)) <= 52 and short(long) != short("a" * 62)
    assert len(set(Objects(spec).services.values()) | set(Objects(spec).addons.values())) == 4


def test_services_reach_each_other_by_their_object_names() -> None:
    """References to services become the names that the cluster's DNS knows, and stay references."""
    env = {"API": FromService(service="2api", property="url"), "T": FromAddOn(addon="flow", property="hostport")}
    spec = Spec(name="shop", services={"web": WebService(build=IMAGE, env=env), "2api": PrivateService(build=IMAGE, port=81)},
                addons={"flow": Temporal()})  # fmt: skip
    written = KubernetesWriter().write(spec)
    entries = {e["name"]: e.get("value") for e in of_kind(written, "Deployment", "web")["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert entries == {"PORT": "8080", "API": "http://x-2api:81", "T": "flow:7233"}
    assert not [path for path in losses(written) if ".env." in path]
    assert read_back(written) == spec


@MANY
@given(text=st.text("$()Aé ", max_size=30))
def test_dollars_survive(text: str) -> None:
    """What is escaped for `$(NAME)` fields expands to the same text, even when every name is known."""
    assert expand(escape(text), {}) == PlainValue(value=text)
    assert expand(escape(text, joined=True) + "$(A)", {"A": SecretValue()}) == Template(
        parts=(*((PlainValue(value=text),) if text else ()), SecretValue())
    )


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc.:~#-y", min_size=1), inner, max_size=3),
    max_leaves=12,
)


@MANY
@given(data=st.lists(st.dictionaries(st.text("abcn y#:", min_size=1), JSONISH, min_size=1, max_size=4), min_size=1, max_size=3))
def test_any_data_survives_the_yaml(data: list[dict[str, Any]]) -> None:
    """What is dumped parses back to the same, for our parser and for PyYAML."""
    text = dump_manifests(data)
    parsed = parse_manifests("a.yaml", text).data
    assert (parsed if len(data) > 1 else [parsed]) == data


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
KEYS = st.sampled_from(["A", "B_C", "a.b", "PORT", "PATH-x", "with space", "é", "A__1"])
VALUES = st.one_of(
    TEXT.map(lambda t: PlainValue(value=t)),
    st.builds(SecretValue, required=st.booleans(), name=st.sampled_from(["", "X", "a/b"]), default=st.none() | TEXT),
    st.builds(GeneratedValue, scope=st.sampled_from(["", "S"])),
    st.builds(FromService, service=st.sampled_from(["web", "api", "db", "gone"]), property=st.sampled_from(["host", "url", "public-url"])),
    st.builds(FromAddOn, addon=st.sampled_from(["db", "gone"]), property=st.sampled_from(["url", "password", "host"])),
    st.builds(FromGroup, group=st.sampled_from(["g", "gone"]), key=st.sampled_from(["A", "B_C"])),
    st.lists(TEXT.map(lambda t: PlainValue(value=t)) | st.just(SecretValue()) | st.just(FromAddOn(addon="db")), max_size=3).map(
        lambda parts: Template(parts=tuple(parts))
    ),
)
COMMON: dict[str, Any] = {
    "env": st.dictionaries(KEYS, VALUES, max_size=4),
    "env_groups": st.sampled_from([(), ("g",), ("g", "gone")]),
    "command": st.sampled_from(["", "npm start", "a && b $(date) $$", ("a", "$(A)", ""), "it's \"broken"]),
    "build": st.sampled_from([Build(), IMAGE, Build(builder="dockerfile", dockerfile="D")]),
    "restart": st.builds(Restart, policy=st.sampled_from(["always", "never", "on-failure"]), max_retries=st.none() | st.integers(0, 3)),
    "resources": st.builds(Resources, cpu=st.none() | st.floats(0.0001, 64), memory=st.none() | st.integers(1, 2**40)),
    "scale": st.builds(
        Scale, instances=st.integers(0, 4), min=st.none() | st.integers(0, 3), max=st.none() | st.integers(0, 9),
        target_cpu=st.none() | st.floats(0.1, 300),
    ),
    "shutdown_grace": st.none() | st.floats(0, 500).map(lambda s: timedelta(seconds=s)),
    "disks": st.lists(
        st.builds(
            Disk, name=TEXT, mount_path=st.sampled_from(["/a", "/b"]), source=st.sampled_from(["", "x", "/x", "./y"]),
            kind=st.sampled_from(["volume", "bind", "tmpfs", "image", "npipe", "config", "secret"]),
        ),
        max_size=3,
    ).map(tuple),
    "aliases": st.lists(st.sampled_from(["web", "other", "UPPER", "a_b"]), max_size=3, unique=True).map(tuple),
    "ports": st.lists(
        st.builds(Port, target=st.sampled_from([8080, 53]), protocol=st.sampled_from(["tcp", "udp"]), name=TEXT), max_size=3
    ).map(tuple),
    "health": st.none()
    | st.builds(
        HealthCheck, kind=st.sampled_from(["http", "tcp", "command", "none"]),
        role=st.sampled_from(["ready", "live", "startup", "monitor"]),
        port=st.sampled_from(["", "8080", "x"]), interval=st.none() | st.floats(0, 99).map(lambda s: timedelta(seconds=s)),
        retries=st.none() | st.integers(-1, 5), restart_after=st.none() | st.integers(0, 5), command=st.sampled_from(["x", ("y", "z")]),
    ),
    "release_command": st.none() | st.just(Hook(command="bin/x | y")),
}  # fmt: skip
DOMAINS = st.lists(
    st.builds(Domain, host=st.sampled_from(["a.example", "*.b.example", "A:1", ""]), path=st.sampled_from(["", "/p"])), max_size=3
)
SERVICES: st.SearchStrategy[Service] = st.one_of(
    st.builds(WebService, port=st.none() | st.integers(1, 65535), domains=DOMAINS.map(tuple), **COMMON),
    st.builds(PrivateService, **COMMON),
    st.builds(WorkerService, **COMMON),
    st.builds(StaticService, **COMMON),
    st.builds(FunctionService, **COMMON),
    st.builds(CronService, schedule=st.sampled_from(["* * * * *", "@daily", "", "nonsense"]), job=st.booleans(), **COMMON),
)


@MANY
@given(
    services=st.dictionaries(st.sampled_from(["web", "api", "db", "9x", "w" * 63]), SERVICES, max_size=4),
    group=st.dictionaries(KEYS, VALUES, max_size=3),
    addon=st.sampled_from([Postgres(), Redis(), Temporal(address="a:1"), MariaDB(flavour="mysql")]),
)
def test_any_spec_is_written_valid_and_read_back_whole(services: dict[str, Service], group: dict[str, Any], addon: Any) -> None:
    """Whatever a spec says, the writer does not raise, the objects are valid, and nothing is lost on the way back."""
    spec = Spec(name="shop", services=services, addons={"db": addon}, env_groups={"g": EnvGroup(env=group)})
    written = KubernetesWriter().write(spec)
    assert_valid(written)
    assert read_back(written) == spec


def test_real_files_become_valid_manifests(shared: Path) -> None:
    """Each tenth real file of every dialect is written as valid objects and read back as it was."""
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
        written = KubernetesWriter().write(spec)
        assert_valid(written)
        assert read_back(written, spec.name) == spec, file.name
        done += 1
    assert done > 50
