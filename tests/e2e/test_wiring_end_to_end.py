"""A program that connects to PostgreSQL and Redis by what its file says, under each dialect, and gets in.

The program speaks both protocols itself, so that nothing has to be installed: SCRAM-SHA-256 (RFC 5802, RFC 7677) inside PostgreSQL's
message flow, and RESP. It answers with what it saw.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from homes import Home

PROBE = """\
import base64, hashlib, hmac, http.server, json, os, socket, struct
from urllib.parse import unquote, urlsplit

def take(sock, count):
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError("closed")
        data += piece
    return data

def postgres(url):
    part = urlsplit(url)
    user, password = unquote(part.username), unquote(part.password or "")
    sock = socket.create_connection((part.hostname, part.port or 5432), 5)
    start = b"".join(w.encode() + b"\\0" for w in ("user", user, "database", part.path[1:])) + b"\\0"
    sock.sendall(struct.pack("!II", len(start) + 8, 196608) + start)
    nonce, first = base64.b64encode(os.urandom(18)).decode(), ""
    def say(body):
        sock.sendall(b"p" + struct.pack("!I", len(body) + 4) + body)
    while True:
        kind, size = struct.unpack("!cI", take(sock, 5))
        body = take(sock, size - 4)
        if kind == b"E":
            raise ValueError(body.replace(b"\\0", b" ").decode())
        if kind == b"Z":
            break
        if kind != b"R":
            continue
        step = struct.unpack("!I", body[:4])[0]
        if step == 10:
            first = "n=,r=" + nonce
            message = ("n,," + first).encode()
            say(b"SCRAM-SHA-256\\0" + struct.pack("!I", len(message)) + message)
        elif step == 11:
            told = dict(pair.split("=", 1) for pair in body[4:].decode().split(","))
            salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(told["s"]), int(told["i"]))
            client = hmac.digest(salted, b"Client Key", "sha256")
            last = "c=biws,r=" + told["r"]
            text = ",".join((first, body[4:].decode(), last)).encode()
            proof = hmac.digest(hashlib.sha256(client).digest(), text, "sha256")
            say((last + ",p=" + base64.b64encode(bytes(a ^ b for a, b in zip(client, proof))).decode()).encode())
    query = b"select current_database()\\0"
    sock.sendall(b"Q" + struct.pack("!I", len(query) + 4) + query)
    while True:
        kind, size = struct.unpack("!cI", take(sock, 5))
        body = take(sock, size - 4)
        if kind == b"D":
            return body[6:].decode()

def redis(url):
    part = urlsplit(url)
    sock = socket.create_connection((part.hostname, part.port or 6379), 5)
    words = []
    if part.password:
        words.append(["AUTH", *([unquote(part.username)] if part.username else []), unquote(part.password)])
    words += [["SET", "probe", "yes"], ["GET", "probe"]]
    said = b""
    for command in words:
        sock.sendall(b"*%d\\r\\n" % len(command) + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(w.encode()), w.encode()) for w in command))
        said = sock.recv(1000)
    return said.decode().split("\\r\\n")[-2] if not said.startswith(b"-") else said.decode()

def tried(work, *names):
    found = next((os.environ[name] for name in names if name in os.environ), "")
    if not found:
        return "none of " + ", ".join(names)
    try:
        return work(found)
    except Exception as error:
        return repr(error)

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = {"postgres": tried(postgres, *os.environ["ASK_SQL"].split()), "redis": tried(redis, *os.environ["ASK_KV"].split()),
                 "env": dict(os.environ)}
        if host := os.environ.get("ASK_HOST"):
            found["host"] = tried(lambda _: redis("redis://" + host), "ASK_HOST")
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Page).serve_forever()
"""


@dataclass(frozen=True)
class Case:
    """One project: its files, what is set by hand, and where its program looks."""

    files: dict[str, str]
    set: tuple[str, ...] = ()
    service: str = "web"
    told: dict[str, str] = field(default_factory=dict)
    """Variables of the platform that must be there."""
    host: bool = False
    """Whether it also tries a literal host without a login."""


ASK = {"ASK_SQL": "DATABASE_URL", "ASK_KV": "REDIS_URL"}

CASES: dict[str, Case] = {
    "homeport": Case({
        "homeport.yaml": """\
services:
  web: {kind: web, command: python app.py, env: {ASK_SQL: DATABASE_URL, ASK_KV: REDIS_URL}}
addons:
  db: {kind: postgres}
  cache: {kind: redis}
"""
    }),
    "render": Case(
        {
            "render.yaml": """\
databases:
  - {name: store, databaseName: shop, user: shop}
services:
  - type: web
    name: web
    runtime: python
    startCommand: python app.py
    envVars:
      - {key: ASK_SQL, value: DATABASE_URL}
      - {key: ASK_KV, value: CACHE}
      - key: DATABASE_URL
        fromDatabase: {name: store, property: connectionString}
      - key: CACHE
        fromService: {type: keyvalue, name: cache, property: connectionString}
  - {type: keyvalue, name: cache, ipAllowList: []}
"""
        },
        told={"RENDER": "true", "RENDER_SERVICE_NAME": "web"},
    ),
    "render-by-parts": Case({
        "render.yaml": """\
databases:
  - name: store
