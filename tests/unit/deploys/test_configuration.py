"""Variables get the value the file, the vault or another service gives them, and secrets stay sealed until then."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from homeport.deploys.config import ReferenceBroken, Surroundings, environment_of, pin
from homeport.deploys.secrets import EnvInvalid, SecretBook, SecretsMissing
from homeport.drivers.vault.seal import Sealer, SecretDoesNotOpen, VaultKeyMissing
from homeport.model.release import Release, Revision
from homeport.model.spec import Spec
from homeport.store import Store

WHERE = ("shop", "production")


@pytest.fixture
def book(tmp_path: Path) -> Iterator[SecretBook]:
    store = Store.open(tmp_path)
    yield SecretBook(store, Sealer(tmp_path))
    store.close()


def release(book: SecretBook, spec: Spec) -> Release:
    pins = pin(spec, spec.services, book, *WHERE)
    return Release(
        id="r1",
        project="shop",
        environment="production",
        number=1,
        revision=Revision(digest="d"),
        spec=spec,
        secrets=pins.by_service,
        created_at=datetime.now(UTC),
    )


def spec(services: dict[str, Any], **rest: Any) -> Spec:
    return Spec.model_validate({"name": "shop", "services": services, **rest})


AROUND = Surroundings(
    service=lambda name, wanted: f"{wanted} of {name}" if name == "api" else None,
    addon=lambda name, wanted: f"{wanted} of {name}" if name == "db" else None,
)


def variables(book: SecretBook, of: Spec, service: str = "web") -> dict[str, str]:
    return environment_of(release(book, of), service, book, AROUND)


def test_a_service_overrides_its_groups_and_a_person_overrides_both(book: SecretBook) -> None:
    """Set by hand beats the service's own, which beats its groups."""
    of = spec({"web": {"kind": "web", "env": {"A": "own"}, "env_groups": ["g"]}}, env_groups={"g": {"env": {"A": "group", "B": "group"}}})
    assert variables(book, of) == {"A": "own", "B": "group"}
    book.set(*WHERE, "B", "by hand", by="me")
    assert variables(book, of) == {"A": "own", "B": "by hand"}


def test_required_secrets_that_nobody_set_are_listed_together(book: SecretBook) -> None:
    """A deploy without its secrets names every one of them; none is invented."""
    of = spec(
        {"web": {"kind": "web", "env": {"A": {"kind": "secret"}, "B": {"kind": "secret"}, "C": {"kind": "secret", "required": False}}}}
    )
    with pytest.raises(SecretsMissing) as caught:
        release(book, of)
    assert sorted(caught.value.missing) == ["A", "B"]
    book.set(*WHERE, "A", "", by="me")
    book.set(*WHERE, "B", "b", by="me")
    assert variables(book, of) == {"A": "", "B": "b"}


def test_a_generated_value_is_made_once(book: SecretBook) -> None:
    """Every release of an environment sees the same generated value; each service has its own, a group shares one."""
    of = spec(
        {n: {"kind": "web", "env": {"OWN": {"kind": "generated"}}, "env_groups": ["g"]} for n in ("web", "other")},
        env_groups={"g": {"env": {"SHARED": {"kind": "generated"}}}},
    )
    first, again, other = variables(book, of), variables(book, of), variables(book, of, "other")
    assert first == again and first["SHARED"] == other["SHARED"] and first["OWN"] != other["OWN"]


def test_a_release_keeps_the_versions_it_was_made_with(book: SecretBook) -> None:
    """A value that is changed later does not reach an older release: rolling back restores it."""
    of = spec({"web": {"kind": "web", "env": {"TOKEN": {"kind": "secret"}}}})
    book.set(*WHERE, "TOKEN", "old", by="me")
    old = release(book, of)
    book.set(*WHERE, "TOKEN", "new", by="me")
    new = release(book, of)
    assert [environment_of(r, "web", book, AROUND)["TOKEN"] for r in (old, new, old)] == ["old", "new", "old"]
    book.unset(*WHERE, "TOKEN", by="me")
    assert environment_of(old, "web", book, AROUND)["TOKEN"] == "old"


