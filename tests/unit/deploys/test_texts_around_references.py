"""A value set by hand that refers to something keeps the text around the reference in the vault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from doors import fake_platform, go_live

from homeport.deploys.audit import Caller
from homeport.deploys.config import Surroundings, environment_of, pin
from homeport.deploys.platform import Platform
from homeport.deploys.references import referring, with_references
from homeport.deploys.secrets import REFERENCE, SecretBook
from homeport.model.release import Release
from homeport.model.spec import Spec

WHERE = ("shop", "production")
ME = Caller("me", "test")
CANARY = "canary-77aa31"
URL = f"postgres://me:{CANARY}@${{{{Postgres.PGHOST}}}}:5432/app?key={CANARY}2"
SPEC = {"name": "shop", "services": {"web": {"kind": "web", "command": "x"}, "other": {"kind": "web", "command": "x"}}}
AROUND = Surroundings(service=lambda *_: None, addon=lambda _name, wanted: {"host": "10.0.0.5"}.get(wanted))


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    made = fake_platform(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def book(platform: Platform) -> SecretBook:
    return platform.secrets


def release_of(platform: Platform) -> Release:
    """A release of what is set now."""
    spec = with_references(Spec.model_validate(SPEC), referring(platform.secrets, *WHERE))
    release = go_live(platform, spec.model_dump(mode="json", exclude={"name"}))
    pins = pin(spec, spec.services, platform.secrets, *WHERE)
    return release.model_copy(update={"spec": spec, "secrets": pins.by_service})


@pytest.mark.parametrize("name", ["URL", "web/URL"])
def test_the_spec_does_not_hold_the_text(platform: Platform, name: str) -> None:
    """The release's spec refers to the add-on and to the vault; the service gets the whole text; nobody else's sees it."""
    platform.secrets.set(*WHERE, name, URL, by="me")
    release = release_of(platform)
    assert CANARY not in release.model_dump_json() and "postgres" in release.spec.addons
    found = environment_of(release, "web", platform.secrets, AROUND)
    assert found["URL"] == f"postgres://me:{CANARY}@10.0.0.5:5432/app?key={CANARY}2"
    assert {key for key in found if "URL" in key or "part" in key} == {"URL"}
    assert ("URL" in environment_of(release, "other", platform.secrets, AROUND)) == (name == "URL")


def test_a_release_keeps_the_text_it_was_made_with(platform: Platform) -> None:
    """A later text goes to later releases only, also when only the text around the reference changed."""
    platform.secrets.set(*WHERE, "URL", URL, by="me")
    first = release_of(platform)
    platform.secrets.set(*WHERE, "URL", URL.replace(CANARY, "another"), by="me")
    second = release_of(platform)
    assert CANARY in environment_of(first, "web", platform.secrets, AROUND)["URL"]
    assert "another2" in environment_of(second, "web", platform.secrets, AROUND)["URL"]


def test_the_texts_are_no_variables_of_their_own(platform: Platform, book: SecretBook) -> None:
    """They are neither listed, exported, compared nor written down by themselves; what a log shows of them is masked."""
    from homeport.deploys.candidates import masker_of
    from homeport.deploys.views import Views

    book.set(*WHERE, "URL", URL, by="me")
    release = release_of(platform)
    assert {v.key for v in Views(platform).variables(*WHERE)} == {"URL"}
    assert book.export(*WHERE, by=ME) == {"URL": URL}
    assert {row.subject for row in book.store.audit.list(action="set")} == {"shop/production/URL@1"}
    assert CANARY not in masker_of(platform, release)(f"connecting to postgres://me:{CANARY}@10.0.0.5:5432/app?key={CANARY}2")


def test_a_destroyed_reference_takes_its_texts_along(book: SecretBook) -> None:
    """Destroying a version destroys the texts that were set with it."""
    book.set(*WHERE, "URL", URL, by="me")
    book.set(*WHERE, "URL", URL.replace(CANARY, "another"), by="me")
    book.change_state(*WHERE, "URL", 1, "destroyed", by=ME)
    left = [row for row in book.store.secrets.history(*WHERE) if row.sealed is not None]
    assert {(row.name, row.version) for row in left} == {("URL", 2), ("part.URL.0", 2), ("part.URL.2", 2)}


@pytest.mark.parametrize("text", ["pass${{word", "${{", "a}}${{b"])
def test_signs_that_refer_to_nothing_are_a_secret_as_any(book: SecretBook, text: str) -> None:
    """A password with such signs in it is no reference, so it stays out of the spec."""
    book.set(*WHERE, "PASSWORD", text, by="me")
    assert book.names(*WHERE)["PASSWORD"].source != REFERENCE
    assert referring(book, *WHERE).texts == {}


def test_a_dotted_name_reaches_its_service(platform: Platform) -> None:
    """Names with dots, as Spring's are, are variables like others."""
    platform.secrets.set(*WHERE, "spring.datasource.password", "secret", by="me")
    release = release_of(platform)
    assert environment_of(release, "web", platform.secrets, AROUND) == {"spring.datasource.password": "secret"}
