"""What fly.toml says, as Homeport understands it; tolerant where flyctl is."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from pathlib import Path

import pytest

from homeport.blueprints.fly import FlyReader
from homeport.blueprints.source import MemoryTree, decode
from homeport.model.errors import BlueprintInvalid
from homeport.model.reading import Fate, Reading, leaves, show_path
from homeport.model.route import SetHeaders
from homeport.model.service import CronService, PrivateService, WebService, WorkerService

MIB = 1 << 20


def read(text: str, file: str = "fly.toml", **others: str) -> Reading:
    return FlyReader().read(MemoryTree({file: text, **others}, name="shop"), file)


FULL = """
app = "My Shop"
primary_region = "ams"
kill_signal = "SIGINT"
kill_timeout = 5
swap_size_mb = 512
[build]
dockerfile = "Dockerfile.fly"
build-target = "prod"
[build.args]
NODE = "20"
[env]
PORT = 8080
DEBUG = true
[deploy]
release_command = "bin/migrate"
strategy = "bluegreen"
wait_timeout = "2m"
[processes]
app = "bin/server"
worker = "bin/jobs --all"
[http_service]
internal_port = 8080
force_https = true
auto_stop_machines = "stop"
min_machines_running = 0
processes = ["app"]
[http_service.concurrency]
type = "requests"
soft_limit = 200
hard_limit = 250
[[http_service.checks]]
interval = "15s"
timeout = "2s"
grace_period = "10s"
method = "get"
path = "/up"
[http_service.checks.headers]
X-Check = "1"
[http_service.http_options.response.headers]
X-Frame-Options = "DENY"
Server = false
[[mounts]]
source = "data"
destination = "/data"
initial_size = "3gb"
processes = ["worker"]
[[vm]]
size = "shared-cpu-1x"
memory = "512mb"
[[vm]]
cpus = 2
memory_mb = 1024
processes = ["worker"]
[[restart]]
policy = "on-failure"
retries = 5
processes = ["worker"]
[checks.alive]
type = "tcp"
port = 8081
processes = ["worker"]
"""


def test_process_groups_become_services_and_filters_decide_who_gets_what() -> None:
    """The web group has the edge, the worker the disk, its own machine, restart policy and check."""
    spec = read(FULL).spec
    web, worker = spec.services["app"], spec.services["worker"]
    assert (spec.name, spec.title) == ("my-shop", "My Shop")
    assert isinstance(web, WebService) and isinstance(worker, WorkerService)
    assert (web.port, web.force_https, web.command, web.stop_signal, web.shutdown_grace) == (
        8080, True, "bin/server", "SIGINT", timedelta(seconds=5))  # fmt: skip
    assert web.release_command is not None and web.release_command.command == "bin/migrate" and worker.release_command is None
    assert web.scale.scale_to_zero and (web.scale.target_concurrency, web.scale.hard_concurrency) == (200, 250)
    assert web.health is not None and (web.health.path, web.health.method, web.health.headers) == ("/up", "GET", {"X-Check": "1"})
    assert web.disks == () and worker.disks[0].mount_path == "/data" and worker.disks[0].initial_size == 3 << 30
    assert (web.resources.plan, web.resources.memory, web.resources.swap) == ("shared-cpu-1x", 512 * MIB, 512 * MIB)
    assert (worker.resources.cpu, worker.resources.memory) == (2, 1024 * MIB)
    assert (worker.restart.policy, worker.restart.max_retries, worker.checks[0].port) == ("on-failure", 5, "8081")
    assert web.build.dockerfile == "Dockerfile.fly" and web.build.target == "prod"
    action = spec.routes[0].action
    assert isinstance(action, SetHeaders) and action.response == {"X-Frame-Options": "DENY"} and action.remove == ("Server",)


def test_the_first_generation_of_the_format_is_read() -> None:
    """Numbers as text, limits as `20,25`, whole numbers of milliseconds, `[mount]`, an empty `processes` list."""
    reading = read("""
