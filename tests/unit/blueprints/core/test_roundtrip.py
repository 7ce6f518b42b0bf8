"""What a writer writes, its reader reads back: equal but for the losses that were named. For every dialect that is written."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck as Check
from hypothesis import given, settings
from hypothesis import strategies as st

from homeport.blueprints.convert import UnknownDialect, convert, covered, differences, read_back, roundtrip_losses, without_assumed
from homeport.blueprints.registry import DIALECTS, reader, writer
from homeport.blueprints.render import RenderReader
from homeport.blueprints.source import MemoryTree, decode
from homeport.model.addon import Postgres, Redis
from homeport.model.env import EnvGroup, FromAddOn, FromService, GeneratedValue, PlainValue, SecretValue
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import show_path
from homeport.model.service import Build, CronService, Disk, HealthCheck, Hook, Scale, Service, StaticService, WebService, WorkerService
from homeport.model.spec import Spec

SOURCES = ("render", "railway", "compose", "fly", "appjson", "procfile", "vercel", "netlify", "wrangler", "cloudflared")
TARGETS = tuple(name for name, entry in DIALECTS.items() if entry.writer and writer(name) is not None)
READ_BACK = tuple(name for name in TARGETS if DIALECTS[name].reader)
PER_PAIR = 40
"""Files of each dialect that each target is tried with here; `make conformance` tries all."""


def specs_of(shared: Path, dialect: str, limit: int) -> list[tuple[str, Spec]]:
    """Specs of real files of a dialect, spread over the whole corpus."""
    paths = sorted((shared / "corpus" / dialect).iterdir())
    found: list[tuple[str, Spec]] = []
    for path in paths[:: max(1, len(paths) // limit)]:
        try:
            one = reader(dialect)
            assert one is not None
            found.append((path.name, one.read(MemoryTree({path.name: decode(path.read_bytes())}, "app"), path.name).spec))
        except BlueprintInvalid:
            continue
    return found[:limit]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_real_files_convert_with_every_loss_named(source: str, target: str, shared: Path) -> None:
    """Each real file is written in each dialect; what reads back differs only where a loss was named."""
    for name, spec in specs_of(shared, source, PER_PAIR):
        written = convert(spec, target)
        assert (written.files or not spec.services) and all(text.endswith("\n") for text in written.files.values()), name
        assert all(loss.path and loss.reason for loss in written.losses), name
        assert roundtrip_losses(without_assumed(spec), written) == [], name


@pytest.mark.parametrize("dialect", [name for name in READ_BACK if name in SOURCES])
def test_a_dialect_written_in_itself_settles(dialect: str, shared: Path) -> None:
    """Written and read once, a file says the same when it is written and read again."""
    made = writer(dialect)
    assert made is not None
    for name, spec in specs_of(shared, dialect, PER_PAIR):
        first = _back(spec, dialect)
        if first is None:
            continue
        second = _back(first, dialect)
        assert second is not None
        changed = [show_path(path) for path in differences(first.canonical(), second.canonical())]
        named = [loss.path for loss in made.write(first).losses]
        assert [path for path in changed if not covered(path, named)] == [], name


def _back(spec: Spec, dialect: str) -> Spec | None:
    try:
        return read_back(spec, convert(spec, dialect))
    except BlueprintInvalid:
        return None


def test_homeport_loses_nothing(shared: Path) -> None:
    """Every spec of every dialect is equal after a round through homeport.yaml."""
    for source in SOURCES:
        for name, spec in specs_of(shared, source, PER_PAIR):
            written = convert(spec, "homeport")
            assert written.losses == (), name
            assert read_back(spec, written) == without_assumed(spec), name


@pytest.mark.parametrize("source", SOURCES)
def test_render_output_is_valid_for_render(source: str, shared: Path) -> None:
    """What is written for Render is accepted by Render's own JSON Schema."""
    validator = jsonschema.Draft202012Validator(json.loads((shared / "schemas/render.yaml.json").read_text()))
    for name, spec in specs_of(shared, source, PER_PAIR):
        document = yaml.safe_load(convert(spec, "render").files["render.yaml"])
        assert [error.message for error in validator.iter_errors(document)] == [], name


def test_real_render_files_survive_almost_whole(shared: Path) -> None:
    """Of all leaves of the specs of real render.yaml files, fewer than one in two hundred is lost when written back."""
    lost = total = 0
    for _, spec in specs_of(shared, "render", 1000):
        lost += len(convert(spec, "render").losses)
        total += json.dumps(spec.canonical()).count('":')
    assert lost * 200 < total


