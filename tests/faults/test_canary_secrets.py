"""Twelve secrets go through everything Homeport does; afterwards no file, process list, answer or line of output holds any of them."""

from __future__ import annotations

import base64
import gzip
import json
import re
import secrets
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from bench_apps import BenchApp
from homes import Home, home_in, until
from watching import Watcher

from homeport.deploys.masking import MASK

pytestmark = pytest.mark.xdist_group("canary")


def fresh(length: int = 10) -> str:
    return secrets.token_hex(length)


SECRETS = {
    "C_WORD": f"canary{fresh()}",
    "C_SHORT": f"Z{fresh(4)}q",
    "C_LONG": "".join(fresh(16) for _ in range(100)),
    "C_LINES": f"-----BEGIN KEY-----\n{base64.b64encode(secrets.token_bytes(48)).decode()}\n{fresh(24)}\n-----END KEY-----\n",
    "C_BASE64": base64.b64encode(secrets.token_bytes(33)).decode(),
    "C_QUOTES": f'it\'s "{fresh()}" \\ `{fresh(4)}`',
    "C_URL": f"postgresql://app:p%40{fresh(6)}/?&=#+ {fresh(4)}@db.internal:5432/x?sslmode=require",
    "C_JSON": json.dumps({"key": fresh(), "more": ["a/b", f"ü{fresh(4)}"]}),
    "C_SHELL": f"$(touch x) ${{HOME}} ; {fresh()} && !! * ~",
    "C_UNICODE": f"pässwörd-ñ-{fresh()}-日本",
    "C_TOKEN": f"ghp_{fresh(18)}",
    "C_BUILD": f"npm_{fresh(18)}",
}
"""The last one is asked for by the build as well."""

