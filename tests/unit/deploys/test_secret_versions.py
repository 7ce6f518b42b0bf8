"""Versions are numbered and stay; environments go back to a moment and are compared without showing a value."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from doors import fake_platform, go_live

from homeport.blueprints.compose.dotenv import parse_dotenv
from homeport.cli.environment import dotenv, one_line
from homeport.deploys.audit import AuditUnavailable, Caller
from homeport.deploys.config import pin
from homeport.deploys.control import ProjectNotFound
from homeport.deploys.guard import guarded, layers
from homeport.deploys.history import restore_moment, restore_version
from homeport.deploys.outside import OutsideStores
from homeport.deploys.plan import ConfirmationNeeded, check, make_plan
from homeport.deploys.platform import Platform
from homeport.deploys.secrets import EnvInvalid, SecretBook, VersionUnavailable
from homeport.deploys.vault import VaultCare
from homeport.deploys.views import Views
from homeport.drivers.runtimes.base import Capabilities
from homeport.drivers.vault.seal import key_of
from homeport.drivers.vault.stores.base import Reference, SecretStoreUnavailable, StoreConfig
from homeport.model.env import ExternalValue, GeneratedValue
from homeport.model.plan import Plan
from homeport.model.release import PinnedSecret
from homeport.model.spec import Spec

WHERE = ("shop", "production")
ME = Caller("me", "test")


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    made = fake_platform(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def book(platform: Platform) -> SecretBook:
    return platform.secrets


# --- versions ---------------------------------------------------------------------------------------------------


def test_a_disabled_version_gives_way_to_the_one_before(book: SecretBook) -> None:
    """Disabling the newest version brings the one before into use; enabling it brings it back; destroyed never comes back."""
    book.set(*WHERE, "K", "one", by="me")
    book.set(*WHERE, "K", "two", by="me")
    book.change_state(*WHERE, "K", 2, "disabled", by=ME)
    assert book.reveal(*WHERE, "K") == "one" and book.disclose(*WHERE, "K", by=ME, version=2) is None
    book.change_state(*WHERE, "K", 2, "enabled", by=ME)
    assert book.reveal(*WHERE, "K") == "two"
    assert book.change_state(*WHERE, "K", 2, "destroyed", by=ME).sealed is None
    with pytest.raises(VersionUnavailable):
        book.change_state(*WHERE, "K", 2, "enabled", by=ME)
    with pytest.raises(VersionUnavailable):
        book.change_state(*WHERE, "K", 9, "disabled", by=ME)
    assert book.set(*WHERE, "K", "three", by="me").version == 3


def test_a_version_that_a_release_needs_is_not_destroyed_by_accident(platform: Platform) -> None:
    """Destroying what a release pins needs confirmation and names the release; then that release does not start, with a reason."""
    platform.secrets.set(*WHERE, "K", "v", by="me")
    release = go_live(platform, {"services": {"web": {"kind": "web", "env": {"K": {"kind": "secret"}}}}})
    views = Views(platform)
    with pytest.raises(ConfirmationNeeded) as caught:
        views.change_version(*WHERE, "K", 1, "destroyed", confirmed=False, by=ME)
    assert "r1" in caught.value.why
    views.change_version(*WHERE, "K", 1, "destroyed", confirmed=True, by=ME)
    with pytest.raises(EnvInvalid, match="not started"):
        platform.secrets.open(*WHERE, release.secrets["web"]["K"])


def test_an_environment_goes_back_to_a_moment(book: SecretBook) -> None:
    """Changed values come back, new ones go, removed ones return; a dry run changes nothing; add-on passwords stay."""
    for key, value in {"A": "a1", "B": "b1", "C": "c1", "addon.db/owner.password": "p1"}.items():
        book.set(*WHERE, key, value, by="me")
    moment = datetime.now(UTC)
    book.set(*WHERE, "A", "a2", by="me")
    book.unset(*WHERE, "B", by="me")
    book.set(*WHERE, "D", "d1", by="me")
    book.set(*WHERE, "addon.db/owner.password", "p2", by="me")
    wanted = [("A", "set"), ("B", "set"), ("D", "unset")]
    assert [(c.name, c.action) for c in restore_moment(book, *WHERE, moment, by=ME, dry=True)] == wanted
    assert book.reveal(*WHERE, "A") == "a2"
    assert [(c.name, c.action) for c in restore_moment(book, *WHERE, moment, by=ME)] == wanted
    assert {name: book.reveal(*WHERE, name) for name in book.names(*WHERE)} == {
        "A": "a1", "B": "b1", "C": "c1", "addon.db/owner.password": "p2",
    }  # fmt: skip
    assert restore_moment(book, *WHERE, moment, by=ME) == []
    row = book.names(*WHERE)["A"]
    assert (row.version, row.source, row.note, row.created_by) == (3, "restored", "from version 1", "me")


def test_going_back_is_one_step_and_keeps_what_was_generated(book: SecretBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that was made since stays, or the next deploy would make another; when the log cannot be written nothing goes back at all."""
    book.set(*WHERE, "A", "a1", by="me")
    moment = datetime.now(UTC)
    book.set_all(*WHERE, {"A": "a2", "B": "b1"}, by="me")
    made = book.generate(*WHERE, "web/SESSION", GeneratedValue())
    session = book.reveal(*WHERE, "web/SESSION")

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(book.store.audit, "append_all", full)
        with pytest.raises(AuditUnavailable):
            restore_moment(book, *WHERE, moment, by=ME)
    assert book.reveal(*WHERE, "A") == "a2" and book.reveal(*WHERE, "B") == "b1"
    assert [(c.name, c.action) for c in restore_moment(book, *WHERE, moment, by=ME)] == [("A", "set"), ("B", "unset")]
    assert (made, book.reveal(*WHERE, "web/SESSION"), book.reveal(*WHERE, "B")) == (1, session, None)
    assert [(row.action, row.subject) for row in book.store.audit.list(limit=2)] == [
        ("restore", "shop/production/A@3"), ("unset", "shop/production/B@2"),
    ]  # fmt: skip


