"""Changes, crashes and restarts of the edge while visitors use it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from homeport.drivers.edge.base import EdgeUnavailable, EdgeUnconfirmed, RouteTable, Upstream
from homeport.drivers.edge.hold import Holder
from homeport.drivers.edge.nginx import NginxEdge
from homeport.drivers.edge.probe import Probe
from homeport.drivers.edge.program import processes, wait_gone
from homeport.drivers.edge.render import CONTROL_SOCKET

Make = Callable[..., RouteTable]
Any_ = Callable[..., Any]


class Load:
    """Visitors: some keep their connection, some do not; GET and POST in turn. Every loss is written down."""

    def __init__(self, port: int, visitors: int = 4, pause: float = 0.005) -> None:
        self.port, self.pause = port, pause
        self.sent, self.lost, self.apps, self.ids = 0, list[str](), set[str](), list[str]()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(visitors)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self, visitor: int) -> None:
        connection: http.client.HTTPConnection | None = None
        count = 0
        while not self._stop.wait(self.pause):
            count += 1
            method, name = ("POST" if count % 2 else "GET"), f"{visitor}-{count}"
            connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
            closing = True
            try:
                connection.request(
                    method, "/", body=b"x" * 100 if method == "POST" else None, headers={"Host": "web.localhost", "X-Id": name}
                )
                answer = connection.getresponse()
                text = answer.read()
                closing = answer.will_close or visitor % 2 == 1
                error = "" if answer.status == 200 else f"{method} {answer.status}"
                app = json.loads(text)["app"] if not error else ""
            except (OSError, http.client.HTTPException) as lost:
                error, app = f"{method} {lost!r} keeps={visitor % 2 == 0}", ""
            with self._lock:
                self.sent += 1
                if method == "POST":
                    self.ids.append(name)
                if error:
                    self.lost.append(error)
                else:
                    self.apps.add(app)
            if closing:
                connection.close()
                connection = None
        if connection:
            connection.close()


def reload_under_load(edge: NginxEdge, table: Make, app: Any_, port: int, times: int) -> None:
    apps = [app("even"), app("odd")]
    edge.apply(table(apps[0].upstream()))
    with Load(port) as load:
        for number in range(1, times + 1):
            edge.apply(table(apps[number % 2].upstream(), max_body=10_000_000 + number))
    assert load.lost == []
    assert load.apps == {"even", "odd"}
    done = [name for each in apps for name in each.posts]
    assert sorted(done) == sorted(load.ids)


def test_reloads_lose_nothing_and_repeat_no_post(edge: NginxEdge, table: Make, app: Any_, port: int) -> None:
    """15 switches under load, kept and new connections, GET and POST: every request answered once."""
    reload_under_load(edge, table, app, port, 15)


@pytest.mark.slow
def test_a_hundred_reloads_lose_nothing(edge: NginxEdge, table: Make, app: Any_, port: int) -> None:
    """The same with 100 switches."""
    reload_under_load(edge, table, app, port, 100)


def websocket(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    key = base64.b64encode(os.urandom(16)).decode()
    client.sendall(
        f"GET /ws HTTP/1.1\r\nHost: web.localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(4096)
    assert head.startswith(b"HTTP/1.1 101")
    return client


def test_streams_live_through_a_switch_and_get_a_deadline(edge: NginxEdge, table: Make, app: Any_, port: int) -> None:
    """WebSocket and events go on after a switch; `drain` counts them; the table's `drain` ends them."""
    old, new = app("old"), app("new")
    edge.apply(table(old.upstream(), drain=1.5))
    with websocket(port) as client, socket.create_connection(("127.0.0.1", port), timeout=30) as events, events.makefile("rb") as lines:
        events.sendall(b"GET /sse HTTP/1.1\r\nHost: web.localhost\r\n\r\n")
        while b"old 0" not in lines.readline():
            pass
        edge.apply(table(new.upstream(), drain=1.5))
        client.sendall(b"\x81\x02hi")
        assert client.recv(100) == b"\x81\x02hi"
        assert any(lines.readline().startswith(b"data: old") for _ in range(10))
        assert edge.in_flight(old.target) == 2
        assert edge.drain(old.target, timedelta(seconds=0.2)) == 2
        assert edge.drain(old.target, timedelta(seconds=10)) == 0
        assert edge.in_flight(old.target) == 0
        assert client.recv(100) == b""


def test_a_request_in_flight_finishes_with_the_old_release(edge: NginxEdge, table: Make, app: Any_, ask: Any_) -> None:
    """A slow request that began before the switch is answered by who got it, and `drain` waits for it."""
    old, new = app("old"), app("new")
    edge.apply(table(old.upstream()))
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(ask, "/slow")
        while not old.requests:
            time.sleep(0.01)
        edge.apply(table(new.upstream()))
        assert ask("/").json()["app"] == "new"
        assert edge.drain(old.target, timedelta(seconds=10)) == 0
        assert slow.result().json()["app"] == "old"