services:
  - type: web
    name: web
    runtime: python
    startCommand: sh -c 'export U="postgresql://$DB_USER:$DB_PASSWORD@$DB_HOST:$DB_PORT/$DB_NAME" K="redis://$KV"; exec python app.py'
    envVars:
      - {key: ASK_SQL, value: U}
      - {key: ASK_KV, value: REDIS_URL}
      - {key: DB_USER, fromDatabase: {name: store, property: user}}
      - {key: DB_PASSWORD, fromDatabase: {name: store, property: password}}
      - {key: DB_HOST, fromDatabase: {name: store, property: host}}
      - {key: DB_PORT, fromDatabase: {name: store, property: port}}
      - {key: DB_NAME, fromDatabase: {name: store, property: database}}
      - {key: KV, fromService: {type: redis, name: cache, property: hostport}}
  - {type: redis, name: cache, ipAllowList: [], maxmemoryPolicy: allkeys-lru}
"""
    }),
    "railway": Case(
        {"railway.json": json.dumps({"deploy": {"startCommand": "python app.py"}})},
        set=("DATABASE_URL=${{Postgres.DATABASE_URL}}", "REDIS_URL=${{Redis.REDIS_URL}}", "NAME=${{RAILWAY_ENVIRONMENT_NAME}}"),
        told={"RAILWAY_ENVIRONMENT_NAME": "production", "NAME": "production"},
    ),
    "compose": Case(
        {
            "docker-compose.yml": """\
services:
  web:
    build: .
    command: python app.py
    ports: ["8000:8000"]
    environment:
      ASK_SQL: DATABASE_URL
      ASK_KV: REDIS_URL
      ASK_HOST: kv:6379
      DATABASE_URL: postgresql://shop:${POSTGRES_PASSWORD:-secret}@database:5432/shop
      REDIS_URL: redis://kv:6379/0
  database:
    image: postgres:16
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: "${POSTGRES_PASSWORD:-secret}", POSTGRES_DB: shop}
  kv:
    image: redis:7-alpine
""",
            "Dockerfile": "FROM python:3.11\nWORKDIR /app\nCOPY . .\nCMD python app.py\n",
        },
        host=True,
    ),
    "heroku": Case(
        {
            "app.json": json.dumps({"name": "wired-heroku", "addons": ["heroku-postgresql:essential-0", "heroku-redis:mini"]}),
            "Procfile": "web: python app.py\n",
        },
        told={"DYNO": "web.1"},
    ),
    "fly": Case(
        {
            "fly.toml": """\
app = "wired-fly"
primary_region = "ams"
[processes]
web = "python app.py"
[http_service]
internal_port = 8080
"""
        },
        set=("DATABASE_URL=${{Postgres.DATABASE_URL}}", "REDIS_URL=${{Redis.REDIS_URL}}"),
        told={"FLY_REGION": "ams", "PRIMARY_REGION": "ams"},
    ),
    "vercel": Case(
        {
            "vercel.json": json.dumps(
                {"experimentalServices": {"web": {"entrypoint": "app.py", "command": "python app.py", "routePrefix": "/"}}}
            )
        },
        set=("ASK_SQL=POSTGRES_URL", "ASK_KV=KV_URL", "A=${{Postgres.DATABASE_URL}}", "B=${{Redis.REDIS_URL}}"),
        told={"VERCEL": "1", "VERCEL_ENV": "production"},
    ),
}  # fmt: skip


RARE = {"homeport", "render-by-parts", "fly", "vercel"}
"""Cases whose parts others go through as well."""


@pytest.mark.parametrize("dialect", [pytest.param(name, marks=[pytest.mark.slow] if name in RARE else []) for name in CASES])
def test_a_program_gets_in_by_what_its_file_says(home: Home, place: Path, dialect: str) -> None:
    """Both engines answer, at the addresses, with the logins and under the names that the dialect gives; then the project is gone."""
    case = CASES[dialect]
    name = f"wired-{dialect}"
    folder = place / name
    folder.mkdir()
    for file, text in {"app.py": PROBE, "requirements.txt": "", **case.files}.items():
        (folder / file).write_text(text)
    said = "".join(case.files.values()) + " ".join(case.set)
    values = [*case.set, *(f"{key}={value}" for key, value in ASK.items() if key not in said)]
    if values:
        home.cli("env", "set", *values, cwd=folder)
    result = home.up(folder)
    assert result["status"] == "live", result
    host = f"{result['services'][0]['name']}.{name}.localhost"
    found: dict[str, Any] = json.loads(home.get(host).body)
    assert found["postgres"] in ("shop", "store", "db", "postgres", "railway"), found["postgres"]
    assert found["redis"] == "yes"
    if case.host:
        assert found["host"] == "yes"
    assert case.told.items() <= found["env"].items()
    states = {row["kind"]: row["state"] for row in json.loads(home.cli("addons", "--json", cwd=folder))}
    assert states == {"postgres": "running", "redis": "running"}
    listed = json.loads(home.cli("env", "--all", "--json", cwd=folder))
    assert case.told.keys() - {"NAME", "DYNO"} <= {row["key"] for row in listed if row["origin"] == "platform"}
    home.cli("destroy", name, "--yes", cwd=folder)
