"""What the wrangler reader makes of a worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from homeport.blueprints.overrides import for_environment
from homeport.blueprints.source import FolderTree, MemoryTree
from homeport.blueprints.wrangler import WranglerReader
from homeport.blueprints.wrangler_keys import ENVIRONMENT, TOP, Each, Say, Table
from homeport.model.env import PlainValue
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading, leaves
from homeport.model.route import ToService
from homeport.model.service import FunctionService, QueueTrigger, ScheduleTrigger, StaticService


def read(data: Any, files: dict[str, str] | None = None) -> Reading:
    return WranglerReader().read(MemoryTree({"wrangler.json": json.dumps(data), **(files or {})}, "proj"), "wrangler.json")


def worker(reading: Reading, name: str = "w") -> FunctionService:
    service = reading.spec.services[name]
    assert isinstance(service, FunctionService)
    return service


def test_a_worker_with_bindings() -> None:
    """Code, dates, variables, secrets and bindings of a worker become a function on workerd."""
    found = worker(
        read(
            {
                "name": "w",
                "main": "./src/index.ts",
                "compatibility_date": "2026-01-01",
                "compatibility_flags": ["nodejs_compat"],
                "vars": {"A": "x", "N": 5, "O": {"k": [1]}},
                "secrets": {"required": ["TOKEN"]},
                "kv_namespaces": [{"binding": "KV", "id": "1"}],
                "r2_buckets": [{"binding": "B", "bucket_name": "bucket"}],
                "d1_databases": [{"binding": "DB", "database_name": "db", "database_id": "1"}],
                "durable_objects": {"bindings": [{"name": "ROOM", "class_name": "Room"}]},
                "queues": {"producers": [{"binding": "Q", "queue": "q"}], "consumers": [{"queue": "q", "max_batch_timeout": 30}]},
                "triggers": {"crons": ["*/5 * * * *"]},
                "ratelimits": [{"name": "RL", "namespace_id": "1", "simple": {"limit": 5, "period": 60}}],
                "unsafe": {"bindings": [{"name": "RL2", "type": "ratelimit", "namespace_id": "2"}, {"name": "Z", "type": "internal"}]},
            }
        )
    )
    assert (found.runtime, found.entrypoint, found.compatibility_date) == ("workerd", "src/index.ts", "2026-01-01")
    kinds = {(binding.kind, binding.name, binding.resource) for binding in found.bindings}
    assert kinds == {
        ("kv", "KV", "1"), ("r2", "B", "bucket"), ("d1", "DB", "db"), ("durable-object", "ROOM", "Room"), ("queue", "Q", "q"),
        ("ratelimit", "RL", "1"), ("ratelimit", "RL2", ""), ("json", "N", ""), ("json", "O", ""),
    }  # fmt: skip
    assert found.env["TOKEN"].kind == "secret"
    assert found.env["O"] == PlainValue(value='{"k": [1]}')
    schedule, queue = found.triggers
    assert isinstance(schedule, ScheduleTrigger)
    assert isinstance(queue, QueueTrigger)
    assert queue.max_batch_timeout is not None
    assert queue.max_batch_timeout.total_seconds() == 30


def test_environments_inherit_as_wrangler_does() -> None:
    """An environment takes over code and routes, but no bindings and no variables."""
    reading = read(
        {
            "name": "w",
            "main": "a.js",
            "compatibility_date": "2026-01-01",
            "vars": {"A": "1"},
            "kv_namespaces": [{"binding": "KV", "id": "1"}],
            "env": {"staging": {"vars": {"B": "2"}, "routes": [{"pattern": "s.example.com", "custom_domain": True}]}, "empty": {}},
        }
    )
    staging = for_environment(reading.spec, "staging").services["w"]
    assert isinstance(staging, FunctionService)
    assert (staging.entrypoint, staging.compatibility_date) == ("a.js", "2026-01-01")
    assert list(staging.env) == ["B"]
    assert staging.bindings == ()
    assert staging.domains[0].host == "s.example.com"
    assert not staging.default_domain
    empty = for_environment(reading.spec, "empty").services["w"]
    assert isinstance(empty, FunctionService)
    assert empty.env == {}


def test_routes_become_domains() -> None:
    """Patterns are split into host and path; the zone at Cloudflare is said to be ignored."""
    reading = read(
        {"name": "w", "main": "a.js", "routes": ["a.com/*", {"pattern": "https://b.com/api/*", "zone_name": "b.com"}], "route": "c.com/x"}
    )
    assert [(d.host, d.path) for d in worker(reading).domains] == [("a.com", ""), ("b.com", "/api/*"), ("c.com", "/x")]
    assert [note.path for note in reading.by_fate(Fate.IGNORED)] == ["routes[1].zone_name"]


def test_assets_beside_and_without_code() -> None:
    """Assets are a static site inside the function; without code the worker is a static site."""
    reading = read(
        {
            "name": "w", "main": "a.js",
            "assets": {"directory": "./public", "binding": "ASSETS", "not_found_handling": "single-page-application",
                       "html_handling": "drop-trailing-slash", "run_worker_first": ["/api/*", "!/api/docs"]},
        },
        {"public/_redirects": "/a /b 302\n"},
    )  # fmt: skip
    found = worker(reading)
    assert found.assets is not None
    assert (found.assets.publish, found.assets.single_page, found.assets.trailing_slash) == ("public", True, False)
    assert [route.match.path for route in reading.spec.routes] == ["/a", "/api/*"]
    assert isinstance(reading.spec.routes[1].action, ToService)
    static = read({"name": "w", "assets": {"directory": "dist", "not_found_handling": "404-page"}}).spec.services["w"]
    assert isinstance(static, StaticService)
    assert static.not_found_page == "404.html"


def test_pages_projects() -> None:
    """A Pages project is its output folder, with the functions folder when there is one."""
    static = read({"name": "w", "pages_build_output_dir": "./dist"}).spec.services["w"]
    assert isinstance(static, StaticService)
    assert static.publish == "dist"
    assert worker(read({"name": "w", "pages_build_output_dir": "dist"}, {"functions/api.js": ""})).entrypoint == "functions"


def test_what_needs_cloudflare_is_said_to_be_absent() -> None:
    """Bindings that only Cloudflare's network has are ignored with that reason, and kept."""
    reading = read(
        {"name": "w", "main": "a.js", "ai": {"binding": "AI", "remote": False}, "vectorize": [{"binding": "V", "index_name": "i"}]}
    )
    ignored = {note.path: note.reason for note in reading.by_fate(Fate.IGNORED)}
    assert set(ignored) == {"ai.binding", "vectorize[0].binding", "vectorize[0].index_name"}
    assert "missing at run time" in ignored["ai.binding"]
    assert {binding.kind for binding in worker(reading).bindings} == {"ai", "vectorize"}


