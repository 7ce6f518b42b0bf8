"""Rotation of a variable with overlap: the service gets the new value, and for a while the former one beside it.

The former value is a variable of its own, `KEY_PREVIOUS`, whose row says how long it is handed out: a program that signs with `JWT_SECRET`
and accepts what was signed with either logs nobody out. After its end no deploy pins it any more; a rollback to a release that did
still brings it back, as it does with every value.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from homeport.deploys.audit import Caller
from homeport.deploys.secrets import REFERENCE, EnvInvalid, SecretBook, random_value
from homeport.model.env import GeneratedValue
from homeport.model.spec import Spec
from homeport.model.views import ValueRotation
from homeport.store.secrets import SecretRow

PREVIOUS = "previous"
"""Source of a former value that is handed out beside the new one."""

SUFFIX = "_PREVIOUS"
_UNTIL = "until "


def rotate_value(
    book: SecretBook,
    spec: Spec | None,
    where: tuple[str, str],
    name: str,
    *,
    value: str = "",
    overlap: timedelta,
    live: int = 0,
    by: Caller,
) -> ValueRotation:
    """A new value, made by its recipe unless one is given; the former one stays beside it. Raises EnvInvalid, AuditUnavailable.

    The former one is the version `live` that the live release has, since that is what programs have signed with; without one the current.
    A value that does not open is replaced, and has no former one.
    """
    row = book.names(*where).get(name)
    key = name.rpartition("/")[2]
    if row is None or row.source == PREVIOUS:
        raise _refused(f"{key} has no value in {where[1]}.", f"Set it: `homeport env set {key}=-`.")
    if row.source in ("external", REFERENCE):
        kept = "an outside store keeps it" if row.source == "external" else "it refers to another value"
        raise _refused(f"{key} is not rotated here: {kept}.", "Rotate it where it is kept, and deploy.")
    recipe = _recipe(spec, name)
    if not value and recipe is None:
        raise _refused(f"{key} was set by hand, so nobody here can make a new one.", f"Give it: `homeport env rotate {key}=-`.")
    fresh, current = value or random_value(recipe or GeneratedValue()), _opened(book, row)
    if fresh == current:
        raise _refused(f"The new value of {key} is the one it has.", "Give another one.")
    used = book.store.secrets.version(*where, name, live) if live else None
    former = (_opened(book, used) if used is not None else None) or current
    now, beside = datetime.now(UTC), f"{name}{SUFFIX}"
    until = now + overlap
    before = book.names(*where).get(beside)
    dropped = until_of(before) if before is not None and _opened(book, before) not in (former, None) else None
    if overlap and former is not None:
        note = f"{_UNTIL}{until.isoformat(timespec='seconds')}"
        book.set(*where, beside, former, by=by.name, origin=by.origin, source=PREVIOUS, note=note)
    else:
        book.unset(*where, beside, by=by.name, origin=by.origin)
    done = book.set(*where, name, fresh, by=by.name, origin=by.origin, source="rotated")
    found = ValueRotation(name=name, version=done.version, dropped=dropped if dropped is not None and dropped > now else None)
    return found.model_copy(update={"previous": beside, "until": until}) if overlap and former is not None else found


def _opened(book: SecretBook, row: SecretRow) -> str | None:
    """The value of a version; None when it has none any more, or does not open."""
    return book.value_of(row) if row.sealed is not None and book.can_open(row) else None


def until_of(row: SecretRow) -> datetime | None:
    """When a former value is no longer handed out; None for every other."""
    return datetime.fromisoformat(row.note.removeprefix(_UNTIL)) if row.source == PREVIOUS else None


def current(rows: Mapping[str, SecretRow], moment: datetime) -> dict[str, SecretRow]:
    """Rows without former values whose time is over."""
    return {name: row for name, row in rows.items() if (until := until_of(row)) is None or until > moment}


def _recipe(spec: Spec | None, name: str) -> GeneratedValue | None:
    """How the live release's files say the value is made."""
    if spec is None:
        return None
    scope, _, key = name.rpartition("/")
    found = [service.env.get(key) for title, service in spec.services.items() if scope in ("", title)]
    found += [group.env.get(key) for group in spec.env_groups.values()]
    scoped = [v for s in spec.services.values() for v in s.env.values() if isinstance(v, GeneratedValue) and v.scope == key]
    return next((value for value in (*found, *scoped) if isinstance(value, GeneratedValue)), None)


def _refused(why: str, fix: str) -> EnvInvalid:
    return EnvInvalid(what="Nothing was changed.", why=why, fix=fix)