def test_passwords_of_add_ons_are_not_taken_away(platform: Platform) -> None:
    """The password in use is neither disabled nor destroyed nor put back to an earlier one, even when confirmed; a former one may go."""
    book, views = platform.secrets, Views(platform)
    go_live(platform, {"services": {"web": {"kind": "web"}}})
    for value in ("p1", "p2"):
        book.set(*WHERE, "addon.db/owner.password", value, by="me")
    for state in ("disabled", "destroyed"):
        with pytest.raises(VersionUnavailable, match="addons rotate db"):
            views.change_version(*WHERE, "addon.db/owner.password", 2, state, confirmed=True, by=ME)
    with pytest.raises(EnvInvalid, match="addons rotate"):
        views.env_restore(*WHERE, "addon.db/owner.password", 1, None, dry=False, by=ME)
    assert views.change_version(*WHERE, "addon.db/owner.password", 1, "destroyed", confirmed=True, by=ME).state == "destroyed"


def test_versions_of_a_services_own_value_are_found_by_its_key(platform: Platform) -> None:
    """As reading and rotating do: where only one service has the variable its key is enough; a dry run finds what is not there as well."""
    book, views = platform.secrets, Views(platform)
    go_live(platform, {"services": {"web": {"kind": "web"}}})
    for value in ("one", "two"):
        book.set(*WHERE, "web/K", value, by="me")
    assert views.change_version(*WHERE, "K", 1, "disabled", confirmed=False, by=ME).name == "web/K"
    views.change_version(*WHERE, "web/K", 1, "enabled", confirmed=False, by=ME)
    assert views.env_restore(*WHERE, "K", 1, None, dry=True, by=ME)[0].name == "web/K"
    assert book.reveal(*WHERE, "web/K") == "two"
    with pytest.raises(VersionUnavailable):
        views.env_restore(*WHERE, "K", 9, None, dry=True, by=ME)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("token\n", "token"),
        ("token\r\n", "token"),
        ("token", "token"),
        ("", ""),
        ("\n", ""),
        ("a\nb\n", "a\nb\n"),
        ("token\n\n", "token\n\n"),
    ],
)
def test_a_file_of_one_line_is_that_line(text: str, value: str) -> None:
    """The end of the line is the editor's, and would break a header; keys of several lines are taken as they are."""
    assert one_line(text) == value


