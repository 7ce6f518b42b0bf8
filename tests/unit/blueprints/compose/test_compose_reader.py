"""Compose projects read into the spec."""

from __future__ import annotations

import time
from typing import Any

import pytest

from homeport.blueprints.compose import ComposeReader
from homeport.blueprints.source import MemoryTree
from homeport.model.env import FromAddOn, FromService, GeneratedValue, HostValue, PlainValue, SecretValue, Template
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading
from homeport.model.service import CronService, PrivateService, WebService, WorkerService


def read(text: str, path: str = "compose.yaml", **files: str) -> Reading:
    return ComposeReader().read(MemoryTree({path: text, **{name.replace("__", "/"): t for name, t in files.items()}}, name="shop"), path)


def refusal(text: str, path: str = "compose.yaml") -> BlueprintInvalid:
    with pytest.raises(BlueprintInvalid) as caught:
        read(text, path)
    return caught.value


PROJECT = """
services:
  web:
    build: {context: ./web, target: prod, args: [NODE_ENV=production]}
    command: ["node", "server.js"]
    ports: ["8080:3000", "127.0.0.1:9229:9229"]
    environment:
      DATABASE_URL: postgresql://app:${DB_PASSWORD}@db:5432/shop
      CACHE_HOST: cache
      CACHE_PORT: 6379
      DB_TYPE: db
      STRIPE_KEY: ${STRIPE_KEY:?ask finance}
      LEVEL: ${LEVEL:-info}
      REGION:
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
    healthcheck: {test: "curl -f http://localhost:3000/up || exit 1", interval: 10s}
  worker: {build: ./web, command: node worker.js, restart: "on-failure:3"}
  api: {image: ghcr.io/acme/api, expose: [5000]}
  migrate: {build: ./web, command: npm run migrate, restart: "no"}
  db:
    image: docker.io/library/postgres:16-alpine@sha256:00
    command: postgres -c shared_buffers=256MB -c max_connections=50
    environment: {POSTGRES_USER: app, POSTGRES_DB: shop, POSTGRES_PASSWORD: "${DB_PASSWORD}"}
    volumes: [data:/var/lib/postgresql/data, ./init.sql:/docker-entrypoint-initdb.d/init.sql]
  cache:
    image: redis
    container_name: shop-cache
    command: redis-server --maxmemory-policy allkeys-lru --appendonly yes --requirepass s3cret
volumes: {data: }
"""


def test_services_become_what_their_ports_and_dependants_say() -> None:
    """Published HTTP is web, exposed is private, none is a worker, and what others wait for to end is a job."""
    spec = read(PROJECT).spec
    web = spec.services["web"]
    assert isinstance(web, WebService)
    assert (web.port, web.root, web.build.dockerfile, web.build.target) == (3000, "web", "web/Dockerfile", "prod")
    assert web.command == ("node", "server.js")
    assert [(p.target, p.published, p.host_ip) for p in web.ports] == [(3000, "8080", ""), (9229, "9229", "127.0.0.1")]
    assert web.health is not None
    assert (web.health.kind, web.health.path) == ("http", "/up")
    worker, migrate, api = spec.services["worker"], spec.services["migrate"], spec.services["api"]
    assert isinstance(worker, WorkerService)
    assert (worker.restart.policy, worker.restart.max_retries) == ("on-failure", 3)
    assert isinstance(migrate, CronService)
    assert migrate.job
    assert isinstance(api, PrivateService)
    assert (api.port, api.build.builder) == (5000, "image")


def test_known_images_become_add_ons_with_credentials_and_settings() -> None:
    """Registry prefixes, digests, flags and variables of PostgreSQL and Redis are understood."""
    spec = read(PROJECT).spec
    db: Any = spec.addons["db"]
    assert (db.kind, db.version, db.user, db.database) == ("postgres", "16", "app", "shop")
    assert db.parameters == {"shared_buffers": "256MB", "max_connections": "50"}
    assert db.password == SecretValue(required=False, name="DB_PASSWORD")
    assert db.extensions["init"] == ["./init.sql"]
    cache: Any = spec.addons["cache"]
    assert (cache.eviction, cache.persistence, cache.password, cache.aliases) == (
        "allkeys-lru",
        True,
        PlainValue(value="s3cret"),
        ("shop-cache",),
    )


