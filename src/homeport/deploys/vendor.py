"""Variables that a platform gives to processes by itself, and that programs written for it count on.

A service whose description was read from `render.yaml` finds `RENDER_EXTERNAL_URL`, one from `fly.toml` finds `FLY_APP_NAME`. Only names
that the platform documents are given, only those whose meaning is true here, and only when there is something to say: a commit is told
of sources that have one. They stand below everything else: what the file, a person, an add-on or a toolchain says wins.

Builds are not told `VERCEL`, `NETLIFY` and `CF_PAGES`: Nuxt and SvelteKit take them for the order to write that platform's own format
(nitro's presets, adapter-auto), which would not run here.

Names and meanings: each platform's own reference of its system variables, named in docs/reference/provided-variables.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

from homeport.model.base import Frozen
from homeport.model.release import Revision
from homeport.model.service import Service

Phase = Literal["build", "run"]
_PREVIEW = re.compile(r"(?:preview|pr)-(\d{1,9})")
_SCP = re.compile(r"[\w.-]+@(?P<host>[\w.-]+):(?P<path>[^\s]+)")

FRAMEWORK_PREFIXES = {
    "nextjs": "NEXT_PUBLIC_", "nuxtjs": "NUXT_ENV_", "nuxt": "NUXT_ENV_", "create-react-app": "REACT_APP_", "gatsby": "GATSBY_",
    "vite": "VITE_", "sveltekit": "VITE_", "sveltekit-1": "VITE_", "solidstart": "VITE_", "solidstart-1": "VITE_", "astro": "PUBLIC_",
    "vue": "VUE_APP_", "redwoodjs": "REDWOOD_ENV_", "sanity": "SANITY_STUDIO_", "sanity-v3": "SANITY_STUDIO_",
}  # fmt: skip
"""What a framework's public variables begin with: Vercel tells its own under those names as well (framework environment variables)."""


class Facts(Frozen):
    """What is true of one process, or of one build."""

    project: str
    environment: str
    service: str
    definition: Service
    revision: Revision
    url: str = ""
    """Where the public reaches it; empty for what has no public address."""
    production_url: str = ""
    """Where the public reaches it in production."""
    private_host: str = ""
    """Name by which other services of the project call it."""
    release: str = ""
    """`r42`; empty while it is being built."""
    number: int = 0
    created_at: datetime | None = None
    instance: str = ""
    """Id of the process; empty where one is asked about all."""
    ordinal: int = 0
    once: str = ""
    """`release`, `run` or `job` for a command that runs to its end; empty for an instance."""

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def address(self) -> str:
        """Host and port, without the scheme."""
        return urlsplit(self.url).netloc

    @property
    def preview(self) -> str:
        """Number of the pull request that the environment belongs to; empty when it belongs to none."""
        found = _PREVIEW.fullmatch(self.environment)
        return found[1] if found else ""

    @property
    def repository(self) -> tuple[str, str, str]:
        """`(host, owner, name)` of the source's git address; empty for a folder without one."""
        return repository_of(self.revision.origin)


def repository_of(origin: str) -> tuple[str, str, str]:
    """`(host, owner, name)` of a git address; three empty texts for a folder."""
    scp = _SCP.fullmatch(origin)
    host, path = (scp["host"], scp["path"]) if scp else (urlsplit(origin).hostname or "", urlsplit(origin).path)
    words = [word for word in path.removesuffix(".git").split("/") if word]
    return (host, "/".join(words[:-1]), words[-1]) if host and len(words) > 1 else ("", "", "")


def provided(dialect: str, facts: Facts, phase: Phase) -> dict[str, str]:
    """The variables that a platform gives in a phase, by the dialect the service was read in; none for dialects of no platform."""
    platform = _PLATFORMS.get(dialect)
    return {key: value for key, value in platform(facts, phase).items() if value} if platform else {}


def of_the_revision(variables: dict[str, str], facts: Facts) -> dict[str, str]:
    """Those that are about the revision: a build whose files are the same is the same build under another commit."""
    about = {facts.revision.commit, facts.revision.branch, facts.revision.message, facts.revision.commit[:7]} - {""}
    return {key: value for key, value in variables.items() if value in about}


def storage(dialect: str, kind: str, env: Mapping[str, str]) -> dict[str, str]:
    """Further names under which a platform's storage integrations give an add-on's addresses, out of its conventional variables.

    Vercel's are those of its Postgres and KV stores, Netlify's that of Netlify DB. What speaks another protocol than the engine itself
    (`KV_REST_API_URL`) is left out.
    """
    if kind == "postgres" and dialect in ("vercel", "netlify") and (url := env.get("DATABASE_URL", "")):
        direct = env.get("DATABASE_URL_UNPOOLED", url)
        if dialect == "netlify":
            return {"NETLIFY_DATABASE_URL": url, "NETLIFY_DATABASE_URL_UNPOOLED": direct}
        parts = {"USER": "PGUSER", "HOST": "PGHOST", "PASSWORD": "PGPASSWORD", "DATABASE": "PGDATABASE"}
        urls = {"POSTGRES_URL": url, "POSTGRES_PRISMA_URL": url, "POSTGRES_URL_NON_POOLING": direct, "POSTGRES_URL_NO_SSL": url}
        return urls | {f"POSTGRES_{name}": env[key] for name, key in parts.items() if key in env}
    if kind == "redis" and dialect == "vercel" and "REDIS_URL" in env:
        return {"KV_URL": env["REDIS_URL"]}
    return {}