def test_a_reference_says_that_it_is_one(platform: Platform) -> None:
    """What an instance gets when it starts is not called missing, and a look that showed nothing is no event."""
    env = {"DB": {"kind": "addon", "addon": "db", "property": "url"}, "K": {"kind": "secret", "required": False}}
    go_live(platform, {"services": {"web": {"kind": "web", "env": env}}, "addons": {"db": {"kind": "postgres"}}})
    views = Views(platform)
    with pytest.raises(ProjectNotFound, match="refers to another part"):
        views.reveal(*WHERE, "DB", "", by=ME)
    with pytest.raises(ProjectNotFound, match="no value"):
        views.reveal(*WHERE, "K", "", by=ME)
    assert not [event for event in platform.store.events.list(limit=50) if event.kind == "env.revealed"]


def test_a_plan_names_values_that_are_other_versions(platform: Platform) -> None:
    """A plan does not say that nothing differs when a value was set or rotated; it names versions, never values, and stops nothing."""
    book = platform.secrets
    spec = Spec.model_validate(
        {"name": "shop", "services": {"web": {"kind": "web", "command": "x", "env": {"K": {"kind": "secret"}, "G": {"kind": "generated"}}}}}
    )

    def pins() -> dict[str, dict[str, PinnedSecret]]:
        return pin(spec, spec.services, book, *WHERE).by_service

    book.set(*WHERE, "K", "canary-one", by="me")
    live = go_live(platform, spec.model_dump(mode="json", exclude={"name"})).model_copy(update={"secrets": pins()})
    plan = make_plan(spec, "production", live, capabilities=Capabilities())
    assert guarded(plan, live, spec, pins()).differences == plan.differences
    book.set_all(*WHERE, {"K": "canary-two", "MORE": "canary-three", "web/G": "canary-four"}, by="me")
    found = guarded(plan, live, spec, pins())
    told = [(d.kind, d.name, d.before, d.after) for d in found.differences if d.section == "env"]
    assert told == [("change", "web.G", "v1", "v2"), ("change", "web.K", "v1", "v2"), ("add", "web.MORE", "", "v1")]
    assert "canary" not in found.model_dump_json() and not any(d.destructive for d in found.differences)


def test_a_version_that_has_no_value_cannot_be_restored(book: SecretBook) -> None:
    """Restoring a destroyed, disabled or missing version is refused; an earlier one comes back as a new version."""
    for value in ("one", "two", "three"):
        book.set(*WHERE, "K", value, by="me")
    book.change_state(*WHERE, "K", 2, "destroyed", by=ME)
    for version in (2, 7):
        with pytest.raises(VersionUnavailable):
            restore_version(book, *WHERE, "K", version, by=ME)
    restore_version(book, *WHERE, "K", 1, by=ME)
    assert book.reveal(*WHERE, "K") == "one" and book.names(*WHERE)["K"].version == 4


