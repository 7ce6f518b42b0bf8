"""The audit log tells who did what, cannot be changed unseen, and nothing is read when it cannot be written."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from homeport.deploys.audit import AuditLog, AuditUnavailable, Caller, Head
from homeport.deploys.secrets import SecretBook
from homeport.drivers.vault.seal import Sealer
from homeport.store import Store

WHERE = ("shop", "production")
ME = Caller("me", "key 1 from 127.0.0.1")


@pytest.fixture
def book(tmp_path: Path) -> Iterator[SecretBook]:
    store = Store.open(tmp_path)
    yield SecretBook(store, Sealer(tmp_path), AuditLog(store.audit, tmp_path))
    store.close()


def tamper(home: Path, *statements: str) -> None:
    """Change rows as somebody with the database file could: the triggers are taken away first."""
    connection = sqlite3.connect(home / "homeport.db")
    for statement in ("DROP TRIGGER IF EXISTS audit_no_update", "DROP TRIGGER IF EXISTS audit_no_delete", *statements):
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_every_touch_of_a_secret_is_a_row(book: SecretBook) -> None:
    """Setting, looking, exporting, disabling, destroying and unsetting are written down with who, from where and which version."""
    book.set(*WHERE, "K", "v", by=ME.name, origin=ME.origin)
    book.set(*WHERE, "K", "v", by=ME.name)
    assert book.disclose(*WHERE, "K", by=ME) == "v" and book.disclose(*WHERE, "NONE", by=ME) is None
    assert book.export(*WHERE, by=ME) == {"K": "v"}
    book.change_state(*WHERE, "K", 1, "disabled", by=ME)
    book.change_state(*WHERE, "K", 1, "destroyed", by=ME)
    book.set(*WHERE, "K", "w", by=ME.name)
    book.unset(*WHERE, "K", by=ME.name, origin=ME.origin)
    rows = book.store.audit.list()
    assert [r.action for r in rows] == ["set", "reveal", "export", "disable", "destroy", "set", "unset"]
    assert rows[0].subject == "shop/production/K@1" and rows[0].origin == ME.origin and rows[2].subject == "shop/production: K@1"
    assert book.audit.verify().ok and "v" not in {r.subject for r in rows}


@pytest.mark.parametrize(
    ("statement", "row", "why"),
    [
        ("UPDATE audit SET actor = 'nobody' WHERE seq = 3", 3, "changed"),
        ("UPDATE audit SET at = '2020-01-01 00:00:00.000000' WHERE seq = 3", 3, "changed"),
        ("UPDATE audit SET subject = 'x' WHERE seq = 10", 10, "changed"),
        ("DELETE FROM audit WHERE seq = 4", 5, "missing"),
        ("DELETE FROM audit WHERE seq = 1", 2, "missing"),
        ("DELETE FROM audit WHERE seq >= 8", 8, "cut off"),
        ("DELETE FROM audit", 1, "cut off"),
        ("UPDATE audit SET seq = 99 WHERE seq = 10", 99, "missing"),
    ],
)
def test_whatever_is_done_to_the_rows_is_found(book: SecretBook, tmp_path: Path, statement: str, row: int, why: str) -> None:
    """A row that was changed, taken out, renumbered, or cut off at the end is named by verify."""
    for number in range(10):
        book.audit.write(ME, "set", f"shop/production/K{number}@1")
    assert book.audit.verify().ok
    tamper(tmp_path, statement)
    report = book.audit.verify()
    assert not report.ok and report.broken_at == row and why in report.why


def test_a_log_that_was_written_anew_as_a_whole_is_found(book: SecretBook, tmp_path: Path) -> None:
    """A chain that is right in itself but not the one of audit.head is found."""
    book.audit.write(ME, "set", "a")
    tamper(tmp_path, "DELETE FROM audit")
    book.store.audit.append(actor="me", origin="", action="set", subject="innocent")
    assert "not the one" in book.audit.verify().why


def test_a_loss_stays_in_the_log_for_ever(book: SecretBook, tmp_path: Path) -> None:
    """After a database was put back to an older copy, the next row is about that, and verify goes on telling it."""
    for number in range(3):
        book.audit.write(ME, "set", str(number))
    tamper(tmp_path, "DELETE FROM audit WHERE seq > 1")
    restarted = AuditLog(book.store.audit, tmp_path)
    restarted.write(ME, "set", "later")
    assert [r.action for r in book.store.audit.list()] == ["set", "head-lost", "set"]
    assert not restarted.verify().ok and "lost 1 time before" in restarted.verify().why


def test_a_row_that_is_cut_off_while_the_log_is_in_use_is_not_replaced(book: SecretBook, tmp_path: Path) -> None:
    """The next row does not take its number as if nothing had been there: it is behind one about the loss."""
    for number in range(3):
        book.audit.write(ME, "set", str(number))
    tamper(tmp_path, "DELETE FROM audit WHERE seq = 3")
    book.audit.write(ME, "set", "later")
    assert [(r.seq, r.action, r.subject) for r in book.store.audit.list()][-2:] == [
        (3, "head-lost", book.store.audit.list()[-2].subject), (4, "set", "later"),
    ]  # fmt: skip
    assert not book.audit.verify().ok and "lost 1 time before" in book.audit.verify().why


def test_a_missing_head_is_not_overlooked(book: SecretBook, tmp_path: Path) -> None:
    """Without audit.head the end of the log is not known, and verify says so."""
    book.audit.write(ME, "set", "a")
    (tmp_path / "audit.head").unlink()
    assert "audit.head" in book.audit.verify().why


def test_the_database_itself_refuses_changes(book: SecretBook) -> None:
    """Rows of the log can be neither updated nor deleted through the store's own connection."""
    book.audit.write(ME, "set", "a")
    for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit"):
        with pytest.raises(DatabaseError, match="append-only"), book.store.database.transaction() as db:
            db.execute(text(statement))


