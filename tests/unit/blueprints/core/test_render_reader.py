"""render.yaml: what each key becomes."""

from __future__ import annotations

from datetime import timedelta
from textwrap import dedent

import pytest

from homeport.blueprints.overrides import for_environment
from homeport.blueprints.render import RenderReader
from homeport.blueprints.source import MemoryTree
from homeport.model.env import FromAddOn, FromService, GeneratedValue, PlainValue, SecretValue
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading
from homeport.model.route import Redirect, Rewrite, SetHeaders, ToUrl
from homeport.model.service import CronService, PrivateService, PushTrigger, StaticService, WebService, WorkerService


def read(text: str) -> Reading:
    return RenderReader().read(MemoryTree({"render.yaml": dedent(text)}, "shop"), "render.yaml")


def web(keys: str) -> WebService:
    service = read("services:\n  - {type: web, name: api, runtime: python, " + keys + "}\n").spec.services["api"]
    assert isinstance(service, WebService)
    return service


def test_a_web_service_holds_everything_render_says() -> None:
    """Every key of a server service lands in the spec."""
    service = web(
        "rootDir: ./backend/, buildCommand: pip install ., startCommand: 'uvicorn a:b', healthCheckPath: /up, plan: Standard, region: ohio,"
        "branch: main, autoDeployTrigger: checksPass, preDeployCommand: migrate, initialDeployHook: seed, maxShutdownDelaySeconds: 60,"
        "domains: [A.example.com], domain: b.example.com, numInstances: 3, renderSubdomainPolicy: disabled,"
        "ipAllowList: [{source: 10.0.0.0/8, description: office}], buildFilter: {paths: [a/**], ignoredPaths: ['*.md']},"
        "disk: {name: data, mountPath: /data, sizeGB: 5}, previews: {generation: automatic, plan: starter, numInstances: 1},"
        "maintenanceMode: {enabled: true, uri: /down.html}"
    )
    assert (service.root, service.build.builder, service.build.command, service.command) == (
        "backend",
        "command",
        "pip install .",
        "uvicorn a:b",
    )
    assert service.health is not None and service.health.path == "/up"
    assert (service.resources.plan, service.region, service.scale.instances) == ("standard", "ohio", 3)
    assert service.triggers == (PushTrigger(when="checks-pass", branch="main"),)
    assert service.release_command is not None and service.release_command.command == "migrate"
    assert service.first_deploy_command is not None and service.first_deploy_command.command == "seed"
    assert service.shutdown_grace == timedelta(seconds=60)
    assert [domain.host for domain in service.domains] == ["b.example.com", "a.example.com"]
    assert not service.default_domain and service.ip_allow_list == ("10.0.0.0/8",)
    assert (service.build_filter.paths, service.build_filter.ignored_paths) == (("a/**",), ("*.md",))
    assert (service.disks[0].mount_path, service.disks[0].size) == ("/data", 5 << 30)
    assert (service.previews.generation, service.previews.plan, service.previews.instances) == ("automatic", "starter", 1)
    assert service.maintenance.enabled and service.maintenance.page == "/down.html"


def test_types_become_kinds() -> None:
    """web, pserv, worker, cron, static sites, key-value stores and databases each get their own kind."""
    spec = read("""
        services:
          - {type: web, name: w, env: node}
          - {type: pserv, name: p, runtime: go, healthCheckPath: ready}
          - {type: worker, name: k, env: ruby}
          - {type: cron, name: c, env: python, schedule: "0 3 * * *", startCommand: x}
          - {type: web, name: s, env: static, staticPublishPath: ./dist, buildCommand: npm run build}
          - {type: redis, name: r, ipAllowList: [], maxmemoryPolicy: allkeys-lru}
          - {type: keyvalue, name: v, ipAllowList: [{source: 0.0.0.0/0}]}
        databases:
          - {name: d, databaseName: app, user: u, postgresMajorVersion: 16, diskSizeGB: 10, readReplicas: [{name: d2}], plan: pro-4gb}
    """).spec
    kinds = {name: type(service) for name, service in spec.services.items()}
    assert kinds == {"w": WebService, "p": PrivateService, "k": WorkerService, "c": CronService, "s": StaticService}
    private = spec.services["p"]
    assert isinstance(private, PrivateService) and private.health is not None and private.health.path == "/ready"
    static = spec.services["s"]
    assert isinstance(static, StaticService) and static.publish == "dist"
    redis, store, database = spec.addons["r"], spec.addons["v"], spec.addons["d"]
    assert redis.kind == "redis" and redis.eviction == "allkeys-lru" and redis.ip_allow_list is None
    assert store.ip_allow_list is not None and store.ip_allow_list[0].source == "0.0.0.0/0"
    assert database.kind == "postgres" and (database.database, database.user, database.version) == ("app", "u", "16")
    assert (database.disk, database.replicas, database.replica_names) == (10 << 30, 1, ("d2",))