def test_environments_and_releases_are_compared_without_values(platform: Platform) -> None:
    """Equal, different and one-sided variables are told apart, and no value is in the answer."""
    web = {"kind": "web", "env": {"PLAIN": "canary-plain", "S": {"kind": "secret"}, "T": {"kind": "secret"}}}
    for environment, t in (("production", "canary-t"), ("staging", "canary-other")):
        platform.secrets.set("shop", environment, "S", "canary-same", by="me")
        platform.secrets.set("shop", environment, "T", t, by="me")
    platform.secrets.set("shop", "staging", "ONLY", "canary-only", by="me")
    go_live(platform, {"services": {"web": web}})
    go_live(platform, {"services": {"web": {**web, "env": {**web["env"], "NEW": "x"}}}}, environment="staging")  # type: ignore[dict-item]
    views = Views(platform)
    found = views.env_diff("shop", "production", "staging", 0, 0, by=ME)
    assert {(d.key, d.status) for d in found} == {
        ("PLAIN", "same"), ("S", "same"), ("T", "different"), ("NEW", "only-right"), ("ONLY", "only-right"),
    }  # fmt: skip
    assert "canary" not in str(found)
    platform.secrets.set(*WHERE, "S", "canary-later", by="me")
    assert [(d.key, d.status) for d in views.env_diff(*WHERE, "", 0, 0, by=ME) if d.status != "same"] == [("S", "different")]
    go_live(platform, {"services": {"web": web}})
    assert [(d.key, d.status) for d in views.env_diff(*WHERE, "", 1, 2, by=ME) if d.status != "same"] == [("S", "different")]
    assert platform.store.audit.list(action="compare")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "plain",
        "with space",
        "q'uote",
        'dou"ble',
        "dollar $HOME ${X}",
        "back\\slash",
        "multi\nline\nend\n",
        "ünï",
        "# no comment",
        "a'b\"c$d\\e\nf",
    ],
)
def test_an_export_is_read_back_to_the_same_values(value: str) -> None:
    """What `env export` writes, `env import` reads back unchanged."""
    assert parse_dotenv(dotenv("KEY", value)) == {"KEY": value}


# --- the vault --------------------------------------------------------------------------------------------------


def test_rotating_the_data_key_seals_everything_again(platform: Platform) -> None:
    """After a rotation every row is sealed with the new data key, the old one is forgotten, and values are as before."""
    book, care = platform.secrets, VaultCare(platform.secrets)
    for number in range(30):
        book.set(*WHERE, f"K{number}", f"v{number}", by="me")
    stop, failures = threading.Event(), list[BaseException]()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                book.set(*WHERE, "BUSY", str(number), by="me")
                assert book.reveal(*WHERE, "BUSY") == str(number)
            except BaseException as error:
                failures.append(error)
                return

    def read() -> None:
        while not stop.is_set():
            try:
                assert book.disclose(*WHERE, "K7", by=ME) == "v7"
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=work) for work in (write, read, read)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        view = care.rotate(by=ME)
    stop.set()
    for thread in threads:
        thread.join()
    care.seal_again()
    assert not failures and care.status().data_keys == {"4": care.status().values} and view.data_key == 4
    assert {key_of(row.sealed or b"") for row in book.store.secrets.all()} == {4}
    assert all(book.reveal(*WHERE, f"K{n}") == f"v{n}" for n in range(30))