PROGRAM = """
import base64, json, os, sys, time, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, quote_plus

def tell(where):
    for key, value in sorted(os.environ.items()):
        if key.startswith("C_"):
            raw = value.encode()
            forms = [value, base64.b64encode(raw).decode(), base64.b64encode(b"user:" + raw).decode(), raw.hex(), raw.hex().upper(),
                     quote(value, safe=""), quote_plus(value), json.dumps(value), repr(value), json.dumps({"x": json.dumps(value)})]
            for form in forms:
                print(where, key, form, flush=True)
    print("told everything", flush=True)

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/crash"):
            tell("crashing")
            os._exit(7)
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass

tell(sys.argv[1] if len(sys.argv) > 1 else "starting")
if len(sys.argv) > 1:
    sys.exit(3 if sys.argv[1] == "failing" else 0)
ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


def needles() -> dict[bytes, str]:
    """What is looked for: each secret, each of its lines, in every encoding, with a name for the report."""
    found: dict[bytes, str] = {}
    for key, value in SECRETS.items():
        for text in {value, *(line for line in value.splitlines() if len(line) >= 16 and "-----" not in line)}:
            raw = text.encode()
            forms = {"raw": text, "hex": raw.hex(), "HEX": raw.hex().upper(), "url": quote(text, safe=""), "form": quote_plus(text)}
            forms |= {"json": json.dumps(text)[1:-1], "json utf-8": json.dumps(text, ensure_ascii=False)[1:-1]}
            for before in range(3):
                inner = raw[-before % 3 :]
                inner = inner[: len(inner) // 3 * 3]
                forms |= {
                    f"base64+{before}": base64.b64encode(inner).decode(),
                    f"base64url+{before}": base64.urlsafe_b64encode(inner).decode(),
                }
            for name, form in forms.items():
                if len(form) >= 8:
                    found[form.encode()] = f"{key} as {name}"
    return found


NEEDLES = needles()
PATTERN = re.compile(b"|".join(re.escape(n) for n in sorted(NEEDLES, key=len, reverse=True)))


def sweep(data: bytes) -> set[str]:
    """Which secrets a piece of data holds, also inside gzip."""
    found = {NEEDLES[hit.group()] for hit in PATTERN.finditer(data)}
    at = data.find(b"\x1f\x8b\x08")
    while at >= 0:
        try:
            inner = zlib.decompressobj(31).decompress(data[at:], 64 << 20)
        except zlib.error:
            inner = b""
        found |= {f"{NEEDLES[hit.group()]} in gzip" for hit in PATTERN.finditer(inner)}
        at = data.find(b"\x1f\x8b\x08", at + 1)
    return found


OF_THE_HOME = ("audit --json", "audit --verify", "vault status", "keys", "stores", "doctor")
OF_A_PROJECT = (
    "env", "env --json", "env history", "env diff", "env diff --json", "logs --tail 5000", "events", "releases", "status", "ps",
)  # fmt: skip


class Sinks:
    """Every place that was looked at, and what was found there."""

    def __init__(self) -> None:
        self.looked, self.hits = list[str](), dict[str, set[str]]()

    def look(self, place: str, data: bytes | str) -> None:
        self.looked.append(place)
        found = sweep(data.encode(errors="surrogateescape") if isinstance(data, str) else data)
        if found:
            self.hits[place] = found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with home_in(tmp_path_factory.mktemp("home") / "h") as home:
        home.serve()
        yield home


def cli(home: Home, sinks: Sinks, *arguments: str, given: str | None = None, code: int | None = 0) -> str:
    """Run a verb, look at what it says, and return its output."""
    argv = [sys.executable, "-m", "homeport", *arguments]
    done = subprocess.run(argv, env=home.env, input=given or "", capture_output=True, text=True, timeout=120, check=False, cwd=home.path)
    assert code is None or done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    sinks.look(f"homeport {' '.join(arguments)[:60]}", done.stdout + done.stderr)
    return done.stdout


def set_all(home: Home, sinks: Sinks, folder: Path) -> None:
    """Set the secrets in every way there is, without one in an argument."""
    keys = list(SECRETS)
    for key in keys[:3]:
        cli(home, sinks, "env", "set", f"{key}=-", "-p", "bench", given=SECRETS[key] + "\n")
    for key in keys[3:6]:
        (folder / "value").write_text(SECRETS[key])
        cli(home, sinks, "env", "set", key, "--from-file", str(folder / "value"), "-p", "bench")
    (folder / "values.json").write_text(json.dumps({key: SECRETS[key] for key in keys[6:9]}))
    cli(home, sinks, "env", "import", str(folder / "values.json"), "-p", "bench")
    cli(home, sinks, "env", "import", "-", "-p", "bench", given=json.dumps({key: SECRETS[key] for key in keys[9:]}))


def read_everything(home: Home, sinks: Sinks, deploys: list[str]) -> int:
    """Every GET of the API that is not there to show a value; returns how many."""
    _, schema = home.api("GET", "/api/openapi.json")
    read = 0
    names = {"project": "bench", "environment": "production", "service": "web", "name": "none", "dialect": "render"}
    for path, methods in schema["paths"].items():
        if "get" not in methods or path.endswith(("/env/{key}", "/audit/export", "/deploys/{id}/events")):
            continue
        for id in deploys if "{id}" in path else [""]:
            url = re.sub(r"\{(\w+)\}", lambda m, id=id: id if m[1] == "id" else names.get(m[1], "web"), path)  # type: ignore[misc]
            sinks.look(f"GET {url}", raw(home, url))
            read += 1
    for id in deploys:
        sinks.look(f"GET /api/v1/deploys/{id}/events", raw(home, f"/api/v1/deploys/{id}/events"))
    sinks.look("GET /api/v1/audit/export", raw(home, "/api/v1/audit/export"))
    return read


def progress(home: Home, deploy: str) -> str:
    """What a deploy told, as text."""
    lines = raw(home, f"/api/v1/deploys/{deploy}/events").decode().splitlines()
    return "\n".join(str(json.loads(line[5:])) for line in lines if line.startswith("data:"))


def raw(home: Home, path: str) -> bytes:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", home.api_port, timeout=60)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {(home.path / 'cli.key').read_text().strip()}"})
        return connection.getresponse().read()
    finally:
        connection.close()


def own_log(home: Home, file: Path) -> bool:
    """Whether a file is what the application itself wrote: it holds what the application prints, and is masked when it is read."""
    parts = file.relative_to(home.path).parts
    return parts[0] == "instances" and "log" in parts[2:]


def test_twelve_secrets_leave_no_trace(home: Home, tmp_path: Path) -> None:
    """Set, build, deploy, crash, failing build, failing release command, one-off, rekey, backup, wrong input, every read: 0 hits outside
    the sealed store and the application's own output, also in argument lists and files that were there for a moment only."""
    sinks = Sinks()
    own = sinks.look
    folders = [home.path, *(home.path / name for name in ("deploys", "edge", "backups", "cache", "run")), Path("/tmp"), Path("/dev/shm")]

    def in_passing(place: str, data: bytes) -> None:
        if b"C_WORD" not in data[:200]:  # the test's own files
            own(place, data)

    with Watcher(folders, in_passing) as watcher:
        go_through_everything(home, tmp_path, sinks)
    assert watcher.processes > 50 and watcher.files > 10
    assert sinks.hits == {}
    print(f"canary sweep: {len(SECRETS)} secrets, {len(NEEDLES)} forms, {len(sinks.looked)} places, 0 hits")


def send_what_is_refused(home: Home, sinks: Sinks) -> None:
    """Requests that are not understood, with secrets in them: in the body, as a name, in an address, as a key."""
    env = "/api/v1/projects/bench/environments/production/env"
    for number, (key, value) in enumerate(SECRETS.items()):
        for body in ({"set": {key: [value]}}, {"set": {key: value, "=": value}}, {"set": {key: f"{value}\0"}}, {"more": value}):
            sinks.look(f"refused {key}", json.dumps(home.api("POST", env, body)[1], ensure_ascii=False))
        if number % 4:
            continue
        (home.path.parent / "broken.env").write_text(f"A='{value}\n")
        cli(home, sinks, "env", "import", str(home.path.parent / "broken.env"), "-p", "bench", code=None)
        cli(home, sinks, "env", "set", f"{key}=-", "--env", "Not A Name", "-p", "bench", given=value, code=None)