def test_variables_become_secrets_host_values_and_references() -> None:
    """A URL that names an add-on is wired to it; a word that only equals its name is not."""
    env = read(PROJECT).spec.services["web"].env
    assert env["DATABASE_URL"] == Template(
        parts=(
            PlainValue(value="postgresql://app:"),
            FromAddOn(addon="db", property="password"),
            PlainValue(value="@"),
            FromAddOn(addon="db", property="hostport"),
            PlainValue(value="/shop"),
        )
    )
    assert env["CACHE_HOST"] == FromAddOn(addon="cache", property="host")
    assert env["CACHE_PORT"] == FromAddOn(addon="cache", property="port")
    assert env["DB_TYPE"] == PlainValue(value="db")
    assert env["STRIPE_KEY"] == SecretValue(required=True, description="ask finance")
    assert env["LEVEL"] == HostValue(name="LEVEL", default="info")
    assert env["REGION"] == HostValue(name="REGION")


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ("pgvector/pgvector:pg17", "postgres"),
        ("public.ecr.aws/docker/library/postgres:15", "postgres"),
        ("registry.gitlab.com:443/postgis/postgis:16-3.4", "postgres"),
        ("timescale/timescaledb:latest-pg16", "postgres"),
        ("supabase/postgres:15.1.0.117", "postgres"),
        ("valkey/valkey:8", "redis"),
        ("docker.dragonflydb.io/dragonflydb/dragonfly", "redis"),
        ("bitnami/mariadb:11", "mariadb"),
        ("mysql:8", "mariadb"),
        ("temporalio/auto-setup:1.25", "temporal"),
        ("acme/postgres", ""),
        ("postgres-exporter", ""),
        ("mongo:7", ""),
    ],
)
def test_an_image_is_known_by_its_whole_name(image: str, kind: str) -> None:
    """Only images whose content is known are served natively."""
    spec = read(f"services: {{x: {{image: '{image}'}}}}").spec
    assert next((addon.kind for addon in spec.addons.values()), "") == kind


def test_a_client_of_a_known_image_stays_a_service() -> None:
    """`postgres` that runs pg_dump, or a job on it, is no database."""
    text = "services: {dump: {image: 'postgres:16', command: pg_dump -h db}, seed: {image: mysql, entrypoint: [sh, seed.sh]}}"
    assert not read(text).spec.addons


def test_coolify_magic_is_understood() -> None:
    """SERVICE_* names are generated values shared by scope, and public addresses of services."""
    text = """
services:
  my-app:
    image: acme/app
    environment:
      - SERVICE_URL_MY-APP_3000
      - PASS=$SERVICE_PASSWORD_64_DB
      - APP_KEY=base64:${SERVICE_REALBASE64_KEY}
      - HOST_NAME=${SERVICE_FQDN_MYAPP}
"""
    service = read(text).spec.services["my-app"]
    assert isinstance(service, WebService)
    assert service.port == 3000
    assert service.env["SERVICE_URL_MY-APP_3000"] == FromService(service="my-app", property="public-url")
    assert service.env["PASS"] == GeneratedValue(format="alphanumeric", bytes=48, scope="SERVICE_PASSWORD_64_DB")
    assert service.env["HOST_NAME"] == FromService(service="my-app", property="public-host")
    assert service.env["APP_KEY"] == Template(
        parts=(PlainValue(value="base64:"), GeneratedValue(format="base64", bytes=32, scope="SERVICE_REALBASE64_KEY"))
    )


def test_a_variable_that_is_an_add_ons_credential_is_that_wherever_it_is_used() -> None:
    """User and database that come from variables are asked of the add-on, whoever makes them up."""
    text = """
services:
  app: {image: acme/app, environment: ["U=$SERVICE_USER_DB", "P=$SERVICE_PASSWORD_DB", "D=${DB:-shop}", "OTHER=${DB:-else}"]}
  db:
    image: postgres
    environment: {POSTGRES_USER: $SERVICE_USER_DB, POSTGRES_PASSWORD: $SERVICE_PASSWORD_DB, POSTGRES_DB: "${DB:-shop}"}
"""
    spec = read(text).spec
    env = spec.services["app"].env
    assert (env["U"], env["D"]) == (FromAddOn(addon="db", property="user"), FromAddOn(addon="db", property="database"))
    assert env["OTHER"] == HostValue(name="DB", default="else")
    assert env["P"] == spec.addons["db"].password  # type: ignore[union-attr]


def test_override_include_extends_and_dotenv_are_followed() -> None:
    """What Compose would load by itself is loaded; relative paths keep their folder."""
    reading = ComposeReader().read(
        MemoryTree(
            {
                "compose.yaml": "include: [sub/db.yaml]\n"
                "services: {web: {extends: {file: base/b.yaml, service: base}, ports: ['${P}:80']}}",
                "compose.override.yaml": "services: {web: {environment: {DEBUG: 1}}}",
                "base/b.yaml": "services: {base: {build: ., env_file: a.env, environment: [DEBUG=0, MODE=x]}}",
                "sub/db.yaml": "services: {store: {image: 'redis:${V:-6}'}}",
                ".env": "P=8080",
                "sub/.env": "V=7",
            },
            name="shop",
        ),
        "compose.yaml",
    )
    web = reading.spec.services["web"]
    assert web.root == "base"
    assert web.env_files[0].path == "base/a.env"
    assert web.env == {"DEBUG": PlainValue(value="1"), "MODE": PlainValue(value="x")}
    assert web.ports[0].published == "8080"
    assert reading.spec.addons["store"].version == "7"
    assert any("compose.override.yaml" in warning for warning in reading.warnings)