_NAMES = st.sampled_from(["web", "api", "a-b", "x1"])
_TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f\x85\xa0\xad"), min_size=1, max_size=20)
_VALUES = st.one_of(
    _TEXTS.map(lambda text: PlainValue(value=text)),
    st.just(SecretValue()),
    st.just(GeneratedValue()),
    st.sampled_from(["url", "host", "port", "user", "password", "database"]).map(lambda p: FromAddOn(addon="db", property=p)),
    st.just(FromAddOn(addon="cache", property="url")),
    st.just(FromService(service="jobs", property=None, variable="TOKEN")),
)
_ENV = st.dictionaries(st.sampled_from(["A", "B_C", "D1", "TOKEN"]), _VALUES, max_size=3)
_COMMANDS = st.sampled_from(["node a.js", "gunicorn a:b --bind 0.0.0.0:$PORT", "echo 'x y' && run"])
_BUILDS = st.sampled_from(
    [Build(runtime="node"), Build(builder="command", command="make", runtime="python"), Build(builder="image", image="a/b:1")]
)
_WEBS = st.builds(
    WebService,
    command=_COMMANDS,
    build=_BUILDS,
    env=_ENV,
    env_groups=st.sampled_from([(), ("shared",)]),
    root=st.sampled_from(["", "backend"]),
    health=st.none() | st.just(HealthCheck(path="/up")),
    release_command=st.none() | st.just(Hook(command="migrate")),
    disks=st.sampled_from([(), (Disk(name="d", source="d", mount_path="/data", size=2 << 30),)]),
    scale=st.sampled_from([Scale(), Scale(instances=3), Scale(instances=2, min=2, max=4, target_cpu=60)]),
    default_domain=st.booleans(),
)
_WORKERS = st.builds(WorkerService, command=_COMMANDS, build=_BUILDS, env=_ENV)
_CRONS = st.builds(CronService, command=_COMMANDS, build=_BUILDS, schedule=st.sampled_from(["0 3 * * *", "*/5 * * * 1-5"]))
_SITES = st.builds(
    StaticService, publish=st.sampled_from(["dist", "out/x"]), build=st.just(Build(builder="command", command="make", runtime="static"))
)


@st.composite
def _specs(draw: st.DrawFn) -> Spec:
    services: dict[str, Service] = dict(draw(st.dictionaries(_NAMES, st.one_of(_WEBS, _WORKERS, _CRONS, _SITES), max_size=3)))
    services["jobs"] = WorkerService(command="run", build=Build(runtime="go"), env={"TOKEN": SecretValue()})
    return Spec(
        name="shop",
        services=services,
        addons={"db": Postgres(version="16", plan="pro-4gb", database="app"), "cache": Redis(eviction="allkeys-lru")},
        env_groups={"shared": EnvGroup(env={"S": PlainValue(value="1")})},
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[Check.too_slow])
@given(spec=_specs())
def test_render_says_all_that_render_can_say(spec: Spec) -> None:
    """Specs made only of what Render can express come back equal, with no loss at all."""
    written = convert(spec, "render")
    assert written.losses == ()
    again = RenderReader().read(MemoryTree(written.files, "shop"), "render.yaml").spec
    assert again == spec


@settings(max_examples=10, deadline=None, suppress_health_check=[Check.too_slow])
@given(spec=_specs())
def test_every_writer_takes_every_spec(spec: Spec) -> None:
    """No writer raises for a valid spec, and no loss stays silent."""
    for target in TARGETS:
        written = convert(spec, target)
        assert roundtrip_losses(without_assumed(spec), written) == []


def test_environments_survive_when_names_are_unique() -> None:
    """Environments with services of their own are written as Render's projects and come back equal."""
    text = """
ungrouped: {services: [{type: worker, name: shared, runtime: go}]}
projects:
  - name: My Shop
    environments:
      - {name: Production, networking: {isolation: enabled}, services: [{type: web, name: api, runtime: node}], databases: [{name: db}]}
      - {name: staging, services: [{type: web, name: api-staging, runtime: node}]}
"""
    spec = RenderReader().read(MemoryTree({"render.yaml": text}, "x"), "render.yaml").spec
    written = convert(spec, "render")
    assert written.losses == ()
    assert RenderReader().read(MemoryTree(written.files, "x"), "render.yaml").spec == spec


def test_a_dialect_nobody_writes_is_refused() -> None:
    """The error names the dialects there are."""
    for name in ("vercel", "nonsense"):
        with pytest.raises(UnknownDialect, match=name):
            convert(Spec(name="x"), name)


def test_words_of_a_command_are_as_good_as_its_line() -> None:
    """A dialect that writes lines loses nothing of words that stand in a line as they are; quotes and other words still differ."""
    assert differences({"command": ["python", "app.py", "a b"]}, {"command": "python app.py 'a b'"}) == []
    assert differences({"command": "gunicorn app:app"}, {"command": ["gunicorn", "app:app"]}) == []
    assert differences({"command": ["echo", "$HOME"]}, {"command": "echo $HOME"}) == [("command",)]
    assert differences({"command": ["a", "b"]}, {"command": "a c"}) == [("command",)]
