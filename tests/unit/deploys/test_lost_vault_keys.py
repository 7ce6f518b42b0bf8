"""After the vault's key was lost: what does not open is named with its way out, and everything else goes on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from doors import fake_platform, go_live

from homeport.deploys.audit import Caller
from homeport.deploys.outside import OutsideStores
from homeport.deploys.platform import Platform
from homeport.deploys.rotation import rotate_value
from homeport.deploys.vault import LOST, give_up, opens
from homeport.drivers.vault.keys import KeySource, VaultKeyInvalid
from homeport.drivers.vault.seal import Sealer, SecretDoesNotOpen, way_out
from homeport.drivers.vault.stores.base import StoreConfig
from homeport.model.env import GeneratedValue
from homeport.model.release import PinnedSecret
from homeport.store import Store
from homeport.store.secrets import SecretRow

WHERE = ("shop", "production")
ME = Caller("me", "test")


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A home whose vault was begun anew after values were sealed; only KEPT is of afterwards."""
    made = fake_platform(tmp_path)
    book = made.secrets
    book.set_all(*WHERE, {"TOKEN": "one", "KEPT": "old", "web/OWN": "x", "KEY_PREVIOUS": "was"}, by="me")
    book.set(*WHERE, "OLD", "was", by="me", source="previous", note="until 2999-01-01T00:00:00+00:00")
    book.set(*WHERE, "FETCHED", "f", by="homeport", source="external")
    book.generate(*WHERE, "SESSION", GeneratedValue())
    book.generate(*WHERE, "addon.db/owner.password", GeneratedValue())
    stores = OutsideStores(book)
    stores.put(StoreConfig(name="corp", kind="doppler", address="", options={"project": "p"}, credential="c"), by=ME)
    for name in ("vault.json", "vault.key"):
        (made.home / name).unlink()
    book.sealer = Sealer(made.home)
    book.set(*WHERE, "KEPT", "new", by="me")
    yield made
    made.store.close()


def test_each_lost_value_is_named_with_its_way_out(platform: Platform) -> None:
    """By where a value came from: set again, rotated, fetched, taken away, the add-on's passwords renewed, the store added again."""
    found = {value.name: value.fix for value in platform.vault.lost()}
    at = "--project shop --env production"
    assert found == {
        "TOKEN": f"set the value again: `homeport env set TOKEN=- {at}`",
        "KEY_PREVIOUS": f"set the value again: `homeport env set KEY_PREVIOUS=- {at}`",
        "web/OWN": f"set the value again: `homeport env set OWN=- {at} --service web`",
        "OLD": f"take it away: `homeport env unset OLD {at}`",
        "FETCHED": "deploy: it is fetched again",
        "SESSION": f"make a new one: `homeport env rotate SESSION {at}`",
        "addon.db/owner.password": f"give the add-on new passwords: `homeport addons rotate db {at}`",
        "corp": "add the store again with its credential: `homeport stores add corp`",
    }
    with pytest.raises(SecretDoesNotOpen) as caught:
        platform.secrets.reveal(*WHERE, "TOKEN")
    assert found["TOKEN"] in caught.value.fix and caught.value.place == "shop/production/TOKEN@1"


def test_the_way_out_of_targets_and_texts() -> None:
    """Backup targets and texts around references are said by what a person calls them."""
    assert "`homeport backup add-target off-site`" in way_out("homeport/backups/target.off-site@1")
    assert "`homeport env --project shop --env production`" in way_out("shop/production/part.URL.0@2")


def test_the_vault_is_cared_for_beside_values_that_do_not_open(platform: Platform) -> None:
    """A new data key seals again what opens, leaves the rest as it is with the key that it names, and the state counts both."""
    before = platform.vault.status()
    assert (before.unreadable, before.values) == (9, 10)
    after = platform.vault.rotate(by=ME)
    assert after.data_keys == {"1": 9, "2": 1} and after.unreadable == 9
    assert platform.secrets.reveal(*WHERE, "KEPT") == "new"


