"""Variables that a platform gives its programs by itself: each by the dialect a service was read in, only when true, below all others."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from doors import fake_platform, go_live

from homeport.deploys.provided import address_of, build_variables, not_carried, told_names
from homeport.deploys.vendor import Facts, of_the_revision, provided, repository_of, storage
from homeport.deploys.views import Views
from homeport.model.env import PlainValue
from homeport.model.release import Revision
from homeport.model.service import Build, CronService, Disk, Domain, StaticService, WebService, WorkerService
from homeport.model.spec import Spec

COMMIT = "4d15c3844d7172cb616b50608ba7b0a926fc8afe"
REVISION = Revision(digest="d1", commit=COMMIT, branch="main", message="First", origin="git@github.com:acme/shop.git")


def facts(**given: object) -> Facts:
    known: dict[str, object] = {
        "project": "shop", "environment": "production", "service": "web", "definition": WebService(), "revision": REVISION,
        "url": "http://web.shop.localhost:8080", "production_url": "http://shop.example:8080", "private_host": "web", "release": "r7",
        "number": 7, "created_at": datetime(2026, 11, 21, 2, 3, 4, tzinfo=UTC), "instance": "shop-production-web-r7-1", "ordinal": 1,
    }  # fmt: skip
    return Facts.model_validate({**known, **given})


@pytest.mark.parametrize(
    ("dialect", "wanted"),
    [
        (
            "render",
            {
                "RENDER": "true", "RENDER_SERVICE_NAME": "web", "RENDER_SERVICE_TYPE": "web", "RENDER_GIT_COMMIT": COMMIT,
                "RENDER_GIT_BRANCH": "main", "RENDER_GIT_REPO_SLUG": "acme/shop", "IS_PULL_REQUEST": "false",
                "RENDER_EXTERNAL_URL": "http://web.shop.localhost:8080", "RENDER_EXTERNAL_HOSTNAME": "web.shop.localhost",
                "RENDER_INSTANCE_ID": "shop-production-web-r7-1",
            },
        ),
        (
            "railway",
            {
                "RAILWAY_PUBLIC_DOMAIN": "web.shop.localhost", "RAILWAY_PRIVATE_DOMAIN": "web", "RAILWAY_ENVIRONMENT_NAME": "production",
                "RAILWAY_GIT_COMMIT_SHA": COMMIT, "RAILWAY_GIT_REPO_OWNER": "acme", "RAILWAY_REPLICA_ID": "shop-production-web-r7-1",
                "RAILWAY_DEPLOYMENT_ID": "shop-production-r7", "RAILWAY_PROJECT_NAME": "shop",
            },
        ),
        ("fly", {"FLY_APP_NAME": "shop", "FLY_MACHINE_ID": "shop-production-web-r7-1", "FLY_PROCESS_GROUP": "web"}),
        (
            "procfile",
            {
                "DYNO": "web.2", "HEROKU_APP_NAME": "shop", "HEROKU_SLUG_COMMIT": COMMIT, "HEROKU_RELEASE_VERSION": "v7",
                "HEROKU_RELEASE_CREATED_AT": "2026-11-21T02:03:04Z",
            },
        ),
        (
            "vercel",
            {
                "VERCEL": "1", "VERCEL_ENV": "production", "VERCEL_URL": "web.shop.localhost:8080", "VERCEL_GIT_COMMIT_SHA": COMMIT,
                "VERCEL_GIT_PROVIDER": "github", "VERCEL_PROJECT_PRODUCTION_URL": "shop.example:8080",
            },
        ),
        ("netlify", {"URL": "http://shop.example:8080", "SITE_NAME": "shop"}),
        ("cloudrun", {"K_SERVICE": "web", "K_REVISION": "web-00007", "K_CONFIGURATION": "web"}),
    ],
)  # fmt: skip
def test_each_platform_s_own_names(dialect: str, wanted: dict[str, str]) -> None:
    """A running process finds what the platform documents, with what is true here."""
    found = provided(dialect, facts(), "run")
    assert wanted.items() <= found.items()
    assert "" not in found.values()


@pytest.mark.parametrize("dialect", ["homeport", "compose", "kubernetes", "detect", ""])
def test_dialects_of_no_platform_give_nothing(dialect: str) -> None:
    """A compose file belongs to nobody's platform."""
    assert provided(dialect, facts(), "run") == {} == provided(dialect, facts(), "build")


