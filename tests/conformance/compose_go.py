"""Runs the third-party suites of compose-go and docker compose against the Compose reader.

Each runner returns what passed of how many, with every failure named; a case that cannot be run counts as a failure.
The suites are the tables and fixtures of compose-go's own tests; what its tests set up in Go (other files, variables, which
checks are on) is stated here beside the test's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from homeport.blueprints.compose import ComposeReader
from homeport.blueprints.compose.dotenv import parse_dotenv
from homeport.blueprints.compose.interpolation import interpolate
from homeport.blueprints.compose.load import load
from homeport.blueprints.compose.merge import canonical, merge
from homeport.blueprints.compose.project import Rules
from homeport.blueprints.compose.tree import parse_compose
from homeport.blueprints.source import FolderTree, MemoryTree
from homeport.model.errors import BlueprintInvalid


@dataclass
class Score:
    """One suite's result."""

    suite: str
    total: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> int:
        return self.total - len(self.failures)

    @property
    def percent(self) -> float:
        return 100.0 * self.passed / self.total if self.total else 0.0

    def case(self, name: str, ok: bool, detail: str = "") -> None:
        self.total += 1
        if not ok:
            self.failures.append(f"{name}: {detail}"[:300])


def _json(shared: Path, name: str) -> Any:
    return json.loads((shared / "suites/compose-go" / name).read_text())


def templates(shared: Path) -> Score:
    """template_cases.json: interpolate(template, mapping) gives the text or the error."""
    table, score = _json(shared, "template_cases.json"), Score("compose-go template")
    for case in table["cases"]:
        try:
            got = interpolate(case["template"], table["mapping"])
            score.case(case["template"], got == case.get("expected"), repr(got))
        except ValueError as error:
            score.case(case["template"], "error" in case and case["error"] in str(error), str(error))
    return score


_GO_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
"""The table holds four Go string literals undecoded: those with `\\a`, which JSON cannot say."""


def _go_literal(text: str) -> str:
    result, at = "", 0
    while at < len(text):
        if text[at] == "\\" and text[at + 1 : at + 2] in _GO_ESCAPES:
            result, at = result + _GO_ESCAPES[text[at + 1]], at + 2
        else:
            result, at = result + text[at], at + 1
    return result


_SET_BEFORE = {
    "TestSubstitutionsWithEnvFilePrecedence": {"OPTION_A": "5"},
    "TestSubstitutionsWithEnvFileDefaultValuePrecedence": {"OPTION_A": "5"},
}


def dotenv(shared: Path) -> Score:
    """dotenv_cases.json: lines, and files with the variables their test set before."""
    table, score = _json(shared, "dotenv_cases.json"), Score("compose-go dotenv")
    for case in table["lines"]:
        want = _go_literal(case["value"]) if "\\a" in case["value"] else case["value"]
        try:
            got = parse_dotenv(case["line"])
        except ValueError as error:
            got = {"error": str(error)}
        score.case(case["line"], got == {case["key"]: want}, repr(got))
    for case in table["files"]:
        text = (shared / "suites/compose-go/dotenv" / case["file"]).read_text(encoding="utf-8")
        environment = {"OPTION_A": "do_not_override", "OPTION_B": ""} if case["test"] == "TestLoadDoesNotOverride" else {}
        got = {**parse_dotenv(text, _SET_BEFORE.get(case["test"])), **environment}
        exact = not case["test"].startswith(("TestLoad", "TestUTF8BOM"))
        ok = got == case["expected"] if exact else case["expected"].items() <= got.items()
        score.case(f"{case['test']} {case['file']}", ok, repr(got))
    return score


def merges(shared: Path) -> Score:
    """merge_cases.json: base and override give what is wanted, both sides in long form."""
    score = Score("compose-go merge")
    for case in _json(shared, "merge_cases.json"):
        base, override, want = (parse_compose("compose.yaml", case[key])[0] for key in ("right_base", "left_override", "want"))
        got = merge(canonical(base.data), canonical(override.data), override.tags)
        score.case(case["test"], got == canonical(want.data), repr(got))
    return score


