"""Specs written as Compose files, and read back."""

from __future__ import annotations

from datetime import timedelta

import yaml
from hypothesis import HealthCheck as Health
from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.blueprints.compose import ComposeReader, ComposeWriter
from homeport.blueprints.source import MemoryTree
from homeport.model.addon import AddOn, External, MariaDB, Postgres, Redis, Temporal
from homeport.model.container import ContainerOptions, Port
from homeport.model.env import (
    EnvGroup,
    EnvValue,
    FromAddOn,
    FromGroup,
    FromService,
    GeneratedValue,
    HostValue,
    PlainValue,
    SecretValue,
    Template,
)
from homeport.model.route import Match, Redirect, Route
from homeport.model.service import (
    Build,
    CronService,
    DependsOn,
    Disk,
    Domain,
    FunctionService,
    HealthCheck,
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

TEXT = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
WORD = st.text(alphabet="abz09-_./:${}#'\" ", max_size=10)
PLAIN = st.builds(PlainValue, value=st.one_of(WORD, TEXT, st.sampled_from(["yes", "22:22", "1e3", "null", "~", "a\nb", "db", "db:5432"])))
VALUES: st.SearchStrategy[EnvValue] = st.one_of(
    PLAIN,
    st.builds(SecretValue, required=st.booleans(), description=WORD, default=st.none() | WORD, name=st.sampled_from(["", "TOKEN"])),
    st.builds(HostValue, name=st.sampled_from(["A", "HOME"]), default=st.none() | WORD),
    st.builds(GeneratedValue, format=st.sampled_from(["hex", "base64"]), scope=st.sampled_from(["", "SERVICE_PASSWORD_X"])),
    st.builds(FromService, service=st.sampled_from(["web", "gone"]), property=st.sampled_from(["host", "hostport", "url", "public-url"])),
    st.builds(
        FromAddOn, addon=st.sampled_from(["db", "kv"]), property=st.sampled_from(["url", "host", "port", "user", "password", "database"])
    ),
    st.builds(FromGroup, group=st.just("shared"), key=st.just("K")),
    st.builds(Template, parts=st.tuples(PLAIN, st.builds(FromAddOn, addon=st.just("db"), property=st.just("host")))),
)
ENV = st.dictionaries(st.sampled_from(["A", "DB_HOST", "DATABASE_URL", "API_KEY", "SERVICE_URL_WEB"]), VALUES, max_size=3)
BUILDS = st.builds(
    Build,
    builder=st.sampled_from(["auto", "dockerfile", "image", "none", "command"]),
    image=st.sampled_from(["", "acme/app:1", "postgres:16"]),
    command=st.sampled_from(["", "npm run build"]),
    dockerfile=st.sampled_from(["", "Dockerfile", "deploy/Dockerfile"]),
    context=st.sampled_from(["", ".", "web"]),
    args=ENV,
)
SECONDS = st.none() | st.integers(1, 4000).map(lambda n: timedelta(seconds=n))
HEALTH = st.none() | st.builds(
    HealthCheck,
    kind=st.sampled_from(["http", "tcp", "command", "none"]),
    path=st.sampled_from(["/", "/up"]),
    command=st.sampled_from([(), ("pg_isready",), "curl -f localhost"]),
    interval=SECONDS,
    retries=st.none() | st.integers(1, 9),
)
COMMON = {
    "build": BUILDS,
    "root": st.sampled_from(["", "web"]),
    "command": st.sampled_from(["", "node a.js", ("node", "$HOME")]),
    "env": ENV,
    "env_groups": st.sampled_from([(), ("shared",)]),
    "resources": st.builds(
        Resources, plan=st.sampled_from(["", "starter"]), cpu=st.none() | st.just(0.5), memory=st.none() | st.just(512 << 20)
    ),
    "disks": st.lists(
        st.builds(Disk, name=st.sampled_from(["", "data"]), mount_path=st.just("/data"), read_only=st.booleans()), max_size=1
    ).map(tuple),
    "restart": st.builds(Restart, policy=st.sampled_from(["always", "never", "on-failure"]), max_retries=st.none() | st.integers(1, 3)),
    "scale": st.builds(Scale, instances=st.integers(0, 5), max=st.none() | st.just(9)),
    "depends_on": st.lists(
        st.builds(DependsOn, service=st.sampled_from(["db", "kv"]), condition=st.sampled_from(["started", "healthy"])), max_size=1
    ).map(tuple),
    "health": HEALTH,
    "shutdown_grace": SECONDS,
    "aliases": st.sampled_from([(), ("front",)]),
    "ports": st.lists(
        st.builds(
            Port,
            target=st.sampled_from([80, 5432, 9000]),
            published=st.sampled_from(["", "0", "8080"]),
            protocol=st.sampled_from(["tcp", "udp"]),
        ),
        max_size=2,
    ).map(tuple),
    "container": st.builds(ContainerOptions, user=st.sampled_from(["", "1000"]), labels=st.dictionaries(st.just("l"), WORD, max_size=1)),
}
PORT = st.none() | st.sampled_from([80, 3000])
SERVICES: st.SearchStrategy[Service] = st.one_of(
    st.builds(WebService, port=PORT, domains=st.sampled_from([(), (Domain(host="a.example"),)]), **COMMON),
    st.builds(PrivateService, port=PORT, **COMMON),
    st.builds(WorkerService, **COMMON),
    st.builds(CronService, schedule=st.sampled_from(["0 3 * * *", ""]), job=st.booleans(), **COMMON),
    st.builds(StaticService, publish=st.just("dist"), **COMMON),
    st.builds(FunctionService, entrypoint=st.just("a.js"), **COMMON),
)
PASSWORD = st.none() | st.builds(GeneratedValue) | PLAIN | st.builds(SecretValue, name=st.just("PW"))
ADDONS: st.SearchStrategy[AddOn] = st.one_of(
    st.builds(
        Postgres,
        database=st.sampled_from(["", "shop"]),
        user=st.sampled_from(["", "app"]),
        password=PASSWORD,
        parameters=st.sampled_from([{}, {"a": "b"}]),
    ),
    st.builds(Redis, eviction=st.sampled_from(["", "noeviction"]), persistence=st.none() | st.booleans(), password=PASSWORD),
    st.builds(MariaDB, flavour=st.sampled_from(["mariadb", "mysql"]), password=PASSWORD, version=st.sampled_from(["", "11"])),
    st.builds(Temporal, ui=st.booleans(), namespace=st.sampled_from(["default", "x"])),
    st.builds(External, type=st.just("mongodb")),
)
SPECS = st.builds(
    Spec,
    name=st.just("shop"),
    title=st.sampled_from(["", "My Shop"]),
    services=st.dictionaries(st.sampled_from(["web", "worker", "a-b"]), SERVICES, max_size=3),
    addons=st.dictionaries(st.sampled_from(["db", "kv"]), ADDONS, max_size=2),
    env_groups=st.sampled_from([{}, {"shared": EnvGroup(env={"K": PlainValue(value="v")})}]),
    routes=st.sampled_from([(), (Route(match=Match(path="/a"), action=Redirect(to="/b")),)]),
)


def read_back(text: str) -> Spec:
    return ComposeReader().read(MemoryTree({"docker-compose.yaml": text}, name="elsewhere"), "docker-compose.yaml").spec


@settings(max_examples=150, deadline=None, suppress_health_check=[Health.too_slow, Health.data_too_large])
@given(SPECS)
def test_any_spec_is_written_and_read_back_unchanged(spec: Spec) -> None:
    """What Compose has no word for lies under `x-homeport`, so nothing is lost on the way."""
    written = ComposeWriter().write(spec)
    assert read_back(written.files["docker-compose.yaml"]) == spec


def test_a_loss_is_listed_for_what_docker_does_not_do() -> None:
    """Routes, host names, generated values and builds without a Dockerfile are named."""
    spec = Spec(
        name="shop",
        services={"web": WebService(domains=(Domain(host="a.example"),), env={"KEY": GeneratedValue()}, port=3000)},
        routes=(Route(action=Redirect(to="/b")),),
    )
    paths = {loss.path for loss in ComposeWriter().write(spec).losses}
    assert {"routes", "services.web.domains", "services.web.env.KEY", "services.web.build"} <= paths


def test_nothing_is_lost_where_compose_has_the_words() -> None:
    """A plain project needs no extension and lists no loss."""
    spec = Spec(
        name="shop",
        services={
            "web": WebService(
                build=Build(builder="dockerfile", context="web", dockerfile="web/Dockerfile"),
                root="web",
                port=3000,
                ports=(Port(target=3000, published="8080"),),
                env={"DATABASE_HOST": FromAddOn(addon="db", property="host"), "TOKEN": SecretValue(required=True)},
                depends_on=(DependsOn(service="db", condition="healthy"),),
            )
        },
        addons={"db": Postgres(version="16", user="app", database="shop", password=SecretValue(name="DB_PW"), image="postgres:16")},
    )
    written = ComposeWriter().write(spec)
    assert written.losses == ()
    data = yaml.safe_load(written.files["docker-compose.yaml"])
    assert "x-homeport" not in data
    assert data["services"]["web"]["environment"] == {"DATABASE_HOST": "db", "TOKEN": "${TOKEN:?}"}