def test_builds_find_what_the_platform_gives_builds() -> None:
    """Netlify's and Vercel's variables are there while building, a framework's under its public names too, and no instance is named."""
    netlify = provided("netlify", facts(environment="preview-42"), "build")
    assert (netlify["CONTEXT"], netlify["PULL_REQUEST"], netlify["REVIEW_ID"]) == ("deploy-preview", "true", "42")
    assert netlify["DEPLOY_URL"] == "http://web.shop.localhost:8080" and netlify["COMMIT_REF"] == COMMIT
    vercel = provided("vercel", facts(definition=StaticService(build=Build(framework="nextjs"))), "build")
    assert vercel["CI"] == "1" and vercel["NEXT_PUBLIC_VERCEL_ENV"] == "production"
    assert provided("fly", facts(), "build") == {}
    assert "RENDER_INSTANCE_ID" not in provided("render", facts(), "build")
    assert not {"VERCEL", "NETLIFY", "CF_PAGES"} & {*netlify, *vercel}, "these would change the format that Nuxt and SvelteKit build"
    assert provided("wrangler", facts(definition=StaticService()), "build")["CF_PAGES_COMMIT_SHA"] == COMMIT


def test_commands_that_run_once_are_told_apart() -> None:
    """A release command and a one-off are no web dynos; a job of Cloud Run knows its execution."""
    assert provided("appjson", facts(once="run", instance="shop-production-web-run-ab12"), "run")["DYNO"] == "run.ab12"
    assert provided("fly", facts(once="release"), "run")["RELEASE_COMMAND"] == "1"
    job = provided("cloudrun", facts(definition=CronService(schedule="* * * * *"), once="job"), "run")
    assert job["CLOUD_RUN_JOB"] == "web" and "K_SERVICE" not in job
    assert provided("cloudrun", facts(definition=WorkerService()), "run")["CLOUD_RUN_WORKER_POOL"] == "web"


def test_what_is_not_known_is_not_told() -> None:
    """A folder without git has no commit, a worker no public address, a service without a disk no volume."""
    found = provided("railway", facts(revision=Revision(digest="d", origin="/srv/shop"), url="", definition=WorkerService()), "run")
    assert not {key for key in found if "GIT" in key or "PUBLIC" in key or "VOLUME" in key}
    disk = WebService(disks=(Disk(name="data", mount_path="/data"),))
    assert provided("railway", facts(definition=disk), "run")["RAILWAY_VOLUME_MOUNT_PATH"] == "/data"


@pytest.mark.parametrize(
    ("origin", "wanted"),
    [
        ("git@github.com:acme/shop.git", ("github.com", "acme", "shop")),
        ("https://gitlab.com/acme/team/shop", ("gitlab.com", "acme/team", "shop")),
        ("ssh://git@git.acme.example:2222/acme/shop.git", ("git.acme.example", "acme", "shop")),
        ("/srv/shop", ("", "", "")),
        ("", ("", "", "")),
    ],
)
def test_git_addresses_name_a_repository(origin: str, wanted: tuple[str, str, str]) -> None:
    """Host, owner and name; a folder has none."""
    assert repository_of(origin) == wanted


def test_another_commit_alone_is_no_other_build() -> None:
    """What is about the revision is told apart from what makes two builds differ."""
    found = provided("vercel", facts(), "build")
    about = of_the_revision(found, facts())
    assert {"VERCEL_GIT_COMMIT_SHA", "VERCEL_GIT_COMMIT_REF", "VERCEL_GIT_COMMIT_MESSAGE"} <= about.keys()
    assert "VERCEL_ENV" not in about and "VERCEL_URL" not in about
    spec = Spec(name="shop", services={"web": WebService()})
    first = build_variables(spec, "production", "web", REVISION, "vercel", 8080)
    other = build_variables(spec, "production", "web", REVISION.model_copy(update={"commit": "b" * 40}), "vercel", 8080)
    assert first[0] == other[0] and first[1] != other[1]


