"""What the Vercel reader makes of a project."""

from __future__ import annotations

import json
from typing import Any

import pytest

from homeport.blueprints.overrides import for_environment
from homeport.blueprints.source import MemoryTree
from homeport.blueprints.vercel import VercelReader
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading
from homeport.model.route import Filesystem, Redirect, Respond, SetHeaders, ToService, ToUrl
from homeport.model.service import CronService, FunctionService, StaticService, WebService


def read(data: Any) -> Reading:
    return read_files(data, {})


def read_files(data: Any, files: dict[str, str]) -> Reading:
    return VercelReader().read(MemoryTree({"vercel.json": json.dumps(data), **files}, "shop"), "vercel.json")


def test_a_single_page_rewrite_becomes_the_flag() -> None:
    """A catch-all rewrite to index.html marks the static site as a single-page application."""
    spec = read({"framework": "vite", "rewrites": [{"source": "/(.*)", "destination": "/index.html"}]}).spec
    site = spec.services["shop"]
    assert isinstance(site, StaticService)
    assert site.single_page
    assert site.publish == "dist"
    assert spec.routes == ()


def test_files_come_before_rewrites() -> None:
    """Rewrites stand after a filesystem phase, headers and redirects before it."""
    reading = read(
        {
            "framework": None,
            "rewrites": [{"source": "/api/:path*", "destination": "https://api.example.com/:path*"}],
            "redirects": [{"source": "/old", "destination": "/new", "permanent": False}],
            "headers": [{"source": "/(.*)", "headers": [{"key": "X-Frame-Options", "value": "DENY"}]}],
        }
    )
    kinds = [type(route.action) for route in reading.spec.routes]
    assert kinds == [SetHeaders, Redirect, Filesystem, ToUrl]
    redirect = reading.spec.routes[1]
    assert isinstance(redirect.action, Redirect)
    assert redirect.action.status == 307
    assert redirect.match.syntax == "exact"
    assert reading.spec.routes[3].match.syntax == "params"


def test_functions_are_found_under_api() -> None:
    """Each handler under api/ is a function with its path; hidden files and type files are not."""
    spec = read_files(
        {"functions": {"api/*.py": {"maxDuration": 60, "memory": 1024}}},
        {
            "api/hello.py": "",
            "api/index.ts": "",
            "api/users/[id].js": "",
            "api/blog/[...slug].js": "",
            "api/_lib.py": "",
            "api/types.d.ts": "",
            "api/fast.ts": "export const config = { runtime: 'edge' }",
            "index.html": "",
        },
    ).spec
    functions = {s.path: s for s in spec.services.values() if isinstance(s, FunctionService)}
    assert set(functions) == {"/api/hello", "/api", "/api/users/:id", "/api/blog/:slug*", "/api/fast"}
    hello = functions["/api/hello"]
    assert hello.runtime == "python"
    assert hello.max_duration is not None
    assert hello.max_duration.total_seconds() == 60
    assert hello.memory == 1 << 30
    assert functions["/api/fast"].runtime == "edge"
    assert functions["/api"].runtime == "node"


def test_functions_alone_publish_no_source() -> None:
    """A project of functions only has no static site: its folder is the source code."""
    spec = read_files({"installCommand": "pip install -r requirements.txt"}, {"api/index.py": "", "requirements.txt": "flask"}).spec
    assert [type(s) for s in spec.services.values()] == [FunctionService]
    assert next(iter(spec.services.values())).build.install == "pip install -r requirements.txt"


def test_legacy_builds_and_routes() -> None:
    """builds become functions and sites; routes keep their regular expressions and phases."""
    spec = read(
        {
            "version": 2,
            "name": "My Shop",
            "env": {"TOKEN": "@token", "MODE": "live"},
            "builds": [{"src": "api/index.js", "use": "@vercel/node@2.0"}, {"src": "package.json", "use": "@vercel/static-build"}],
            "routes": [
                {"src": "/api/(.*)", "dest": "/api/index.js", "methods": ["get"]},
                {"src": "/gone", "status": 410},
                {"src": "/a", "status": 302, "headers": {"Location": "/b"}},
                {"src": "/c", "headers": {"x-a": "1"}, "continue": True},
                {"handle": "filesystem"},
                {"src": "/(.*)", "dest": "/index.html"},
            ],
        }
    ).spec
    assert (spec.name, spec.title) == ("my-shop", "My Shop")
    actions = [route.action for route in spec.routes]
    assert isinstance(actions[0], ToService)
    assert spec.routes[0].match.methods == ("GET",)
    assert spec.routes[0].match.syntax == "regex"
    assert isinstance(actions[1], Respond)
    assert isinstance(actions[2], Redirect)
    assert isinstance(actions[3], SetHeaders)
    assert spec.routes[3].proceed
    assert isinstance(actions[4], Filesystem)
    assert len(actions) == 5
    assert all(route.force for route in spec.routes[:4])
    site = next(s for s in spec.services.values() if isinstance(s, StaticService))
    assert site.single_page
    function = spec.services[actions[0].service]
    assert function.env["TOKEN"].kind == "secret"


