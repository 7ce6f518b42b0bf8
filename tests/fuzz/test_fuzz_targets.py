"""The fuzz targets run: a short round of atheris where it is installed, and mutated real text everywhere."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("fuzz_blueprints", HERE / "fuzz_blueprints.py")
assert _spec is not None and _spec.loader is not None
fuzz_blueprints = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz_blueprints)
VALUES = (b"[]", b"{}", b"null", b"-1", b"true", b"'\\n'", b"99999999999", b"[1, {a: b}]", b'"$()"', b"\xff", b"../..", b"*a", b"1.5")
SPECIMENS = HERE.parents[1] / "docs" / "reference" / "specimens"


def _seeds(name: str) -> list[bytes]:
    folder = SPECIMENS / name
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()] if folder.is_dir() else []


def mutated(seed: bytes, random_: random.Random) -> bytes:
    """A text with a few pieces removed, doubled, swapped or replaced: still close enough to get past the parser."""
    lines = seed.split(b"\n")
    for _ in range(random_.randint(1, 4)):
        at = random_.randrange(len(lines))
        kind = random_.randrange(6)
        if kind == 0:
            del lines[at]
            lines = lines or [b""]
        elif kind == 1:
            lines.insert(at, lines[random_.randrange(len(lines))])
        elif kind == 2:
            other = random_.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            line = lines[at]
            head, separator, _ = line.partition(random_.choice([b":", b"=", b"-"]))
            value = random_.choice(VALUES)
            lines[at] = head + separator + b" " + value if separator else line + value
    return b"\n".join(lines)


@pytest.mark.parametrize("name", [name for name in fuzz_blueprints.TARGETS if _seeds(name)])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_mutated_specimens_never_crash_a_reader(name: str, seed: int) -> None:
    """A specimen with lines moved, doubled or given other values is read or refused, never a traceback."""
    generator = random.Random(seed)
    fuzz_blueprints.target(name)(mutated(generator.choice(_seeds(name)), generator))


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz_blueprints.TARGETS)
def test_a_round_of_atheris_finds_nothing(name: str) -> None:
    """Some thousand coverage-guided inputs per target end in a reading or a BlueprintInvalid."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed for this Python")
    command = [sys.executable, str(HERE / "fuzz_blueprints.py"), name, "-runs=3000", "-max_len=2000", "-rss_limit_mb=1024"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