def test_a_service_s_address() -> None:
    """By the name Homeport gives it, by its own domain when asked and in production; port 80 is not said."""
    web = WebService(domains=(Domain(host="Shop.example"),))
    spec = Spec(name="shop", services={"web": web, "work": WorkerService()})
    assert address_of(spec, "production", "web", 8080) == "http://web.shop.localhost:8080"
    assert address_of(spec, "production", "web", 80, own=True) == "http://shop.example"
    assert address_of(spec, "staging", "web", 8080, own=True) == "http://web.staging.shop.localhost:8080"
    assert address_of(spec, "production", "work", 8080) == ""


def test_the_plan_names_them() -> None:
    """All but those that the file sets itself."""
    spec = Spec(name="shop", services={"web": WebService(env={"RENDER": PlainValue(value="no")})})
    names = told_names(spec, "production", {"web": "render"}, 8080)["web"]
    assert "RENDER_EXTERNAL_URL" in names and "RENDER" not in names
    assert told_names(spec, "production", {"web": "homeport"}, 8080) == {}


def test_storage_integrations_have_names_of_their_own() -> None:
    """Vercel's and Netlify's variables say the same as the engine's; other platforms' files get none of them."""
    env = {"DATABASE_URL": "postgresql://u:p@h:5432/d", "PGUSER": "u", "PGHOST": "h", "PGPASSWORD": "p", "PGDATABASE": "d"}
    vercel = storage("vercel", "postgres", env)
    assert vercel["POSTGRES_URL"] == vercel["POSTGRES_PRISMA_URL"] == env["DATABASE_URL"] and vercel["POSTGRES_DATABASE"] == "d"
    pooled = {**env, "DATABASE_URL_UNPOOLED": "postgresql://u:p@h:5433/d"}
    assert storage("vercel", "postgres", pooled)["POSTGRES_URL_NON_POOLING"] == pooled["DATABASE_URL_UNPOOLED"]
    assert storage("netlify", "postgres", env)["NETLIFY_DATABASE_URL"] == env["DATABASE_URL"]
    assert storage("vercel", "redis", {"REDIS_URL": "redis://x"}) == {"KV_URL": "redis://x"}
    assert storage("render", "postgres", env) == {} == storage("vercel", "mariadb", {"DATABASE_URL": "mysql://x"})


def test_they_are_listed_with_where_they_come_from(tmp_path: Path) -> None:
    """What nobody names is listed on demand: of the platform, for a site what its build got; what the file sets is not listed twice."""
    platform = fake_platform(tmp_path / "home")
    try:
        site = {"kind": "static", "publish": "out"}
        spec = {"services": {"web": {"kind": "web", "command": "run", "env": {"RENDER": "mine"}}, "site": site}}
        made = go_live(platform, spec)
        release = made.model_copy(update={"number": 2, "id": "r2", "dialects": {"web": "render", "site": "netlify"}})
        platform.store.releases.reserve("shop", "production")
        platform.store.releases.record(release)
        platform.store.releases.go_live("shop", "production", 2)
        listed = {(row.service, row.key): row for row in Views(platform).told("shop", "production")}
        assert listed["web", "RENDER_SERVICE_NAME"].value == "web" and listed["web", "RENDER_SERVICE_NAME"].note == "as Render gives it"
        assert listed["site", "CONTEXT"].origin == "platform" and ("web", "RENDER") not in listed
    finally:
        platform.store.close()


def test_a_conversion_names_what_the_platform_gave() -> None:
    """Written in another dialect, services lose what their platform gives by itself: said once for each platform, not for services of
    none, and not when the file stays one of that platform."""
    spec = Spec(name="shop", services={name: WorkerService() for name in ("a", "b", "c")} | {"web": WebService()})
    dialects = {"a": "fly", "b": "fly", "c": "compose", "web": "render"}
    found = {loss.path: loss.reason for loss in not_carried(spec, dialects, "homeport")}
    assert set(found) == {"services.*.env", "services.web.env"}
    assert found["services.*.env"].startswith("Fly gives FLY_") and "RENDER_EXTERNAL_URL" in found["services.web.env"]
    assert [loss.path for loss in not_carried(spec, dialects, "render")] == ["services.*.env"]
    assert not_carried(spec, dict.fromkeys(spec.services, "compose"), "homeport") == []