def test_problems_are_found_in_one_go() -> None:
    """Missing names and wrong shapes are located, in environments too."""
    text = '{\n"kv_namespaces": [{"id": "1"}],\n"vars": 3,\n"d1_databases": {},\n"env": {"x": {"queues": {"consumers": [{"queue": 1}]}}}\n}'
    with pytest.raises(BlueprintInvalid) as caught:
        WranglerReader().read(MemoryTree({"wrangler.jsonc": text}), "wrangler.jsonc")
    assert {(p.path, p.line) for p in caught.value.problems} == {
        ("kv_namespaces[0]", 2), ("vars", 3), ("d1_databases", 4), ("env.x.queues.consumers[0].queue", 5),
    }  # fmt: skip


def test_every_key_of_the_official_schema_is_known(shared: Path) -> None:
    """No key that Cloudflare's own schema allows is unknown to the table."""
    definitions = json.loads((shared / "schemas/wrangler.config-schema.json").read_text())["definitions"]
    missing: list[str] = []

    def walk(schema: dict[str, Any], table: Any, path: str, seen: frozenset[str]) -> None:
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[-1]
            if name in seen:
                return
            schema, seen = definitions.get(name, {}), seen | {name}
        if isinstance(table, Say):
            return
        keys = table.keys if isinstance(table, Table | Each) else table
        for kind in ("anyOf", "oneOf", "allOf"):
            for part in schema.get(kind, []):
                walk(part, table, path, seen)
        if isinstance(schema.get("items"), dict):
            walk(schema["items"], table, path, seen)
        for key, part in schema.get("properties", {}).items():
            if key in ("env", "previews"):
                continue
            if key in keys:
                walk(part, keys[key], f"{path}.{key}", seen)
            else:
                missing.append(f"{path}.{key}")

    walk(definitions["RawConfig"], TOP, "", frozenset())
    walk(definitions["RawEnvironment"], ENVIRONMENT, "env", frozenset())
    assert missing == []


def test_the_configurations_of_workers_sdk_are_read(shared: Path) -> None:
    """All configuration files of Cloudflare's own test suite are read, or refused for a located reason; no key is unknown."""
    folder = shared / "suites/workers-sdk-config"
    files = sorted(path for path in folder.rglob("wrangler*") if path.is_file())
    assert len(files) > 60
    unknown, refused = [], []
    for path in files:
        try:
            reading = WranglerReader().read(FolderTree(path.parent), path.name)
        except BlueprintInvalid as error:
            refused.append((str(path.relative_to(folder)), error.problems))
            continue
        unknown += [note.path for note in reading.by_fate(Fate.UNKNOWN)]
    assert refused == []
    assert len(unknown) <= 3, unknown


def test_names_of_files() -> None:
    """All spellings of the file are known by name."""
    recognises = WranglerReader().recognises
    assert all(recognises(name, "") for name in ("wrangler.toml", "o__r__wrangler.jsonc", "wrangler.e2e.jsonc", "wrangler.json"))
    assert not recognises("wrangler.md", "")


def test_an_empty_file_is_an_empty_account() -> None:
    """A file without keys gives a function of the folder's name and no notes."""
    reading = read({})
    assert reading.keys == () or len(reading.keys) == len(leaves({}))