def test_variables_of_every_form() -> None:
    """Values, secrets, generated values, references and groups each become what they mean."""
    reading = read("""
        envVarGroups:
          - {name: shared, envVars: [{key: A, value: 1}, {key: B, generateValue: true}]}
        databases: [{name: Main DB}]
        services:
          - {type: keyvalue, name: cache, ipAllowList: []}
          - {type: pserv, name: Search, runtime: docker}
          - type: web
            name: api
            runtime: node
            envVars:
              - {key: PLAIN, value: true}
              - {key: NUMBER, value: 1.50}
              - {key: EMPTY, value: ""}
              - {key: SECRET, sync: false, description: from the dashboard}
              - {key: SECRET_WITH_DEFAULT, sync: false, value: x}
              - {key: GENERATED, generateValue: true}
              - {key: NOTHING}
              - {key: DB, fromDatabase: {name: Main DB, property: connectionString}}
              - {key: DB_USER, fromDatabase: {name: Main DB, property: user}}
              - {key: REDIS, fromService: {type: keyvalue, name: cache, property: connectionString}}
              - {key: SEARCH, fromService: {type: pserv, name: Search, property: hostport}}
              - {key: COPY, fromService: {type: pserv, name: Search, envVarKey: TOKEN}}
              - {key: SELF, fromService: {type: web, name: api, envVarKey: RENDER_EXTERNAL_URL}}
              - {key: ELSEWHERE, fromService: {type: web, name: not-here, property: host}}
              - fromGroup: shared
    """)
    env = reading.spec.services["api"].env
    assert env["PLAIN"] == PlainValue(value="true") and env["NUMBER"] == PlainValue(value="1.5") and env["EMPTY"] == PlainValue(value="")
    assert env["SECRET"] == SecretValue(description="from the dashboard")
    assert env["SECRET_WITH_DEFAULT"] == SecretValue(default="x")
    assert env["GENERATED"] == GeneratedValue() and env["NOTHING"] == SecretValue(required=False)
    assert env["DB"] == FromAddOn(addon="main-db", property="url") and env["DB_USER"] == FromAddOn(addon="main-db", property="user")
    assert env["REDIS"] == FromAddOn(addon="cache", property="url")
    assert env["SEARCH"] == FromService(service="search", property="hostport")
    assert env["COPY"] == FromService(service="search", property=None, variable="TOKEN")
    assert env["SELF"] == FromService(service="api", property="public-url")
    assert isinstance(env["ELSEWHERE"], SecretValue)
    assert reading.spec.services["api"].env_groups == ("shared",)
    assert reading.spec.env_groups["shared"].env["A"] == PlainValue(value="1")
    assert reading.spec.addons["main-db"].title == "Main DB"
    approximated = {note.path for note in reading.by_fate(Fate.APPROXIMATED)}
    assert any("ELSEWHERE" in note.reason for note in reading.by_fate(Fate.APPROXIMATED)) and len(approximated) == 3


def test_routes_and_headers_of_a_static_site() -> None:
    """Redirects, rewrites and headers become routes of the site, in the order of the file."""
    spec = read("""
        services:
          - type: web
            name: site
            runtime: static
            rootDir: web
            staticPublishPath: web/dist
            headers: [{path: /*, name: X-Frame-Options, value: DENY}]
            routes:
              - {type: redirect, source: /old/:id, destination: /new/:id}
              - {type: rewrite, source: /api/*, destination: https://api.example.com/*}
              - {type: rewrite, source: /*, destination: /index.html}
    """).spec
    site = spec.services["site"]
    assert isinstance(site, StaticService) and (site.root, site.publish) == ("web", "dist")
    actions = [route.action for route in spec.routes]
    assert actions == [
        SetHeaders(response={"X-Frame-Options": "DENY"}),
        Redirect(to="/new/:id", status=301),
        ToUrl(url="https://api.example.com/*"),
        Rewrite(to="/index.html"),
    ]
    assert all(route.service == "site" and route.match.syntax == "glob" for route in spec.routes)