def platform_name(dialect: str) -> str:
    """What people call the platform; empty for dialects of none."""
    return _NAMES.get(dialect, "") if dialect in _PLATFORMS else ""


# --- the platforms ------------------------------------------------------------------------------------------------


def _render(facts: Facts, phase: Phase) -> dict[str, str]:
    kinds = {"web": "web", "private": "pserv", "worker": "worker", "cron": "cron", "static": "static"}
    _, owner, name = facts.repository
    found = {
        "RENDER": "true",
        "IS_PULL_REQUEST": "true" if facts.preview else "false",
        "RENDER_SERVICE_ID": _id(facts),
        "RENDER_SERVICE_NAME": facts.service,
        "RENDER_SERVICE_TYPE": kinds.get(facts.definition.kind, ""),
        "RENDER_EXTERNAL_URL": facts.url,
        "RENDER_EXTERNAL_HOSTNAME": facts.host,
        "RENDER_GIT_COMMIT": facts.revision.commit,
        "RENDER_GIT_BRANCH": facts.revision.branch,
        "RENDER_GIT_REPO_SLUG": f"{owner}/{name}" if name else "",
    }
    return found | ({"RENDER_INSTANCE_ID": facts.instance} if phase == "run" else {})


def _railway(facts: Facts, phase: Phase) -> dict[str, str]:
    _, owner, name = facts.repository
    disk = next((disk for disk in facts.definition.disks if disk.kind == "volume"), None)
    found = {
        "RAILWAY_PROJECT_NAME": facts.project,
        "RAILWAY_PROJECT_ID": facts.project,
        "RAILWAY_ENVIRONMENT_NAME": facts.environment,
        "RAILWAY_ENVIRONMENT": facts.environment,
        "RAILWAY_ENVIRONMENT_ID": f"{facts.project}-{facts.environment}",
        "RAILWAY_SERVICE_NAME": facts.service,
        "RAILWAY_SERVICE_ID": _id(facts),
        "RAILWAY_PUBLIC_DOMAIN": facts.host,
        "RAILWAY_STATIC_URL": facts.host,
        "RAILWAY_PRIVATE_DOMAIN": facts.private_host,
        "RAILWAY_SNAPSHOT_ID": facts.revision.digest,
        "RAILWAY_DEPLOYMENT_ID": _deployment(facts),
        "RAILWAY_VOLUME_NAME": disk.name if disk else "",
        "RAILWAY_VOLUME_MOUNT_PATH": disk.mount_path if disk else "",
        "RAILWAY_GIT_COMMIT_SHA": facts.revision.commit,
        "RAILWAY_GIT_COMMIT_MESSAGE": facts.revision.message,
        "RAILWAY_GIT_BRANCH": facts.revision.branch,
        "RAILWAY_GIT_REPO_NAME": name,
        "RAILWAY_GIT_REPO_OWNER": owner,
    }
    if phase == "build":
        found.pop("RAILWAY_SNAPSHOT_ID")
    return found | ({"RAILWAY_REPLICA_ID": facts.instance} if phase == "run" else {})


def _fly(facts: Facts, phase: Phase) -> dict[str, str]:
    if phase == "build":
        return {}
    region = facts.definition.region
    memory = facts.definition.resources.memory
    return {
        "FLY_APP_NAME": facts.project,
        "FLY_MACHINE_ID": facts.instance,
        "FLY_ALLOC_ID": facts.instance,
        "FLY_MACHINE_VERSION": facts.release,
        "FLY_PROCESS_GROUP": facts.service,
        "FLY_REGION": region,
        "PRIMARY_REGION": region,
        "FLY_VM_MEMORY_MB": str(memory >> 20) if memory else "",
        "RELEASE_COMMAND": "1" if facts.once == "release" else "",
    }


def _heroku(facts: Facts, phase: Phase) -> dict[str, str]:
    short = f"Deploy {facts.revision.commit[:8]}" if facts.revision.commit else ""
    reviewed = {"HEROKU_PR_NUMBER": facts.preview, "HEROKU_BRANCH": facts.revision.branch if facts.preview else ""}
    if phase == "build":
        return {"SOURCE_VERSION": facts.revision.commit, **reviewed}
    kind = {"release": "release", "run": "run", "job": "scheduler"}.get(facts.once, facts.service)
    number = facts.instance.rpartition("-")[2] if facts.once else str(facts.ordinal + 1)
    return {
        "DYNO": f"{kind}.{number}" if facts.instance else "",
        "HEROKU_APP_ID": f"{facts.project}-{facts.environment}",
        "HEROKU_APP_NAME": facts.project if facts.environment == "production" else f"{facts.project}-{facts.environment}",
        "HEROKU_APP_DEFAULT_DOMAIN_NAME": facts.host,
        "HEROKU_DYNO_ID": facts.instance,
        "HEROKU_RELEASE_VERSION": f"v{facts.number}" if facts.number else "",
        "HEROKU_RELEASE_CREATED_AT": f"{facts.created_at:%Y-%m-%dT%H:%M:%SZ}" if facts.created_at else "",
        "HEROKU_SLUG_COMMIT": facts.revision.commit,
        "HEROKU_SLUG_DESCRIPTION": short,
        "HEROKU_BUILD_COMMIT": facts.revision.commit,
        "HEROKU_BUILD_DESCRIPTION": short,
        **reviewed,
    }


