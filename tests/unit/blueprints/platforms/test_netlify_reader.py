"""What the Netlify reader makes of netlify.toml, _redirects and _headers."""

from __future__ import annotations

from textwrap import dedent

import pytest

from homeport.blueprints.netlify import NetlifyReader
from homeport.blueprints.overrides import for_environment
from homeport.blueprints.source import MemoryTree
from homeport.model.env import PlainValue
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading
from homeport.model.route import Redirect, Rewrite, SetHeaders, ToService, ToUrl
from homeport.model.service import FunctionService, StaticService, WebService


def read(text: str, files: dict[str, str] | None = None, name: str = "netlify.toml") -> Reading:
    return NetlifyReader().read(MemoryTree({name: dedent(text), **(files or {})}, "site"), name)


def test_build_and_contexts() -> None:
    """[build] makes the site; a context is a patch that changes only what it says."""
    spec = read(
        """
        [build]
        base = "web"
        command = "npm run build"
        publish = "web/dist"
        ignore = "git diff --quiet HEAD^ HEAD ."
        [build.environment]
        NODE_VERSION = "20"
        A = "1"
        [context.deploy-preview]
        command = "npm run preview"
        [context.deploy-preview.environment]
        A = "2"
        [context.staging]
        publish = "web/out"
        """
    ).spec
    site = spec.services["site"]
    assert isinstance(site, StaticService)
    assert (site.root, site.publish, site.build.command) == ("web", "dist", "npm run build")
    assert (site.build.runtime, site.build.runtime_version) == ("node", "20")
    preview = for_environment(spec, "preview-7").services["site"]
    assert preview.build.command == "npm run preview"
    assert preview.build.env["A"] == PlainValue(value="2")
    assert preview.build.env["NODE_VERSION"] == PlainValue(value="20")
    staging = for_environment(spec, "staging").services["site"]
    assert isinstance(staging, StaticService)
    assert staging.publish == "out"


def test_redirects_of_all_kinds() -> None:
    """3xx redirects, 200 rewrites or proxies, /.netlify/functions calls the function, conditions are kept."""
    reading = read(
        """
        [[redirects]]
        from = "/old/*"
        to = "/new/:splat"
        [[redirects]]
        from = "/api/*"
        to = "/.netlify/functions/hello"
        status = 200
        force = true
        [[redirects]]
        from = "/ext/*"
        to = "https://example.com/:splat"
        status = 200
        headers = {X-From = "site"}
        [[redirects]]
        from = "https://old.example.com/*"
        to = "/x"
        status = "302"
        query = {id = ":id", kind = "a"}
        conditions = {Language = ["de", "at"], Country = ["DE"]}
        [[redirects]]
        from = "/*"
        to = "/404.html"
        status = 404
        """,
        {"netlify/functions/hello.js": "exports.handler = async () => ({statusCode: 200})"},
    )
    routes = reading.spec.routes
    assert [type(r.action) for r in routes] == [Redirect, ToService, SetHeaders, ToUrl, Redirect, Rewrite]
    assert isinstance(routes[0].action, Redirect)
    assert routes[0].action.status == 301
    assert routes[0].match.syntax == "glob"
    assert routes[1].force
    assert routes[4].match.host == "old.example.com"
    assert {(c.type, c.key, c.value) for c in routes[4].match.conditions} == {
        ("query", "id", ""), ("query", "kind", "a"), ("language", "", "de,at"), ("country", "", "DE"),
    }  # fmt: skip
    assert [note.path for note in reading.by_fate(Fate.IGNORED)] == ["redirects[3].conditions.Country[0]"]


def test_functions_and_schedules() -> None:
    """Functions are found in their folder in each of the layouts; a schedule becomes a trigger."""
    spec = read(
        """
        [functions]
        directory = "fns"
        node_bundler = "esbuild"
        [functions.tick]
        schedule = "@daily"
        """,
        {"fns/tick.mjs": "", "fns/a/index.js": "", "fns/b/b.ts": "", "fns/go1/main.go": "", "fns/readme.md": "", "fns/types.d.ts": ""},
    ).spec
    functions = {s.title: s for s in spec.services.values() if isinstance(s, FunctionService)}
    assert set(functions) == {"tick", "a", "b", "go1"}
    (trigger,) = functions["tick"].triggers
    assert trigger.kind == "schedule"
    assert trigger.schedule == "0 0 * * *"
    assert functions["go1"].runtime == "go"
    assert functions["b"].path == "/.netlify/functions/b"