app = "old"
processes = []
[build]
build_target = "x"
[[services]]
internal_port = "8080"
concurrency = "20,25"
http_checks = []
script_checks = []
[[services.ports]]
port = "80"
handlers = ["http"]
force_https = true
[[services.ports]]
port = 443
handlers = ["tls", "http"]
[[services.tcp_checks]]
interval = 10000
timeout = 2000
restart_limit = 6
[mount]
source = "d"
destination = "/d"
[experimental]
allowed_public_ports = []
auto_rollback = true
""")
    web = reading.spec.services["app"]
    assert isinstance(web, WebService) and (web.port, web.force_https) == (8080, True)
    assert (web.scale.target_concurrency, web.scale.hard_concurrency) == (20, 25)
    assert web.health is not None and (web.health.kind, web.health.interval, web.health.restart_after) == ("tcp", timedelta(seconds=10), 6)
    assert web.disks[0].name == "d"
    assert not reading.by_fate(Fate.UNKNOWN) and not reading.by_fate(Fate.IGNORED)


def test_raw_tcp_and_udp_ports_make_a_private_service_with_published_ports() -> None:
    """Only HTTP on 80 or 443 belongs to the edge."""
    service = read("""
[[services]]
internal_port = 6379
[[services.ports]]
port = "10000"
handlers = []
[[services]]
internal_port = 53
protocol = "udp"
[[services.ports]]
port = 53
""").spec.services["app"]
    assert isinstance(service, PrivateService) and service.port == 6379
    assert [(p.target, p.published, p.protocol) for p in service.ports] == [(6379, "10000", "tcp"), (53, "53", "udp")]


def test_a_group_with_a_schedule_is_a_cron() -> None:
    """Fly's words for schedules become cron expressions."""
    service = read('[processes]\napp = "x"\nmail = "y"\n[schedules]\nmail = "daily"\n').spec.services["mail"]
    assert isinstance(service, CronService) and service.schedule == "0 0 * * *"


def test_a_section_without_processes_is_about_the_default_group() -> None:
    """`app` when there is one, else the first by name, as flyctl has it; a `vm` without processes is for all."""
    spec = read('[processes]\nweb = "a"\napi = "b"\n[http_service]\ninternal_port = 1\n[[vm]]\nmemory = 512\n').spec
    assert spec.services["api"].kind == "web" and spec.services["web"].kind == "worker"
    assert {service.resources.memory for service in spec.services.values()} == {512 * MIB}


def test_every_problem_is_found_in_one_go_with_its_place() -> None:
    """Faults in several sections come as one error."""
    with pytest.raises(BlueprintInvalid) as caught:
        read('[deploy]\nstrategy = "eyes"\n[http_service]\ninternal_port = "$PORT"\n[[mounts]]\nsource = "x"\n')
    assert [(p.path, p.line) for p in caught.value.problems] == [
        ("deploy.strategy", 2),
        ("http_service.internal_port", 4),
        ("mounts[0]", 5),
    ]


def test_a_file_in_a_folder_with_source_roots_the_service_there() -> None:
    """The Dockerfile is named relative to the repository."""
    service = read('[build]\ndockerfile = "Dockerfile"\n', "apps/api/fly.toml", **{"apps/api/Dockerfile": ""}).spec.services["app"]
    assert (service.root, service.build.dockerfile) == ("apps/api", "apps/api/Dockerfile")


def test_every_leaf_of_every_real_file_has_one_fate(shared: Path) -> None:
    """All files of the corpus are read; at least 97 in 100 leaves have an effect."""
    good = total = 0
    for file in sorted((shared / "corpus" / "fly").iterdir()):
        text = decode(file.read_bytes())
        assert FlyReader().recognises(file.name, text)
        reading = FlyReader().read(MemoryTree({file.name: text}), file.name)
        assert sorted(note.path for note in reading.keys) == sorted(show_path(leaf) for leaf in leaves(tomllib.loads(text))), file.name
        total += len(reading.keys)
        good += len(reading.by_fate(Fate.HONOURED)) + len(reading.by_fate(Fate.APPROXIMATED))
    assert good >= 0.97 * total
