"""Add-ons between deploys: brought up first, brought back, rotated with overlap, and asked whether they are well."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from doors import Door, go_live, open_door
from engines import PaperEngine

from homeport.deploys import external
from homeport.deploys.addon_keeper import ROTATION, AddOnKeeper
from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.errors import AddOnFailed
from homeport.drivers.addons.records import Place
from homeport.model.spec import Spec
from homeport.store.deploys import DeployRow
from homeport.store.instances import InstanceRow
from homeport.store.operations import EnvironmentBusy

SPEC: dict[str, Any] = {
    "services": {"web": {"kind": "web", "command": "run"}},
    "addons": {"db": {"kind": "postgres", "aliases": ["database"]}},
}
ID = AddOnId(project="shop", environment="production", name="db")
PATH = "/api/v1/projects/shop/environments/production/addons"


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with open_door(tmp_path / "home") as door:
        door.platform.addons.drivers = {"postgres": PaperEngine(door.platform.home)}
        yield door


def engine(door: Door) -> PaperEngine:
    found = door.platform.addons.drivers["postgres"]
    assert isinstance(found, PaperEngine)
    return found


def up(door: Door, spec: dict[str, Any] = SPEC) -> None:
    """Live, with its add-ons running."""
    door.platform.addons.provision(go_live(door.platform, spec))


def looked(keeper: AddOnKeeper) -> None:
    keeper._due.set()
    keeper.look()
    assert keeper._thread is not None
    keeper._thread.join(10)


def kinds(door: Door) -> list[str]:
    return [row.kind for row in door.platform.store.events.list("shop", "production", limit=100)]


def test_live_add_ons_are_brought_up_at_the_start(door: Door) -> None:
    """What a live release needs runs before its instances are looked at; what is not live is left alone."""
    go_live(door.platform, SPEC)
    AddOnKeeper(door.platform).recover()
    assert engine(door).running == {ID.slug}


def test_an_add_on_that_does_not_come_up_is_tried_again_and_told_of_once(door: Door) -> None:
    """Each look tries again; once it is up the environment's instances are due."""
    go_live(door.platform, SPEC)
    engine(door).broken = "The disk is full."
    keeper = AddOnKeeper(door.platform)
    keeper.recover()
    looked(keeper)
    assert kinds(door) == ["addon.failed"] and keeper.come_back() == []
    engine(door).broken = ""
    looked(keeper)
    assert [row.environment for row in keeper.come_back()] == ["production"]
    assert keeper.come_back() == []


def test_an_end_makes_a_look_due_at_once(door: Door) -> None:
    """A driver's exit wakes the keeper, which starts it again and writes it down."""
    go_live(door.platform, SPEC)
    keeper = AddOnKeeper(door.platform)
    woken: list[bool] = []
    door.platform.wake = lambda: woken.append(True)
    keeper.start()
    engine(door).ended = [ID]
    engine(door).listeners[0](ID)
    assert woken
    keeper.look()
    assert keeper._thread is not None
    keeper._thread.join(10)
    assert kinds(door) == ["addon.restarted"]
    keeper.stop()


def test_the_list_shows_state_and_figures(door: Door) -> None:
    """Before it is provisioned an add-on is missing; then it runs with its engine, address and figures."""
    go_live(door.platform, SPEC)
    assert [row["state"] for row in door.ask("GET", PATH).body] == ["missing"]
    up(door)
    row = door.ask("GET", f"{PATH}/database").body
    assert (row["name"], row["state"], row["engine"]) == ("db", "running", "PostgreSQL 1 (bundled)")
    assert (row["host"], row["port"], row["size"], row["connections"]) == ("127.0.0.1", 5432, 4096, 2)
    assert row["consumers"] == ["web"] and row["notes"] == ["it is made of paper"]
    assert door.ask("GET", f"{PATH}/nothing").status == 404


def test_connecting_is_written_down_before_the_password_is_told(door: Door) -> None:
    """With the password the audit log has a row; without, the answer has none and the log neither."""
    go_live(door.platform, SPEC)
    bare = door.ask("POST", PATH, {"name": "db", "reveal": False}).body
    assert bare["password"] == "" and bare["url"] == "postgresql://owner@127.0.0.1:5432/shop"
    assert not door.platform.secrets.audit.rows.list(action="connect")
    answer = door.ask("POST", PATH, {"kind": "postgres"})
    assert answer.body["password"] and answer.body["password"] in answer.body["url"] and answer.headers["cache-control"] == "no-store"
    (row,) = door.platform.secrets.audit.rows.list(action="connect")
    assert row.subject == "shop/production/addon.db"
    assert door.ask("POST", PATH, {"kind": "redis"}).body["code"] == "not-found"
    assert door.ask("POST", PATH, {"name": "db", "kind": "redis"}).body["code"] == "addon-refused"
    assert door.ask("POST", PATH, {"name": "db"}, key=door.key("read")).status == 403


