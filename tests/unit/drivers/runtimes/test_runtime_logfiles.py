"""Tail, follow and bound the log files of an instance."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from homeport.drivers.runtimes import logfiles
from homeport.drivers.runtimes.logfiles import KEPT, InstanceLog


@pytest.fixture
def log(tmp_path: Path) -> InstanceLog:
    for name in ("stdout", "stderr"):
        (tmp_path / f"{name}.log").touch()
    return InstanceLog("i", tmp_path)


def _write(log: InstanceLog, text: str, stream: str = "stdout") -> None:
    with (log.folder / f"{stream}.log").open("a") as file:
        file.write(text)


def _tail(log: InstanceLog, count: int = 100) -> list[tuple[str, str]]:
    return [(line.stream, line.text) for line in log.tail(count)[0]]


def test_marks_put_the_streams_in_order_of_time(log: InstanceLog) -> None:
    """Lines of both streams are merged by the first mark after each."""
    for text, stream in (("one\n", "stdout"), ("two\n", "stderr"), ("three\n", "stdout")):
        _write(log, text, stream)
        log.mark()
        time.sleep(0.002)
    assert _tail(log) == [("stdout", "one"), ("stderr", "two"), ("stdout", "three")]
    lines, ends = log.tail(2)
    assert [line.text for line in lines] == ["two", "three"] and lines[0].at is not None and lines[1].at is not None
    assert ends == {"stdout": 10, "stderr": 4}


def test_a_mark_is_noted_only_when_something_was_written(log: InstanceLog) -> None:
    """Silence costs no disk."""
    log.mark()
    _write(log, "x\n")
    log.mark()
    log.mark()
    assert len((log.folder / "times").read_text().splitlines()) == 1


@pytest.mark.parametrize("cut", [True, False])
def test_rotation_loses_nothing_and_offsets_go_on(log: InstanceLog, cut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After rotation, by cutting the front or by copying, the tail still reaches back and the instance's file is small."""
    if not cut:
        monkeypatch.setattr(logfiles, "_cut_front", lambda _file, _length: False)
    _write(log, "".join(f"line {number}\n" for number in range(10_000)))
    written = log.end("stdout")
    log.rotate(size=50_000)
    _write(log, "after\n")
    assert log.path("stdout").stat().st_size < 10_000
    assert log.end("stdout") == written + 6
    assert [text for _, text in _tail(log, 20_000)] == [*(f"line {number}" for number in range(10_000)), "after"]


def test_only_so_many_rotated_files_are_kept(log: InstanceLog) -> None:
    """The oldest goes first."""
    for round in range(KEPT + 3):
        _write(log, f"round {round}\n" * 2000)
        log.rotate(size=5_000)
    kept = sorted(path.name for path in log.folder.glob("stdout.log.*.gz"))
    assert kept == [f"stdout.log.{number}.gz" for number in range(1, KEPT + 1)]


def test_a_writer_that_appends_loses_no_line_to_rotation(log: InstanceLog) -> None:
    """While a program writes, rotation by cutting takes away only what it has put into the rotated file."""
    stop = threading.Event()
    count = 0

    def write() -> None:
        nonlocal count
        number = os.open(log.path("stdout"), os.O_WRONLY | os.O_APPEND)
        while not stop.is_set():
            os.write(number, b"%09d\n" % count)
            count += 1
        os.close(number)

    if not _can_cut(log.folder):
        pytest.skip("this file system cannot cut the front of a file")
    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(3):
        time.sleep(0.03)
        log.rotate(size=5_000)
    stop.set()
    writer.join()
    assert [text for _, text in _tail(log, 10_000_000)] == [f"{number:09d}" for number in range(count)]


def _can_cut(folder: Path) -> bool:
    probe = folder / "probe"
    probe.write_bytes(b"x" * 8192)
    number = os.open(probe, os.O_RDWR)
    try:
        return logfiles._cut_front(number, 4096)
    finally:
        os.close(number)


def test_following_survives_rotation_and_gives_the_last_unfinished_line(log: InstanceLog) -> None:
    """A follower sees each line once across a rotation, and at the end what had no line end."""
    ended = threading.Event()
    got: list[str] = []
    reader = threading.Thread(
        target=lambda: got.extend(line.text for line in log.follow({"stdout": 0, "stderr": 0}, ended.is_set, lambda: False))
    )
    reader.start()
    wanted = [f"line {number}" for number in range(3000)]
    _write(log, "\n".join(wanted) + "\n")
    time.sleep(0.1)
    log.rotate(size=5_000)
    _write(log, "more\nrest")
    ended.set()
    reader.join(10)
    assert got == [*wanted, "more", "rest"]


def test_a_line_without_end_is_cut(log: InstanceLog) -> None:
    """A line longer than the limit is given in pieces instead of being held back."""
    _write(log, "x" * 200_000)
    lines = list(log.follow({"stdout": 0, "stderr": 0}, lambda: True, lambda: False))
    assert sum(len(line.text) for line in lines) == 200_000
    assert max(len(line.text) for line in lines) <= 2 * logfiles.LONGEST


def test_bytes_that_are_not_text_are_shown_as_such(log: InstanceLog) -> None:
    """What is not UTF-8 does not break reading."""
    (log.folder / "stdout.log").write_bytes(b"a\xff\nb\r\n")
    assert _tail(log) == [("stdout", "a\ufffd"), ("stdout", "b")]


def test_half_a_line_waits_for_its_other_half(log: InstanceLog) -> None:
    """A secret that is written in two pieces is never shown in two pieces: the tail leaves it, following shows it whole."""
    _write(log, "before\ncanary-")
    lines, ends = log.tail(10, whole=True)
    assert [line.text for line in lines] == ["before"]
    _write(log, "secret\nlast")
    assert [line.text for line in log.follow(ends, lambda: True, lambda: False)] == ["canary-secret", "last"]
    assert _tail(log) == [("stdout", "before"), ("stdout", "canary-secret"), ("stdout", "last")]


def test_a_very_long_line_is_cut_at_a_blank(log: InstanceLog) -> None:
    """A line that never ends is cut, and not in the middle of a word."""
    _write(log, "x" * (logfiles.LONGEST - 4) + " canary-secret more")
    found = [line.text for line in log.follow({"stdout": 0}, lambda: True, lambda: False)]
    assert len(found) == 2 and "canary-secret" in found[0] + "|" + found[1] and "".join(found).endswith("canary-secret more")
