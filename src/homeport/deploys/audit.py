"""The audit log: who read, wrote, revealed, exported or rotated what, and from where.

It fails closed: what cannot be written down is not done. Its head (number and digest of the newest row) is also kept in `audit.head`
beside the database, so that rows cut off at the end, and a database that was put back to an older copy, are seen as well.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from homeport.drivers.files import write_atomic
from homeport.model.errors import HomeportError
from homeport.model.views import AuditReport
from homeport.store.audit import START, AuditRow, AuditRows

log = logging.getLogger("homeport.audit")

MAX_SUBJECT = 2000


class AuditUnavailable(HomeportError):
    """The audit log cannot be written, so nothing was read or changed."""

    code = "audit-unavailable"


@dataclass(frozen=True)
class Caller:
    """Who asks, and from where."""

    name: str
    origin: str = ""


ITSELF = Caller("homeport", "control plane")


@dataclass(frozen=True)
class Head:
    """The newest row, as `audit.head` remembers it."""

    seq: int
    digest: str

    @classmethod
    def parse(cls, text: str) -> Head:
        """From `NUMBER:DIGEST`. Raises ValueError."""
        seq, colon, digest = text.strip().partition(":")
        if not colon or not seq.isdigit() or len(digest) != 64:
            raise ValueError("an anchor is NUMBER:DIGEST, as `homeport audit verify` prints it")
        return cls(int(seq), digest)


class AuditLog:
    """Writes and checks the log of one home. Thread-safe."""

    def __init__(self, rows: AuditRows, home: Path | None = None) -> None:
        """Without a home no head is kept beside the database."""
        self.rows, self._file = rows, home / "audit.head" if home is not None else None
        self._lock = threading.Lock()

    def write(self, by: Caller, action: str, subject: str) -> None:
        """Add a row, durably. Raises AuditUnavailable: then the caller must not go on."""
        self.write_all(by, [(action, subject)])

    def write_all(self, by: Caller, done: Sequence[tuple[str, str]]) -> None:
        """Add a row for each `(action, subject)`, all or none, durably. Raises AuditUnavailable."""
        with self._lock:
            try:
                self._notice_loss()
                self._append(by, *done)
            except Exception as error:
                log.error("the audit log cannot be written: %s", type(error).__name__)
                raise AuditUnavailable(
                    what="Nothing was read or changed; what runs keeps running.",
                    why="The audit log cannot be written, and secrets are not touched without it.",
                    fix="Make room on the disk of Homeport's home, or see why its database refuses writes.",
                ) from error

    def write_names(self, by: Caller, action: str, subject: str, names: Iterable[str]) -> None:
        """Add rows that together hold every name behind the subject: one, unless they are very many. Raises AuditUnavailable."""
        texts = [""]
        for name in names:
            joined = f"{texts[-1]}, {name}" if texts[-1] else name
            if len(subject) + 2 + len(joined) <= MAX_SUBJECT:
                texts[-1] = joined
            else:
                texts.append(name)
        self.write_all(by, [(action, f"{subject}: {text}") for text in texts])

    def verify(self, anchors: Iterable[Head] = ()) -> AuditReport:
        """Check every digest, every number, the head, and `anchors` that were kept elsewhere. Reads the whole log."""
        count, previous, losses, at_head = 0, START, 0, ""
        kept = {anchor.seq: anchor.digest for anchor in anchors}
        with self._lock:
            head = self.head()
            for row in self.rows.all():
                why = _fault(row, count + 1, previous)
                if not why and kept.get(row.seq, row.digest) != row.digest:
                    why = f"row {row.seq} is not the one whose anchor was kept: the log was written anew"
                if why:
                    return AuditReport(ok=False, rows=count, broken_at=row.seq, why=why, head=previous)
                count, previous = row.seq, row.digest
                losses += row.action == "head-lost"
                at_head = row.digest if head is not None and row.seq == head.seq else at_head
        if (beyond := max(kept, default=0)) > count:
            why = f"the anchor that was kept knows {beyond} rows and the log ends at {count}: rows were cut off"
        elif head is None:
            why = "audit.head is not there, so rows cut off at the end would not be seen" if count and self._file is not None else ""
        elif head.seq > count:
            why = f"audit.head knows {head.seq} rows and the log ends at {count}: rows were cut off, or the database is an older copy"
        else:
            why = "" if at_head == head.digest or head.seq == 0 else f"row {head.seq} is not the one that audit.head knows"
        if not why and losses:
            why = f"the end of the log was lost {losses} time{'s' if losses > 1 else ''} before; see the rows `head-lost`"
        return AuditReport(ok=not why, rows=count, broken_at=count + 1 if why and not losses else 0, why=why, head=previous)

    def export(self) -> Iterator[str]:
        """Every row as one line of JSON, oldest first; digests included, so that a copy can be checked elsewhere."""
        for row in self.rows.all():
            yield json.dumps({**row.__dict__, "at": row.at.isoformat(timespec="microseconds")}, ensure_ascii=False)

    def head(self) -> Head | None:
        """What `audit.head` says; None when it is not there or not readable."""
        try:
            body = json.loads(self._file.read_bytes()) if self._file is not None else {}
            return Head(int(body["seq"]), str(body["digest"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _append(self, by: Caller, *done: tuple[str, str]) -> None:
        cut = [(action[:32], subject[:MAX_SUBJECT]) for action, subject in done]
        row = self.rows.append_all(by.name[:200], by.origin[:200], cut)
        if self._file is not None:
            write_atomic(self._file, json.dumps({"seq": row.seq, "digest": row.digest}).encode(), mode=0o600)

    def _notice_loss(self) -> None:
        """Before a row is put behind a log that lost its end, the loss itself goes into the log, where it stays.

        Looked for at every write: the row would take the place of one that was cut off a moment ago, and then nobody could tell.
        """
        head = self.head()
        if head is None:
            if self._file is not None:
                if self.rows.list(limit=1):
                    self._append(ITSELF, ("head-lost", "audit.head was not there"))
                else:
                    write_atomic(self._file, json.dumps({"seq": 0, "digest": START}).encode(), mode=0o600)
            return
        if head.seq == 0:
            return
        found = self.rows.get(head.seq)
        if found is None or found.digest != head.digest:
            self._append(ITSELF, ("head-lost", f"{head.seq} {head.digest}"))


def _fault(row: AuditRow, number: int, previous: str) -> str:
    if row.seq != number:
        return f"row {number} is missing"
    if row.previous != previous:
        return f"row {number} does not follow its predecessor"
    return "" if row.computed() == row.digest else f"row {number} was changed"