def test_logs_of_an_add_on_are_masked(door: Door) -> None:
    """A server that prints a password prints dots."""
    up(door)
    (line,) = door.ask("GET", f"{PATH}/db/logs").body
    assert line.startswith("password is ") and engine(door).passwords[ID.slug, ""][-1] not in line


def test_old_passwords_end_when_nothing_uses_them(door: Door) -> None:
    """A rotation leaves both passwords until every instance that was started before it is gone."""
    up(door)
    started = datetime.now(UTC)
    door.platform.store.instances.add(
        [InstanceRow("i", "shop", "production", "web", 1, 0, "live", "127.0.0.1", 1, "healthy", 0, 0, "", started, None)]
    )
    answer = door.ask("POST", f"{PATH}/db/rotate", {"deploy": False})
    assert answer.status == 202 and answer.body["consumers"] == ["", "web"]
    assert door.platform.secrets.reveal("shop", "production", "addon.db/web.password") == "fresh-web-1"
    keeper = AddOnKeeper(door.platform)
    looked(keeper)
    assert engine(door).retired == [""] and len(engine(door).passwords[ID.slug, "web"]) == 2
    door.platform.store.instances.change("i", started_at=datetime.now(UTC))
    looked(keeper)
    assert engine(door).retired == ["", "web"]
    assert engine(door).passwords[ID.slug, "web"] == ["fresh-web-1"] and not door.platform.store.ledger.list(ROTATION)
    rows = door.platform.secrets.audit.rows.list(action="rotate")
    assert [row.subject.rpartition("/")[2] for row in rows] == ["owner.password@2", "web.password@2"]


def test_a_rotation_is_handed_out_by_a_release_of_its_own(door: Door) -> None:
    """The live release is recorded once more under the next number, and a deploy of it is asked for."""
    up(door)
    asked: list[dict[str, Any]] = []
    real = door.control.request_deploy

    def listened(**wanted: Any) -> DeployRow:
        asked.append(wanted)
        return real(**wanted)

    door.control.request_deploy = listened  # type: ignore[method-assign]
    door.control._dispatch = lambda *_: None  # type: ignore[method-assign]
    assert door.ask("POST", f"{PATH}/db/rotate", {}).body["deploy"]
    assert asked[0]["release"] == 2 and asked[0]["reason"] == "passwords of db rotated"
    again = door.platform.store.releases.get("shop", "production", 2)
    assert again is not None and again.release.id == "r2" and again.release.spec.addons.keys() == {"db"}


def test_conventional_variables_are_given_where_nothing_disputes_them(door: Door) -> None:
    """`DATABASE_URL` of the only database is below what the file sets; of two databases no service gets it by itself."""
    web = {"kind": "web", "command": "run"}
    own = {**web, "env": {"DATABASE_URL": "sqlite://"}}
    release = go_live(door.platform, {"services": {"web": web, "own": own}, "addons": SPEC["addons"]})
    assert door.platform.environment_of(release, "web")["DATABASE_URL"].startswith("postgresql://web:")
    assert door.platform.environment_of(release, "own")["DATABASE_URL"] == "sqlite://"
    two = go_live(door.platform, {"services": {"web": web}, "addons": {**SPEC["addons"], "other": {"kind": "postgres"}}})
    assert "DATABASE_URL" not in door.platform.environment_of(two, "web")
    engine(door).more = {"DIRECT_URL": "postgresql://"}
    door.platform.addons.forget(ID)
    assert "DIRECT_URL" in door.platform.environment_of(release, "web")
    assert "DIRECT_URL" not in door.platform.environment_of(two, "web"), "it would not be that of the other one"


def test_a_version_that_a_deploy_does_not_move_to_is_told(door: Door) -> None:
    """The plan says which version the data is of, and whether to move the data or to change the file."""
    up(door)
    door.platform.addons.home = door.platform.home
    place = Place(door.platform.home, ID)
    place.write(place.get().model_copy(update={"version": "17", "data": "data-17"}))

    def told(version: str) -> list[str]:
        spec = Spec.model_validate({"name": "shop", "addons": {"db": {"kind": "postgres", "version": version}}})
        return [text for text in door.platform.addons.notes(spec, "db", "production") if "its data is of version 17" in text]

    assert told("18")[0].endswith("`homeport addons upgrade db --to 18` moves it")
    assert told("16")[0].endswith("change `version` in the file")
    assert told("17") == told("") == []
    engine(door).notes = lambda _: ["PostgreSQL 16 is not on this machine: PostgreSQL 17 (bundled) serves it"]  # type: ignore[method-assign,assignment]
    assert told("16") == [], "nothing can be done about it"


