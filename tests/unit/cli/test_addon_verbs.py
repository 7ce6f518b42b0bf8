"""The verbs about add-ons, as a person types them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doors import Door, go_live, open_door
from engines import PaperEngine
from typer.testing import CliRunner, Result

from homeport.cli.addons import _metric
from homeport.cli.errors import CliError, Interrupted
from homeport.cli.forward import Relay
from homeport.cli.main import app
from homeport.deploys.addon_undo import AddOnUndo
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.valkey import ValkeyDriver
from homeport.drivers.reach import forget, reachable
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.settings import Settings

ENGINES = Path(tempfile.gettempdir()) / f"homeport-test-engines-{os.getuid()}"
SPEC: dict[str, Any] = {
    "services": {"web": {"kind": "web", "command": "run"}},
    "addons": {"db": {"kind": "postgres"}, "maria": {"kind": "mariadb"}, "cache": {"kind": "redis"}},
}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    home = reachable(tmp_path_factory.mktemp("verbs") / "home")
    ENGINES.mkdir(mode=0o755, exist_ok=True)
    valkey = ValkeyDriver(home, Toolchains(ENGINES, network=Settings.from_environment().network, search=[]))
    with open_door(home) as door:
        paper = PaperEngine(home)
        door.platform.addons.drivers = {"postgres": paper, "mariadb": paper, "redis": valkey}
        folder = tmp_path_factory.mktemp("shop").resolve()
        door.platform.addons.provision(go_live(door.platform, SPEC, origin=str(folder)))
        (home / "serve.json").write_text(json.dumps({"pid": os.getpid(), "api": f"http://127.0.0.1:{door.port}"}))
        (home / "cli.key").write_text(door.admin)
        yield door
        door.platform.addons.stop_all()
        valkey.close()
    forget(home)


@pytest.fixture(autouse=True)
def here(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the project's folder, with its home."""
    monkeypatch.setenv("HOMEPORT_HOME", str(door.platform.home))
    row = door.platform.store.environments.get("shop", "production")
    assert row is not None
    monkeypatch.chdir(row.origin)


