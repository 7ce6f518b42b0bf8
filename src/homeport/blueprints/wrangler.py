"""Cloudflare Workers: `wrangler.toml`, `wrangler.json`, `wrangler.jsonc` as function services on workerd.

What becomes of each key is the table of `wrangler_keys.py`; here the keys become a service. An environment (`env.*`) is
read as wrangler reads it (some keys are inherited, bindings and variables never) and kept as the patch between the two results.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Any, ClassVar

from homeport.blueprints.naming import bare_name
from homeport.blueprints.netlify_rules import side_routes
from homeport.blueprints.opening import finish, join, open_file, parent_of
from homeport.blueprints.overrides import merge_diff
from homeport.blueprints.source import SourceTree
from homeport.blueprints.view import View, scalar_text
from homeport.blueprints.wrangler_keys import ENVIRONMENT, INHERITED, TOP, UNSAFE_KINDS, Each, Table, account
from homeport.model.base import slug
from homeport.model.env import Env, EnvValue, PlainValue, SecretValue
from homeport.model.reading import Reading
from homeport.model.route import Match, Route, ToService
from homeport.model.service import (
    Binding,
    Build,
    Domain,
    FunctionService,
    PreviewOptions,
    QueueTrigger,
    ScheduleTrigger,
    Service,
    StaticService,
    Trigger,
)
from homeport.model.spec import Spec

Json = dict[str, Any]

_LISTS = (
    ("kv_namespaces", "kv", "binding", "id"), ("r2_buckets", "r2", "binding", "bucket_name"),
    ("d1_databases", "d1", "binding", "database_name"), ("services", "service", "binding", "service"),
    ("hyperdrive", "hyperdrive", "binding", "id"), ("ratelimits", "ratelimit", "name", "namespace_id"),
    ("workflows", "workflow", "binding", "name"), ("worker_loaders", "worker-loader", "binding", ""),
    ("analytics_engine_datasets", "analytics", "binding", "dataset"), ("pipelines", "pipeline", "binding", "pipeline"),
    ("send_email", "send-email", "name", ""), ("secrets_store_secrets", "secret", "binding", "secret_name"),
    ("vectorize", "vectorize", "binding", "index_name"), ("ai_search_namespaces", "ai-search-namespace", "binding", "namespace"),
    ("ai_search", "ai-search", "binding", "instance_name"), ("mtls_certificates", "mtls-certificate", "binding", "certificate_id"),
    ("dispatch_namespaces", "dispatch-namespace", "binding", "namespace"), ("artifacts", "artifacts", "binding", "namespace"),
    ("flagship", "flagship", "binding", "app_id"), ("vpc_services", "vpc-service", "binding", "service_id"),
    ("vpc_networks", "vpc-network", "binding", "tunnel_id"), ("unsafe_hello_world", "hello-world", "binding", ""),
    ("containers", "container", "class_name", "image"),
)  # fmt: skip
"""Key of the file, kind of the binding, where its name and its resource stand."""

_SINGLE = (
    ("ai", "ai"),
    ("browser", "browser"),
    ("images", "images"),
    ("media", "media"),
    ("stream", "stream"),
    ("version_metadata", "version"),
)
_BUNDLER = (
    "find_additional_modules", "preserve_file_names", "base_dir", "tsconfig", "jsx_factory", "jsx_fragment", "rules", "no_bundle", "minify",
    "keep_names", "define", "alias", "python_modules", "node_compat", "upload_source_maps", "wasm_modules", "text_blobs", "data_blobs",
)  # fmt: skip
_KEPT = (
    "account_id", "limits", "placement", "observability", "logpush", "tail_consumers", "streaming_tail_consumers", "unsafe", "migrations",
    "exports", "cloudchamber", "access", "compliance_region",
)  # fmt: skip


class WranglerReader:
    """Reads wrangler's configuration file in its three spellings."""

    dialect: ClassVar[str] = "wrangler"
    precedence: ClassVar[int] = 10

    def recognises(self, file_name: str, text: str) -> bool:  # noqa: ARG002 - the name says it all
        return re.fullmatch(r"wrangler(\.[\w.-]+)?\.(toml|jsonc?)", bare_name(file_name)) is not None

    def candidates(self, tree: SourceTree) -> list[str]:
        names = tree.list()
        found: list[str] = [name for name in ("wrangler.json", "wrangler.jsonc", "wrangler.toml") if name in names]
        return found[:1]

    def read(self, tree: SourceTree, path: str) -> Reading:
        view = open_file(tree, path)
        warnings: list[str] = []
        return finish(view, self.dialect, lambda: _spec(view, tree, parent_of(path), warnings), warnings)


