"""Going back and comparing: a variable to a version, an environment to a moment, two environments or releases side by side."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

from homeport.deploys.audit import Caller
from homeport.deploys.config import declared, is_variable
from homeport.deploys.secrets import EnvInvalid, SecretBook, VersionUnavailable, is_internal
from homeport.model.env import PlainValue
from homeport.model.release import Release
from homeport.model.views import EnvChange, EnvDifference
from homeport.store.secrets import SecretRow

Side = Mapping[tuple[str, str], tuple[str, str]]
"""`(service, key)` to where the value comes from and a token that is equal for equal values."""


def restore_version(
    book: SecretBook, project: str, environment: str, name: str, version: int, *, by: Caller, dry: bool = False
) -> EnvChange:
    """Set a variable to the value an earlier version had, as a new version; with `dry` only see whether that can be done.

    Raises VersionUnavailable, EnvInvalid, AuditUnavailable, SecretDoesNotOpen.
    """
    if is_internal(name):
        raise EnvInvalid(
            what="Nothing was changed.",
            why=f"{name} is Homeport's own: the add-on would not know an earlier password.",
            fix="`homeport addons rotate` gives an add-on new passwords.",
        )
    row = book.store.secrets.version(project, environment, name, version)
    if row is None or row.sealed is None or row.state != "enabled":
        state = "not there" if row is None else row.state
        raise VersionUnavailable(
            what="Nothing was changed.",
            why=f"Version {version} of {name} in {environment} is {state}.",
            fix=f"Choose an enabled one from `homeport env history {name}`.",
        )
    value = book.value_of(row)
    if not dry:
        note = f"from version {row.version}"
        book.set(project, environment, name, value, by=by.name, origin=by.origin, source="restored", note=note)
    return EnvChange(name=name, action="set", version=version)


def restore_moment(book: SecretBook, project: str, environment: str, at: datetime, *, by: Caller, dry: bool = False) -> list[EnvChange]:
    """Bring every variable back to what it was at a moment, all of them or none. Passwords of add-ons stay: the add-ons would not know
    the old ones. A value that was generated since stays as well: the next deploy would only make another one.

    With `dry` nothing is changed and the answer says what would be. Raises AuditUnavailable, SecretDoesNotOpen.
    """
    rows = [row for row in book.store.secrets.history(project, environment) if not is_internal(row.name) and row.source != "previous"]
    then, now = _newest(row for row in rows if row.created_at <= at), _newest(rows)
    made = {row.name for row in rows if row.source == "generated"}
    changes: list[EnvChange] = []
    values: dict[str, str] = {}
    for name in sorted({*then, *now}):
        before, current = then.get(name), now.get(name)
        if before is None and current is not None and name not in made:
            changes.append(EnvChange(name=name, action="unset"))
        elif before is not None and (current is None or not book.can_open(current) or book.value_of(before) != book.value_of(current)):
            changes.append(EnvChange(name=name, action="set", version=before.version))
            values[name] = book.value_of(before)
    if changes and not dry:
        notes = {name: f"from version {then[name].version}" for name in values}
        gone = [change.name for change in changes if change.action == "unset"]
        book.set_all(project, environment, values, by=by.name, origin=by.origin, source="restored", note=notes, unset=gone)
    return changes


def _newest(rows: Iterable[SecretRow]) -> dict[str, SecretRow]:
    newest = {row.name: row for row in rows if row.state in ("enabled", "unset")}
    return {name: row for name, row in newest.items() if row.state == "enabled"}


class Comparison:
    """Compares variables without giving a value away: values meet as tokens under a key that lives as long as this object."""

    def __init__(self, book: SecretBook) -> None:
        self.book, self._key = book, secrets.token_bytes(32)

    def of_release(self, release: Release) -> Side:
        """The variables of a recorded release. Raises SecretDoesNotOpen."""
        found: dict[tuple[str, str], tuple[str, str]] = {}
        for name, service in release.spec.services.items():
            for key, value in declared(release.spec, service).items():
                plain = value.value if isinstance(value, PlainValue) else None
                token = self._token(plain) if plain is not None else value.model_dump_json()
                found[name, key] = ("file" if plain is not None else value.kind, token)
            for entry, pinned in release.secrets.get(name, {}).items():
                key = entry.rpartition("/")[2]
                row = self.book.store.secrets.version(release.project, release.environment, pinned.name, pinned.version)
                if row is not None and row.sealed is not None and is_variable(key) and not is_internal(entry):
                    found[name, key] = (f"{row.source} v{row.version}", self._token(self.book.value_of(row)))
        return found

    def of_vault(self, project: str, environment: str) -> Side:
        """What is set in an environment now, whether or not a release uses it yet."""
        rows = {name: row for name, row in self.book.names(project, environment).items() if not is_internal(name)}
        return {
            (name.rpartition("/")[0] or "*", name.rpartition("/")[2]): (
                f"{row.source} v{row.version}",
                self._token(self.book.value_of(row)),
            )
            for name, row in rows.items()
        }

    def compare(self, left: Side, right: Side) -> list[EnvDifference]:
        """Every variable of both sides, by service and key."""
        found = []
        for service, key in sorted({*left, *right}):
            a, b = left.get((service, key)), right.get((service, key))
            status: Literal["different", "only-left", "only-right", "same"]
            if a is None or b is None:
                status = "only-right" if a is None else "only-left"
            else:
                status = "same" if hmac.compare_digest(a[1], b[1]) else "different"
            found.append(EnvDifference(service=service, key=key, status=status, left=a[0] if a else "", right=b[0] if b else ""))
        return found

    def _token(self, value: str) -> str:
        return hmac.new(self._key, value.encode(), hashlib.sha256).hexdigest()