def typed(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code and (code or result.exception is None), (result.output, result.exception)
    return result


def refused(*words: str) -> CliError:
    result = CliRunner().invoke(app, list(words))
    assert isinstance(result.exception, CliError), result.output
    return result.exception


def test_the_list_names_each_add_on() -> None:
    """One row each, with state and address; JSON has every figure."""
    lines = typed("addons").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ADD-ON", "db", "maria", "cache"]
    rows = {row["name"]: row for row in json.loads(typed("addons", "--json").stdout)}
    assert rows["cache"]["state"] == "running" and rows["cache"]["memory"] > 1 << 20
    assert "cache hit ratio" in typed("addons", "info", "cache").stdout
    assert "Ready to accept connections" in typed("addons", "logs", "cache").stdout


WORDS = (
    ("psql", "-c", "select 1"), ("mysql", "-c", "select 1"), ("valkey-cli", "FLUSHALL"), ("port-forward", "db"),
    ("addons", "rotate", "db"), ("addons", "restart", "db"), ("addons", "upgrade", "db"), ("addons", "undo", "db"),
    ("restore", "--to", "10m"),
)  # fmt: skip


@pytest.mark.parametrize("words", WORDS, ids=lambda words: " ".join(words[:2]))
def test_a_folder_that_was_never_deployed_touches_no_other_project(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verbs that touch data say so, with the name to give; looking goes on with the only project there is."""
    monkeypatch.chdir(tmp_path)
    error = refused(*words)
    assert (error.code, error.body["what"]) == ("not-found", "Nothing was done.")
    assert f"{tmp_path} was never deployed" in error.body["why"] and "--project shop" in error.body["fix"]
    assert typed("addons", "info", "db").stdout


def test_a_folder_that_was_deployed_as_two_projects_asks_which(door: Door) -> None:
    """The one with the environment is meant where only one has it; a verb that touches data does not choose between two."""
    go_live(door.platform, {"services": {}}, project="again", origin=str(Path.cwd()))
    try:
        error = refused("psql", "-c", "select 1")
        assert "was deployed as again, shop" in error.body["why"] and "--project again" in error.body["fix"]
    finally:
        door.control.destroy("again", actor="ada")
    go_live(door.platform, {"services": {}}, project="again", environment="staging", origin=str(Path.cwd()))
    try:
        assert typed("valkey-cli", "PING").stdout == "PONG\n"
    finally:
        door.control.destroy("again", actor="ada")


def test_a_project_that_is_named_is_reached_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--project` does without its folder, and a folder within the project's is part of it."""
    inside = Path.cwd() / "services" / "web"
    inside.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert typed("valkey-cli", "--project", "shop", "PING").stdout == "PONG\n"
    monkeypatch.chdir(inside)
    assert typed("valkey-cli", "PING").stdout == "PONG\n"


class Became(Exception):
    """Instead of the client that takes this process's place."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def execve(program: str, argv: list[str], env: dict[str, str]) -> None:
        calls.extend((program, argv, env))
        raise Became

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setenv("PGSSLMODE", "require")
    return calls


@pytest.mark.parametrize(("verb", "variable", "word"), [("psql", "PGPASSWORD", "-c"), ("mysql", "MYSQL_PWD", "--execute=select 1")])
def test_clients_get_the_password_by_their_environment_alone(door: Door, became: list[Any], verb: str, variable: str, word: str) -> None:
    """No argument of the client holds the password, and nothing of the caller's own settings reaches it."""
    assert isinstance(CliRunner().invoke(app, [verb, "-c", "select 1"]).exception, Became)
    program, argv, env = became
    assert program == "/usr/bin/false" and argv[0] == program and word in argv
    name = "db" if verb == "psql" else "maria"
    assert env[variable] == door.platform.secrets.reveal("shop", "production", f"addon.{name}/owner.password")
    assert not any(env[variable] in argument for argument in argv)
    assert "PGSSLMODE" not in env and "HOMEPORT_HOME" not in env


def test_an_add_on_of_another_kind_is_refused() -> None:
    """`psql` of a Valkey add-on says what it is; JSON without a statement says what is missing."""
    assert refused("psql", "cache", "-c", "select 1").code == "addon-refused"
    assert refused("psql", "nothing").code == "not-found"
    assert refused("psql", "--json").code == "usage"
    assert refused("valkey-cli", "--json").code == "usage"


def test_one_command_of_valkey(door: Door) -> None:
    """Answers are text or JSON, and an error of the server ends with its sentence."""
    del door
    assert typed("valkey-cli", "SET", "greeting", "hello world").stdout == "OK\n"
    assert typed("valkey-cli", "GET", "greeting").stdout == "hello world\n"
    assert typed("valkey-cli", "GET", "nothing").stdout == "(nil)\n"
    assert json.loads(typed("valkey-cli", "--json", "MGET", "greeting", "nothing").stdout) == ["hello world", None]
    error = refused("valkey-cli", "LPUSH", "greeting", "x")
    assert error.code == "client-failed" and "WRONGTYPE" in error.body["why"]


def test_a_pipe_of_valkey_commands() -> None:
    """Without a command every line of standard input is one."""
    result = CliRunner().invoke(app, ["valkey-cli"], input='SET a "1 2"\n\nGET a\nquit\nSET a 9\n')
    assert result.stdout == "OK\n1 2\n"


def test_forwarding_shows_no_password_unless_asked(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address has the relay's port; the password is there only with --show-password, which is audited."""
    monkeypatch.setattr(Relay, "serve", lambda _self: None)
    audit = door.platform.secrets.audit.rows
    before = len(audit.list(action="connect", limit=1000))
    bare = json.loads(typed("port-forward", "db", "--json").stdout)
    assert bare["url"] == f"postgresql://owner@127.0.0.1:{bare['port']}/shop"
    assert len(audit.list(action="connect", limit=1000)) == before
    full = json.loads(typed("port-forward", "db", "--json", "--show-password").stdout)
    assert str(door.platform.secrets.reveal("shop", "production", "addon.db/owner.password")) in full["url"]
    assert len(audit.list(action="connect", limit=1000)) == before + 1


def test_a_relay_carries_both_ways_until_both_are_done() -> None:
    """What is sent arrives, the end of one side is passed on, and closing ends the relay."""
    with socket.create_server(("127.0.0.1", 0)) as target:
        relay = Relay(target.getsockname()[:2])
        serving = threading.Thread(target=relay.serve)
        serving.start()
        with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as near:
            far, _ = target.accept()
            with far:
                near.sendall(b"asked")
                near.shutdown(socket.SHUT_WR)
                assert far.recv(100) == b"asked" and far.recv(100) == b""
                far.sendall(b"answered")
            assert near.recv(100) == b"answered" and near.recv(100) == b""
        relay.close()
        serving.join(10)
        assert not serving.is_alive()


def test_a_taken_port_is_said() -> None:
    """The error names the port."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken, pytest.raises(CliError, match="Nothing is forwarded"):
        Relay(("127.0.0.1", 1), taken.getsockname()[1])


# --- what was put aside -------------------------------------------------------------------------------------------


def other(door: Door) -> None:
    """A project beside the others, with a Valkey that runs."""
    release = go_live(door.platform, {**SPEC, "addons": {"cache": {"kind": "redis"}}}, project="other", origin="/nonexistent/other")
    door.platform.addons.provision(release)


def test_a_removal_is_taken_back(door: Door) -> None:
    """Data of a removed project comes back before its next deploy or after it; what was there meanwhile is kept, and comes back as well."""
    other(door)
    typed("valkey-cli", "-p", "other", "SET", "is", "first")
    door.control.destroy("other", actor="ada")
    (grave,) = json.loads(typed("addons", "kept", "-p", "other", "--json").stdout)
    assert (grave["addon"], grave["kind"]) == ("cache", "redis") and grave["tombstone"].startswith("other-production-cache.")
    assert grave["tombstone"] in typed("addons", "kept", "-p", "other").stdout
    assert refused("addons", "undo", "nothing", "-p", "other").body["why"].endswith("(of these there is: cache).")
    assert "again." in typed("addons", "undo", "cache", "-p", "other").stdout
    assert typed("addons", "kept", "-p", "other").stdout == "Nothing of other/production is kept.\n"
    other(door)
    assert typed("valkey-cli", "-p", "other", "GET", "is").stdout == "first\n"

    door.control.destroy("other", actor="ada")
    other(door)
    typed("valkey-cli", "-p", "other", "SET", "is", "second")
    back = json.loads(typed("addons", "undo", "cache", "-p", "other", "--json").stdout)
    assert typed("valkey-cli", "-p", "other", "GET", "is").stdout == "first\n"
    typed("addons", "undo", "cache", "-p", "other", "--from", back["former"])
    assert typed("valkey-cli", "-p", "other", "GET", "is").stdout == "second\n"
    assert "addon.taken-back" in [event.kind for event in door.platform.store.events.list("other", "production", limit=5)]
    door.control.destroy("other", actor="ada")


@pytest.mark.parametrize("at", ["claimed", "buried", "moved"])
def test_an_undo_that_a_crash_cut_short_is_gone_through(door: Door, at: str) -> None:
    """Wherever it stopped, the next start of the control plane ends with the former data in place and the other kept."""
    id = AddOnId(project="other", environment="production", name="cache")
    other(door)
    typed("valkey-cli", "-p", "other", "SET", "is", "former")
    door.control.destroy("other", actor="ada")
    other(door)
    grave = next(view for view in AddOnUndo(door.control).kept("other", "production"))
    detail = {"addon": "cache", "engine": "redis", "tombstone": grave.tombstone}
    door.platform.store.operations.begin([("undo", "other", "production")], **detail)
    driver = door.platform.addons.drivers["redis"]
    if at != "claimed":
        driver.destroy(id)
    if at == "moved":
        driver.undo_destroy(id, door.platform.home / "tombstones" / grave.tombstone)
    door.control.let_go()
    door.platform.addons.forget(id)
    assert door.platform.store.operations.all() == []
    assert typed("valkey-cli", "-p", "other", "GET", "is").stdout == "former\n"
    kept = {view.tombstone for view in AddOnUndo(door.control).kept("other", "production")}
    known = {row.key for row in door.platform.store.ledger.list("tombstone")}
    assert grave.tombstone not in kept and kept and kept <= known
    door.control.destroy("other", actor="ada")


def test_forwarding_ends_with_an_interrupt(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is the way to end it, so nothing is said to go on."""
    del door

    def interrupted(_self: Relay) -> None:
        raise Interrupted

    monkeypatch.setattr(Relay, "serve", interrupted)
    assert typed("port-forward", "db").exit_code == 0


def test_figures_are_told_by_what_they_mean() -> None:
    """A figure of one replica bears its name, and a share is one of a hundred."""
    assert _metric("replica_lag_bytes.replica 0", 96) == ("replica 0 lag", "96 B")
    assert _metric("cache_hit_ratio", 0.5) == ("cache hit ratio", "50.0%")
    assert _metric("memory_bytes", 2048) == ("data in memory", "2.0 KiB")
