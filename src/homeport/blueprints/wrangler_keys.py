"""What Homeport does with each key of a wrangler file, as one table.

The keys are those of Cloudflare's own `config-schema.json` (wrangler 4). Functions run on workerd with miniflare's
simulators for the bindings, so what miniflare serves is honoured or approximated; what only Cloudflare's network has is ignored
and kept in the spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from homeport.blueprints.view import View
from homeport.model.reading import Fate


@dataclass(frozen=True)
class Say:
    """The fate of a key and of all below it."""

    fate: Fate
    reason: str = ""
    shape: type = object
    """What the value must be: `str`, `dict` or `list`; anything by default."""


@dataclass(frozen=True)
class Table:
    """A mapping with these keys."""

    keys: Mapping[str, Say | Table | Each]


@dataclass(frozen=True)
class Each:
    """A list of mappings with these keys."""

    keys: Mapping[str, Say | Table | Each]
    required: tuple[str, ...] = ()
    strings: Say | None = None
    """Set where a plain text may stand in place of a mapping."""


def ok(reason: str = "", shape: type = object) -> Say:
    return Say(Fate.HONOURED, reason, shape)


def near(reason: str) -> Say:
    return Say(Fate.APPROXIMATED, reason)


def no(reason: str) -> Say:
    return Say(Fate.IGNORED, reason)


LOCAL = no("resources are always this machine's own")
LOCAL_ID = ok("names the resource; it is made on this machine, without the data it has at Cloudflare")
ACCOUNT = no("belongs to an account at Cloudflare; none is needed here")
ABSENT = no("exists on Cloudflare's network only: the binding is missing at run time; kept so that it can be written back")
BUNDLER = near("handed to the bundler with the build")
DEV = no("used by `wrangler dev` only; a deploy does not read it")
DROPPED = near("bound; what is written to it is dropped, as in `wrangler dev`")
LOGS = near("logs of every request are kept anyway; nothing is sampled or sent on")
CONTAINER = near("built and started where a container engine is there; one instance per object")
PLACE = no("there is one place to run in: your machines")


def bound(
    *more: str, resource: Say = LOCAL_ID, name: str = "binding", say: Say | None = None, required: tuple[str, ...] | None = None
) -> Each:
    """A list of bindings: a name, the resource, whether it is remote."""
    fate = say or ok()
    keys = {name: fate, "remote": LOCAL, **dict.fromkeys(more, say or resource)}
    return Each(keys, required=(name,) if required is None else required)


def single(say: Say, *more: str) -> Table:
    """One binding as a mapping."""
    return Table({"binding": say, "remote": LOCAL, **dict.fromkeys(more, say)})


_ROUTE = Each(
    {
        "pattern": ok(),
        "custom_domain": ok(),
        "zone_id": no("the DNS zone at Cloudflare; point the name at this machine yourself"),
        "zone_name": no("the DNS zone at Cloudflare; point the name at this machine yourself"),
        "enabled": near("kept with the host name"),
        "previews_enabled": near("kept with the host name"),
    },
    required=("pattern",),
    strings=ok(),
)
_SAMPLING = Table(dict.fromkeys(("enabled", "head_sampling_rate", "invocation_logs", "persist", "destinations"), LOGS))
_QUEUES = Table(
    {
        "producers": Each({"binding": ok(), "queue": ok(), "delivery_delay": ok(), "remote": LOCAL}, required=("binding", "queue")),
        "consumers": Each(
            {
                "queue": ok(), "max_batch_size": ok(), "max_batch_timeout": ok(), "max_retries": ok(), "dead_letter_queue": ok(),
                "retry_delay": ok(), "max_concurrency": near("batches are handed over one after the other"),
                "type": near("a pull consumer reads over Cloudflare's API; batches are pushed here"),
                "visibility_timeout_ms": no("a setting of pull consumers"),
            },
            required=("queue",),
        ),
    }
)  # fmt: skip
_MIGRATION = Each(
    {
        "tag": ok("the storage of each class decides where its objects live"),
        "new_classes": ok(), "new_sqlite_classes": ok(),
        "renamed_classes": near("objects start empty here, so there is nothing to rename"),
        "deleted_classes": near("objects start empty here, so there is nothing to delete"),
        "transferred_classes": near("objects start empty here, so there is nothing to transfer"),
    }
)  # fmt: skip
UNSAFE_KINDS = {
    "ratelimit": "ratelimit", "service": "service", "kv_namespace": "kv", "r2_bucket": "r2", "d1": "d1", "queue": "queue", "json": "json",
    "durable_object_namespace": "durable-object", "analytics_engine": "analytics", "workflow": "workflow", "version_metadata": "version",
    "plain_text": "json",
}  # fmt: skip
"""Types of `unsafe.bindings` that are the raw spelling of a binding that is served here."""
_UNSAFE = Table({"bindings": ABSENT, "metadata": ABSENT, "capnp": ABSENT})

ENVIRONMENT: dict[str, Say | Table | Each] = {
    "name": ok("", str), "main": ok("", str), "compatibility_date": ok("", str), "compatibility_flags": ok("", list),
    "account_id": ACCOUNT, "compliance_region": PLACE,
    "find_additional_modules": BUNDLER, "preserve_file_names": BUNDLER, "base_dir": BUNDLER, "tsconfig": BUNDLER, "jsx_factory": BUNDLER,
    "jsx_fragment": BUNDLER, "rules": BUNDLER, "no_bundle": BUNDLER, "minify": BUNDLER, "keep_names": BUNDLER, "define": BUNDLER,
    "alias": BUNDLER, "python_modules": BUNDLER, "node_compat": BUNDLER,
    "upload_source_maps": near("source maps stay beside the built code"),
    "build": Table({
        "command": ok(), "cwd": near("the build command runs in this folder"), "watch_dir": DEV,
        "upload": near("the old place of `main` and `rules`; handed to the bundler"), "watch_paths": DEV,
    }),
    "workers_dev": ok("decides whether the generated host name answers"), "preview_urls": ok("decides whether pull requests get previews"),
    "routes": _ROUTE, "route": _ROUTE,
    "triggers": Table({"crons": ok("", list)}),
    "limits": near("kept; an instance has the limits of its service"),
    "placement": near("the function runs beside its back ends anyway: there is one place"),
    "first_party_worker": ACCOUNT, "logfwdr": LOGS, "logpush": LOGS,
    "observability": Table({"enabled": LOGS, "head_sampling_rate": LOGS, "logs": _SAMPLING, "traces": _SAMPLING}),
    "tail_consumers": no("no tail worker is called; read the logs with `homeport logs`"),
    "streaming_tail_consumers": no("no tail worker is called; read the logs with `homeport logs`"),
    "assets": Table({
        "directory": ok(), "binding": ok(), "html_handling": ok(), "not_found_handling": ok(), "run_worker_first": ok(),
        "exclude": near("files are served from the folder as built"), "include": near("files are served from the folder as built"),
    }),
    "vars": ok("", dict), "secrets": Table({"required": ok("asked for when nobody has set it", list)}),
    "keep_vars": ok("variables set by hand are always kept"),
    "kv_namespaces": bound("id", "preview_id"),
    "r2_buckets": bound("bucket_name", "preview_bucket_name", "jurisdiction"),
    "d1_databases": bound(
        "database_name", "database_id", "preview_database_id", "migrations_table", "migrations_dir",
        "database_internal_env", "migrations_pattern"
    ),
    "durable_objects": Table({
        "bindings": Each(
            {"name": ok(), "class_name": ok(), "script_name": ok("the worker of this name in the project"),
             "environment": near("the same environment is used")},
            required=("name", "class_name"),
        ),
        "classes": ok(),
    }),
    "migrations": _MIGRATION,
    "exports": near("classes of durable objects and their storage"),
    "queues": _QUEUES,
    "workflows": Each(
        {"binding": ok(), "name": ok(), "class_name": ok(), "script_name": ok(), "remote": LOCAL, "limits": near("kept with the binding")},
        required=("binding", "name", "class_name"),
    ),
    "services": bound(
        "service", "entrypoint", "props", "environment", resource=ok("the worker of this name in the project"),
        required=("binding", "service"),
    ),
    "hyperdrive": Each(
        {"binding": ok(), "id": near("connects straight to the database, without Cloudflare's pool and cache"),
         "localConnectionString": ok()},
        required=("binding",),
    ),
    "ratelimits": Each(
        {"name": ok(), "namespace_id": ok(), "simple": ok(), "type": ok()}, required=("name",)
    ),
    "version_metadata": single(ok("the release")),
    "worker_loaders": bound(say=near("workerd loads the code; the interface is experimental")),
    "analytics_engine_datasets": bound("dataset", say=DROPPED),
    "pipelines": bound("pipeline", "stream", say=DROPPED),
    "send_email": bound(
        "destination_address", "allowed_destination_addresses", "allowed_sender_addresses", name="name",
        say=near("bound; messages go to the log, as in `wrangler dev`"),
    ),
    "secrets_store_secrets": bound("store_id", "secret_name", say=near("bound to the secret of this name in the project's vault")),
    "images": single(near("bound; a local library makes the pictures, with fewer formats")),
    "containers": Each({
        **dict.fromkeys(
            ("name", "class_name", "image", "image_build_context", "image_vars", "max_instances", "instance_type", "configuration",
             "rollout_step_percentage", "rollout_active_grace_period", "rollout_kind", "ssh", "authorized_keys", "trusted_user_ca_keys",
             "scheduling_policy", "instances", "wrangler_ssh"), CONTAINER),
        "constraints": PLACE, "affinities": PLACE,
    }),
    "cloudchamber": ABSENT, "ai": single(ABSENT, "staging"), "browser": single(ABSENT), "media": single(ABSENT), "stream": single(ABSENT),
    "vectorize": bound("index_name", say=ABSENT), "ai_search_namespaces": bound("namespace", say=ABSENT),
    "ai_search": bound("instance_name", say=ABSENT), "mtls_certificates": bound("certificate_id", say=ABSENT),
    "dispatch_namespaces": bound("namespace", "outbound", say=ABSENT), "artifacts": bound("namespace", say=ABSENT),
    "flagship": bound("app_id", say=ABSENT), "vpc_services": bound("service_id", say=ABSENT),
    "vpc_networks": bound("tunnel_id", "network_id", say=ABSENT), "unsafe_hello_world": bound("enable_timer", say=ABSENT),
    "unsafe": _UNSAFE, "access": no("Cloudflare Access; protect the host in another way before you move it"),
}  # fmt: skip
"""Keys that stand at the top and in each environment."""

TOP: dict[str, Say | Table | Each] = {
    **ENVIRONMENT,
    "$schema": ok("read by editors"),
    "pages_build_output_dir": ok(),
    "legacy_env": ok("each environment is its own worker"),
    "send_metrics": no("about the wrangler program"),
    "dev": DEV,
    "site": Table({
        "bucket": ok(), "entry-point": near("an old key; `main` names the code"),
        "include": near("all files of the folder are served"), "exclude": near("all files of the folder are served"),
    }),
    "wasm_modules": near("bound as modules of the built code"),
    "text_blobs": near("bound as modules of the built code"),
    "data_blobs": near("bound as modules of the built code"),
    "type": near("an old key; the bundler finds out by itself"), "webpack_config": no("an old key that wrangler no longer reads"),
    "usage_model": ACCOUNT, "zone_id": ACCOUNT, "entry-point": near("an old key; `main` names the code"), "config_path": DEV,
    "userConfigPath": DEV, "topLevelName": ok(), "definedEnvironments": ok(), "configPath": DEV,
}  # fmt: skip
"""Keys that stand at the top only, beside `env` and `previews`."""

INHERITED = frozenset({
    "name", "account_id", "compatibility_date", "compatibility_flags", "main", "find_additional_modules", "preserve_file_names", "base_dir",
    "workers_dev", "preview_urls", "routes", "route", "tsconfig", "jsx_factory", "jsx_fragment", "triggers", "limits", "rules", "build",
    "no_bundle", "minify", "keep_names", "first_party_worker", "logfwdr", "logpush", "upload_source_maps", "placement", "assets",
    "migrations", "observability", "compliance_region", "python_modules", "keep_vars", "pages_build_output_dir", "site", "exports", "alias",
})  # fmt: skip
"""Keys that an environment takes over from the top when it does not say them itself; bindings and variables it never does."""


def account(view: View, table: Mapping[str, Say | Table | Each]) -> None:
    """Record the fate of each key of a mapping by the table; wrong shapes become located problems."""
    for key, say in table.items():
        if key in view:
            _account_key(view, key, say)
    if table is TOP or table is ENVIRONMENT:
        account_unsafe(view)


def account_unsafe(view: View) -> None:
    """`unsafe.bindings` of a type that is served here are bound like their safe spelling."""
    table = view.raw("unsafe")
    items = table.get("bindings") if isinstance(table, dict) else None
    for index, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict) and isinstance(item.get("type"), str) and item["type"] in UNSAFE_KINDS:
            path = (*view.path, "unsafe", "bindings", index)
            view.ledger.note(path, Fate.HONOURED, f"the raw spelling of a {UNSAFE_KINDS[item['type']]} binding")


def _account_key(view: View, key: str, say: Say | Table | Each) -> None:
    value = view.raw(key)
    if isinstance(say, Say):
        fate = ok("switched off") if value is False and say.fate is Fate.IGNORED else say
        view.ledger.note(view.at(key), fate.fate, fate.reason)
        if value is not None and not isinstance(value, say.shape):
            view.problem(key, f"{_SHAPES[say.shape]} is expected here")
    elif isinstance(say, Table):
        if value is None or (isinstance(value, bool) and key in ("assets", "ai", "browser")):
            view.honoured(key)
        elif key == "dev" and not isinstance(value, dict):
            view.ignored(key, reason=DEV.reason)
        else:
            account(view.view(key), say.keys)
    else:
        _account_list(view, key, say)


_SHAPES: dict[type, str] = {str: "text", dict: "a mapping", list: "a list"}


def _account_list(view: View, key: str, each: Each) -> None:
    value = view.raw(key)
    if value is None or value == []:
        view.honoured(key)
        return
    if key == "route" and not isinstance(value, list):
        items = [(view.at(key), value)]
    elif not isinstance(value, list):
        view.problem(key, "a list is expected here")
        return
    else:
        items = [((*view.path, key, index), item) for index, item in enumerate(value)]
    for path, item in items:
        if each.strings is not None and isinstance(item, str):
            view.ledger.note(path, each.strings.fate, each.strings.reason)
            continue
        inner = View(view.ledger, item, path)
        if not inner.data and not isinstance(item, dict):
            continue
        account(inner, each.keys)
        for name in each.required:
            if not isinstance(inner.data.get(name), str) or not inner.data[name]:
                inner.problem(name if name in inner.data else None, f'"{name}" is missing or is no text')
