"""The fence of an add-on's server: who holds it, and who is never ended for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from homeport.drivers.addons.servers import Keeper, Server

LOOK = """
import os, sys
from pathlib import Path
from homeport.drivers.addons.servers import KEPT_FENCE, Keeper, Server
opened = os.open(sys.argv[1] + "/lock", os.O_RDONLY)
os.dup2(opened, KEPT_FENCE)
print(Server("db", Path(sys.argv[1]), Keeper()).holders(), flush=True)
sys.stdin.read()
"""


def test_this_process_is_never_a_holder(tmp_path: Path) -> None:
    """Whatever number its own look at the lock file got, the program that ends holders is none of them; to another one it is."""
    (tmp_path / "lock").touch()
    argv = [sys.executable, "-c", LOOK, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "[]\n"
        assert Server("db", tmp_path, Keeper()).holders() == [other.pid]
        other.communicate("")