def test_next_sites_are_served_by_their_own_server() -> None:
    """The Next.js plugin is not needed: the site is a web service."""
    reading = read('[build]\npublish = ".next"\n[[plugins]]\npackage = "@netlify/plugin-nextjs"\n')
    assert isinstance(reading.spec.services["site"], WebService)
    assert not reading.by_fate(Fate.IGNORED)


def test_other_plugins_are_said_not_to_run() -> None:
    """A build plugin is ignored, with a warning for the user."""
    reading = read('[[plugins]]\npackage = "netlify-plugin-x"\n[plugins.inputs]\na = 1\n')
    assert {note.path for note in reading.by_fate(Fate.IGNORED)} == {"plugins[0].package", "plugins[0].inputs.a"}
    assert "netlify-plugin-x" in reading.warnings[0]


def test_passwords_never_become_headers() -> None:
    """Basic-Auth is not taken over and not sent to visitors; the user is warned."""
    reading = read('[[headers]]\nfor = "/admin/*"\n[headers.values]\nBasic-Auth = "me:secret"\nX-A = "1"\n')
    (route,) = reading.spec.routes
    assert isinstance(route.action, SetHeaders)
    assert route.action.response == {"X-A": "1"}
    assert "open until you protect it" in reading.warnings[0]
    assert "secret" not in str(reading.warnings)


def test_redirects_file_grammar() -> None:
    """Each part of a line of _redirects is understood; lines that are no rule are skipped with a warning."""
    reading = read(
        """
        # comment
        /a /b
        /c/:id   id=:id  /d/:id  302!  Country=de Role=admin # tail
        /e/*     200
        /f       https://example.com/f 200
        nonsense
        """,
        name="_redirects",
    )
    routes = reading.spec.routes
    assert [type(r.action).__name__ for r in routes] == ["Redirect", "Redirect", "Rewrite", "ToUrl"]
    assert routes[1].force
    assert isinstance(routes[2].action, Rewrite)
    assert routes[2].action.to == "/e/:splat"
    assert [(note.path, note.line) for note in reading.by_fate(Fate.IGNORED)][-1] == ("redirects[4].skipped", 7)
    assert reading.warnings == ("_redirects:7: the line is skipped: not a redirect rule",)


def test_headers_file_grammar() -> None:
    """_headers: paths, joined values, removal with `!`, comments."""
    reading = read("/*\n  X-A: 1\n  x-b: 2: 3\n  X-A: 4\n/p\n  ! X-A\n# end\nbroken\n", name="_headers")
    first, second = (route.action for route in reading.spec.routes)
    assert isinstance(first, SetHeaders)
    assert isinstance(second, SetHeaders)
    assert first.response == {"X-A": "1, 4", "x-b": "2: 3"}
    assert second.remove == ("X-A",)
    assert [(note.path, note.line) for note in reading.by_fate(Fate.IGNORED)] == [("skipped[0]", 8)]


def test_side_files_of_the_published_folder_count() -> None:
    """Rules of public/_redirects come before those of netlify.toml."""
    spec = read('[[redirects]]\nfrom = "/b"\nto = "/c"\n', {"public/_redirects": "/a /b\n"}).spec
    assert [route.match.path for route in spec.routes] == ["/a", "/b"]


def test_problems_are_located() -> None:
    """A wrong status, a missing target and a wrong shape are found in one go."""
    with pytest.raises(BlueprintInvalid) as caught:
        read('[[redirects]]\nfrom = "/a"\nto = "/b"\nstatus = "soon"\n[[redirects]]\nfrom = "/c"\n[context]\nproduction = 3\n')
    assert [(p.path, p.line) for p in caught.value.problems] == [("context.production", 8), ("redirects[0].status", 4), ("redirects[1]", 5)]


def test_names_of_files() -> None:
    """The three file names are known, with prefixes too."""
    recognises = NetlifyReader().recognises
    assert recognises("o__r__netlify.toml", "")
    assert recognises("o__r__public___redirects", "")
    assert recognises("_headers", "")
    assert not recognises("redirects", "")