TOUCHES: dict[str, Callable[[SecretBook], object]] = {
    "reveal": lambda b: b.disclose(*WHERE, "K", by=ME),
    "export": lambda b: b.export(*WHERE, by=ME),
    "set": lambda b: b.set(*WHERE, "K", "new", by="me"),
    "unset": lambda b: b.unset(*WHERE, "K", by="me"),
    "destroy": lambda b: b.change_state(*WHERE, "K", 1, "destroyed", by=ME),
}


@pytest.mark.parametrize("touch", TOUCHES)
@pytest.mark.parametrize("broken", ["database", "head"])
def test_without_the_log_nothing_is_read_or_changed(
    book: SecretBook, touch: str, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the row or its head cannot be written, the value is refused, and it is as before when the log works again."""
    book.set(*WHERE, "K", "v", by="me")

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if broken == "database":
            patch.setattr(book.store.audit, "append_all", full)
        else:
            patch.setattr("homeport.deploys.audit.write_atomic", full)
        with pytest.raises(AuditUnavailable) as caught:
            TOUCHES[touch](book)
        assert "v" not in caught.value.why.split()
    assert book.reveal(*WHERE, "K") == "v"
    assert [row.version for row in book.store.secrets.history(*WHERE, "K")] == [1]
    book.audit.write(ME, "set", "afterwards")
    assert book.audit.verify().ok


def test_instances_start_without_the_log(book: SecretBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a release pinned is opened for a restart also while the log cannot be written: the release was written down before."""
    book.set(*WHERE, "K", "v", by="me")

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(book.store.audit, "append_all", full)
    from homeport.model.release import PinnedSecret

    assert book.open(*WHERE, PinnedSecret(name="K", version=1)) == "v"


def test_many_writers_make_one_chain(book: SecretBook) -> None:
    """Rows written by several threads at once follow each other without gap or fork."""

    def write(number: int) -> None:
        for step in range(20):
            book.audit.write(ME, "set", f"{number}-{step}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert book.audit.verify().model_dump(include={"ok", "rows"}) == {"ok": True, "rows": 120}
    assert len({r.subject for r in book.store.audit.all()}) == 120


def test_an_exported_copy_can_be_checked_by_itself(book: SecretBook) -> None:
    """Each line of an export carries what its digest is made of, and the digests follow each other."""
    import hashlib

    for number in range(5):
        book.audit.write(ME, "set", f"K{number} ünï")
    previous = "0" * 64
    for line in book.audit.export():
        row = json.loads(line)
        body = {key: row[key] for key in ("seq", "at", "actor", "origin", "action", "subject")}
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        assert row["previous"] == previous
        previous = hashlib.sha256(f"{previous}\n{canonical}".encode()).hexdigest()
        assert row["digest"] == previous


def test_an_anchor_that_was_kept_elsewhere_finds_a_new_history(book: SecretBook, tmp_path: Path) -> None:
    """Whoever writes the whole log and its head anew is found by an anchor: a row that is another, and rows that are gone."""
    for number in range(5):
        book.set(*WHERE, f"K{number}", "v", by="me")
    report = book.audit.verify()
    anchor = Head.parse(f"{report.rows}:{report.head}")
    assert book.audit.verify([anchor]).ok and book.audit.verify([Head(3, book.store.audit.list()[2].digest), anchor]).ok
    tamper(tmp_path, "DELETE FROM audit")
    (tmp_path / "audit.head").unlink()
    forged = AuditLog(book.store.audit, tmp_path)
    for number in range(4):
        forged.write(ME, "set", f"innocent {number}")
    assert forged.verify().ok, "the log alone looks whole"
    cut = forged.verify([anchor])
    assert not cut.ok and "cut off" in cut.why and cut.broken_at == 5
    forged.write(ME, "set", "innocent 4")
    other = forged.verify([anchor])
    assert not other.ok and other.broken_at == 5 and "anew" in other.why


def test_a_copy_of_the_platform_holds_the_anchor(book: SecretBook, tmp_path: Path) -> None:
    """What a backup keeps proves the log of the copy, also when rows were added meanwhile."""
    from homeport.backups import snapshot

    book.set(*WHERE, "K", "v", by="me")
    copy = tmp_path / "copy"
    snapshot.take(tmp_path, book.store, copy)
    book.set(*WHERE, "K", "w", by="me")
    kept = Head.parse(snapshot.anchor(copy))
    assert kept.seq == 1 and book.audit.verify([kept]).ok
    restored = Store.open(copy)
    report = AuditLog(restored.audit, copy).verify([kept])
    restored.close()
    assert report.ok and report.rows == 1, report.why
