"""The vault's key can be changed, kept elsewhere, lost or damaged, and a value opens or there is an error: never nothing."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

from homeport.drivers.vault.keys import KeySource, VaultKeyInvalid, VaultKeyMissing, VaultKeyWrong, fingerprint, new_key
from homeport.drivers.vault.seal import REKEY_STEPS, Sealer, SecretDoesNotOpen, VaultDamaged

PLACES = [f"shop/production/K{n}@1" for n in range(20)]


def sealed_in(home: Path) -> dict[str, bytes]:
    sealer = Sealer(home)
    return {place: sealer.seal(f"value of {place}", place) for place in PLACES}


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


class CrashedError(Exception):
    """Stands for a kill: nothing after it ran."""


def opens(home: Path, key: bytes, sealed: dict[str, bytes], scratch: Path) -> set[str]:
    """Which values open with the ring of a home and one key alone."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    shutil.copy(home / "vault.json", scratch)
    (scratch / "vault.key").write_text(text(key))
    try:
        alone = Sealer(scratch)
    except VaultKeyWrong:
        return set()
    return {place for place, value in sealed.items() if alone.open(value, place) == f"value of {place}"}


@pytest.mark.parametrize("step", REKEY_STEPS)
def test_a_crash_at_any_step_of_rekey_leaves_exactly_one_key(tmp_path: Path, step: str) -> None:
    """Wherever a change of the key stops, every secret opens with exactly one of the old key and the new one, also after a restart."""
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    sealed = sealed_in(home)
    old = KeySource(home).inside()[0]

    def crash(reached: str) -> None:
        if reached == step:
            raise CrashedError

    with pytest.raises(CrashedError):
        Sealer(home, reach=crash).rekey()
    keys = {old, *KeySource(home).inside()}
    winners = [key for key in keys if opens(home, key, sealed, scratch) == set(PLACES)]
    assert len(winners) == 1 and all(opens(home, key, sealed, scratch) == set() for key in keys if key not in winners)
    again = Sealer(home)
    assert all(again.open(value, place) == f"value of {place}" for place, value in sealed.items())
    assert KeySource(home).inside() == winners and not list(home.glob("*.part"))
    again.rekey()
    assert opens(home, winners[0], sealed, scratch) == set()


def test_rekey_goes_on_under_readers_without_one_failure(tmp_path: Path) -> None:
    """While the key is changed again and again, 100 reads a second succeed, in this process and from files read anew."""
    sealed = sealed_in(tmp_path)
    live = Sealer(tmp_path)
    reads, failures, stop = [0], list[BaseException](), threading.Event()

    def read(fresh: bool) -> None:
        while not stop.is_set():
            for place, value in sealed.items():
                try:
                    (Sealer(tmp_path) if fresh else live).open(value, place)
                    reads[0] += 1
                except BaseException as error:
                    failures.append(error)
                stop.wait(0.005)

    threads = [threading.Thread(target=read, args=(fresh,)) for fresh in (False, False, True)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    generations = {live.rekey().generation for _ in range(25)}
    while time.monotonic() - began < 1:
        generations.add(live.rekey().generation)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures and len(generations) >= 25
    assert reads[0] / (time.monotonic() - began) > 100


def test_a_new_data_key_seals_and_the_old_one_still_opens(tmp_path: Path) -> None:
    """After a rotation old values open until their key is retired; the key in use cannot be retired."""
    sealer = Sealer(tmp_path)
    old = sealer.seal("old", "p")
    assert sealer.rotate() == 2
    new = sealer.seal("new", "p")
    assert (sealer.open(old, "p"), sealer.open(new, "p"), Sealer(tmp_path).open(new, "p")) == ("old", "new", "new")
    sealer.retire({1, 2})
    assert sealer.status().data_keys.keys() == {2} and Sealer(tmp_path).open(new, "p") == "new"
    assert sealer.open(old, "p") == "old", "a row that was read before the rotation still opens in this process"
    with pytest.raises(SecretDoesNotOpen):
        Sealer(tmp_path).open(old, "p")


def test_a_key_kept_outside_takes_over_from_the_file(tmp_path: Path) -> None:
    """Given beside the file's key, the operator's becomes the key at the next rekey, and the file goes."""
    sealed = sealed_in(tmp_path)
    first, second = new_key(), new_key()
    assert Sealer(tmp_path, KeySource(tmp_path, given=text(first))).status().place == "vault.key"
    Sealer(tmp_path, KeySource(tmp_path, given=text(first))).rekey()
    assert not (tmp_path / "vault.key").exists()
    both = Sealer(tmp_path, KeySource(tmp_path, given=f"{text(first)} {second.hex()}"))
    assert both.status().place == "HOMEPORT_VAULT_KEY"
    assert both.rekey().key == fingerprint(second)
    assert Sealer(tmp_path, KeySource(tmp_path, given=text(second))).open(sealed[PLACES[0]], PLACES[0])
    with pytest.raises(VaultKeyWrong):
        Sealer(tmp_path, KeySource(tmp_path, given=text(first)))
    with pytest.raises(VaultKeyWrong):
        Sealer(tmp_path, KeySource(tmp_path, given=text(second))).rekey()
    with pytest.raises(VaultKeyMissing):
        Sealer(tmp_path)


def test_a_command_gives_the_key_without_a_shell(tmp_path: Path) -> None:
    """The command is split into words, runs without a shell, and only its standard output counts."""
    key = new_key()
    script = tmp_path / "say key"
    script.write_text(f"#!{sys.executable}\nimport sys, os\nassert sys.argv[1] == '$(touch x)', sys.argv\nprint('{text(key)}')\n")
    script.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    source = KeySource(home, command=f"'{script}' '$(touch x)'")
    assert Sealer(home, source).status().key == fingerprint(key)
    assert not (home / "vault.key").exists()


@pytest.mark.parametrize("command", ["false", "true", "/nonexistent/program", "'unclosed", "echo c2hvcnQ=", "echo not-a-key-at-all"])
def test_a_command_that_gives_no_key_is_an_error(tmp_path: Path, command: str) -> None:
    """A command that fails, is missing or says something else stops the vault, and what it said is not repeated."""
    with pytest.raises(VaultKeyInvalid) as caught:
        Sealer(tmp_path, KeySource(tmp_path, command=command))
    assert "c2hvcnQ" not in str(caught.value) and "not-a-key" not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 1, 40, -2])
def test_a_half_written_or_changed_ring_is_an_error(tmp_path: Path, cut: int) -> None:
    """A vault.json that is cut anywhere, or changed in any field, is named as damaged."""
    sealed_in(tmp_path)
    ring = tmp_path / "vault.json"
    whole = ring.read_bytes()
    ring.write_bytes(whole[:cut])
    with pytest.raises(VaultDamaged):
        Sealer(tmp_path)
    body = json.loads(whole)
    for field, value in (("active", 2), ("generation", 9), ("data-keys", {}), ("key", "0" * 16)):
        ring.write_text(json.dumps({**body, field: value}))
        with pytest.raises(VaultDamaged):
            Sealer(tmp_path)
    ring.write_bytes(whole)
    Sealer(tmp_path)


def test_keys_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    """The key, the next key and the ring have mode 0600 at every step of a change."""
    modes: set[int] = set()

    def look(_step: str) -> None:
        modes.update(path.stat().st_mode & 0o777 for path in tmp_path.glob("vault.[kj]*"))

    before = os.umask(0)
    try:
        Sealer(tmp_path, reach=look).rekey()
    finally:
        os.umask(before)
    assert modes == {0o600}