def _vercel(facts: Facts, phase: Phase) -> dict[str, str]:
    host, owner, name = facts.repository
    kind = facts.environment if facts.environment in ("production", "development") else "preview"
    provider = next((known for known in ("github", "gitlab", "bitbucket") if known in host), "")
    found = {
        "VERCEL_ENV": kind,
        "VERCEL_TARGET_ENV": facts.environment if not facts.preview else "preview",
        "VERCEL_URL": facts.address,
        "VERCEL_BRANCH_URL": facts.address,
        "VERCEL_PROJECT_PRODUCTION_URL": urlsplit(facts.production_url).netloc,
        "VERCEL_PROJECT_ID": facts.project,
        "VERCEL_DEPLOYMENT_ID": _deployment(facts),
        "VERCEL_GIT_PROVIDER": provider,
        "VERCEL_GIT_REPO_SLUG": name,
        "VERCEL_GIT_REPO_OWNER": owner,
        "VERCEL_GIT_COMMIT_REF": facts.revision.branch,
        "VERCEL_GIT_COMMIT_SHA": facts.revision.commit,
        "VERCEL_GIT_COMMIT_MESSAGE": facts.revision.message,
        "VERCEL_GIT_PULL_REQUEST_ID": facts.preview,
    }
    if phase == "run":
        return {"VERCEL": "1", **found}
    prefix = FRAMEWORK_PREFIXES.get(facts.definition.build.framework, "")
    return {"CI": "1", **found, **({f"{prefix}{key}": value for key, value in found.items()} if prefix else {})}


def _netlify(facts: Facts, phase: Phase) -> dict[str, str]:
    site = {"SITE_ID": f"{facts.project}-{facts.service}", "SITE_NAME": facts.project, "URL": facts.production_url}
    if phase == "run":
        return site
    context = "production" if facts.environment == "production" else "deploy-preview" if facts.preview else "branch-deploy"
    origin = facts.revision.origin if facts.repository[2] else ""
    return {
        **site,
        "CI": "true",
        "CONTEXT": context,
        "BRANCH": f"pull/{facts.preview}/head" if facts.preview else facts.revision.branch,
        "HEAD": facts.revision.branch,
        "COMMIT_REF": facts.revision.commit,
        "PULL_REQUEST": "true" if facts.preview else "false",
        "REVIEW_ID": facts.preview,
        "REPOSITORY_URL": origin,
        "DEPLOY_URL": facts.url,
        "DEPLOY_PRIME_URL": facts.url,
    }


def _cloud_run(facts: Facts, phase: Phase) -> dict[str, str]:
    if phase == "build":
        return {}
    if facts.definition.kind == "cron" or facts.once == "job":
        names = {"CLOUD_RUN_JOB": facts.service, "CLOUD_RUN_EXECUTION": facts.instance}
        return names | {"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_ATTEMPT": "0", "CLOUD_RUN_TASK_COUNT": "1"}
    revision = f"{facts.service}-{facts.number:05d}" if facts.number else ""
    if facts.definition.kind == "worker":
        return {"CLOUD_RUN_WORKER_POOL": facts.service, "CLOUD_RUN_REVISION": revision}
    return {"K_SERVICE": facts.service, "K_CONFIGURATION": facts.service, "K_REVISION": revision}


def _pages(facts: Facts, phase: Phase) -> dict[str, str]:
    if phase == "run" or facts.definition.kind != "static":
        return {}
    about = {"CF_PAGES_COMMIT_SHA": facts.revision.commit, "CF_PAGES_BRANCH": facts.revision.branch}
    return {"CI": "true", "CF_PAGES_URL": facts.url, **about}


def _id(facts: Facts) -> str:
    return f"{facts.project}-{facts.environment}-{facts.service}"


def _deployment(facts: Facts) -> str:
    return f"{facts.project}-{facts.environment}-{facts.release}" if facts.release else ""


_PLATFORMS: dict[str, Callable[[Facts, Phase], dict[str, str]]] = {
    "render": _render, "railway": _railway, "fly": _fly, "appjson": _heroku, "procfile": _heroku, "vercel": _vercel, "netlify": _netlify,
    "cloudrun": _cloud_run, "wrangler": _pages,
}  # fmt: skip
_NAMES = {
    "render": "Render", "railway": "Railway", "fly": "Fly", "appjson": "Heroku", "procfile": "Heroku", "vercel": "Vercel",
    "netlify": "Netlify", "cloudrun": "Cloud Run", "wrangler": "Cloudflare Pages",
}  # fmt: skip
