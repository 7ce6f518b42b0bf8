"""Several values are set as one: all or none, once written down, under every name that a variable may have."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from doors import fake_platform

from homeport.deploys.audit import AuditUnavailable, Caller
from homeport.deploys.platform import Platform
from homeport.deploys.secrets import MAX_VALUE, EnvInvalid, SecretBook, check_name

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


@pytest.mark.parametrize("wrong", [{"A\0": "x"}, {"A": "nul\0"}, {"A": "x" * MAX_VALUE}, {"A": "half \ud800 sign"}, {"A": "x", "": "y"}])
def test_one_value_that_cannot_be_set_keeps_back_all(book: SecretBook, wrong: dict[str, str]) -> None:
    """Neither the values before nor those behind it are set, and nothing is written down."""
    with pytest.raises(EnvInvalid) as caught:
        book.set_all(*WHERE, {"FIRST": "1", **wrong, "LAST": "1"}, by="me")
    assert book.names(*WHERE) == {} and book.audit.verify().rows == 0
    assert "xxxx" not in str(caught.value) and "half" not in str(caught.value)


def test_without_the_log_none_of_them_is_set(book: SecretBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that cannot be written down together are not set."""

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(book.store.audit, "append_all", full)
        with pytest.raises(AuditUnavailable):
            book.set_all(*WHERE, {"A": "1", "B": "2"}, by="me")
    assert book.names(*WHERE) == {}


def test_ten_thousand_values_are_one_wait_for_the_disk(book: SecretBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand values become ten thousand rows of the log, behind one change of its head."""
    heads: list[bytes] = []
    monkeypatch.setattr("homeport.deploys.audit.write_atomic", lambda _path, data, **_kw: heads.append(data))
    values = {f"K{number}": f"value {number}" for number in range(10_000)}
    assert all(change.changed for change in book.set_all(*WHERE, values, by="me"))
    assert len(book.names(*WHERE)) == 10_000 and book.audit.verify().rows == 10_000
    assert len(heads) == 2, "the first and the last"
    assert not any(change.changed for change in book.set_all(*WHERE, values, by="me"))


def test_the_largest_value_is_what_the_kernel_takes(book: SecretBook) -> None:
    """`KEY=VALUE` with its end fits into 128 KiB, and one byte more does not."""
    book.set(*WHERE, "LONG", "x" * (MAX_VALUE - len("LONG=") - 1), by="me")
    with pytest.raises(EnvInvalid, match="128 KiB"):
        book.set(*WHERE, "LONG", "x" * (MAX_VALUE - len("LONG=")), by="me")


def test_a_damaged_value_can_be_set_again(book: SecretBook) -> None:
    """A value that does not open any more is mended by setting it."""
    book.set(*WHERE, "K", "before", by="me")
    book.store.secrets.change(*WHERE, "K", 1, sealed=b"\x02damaged")
    assert book.set(*WHERE, "K", "after", by="me").version == 2
    assert book.reveal(*WHERE, "K") == "after"


def test_setting_and_unsetting_at_once_both_count(book: SecretBook) -> None:
    """Twenty threads that set and unset one name leave numbered versions without a gap, each with its row in the log."""

    def touch(number: int) -> None:
        if number % 2:
            book.set(*WHERE, "K", f"v{number}", by="me")
        else:
            book.unset(*WHERE, "K", by="me")

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(touch, range(40)))
    versions = [row.version for row in book.store.secrets.history(*WHERE, "K")]
    assert versions == list(range(1, len(versions) + 1)) and len(versions) >= 20
    report = book.audit.verify()
    assert report.ok and report.rows == len(versions)


@pytest.mark.parametrize("name", ["A", "_x1", "API_TOKEN", "spring.datasource.url", "MY-VAR", "web/A", "w-2/A.B"])
def test_names_of_variables(name: str) -> None:
    """Names that programs use are taken, for all services and for one."""
    check_name(name)


@pytest.mark.parametrize(
    "name", ["", "=", "A=B", "1A", "-X", "a/b/c", "../x", "A B", "Ü", "web/", "/A", "Web/A", "addon.db/owner.password", "A\n", "A" * 201]
)
def test_names_that_are_none(name: str) -> None:
    """What is no name, and what are Homeport's own entries, cannot be set by anybody."""
    with pytest.raises(EnvInvalid):
        check_name(name)


def test_the_log_names_every_value_that_was_taken_along(book: SecretBook) -> None:
    """An export of very many values is written down in full, in as many rows as it takes."""
    names = [f"A_RATHER_LONG_NAME_OF_A_VARIABLE_{number}" for number in range(300)]
    book.set_all(*WHERE, dict.fromkeys(names, "v"), by="me")
    book.export(*WHERE, by=ME)
    rows = book.store.audit.list(action="export", limit=1000)
    assert len(rows) > 1
    told = {name for row in rows for name in row.subject.removeprefix("shop/production: ").split(", ")}
    assert told == {f"{name}@1" for name in names}


def test_what_is_set_and_what_is_taken_away_is_one_change(book: SecretBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither half happens without the other, and a name that is in both is refused."""
    book.set_all(*WHERE, {"OLD": "1", "SAME": "1"}, by="me")
    with pytest.raises(EnvInvalid, match="at once"):
        book.set_all(*WHERE, {"NEW": "1", "OLD": "2"}, by="me", unset=["OLD"])

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(book.store.audit, "append_all", full)
        with pytest.raises(AuditUnavailable):
            book.set_all(*WHERE, {"NEW": "1"}, by="me", unset=["OLD"])
    assert sorted(book.names(*WHERE)) == ["OLD", "SAME"]
    done = book.set_all(*WHERE, {"NEW": "1", "SAME": "1"}, by="me", unset=["OLD", "NEVER"])
    assert [(change.name, change.changed) for change in done] == [("NEW", True), ("SAME", False), ("OLD", True), ("NEVER", False)]
    assert sorted(book.names(*WHERE)) == ["NEW", "SAME"]
