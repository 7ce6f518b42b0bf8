"""A test that was tried again says why: what only fails now and then would go unexplained otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CASES = """
import pathlib
import pytest

HERE = pathlib.Path(__file__).parent

def again(name):
    mark = HERE / name
    first = not mark.exists()
    mark.touch()
    return first

def test_that_fails_once():
    log = "\\\\n".join(f"line {number}" for number in range(40))
    assert not again("once"), f"the first reason\\\\n{log}"

@pytest.fixture
def shaky():
    if again("fixture"):
        raise OSError("the fixture was shaky")

def test_whose_fixture_fails_once(shaky):
    pass

def test_that_passes():
    pass
""".replace("\\\\n", "\\n")


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=("alone", "xdist"))
def test_the_summary_tells_why_a_test_was_tried_again(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """Its id, the first and the last lines of the error; nothing of tests that passed at once."""
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path / "conftest.py")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_cases.py").write_text(CASES)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--reruns", "1", *workers, "test_cases.py"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.partition("why tests were tried again")[2]
    assert "test_cases.py::test_that_fails_once (call)\n    E       AssertionError: the first reason\n" in told
    assert "line 39" in told and "line 20" not in told
    assert "test_cases.py::test_whose_fixture_fails_once (setup)\n" in told and "OSError: the fixture was shaky" in told
    assert "test_that_passes" not in told
    assert len(told.splitlines()) < 30
