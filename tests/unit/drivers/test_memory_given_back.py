"""Memory that was needed for a moment goes back to the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from homeport.drivers import memory
from homeport.drivers.memory import Thrift, resident

SCRIPT = """
import threading
from homeport.drivers.memory import Thrift, resident
thrift = Thrift()
held = [bytearray(70_000) for _ in range(1000)]  # below the size that the library gives back by itself
kept = held[-1]
full = resident()
del held[:-1]
print(full - thrift.look())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_what_was_freed_goes_back_to_the_machine() -> None:
    """70 MB in pieces that the C library would keep are given back at the next look, although the last of them is still used."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) > 50 << 20


def test_a_process_that_did_not_grow_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look collects nothing: it reads one line and is done."""
    thrift = Thrift()
    thrift.look()
    monkeypatch.setattr(memory, "resident", lambda: 1 << 20)
    monkeypatch.setattr("homeport.drivers.memory.gc.collect", lambda: pytest.fail("nothing grew"))
    assert thrift.look() == 1 << 20


def test_the_bytes_are_those_the_kernel_tells() -> None:
    """`resident` is of the size of a Python process, in bytes."""
    assert 5 << 20 < resident() < 4 << 30
