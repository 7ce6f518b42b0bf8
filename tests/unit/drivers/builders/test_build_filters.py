"""Which files belong to a service, and which rebuild it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.drivers.builders.filters import belonging, is_workspace, matching
from homeport.drivers.sources.snapshot import Entry
from homeport.model.service import BuildFilter

FILES = {path: Entry("f", path, 1) for path in ("a.py", "src/b.py", "src/deep/c.py", "docs/d.md", "src/x[1].py", "README.md")}


@pytest.mark.parametrize(
    ("paths", "ignored", "expected"),
    [
        ((), (), set(FILES)),
        (("src/**",), (), {"src/b.py", "src/deep/c.py", "src/x[1].py"}),
        (("src",), (), {"src/b.py", "src/deep/c.py", "src/x[1].py"}),
        (("src/*.py",), (), {"src/b.py", "src/x[1].py"}),
        (("**/*.py",), (), {"a.py", "src/b.py", "src/deep/c.py", "src/x[1].py"}),
        (("./src/", "/a.py"), (), {"src/b.py", "src/deep/c.py", "src/x[1].py", "a.py"}),
        ((), ("docs/**", "*.md"), {"a.py", "src/b.py", "src/deep/c.py", "src/x[1].py"}),
        (("src/**",), ("src/deep",), {"src/b.py", "src/x[1].py"}),
        (("?.py", "[r-t]rc/b.py"), (), {"a.py", "src/b.py"}),
        (("src/x[[]1].py",), (), {"src/x[1].py"}),
        (("[", "(", "**["), (), set()),
    ],
)
def test_globs_choose_files(paths: tuple[str, ...], ignored: tuple[str, ...], expected: set[str]) -> None:
    """Globs are read as git and Render read them; broken ones match nothing and break nothing."""
    assert set(matching(FILES, BuildFilter(paths=paths, ignored_paths=ignored))) == expected


@given(st.text(max_size=40))
def test_any_glob_is_harmless(glob: str) -> None:
    """No text given as a glob raises."""
    matching(FILES, BuildFilter(paths=(glob,)))


def test_a_service_sees_its_root_folder_only() -> None:
    """Unless it reaches beyond, a service in a folder is built from that folder."""
    assert set(belonging(FILES, "src", whole=False)) == {"src/b.py", "src/deep/c.py", "src/x[1].py"}
    assert belonging(FILES, "src", whole=True) == FILES
    assert belonging(FILES, "", whole=False) == FILES


def test_workspaces_are_known() -> None:
    """A repository of packages that depend on each other is built whole."""
    assert is_workspace({"pnpm-workspace.yaml": Entry("f", "", 0)}, {})
    assert is_workspace({}, {"workspaces": ["a"]})
    assert not is_workspace({}, {})