def test_an_instance_may_stop_after_its_drain(edge: NginxEdge, table: Make, app: Any_, port: int) -> None:
    """With a kept connection on the old workers, `drain` returns only when nothing can reach the old instance any more."""
    old, new = app("old"), app("new")
    edge.apply(table(old.upstream()))
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    kept.request("GET", "/", headers={"Host": "web.localhost"})
    kept.getresponse().read()
    edge.apply(table(new.upstream()))
    with ThreadPoolExecutor(1) as pool:
        drained = pool.submit(edge.drain, old.target, timedelta(seconds=20))
        kept.request("POST", "/", body=b"x", headers={"Host": "web.localhost"})
        answer = kept.getresponse()
        assert (answer.status, json.loads(answer.read())["app"], answer.will_close) == (200, "old", True)
        assert drained.result() == 0
    kept.close()


def test_probes_see_no_loss_and_the_first_new_answer(edge: NginxEdge, table: Make, app: Any_, port: int) -> None:
    """A probe through a switch: nothing failed, the new release seen; a dead instance is a loss, an instance's own 503 is not."""
    old, new = app("old"), app("new")
    edge.apply(table(old.upstream()))
    probe = Probe(address="0.0.0.0", port=port, host="web.localhost", token=edge.token(), release="new", rate=200).start()
    edge.apply(table(new.upstream()))
    assert probe.wait_new(5)
    result = probe.stop()
    assert (result.failed, result.errors) == (0, ())
    assert result.requests > 0
    assert 0 < result.first_new < 2
    for path, target in (("/down", new), ("/", old)):
        if target is old:
            old.stop()
            edge.apply(table(old.upstream()))
        probe = Probe(address="127.0.0.1", port=port, host="web.localhost", path=path, token=edge.token()).start()
        while probe.result().requests < 4:
            time.sleep(0.01)
        result = probe.stop()
        assert result.failed == (0 if target is new else result.requests)
    assert "502 from the edge" in result.errors[0]


def test_nothing_is_lost_while_a_service_that_may_not_overlap_changes(edge: NginxEdge, table: Make, app: Any_, port: int) -> None:
    """Old stopped, 2 s nothing, new started, at 200 requests a second: all held and answered, no POST lost or repeated."""
    holder = Holder()
    held = {"backups": (holder.target,)}
    old = app("old")
    edge.apply(table(old.upstream(**held)))
    with Load(port, visitors=16, pause=0.04) as load:
        time.sleep(0.3)
        holder.start()
        edge.apply(table(Upstream(name="web", targets=(holder.target,))))
        began = time.monotonic()
        assert edge.drain(old.target, timedelta(seconds=10)) == 0
        assert time.monotonic() - began < 9
        old.stop()
        time.sleep(2)
        assert holder.held() > 0
        new = app("new")
        holder.release(new.target)
        edge.apply(table(new.upstream(**held)))
        time.sleep(0.3)
    assert load.lost == []
    assert load.apps == {"old", "new"}
    assert sorted(old.posts + new.posts) == sorted(load.ids)
    holder.stop()


def test_no_post_is_lost_in_the_moment_in_which_an_instance_stops_listening(edge: NginxEdge, table: Make, app: Any_, port: int) -> None:
    """What comes on old connections then waits for the relay; an instance would never accept it, and a POST may not be sent again."""
    holder = Holder()
    old = app("old")
    edge.apply(table(old.upstream(backups=(holder.target,))))
    visitors = [http.client.HTTPConnection("127.0.0.1", port, timeout=20) for _ in range(8)]
    for visitor in visitors:
        visitor.request("GET", "/", headers={"Host": "web.localhost"})
        visitor.getresponse().read()
    holder.start()
    edge.apply(table(Upstream(name="web", targets=(holder.target,))))
    assert edge.drain(old.target, timedelta(seconds=10)) == 0
    with edge.still([old.target]):
        old.server.shutdown()  # accepts nothing more, while the kernel does
        for number, visitor in enumerate(visitors):
            visitor.request("POST", "/", body=b"x", headers={"Host": "web.localhost", "X-Id": str(number)})
        time.sleep(0.2)
        old.stop()
    new = app("new")
    holder.release(new.target)
    for visitor in visitors:
        answer = visitor.getresponse()
        assert (answer.status, json.loads(answer.read())["app"]) == (200, "new")
        visitor.close()
    assert (old.posts, sorted(new.posts)) == ([], sorted(map(str, range(8))))
    holder.stop()