def go_through_everything(home: Home, tmp_path: Path, sinks: Sinks) -> None:
    """The life of an application, from the first value on."""
    app = BenchApp(tmp_path / "bench", language="python")
    app.source.write_text(PROGRAM)
    app.web["env"] = {key: {"kind": "secret"} for key in SECRETS}
    app.web["build"] = {"env": {"C_BUILD": {"kind": "secret"}}, "command": f"python {app.source.name} building"}
    app.web["release_command"] = {"command": f"python {app.source.name} migrating"}
    app.write()
    set_all(home, sinks, tmp_path)
    deploys = []

    def up(code: int) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(cli(home, sinks, "up", str(app.folder), "--json", code=code))
        deploys.append(result["deploy"])
        return result

    assert up(0)["status"] == "live"
    assert home.get(app.host, "/").status == 200
    crashed = home.get(app.host, "/crash")
    assert crashed.status >= 500
    sinks.look("page of a crash", crashed.body)
    until(lambda: any(i["restarts"] or i["crashes"] for i in home.instances("bench")), "the crash to be seen")
    until(lambda: home.get(app.host, "/").status == 200, "the application to be back")
    assert home.get(app.host, f"/crash?token={SECRETS['C_TOKEN']}").status >= 500  # what the edge says about a request that failed
    until(lambda: home.get(app.host, "/").status == 200, "the application to be back")
    send_what_is_refused(home, sinks)
    app.web["release_command"]["command"] = f"python {app.source.name} failing"
    app.write()
    assert up(1)["error"]["code"] == "release-command-failed"
    del app.web["release_command"]
    app.web["build"]["command"] = f"python {app.source.name} failing"
    app.write()
    assert up(1)["status"] == "failed"
    cli(home, sinks, "run", "-p", "bench", "--", "python", app.source.name, "once", code=None)
    cli(home, sinks, "vault", "rekey")
    cli(home, sinks, "vault", "rotate", "--json")
    cli(home, sinks, "backup", "now", code=None)
    cli(home, sinks, "backup", "list", "--json", code=None)
    for verb in OF_THE_HOME:
        cli(home, sinks, *verb.split(), code=None)
    for verb in OF_A_PROJECT:
        cli(home, sinks, *verb.split(), "-p", "bench", code=None)
    cli(home, sinks, "plan", str(app.folder), code=None)
    assert read_everything(home, sinks, deploys) >= 15
    for host, path in [(app.host, "/nothing"), ("unknown.localhost", "/")]:
        sinks.look(f"page {host}{path}", home.get(host, path).body)
    masked = f"C_TOKEN {MASK}"
    assert f"starting {masked}" in cli(home, sinks, "logs", "-p", "bench", "--tail", "5000")
    assert MASK in progress(home, deploys[1])
    assert f"failing C_BUILD {MASK}" in progress(home, deploys[2])
    look_at_processes(home, sinks)
    written = look_at_files(home, sinks)
    assert written > len(SECRETS), "the application itself printed nothing: this test proves nothing"
    for key, value in SECRETS.items():
        status, found = home.api("GET", f"/api/v1/projects/bench/environments/production/env/{key}")
        assert (status, found["value"]) == (200, value), key


def look_at_processes(home: Home, sinks: Sinks) -> None:
    """Arguments of every process of the machine, and the variables of Homeport's own."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                sinks.look(f"{folder}/cmdline", (folder / "cmdline").read_bytes())
            except OSError:
                continue
    master, workers = home.edge_processes()
    for pid in (home.pid(), master, *workers):
        if pid:
            assert re.search(r"Max core file size\s+0\s+0\s", Path(f"/proc/{pid}/limits").read_text()), "a core would hold values"
            sinks.look(f"/proc/{pid}/environ", Path(f"/proc/{pid}/environ").read_bytes())


def look_at_files(home: Home, sinks: Sinks) -> int:
    """Every file of the home; returns how many hits are in the application's own logs, which are meant to hold what it prints."""
    own = 0
    for file in sorted(home.path.rglob("*")):
        if file.is_file() and not file.is_symlink():
            try:
                data = file.read_bytes()
            except OSError:
                continue
            if own_log(home, file):
                own += len(sweep(data))
            else:
                sinks.look(str(file.relative_to(home.path)), data)
    return own


@pytest.mark.parametrize("key", SECRETS)
def test_the_sweep_finds_what_is_there(key: str) -> None:
    """A planted secret is found raw, in base64 at any place, hex, address, JSON and inside gzip."""
    raw_text = SECRETS[key].encode()
    for planted in (
        raw_text, base64.b64encode(b"x" + raw_text + b"y"), raw_text.hex().encode(), quote(SECRETS[key], safe="").encode(),
        json.dumps(SECRETS[key]).encode(), b"junk" + gzip.compress(raw_text) + b"junk", base64.b64encode(b"xy" + raw_text),
    ):  # fmt: skip
        assert sweep(b"before " + planted + b" after")
    assert not sweep(b"nothing here " + secrets.token_bytes(100))