def test_yaml_is_read_as_compose_reads_it() -> None:
    """Base-60 numbers, octal words and yes/no of YAML 1.1 do not change what the file says."""
    service = read("services: {a: {image: x, ports: [22:22, 8000:80], init: yes, environment: {A: yes, B: 1.10, C: 012}}}").spec.services[
        "a"
    ]
    assert [(p.target, p.published) for p in service.ports] == [(22, "22"), (80, "8000")]
    assert service.container.init is True
    assert service.env["A"] == PlainValue(value="yes")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("services:\n  a:\n    image: [x]\n", 3, "must be a string"),
        ("services:\n  a:\n    image: x\n    ports: ['1:2:3:4:5x']\n", 4, "names no port"),
        ("services:\n  a: {image: x, depends_on: [b]}\n", 2, "undefined service 'b'"),
        ("services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n", 3, "dependency cycle"),
        ("services:\n  a:\n    command: run\n", 2, "neither an image nor a build"),
        ("services:\n  a:\n    image: x\n    stop_grace_period: soon\n", 4, "not a duration"),
        ("services:\n  a:\n    image: x\n    image: y\n", 4, "stands twice"),
        ("services:\n  a:\n    image: '${x y}'\n", 3, "Invalid template"),
        ("services:\n  a:\n    extends: {file: no.yaml, service: b}\n", 3, "no such file"),
        ("services:\n  a:\n    image: x\n    deploy: {replicas: 100000}\n", 2, "1000"),
        ("web:\n  image: x\n", 1, "layout Compose gave up"),
    ],
)
def test_a_refused_file_says_where_and_why(text: str, line: int, words: str) -> None:
    """Every refusal carries the line of its cause."""
    problem = refusal(text).problems[0]
    assert problem.line == line
    assert words in problem.message


def test_several_faults_are_told_in_one_go() -> None:
    """Three wrong types are three problems."""
    assert len(refusal("services:\n  a: {image: 1, environment: x, deploy: []}\n").problems) == 3


def test_unknown_keys_warn_with_a_suggestion() -> None:
    """A typo does not stop a deploy, and is not passed over in silence."""
    notes = read("services: {a: {image: x, enviroment: {A: b}}}").by_fate(Fate.UNKNOWN)
    assert [(note.path, note.did_you_mean) for note in notes] == [("services.a.enviroment.A", "environment")]


def test_a_variable_that_must_be_set_does_not_stop_the_reading() -> None:
    """What Docker accepts once its variables are given is read without them, and the plan names them."""
    reading = read("services: {a: {image: 'x:${TAG:?}', ports: ['${P:?}:80', '${Q}:${Q}'], cpus: '${C}', command: run $M}}")
    assert reading.spec.services["a"].build.image == "x:${TAG:?}"
    assert any("empty: C, M, P, Q" in warning for warning in reading.warnings)
    assert reading.spec.services["a"].command == "run "


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [" + "x," * 50 + "]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [" + f"*{chr(97 + i)}," * 9 + "]\n" for i in range(8)),
        "x: " + "[" * 5000 + "]" * 5000,
        "services: {" + ", ".join(f"s{i}: {{image: x}}" for i in range(60_000)) + "}",
        "x: &x\n  y: {<<: *x}",
        "a: ${" + "b:-${" * 500,
    ],
)
def test_hostile_files_end_in_a_typed_error_quickly(text: str) -> None:
    """Bombs, depth, cycles and masses of keys are refused before they cost time."""
    started = time.perf_counter()
    with pytest.raises(BlueprintInvalid):
        read("services: {a: {image: x}}\n" + text if not text.startswith("services") else text)
    assert time.perf_counter() - started < 20


def test_scheduled_jobs_become_crons() -> None:
    """`jobs` with a schedule is a cron service; without one it runs only when asked."""
    text = """
jobs:
  nightly: {image: x, triggers: {schedule: [{cron: 0 3 * * *, timezone: Europe/Berlin}]}}
  once: {image: x, triggers: {manual: true}}
"""
    services: Any = read(text).spec.services
    assert (services["nightly"].schedule, services["nightly"].timezone) == ("0 3 * * *", "Europe/Berlin")
    assert services["once"].schedule == "0 0 31 2 *"


def test_recognition_goes_by_name_or_content() -> None:
    """Compose files are known by any of their names, templates by what they hold; other dialects' lists are not."""
    reader = ComposeReader()
    assert reader.recognises("docker-compose.prod.yml", "")
    assert reader.recognises("owner__repo__compose.yaml", "")
    assert reader.recognises("plausible.yaml", "# note\nservices:\n  app:\n    image: x\n")
    assert not reader.recognises("render.yaml", "services:\n  - type: web\n    image: x\n")