def _spec(view: View, tree: SourceTree, folder: str, warnings: list[str]) -> Spec:
    account(view, TOP)
    environments = list(view.view("env").items())
    for _, inner in environments:
        account(inner, ENVIRONMENT)
    if "previews" in view:
        account(view.view("previews"), ENVIRONMENT)
    name = slug(scalar_text(view.raw("name")) or tree.name)
    base = _Worker(view.data, tree, folder, name)
    if view.ledger.problems:  # the shapes below are not to be trusted
        return Spec(name=slug(tree.name))
    spec = _with(Spec(name=slug(tree.name)), name, base, warnings)
    canonical = spec.canonical()
    patches: dict[str, Json] = {}
    for title, inner in [*environments, *([("preview", view.view("previews"))] if view.raw("previews") else [])]:
        merged = {**{k: v for k, v in view.data.items() if k in INHERITED}, **inner.data}
        if title == "preview" and view.raw("previews") == inner.data:
            merged = {**{k: v for k, v in view.data.items() if k not in ("env", "previews")}, **inner.data}
        changed = _with(Spec(name=slug(tree.name)), name, _Worker(merged, tree, folder, name), [])
        patches[title] = merge_diff(canonical, changed.canonical())
    return spec.model_copy(update={"environments": patches})


def _with(spec: Spec, name: str, worker: _Worker, warnings: list[str]) -> Spec:
    services: dict[str, Service] = {name: worker.service()}
    return Spec(name=spec.name, services=services, routes=tuple(worker.routes(warnings)))


