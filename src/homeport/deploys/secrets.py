"""Secrets of an environment: set, pinned by releases, opened only to start something.

A name is `KEY` for the whole environment or `service/KEY` for one service; group values are environment-wide.
"""

from __future__ import annotations

import base64
import contextlib
import re
import secrets
import string
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy.exc import IntegrityError

from homeport.deploys.audit import ITSELF, AuditLog, Caller
from homeport.deploys.literals import PREFIX, is_reference, literals
from homeport.drivers.vault.seal import Sealer, SecretDoesNotOpen
from homeport.model.env import GeneratedValue
from homeport.model.errors import HomeportError
from homeport.model.release import PinnedSecret, Release
from homeport.store import Store
from homeport.store.secrets import SecretRow, unset_row

REFERENCE = "reference"
"""Source of a value that is no secret but says where one is: `${{Postgres.DATABASE_URL}}` (see `references.py`)."""

MAX_VALUE = 128 * 1024
"""Bytes of `KEY=VALUE` with the NUL behind it: what Linux allows for one string (MAX_ARG_STRLEN, execve(2))."""


class SecretsMissing(HomeportError):
    """A deploy needs values that nobody has set."""

    code = "secrets-missing"

    def __init__(self, missing: Mapping[str, str], environment: str) -> None:
        self.missing, self.environment = dict(missing), environment
        shown = ", ".join(self.missing)
        super().__init__(
            what="Nothing was changed; what runs keeps running.",
            why=f"These values are required and not set: {shown}.",
            fix=f"Set each with `homeport env set KEY --env {environment}`, which asks for it, or deploy with `--env-file FILE`.",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return SecretsMissing, (self.missing, self.environment)


class EnvInvalid(HomeportError):
    """A variable cannot be set like this."""

    code = "env-invalid"


class VersionUnavailable(HomeportError):
    """A version that is asked for is not there, or has no value."""

    code = "secret-version-unavailable"


@dataclass(frozen=True)
class Change:
    """What setting a value did."""

    name: str
    version: int
    changed: bool


class SecretBook:
    """Reads and writes the sealed values of every environment. What people read and write is audited, first."""

    def __init__(self, store: Store, sealer: Sealer, audit: AuditLog | None = None) -> None:
        self.store, self.sealer, self.audit = store, sealer, audit or AuditLog(store.audit)
        self.writing = threading.RLock()
        """Held from sealing a value until its row is written: while it is free, every sealed value is a row."""

    def set(
        self,
        project: str,
        environment: str,
        name: str,
        value: str,
        *,
        by: str,
        source: str = "cli",
        note: str = "",
        origin: str = "",
    ) -> Change:
        """Set one value as `set_all` does."""
        return self.set_all(project, environment, {name: value}, by=by, source=source, note=note, origin=origin)[0]

    def set_all(
        self,
        project: str,
        environment: str,
        values: Mapping[str, str],
        *,
        by: str,
        source: str = "cli",
        note: str | Mapping[str, str] = "",
        origin: str = "",
        unset: Iterable[str] = (),
    ) -> list[Change]:
        """Set values as new versions and take those of `unset` away, all of it or nothing; an equal value changes nothing.

        A note may differ by name. The answer has the values first, then the names that were unset. Raises EnvInvalid, AuditUnavailable.
        """
        for name, value in values.items():
            _check(name, value)
        gone = list(dict.fromkeys(unset))
        if both := [name for name in gone if name in values]:
            raise EnvInvalid(what="Nothing was set.", why=f"{both[0][:100]} is to be set and taken away at once.", fix="Name it once.")
        with self.writing:
            while True:
                changes, rows = self._next(project, environment, values, by=by, source=source, note=note)
                if gone:
                    taken = self._gone(project, environment, gone, by=by)
                    rows += taken.values()
                    changes += [Change(name, taken[name].version if name in taken else 0, changed=name in taken) for name in gone]
                if rows:
                    told = [row for row in rows if not row.name.startswith(PREFIX) or row.state == "unset"]
                    self.audit.write_all(
                        Caller(by, origin), [(_verb(row), _place(project, environment, row.name, row.version)) for row in told]
                    )
                    try:
                        self.store.secrets.add(*rows)
                    except IntegrityError:  # somebody else took a number at the same moment
                        continue
                return changes

    def _gone(self, project: str, environment: str, names: Iterable[str], *, by: str) -> dict[str, SecretRow]:
        """The rows that take names away which have a value."""
        known, numbers = self.store.secrets.current(project, environment), self.store.secrets.numbers(project, environment)
        return {name: unset_row(project, environment, name, numbers[name] + 1, by) for name in names if name in known}

    def _next(
        self, project: str, environment: str, values: Mapping[str, str], *, by: str, source: str, note: str | Mapping[str, str]
    ) -> tuple[list[Change], list[SecretRow]]:
        """What setting these values would change, with the rows to add."""
        known, numbers = self.store.secrets.current(project, environment), self.store.secrets.numbers(project, environment)
        changes, rows, now = list[Change](), list[SecretRow](), datetime.now(UTC)
        parts = {entry: text for name, value in values.items() for entry, text in literals(name, value).items()}
        for name, value in {**values, **parts}.items():
            current = known.get(name)
            if current is not None and self._holds(current, value):
                changes.append(Change(name, current.version, changed=False))
                continue
            version = numbers.get(name, 0) + 1
            sealed = self.sealer.seal(value, _place(project, environment, name, version))
            kind = REFERENCE if is_reference(value) else source
            about = note if isinstance(note, str) else note.get(name, "")
            rows.append(SecretRow(project, environment, name, version, sealed, "enabled", kind, now, by, about))
            changes.append(Change(name, version, changed=True))
        return changes[: len(values)], rows

    def unset(self, project: str, environment: str, name: str, *, by: str, origin: str = "") -> bool:
        """Unset one name as `unset_all` does; False when it had no value."""
        return bool(self.unset_all(project, environment, [name], by=by, origin=origin))

    def unset_all(self, project: str, environment: str, names: Iterable[str], *, by: str, origin: str = "") -> list[str]:
        """The names have no value from now on; releases that pinned one keep it. Returns those that had one. Raises AuditUnavailable."""
        done = self.set_all(project, environment, {}, by=by, origin=origin, unset=names)
        return [change.name for change in done if change.changed]

    def disclose(self, project: str, environment: str, name: str, *, by: Caller, version: int | None = None) -> str | None:
        """A value for a person; the look is written down first. None when there is none. Raises AuditUnavailable, SecretDoesNotOpen."""
        row = self._row(project, environment, name, version)
        if row is None or row.sealed is None:
            return None
        self.audit.write(by, "reveal", _place(project, environment, name, row.version))
        return self._open(row)

    def export(self, project: str, environment: str, *, by: Caller) -> dict[str, str]:
        """Every value for a person, by name, without those of add-ons; written down first. Raises AuditUnavailable."""
        rows = {name: row for name, row in self.names(project, environment).items() if not is_internal(name) and row.source != "previous"}
        self.audit.write_names(by, "export", f"{project}/{environment}", [f"{n}@{r.version}" for n, r in rows.items()])
        return {name: self._open(row) for name, row in rows.items()}

    def reveal(self, project: str, environment: str, name: str, version: int | None = None) -> str | None:
        """A value for Homeport itself; None when there is none. Raises SecretDoesNotOpen."""
        row = self._row(project, environment, name, version)
        return self._open(row) if row is not None and row.sealed is not None else None

    def open(self, project: str, environment: str, pin: PinnedSecret) -> str:
        """The value a release pinned. Raises SecretDoesNotOpen, EnvInvalid when the version was destroyed or disabled."""
        return self.opener(project, environment, [pin])(pin)

    def opener(self, project: str, environment: str, pins: Iterable[PinnedSecret]) -> Callable[[PinnedSecret], str]:
        """What `open` does, for many pins with one look into the store."""
        known = {(pin.name, pin.version) for pin in pins}
        rows = self.store.secrets.versions(project, environment, known)

        def opened(pin: PinnedSecret) -> str:
            if (pin.name, pin.version) not in known:
                return self.open(project, environment, pin)
            return self._pinned(pin, rows.get((pin.name, pin.version)))

        return opened

    def shown(self, project: str, environment: str, pins: Iterable[PinnedSecret]) -> list[str]:
        """The values of pins that still have one, for masking them. Raises SecretDoesNotOpen."""
        rows = self.store.secrets.versions(project, environment, [(pin.name, pin.version) for pin in pins])
        return [self._open(row) for row in rows.values() if row.sealed is not None]

    def opens(self, release: Release) -> bool:
        """Whether every value that a release pins opens."""
        pins = [(pinned.name, pinned.version) for mine in release.secrets.values() for pinned in mine.values()]
        rows = self.store.secrets.versions(release.project, release.environment, pins)
        return all(self.can_open(row) for row in rows.values())

    def can_open(self, row: SecretRow) -> bool:
        """Whether a version has a value that this vault opens, or has none."""
        try:
            if row.sealed is not None:
                self._open(row)
        except SecretDoesNotOpen:
            return False
        return True

    def own_values(self, project: str, environment: str) -> list[str]:
        """Every version of Homeport's own entries, for masking them: an instance may still have a password that was rotated since."""
        found: list[str] = []
        for row in self.store.secrets.beginning(project, environment, OWN):
            with contextlib.suppress(SecretDoesNotOpen):  # of a vault whose key was lost
                found.append(self._open(row))
        return found

    def _pinned(self, pin: PinnedSecret, row: SecretRow | None) -> str:
        if row is None or row.sealed is None or row.state == "disabled":
            state = "gone" if row is None else row.state
            raise EnvInvalid(
                what="The release was not started; what runs keeps running.",
                why=f"Version {pin.version} of {pin.name}, which it needs, is {state}.",
                fix="Enable that version again, or deploy a new release that uses the current one.",
            )
        return self._open(row)

    def generate(self, project: str, environment: str, name: str, recipe: GeneratedValue) -> int:
        """The version of a generated value, made the first time it is asked for."""
        current = self.store.secrets.current(project, environment).get(name)
        if current is None:
            return self.set(
                project, environment, name, random_value(recipe), by="homeport", source="generated", origin=ITSELF.origin
            ).version
        return current.version

    def change_state(
        self, project: str, environment: str, name: str, version: int, state: Literal["enabled", "disabled", "destroyed"], *, by: Caller
    ) -> SecretRow:
        """Enable, disable or destroy one version. Destroyed is for ever. Raises VersionUnavailable, AuditUnavailable."""
        row = self.store.secrets.version(project, environment, name, version)
        if row is None or row.state == "unset" or (row.state == "destroyed" and state != "destroyed"):
            why = f"{name} has no version {version} with a value in {environment}." if row is None or row.state == "unset" else ""
            raise VersionUnavailable(
                what="Nothing was changed.",
                why=why or f"Version {version} of {name} was destroyed; nobody can bring its value back.",
                fix=f"See its versions with `homeport env history {name}`.",
            )
        current = self.store.secrets.current(project, environment).get(name)
        if name.startswith("addon.") and state != "enabled" and current is not None and current.version == version:
            addon = name.removeprefix("addon.").partition("/")[0]
            raise VersionUnavailable(
                what="Nothing was changed.",
                why=f"{name} is the password that the add-on {addon} has now; without it no service could connect.",
                fix=f"Give it another one: `homeport addons rotate {addon}`.",
            )
        verb = {"enabled": "enable", "disabled": "disable", "destroyed": "destroy"}[state]
        self.audit.write(by, verb, _place(project, environment, name, version))
        values: dict[str, object] = {"state": state, **({"sealed": None} if state == "destroyed" else {})}
        for one in (row, *(self._parts(row) if state == "destroyed" else ())):
            self.store.secrets.change(project, environment, one.name, one.version, **values)
        return replace(row, **values)  # type: ignore[arg-type]

    def _parts(self, row: SecretRow) -> list[SecretRow]:
        """Texts around references that were set with a version and are not in use any more."""
        if row.source != REFERENCE:
            return []
        current = self.store.secrets.current(row.project, row.environment)
        parts = [r for r in self.store.secrets.history(row.project, row.environment) if r.name.startswith(f"{PREFIX}{row.name}.")]
        in_use = row.name in current and current[row.name].version != row.version
        return [p for p in parts if p.created_at == row.created_at and not (in_use and current.get(p.name) == p)]

    def names(self, project: str, environment: str) -> dict[str, SecretRow]:
        """The current version of every name."""
        return self.store.secrets.current(project, environment)

    def value_of(self, row: SecretRow) -> str:
        """The value of a row that was read. Raises SecretDoesNotOpen."""
        return self._open(row)

    def seal_again(self, rows: Sequence[SecretRow]) -> int:
        """Seal versions' values with the data key in use; returns how many. Those that changed meanwhile stay as they are."""
        with self.writing:
            again = [(row, self.sealer.seal(self._open(row), _place(row.project, row.environment, row.name, row.version))) for row in rows]
            return self.store.secrets.reseal(again)

    def _row(self, project: str, environment: str, name: str, version: int | None) -> SecretRow | None:
        if version is None:
            return self.store.secrets.current(project, environment).get(name)
        row = self.store.secrets.version(project, environment, name, version)
        return row if row is not None and row.state == "enabled" else None

    def _holds(self, row: SecretRow, value: str) -> bool:
        """Whether a version has this value. One that does not open has none: setting the value again is what mends it."""
        try:
            return self._open(row) == value
        except SecretDoesNotOpen:
            return False

    def _open(self, row: SecretRow) -> str:
        return self.sealer.open(row.sealed or b"", _place(row.project, row.environment, row.name, row.version))


OWN = ("addon.", PREFIX)
"""What the names of Homeport's own entries begin with."""

_VERBS = {"generated": "generate", "restored": "restore", "rotated": "rotate", "previous": "rotate"}


def _verb(row: SecretRow) -> str:
    """What the audit log calls the adding of a version."""
    return "unset" if row.state == "unset" else _VERBS.get(row.source, "set")


def is_internal(name: str) -> bool:
    """Whether an entry is Homeport's own (a password of an add-on, a text around a reference) and no variable."""
    return name.startswith(OWN)


def _place(project: str, environment: str, name: str, version: int) -> str:
    return f"{project}/{environment}/{name}@{version}"


_VARIABLE = re.compile(r"^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?/)?[A-Za-z_][A-Za-z0-9_.-]{0,199}$")


def check_name(name: str) -> None:
    """A name that a person may set: `KEY` or `service/KEY`. Homeport's own entries are none. Raises EnvInvalid."""
    if not _VARIABLE.fullmatch(name) or is_internal(name):
        raise EnvInvalid(
            what="Nothing was set.",
            why=f"{name[:100]!r} is not the name of an environment variable.",
            fix="Use letters, digits and underscores, such as API_TOKEN; for one service give `--service`.",
        )


def _check(name: str, value: str) -> None:
    key = name.rsplit("/", 1)[-1]
    try:
        size = len(key.encode()) + len(value.encode()) + 2  # KEY=VALUE and the NUL behind it
    except UnicodeEncodeError:
        size = -1
    why, fix = "", "Put large or binary values in a file on a disk, or encode them."
    if not key or "=" in key or "\0" in key or any(c.isspace() for c in key) or len(name) > 300:
        why, fix = f"{key[:60]!r} is not the name of an environment variable.", "Use letters, digits and underscores."
    elif size < 0:
        why = f"The value of {key} is not text (UTF-8)."
    elif "\0" in value:
        why = f"The value of {key} holds a NUL byte, which no program can receive."
    elif size > MAX_VALUE:
        why = f"{key} with its value is larger than {MAX_VALUE // 1024} KiB, the most that Linux passes on."
    if why:
        raise EnvInvalid(what="Nothing was set.", why=why, fix=fix)


def random_value(recipe: GeneratedValue) -> str:
    """A value as a recipe says."""
    raw = secrets.token_bytes(recipe.bytes)
    if recipe.format == "hex":
        return raw.hex()
    if recipe.format == "uuid":
        return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))
    if recipe.format == "alphanumeric":
        return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(recipe.bytes))
    return base64.b64encode(raw).decode()