def test_an_add_on_that_the_file_names_no_longer_stays_in_the_list(door: Door) -> None:
    """It runs on with its data, for a rollback; that is told, and nobody counts as using it."""
    up(door)
    up(door, {**SPEC, "addons": {"other": {"kind": "postgres"}}})
    rows = {row["name"]: row for row in door.ask("GET", PATH).body}
    assert rows.keys() == {"other", "db"} and rows["other"]["detail"] == ""
    assert (rows["db"]["state"], rows["db"]["detail"], rows["db"]["consumers"]) == ("running", "the file names it no longer", [])
    assert door.ask("GET", f"{PATH}/db").body["detail"] == "the file names it no longer"


def test_a_password_of_the_file_is_not_rotated(door: Door) -> None:
    """The file would win again at the next deploy, so it is refused with the reason."""
    up(door, {**SPEC, "addons": {"db": {"kind": "postgres", "password": "written-in-the-file"}}})
    answer = door.ask("POST", f"{PATH}/db/rotate", {})
    assert (answer.status, answer.body["code"]) == (422, "addon-refused")


def test_restarting_stops_and_starts(door: Door) -> None:
    """It runs afterwards, and who did it is told."""
    up(door)
    assert door.ask("POST", f"{PATH}/db/restart", {}).body["state"] == "running"
    assert kinds(door) == ["addon.restarted"]


VERBS = [("rotate", "rotation", "A rotation"), ("restart", "restart", "A restart"), ("upgrade", "upgrade", "An upgrade")]


@pytest.mark.parametrize(("verb", "kind", "title"), VERBS)
def test_what_changes_an_add_on_has_its_environment_alone(door: Door, verb: str, kind: str, title: str) -> None:
    """A restore, a deploy and these exclude each other; whoever comes second is told what runs, and afterwards nothing is held."""
    up(door)
    store = door.platform.store
    (held,) = store.operations.begin([("restore", "shop", "production")])
    answer = door.ask("POST", f"{PATH}/db/{verb}", {})
    assert (answer.status, answer.body["code"]) == (409, "environment-busy")
    assert "A restore of shop/production" in answer.body["why"] and answer.body["what"] == "Nothing was changed."
    store.operations.end(held.id)
    seen: list[tuple[str, str]] = []

    def busy(*_: object) -> None:
        with pytest.raises(EnvironmentBusy) as refused:
            store.operations.begin([("fork", "shop", "production")])
        seen.append((refused.value.kind, refused.value.why.partition(" of ")[0]))
        raise AddOnFailed(name="db", why="It does not want to.")

    engine(door).rotate = engine(door).stop = engine(door).upgrade = busy  # type: ignore[method-assign,assignment]
    assert door.ask("POST", f"{PATH}/db/{verb}", {}).body["code"] == "addon-failed"
    assert seen == [(kind, title)] and store.operations.all() == []


def test_a_deploy_that_is_asked_for_meanwhile_follows_and_hands_the_passwords_out(door: Door) -> None:
    """It waits for the rotation, says so, and is not put aside for a deploy of the rotation's own."""
    up(door)
    paper, real = engine(door), engine(door).rotate
    asked: list[DeployRow] = []

    def slowly(id: AddOnId, consumer: str) -> Any:
        if not asked:
            asked.append(door.control.request_deploy(actor="ada", project="shop", environment="production", folder="/nonexistent"))
        return real(id, consumer)

    begun: list[str] = []
    door.control.durable.start = lambda _kind, id, _argument: begun.append(id)  # type: ignore[method-assign,assignment]
    paper.rotate = slowly  # type: ignore[method-assign]
    answer = door.ask("POST", f"{PATH}/db/rotate", {})
    assert answer.status == 202 and answer.body["deploy"] == asked[0].id
    assert begun == [asked[0].id]
    said = door.platform.progress.of(asked[0].id).path.read_text()
    assert "Waiting: a rotation of this environment is under way" in said


def test_a_rotation_that_a_crash_cut_short_holds_nothing_up(door: Door) -> None:
    """The next start of the control plane lets go of its claim: both passwords work, and deploys go on."""
    up(door)
    for kind in ("rotation", "restart", "upgrade"):
        door.platform.store.operations.begin([(kind, "shop", f"{kind}-environment")])
    door.control.let_go()
    assert door.platform.store.operations.all() == []


