"""Variables and secrets as a person uses them: through the command line, into real processes, and out of them again."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from bench_apps import BenchApp
from homes import Home, home_in
from watching import Watcher

pytestmark = pytest.mark.xdist_group("e2e-secrets")

PROGRAM = """
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        data = json.dumps({k: v for k, v in os.environ.items() if k.startswith("V_")}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(data))); self.end_headers(); self.wfile.write(data)
    def log_message(self, *_): pass

ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


class Told(BenchApp):
    """A service that answers with its variables."""

    def __init__(self, folder: Path, name: str, **env: Any) -> None:
        super().__init__(folder, name, language="python")
        self.source.write_text(PROGRAM)
        self.web |= {"health": {"path": "/"}, "env": env}
        self.services["second"] = {"kind": "web", "command": self.command, "health": {"path": "/"}}
        self.write()


def told(home: Home, host: str) -> dict[str, str]:
    """The variables an instance was started with."""
    found: dict[str, str] = json.loads(home.get(host, "/").body)
    return found


def given(home: Home, text: str, *arguments: str, cwd: Path) -> None:
    """Set something from standard input."""
    import subprocess
    import sys

    argv = [sys.executable, "-m", "homeport", *arguments]
    done = subprocess.run(argv, env=home.env, input=text, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr


def test_from_nothing_to_a_first_value(tmp_path: Path) -> None:
    """In a folder that was never deployed: the deploy says what is missing, `env set` as it says takes it, and the deploy goes live.

    Nobody else on the machine can read what the control plane wrote meanwhile.
    """
    app = Told(tmp_path / "shop", "shop", V_TOKEN={"kind": "secret"})
    with home_in(tmp_path / "home") as home:
        missing = home.run("up", cwd=app.folder)
        assert missing.returncode == 4 and "homeport env set" in missing.stderr
        given(home, "one\n", "env", "set", "V_TOKEN=-", cwd=app.folder)
        assert "V_TOKEN" in home.cli("env", cwd=app.folder)
        assert "live" in home.cli("up", cwd=app.folder)
        assert told(home, app.host) == {"V_TOKEN": "one"}
        for name in ("homeport.db", "homeport.db-wal", "journal.db", "serve.log", "vault.key", "vault.json", "cli.key", "deploys"):
            mode = (home.path / name).stat().st_mode
            assert not stat.S_IMODE(mode) & 0o077, f"{name}: {stat.filemode(mode)}"


def test_layers_guard_and_rollback(home: Home, place: Path) -> None:
    """Group, file, all services, one service: each wins over the one before, `env` says so, and the processes agree. A value that would
    vanish stops the deploy with its name; a rollback brings the former versions back; another environment has its own."""
    app = Told(place / "layers", "layers", V_FILE="file", V_SET="file", V_MADE={"kind": "generated"})
    app.more["env_groups"] = {"low": {"env": {"V_A": "low", "V_B": "low", "V_C": "low"}}, "high": {"env": {"V_B": "high", "V_C": "high"}}}
    for service in app.services.values():
        service["env_groups"] = ["low", "high"]
    app.write()
    for arguments in (["V_SET=all", "V_C=all"], ["V_SET=own", "--service", "web"], ["V_FILE=staging", "--env", "staging"]):
        home.cli("env", "set", *arguments, "-p", "layers")
    assert home.up(app.folder)["status"] == "live"
    web, second = told(home, app.host), told(home, "second.layers.localhost")
    made = web.pop("V_MADE")
    assert web == {"V_A": "low", "V_B": "high", "V_C": "all", "V_FILE": "file", "V_SET": "own"}
    assert second == {"V_A": "low", "V_B": "high", "V_C": "all"}, "a value for a variable of another service's file is not for this one"
    rows = {(row["service"], row["key"]): row for row in home.json("env", "-p", "layers")}
    assert rows["web", "V_B"]["origin"] == "group high" and rows["web", "V_B"]["hides"] == ["group low"]
    assert rows["web", "V_SET"]["set_by"] == "this machine" and rows["web", "V_SET"]["set_at"] and rows["web", "V_SET"]["value"] is None
    home.cli("env", "unset", "V_SET", "--service", "web", "-p", "layers")
    home.cli("env", "set", "V_NEW=1", "-p", "layers")
    assert home.up(app.folder)["status"] == "live"
    assert told(home, app.host) == {**web, "V_SET": "all", "V_NEW": "1", "V_MADE": made}
    home.cli("env", "unset", "V_NEW", "-p", "layers")
    stopped = home.run("up", str(app.folder))
    assert stopped.returncode == 3 and "web.V_NEW" in stopped.stderr and "second.V_NEW" in stopped.stderr
    refused = home.run("env", "version", "V_NEW@1", "destroy", "-p", "layers")
    assert refused.returncode == 3 and "r2" in refused.stderr
    home.cli("rollback", "r1", "-p", "layers")
    assert told(home, app.host) == {**web, "V_MADE": made}
    assert home.up(app.folder, "--env", "staging", "--yes")["status"] == "live"
    assert home.json("env", "get", "V_FILE", "-p", "layers", "--env", "staging")["value"] == "staging"
    assert home.json("env", "get", "V_MADE", "-p", "layers", "--env", "staging")["value"] != made


class Vault(ThreadingHTTPServer):
    """A store whose one value changes."""

    daemon_threads = True
    value = "first"


class VaultHandler(BaseHTTPRequestHandler):
    server: Vault

    def do_GET(self) -> None:
        good = self.headers.get("X-Vault-Token") == "hvs.canary-token" and self.path == "/v1/secret/data/app/db"
        data = json.dumps({"data": {"data": {"password": self.server.value}}} if good else {"errors": []}).encode()
        self.send_response(200 if good else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: Any) -> None:
        return


@pytest.fixture
def vault() -> Iterator[Vault]:
    server = Vault(("127.0.0.1", 0), VaultHandler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.server_close()


def test_a_value_of_an_outside_store(home: Home, place: Path, vault: Vault) -> None:
    """A deploy fetches it, the next one fetches what was rotated there; a store that is away stops a deploy before anything is touched,
    and neither a restart nor a rollback needs it. Each look is a row with who looked and from where."""
    app = Told(place / "outside", "outside", V_DB={"kind": "external", "store": "corp", "path": "app/db", "key": "password"})
    early = home.run("up", str(app.folder))
    assert early.returncode != 0 and "stores add" in early.stderr
    arguments = ("stores", "add", "corp", "--kind", "vault", "--address", f"http://127.0.0.1:{vault.server_port}", "-o", "private=true")
    given(home, "hvs.canary-token\n", *arguments, cwd=place)
    assert home.up(app.folder)["status"] == "live"
    vault.value = "rotated"
    assert home.up(app.folder)["status"] == "live"
    assert told(home, app.host) == {"V_DB": "rotated"}
    vault.shutdown()
    vault.server_close()
    away = home.run("up", str(app.folder))
    assert away.returncode != 0 and "secret-store-unavailable" in away.stderr and "canary" not in away.stderr
    assert told(home, app.host) == {"V_DB": "rotated"} and len(home.json("releases", "-p", "outside")) == 2
    home.cli("rollback", "-p", "outside")
    assert told(home, app.host) == {"V_DB": "first"}
    rows = home.json("audit", "--action", "fetch")
    assert [row["subject"] for row in rows] == ["outside/production from corp: app/db#password"] * 3
    assert all(row["actor"] == "this machine" and row["origin"].startswith("deploy d") for row in rows)


def test_the_log_says_who_and_from_where_and_finds_what_was_done_to_it(home: Home, tmp_path: Path) -> None:
    """A row names the key, the address and the account of this machine; the log is verified with an anchor, exported, and a forged
    anchor is an error with its exit code."""
    import getpass

    home.cli("env", "set", "V_X=1", "-p", "layers")
    home.cli("env", "get", "V_X", "-p", "layers")
    row = home.json("audit", "--action", "reveal", "--subject", "layers/")[-1]
    assert row["actor"] == "this machine" and row["origin"].endswith(f"from 127.0.0.1 ({getpass.getuser()})")
    line = home.cli("audit", "verify")
    anchor = line.rpartition(" ")[2].strip()
    assert home.json("audit", "verify", "--anchor", anchor)["ok"]
    number = anchor.partition(":")[0]
    forged = home.run("audit", "verify", "--anchor", f"{number}:{'0' * 64}")
    assert forged.returncode != 0 and "audit-broken" in forged.stderr
    home.cli("audit", "export", str(tmp_path / "log.jsonl"))
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[int(number) - 1])["digest"] == anchor.partition(":")[2]
    assert stat.S_IMODE((tmp_path / "log.jsonl").stat().st_mode) == 0o600


def test_the_vault_key_is_lost(tmp_path: Path) -> None:
    """Without the key, and without the file it wraps, the control plane does not start and says why; the application is served all the
    time. What was lost is begun anew on purpose only, and values can be set again."""
    app = Told(tmp_path / "shop", "shop", V_TOKEN={"kind": "secret"})
    with home_in(tmp_path / "home") as home:
        home.serve()
        home.cli("env", "set", "V_TOKEN=one", "-p", "shop")
        assert home.up(app.folder)["status"] == "live"
        home.kill()
        key = (home.path / "vault.key").read_bytes()
        (home.path / "vault.key").unlink()
        assert "error[vault-key-missing]" in home.run("serve").stderr
        assert told(home, app.host) == {"V_TOKEN": "one"}
        (home.path / "vault.json").rename(home.path / "away")
        assert "error[vault-damaged]" in home.run("serve").stderr
        shutil.copy(home.path / "away", home.path / "vault.json.lost")
        home.serve()
        shown = home.run("env", "get", "V_TOKEN", "-p", "shop")
        assert shown.returncode != 0 and "secret-does-not-open" in shown.stderr
        assert told(home, app.host) == {"V_TOKEN": "one"}
        home.cli("env", "set", "V_TOKEN=two", "-p", "shop")
        assert home.up(app.folder)["status"] == "live"
        assert told(home, app.host) == {"V_TOKEN": "two"}
        assert key != (home.path / "vault.key").read_bytes()


def test_a_new_vault_gives_add_ons_new_passwords(tmp_path: Path) -> None:
    """With the key lost, the reset wants a yes, keeps the former vault, and gives add-ons new passwords while the application keeps its
    connection; what is lost is named, and once it is set again a deploy has everything, with the data that was there."""
    app = Told(tmp_path / "shop", "shop", V_TOKEN={"kind": "secret"}, V_URL={"kind": "addon", "addon": "db"})
    app.more["addons"] = {"db": {"kind": "postgres"}, "cache": {"kind": "redis"}}
    app.write()
    with home_in(tmp_path / "home") as home:
        home.serve()
        assert home.json("vault", "reset") == {"new": False, "aside": [], "addons": [], "values": []}
        given(home, "one", "env", "set", "V_TOKEN=-", "-p", "shop", cwd=tmp_path)
        assert home.up(app.folder)["status"] == "live"
        home.cli("psql", "-p", "shop", "-c", "create table kept as select 41 + 1 as answer")
        before = told(home, app.host)["V_URL"]
        home.kill()
        (home.path / "vault.key").unlink()
        refused = home.run("vault", "reset")
        assert refused.returncode == 3 and "confirmation-needed" in refused.stderr and (home.path / "vault.json").is_file()
        done = home.json("vault", "reset", "--yes")
        assert done["new"] and done["aside"] == ["vault.json.lost"]
        assert [(one["addon"], one["error"]) for one in done["addons"]] == [("db", ""), ("cache", "")]
        assert [value["name"] for value in done["values"]] == ["V_TOKEN"] and "homeport env set V_TOKEN=-" in done["values"][0]["fix"]
        assert told(home, app.host)["V_URL"] == before
        assert "42" in home.cli("psql", "-p", "shop", "-c", "select answer from kept")
        given(home, "two", "env", "set", "V_TOKEN=-", "-p", "shop", cwd=tmp_path)
        assert home.up(app.folder)["status"] == "live"
        after = told(home, app.host)
        assert after["V_TOKEN"] == "two" and urlsplit(after["V_URL"]).password != urlsplit(before).password
        assert home.json("vault", "lost") == [] and "opens" in home.cli("vault", "lost")


def test_passwords_of_add_ons_are_in_no_argument(tmp_path: Path) -> None:
    """Provision, connect, rotate, back up and deploy again with a vault key from outside: no password and no key is in an argument list
    or in a file of the system's temporary folder, not even for a moment; only the control plane has the key in its variables."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    app = Told(tmp_path / "shop", "shop", V_URL={"kind": "addon", "addon": "db"})
    app.more["addons"] = {"db": {"kind": "postgres"}, "cache": {"kind": "redis"}}
    app.write()
    seen: list[tuple[str, bytes]] = []
    with home_in(tmp_path / "home", {"HOMEPORT_VAULT_KEY": key}) as home:
        home.serve()
        with Watcher([Path("/tmp"), Path("/dev/shm")], lambda place, data: seen.append((place, data[: 1 << 20]))):
            assert home.up(app.folder)["status"] == "live"
            passwords = {urlsplit(told(home, app.host)["V_URL"]).password or ""}
            assert "1" in home.cli("psql", "-p", "shop", "-c", "select 1")
            home.cli("valkey-cli", "-p", "shop", "PING")
            home.cli("addons", "rotate", "db", "-p", "shop")
            home.cli("addons", "rotate", "cache", "-p", "shop")
            home.cli("backup", "now", "-p", "shop", code=None)
            home.cli("vault", "status")
            assert not (home.path / "vault.key").exists()
            passwords.add(urlsplit(told(home, app.host)["V_URL"]).password or "")
            for name in ("db", "cache"):
                connection = home.api("POST", "/api/v1/projects/shop/environments/production/addons", {"name": name})
                passwords |= {str(connection[1].get("password", ""))} - {""}
        assert len(passwords - {""}) == 4, "two of the service, before and after, and two of the owners"
        for place, data in seen:
            for text in (*passwords, key):
                assert not text or text.encode() not in data, place
        for pid in home.processes():
            if pid != home.pid():
                with contextlib.suppress(OSError):
                    assert key.encode() not in Path(f"/proc/{pid}/environ").read_bytes(), Path(f"/proc/{pid}/cmdline").read_bytes()