def test_a_rotation_that_was_cut_short_is_finished_later(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """When sealing again stops in the middle both data keys stay, every value opens, and the next time finishes."""
    book, care = platform.secrets, VaultCare(platform.secrets)
    for number in range(6):
        book.set(*WHERE, f"K{number}", f"v{number}", by="me")
    with monkeypatch.context() as patch:
        left = iter([True, True, True])
        whole = book.seal_again
        patch.setattr("homeport.deploys.vault.BATCH", 1)
        patch.setattr(book, "seal_again", lambda rows: whole(rows) if next(left) else 0)
        with pytest.raises(RuntimeError):
            care.rotate(by=ME)
    assert care.status().data_keys == {"1": 3, "2": 3}
    assert all(book.reveal(*WHERE, f"K{n}") == f"v{n}" for n in range(6))
    assert care.seal_again() == 3 and care.status().data_keys == {"2": 6}


# --- precedence, guard, outside stores --------------------------------------------------------------------------


def spec(env: dict[str, object], groups: dict[str, dict[str, str]] | None = None) -> Spec:
    web = {"kind": "web", "command": "run", "env": env, "env_groups": list(groups or {})}
    return Spec.model_validate({"name": "shop", "services": {"web": web}, "env_groups": {n: {"env": g} for n, g in (groups or {}).items()}})


def planned(platform: Platform, wanted: Spec) -> Plan:
    live = platform.live_release(*WHERE)
    plan = make_plan(wanted, "production", live, capabilities=Capabilities(mounts=True, names=True))
    return guarded(plan, live, wanted, pin(wanted, wanted.services, platform.secrets, *WHERE).by_service)


def dump(of: Spec) -> dict[str, object]:
    return of.model_dump(mode="json", exclude={"name"})


def test_a_value_that_vanished_from_the_vault_stops_the_deploy(platform: Platform) -> None:
    """A key that the live release got from the vault and the next would not get needs confirmation, whether or not the file names it."""
    wanted = spec({"OPTIONAL": {"kind": "secret", "required": False}})
    for key in ("OPTIONAL", "BY_HAND"):
        platform.secrets.set(*WHERE, key, "canary", by="me")
    go_live(platform, dump(wanted))
    assert planned(platform, wanted).destructive == ()
    for key in ("OPTIONAL", "BY_HAND"):
        platform.secrets.unset(*WHERE, key, by="me")
    plan = planned(platform, wanted)
    assert [(d.kind, d.name) for d in plan.destructive] == [("remove", "web.BY_HAND"), ("remove", "web.OPTIONAL")]
    with pytest.raises(ConfirmationNeeded):
        check(plan, confirmed=False)
    assert "canary" not in plan.model_dump_json()


def test_a_value_that_is_hidden_stops_the_deploy(platform: Platform) -> None:
    """A changed value of the file under one set by hand, and an own value over a group's, need confirmation with the reason."""
    go_live(platform, dump(spec({"A": "1"}, {"g": {"B": "group"}})))
    plan = planned(platform, spec({"A": "1", "B": "own"}, {"g": {"B": "group"}}))
    assert [(d.name, d.before, d.after) for d in plan.destructive] == [("web.B", "group g", "file")]
    platform.secrets.set(*WHERE, "A", "by hand", by="me")
    plan = planned(platform, spec({"A": "1"}, {"g": {"B": "group"}}))
    assert plan.destructive == () and any("web.A" in w and "hides" in w for w in plan.warnings)
    go_live(platform, dump(spec({"A": "1"}, {"g": {"B": "group"}})))
    plan = planned(platform, spec({"A": "2"}, {"g": {"B": "group"}}))
    assert [d.name for d in plan.destructive] == ["web.A"]
    with pytest.raises(ConfirmationNeeded) as caught:
        check(plan, confirmed=False)
    assert "hides it" in caught.value.why and "These would be hidden" in caught.value.why


def test_layers_say_what_wins_and_what_loses(platform: Platform) -> None:
    """Each variable names its layer and what it hides, strongest first."""
    wanted = spec({"K": "own"}, {"low": {"K": "1", "L": "1"}, "high": {"K": "2", "L": "2"}})
    found = layers(wanted, wanted.services["web"], {})
    assert (found["K"].origin, found["K"].hides) == ("file", ("group high", "group low"))
    assert (found["L"].origin, found["L"].hides) == ("group high", ("group low",))
    platform.secrets.set(*WHERE, "K", "hand", by="me")
    release = go_live(platform, dump(wanted))
    assert layers(wanted, wanted.services["web"], release.secrets["web"])["K"].hides == ("file", "group high", "group low")
    view = next(v for v in Views(platform).variables(*WHERE) if v.key == "K")
    assert (view.origin, view.hides, view.set_by, view.source) == ("set", ("file", "group high", "group low"), "me", "cli")


def test_one_service_wins_over_all_and_a_person_over_what_was_made(platform: Platform) -> None:
    """A value set for one service beats one set for all; both beat what was generated or fetched."""
    wanted = spec({"K": {"kind": "generated"}})
    assert pin(wanted, ["web"], platform.secrets, *WHERE).by_service["web"]["web/K"].version == 1
    platform.secrets.set(*WHERE, "K", "for all", by="me")
    assert pin(wanted, ["web"], platform.secrets, *WHERE).by_service["web"]["K"].name == "K"
    platform.secrets.set(*WHERE, "web/K", "for web", by="me")
    assert platform.environment_of(go_live(platform, dump(wanted)), "web")["K"] == "for web"


def test_a_release_pins_what_an_outside_store_said(platform: Platform) -> None:
    """Each deploy fetches; equal answers make no version; an older release keeps its own; a person's value is not fetched over."""
    wanted = spec({"K": {"kind": "external", "store": "corp", "path": "app/db", "key": "password"}})
    asked: list[ExternalValue] = []
    answers = iter(["one", "one", "two"])

    def fetch(value: ExternalValue) -> str:
        asked.append(value)
        return next(answers)

    versions = [pin(wanted, ["web"], platform.secrets, *WHERE, fetch=fetch).by_service["web"]["web/K"].version for _ in range(3)]
    assert versions == [1, 1, 2] and asked[0].path == "app/db"
    row = platform.secrets.names(*WHERE)["web/K"]
    assert (row.source, row.note, row.created_by) == ("external", "corp: app/db#password", "homeport")
    assert platform.environment_of(go_live(platform, dump(wanted)), "web")["K"] == "two"
    platform.secrets.set(*WHERE, "K", "by hand", by="me")
    pins = pin(wanted, ["web"], platform.secrets, *WHERE, fetch=fetch)
    assert len(asked) == 3 and pins.by_service["web"]["K"].name == "K"
    assert platform.environment_of(go_live(platform, dump(wanted)), "web")["K"] == "by hand"


def test_every_look_into_an_outside_store_is_written_down_first(platform: Platform) -> None:
    """A deploy asks for a value once, after its row; without the log nobody is asked; a store that fails leaves no new value behind."""
    asked: list[str] = []

    class Corp:
        def __init__(self, config: StoreConfig) -> None:
            assert config.credential == "token"

        def problems(self) -> list[str]:
            return []

        def read(self, reference: Reference) -> str:
            asked.append(reference.path)
            assert platform.store.audit.list(action="fetch")[-1].subject.endswith(f"from corp: {reference.path}#k")
            if reference.path == "away":
                raise SecretStoreUnavailable(what="Nothing was changed.", why="It is away.", fix="Wait.")
            return f"value of {reference.path}"

    stores = OutsideStores(platform.secrets, {"vault": Corp})
    stores.put(StoreConfig(name="corp", kind="vault", address="https://x", credential="token"), by=ME)

    def external(*paths: str) -> Spec:
        return spec({f"K{number}": {"kind": "external", "store": "corp", "path": path, "key": "k"} for number, path in enumerate(paths)})

    def deploy(wanted: Spec) -> None:
        pin(wanted, ["web"], platform.secrets, *WHERE, fetch=stores.fetcher(*WHERE, Path("/nonexistent"), by=ME))

    with pytest.raises(SecretStoreUnavailable):
        deploy(external("a", "away"))
    assert asked == ["a", "away"] and platform.secrets.names(*WHERE) == {}
    deploy(external("a", "a", "b"))
    assert asked == ["a", "away", "a", "b"] and len(platform.secrets.names(*WHERE)) == 3
    rows = platform.store.audit.list(action="fetch")
    assert len(rows) == 4 and {row.actor for row in rows} == {"me"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform.store.audit, "append_all", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(AuditUnavailable):
            deploy(external("c"))
    assert len(asked) == 4
