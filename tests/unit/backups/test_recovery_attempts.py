"""Recovering a home: what it finds there, what it leaves when it fails, and asking again after it was killed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rooms import VAULT_KEY, house_in

from homeport.backups import recovering
from homeport.backups.attempt import Attempt, mark, refuse_unfinished
from homeport.backups.errors import RecoveryRefused
from homeport.backups.manifest import Manifest
from homeport.backups.recovering import Recovered
from homeport.backups.taking import take_platform
from homeport.drivers.reach import reachable
from homeport.drivers.storage.base import Target
from homeport.drivers.storage.keys import BackupKeyWrong
from homeport.drivers.storage.opening import open_target
from homeport.store import Store

pytestmark = [pytest.mark.xdist_group("recovery-attempts"), pytest.mark.timeout(120)]


class Machine:
    """A home that was lost, and a target that holds two copies of it."""

    def __init__(self, home: Path, away: Path, copies: list[Manifest]) -> None:
        self.home, self.away, self.copies = home, away, copies

    def recover(self, source: Path | None = None, key: bytes = VAULT_KEY) -> Recovered:
        target = Target(name="away", kind="folder", address=str(source or self.away))
        configs = self.home / "backups" / "targets"
        return recovering.recover(
            self.home, target, lambda wanted: open_target(wanted, configs, None), [key], dict, lambda: Store.open(self.home)  # type: ignore[arg-type]
        )  # fmt: skip

    def left(self) -> set[str]:
        return {str(entry.relative_to(self.home)) for entry in self.home.rglob("*")}


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    root = tmp_path_factory.mktemp("lost")
    copies = []
    with house_in(root / "home") as house:
        (house.home / "vault.json").write_text("{}")
        house.targets = [Target(name="away", kind="folder", address=str(root / "away"))]
        for name in ("production", "staging"):
            house.store.environments.ensure("shop", name)
            copies.append(take_platform(house.room))
    return Machine(root / "home", root / "away", copies)


@pytest.fixture
def machine(lost: Machine, tmp_path: Path) -> Machine:
    shutil.copytree(lost.away, tmp_path / "away")
    shutil.rmtree(lost.home)
    lost.home.mkdir()
    return Machine(reachable(lost.home), tmp_path / "away", lost.copies)


def test_a_recovery_that_was_killed_is_asked_for_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then the control plane refuses the home, which has only a part of its data; the second time begins anew and ends whole."""
    with monkeypatch.context() as patched:
        patched.setattr(recovering, "_data", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patched.setattr(Attempt, "undo", lambda _: None)  # a process that is killed undoes nothing
        with pytest.raises(KeyboardInterrupt):
            machine.recover()
    assert (machine.home / "homeport.db").exists()
    with pytest.raises(RecoveryRefused, match="interrupted"):
        refuse_unfinished(machine.home)
    (machine.home / "addons" / "half").mkdir(parents=True)
    assert machine.recover().environments == ("shop/production", "shop/staging")
    assert not (machine.home / "addons" / "half").exists()
    refuse_unfinished(machine.home)
    with pytest.raises(RecoveryRefused, match="is a home already"):
        machine.recover()


def test_a_recovery_that_fails_leaves_what_was_there(machine: Machine) -> None:
    """Backups that lie in the home itself outlive a wrong key, and so does a vault key; then the right one brings everything back."""
    local = machine.home / "backups" / "local"
    shutil.copytree(machine.away, local)
    (machine.home / "vault.key").write_text("as it was")
    before = machine.left()
    with pytest.raises(BackupKeyWrong):
        machine.recover(local, b"w" * 32)
    assert machine.left() == before
    assert (machine.home / "vault.key").read_text() == "as it was"
    assert machine.recover(local).environments
    assert (machine.home / "vault.key").read_text() != "as it was"


@pytest.mark.parametrize("name", ["vault.json", "addons/shop-production-db/addon.json", "volumes/shop-production-data/file"])
def test_what_is_left_of_a_home_is_never_touched(machine: Machine, name: str) -> None:
    """A home whose store is gone but whose data is there is refused, and stays as it is."""
    file = machine.home / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("the only copy")
    before = machine.left()
    with pytest.raises(RecoveryRefused, match=name.partition("/")[0]):
        machine.recover()
    assert machine.left() == before


def test_an_older_copy_of_the_platform_does_when_the_newest_is_damaged(machine: Machine) -> None:
    """It is passed over, and the answer says so."""
    newest = machine.copies[-1]
    part = next((machine.away / "backups" / newest.id).glob("*.parcel"))
    data = part.read_bytes()
    part.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = machine.recover()
    assert done.backup == machine.copies[0].id
    assert any(newest.id in note for note in done.notes)


def test_a_recovery_fills_the_database_again_that_it_had_begun_to_fill(tmp_path: Path) -> None:
    """After a failure the next attempt knows that the store in an outside database is its own; until then no control plane starts."""
    attempt = Attempt(tmp_path, dict)
    attempt.begin()
    attempt.fills()
    attempt.undo()
    assert mark(tmp_path).exists()
    again = Attempt(tmp_path, dict)
    again.begin()
    assert again.filled
    again.done()
    refuse_unfinished(tmp_path)
