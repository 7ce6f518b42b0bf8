"""Everything a user meets has its page or row, and nothing is described that is not there."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from tools import reference

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)\)")
VERB = re.compile(r"(?:^\$ |`)homeport ([a-z][a-z-]*)", re.MULTILINE)


def text_of(name: str) -> str:
    return (DOCS / "reference" / name).read_text(encoding="utf-8")


def test_generated_pages_are_fresh() -> None:
    """`make docs` would change nothing."""
    stale = [str(path.relative_to(REPOSITORY)) for path, text in reference.pages().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, f"run `make docs`: {stale}"


def test_every_error_code_has_a_page_and_every_page_a_code() -> None:
    """Codes and pages belong to each other both ways."""
    pages = {path.stem for path in (DOCS / "reference/errors").glob("*.md")} - {"index"}
    codes = set(reference.error_codes())
    assert codes - pages == set(), "these codes have no page"
    assert pages - codes == set(), "these pages have no code"


def test_error_pages_have_one_shape() -> None:
    """Each says what it means, why it happens and what to do."""
    for page in (DOCS / "reference/errors").glob("*.md"):
        if page.stem != "index":
            text = page.read_text(encoding="utf-8")
            assert text.startswith(f"# {page.stem}\n"), page.name
            headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
            assert headings[:3] == ["What it means", "Why it happens", "What to do"], page.name


def test_tables_of_the_doors_name_real_codes() -> None:
    """No exit code or HTTP status is kept for an error that nobody raises."""
    from homeport.api.errors import STATUS
    from homeport.cli.errors import EXIT

    assert set(EXIT) | set(STATUS) <= set(reference.error_codes())


def test_every_setting_has_a_row_with_a_meaning() -> None:
    """Each HOMEPORT_ variable says what it does."""
    from homeport.settings import Settings

    for name in set(Settings.model_fields) - {"network"}:
        assert re.search(rf"^\| `HOMEPORT_{name.upper()}` \|[^|]*\| [^|\s]", text_of("settings.md"), re.MULTILINE), name


def test_every_verb_has_help_and_a_section() -> None:
    """Each command and each of its options says what it is for."""
    for name, command in reference.commands():
        assert f"## homeport {name}\n" in text_of("cli.md"), name
        assert command.help, f"homeport {name} has no help"
        for parameter in command.params:
            assert getattr(parameter, "help", None) or parameter.name == "help", f"homeport {name}: {parameter.name} has no help"


def test_every_read_has_json() -> None:
    """Verbs that answer with data can answer with JSON."""
    without = {"logs", "run", "serve", "blueprint schema", "blueprint sample"}
    for name, command in reference.commands():
        only_groups = getattr(command, "commands", None) and not getattr(command, "invoke_without_command", False)
        assert name in without or only_groups or any("--json" in parameter.opts for parameter in command.params), (
            f"homeport {name} has no --json"
        )


def test_every_route_is_described_and_guarded() -> None:
    """Each route has a sentence, a row in the reference, and a scope unless it is public on purpose."""
    from homeport.api.app import PUBLIC

    scopes = reference.policies()
    for path, methods in json.loads(text_of("openapi.json"))["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), f"{method} {path} says nothing"
            assert f"### {method.upper()} {path}\n" in text_of("api.md")
            assert bool(scopes[method.upper(), path]) != (path in PUBLIC), f"{method} {path}: public or guarded?"


def test_every_key_of_homeport_yaml_has_a_row() -> None:
    """Each key is in the reference, and says what it means unless it is Docker's own option or the kind."""
    from homeport.blueprints.homeport import models
    from homeport.model.base import describe_models

    describe_models()
    page = text_of("homeport-yaml.md")
    for model in models():
        section = page.partition(f"## {model.__name__}\n")[2].partition("\n## ")[0]
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}` |" in section, f"{model.__name__}.{name}"
            assert field.description or name == "kind" or model.__name__ == "ContainerOptions", f"{model.__name__}.{name} has no docstring"


def test_every_event_is_in_the_table() -> None:
    """Each kind that the code writes down is described, and each that is described is written somewhere."""
    from homeport.model.events import KINDS

    written: set[str] = set()
    named: set[str] = set()
    for path in (REPOSITORY / "src/homeport").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                receiver = ast.unparse(node.func.value)
                if node.func.attr == "event" or (node.func.attr == "add" and receiver.endswith("events")):
                    written |= strings(node.args[0])
            if path.name != "events.py":
                named |= {node.value} & set(KINDS) if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()
    assert written - set(KINDS) == set(), "these kinds are not in model/events.py"
    assert set(KINDS) - named == set(), "nobody writes these kinds"


def strings(node: ast.AST) -> set[str]:
    """Texts in a piece of code."""
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page leads to a file, and to a heading where it names one."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "", text)
    for link in LINK.findall(text):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.relative_to(REPOSITORY)} links to {link}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{page.relative_to(REPOSITORY)} links to {link}"


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as code hosts make them."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return set(re.findall(r'<a id="([^"]+)">', text)) | {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_pages_name_only_verbs_that_exist(page: Path) -> None:
    """A verb that a page mentions can be typed."""
    known = {name for name, _ in reference.commands()}
    for match in VERB.finditer(page.read_text(encoding="utf-8")):
        assert match[1] in known, f"{page.relative_to(REPOSITORY)}: homeport {match[1]}"


def test_every_page_is_reached_from_the_index() -> None:
    """From docs/index.md every page can be found by following links."""
    seen: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or not page.is_file() or page.suffix != ".md":
            continue
        seen.add(page)
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / link.partition("#")[0]).resolve()
            if DOCS in target.parents:
                waiting.append(target)
    lost = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if page not in seen]
    assert not lost, f"nothing leads to {lost}"


def test_decisions_are_numbered_and_dated() -> None:
    """Each decision has a number of its own, a status and a place in the index."""
    files = sorted(path for path in (DOCS / "adr").glob("*.md") if path.name != "index.md")
    index = (DOCS / "adr/index.md").read_text(encoding="utf-8")
    numbers = [path.name[:4] for path in files]
    assert all(re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", path.name) for path in files), [p.name for p in files]
    assert len(set(numbers)) == len(numbers), "two decisions have the same number"
    for path in files:
        assert re.search(r"^Status: (accepted|superseded by .*), \d{4}-\d\d-\d\d$", path.read_text(encoding="utf-8"), re.MULTILINE), (
            path.name
        )
        assert f"({path.name})" in index, f"{path.name} is not in the index"
