"""The pure parts of backups: what is kept, forecasts, times, parcels, disks, and masking rules."""

from __future__ import annotations

import io
import os
import sqlite3
import tarfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.backups import disks
from homeport.backups.forgetting import keep
from homeport.backups.guard import Watch, forecast, rate, refuse
from homeport.backups.masking import problems
from homeport.backups.room import Policy
from homeport.backups.taking import portions, tree
from homeport.cli.times import moment
from homeport.drivers.builders.errors import DiskLow
from homeport.drivers.storage.keys import BackupKey, BackupKeyWrong, home_key, unwrap, wrap
from homeport.drivers.storage.parcels import ParcelDamaged, _pack, check, pack_file, pack_tree, unpack_file, unpack_tree
from homeport.store.backups import BackupRow

NOW = datetime(2026, 11, 20, 14, 5, 7, tzinfo=UTC)


def rows(hours: list[int], proven: set[int] | None = None) -> list[BackupRow]:
    """Backups taken so many hours ago, newest first."""
    return [
        BackupRow(f"b{h}", "postgres", "p", "e", "db", NOW - timedelta(hours=h), 1, ["t"], "{}", NOW if h in (proven or set()) else None)
        for h in sorted(hours)
    ]


def test_the_policy_keeps_the_newest_one_a_day_and_one_a_week() -> None:
    """Of hourly backups over 60 days the last ones stay, then the newest of each day, then of each week."""
    kept = keep(rows(list(range(0, 60 * 24, 6))), Policy(keep_last=3, keep_daily=7, keep_weekly=4))
    assert {"b0", "b6", "b12"} <= kept
    assert len(kept) <= 3 + 7 + 4
    assert len({row.taken_at.strftime("%G-%V") for row in rows(list(range(0, 60 * 24, 6))) if row.id in kept}) == 4


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60, unique=True), st.integers(1, 5), st.integers(0, 9), st.integers(0, 5))
def test_something_is_always_kept(hours: list[int], last: int, daily: int, weekly: int) -> None:
    """Whatever the policy, the newest backup and the newest proven one stay."""
    proven = set(hours[: len(hours) // 2])
    kept = keep(rows(hours, proven), Policy(keep_last=last, keep_daily=daily, keep_weekly=weekly))
    assert f"b{min(hours)}" in kept
    assert not proven or f"b{min(proven)}" in kept


def test_the_forecast_follows_the_line() -> None:
    """A disk that loses 1 GB an hour with 10 GB left is full in 10 hours; one that does not fall is never full."""
    looks = [(NOW + timedelta(minutes=m), int(10e9 - m / 60 * 1e9)) for m in range(0, 61, 10)]
    full = forecast(looks)
    assert full is not None
    assert abs((full - (NOW + timedelta(hours=10))).total_seconds()) < 5
    assert rate(looks) == pytest.approx(24e9)
    assert rate(looks[:2]) is None
    assert forecast([(at, 10**10) for at, _ in looks]) is None
    assert forecast(looks[:2]) is None


class Told:
    """As much of a room as the watch of the disk asks."""

    def __init__(self, home: Path, budget: int = 0, reserve: int = 0) -> None:
        self.home = self.folder = home
        self.policy, self.wiring, self.events = Policy(budget=budget, reserve=reserve), self, list[str]()

    def sizes(self) -> dict[str, int]:
        return {"shop": 3 << 30}

    def tell(self, kind: str, text: str) -> None:
        self.events.append(f"{kind}: {text}")


def test_what_the_disk_is_told_about_is_told_once(tmp_path: Path) -> None:
    """Also across a restart of the control plane; the looks for the forecast are kept too."""
    told, watch = Told(tmp_path, budget=1 << 30), Watch()
    for _ in range(3):
        watch.look(told)  # type: ignore[arg-type]
    assert [event.split(":")[0] for event in told.events] == ["disk.budget"]
    assert "3.0 GiB of a budget of 1.0 GiB" in told.events[0]
    again = Watch()
    again.look(told)  # type: ignore[arg-type]
    assert (len(told.events), len(again.history)) == (1, 2)
    low = Told(tmp_path, reserve=1 << 60)
    found = Watch().look(low)  # type: ignore[arg-type]
    assert found.low
    assert [event.split(":")[0] for event in low.events] == ["disk.low"]
    with pytest.raises(DiskLow):
        refuse(low, "shop", "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-11-20T14:05:07.5Z", NOW.replace(microsecond=500_000)),
        ("2026-11-20T15:05:07+01:00", NOW),
        ("10m", NOW - timedelta(minutes=10)),
        ("10m ago", NOW - timedelta(minutes=10)),
        ("1h30m", NOW - timedelta(minutes=90)),
        ("2 hours ago", NOW - timedelta(hours=2)),
        ("an hour ago", NOW - timedelta(hours=1)),
        ("1 week ago", NOW - timedelta(days=7)),
        ("now", NOW),
        ("@1763647507", datetime(2025, 11, 20, 14, 5, 7, tzinfo=UTC)),
        ("2026-11-20 14:05 UTC", NOW.replace(second=0)),
        ("2026-11-20 15:05 Europe/Vienna", NOW.replace(second=0)),
        ("2026-11-20T15:05:07.25+0100", NOW.replace(microsecond=250_000)),
        ("14:05 UTC", NOW.replace(second=0)),
        ("14:05Z", NOW.replace(second=0)),
        ("16:05+02:00", NOW.replace(second=0)),
        ("2:05pm UTC", NOW.replace(second=0)),
        ("14:06 UTC", NOW.replace(minute=6, second=0) - timedelta(days=1)),
        ("today 14:05 UTC", NOW.replace(second=0)),
        ("yesterday 14:05:07 UTC", NOW - timedelta(days=1)),
        ("Yesterday at 14:05 UTC", NOW.replace(second=0) - timedelta(days=1)),
        ("friday 14:05 UTC", NOW.replace(second=0)),
        ("friday 14:06 UTC", NOW.replace(minute=6, second=0) - timedelta(days=7)),
        ("monday 09:00 UTC", datetime(2026, 11, 16, 9, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_people_write_them(text: str, wanted: datetime) -> None:
    """ISO 8601 with a zone, and durations ago."""
    assert moment(text, NOW) == wanted


def test_a_clock_time_is_the_last_such_time() -> None:
    """`14:05` is today's when it has passed, else yesterday's."""
    local = NOW.astimezone()
    assert moment(f"{local:%H:%M:%S}", NOW) == NOW.replace(microsecond=0)
    later = local + timedelta(minutes=1)
    assert NOW - moment(f"{later:%H:%M:%S}", NOW) > timedelta(hours=23, minutes=50)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("yesterday", "no time of day"), ("soon", "no duration"), ("25:00", "hour"), ("14:61", "minute"), ("13:00pm", "no hour"),
        ("2026-11-20", "without a time of day"), ("2026-13-20 14:05", "cannot be read"), ("14:05 Mars/Base", "no time zone"),
        ("yesterday noonish", "no time of day"), ("", "no duration"),
    ],
)  # fmt: skip
def test_a_wrong_time_is_told_with_what_is_wrong_with_it(text: str, why: str) -> None:
    """Nothing is guessed: each wrong form has its reason."""
    with pytest.raises(ValueError, match=why):
        moment(text, NOW)


def test_masking_rules_are_checked_before_anything_is_copied() -> None:
    """A rule that is not a column and a masker nobody knows are each told."""
    assert problems({"users.email": "email", "public.users.name": "null"}) == []
    assert len(problems({"users": "email", "users.email": "blur"})) == 2


# --- parcels ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def key() -> BackupKey:
    return BackupKey.of(str(pyrage.x25519.Identity.generate()))


def test_a_tree_comes_back_as_it_was(tmp_path: Path, key: BackupKey) -> None:
    """Contents, modes, links and empty folders survive, in any number of portions."""
    source = tmp_path / "source"
    (source / "empty").mkdir(parents=True)
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "data").write_bytes(os.urandom(300_000))
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    (source / "link").symlink_to("/usr/bin/python3")
    os.mkfifo(source / "pipe")
    for number, names in enumerate(portions(source)):
        packed = pack_tree(source, names, tmp_path / f"{number}.parcel", key)
        check(tmp_path / f"{number}.parcel", packed, backup="b", name="n")
        (tmp_path / "back").mkdir(exist_ok=True)
        unpack_tree(tmp_path / f"{number}.parcel", tmp_path / "back", key, backup="b")
    assert sorted(tree(tmp_path / "back")) == ["deep", "deep/er", "deep/er/data", "empty", "link", "run.sh"]
    assert (tmp_path / "back" / "deep/er/data").read_bytes() == (source / "deep/er/data").read_bytes()
    assert (tmp_path / "back" / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "back" / "link").readlink() == Path("/usr/bin/python3")


def evil(change: Callable[[tarfile.TarInfo], None]) -> Callable[[io.RawIOBase], None]:
    def write(out: io.RawIOBase) -> None:
        with tarfile.open(fileobj=out, mode="w|") as archive:
            link = tarfile.TarInfo("sub")
            link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
            archive.addfile(link)
            info = tarfile.TarInfo("x")
            info.size = 3
            change(info)
            archive.addfile(info, io.BytesIO(b"abc"))

    return write


@pytest.mark.parametrize("name", ["../x", "/x", "sub/x", "a/../../x"])
def test_nothing_gets_outside_of_the_folder(tmp_path: Path, key: BackupKey, name: str) -> None:
    """Names that lead out, also through a link of the same archive, are refused."""
    _pack(evil(lambda info: setattr(info, "name", name)), tmp_path / "p.parcel", key)  # type: ignore[arg-type]
    (tmp_path / "into").mkdir()
    with pytest.raises(ParcelDamaged, match="no backup"):
        unpack_tree(tmp_path / "p.parcel", tmp_path / "into", key, backup="b")


def test_devices_are_refused(tmp_path: Path, key: BackupKey) -> None:
    """A device file in an archive is refused, also for root."""
    _pack(evil(lambda info: setattr(info, "type", tarfile.CHRTYPE)), tmp_path / "p.parcel", key)  # type: ignore[arg-type]
    (tmp_path / "into").mkdir()
    with pytest.raises(ParcelDamaged):
        unpack_tree(tmp_path / "p.parcel", tmp_path / "into", key, backup="b")


def test_every_kind_of_damage_is_told(tmp_path: Path, key: BackupKey) -> None:
    """A cut, a flipped bit and another key never give wrong data: they are ParcelDamaged."""
    (tmp_path / "data").write_bytes(os.urandom(200_000))
    pack_file(tmp_path / "data", tmp_path / "p.parcel", key)
    whole = (tmp_path / "p.parcel").read_bytes()
    other = BackupKey.of(str(pyrage.x25519.Identity.generate()))
    for damaged, who in ((whole[:-20], key), (whole[:50], key), (whole[:9000] + b"?" + whole[9001:], key), (b"", key), (whole, other)):
        (tmp_path / "p.parcel").write_bytes(damaged)
        with pytest.raises(ParcelDamaged):
            unpack_file(tmp_path / "p.parcel", tmp_path / "out", who, backup="b")


def test_the_backup_key_is_wrapped_by_the_vault_key(tmp_path: Path) -> None:
    """It is made once, opens with the vault key that wrapped it and with no other; an operator's recipient opens parcels too."""
    operator = pyrage.x25519.Identity.generate()
    key = home_key(tmp_path / "backups" / "key", (str(operator.to_public()),))
    assert home_key(tmp_path / "backups" / "key").public == key.public
    wrapped = wrap(key, b"k" * 32)
    assert unwrap(wrapped, b"k" * 32).public == key.public
    with pytest.raises(BackupKeyWrong):
        unwrap(wrapped, b"x" * 32)
    assert pyrage.decrypt(key.seal(b"hello"), [operator]) == b"hello"


# --- disks --------------------------------------------------------------------------------------------------------------


def test_sqlite_files_are_copied_consistently_while_others_write(tmp_path: Path) -> None:
    """A copy taken during transactions that keep two tables equal has them equal, and compares as equal to itself."""
    volume = tmp_path / "shop-production-data"
    volume.mkdir()
    (volume / "plain.txt").write_text("text")
    (volume / "link").symlink_to("plain.txt")
    live = sqlite3.connect(volume / "notes.db", check_same_thread=False, isolation_level=None)
    live.execute("PRAGMA journal_mode=WAL")
    live.execute("CREATE TABLE a (x)")
    live.execute("CREATE TABLE b (x)")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            live.execute("BEGIN")
            live.execute("INSERT INTO a VALUES (randomblob(200))")
            live.execute("INSERT INTO b VALUES (1)")
            live.execute("COMMIT")

    writer = threading.Thread(target=write)
    writer.start()
    first = None
    try:
        for number in range(3):
            print_ = disks.copy([volume], tmp_path / f"copy{number}")
            first = first or print_
            counts = print_.sqlite["shop-production-data/notes.db"]
            assert counts["a"] == counts["b"]
            assert disks.problems_of(tmp_path / f"copy{number}", print_) == ""
    finally:
        stop.set()
        writer.join()
        live.close()
    copy = tmp_path / "copy0" / "shop-production-data"
    assert sorted(f.name for f in copy.iterdir()) == ["link", "notes.db", "plain.txt"]
    (copy / "plain.txt").write_text("tampered")
    assert first is not None
    assert "plain.txt" in disks.problems_of(tmp_path / "copy0", first)