# --- external add-ons ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "wanted", "value"),
    [
        ("neo4j+s://neo4j:p%40ss@db.example.com", "hostport", "db.example.com:7687"),
        ("neo4j+s://neo4j:p%40ss@db.example.com", "password", "p@ss"),
        ("postgresql://u:p@h:6543/shop?sslmode=require", "database", "shop"),
        ("postgresql+asyncpg://u:p@h/shop", "port", "5432"),
        ("https://x.supabase.co", "url", "https://x.supabase.co"),
        ("https://x.supabase.co", "port", "443"),
        ("strange://host", "port", None),
        ("http://[::1", "host", None),
    ],
)
def test_properties_of_an_address(url: str, wanted: str, value: str | None) -> None:
    """Host, port, user, password and database are taken from the address, the port from the scheme where it names none."""
    assert external.property_of(url, wanted) == value


def test_addresses_lose_their_password(door: Door) -> None:
    """The user stays, the password goes, and what has none is unchanged."""
    assert external.without_password("redis://default:secret@h:1/0") == "redis://default@h:1/0"
    assert external.without_password("https://h/path?q=1") == "https://h/path?q=1"


class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response({"/ready": 200, "/moved": 302}.get(self.path, 503))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def site() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_health_of_an_outside_service() -> None:
    """A path must answer 2xx, an address without a path must take a connection, and the reason never holds the address."""
    with site() as port:
        assert external.check(f"http://u:secret@127.0.0.1:{port}", "/ready").state == "well"
        assert external.check(f"http://127.0.0.1:{port}", "down").detail == "its health path answered 503"
        assert "redirect" in external.check(f"http://127.0.0.1:{port}", "/moved").detail
        assert external.check(f"bolt://u:secret@127.0.0.1:{port}").state == "well"
    with contextlib.closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))
        found = external.check(f"bolt://u:secret@127.0.0.1:{closed.getsockname()[1]}")
    assert found.state == "unwell" and "secret" not in found.detail
    assert external.check("mongodb+srv://cluster0.example.net").state == "unknown"


def test_changes_of_health_are_told_once(door: Door) -> None:
    """One event when it stops answering, one when it answers again."""
    with site() as port:
        url = f"http://127.0.0.1:{port}"
        addon = {"kind": "external", "type": "weaviate", "url": url, "health_path": "/ready", "health_interval": "1ms"}
        go_live(door.platform, {**SPEC, "addons": {"search": addon}})
        keeper = AddOnKeeper(door.platform)
        looked(keeper)
        assert kinds(door) == [] and door.ask("GET", PATH).body[0]["state"] == "well"
    looked(keeper)
    looked(keeper)
    assert kinds(door) == ["addon.unwell"]


def test_an_address_that_is_secret_reaches_the_service_that_refers_to_it(door: Door) -> None:
    """A secret or unsaid address is a vault value that a deploy asks for and a release pins; its parts can be referred to."""
    book = door.platform.secrets
    book.set("shop", "production", "GRAPH_URL", "neo4j://me:s3cret@graph.example.com:7777", by="me")
    spec = {
        "services": {
            "web": {
                "kind": "web",
                "command": "run",
                "env": {
                    "HOST": {"kind": "addon", "addon": "graph", "property": "host"},
                    "WHOLE": {"kind": "addon", "addon": "graph", "property": "url"},
                },
            }
        },
        "addons": {"graph": {"kind": "external", "type": "neo4j"}},
    }
    release = go_live(door.platform, spec)
    env = door.platform.environment_of(release, "web")
    assert env["HOST"] == "graph.example.com" and env["WHOLE"] == "neo4j://me:s3cret@graph.example.com:7777"
    assert "GRAPH_URL" not in env
    assert door.platform.addons.url(release, "graph") == env["WHOLE"]
    assert door.ask("POST", PATH, {"name": "graph"}).body["port"] == 7777


def test_a_pool_closes_once_nothing_that_uses_it_is_left(door: Door) -> None:
    """Not while the live release asks for it, and not while an instance of another release is there."""
    keeper = AddOnKeeper(door.platform)
    up(door, {**SPEC, "addons": {"db": {"kind": "postgres", "pooling": True}}})
    looked(keeper)
    assert engine(door).closed == []
    up(door)
    live = door.platform.live_release("shop", "production")
    assert live is not None
    instance = InstanceRow("old", "shop", "production", "web", live.number - 1, 0, "warm", "127.0.0.1", 1, "healthy", 0, 0, "", None, None)
    door.platform.store.instances.add([instance])
    looked(keeper)
    assert engine(door).closed == []
    door.platform.store.instances.remove(["old"])
    looked(keeper)
    assert engine(door).closed == [ID.slug]
