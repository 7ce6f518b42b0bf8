"""Heroku's add-on providers: which of Homeport's add-ons stands in, and which config variables they set."""

from __future__ import annotations

from typing import Any

from homeport.model.addon import AddOn, External, MariaDB, Postgres, Redis
from homeport.model.base import slug
from homeport.model.env import EnvValue, FromAddOn, SecretValue

NATIVE: dict[str, tuple[str, str]] = {
    "heroku-postgresql": ("postgres", "DATABASE_URL"),
    "dokku-postgres": ("postgres", "DATABASE_URL"),
    "heroku-redis": ("redis", "REDIS_URL"),
    "dokku-redis": ("redis", "REDIS_URL"),
    "rediscloud": ("redis", "REDISCLOUD_URL"),
    "redistogo": ("redis", "REDISTOGO_URL"),
    "openredis": ("redis", "OPENREDIS_URL"),
    "redisgreen": ("redis", "REDISGREEN_URL"),
    "upstash-redis": ("redis", "UPSTASH_REDIS_URL"),
    "stackhero-redis": ("redis", "STACKHERO_REDIS_URL_TLS"),
    "stackhero-postgresql": ("postgres", "STACKHERO_POSTGRESQL_URL"),
    "crunchy-postgres": ("postgres", "CRUNCHY_DATABASE_URL"),
    "jawsdb": ("mariadb", "JAWSDB_URL"),
    "jawsdb-maria": ("mariadb", "JAWSDB_MARIA_URL"),
    "cleardb": ("mariadb", "CLEARDB_DATABASE_URL"),
    "dokku-mysql": ("mariadb", "DATABASE_URL"),
    "dokku-mariadb": ("mariadb", "DATABASE_URL"),
}
"""Provider to the kind of add-on Homeport runs in its place, and the variable that holds its URL."""

USUAL = {"postgres": "heroku-postgresql", "redis": "heroku-redis"}

VARIABLES: dict[str, tuple[str, ...]] = {
    "mongolab": ("MONGODB_URI",),
    "mongohq": ("MONGOHQ_URL",),
    "ormongo": ("ORMONGO_URL",),
    "dokku-mongo": ("MONGO_URL",),
    "sendgrid": ("SENDGRID_USERNAME", "SENDGRID_PASSWORD"),
    "mailgun": ("MAILGUN_SMTP_SERVER", "MAILGUN_SMTP_PORT", "MAILGUN_SMTP_LOGIN", "MAILGUN_SMTP_PASSWORD"),
    "postmark": ("POSTMARK_SMTP_SERVER", "POSTMARK_API_TOKEN"),
    "memcachier": ("MEMCACHIER_SERVERS", "MEMCACHIER_USERNAME", "MEMCACHIER_PASSWORD"),
    "memcachedcloud": ("MEMCACHEDCLOUD_SERVERS", "MEMCACHEDCLOUD_USERNAME", "MEMCACHEDCLOUD_PASSWORD"),
    "cloudamqp": ("CLOUDAMQP_URL",),
    "bonsai": ("BONSAI_URL",),
    "searchbox": ("SEARCHBOX_URL",),
    "heroku-kafka": ("KAFKA_URL", "KAFKA_TRUSTED_CERT", "KAFKA_CLIENT_CERT", "KAFKA_CLIENT_CERT_KEY"),
    "cloudinary": ("CLOUDINARY_URL",),
    "bucketeer": ("BUCKETEER_AWS_ACCESS_KEY_ID", "BUCKETEER_AWS_SECRET_ACCESS_KEY", "BUCKETEER_AWS_REGION", "BUCKETEER_BUCKET_NAME"),
    "rollbar": ("ROLLBAR_ACCESS_TOKEN",),
    "newrelic": ("NEW_RELIC_LICENSE_KEY",),
    "sentry": ("SENTRY_DSN",),
    "getsentry": ("SENTRY_DSN",),
    "honeybadger": ("HONEYBADGER_API_KEY",),
    "bugsnag": ("BUGSNAG_API_KEY",),
    "airbrake": ("AIRBRAKE_API_KEY", "AIRBRAKE_PROJECT_ID"),
    "scout": ("SCOUT_KEY",),
    "algoliasearch": ("ALGOLIASEARCH_APPLICATION_ID", "ALGOLIASEARCH_API_KEY"),
    "pusher": ("PUSHER_URL",),
    "fixie": ("FIXIE_URL",),
    "quotaguardstatic": ("QUOTAGUARDSTATIC_URL",),
}
"""Config variables of providers that Homeport does not run."""

