"""What an instance tries against another environment and against Homeport; docs/explanation/isolation.md tells the outcome.

Each attempt runs as an instance of its own environment, as root's runtime starts it. The table of the page is compared with the outcomes.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from homeport.drivers.runtimes.base import Mount, Placement
from homeport.drivers.runtimes.process import ProcessRuntime
from homeport.model.release import Artifact
from homeport.model.service import Disk

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "isolation.md"

ATTACK = r"""
import ctypes, glob, json, os, signal, socket, sys
home, victim, port = os.environ["TARGET_HOME"], int(os.environ["TARGET_PID"]), int(os.environ["TARGET_PORT"])
libc = ctypes.CDLL(None, use_errno=True)

def read(path):
    with open(path, "rb") as file:
        return bool(file.read(1))

def connect():
    with socket.create_connection(("127.0.0.1", port), 2):
        return True

def trace():
    return libc.ptrace(16, victim, 0, 0) == 0

def become_root():
    os.setuid(0)
    return True

def mount():
    return libc.mount(b"none", b"/mnt", b"tmpfs", 0, None) == 0

def kill():
    os.kill(victim, signal.SIGKILL)
    return True

def write(path):
    with open(path, "ab"):
        return True

def leaked():
    return any("HOMEPORT" in name for name in os.environ)

def open_descriptors():
    return [name for name in os.listdir("/proc/self/fd") if int(name) > 2 and os.path.exists("/proc/self/fd/" + name)] != []

def link_out():
    os.symlink(home + "/vault.key", "out")
    return read("out")

def limits():
    return [f"{folder}/{name}" for folder, _, names in os.walk("/sys/fs/cgroup") if "homeport" in folder
            for name in names if name in ("memory.limit_in_bytes", "memory.max", "pids.max")]

def hard_link():
    os.link("/etc/shadow", "shadow")
    return read("shadow")

attempts = {
    "read the vault key": lambda: read(home + "/vault.key"),
    "read the store": lambda: read(home + "/homeport.db"),
    "list the home": lambda: "vault.key" in os.listdir(home),
    "list other instances": lambda: len(os.listdir(home + "/instances")) > 1,
    "read another environment's work folder": lambda: bool(os.listdir(home + "/instances/victim/work")),
    "read another environment's disk": lambda: bool(os.listdir(home + "/volumes/shop-staging-data")),
    "read another environment's log": lambda: read(home + "/instances/victim/log/stdout.log"),
    "read another environment's variables": lambda: read(f"/proc/{victim}/environ"),
    "see another environment's command line": lambda: read(f"/proc/{victim}/cmdline"),
    "look through another environment's root": lambda: bool(os.listdir(f"/proc/{victim}/root/")),
    "read another environment's temporary files": lambda: bool(glob.glob("/tmp/victim*")),
    "read another environment's shared memory": lambda: bool(glob.glob("/dev/shm/victim*")),
    "signal another environment's process": kill,
    "trace another environment's process": trace,
    "become root": become_root,
    "mount a file system": mount,
    "write to its own artifact": lambda: write(home + "/artifacts/a/app.py"),
    "write to the machine's configuration": lambda: write("/etc/passwd"),
    "reach a secret through a link": link_out,
    "read the machine's passwords by a hard link": hard_link,
    "find variables of Homeport": leaked,
    "find descriptors of Homeport": open_descriptors,
    "change its own memory limit": lambda: any(write(path) for path in limits()),
    "connect to another environment's port": connect,
}
outcome = {}
for name, attempt in attempts.items():
    try:
        outcome[name] = bool(attempt())
    except (OSError, ValueError):
        outcome[name] = False
print(json.dumps(outcome), flush=True)
"""

VICTIM = """
import os, socket, sys, time
open("/tmp/victim", "w").write("x")
open("/dev/shm/victim", "w").write("x")
open("secret", "w").write("x")
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def outcome(tmp_path: Path) -> Iterator[dict[str, bool]]:
    home = tmp_path / "home"
    for name in ("a", "b"):
        (home / "artifacts" / name).mkdir(parents=True)
    for name in ("vault.key", "homeport.db"):
        (home / name).write_text("x")
    (home / "artifacts/a/app.py").write_text(ATTACK)
    (home / "artifacts/b/app.py").write_text(VICTIM)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    runtime = ProcessRuntime(home)
    try:
        victim = runtime.start(_placement(home, "victim", "b", "staging", 20_002, {"PORT": str(port), "API_KEY": "canary"}))
        next(line for line in runtime.logs("victim", follow=True) if line.text == "ready")
        env = {"TARGET_HOME": str(home), "TARGET_PID": str(victim.pid), "TARGET_PORT": str(port)}
        runtime.start(_placement(home, "attacker", "a", "production", 20_001, env))
        (line,) = [line.text for line in runtime.logs("attacker", follow=True)]
        yield json.loads(line)
    finally:
        for id in ("attacker", "victim"):
            runtime.stop(id, grace=timedelta(0))
            runtime.forget(id)
        runtime.close()


def _placement(home: Path, id: str, artifact: str, environment: str, user: int, env: dict[str, str]) -> Placement:
    return Placement(
        id=id,
        project="shop",
        environment=environment,
        service="web",
        release="r1",
        artifact=Artifact(id=artifact, folder=str(home / "artifacts" / artifact), path=(str(Path(sys.prefix) / "bin"),)),
        command=("python3", "-I", "-S", "app.py"),
        env=env,
        user=user,
        mounts=(Mount(disk=Disk(mount_path="/data"), folder=home / "volumes" / f"shop-{environment}-data"),),
    )


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="separate accounts need root")
def test_the_page_on_isolation_tells_what_an_instance_can_reach(outcome: dict[str, bool]) -> None:
    """Every attempt that the page calls stopped is stopped as root, and every one that succeeds is printed there as open."""
    rows = re.findall(r"^\| ([a-z][^|]*?) \| (stopped|\*\*open\*\*) \|", PAGE.read_text(), re.MULTILINE)
    told = {name: state != "stopped" for name, state in rows}
    assert told == outcome
