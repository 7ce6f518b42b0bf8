"""Parsers against hostile text: a typed error, soon, and in little memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeport.blueprints.document import Document, parse_json, parse_toml, parse_yaml
from homeport.blueprints.procfile import parse_procfile
from homeport.blueprints.source import MAX_FILE, decode
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import leaves

FULL = MAX_FILE - 10
PARSERS: dict[str, Callable[[str, str], Document]] = {
    "yaml": parse_yaml,
    "json": parse_json,
    "toml": parse_toml,
    "procfile": parse_procfile,
}


def _laughs(link: str) -> str:
    lines = ["a: &a " + ("[x,x,x,x,x,x,x,x,x]" if link == "[%s]" else "{x: 1}")]
    for index in range(12):
        last, here = chr(97 + index), chr(98 + index)
        lines.append(f"{here}: &{here} " + link % ",".join([f"*{last}"] * 9))
    return "\n".join(lines)


HOSTILE: dict[str, tuple[str, str]] = {
    "a billion laughs": ("yaml", _laughs("[%s]")),
    "a billion merges": ("yaml", _laughs("{<<: [%s]}")),
    "a million open lists": ("yaml", "[" * FULL),
    "open mappings": ("yaml", "{a: " * (FULL // 4)),
    "dashes on one line": ("yaml", "- " * (FULL // 2)),
    "question marks": ("yaml", "? " * (FULL // 2)),
    "too many keys": ("yaml", "".join(f"k{i}: 1\n" for i in range(90_000))),
    "too many items": ("yaml", "[" + "a," * (FULL // 2 - 5) + "]"),
    "too many anchors": ("yaml", "".join(f"- &a{i} x\n" for i in range(60_000))),
    "an alias inside itself": ("yaml", "a: &a\n  b: *a\n"),
    "deep indentation": ("yaml", "\n".join(" " * i + "a:" for i in range(1400))),
    "a million keys": ("yaml", "".join(f"k{i}: 1\n" for i in range(1_000_000))),
    "an endless tag": ("yaml", "!" * FULL),
    "python tags": ("yaml", 'a: !!python/object/apply:os.system ["id"]'),
    "python names": ("yaml", "a: !!python/name:os.system"),
    "a key twice": ("yaml", "a: 1\nb: 2\na: 3\n"),
    "a key that is a list": ("yaml", "? [a, b]\n: 1\n"),
    "two documents": ("yaml", "a: 1\n---\nb: 2\n"),
    "a NUL": ("yaml", "a: b\n\0: c"),
    "half a character": ("yaml", "a: \ud800"),
    "a bell": ("yaml", "a: \x07"),
    "an unknown alias": ("yaml", "a: *nowhere"),
    "open JSON lists": ("json", "[" * FULL),
    "open JSON objects": ("json", '{"a":' * (FULL // 5)),
    "too many JSON keys": ("json", "{" + ",".join(f'"k{i}":1' for i in range(90_000)) + "}"),
    "a JSON key twice": ("json", '{"a": 1, "a": 2}'),
    "an endless comment": ("json", "{/*" + "*" * 1_000_000),
    "a huge number": ("json", "[" + "9" * 100_000 + "]"),
    "a number that begins with zeros": ("json", '{"port": 008080}'),
    "digits of another script": ("json", '{"port": \u0663}'),
    "an infinite number": ("json", "[1e999]"),
    "a lone surrogate": ("json", '{"a": "\ud800"}'),
    "open TOML lists": ("toml", "a=" + "[" * FULL),
    "deep TOML lists": ("toml", "a=" + "[" * 500 + "]" * 500),
    "deep inline tables": ("toml", "a=" + "{a=" * 2000),
    "too many TOML keys": ("toml", "".join(f"k{i}=1\n" for i in range(90_000))),
    "a dotted key without end": ("toml", "a." * (FULL // 2) + "a=1"),
    "a table name without end": ("toml", "[" + "a." * (FULL // 2) + "a]"),
    "a huge TOML number": ("toml", "a=" + "9" * 100_000),
    "a TOML key twice": ("toml", "a=1\na=2\n"),
    "a line that is no process": ("procfile", "web: a\nnot a process\n"),
    "a conflict": ("procfile", "<<<<<<< HEAD\nweb: a\n"),
    "a template": ("procfile", "{% if x %}\nweb: a\n{% endif %}"),
    "a million lines": ("procfile", "x\n" * 500_000),
    "too many processes": ("procfile", "".join(f"p{i}: x\n" for i in range(90_000))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_a_located_problem_within_100_ms(name: str) -> None:
    """Each hostile text ends in BlueprintInvalid within 100 ms of processor time."""
    kind, text = HOSTILE[name]
    spent = []
    for _ in range(4):
        begun = time.process_time()
        with pytest.raises(BlueprintInvalid) as caught:
            PARSERS[kind]("file", text)
        spent.append(time.process_time() - begun)
        if spent[-1] < 0.1:
            break
    assert min(spent) < 0.1
    assert caught.value.problems[0].message
    assert len(caught.value.why) < 500
    assert caught.value.render()


def test_hostile_text_takes_at_most_64_mb() -> None:
    """All hostile texts, one after another, raise the memory of a process by less than 64 MB."""
    program = f"""
