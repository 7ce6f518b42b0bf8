"""No content of a file makes a reader of hosted platforms fail in any way but one."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeport.blueprints.cloudbuild import CloudBuildReader
from homeport.blueprints.cloudflared import CloudflaredReader
from homeport.blueprints.dialect import Reader
from homeport.blueprints.document import Document, parse_yaml
from homeport.blueprints.ghworkflow import GitHubWorkflowReader
from homeport.blueprints.netlify import NetlifyReader
from homeport.blueprints.opening import broken_pattern
from homeport.blueprints.overrides import for_environment
from homeport.blueprints.source import MemoryTree
from homeport.blueprints.vercel import VercelReader
from homeport.blueprints.wrangler import WranglerReader, known_keys
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import leaves
from homeport.model.spec import Spec

WORDS = {
    "vercel.json": "framework builds src use config routes dest handle status headers key value source destination permanent has missing "
    "type services root entrypoint bindings env service schedule topics mount crons path functions maxDuration memory git "
    "deploymentEnabled rewrites redirects continue methods cleanUrls experimentalServices routePrefix regions transforms op "
    "target args mitigate action locale bunVersion",
    "netlify.toml": "build base command publish functions environment processing html pretty_urls context production redirects from to "
    "status "
    "force query conditions Country headers for values plugins package inputs edge_functions function path dev targetPort "
    "template schedule signed",
    "wrangler.json": " ".join(sorted({key.rsplit(".", 1)[-1].removesuffix("[]") for key in known_keys()})) + " env previews",
    "config.yml": "tunnel ingress hostname path service originRequest connectTimeout noTLSVerify httpHostHeader access warp-routing url "
    "protocol",
    "cloudbuild.yaml": "steps name id waitFor wait_for args options env timeout images",
    "ci.yml": "on jobs needs runs-on steps run uses id if strategy matrix container image name with",
}
READERS: dict[str, Reader] = {
    "vercel.json": VercelReader(), "netlify.toml": NetlifyReader(), "wrangler.json": WranglerReader(), "config.yml": CloudflaredReader(),
    "cloudbuild.yaml": CloudBuildReader(), "ci.yml": GitHubWorkflowReader(),
}  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8),
    st.sampled_from(["/", "/*", "/(.*)", "*", "http://x", "http://[", "https://a.b/*", "@x", "(", "[[a]", "api/a.py", "a.js",
                     "http_status:404", "http_status:x", "*/5 * * * *", "30s", "-5s", "${{ x", "main:app", "Dockerfile",
                     "\ud800", "\0", "9" * 400, ":splat", "web"]),
)  # fmt: skip


def documents(name: str) -> st.SearchStrategy[Any]:
    """Nested data made of the dialect's own keys."""
    keys = st.one_of(st.sampled_from(WORDS[name].split()), st.text(max_size=4))
    inner = st.recursive(SCALARS, lambda child: st.lists(child, max_size=3) | st.dictionaries(keys, child, max_size=4), max_leaves=12)
    return st.dictionaries(keys, inner, max_size=5)


def read(name: str, data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read data as a file; the spec that comes out is complete, and each of its environments is a spec."""
    text = json.dumps(data)
    tree = MemoryTree({name: text, "api/a.py": "", "public/_redirects": "/a /b\n", "netlify/functions/f.js": ""}, "proj")
    as_yaml: Callable[[str, str], Document] = parse_yaml  # JSON is YAML, so generated data needs no TOML writer
    monkeypatch.setattr("homeport.blueprints.netlify.parse_toml", as_yaml)
    try:
        reading = READERS[name].read(tree, name)
    except BlueprintInvalid as error:
        assert error.problems
        return
    assert len(reading.keys) == (len(leaves(data)) if data else 1)
    canonical = reading.spec.canonical()
    assert Spec.model_validate(canonical).canonical() == canonical
    for environment in reading.spec.environments:
        for_environment(reading.spec, environment)


@pytest.mark.parametrize("name", list(READERS))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_arbitrary_data_is_read_or_refused(name: str, data: st.DataObject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever data stands in the file, it is read with every leaf accounted for, or BlueprintInvalid is raised."""
    read(name, data.draw(documents(name)), monkeypatch)


@pytest.mark.parametrize("name", ["_redirects", "_headers"])
@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet=st.sampled_from(list("/ab:*! #=.\n\t 302hX-")), max_size=80))
def test_any_side_file_is_read(name: str, text: str) -> None:
    """Lines of _redirects and _headers never fail: a bad one is skipped."""
    reading = NetlifyReader().read(MemoryTree({name: text}, "proj"), name)
    Spec.model_validate(reading.spec.canonical())


HUGE = {
    "vercel.json": '{"redirects": [' + ",".join(['{"source": "/a", "destination": "/b"}'] * 12_000) + "]}",
    "netlify.toml": '[[redirects]]\nfrom = "/a"\nto = "/b"\n' * 12_000,
    "wrangler.json": '{"kv_namespaces": [' + ",".join(['{"binding": "A"}'] * 25_000) + "]}",
    "config.yml": "ingress:\n" + "- {hostname: a.com, service: http://x}\n" * 18_000,
    "cloudbuild.yaml": "steps:\n" + "- {name: a}\n" * 29_000,
    "ci.yml": "on: push\njobs:\n" + "".join(f" j{n}: {{runs-on: x, needs: j{n - 1}}}\n" for n in range(1, 14_000)),
}


@pytest.mark.parametrize("name", list(HUGE))
def test_huge_files_end_soon(name: str) -> None:
    """A file at the limits is read or refused in seconds: nothing grows with the square of its size."""
    started = perf_counter()
    try:
        READERS[name].read(MemoryTree({name: HUGE[name]}), name)
    except BlueprintInvalid:
        pass
    assert perf_counter() - started < 15


def test_patterns_of_other_languages_are_not_refused() -> None:
    """What only Python's compiler dislikes is no fault; what is open everywhere is."""
    assert not any(broken_pattern(p) for p in (r"\p{L}+", r"(?<name>a)", r"[[:alpha:]]", r"a\z", "x" * 9999, "[[a]"))
    assert all(broken_pattern(p) for p in ("(", "a)", "[a", "*a"))