def test_a_generated_value_that_does_not_open_is_rotated_without_a_former_one(platform: Platform) -> None:
    """There is nothing to hand out beside the new value, and the answer says so."""
    platform.secrets.set(*WHERE, "SESSION_PREVIOUS", "older", by="me", source="previous", note="until 2999-01-01T00:00:00+00:00")
    done = rotate_value(platform.secrets, None, WHERE, "SESSION", value="fresh", overlap=timedelta(days=1), by=ME)
    assert (done.version, done.previous, done.until) == (2, "", None)
    assert platform.secrets.reveal(*WHERE, "SESSION") == "fresh" and "SESSION_PREVIOUS" not in platform.secrets.names(*WHERE)


def test_a_release_says_whether_its_values_open(platform: Platform) -> None:
    """One lost value is enough for no; a destroyed one is none to open."""
    release = go_live(platform, {"services": {"web": {"kind": "web", "command": "x"}}})
    fine = release.model_copy(update={"secrets": {"web": {"KEPT": PinnedSecret(name="KEPT", version=2)}}})
    lost = release.model_copy(update={"secrets": {"web": {"KEPT": PinnedSecret(name="KEPT", version=1)}}})
    assert platform.secrets.opens(fine) and not platform.secrets.opens(lost)
    platform.secrets.change_state(*WHERE, "KEPT", 1, "destroyed", by=ME)
    assert platform.secrets.opens(lost)


def test_stores_are_listed_when_a_credential_does_not_open(platform: Platform) -> None:
    """The store says what is wrong with it, and works once it is added again."""
    stores = OutsideStores(platform.secrets)
    assert "homeport stores add corp" in stores.list()[0].problems[0]
    again = stores.put(StoreConfig(name="corp", kind="doppler", address="", options={"project": "p"}, credential="d"), by=ME)
    assert again.problems == ()


def test_only_a_vault_that_nothing_opens_is_given_up(tmp_path: Path) -> None:
    """With its key it opens; without, with another one, damaged or gone it does not. What is put aside keeps its bytes, under a name of its
    own each time, and the next start makes a new vault."""
    store = Store.open(tmp_path)
    source = KeySource(tmp_path)
    assert opens(tmp_path, source, store), "an empty home makes its first vault"
    sealer = Sealer(tmp_path)
    store.secrets.add(_row(sealer))
    assert opens(tmp_path, source, store)
    (tmp_path / "vault.key").rename(tmp_path / "away")
    assert not opens(tmp_path, source, store)
    ring = (tmp_path / "vault.json").read_bytes()
    assert give_up(tmp_path, source) == [LOST] and (tmp_path / LOST).read_bytes() == ring
    assert opens(tmp_path, source, store)
    Sealer(tmp_path)
    (tmp_path / "vault.json").write_bytes(ring)  # of another key than the one that lies there now
    assert not opens(tmp_path, source, store)
    assert give_up(tmp_path, source) == ["vault.json.lost.2", "vault.key.lost"]
    Sealer(tmp_path)
    (tmp_path / "vault.json").write_text("{")
    assert not opens(tmp_path, source, store)
    give_up(tmp_path, source)
    for lost in tmp_path.glob("*.lost*"):
        lost.unlink()
    assert not opens(tmp_path, source, store), "the file itself is gone, and was not given up"
    assert give_up(tmp_path, source) == [] and opens(tmp_path, source, store)
    store.close()


def test_a_key_that_may_not_be_read_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks as another account is told so, and the vault is not called one that nothing opens."""
    Sealer(tmp_path)
    store = Store.open(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("homeport.drivers.vault.seal.os.access", lambda *_: False)
        with pytest.raises(VaultKeyInvalid, match="may not read it"):
            opens(tmp_path, KeySource(tmp_path), store)
    store.close()


def _row(sealer: Sealer) -> SecretRow:
    return SecretRow(*WHERE, "K", 1, sealer.seal("v", "shop/production/K@1"), "enabled", "cli", datetime.now(UTC), "me", "")