def test_declared_services_and_bindings() -> None:
    """services become services; a binding is a reference, a rewrite to a service a route."""
    spec = read(
        {
            "services": {
                "web": {"root": "web/", "framework": "nextjs", "bindings": [{"type": "service", "service": "api", "env": "API"}]},
                "api": {"root": "api", "entrypoint": "main:app"},
                "img": {"root": "img", "entrypoint": "Dockerfile"},
                "nightly": {"root": "api", "entrypoint": "job.py", "schedule": "0 3 * * *"},
            },
            "rewrites": [{"source": "/v1/:p*", "destination": {"service": "api"}}, {"source": "/(.*)", "destination": {"service": "web"}}],
        }
    ).spec
    web, api, image = spec.services["web"], spec.services["api"], spec.services["img"]
    assert isinstance(web, WebService)
    assert web.env["API"].kind == "service"
    assert isinstance(api, WebService)
    assert api.command == "uvicorn main:app --host 0.0.0.0 --port $PORT"
    assert image.build.dockerfile == "img/Dockerfile"
    assert isinstance(spec.services["nightly"], CronService)
    targets = [route.action.service for route in spec.routes if isinstance(route.action, ToService)]
    assert targets == ["api", "web"]


def test_mounted_back_ends_do_not_see_their_prefix() -> None:
    """A routePrefix mounts a back end; the longest prefix is looked at first."""
    spec = read(
        {
            "experimentalServices": {
                "front": {"entrypoint": "front", "framework": "nextjs", "routePrefix": "/"},
                "a": {"entrypoint": "a/app.py", "routePrefix": "/a"},
                "ab": {"entrypoint": "b/app.py", "routePrefix": "/a/b"},
            }
        }
    ).spec
    mounts = [route for route in spec.routes if isinstance(route.action, ToService)]
    assert [route.match.path for route in mounts] == ["/a/b", "/a"]
    assert all(isinstance(route.action, ToService) and route.action.strip_prefix for route in mounts)


def test_crons_call_the_service_that_owns_the_path() -> None:
    """A cron becomes a schedule trigger of the function at its path."""
    spec = read_files({"crons": [{"path": "/api/tick?x=1", "schedule": "*/5 * * * *"}]}, {"api/tick.ts": "", "index.html": ""}).spec
    owner = next(s for s in spec.services.values() if s.triggers)
    assert isinstance(owner, FunctionService)
    assert owner.path == "/api/tick"


def test_conditions_of_rules() -> None:
    """has and missing become conditions; comparisons become patterns, and numbers are said to be beyond the edge."""
    reading = read(
        {
            "redirects": [
                {
                    "source": "/",
                    "destination": "/x",
                    "has": [{"type": "host", "value": "a.com"}, {"type": "query", "key": "p", "value": {"pre": "a."}}],
                    "missing": [{"type": "cookie", "key": "s"}, {"type": "header", "key": "n", "value": {"gt": 3}}],
                }
            ]
        }
    )
    conditions = reading.spec.routes[0].match.conditions
    assert [(c.type, c.value, c.negate) for c in conditions] == [("host", "a.com", False), ("query", "^a\\.", False), ("cookie", "", True)]
    assert [note.path for note in reading.by_fate(Fate.IGNORED)] == ["redirects[0].missing[1].value.gt"]


def test_development_command_is_an_environment() -> None:
    """devCommand starts the site in the environment `development` only."""
    spec = read({"framework": "vite", "devCommand": "vite --host"}).spec
    assert isinstance(spec.services["shop"], StaticService)
    changed = for_environment(spec, "development").services["shop"]
    assert isinstance(changed, WebService)
    assert changed.command == "vite --host"


def test_all_problems_are_found_with_their_places() -> None:
    """Several faults are reported in one go, each with line and column."""
    text = '{\n  "redirects": [{"source": "old"}],\n  "crons": [{"path": "/x", "schedule": "daily"}],\n  "routes": [{"src": "("}]\n}'
    with pytest.raises(BlueprintInvalid) as caught:
        VercelReader().read(MemoryTree({"vercel.json": text}), "vercel.json")
    found = {(problem.path, problem.line) for problem in caught.value.problems}
    assert found == {("redirects[0].source", 2), ("redirects[0]", 2), ("crons[0].schedule", 3), ("routes[0].src", 4)}


def test_unknown_keys_are_suggested_and_comments_read() -> None:
    """A mistyped key is unknown with a suggestion; comments and trailing commas are no fault."""
    tree = MemoryTree({"vercel.json": '{ // home\n "cleanUrl": true, "trailingSlash": false, }'})
    reading = VercelReader().read(tree, "vercel.json")
    (unknown,) = reading.by_fate(Fate.UNKNOWN)
    assert (unknown.path, unknown.did_you_mean) == ("cleanUrl", "cleanUrls")


def test_names_of_files() -> None:
    """The reader knows its files by name, with prefixes and revisions too."""
    recognises = VercelReader().recognises
    assert recognises("vercel.json", "")
    assert recognises("owner__repo__apps__vercel@1a2b3c4d.json", "")
    assert recognises("now.json", "")
    assert not recognises("package.json", "")