_FILES_OF: dict[str, dict[int, str]] = {
    "TestLoadExtendsSameFile": {0: "sub/compose.yaml"},
    "TestLoadExtendsListenerMultipleFiles": {0: "sub/compose.yaml"},
    "TestLoadWithIncludeEnv": {1: "module/compose.yml"},
    "TestNestedIncludeAndExtends": {1: "dir/extended.yaml"},
    "TestLoadExtendsMultipleFiles": {0: "a/compose.yaml", 1: "b/compose.yaml"},
    "TestOverrideMiddle": {0: "base.yaml", 1: "override.yaml"},
}
"""Under which names a test wrote its documents, by their number in the test."""

_VALUES = {"theint": "555", "thefloat": "3.14", "thebool": "true", "thesize": "2gb", "theduration": "60s", "FOO_SCALE": "2", "HOME": "/h"}
_NAMELESS = {"TestLoadEmptyContent_MissingProject", "TestLoadProjectName"}
_WITHOUT_REFERENCES = {"TestLoadWithDependsOn"}
_VALID_IN_A_TABLE = {"TestResetCycle": 5}
"""Tables of good and bad documents in one test: so many of the first are good (`expectError: false`)."""
_NOT_THERE = {"TestLoadWithMissingResources"}
"""Asserts `os.IsNotExist(err)`, which the table does not count as an error."""


def documents(shared: Path) -> Score:
    """loader_inline_yaml.json: each document is loaded or refused as its test says."""
    score = Score("compose-go loader")
    base = shared / "suites/compose-go/loader"
    files = {str(file.relative_to(base)): file.read_text() for file in base.rglob("*") if file.is_file()}
    files |= {
        f"remote:{name.removeprefix('testdata/remote/')}": text for name, text in files.items() if name.startswith("testdata/remote/")
    }
    files["env"] = "FOO=BAR"  # the env file beside the remote fixture, which the data leaves out
    cases = _json(shared, "loader_inline_yaml.json")
    by_test: dict[str, list[Any]] = {}
    for case in cases:
        by_test.setdefault(case["test"], []).append(case)
    for test, group in by_test.items():
        names = _FILES_OF.get(test, {})
        beside = files | {names[number]: case["yaml"] for number, case in enumerate(group) if number in names}
        for number, case in enumerate(group):
            expected = (case["asserts_error"] and number >= _VALID_IN_A_TABLE.get(test, 0)) or test in _NOT_THERE
            path = names.get(number, "compose.yaml")
            tree = MemoryTree({**beside, path: case["yaml"].replace("%s", "1")})
            rules = Rules(strict=True, complete=False, references=case["file"] != "normalize_test.go" and test not in _WITHOUT_REFERENCES)
            try:
                load(tree, path, name="" if test in _NAMELESS else "test", values=_VALUES, rules=rules)
                score.case(f"{test}[{number}]", not expected, "loaded, but an error is asserted")
            except BlueprintInvalid as error:
                score.case(f"{test}[{number}]", expected, str(error.render()))
    return score


def end_to_end(shared: Path) -> Score:
    """docker-compose-e2e: every Compose fixture is read, or refused as docker compose refuses it."""
    score = Score("docker-compose-e2e")
    base = shared / "suites/docker-compose-e2e/pkg/e2e/fixtures"
    for file in sorted(base.rglob("*")):
        if not file.is_file():
            continue
        name = str(file.relative_to(base))
        if file.suffix in (".yaml", ".yml") and "/expected-" not in name:
            score.case(name, *_read_whole(file))
        elif file.suffix == ".env" or file.name == ".env":
            score.case(name, bool(parse_dotenv(file.read_text())), "no variables")
        else:
            score.case(name, True)
    return score


def _read_whole(file: Path) -> tuple[bool, str]:
    try:
        reading = ComposeReader().read(FolderTree(file.parent), file.name)
    except BlueprintInvalid as error:
        located = all(problem.line for problem in error.problems)
        partial = any(word in error.render() for word in ("neither an image", "there is no such file"))
        return located and partial, error.render()
    wrong = "wrongField" in file.read_text()
    unknown = any(note.fate == "unknown" for note in reading.keys)
    return unknown == wrong, ", ".join(note.path for note in reading.keys if note.fate == "unknown")


SUITES: tuple[Callable[[Path], Score], ...] = (templates, dotenv, merges, documents, end_to_end)
"""All runners; each takes the folder of third-party data."""