def test_workers_go_on_when_whoever_kept_them_still_is_killed(edge: NginxEdge, table: Make, app: Any_, port: int) -> None:
    """A process of its own lets them go on."""
    old, new = app("old"), app("new")
    edge.apply(table(old.upstream()))
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    kept.request("GET", "/", headers={"Host": "web.localhost"})
    kept.getresponse().read()
    edge.apply(table(new.upstream()))
    text = (
        "import sys, time; from pathlib import Path; from homeport.drivers.edge.base import Target; "
        "from homeport.drivers.edge.nginx import NginxEdge\n"
        "with NginxEdge(Path(sys.argv[1])).still([Target(host='127.0.0.1', port=int(sys.argv[2]))]):\n"
        "    print('still', flush=True)\n"
        "    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", text, str(edge.home), str(old.port)], stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"still\n"
        kept.request("POST", "/", body=b"x", headers={"Host": "web.localhost"})
        time.sleep(0.1)
        assert old.posts == []
        keeper.kill()
    answer = kept.getresponse()
    assert (answer.status, json.loads(answer.read())["app"]) == (200, "old")
    kept.close()


def test_a_killed_worker_comes_back_and_only_its_requests_are_lost(edge: NginxEdge, table: Make, app: Any_, port: int) -> None:
    """The master starts another worker; visitors who come after see nothing."""
    edge.apply(table(app().upstream()))
    before = edge.status()
    victim = next(process for process in processes(edge.home) if not process.is_master)
    with Load(port) as load:
        time.sleep(0.2)
        os.kill(victim.pid, signal.SIGKILL)
        time.sleep(0.4)
    assert len(load.lost) <= 4
    assert edge.status() == before
    assert edge.apply(table(app("two").upstream())) == before.generation + 1


def test_a_killed_master_is_replaced(edge: NginxEdge, table: Make, app: Any_, ask: Any_, port: int) -> None:
    """Orphaned workers serve on; `ensure_running` gives them a master's successor on the same port."""
    one = app()
    generation = edge.apply(table(one.upstream()))
    master = edge.status().pid
    orphans = {process.pid for process in processes(edge.home) if not process.is_master}
    os.kill(master, signal.SIGKILL)
    with Load(port, visitors=2) as load:
        time.sleep(0.2)
        assert (load.lost, ask("/").status) == ([], 200)
        began = time.monotonic()
        status = edge.ensure_running()
        assert time.monotonic() - began < 10
        time.sleep(0.2)
    assert status.running
    assert (status.generation, status.pid != master) == (generation, True)
    assert load.sent > len(load.lost)
    assert ask("/").json()["app"] == "one"
    deadline = time.monotonic() + 15
    while orphans & {process.pid for process in processes(edge.home)} and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not orphans & {process.pid for process in processes(edge.home)}


def test_a_master_that_is_killed_while_it_is_told_to_reload(edge: NginxEdge, table: Make, app: Any_, ask: Any_) -> None:
    """It is not waited for: another one is started."""
    edge.apply(table(app().upstream()))
    found = processes(edge.home)
    for process in found:
        os.kill(process.pid, signal.SIGKILL)
    assert wait_gone([process.pid for process in found], 10)
    began = time.monotonic()
    edge._serve(edge._generations.number("current"), found)
    assert time.monotonic() - began < 10
    assert ask("/").status == 200


def test_all_killed_at_once_starts_again(edge: NginxEdge, table: Make, app: Any_, ask: Any_) -> None:
    """With everything gone and a stale socket left behind, the last good table is served again."""
    edge.apply(table(app().upstream()))
    for process in processes(edge.home):
        os.kill(process.pid, signal.SIGKILL)
    assert (edge.home / CONTROL_SOCKET).exists()
    assert edge.ensure_running().generation == 1
    assert ask("/").status == 200


def test_another_control_plane_adopts_the_running_edge(edge: NginxEdge, table: Make, app: Any_) -> None:
    """A second object on the same home finds the same master and changes nothing for an equal table."""
    wanted = table(app().upstream())
    generation = edge.apply(wanted)
    other = NginxEdge(edge.home)
    assert (other.apply(wanted), other.status(), other.table()) == (generation, edge.status(), wanted)


def test_changes_at_once_are_made_one_by_one(edge: NginxEdge, table: Make, app: Any_) -> None:
    """Four threads apply four tables: four generations, the last one served."""
    one = app()
    edge.apply(table(one.upstream()))
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda number: NginxEdge(edge.home).apply(table(one.upstream(), max_body=number)), range(1, 5)))
    assert sorted(made) == [2, 3, 4, 5]
    assert edge.status().generation == 5