def test_a_secret_of_a_group_stays_with_the_services_that_use_the_group(book: SecretBook) -> None:
    """A value whose key some service declares does not leak to those that do not; a key nobody declares goes to all."""
    of = spec({"web": {"kind": "web", "env_groups": ["g"]}, "other": {"kind": "web"}}, env_groups={"g": {"env": {"K": {"kind": "secret"}}}})
    book.set(*WHERE, "K", "secret", by="me")
    book.set(*WHERE, "EXTRA", "for all", by="me")
    book.set(*WHERE, "other/ONLY", "other's", by="me")
    assert variables(book, of) == {"K": "secret", "EXTRA": "for all"}
    assert variables(book, of, "other") == {"EXTRA": "for all", "ONLY": "other's"}


def test_references_resolve_through_templates_and_other_services(book: SecretBook) -> None:
    """Properties of services and add-ons, variables of other services and text around them are put together."""
    parts = [
        "http://",
        {"kind": "service", "service": "api", "property": "hostport"},
        "/",
        {"kind": "addon", "addon": "db", "property": "user"},
    ]
    of = spec(
        {
            "web": {
                "kind": "web",
                "env": {
                    "URL": {"kind": "template", "parts": parts},
                    "COPY": {"kind": "service", "service": "api", "property": None, "variable": "X"},
                },
            },
            "api": {"kind": "private", "env": {"X": {"kind": "group", "group": "g", "key": "Y"}}},
        },
        env_groups={"g": {"env": {"Y": "y"}}},
    )
    assert variables(book, of) == {"URL": "http://hostport of api/user of db", "COPY": "y"}


def test_an_address_without_a_login_gets_the_add_ons(book: SecretBook) -> None:
    """A Compose file may write `redis://redis:6379`; here the add-on wants a login, and one that is written stays."""
    host = {"kind": "addon", "addon": "db", "property": "hostport"}
    env = {
        "BARE": {"kind": "template", "parts": ["redis://", host, "/0"]},
        "FULL": {"kind": "template", "parts": ["redis://me:secret@", host, "/0"]},
    }
    found = variables(book, spec({"web": {"kind": "web", "env": env}}))
    assert found["BARE"] == "redis://user%20of%20db:password%20of%20db@hostport of db/0"
    assert found["FULL"] == "redis://me:secret@hostport of db/0"


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "service", "service": "gone"},
        {"kind": "addon", "addon": "gone"},
        {"kind": "group", "group": "gone", "key": "K"},
        {"kind": "service", "service": "web", "property": None, "variable": "SELF"},
    ],
)
def test_a_broken_or_circular_reference_is_named(book: SecretBook, value: dict[str, Any]) -> None:
    """A reference to nothing, or to itself, is an error that names the variable."""
    of = spec({"web": {"kind": "web", "env": {"SELF": value}}})
    with pytest.raises(ReferenceBroken, match="Nothing was changed") as caught:
        variables(book, of)
    assert "services.web.env.SELF" in caught.value.why


def test_equal_values_make_no_new_version(book: SecretBook) -> None:
    """Setting what is already set changes nothing."""
    assert book.set(*WHERE, "K", "v", by="me").changed
    assert not book.set(*WHERE, "K", "v", by="me").changed
    assert [row.version for row in book.store.secrets.history(*WHERE, "K")] == [1]


@pytest.mark.parametrize(("name", "value"), [("", "v"), ("A B", "v"), ("A=B", "v"), ("A", "nul\0"), ("A", "x" * 200_000)])
def test_what_no_program_can_receive_is_refused(book: SecretBook, name: str, value: str) -> None:
    """Names and values that the operating system cannot pass on are refused before they are sealed."""
    with pytest.raises(EnvInvalid):
        book.set(*WHERE, name, value, by="me")


def test_a_sealed_value_opens_only_in_its_place(tmp_path: Path) -> None:
    """A sealed value that was moved, changed or cut does not open, and is never an empty string."""
    sealer = Sealer(tmp_path)
    sealed = sealer.seal("value", "a/b/K@1")
    assert sealer.open(sealed, "a/b/K@1") == "value" and b"value" not in sealed
    for wrong, place in ((sealed, "a/b/K@2"), (sealed[:-1], "a/b/K@1"), (sealed[:-1] + b"x", "a/b/K@1"), (b"", "a/b/K@1")):
        with pytest.raises(SecretDoesNotOpen):
            sealer.open(wrong, place)


def test_a_home_without_its_key_does_not_start(tmp_path: Path) -> None:
    """When sealed data is there and the key is not, no new key is made in its place."""
    Sealer(tmp_path)
    assert (tmp_path / "vault.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "vault.key").unlink()
    with pytest.raises(VaultKeyMissing):
        Sealer(tmp_path)
    assert not (tmp_path / "vault.key").exists()