BUILT_IN = {
    "scheduler": "Homeport has crons of its own: write the jobs of Heroku Scheduler's dashboard as cron services",
    "cron-to-go": "Homeport has crons of its own: write the jobs of its dashboard as cron services",
    "papertrail": "`homeport logs` takes its place",
    "logentries": "`homeport logs` takes its place",
    "logdna": "`homeport logs` takes its place",
    "coralogix": "`homeport logs` takes its place",
    "sumologic": "`homeport logs` takes its place",
    "timber-logging": "`homeport logs` takes its place",
    "librato": "Homeport measures requests, cpu and memory itself",
    "deployhooks": "Homeport's notifications take its place",
    "ssl": "the edge gets certificates itself",
    "pgbackups": "Homeport backs up its databases itself",
    "heroku-autoscale": "`autoscaling` of a service takes its place",
}
"""Providers whose work Homeport does itself."""


def make(provider: str, plan: str, options: dict[str, Any], attach: str) -> AddOn:
    """The add-on for one entry of `addons`."""
    kind, _ = NATIVE.get(provider, ("", ""))
    extensions: dict[str, Any] = {}
    if kind and USUAL.get(kind) != provider:
        extensions["provider"] = provider
    rest = {key: value for key, value in options.items() if key != "version"}
    if rest:
        extensions["options"] = rest
    values: dict[str, Any] = {
        "plan": plan,
        "version": str(options.get("version") or ""),
        "bind": (attach,) if attach else (),
        "extensions": {"heroku": extensions} if extensions else {},
    }
    if kind == "postgres":
        return Postgres(**values)
    if kind == "redis":
        return Redis(**values)
    if kind == "mariadb":
        return MariaDB(flavour="mariadb" if "maria" in provider else "mysql", **values)
    return External(type=provider, **values)


def name_for(addon: AddOn, provider: str, attach: str, taken: dict[str, AddOn]) -> str:
    """A free name: what it is attached as, else what it is."""
    base = slug(attach or (addon.kind if addon.kind != "external" else provider))
    name, number = base, 2
    while name in taken:
        name, number = f"{base[:58]}-{number}", number + 1
    return name


def provider_of(addon: AddOn) -> str:
    """Heroku's provider for an add-on; empty when Heroku has none for it (Temporal)."""
    if isinstance(addon, External):
        return addon.type
    own = addon.extensions.get("heroku")
    known = own.get("provider") if isinstance(own, dict) else None
    if isinstance(known, str):
        return known
    if isinstance(addon, MariaDB):
        return "jawsdb-maria" if addon.flavour == "mariadb" else "jawsdb"
    return USUAL.get(addon.kind, "")


def variables(addons: dict[str, AddOn]) -> dict[str, EnvValue]:
    """The config variables that the add-ons set on the app, as Heroku's providers do: the first of a kind gets the plain name."""
    found: dict[str, EnvValue] = {}
    for name, addon in addons.items():
        provider = provider_of(addon)
        kind, variable = NATIVE.get(provider, ("", ""))
        if kind:
            value = FromAddOn(addon=name)
            for attach in addon.bind:
                found.setdefault(f"{attach}_URL", value)
            if not addon.bind or variable not in found:
                found.setdefault(variable, value)
        else:
            for key in VARIABLES.get(provider, ()):
                found.setdefault(key, SecretValue(required=False, description=f"Heroku's add-on {provider} sets it"))
    return found


__all__ = ["BUILT_IN", "NATIVE", "VARIABLES", "make", "name_for", "provider_of", "variables"]