def test_a_taken_port_is_told_and_the_old_table_stays(edge: NginxEdge, table: Make, app: Any_, ask: Any_) -> None:
    """Moving to a port that another program has leaves everything as it was."""
    good = table(app().upstream())
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = good.model_copy(update={"port": other.getsockname()[1]})
        with pytest.raises(EdgeUnavailable):
            edge.apply(taken)
        assert edge.status().running is False
        generation = edge.apply(good)
        with pytest.raises(EdgeUnavailable):
            edge.apply(taken)
    assert (edge.table(), edge.status().generation, ask("/").status) == (good, generation, 200)


def test_an_edge_that_proves_nothing_is_put_back(edge: NginxEdge, table: Make, app: Any_, ask: Any_) -> None:
    """A frozen master cannot reload: the deadline passes, the last good table stays the one on disk."""
    good = table(app().upstream())
    edge.apply(good)
    master = edge.status().pid
    hasty = NginxEdge(edge.home, confirm_within=timedelta(seconds=0.3))
    os.kill(master, signal.SIGSTOP)
    try:
        with pytest.raises(EdgeUnconfirmed):
            hasty.apply(table(app("two").upstream()))
    finally:
        os.kill(master, signal.SIGCONT)
    assert edge.table() == good
    assert edge.apply(good) >= 1
    assert ask("/").json()["app"] == "one"


@pytest.mark.parametrize("step", ["written", "pointed", "reloaded"])
def test_a_crash_between_two_steps_leaves_old_or_new(
    edge: NginxEdge, table: Make, app: Any_, ask: Any_, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash at any step the edge serves the old or the new table, and the next call settles it."""

    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    old, new = table(app("old").upstream()), table(app("new").upstream())
    edge.apply(old)
    broken = NginxEdge(edge.home)
    match step:
        case "written":
            monkeypatch.setattr(broken, "_put", crash)
        case "pointed":
            monkeypatch.setattr(broken, "_serve", crash)
        case "reloaded":
            monkeypatch.setattr(broken, "_note", crash)
    with pytest.raises(Crash):
        broken.apply(new)
    assert ask("/").json()["app"] in ("old", "new")
    status = edge.ensure_running()
    served = ask("/").json()["app"]
    assert edge.table() == (old if served == "old" else new)
    assert status.generation == edge.status().generation
    edge.apply(new)
    assert (ask("/").json()["app"], edge.table()) == ("new", new)


def test_logs_are_rotated_without_a_loss(edge: NginxEdge, table: Make, app: Any_, ask: Any_, tmp_path: Path) -> None:
    """After `rotate` the lines go to a new file and the old one is kept."""
    edge.apply(table(app().upstream()))
    ask("/before")
    edge.rotate()
    deadline = time.monotonic() + 5
    log = tmp_path / "home/edge/log/access.jsonl"
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    ask("/after")
    while "/after" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "/after" in log.read_text()
    assert "/before" in log.with_name("access.jsonl.1").read_text()


def test_old_generations_are_removed(edge: NginxEdge, table: Make, app: Any_) -> None:
    """The disk holds the last ten generations."""
    one = app()
    for number in range(13):
        edge.apply(table(one.upstream(), max_body=number))
    numbers = sorted(int(path.name) for path in (edge.home / "edge/generations").iterdir())
    assert numbers[-1] == 13
    assert len(numbers) <= 12


def test_the_error_log_of_a_healthy_edge_is_empty(edge: NginxEdge, table: Make, app: Any_, ask: Any_) -> None:
    """Start, reload and requests write no warning, as root or not."""
    one = app()
    edge.apply(table(one.upstream()))
    edge.apply(table(app("two").upstream()))
    ask("/")
    assert (edge.home / "edge/log/error.log").read_text() == ""


def test_secrets_and_controls_are_for_the_owner_only(edge: NginxEdge, table: Make, app: Any_) -> None:
    """Token, configurations and control socket lie in folders nobody else may enter."""
    edge.apply(table(app().upstream()))
    for name, mode in (("run", 0o700), ("generations", 0o700), ("log", 0o710)):
        folder = (edge.home / "edge" / name).stat()
        assert (folder.st_mode & 0o777, folder.st_uid) == (mode, os.geteuid())
    assert (edge.home / "edge/run/probe-token").stat().st_mode & 0o777 == 0o600
    if os.geteuid() == 0:
        workers = [process.pid for process in processes(edge.home) if not process.is_master]
        assert all(Path(f"/proc/{pid}").stat().st_uid != 0 for pid in workers)


def test_every_speed_that_is_promised(edge: NginxEdge, table: Make, app: Any_) -> None:
    """An apply takes well under half a second even on a busy machine (the benchmark has the figures)."""
    one = app()
    edge.apply(table(one.upstream()))
    times: list[float] = []
    for number in range(1, 6):
        began = time.monotonic()
        edge.apply(table(one.upstream(), max_body=number))
        times.append(time.monotonic() - began)
    assert min(times) < 0.5