def test_docker_and_images() -> None:
    """Docker services keep their Dockerfile, context and command; images their address and credential; PORT is the port they insist on."""
    spec = read("""
        services:
          - type: web
            name: built
            runtime: docker
            dockerfilePath: ./docker/Dockerfile
            dockerContext: .
            dockerCommand: run
            registryCredential: {fromRegistryCreds: {name: hub}}
            envVars: [{key: PORT, value: "3000"}]
          - type: pserv
            name: pulled
            runtime: image
            image: {url: "docker.io/minio/minio:latest", creds: {fromRegistryCreds: {name: hub}}}
    """).spec
    built, pulled = spec.services["built"], spec.services["pulled"]
    assert isinstance(built, WebService) and (built.build.builder, built.build.dockerfile, built.build.context) == (
        "dockerfile",
        "docker/Dockerfile",
        "",
    )
    assert (built.command, built.port, built.env, built.build.registry_credentials) == ("run", 3000, {}, "hub")
    assert (pulled.build.builder, pulled.build.image, pulled.build.registry_credentials) == ("image", "docker.io/minio/minio:latest", "hub")


def test_a_native_service_gets_its_port_from_homeport() -> None:
    """PORT of a native service is approximated, unless its start command has the number written in it."""
    assert web("envVars: [{key: PORT, value: 10000}]").port is None
    assert web("envVars: [{key: PORT, value: 10000}]").env == {}
    assert web("startCommand: 'uvicorn a:b --port 8000'").port == 8000
    assert web("startCommand: 'gunicorn a:b --bind 0.0.0.0:$PORT'").port is None


def test_autoscaling_bounds() -> None:
    """Bounds and targets of `scaling` are held; bounds the wrong way round are a problem."""
    scale = web("scaling: {minInstances: 2, maxInstances: 5, targetCPUPercent: 60, targetMemoryPercent: 70}").scale
    assert (scale.instances, scale.min, scale.max, scale.target_cpu, scale.target_memory) == (2, 2, 5, 60, 70)
    with pytest.raises(BlueprintInvalid, match="above maxInstances"):
        web("scaling: {minInstances: 5, maxInstances: 2}")


def test_environments_become_a_base_and_patches() -> None:
    """Production is the base; another environment's own services, and only those, are what differs."""
    reading = read("""
        ungrouped: {services: [{type: worker, name: shared, runtime: go}]}
        projects:
          - name: My Shop
            environments:
              - {name: Staging, services: [{type: web, name: api-staging, runtime: node, plan: starter}]}
              - name: Production
                networking: {isolation: enabled}
                permissions: {protection: enabled}
                services: [{type: web, name: api, runtime: node, plan: pro}]
                databases: [{name: db}]
    """)
    spec = reading.spec
    assert (spec.name, spec.title) == ("my-shop", "My Shop")
    assert set(spec.services) == {"shared", "api"} and set(spec.addons) == {"db"}
    staging = for_environment(spec, "staging")
    assert set(staging.services) == {"shared", "api-staging"} and not staging.addons
    assert for_environment(spec, "production").services == spec.services
    assert any("production is the base" in warning for warning in reading.warnings)


def test_preview_values_apply_to_previews_only() -> None:
    """previewValue and previewDiskSizeGB change the preview environment and nothing else."""
    spec = read("""
        previews: {generation: automatic, expireAfterDays: 3}
        databases: [{name: db, diskSizeGB: 10, previewDiskSizeGB: 1, previewPlan: basic-256mb}]
        services:
          - {type: web, name: api, runtime: node, envVars: [{key: LEVEL, value: info, previewValue: debug}]}
    """).spec
    assert (spec.previews.generation, spec.previews.expire_after_days) == ("automatic", 3)
    preview = for_environment(spec, "preview-42")
    assert preview.services["api"].env["LEVEL"] == PlainValue(value="debug") and preview.addons["db"].disk == 1 << 30
    assert spec.services["api"].env["LEVEL"] == PlainValue(value="info") and spec.addons["db"].disk == 10 << 30
    assert spec.addons["db"].preview_plan == "basic-256mb"


