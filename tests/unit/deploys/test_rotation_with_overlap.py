"""A variable gets a new value, and for a while the former one beside it, without anything else changing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from doors import fake_platform, go_live

from homeport.deploys import rotation
from homeport.deploys.audit import Caller
from homeport.deploys.candidates import masker_of
from homeport.deploys.config import Surroundings, environment_of, pin
from homeport.deploys.guard import guarded
from homeport.deploys.history import restore_moment
from homeport.deploys.masking import MASK
from homeport.deploys.plan import make_plan
from homeport.deploys.platform import Platform
from homeport.deploys.rotation import rotate_value
from homeport.deploys.secrets import EnvInvalid, SecretBook
from homeport.drivers.runtimes.base import Capabilities
from homeport.model.release import Release
from homeport.model.spec import Spec

WHERE = ("shop", "production")
ME = Caller("me", "test")
DAY = timedelta(days=1)
AROUND = Surroundings(service=lambda *_: None, addon=lambda *_: None)
SPEC = Spec.model_validate(
    {
        "name": "shop",
        "services": {
            "web": {"kind": "web", "command": "x", "env": {"JWT": {"kind": "generated", "format": "hex"}, "KEY": {"kind": "secret"}}},
            "other": {"kind": "web", "command": "x"},
        },
    }
)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    made = fake_platform(tmp_path)
    made.secrets.set(*WHERE, "KEY", "by hand", by="me")
    yield made
    made.store.close()


@pytest.fixture
def book(platform: Platform) -> SecretBook:
    return platform.secrets


def deploy(platform: Platform) -> Release:
    """A release of what is set now."""
    pins = pin(SPEC, SPEC.services, platform.secrets, *WHERE)
    return go_live(platform, SPEC.model_dump(mode="json", exclude={"name"})).model_copy(update={"secrets": pins.by_service})


def variables(platform: Platform, release: Release, service: str = "web") -> dict[str, str]:
    return environment_of(release, service, platform.secrets, AROUND)


def at(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    """Let the deploys be at another time."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return moment

    monkeypatch.setattr("homeport.deploys.config.datetime", Clock)


def test_both_values_are_handed_out_until_the_overlap_is_over(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new value is made by its recipe; the former goes to the same service only; later deploys and their guard do without it; a
    rollback has what it had."""
    first = deploy(platform)
    old = variables(platform, first)["JWT"]
    done = rotate_value(platform.secrets, SPEC, WHERE, "web/JWT", overlap=DAY, by=ME)
    assert (done.name, done.version, done.previous) == ("web/JWT", 2, "web/JWT_PREVIOUS") and done.until is not None
    second = deploy(platform)
    found = variables(platform, second)
    assert found["JWT_PREVIOUS"] == old and len(bytes.fromhex(found["JWT"])) == 32 and found["JWT"] != old
    assert variables(platform, second, "other") == {}
    at(monkeypatch, datetime.now(UTC) + DAY + timedelta(minutes=1))
    third = deploy(platform)
    assert variables(platform, third) == {"JWT": found["JWT"], "KEY": "by hand"}
    plan = make_plan(SPEC, WHERE[1], second, capabilities=Capabilities())
    assert not [d for d in guarded(plan, second, SPEC, third.secrets).differences if d.destructive]
    assert variables(platform, second) == found and variables(platform, first)["JWT"] == old


def test_a_log_hides_what_other_services_and_former_passwords_are(platform: Platform) -> None:
    """Services refer to each other's values, and an instance may have a password of an add-on that was rotated since."""
    release = deploy(platform)
    for password in ("former-password", "newer-password"):
        platform.secrets.set(*WHERE, "addon.db/web.password", password, by="homeport", source="rotated")
    mask = masker_of(platform, release)
    line = f"{variables(platform, release)['JWT']} by hand former-password newer-password"
    assert mask(line) == f"{MASK} {MASK} {MASK} {MASK}"


def test_a_value_that_was_set_by_hand_is_given(platform: Platform, book: SecretBook) -> None:
    """Nobody can make a payment provider's key: it is given, and both work."""
    with pytest.raises(EnvInvalid, match="by hand"):
        rotate_value(book, SPEC, WHERE, "KEY", overlap=DAY, by=ME)
    rotate_value(book, SPEC, WHERE, "KEY", value="newer", overlap=DAY, by=ME)
    found = variables(platform, deploy(platform))
    assert (found["KEY"], found["KEY_PREVIOUS"]) == ("newer", "by hand")
    assert "KEY_PREVIOUS" not in variables(platform, deploy(platform), "other")
    assert [row.action for row in book.store.audit.list(subject="shop/production/KEY")][-2:] == ["rotate", "rotate"]


def test_without_overlap_the_former_value_ends_with_the_next_deploy(platform: Platform, book: SecretBook) -> None:
    """After a leak nothing of the former value is handed out, also when an overlap was under way."""
    rotate_value(book, SPEC, WHERE, "KEY", value="second", overlap=DAY, by=ME)
    rotate_value(book, SPEC, WHERE, "KEY", value="third", overlap=timedelta(0), by=ME)
    found = variables(platform, deploy(platform))
    assert found["KEY"] == "third" and "KEY_PREVIOUS" not in found


def test_a_former_value_is_no_value_of_its_own(platform: Platform, book: SecretBook) -> None:
    """It is neither exported nor brought back by a restore, and cannot be rotated itself."""
    before = datetime.now(UTC)
    rotate_value(book, SPEC, WHERE, "KEY", value="newer", overlap=DAY, by=ME)
    assert book.export(*WHERE, by=ME) == {"KEY": "newer"}
    assert [change.name for change in restore_moment(book, *WHERE, before, by=ME, dry=True)] == ["KEY"]
    with pytest.raises(EnvInvalid):
        rotate_value(book, SPEC, WHERE, "KEY_PREVIOUS", value="x", overlap=DAY, by=ME)
    row = book.names(*WHERE)["KEY_PREVIOUS"]
    assert row.source == rotation.PREVIOUS and row.created_by == "me" and row.note.startswith("until 20")


@pytest.mark.parametrize("name", ["NOPE", "REF", "FETCHED"])
def test_what_is_not_rotated_here_is_told(book: SecretBook, name: str) -> None:
    """A value that is not set, refers to another, or is kept outside is refused with what to do instead."""
    book.set(*WHERE, "REF", "${{Postgres.DATABASE_URL}}", by="me")
    book.set(*WHERE, "FETCHED", "v", by="homeport", source="external")
    with pytest.raises(EnvInvalid) as caught:
        rotate_value(book, SPEC, WHERE, name, value="new", overlap=DAY, by=ME)
    assert caught.value.fix


def test_the_former_value_is_the_one_that_is_live(platform: Platform) -> None:
    """Rotated twice before a deploy, the value beside the new one is what programs have, not one that nobody ever got. Rotated again after
    a deploy, the answer says which promise ends early."""
    live = deploy(platform)
    old = variables(platform, live)["JWT"]
    first = rotate_value(platform.secrets, SPEC, WHERE, "web/JWT", overlap=DAY, live=1, by=ME)
    second = rotate_value(platform.secrets, SPEC, WHERE, "web/JWT", overlap=DAY, live=1, by=ME)
    assert (second.version, first.dropped, second.dropped) == (3, None, None)
    assert variables(platform, deploy(platform))["JWT_PREVIOUS"] == old
    third = rotate_value(platform.secrets, SPEC, WHERE, "web/JWT", overlap=DAY, live=3, by=ME)
    assert third.dropped is not None
    assert variables(platform, deploy(platform))["JWT_PREVIOUS"] != old
