"""Accounts of add-ons: kept as long as something on the disk belongs to them, and given free afterwards."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from homeport.drivers.addons.base import AddOnId
from homeport.drivers.addons.records import Place, Record, buried, bury, purge
from homeport.drivers.files import locked
from homeport.model.addon import Redis

ID = AddOnId(project="shop", environment="preview-7", name="cache")
ACCOUNTS = {ID.slug: 30_000, f"{ID.slug}/door": 30_001, "shop-production-cache": 30_002}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "addons").mkdir()
    (tmp_path / "addons" / "accounts.json").write_text(json.dumps(ACCOUNTS))
    return tmp_path


def make(home: Path) -> Place:
    place = Place(home, ID)
    place.folder.mkdir()
    place.write(Record(id=ID, kind="redis", definition=Redis(), host="127.78.0.1", port=6379, user=30_000))
    return place


def accounts(home: Path) -> dict[str, int]:
    known: dict[str, int] = json.loads((home / "addons" / "accounts.json").read_text())
    return known


def test_the_account_of_an_addon_is_free_with_its_last_tombstone(home: Path) -> None:
    """Two tombstones of one add-on belong to one account: it is given free with the second, and nobody else's with it."""
    graves = [bury(home, make(home)), bury(home, make(home))]
    purge(home, graves[0])
    assert accounts(home) == ACCOUNTS
    purge(home, graves[1])
    assert accounts(home) == {"shop-production-cache": 30_002}
    purge(home, graves[1])
    assert not any(grave.exists() for grave in graves)


def test_an_addon_that_is_there_again_keeps_its_account(home: Path) -> None:
    """The tombstone goes; the add-on that was made anew under the same name goes on with the account it has."""
    grave = bury(home, make(home))
    make(home)
    purge(home, grave)
    assert accounts(home) == ACCOUNTS and not grave.exists()


def test_nobody_waits_for_an_addon_that_is_being_made(home: Path) -> None:
    """While an add-on of that name is changed its account is in use; the tombstone goes all the same."""
    place = make(home)
    grave = bury(home, place)
    with locked(place.lock):
        purge(home, grave)
    assert accounts(home) == ACCOUNTS and not grave.exists()


def test_a_disk_that_says_it_is_an_addon_is_none(home: Path) -> None:
    """What an application wrote on its disk is neither believed nor read, when its tombstone is removed least of all."""
    place = make(home)
    grave = home / "tombstones" / "20261120T140507-shop-preview-7-files"
    grave.parent.mkdir()
    place.folder.rename(grave)
    assert buried(grave) is None
    (grave / "addon.json").unlink()
    os.mkfifo(grave / "addon.json")  # whoever reads it waits for ever
    purge(home, grave)
    assert accounts(home) == ACCOUNTS and not grave.exists()