@pytest.mark.parametrize(
    ("old", "generation", "days"),
    [
        ("previewsEnabled: true", "automatic", None),
        ("previewsEnabled: false", "off", None),
        ("pullRequestPreviewsEnabled: true\npreviewsExpireAfterDays: 7", "automatic", 7),
        ("previews: {generation: off}", "off", None),
        ("previews: {generation: manual}", "manual", None),
    ],
)
def test_older_names_of_previews(old: str, generation: str, days: int | None) -> None:
    """The names before `previews` are still read, and YAML's bare `off` is the word."""
    previews = read(f"{old}\nservices: [{{type: web, name: a, runtime: node}}]\n").spec.previews
    assert (previews.generation, previews.expire_after_days) == (generation, days)


def test_unknown_keys_are_named_with_a_suggestion() -> None:
    """A key nobody knows is unknown, with the nearest known key of its place."""
    reading = read("services: [{type: web, name: a, runtime: static, staticPublishDirectory: dist, helthCheckPath: /}]")
    found = {note.path: note.did_you_mean for note in reading.by_fate(Fate.UNKNOWN)}
    assert found == {"services[0].staticPublishDirectory": "staticPublishPath", "services[0].helthCheckPath": "healthCheckPath"}


def test_slips_of_real_files_are_read() -> None:
    """Variables as a mapping, a disk with `size`, an image as text and a lone service without `services:` are read as what they mean."""
    assert web("envVars: {A: 1}").env == {"A": PlainValue(value="1")}
    assert web("disk: {name: d, mountPath: /d, size: 1GB}").disks[0].size == 1 << 30
    lone = read("type: web\nname: api\nenv: node\nenvVars:\n  - {key: A, value: 1}\n")
    assert lone.spec.services["api"].env and lone.warnings
    service = read("services: [{type: web, name: a, runtime: image, image: nginx}]").spec.services["a"]
    assert service.build.image == "nginx"
    twice = read("services: [{type: web, name: a, runtime: node, envVars: [{key: A, value: 1}, {key: A, value: 2}]}]")
    assert twice.spec.services["a"].env == {"A": PlainValue(value="2")} and len(twice.by_fate(Fate.IGNORED)) == 2


def test_several_problems_are_found_in_one_go() -> None:
    """Each fault is a located problem, and one reading finds all of them."""
    with pytest.raises(BlueprintInvalid) as caught:
        read("""
            services:
              - {type: web, runtime: node}
              - {type: weeb, name: a}
              - {type: cron, name: c, runtime: go, schedule: never}
              - {type: web, name: d, runtime: node, disk: 512MB, rootDir: ../x, numInstances: many}
            databases:
              - {plan: free}
        """)
    assert [(p.path, p.line) for p in caught.value.problems] == [
        ("databases[0]", 8),
        ("services[0]", 3),
        ("services[1].type", 4),
        ("services[2].schedule", 5),
        ("services[3].rootDir", 6),
        ("services[3].numInstances", 6),
        ("services[3].disk", 6),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        "[]",
        "services: text",
        "services: {a: 1}",
        "services: [text]",
        "services: [{type: web, name: a, envVars: [x]}]",
        "services: [{type: {a: 1}, name: [b]}]",
        "projects: [{name: p, environments: [{services: [1]}]}]",
        "databases: [[]]",
        "ungrouped: 3",
        "services: [{type: web, name: a, envVars: [{key: 'a=b', value: 1}]}]",
        "services: [{type: web, name: a, envVars: [{value: 1}]}]",
        "services: [{type: keyvalue, name: a, maxmemoryPolicy: x}]",
        "databases: [{name: a, postgresMajorVersion: new}]",
        "services: [{type: web, name: a, runtime: image}]",
        "version: 1",
    ],
)
def test_what_is_no_blueprint_is_refused(text: str) -> None:
    """Files of the wrong shape are refused with a located problem, never a traceback."""
    with pytest.raises(BlueprintInvalid) as caught:
        read(text)
    assert caught.value.problems


def test_mangled_names_are_recognised() -> None:
    """The reader knows its file under collected names as well."""
    reader = RenderReader()
    assert all(
        reader.recognises(name, "") for name in ("render.yaml", "render.yml", "a__b__render.yaml", "a__b__sub__render@8c630422.yaml")
    )
    assert not reader.recognises("docker-compose.yml", "services: {}")