import resource, sys
sys.path[:0] = {sys.path!r}
import importlib.util
spec = importlib.util.spec_from_file_location("hostile", {__file__!r})
module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
for parse, text in ((module.parse_yaml, "a: 1"), (module.parse_json, "{{}}"), (module.parse_toml, "a = 1")):
    parse("file", text)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for kind, text in module.HOSTILE.values():
    try:
        module.PARSERS[kind]("file", text)
    except module.BlueprintInvalid:
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 64


@pytest.mark.parametrize("kind", PARSERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.one_of(st.text(), st.binary().map(decode), st.text(alphabet="{}[]\":,-#&*!|>'\n\t =.a1<\\", max_size=200)))
def test_any_text_parses_or_is_refused(kind: str, data: str) -> None:
    """No text whatever makes a parser raise anything but BlueprintInvalid, and its error can always be shown."""
    try:
        document = PARSERS[kind]("file", data)
    except BlueprintInvalid as error:
        error.render()
    else:
        leaves(document.data)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(data=st.dictionaries(st.text(max_size=10), _VALUES, max_size=5))
def test_json_is_read_as_the_standard_library_reads_it(data: dict[str, object]) -> None:
    """What `json` writes is read back equal, indented or not, and every leaf has a place."""
    import json

    for text in (json.dumps(data), json.dumps(data, indent=2, ensure_ascii=False)):
        if any(0xD800 <= ord(char) < 0xE000 for char in text):
            continue
        document = parse_json("file", text)
        assert document.data == data
        assert all(document.place(leaf) != (0, 0) for leaf in leaves(document.data) if leaf)


def test_places_count_lines_and_columns_from_one() -> None:
    """Keys and items of all three formats know their line and column; comments and CRLF do not shift them."""
    assert parse_yaml("f", "a:\r\n  b: 1\r\n  c: [x, y]\r\n").places[("a", "c", 1)] == (3, 10)
    assert parse_json("f", '// note\n{"a": /* x */ {\n  "b": [1, 2]}}').places[("a", "b", 1)] == (3, 12)
    assert parse_toml("f", "# note\r\n[a.b]\r\n  c = 1\r\n[[d]]\r\ne = 2\r\n").places[("a", "b", "c")] == (3, 3)
    assert parse_toml("f", "[[d]]\ne = 1\n[[d]]\ne = 2\n").places[("d", 1, "e")] == (4, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:22", "22:22"),
        ("on", True),
        ("off", False),
        ("~", None),
        ("017", 15),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1.5", 1.5),
        (".inf", ".inf"),
        ("2026-11-20", "2026-11-20"),
        ("9" * 30, "9" * 30),
        ("=", "="),
        ("'1'", "1"),
        ("!custom x", "x"),
        ("0o17", "0o17"),
    ],
)
def test_yaml_scalars_are_what_people_mean(text: str, value: object) -> None:
    """Scalars follow YAML 1.1, but for base-60 numbers, dates, infinities and numbers beyond 64 bits, which stay text."""
    assert parse_yaml("f", f"a: {text}").data == {"a": value}


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    """A mark at the start of a file is passed over by every parser and by the decoder."""
    assert parse_yaml("f", "\ufeffa: 1").data == {"a": 1}
    assert parse_json("f", '\ufeff{"a": 1}').data == {"a": 1}
    assert parse_toml("f", "\ufeffa = 1").data == {"a": 1}
    assert parse_procfile("f", "\ufeffweb: a").data == {"web": "a"}
    assert decode("a: ü".encode("utf-16")) == "a: ü"
    assert decode("a: ü".encode("latin-1")) == "a: ü"


def test_merge_keys_fill_and_never_replace() -> None:
    """`<<` brings in the keys that the mapping itself does not have; earlier sources win over later ones."""
    data = parse_yaml("f", "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: {<<: [*x, *y], c: 5}\n").data
    assert data["z"] == {"a": 1, "b": 2, "c": 5}


def test_an_error_shows_the_line_and_a_caret_below_the_column() -> None:
    """The report quotes the source line, cut around the column when it is long, with tabs as single blanks."""
    with pytest.raises(BlueprintInvalid) as caught:
        parse_yaml("render.yaml", "a: 1\nb: [1, 2\nc: }\n")
    first, source, caret = caught.value.render().splitlines()
    assert first.startswith("render.yaml:3:")
    assert source[caret.index("^")] in "c:}"
    with pytest.raises(BlueprintInvalid) as caught:
        parse_json("x.json", '{"a":\t"' + "x" * 400 + '", "a": 1}')
    _, source, caret = caught.value.render().splitlines()
    assert source[caret.index("^") :].startswith('"a"')