class _Worker:
    """One worker in one environment: plain data whose shape was checked before."""

    def __init__(self, data: Json, tree: SourceTree, folder: str, name: str) -> None:
        self.data, self.tree, self.folder, self.name = data, tree, folder, name
        pages = self._text("pages_build_output_dir")
        self.is_pages = bool(pages)
        site = self._table("site")
        self.assets: Json = self._table("assets")
        if pages:
            self.assets = {"directory": pages, "not_found_handling": "404-page", **self.assets}
        elif site:
            self.assets = {"directory": scalar_text(site.get("bucket")), **self.assets}

    # -- reading plain data

    def _text(self, key: str) -> str:
        value = self.data.get(key)
        return "" if value is None or isinstance(value, dict | list) else scalar_text(value)

    def _table(self, key: str) -> Json:
        value = self.data.get(key)
        return value if isinstance(value, dict) else {}

    def _list(self, key: str) -> list[Json]:
        value = self.data.get(key)
        return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []

    # -- services

    def service(self) -> Service:
        """A function; a static site when there is no code."""
        main = self._main()
        if not main and not self.data.get("durable_objects") and self.assets:
            return self._static().model_copy(
                update={"title": self._title(), "domains": self._domains(), "default_domain": self._default(), "build": self._build()}
            )
        return FunctionService(
            title=self._title(),
            root=self.folder,
            runtime="workerd",
            entrypoint=main,
            compatibility_date=self._text("compatibility_date"),
            compatibility_flags=tuple(_texts(self.data.get("compatibility_flags"))),
            bindings=self._bindings(),
            assets=self._static() if self.assets else None,
            domains=self._domains(),
            default_domain=self._default(),
            build=self._build(),
            env=self._env(),
            triggers=self._triggers(),
            previews=self._previews(),
            extensions={key: self.data[key] for key in _KEPT if self.data.get(key)},
        )

    def _title(self) -> str:
        title = self._text("name")
        return "" if title == self.name else title

    def _main(self) -> str:
        upload = self._table("build").get("upload")
        old = upload.get("main") if isinstance(upload, dict) else ""
        entry = self._text("main") or self._text("entry-point") or scalar_text(self._table("site").get("entry-point"))
        if not entry and isinstance(old, str):
            entry = old
        if not entry and self.is_pages:
            entry = next((n.rstrip("/") for n in ("_worker.js", "functions/") if n in self._page_names()), "")
        return entry.removeprefix("./")

    def _page_names(self) -> list[str]:
        publish = join(self.folder, scalar_text(self.assets.get("directory")))
        return self.tree.list(self.folder) + [name for name in self.tree.list(publish) if name.startswith("_worker.js")]

    def _static(self) -> StaticService:
        html = scalar_text(self.assets.get("html_handling")) or "auto-trailing-slash"
        missing = scalar_text(self.assets.get("not_found_handling"))
        slash = {"force-trailing-slash": True, "drop-trailing-slash": False}.get(html)
        first = self.assets.get("run_worker_first")
        return StaticService(
            root=self.folder,
            publish=scalar_text(self.assets.get("directory")).removeprefix("./"),
            clean_urls=html != "none",
            trailing_slash=slash,
            single_page=missing == "single-page-application",
            not_found_page="404.html" if missing == "404-page" else "",
            extensions={"run_worker_first": first} if first is not None else {},
        )

    def _default(self) -> bool:
        flag = self.data.get("workers_dev")
        return flag if isinstance(flag, bool) else not (self.data.get("routes") or self.data.get("route"))

    def _previews(self) -> PreviewOptions:
        flag = self.data.get("preview_urls")
        return PreviewOptions(generation="automatic" if flag else "off") if isinstance(flag, bool) else PreviewOptions()

    def _build(self) -> Build:
        build = self._table("build")
        options = {key: self.data[key] for key in _BUNDLER if self.data.get(key) not in (None, [], {})}
        for key in ("cwd", "upload"):
            if build.get(key):
                options[key] = build[key]
        python = PurePosixPath(self._text("main")).suffix == ".py"
        return Build(command=scalar_text(build.get("command")), runtime="python" if python else "", options=options)

    def _env(self) -> Env:
        env: dict[str, EnvValue] = {key: PlainValue(value=_plain(value)) for key, value in self._table("vars").items()}
        for key in _texts(self._table("secrets").get("required")):
            env.setdefault(key, SecretValue())
        return env

    def _domains(self) -> tuple[Domain, ...]:
        routes = self.data.get("routes")
        items = list(routes) if isinstance(routes, list) else []
        if self.data.get("route"):
            items.append(self.data["route"])
        found = []
        for item in items:
            options = {k: v for k, v in item.items() if k not in ("pattern", "custom_domain")} if isinstance(item, dict) else {}
            pattern = scalar_text(item.get("pattern") if isinstance(item, dict) else item)
            host, slash, path = re.sub(r"^https?://", "", pattern).partition("/")
            path = "" if not slash or path == "*" else f"/{path}"
            if host:
                found.append(Domain(host=host, path=path, options=options))
        return tuple(found)

    def _triggers(self) -> tuple[Trigger, ...]:
        found: list[Trigger] = [ScheduleTrigger(schedule=cron) for cron in _texts(self._table("triggers").get("crons"))]
        consumers = self._table("queues").get("consumers")
        for item in consumers if isinstance(consumers, list) else []:
            if not isinstance(item, dict):
                continue
            found.append(
                QueueTrigger(
                    queue=scalar_text(item.get("queue")),
                    max_batch_size=item.get("max_batch_size"),
                    max_batch_timeout=item.get("max_batch_timeout"),
                    max_retries=item.get("max_retries"),
                    dead_letter_queue=scalar_text(item.get("dead_letter_queue")),
                    max_concurrency=item.get("max_concurrency"),
                    retry_delay=item.get("retry_delay"),
                    type=scalar_text(item.get("type")),
                    options={k: item[k] for k in ("visibility_timeout_ms",) if k in item},
                )
            )
        return tuple(found)

    # -- bindings

    def _bindings(self) -> tuple[Binding, ...]:
        found = [self._binding(kind, item, name, resource) for key, kind, name, resource in _LISTS for item in self._list(key)]
        found += [self._binding("durable-object", item, "name", "class_name") for item in self._objects()]
        producers = self._table("queues").get("producers")
        found += [self._binding("queue", item, "binding", "queue") for item in producers or [] if isinstance(item, dict)]
        for item in self._unsafe():
            if (kind := UNSAFE_KINDS.get(scalar_text(item.get("type")))) is not None:
                found.append(self._binding(kind, {k: v for k, v in item.items() if k != "type"}, "name", "service"))
        for key, kind in _SINGLE:
            if self._table(key):
                found.append(self._binding(kind, self._table(key), "binding", ""))
        if isinstance(self.assets.get("binding"), str):
            found.append(Binding(kind="assets", name=self.assets["binding"]))
        for name, value in self._table("vars").items():
            if not isinstance(value, str):
                found.append(Binding(kind="json", name=name, options={"value": value}))
        return tuple(binding for binding in found if binding.name)

    def _objects(self) -> list[Json]:
        table = self._table("durable_objects").get("bindings")
        return [item for item in table if isinstance(item, dict)] if isinstance(table, list) else []

    def _unsafe(self) -> list[Json]:
        items = self._table("unsafe").get("bindings")
        return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []

    @staticmethod
    def _binding(kind: str, item: Json, name: str, resource: str) -> Binding:
        options = {key: value for key, value in item.items() if key not in (name, resource)}
        return Binding(
            kind=kind, name=scalar_text(item.get(name)), resource=scalar_text(item.get(resource)) if resource else "", options=options
        )

    # -- routes

    def routes(self, warnings: list[str]) -> list[Route]:
        """Rules of the assets folder, and the paths where the code comes before the files."""
        found: list[Route] = []
        if self.assets.get("directory"):
            publish = join(self.folder, scalar_text(self.assets["directory"]))
            found += side_routes(self.tree, [publish, join(self.folder, "public")], self.name, {}, warnings)
        first = self.assets.get("run_worker_first")
        patterns = ["/*"] if first is True else _texts(first)
        if self._main():
            action = ToService(service=self.name)
            for pattern in patterns:
                if not pattern.startswith("!"):
                    found.append(Route(service=self.name, match=Match(path=pattern, syntax="glob"), action=action, force=True))
        return found


def _texts(value: Any) -> list[str]:
    """The texts of a list; nothing for another shape."""
    return [scalar_text(item) for item in value if not isinstance(item, dict | list)] if isinstance(value, list) else []


def _plain(value: Any) -> str:
    """A variable as text: what is no text is written as JSON, as wrangler does."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def known_keys() -> list[str]:
    """Every key that the table knows, as paths: what the reference page lists."""

    def walk(table: Any, at: str) -> list[str]:
        found = []
        for key, say in table.items():
            found.append(f"{at}{key}")
            if isinstance(say, Table | Each):
                found += walk(say.keys, f"{at}{key}{'[]' if isinstance(say, Each) else ''}.")
        return found

    return walk(TOP, "")
